"""Each threat space is measured with its own preprocessing."""

from __future__ import annotations

import pytest
import torch
from tiny_data import CLASSES, make_images
from transformers import AutoProcessor

from hf_hierrobust.attacks import PGD
from hf_hierrobust.data import ClassSet
from hf_hierrobust.evaluation import (
    AttackPlan,
    EvaluationSet,
    attack_classifier,
    build_attacks,
    evaluate_model,
)
from hf_hierrobust.evaluation.flags import unpack_flags
from hf_hierrobust.modeling import load_robust_model

TEMPLATE = "a photo of a {}"


@pytest.fixture
def checkpoint(tiny_clip_dir):
    """The tiny model with a processor that resizes to 38 and crops 32, as 256 and 224 do."""
    processor = AutoProcessor.from_pretrained(tiny_clip_dir)
    processor.image_processor.size = {"shortest_edge": 38}
    processor.image_processor.crop_size = {"height": 32, "width": 32}
    return load_robust_model(tiny_clip_dir).eval(), processor


@pytest.mark.parametrize("size", [24, 32, 60])
def test_kind02_both_spaces_of_one_plan_are_preprocessed_as_the_stock_processor_does(checkpoint, size):
    model, processor = checkpoint
    images = make_images(24, seed=3, size=size)
    inputs = processor(
        text=[TEMPLATE.replace("{}", name) for name in CLASSES],
        images=list(images["image"]),
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        stock = model(**inputs).logits_per_image.argmax(1)
    right = (stock == torch.tensor(images["label"][:])).tolist()
    budgets = [build_attacks("pgd-ce", space=space, num_steps=1) for space in ("native", "model")]
    records = evaluate_model(
        model,
        processor,
        [EvaluationSet(name="d", dataset=images, class_set=ClassSet.from_names(CLASSES))],
        AttackPlan(budgets=tuple(budgets)),
        model_name="tiny",
        template=TEMPLATE,
        classifiers=["cosine"],
        progress=False,
    )
    assert [record.attack["space"] for record in records] == ["native", "model"]
    for record in records:
        assert unpack_flags(record.flags["clean"], 24).tolist() == right


def test_kind11_a_negative_label_is_not_the_last_node(checkpoint):
    """In a map from leaves to nodes it picked the last leaf's."""
    pixels = torch.rand(2, 3, 8, 8)
    batches = [{"pixels": pixels, "labels": torch.tensor([0, -1])}]
    for to_class in (torch.tensor([0, 0, 1, 1]), None):
        with pytest.raises(ValueError, match=r"labels.*-1"):
            attack_classifier(lambda x: x.mean((2, 3)), batches, [PGD(num_steps=1)], to_class=to_class)
