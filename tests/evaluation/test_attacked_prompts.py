"""Evaluation with attacked class prompts, alone and before the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from tiny_data import CLASSES, PATHS, make_images
from transformers import AutoProcessor

from hf_hierrobust.attacks import TextAttack
from hf_hierrobust.classifiers import ZeroShotClassifier
from hf_hierrobust.data import ClassSet, PixelDataset
from hf_hierrobust.evaluation import AttackPlan, EvaluationSet, evaluate_model
from hf_hierrobust.evaluation.flags import unpack_flags
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import PixelPipeline, RobustCLIPModel, encode_prompts


@dataclass(kw_only=True)
class Reversed(TextAttack):
    """Turns every second prompt into nonsense: strong enough to see, and its own oracle."""

    name: ClassVar[str] = "reversed"

    def run(self, texts, clean, encoder, score, generator):
        return [text if row % 2 else text[::-1] for row, text in enumerate(texts)], clean


def test_attacked_prompts_add_a_record_alone_and_one_per_budget(tiny_clip_dir):
    """Against loops: right with both sets of prompts; and under PGD against either."""
    model = RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()
    processor = AutoProcessor.from_pretrained(tiny_clip_dir)
    data = EvaluationSet(
        name="tiny",
        dataset=PixelDataset(make_images(12)),
        class_set=ClassSet.from_names(CLASSES),
        tree=LabelTree.from_paths(PATHS, name="tiny"),
        num_samples=10,
    )
    plan = AttackPlan.of("pgd-ce", ["1/255", "16/255"], besides={"text_attack": Reversed()}, num_steps=2)
    found = evaluate_model(
        model,
        processor,
        [data],
        plan,
        model_name="org/tiny",
        classifiers=["cosine"],
        template="a {}",
        batch_size=4,
        progress=False,
    )
    batch = data.loader(processor, "native", 16).collate_fn([data.dataset[row] for row in data.rows])
    prompts = [f"a {name}" for name in data.class_set.class_names]
    prompts = [p if row % 2 else p[::-1] for row, p in enumerate(prompts)]
    states = encode_prompts(model, processor.tokenizer, prompts)
    classifier = ZeroShotClassifier(model, PixelPipeline(processor.image_processor), states)
    with torch.no_grad():
        right = classifier(batch["pixels"]).argmax(1) == batch["labels"]
    leaf = [r for r in found if r.level == 0]
    by_name = {(r.attack["name"], r.attack["eps_text"]): r for r in leaf}
    assert list(by_name) == [
        ("pgd", "1/255"),
        ("reversed", "0"),
        ("reversed+pgd", "1/255"),
        ("pgd", "16/255"),
        ("reversed+pgd", "16/255"),
    ]
    text = by_name["reversed", "0"]
    clean = unpack_flags(text.flags["clean"], 10)
    assert torch.equal(unpack_flags(text.flags["robust"], 10), clean & right)
    for eps in ("1/255", "16/255"):
        image, joint = by_name["pgd", eps], by_name["reversed+pgd", eps]
        standing = unpack_flags(joint.flags["robust"], 10)
        allowed = unpack_flags(image.flags["robust"], 10) & unpack_flags(text.flags["robust"], 10)
        assert not (standing & ~allowed).any() and joint.clean_accuracy == image.clean_accuracy
        assert joint.attack["text_attack"]["name"] == "reversed"
    assert [r.attack["name"] for r in found if r.level == 1] == ["pgd", "pgd"]
