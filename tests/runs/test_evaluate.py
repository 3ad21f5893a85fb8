"""`evaluate`: any model, any data, any attack, in one call."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_data import CLASSES, PATHS, make_images
from torch import nn
from torch.utils.data import TensorDataset, random_split
from transformers import AutoProcessor, CLIPImageProcessorPil, CLIPModel

from hf_hierrobust import evaluate
from hf_hierrobust.attacks import PGD, Attack
from hf_hierrobust.data import ClassSet
from hf_hierrobust.evaluation import AttackPlan, EvaluationSet, evaluate_model
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.reports import records_table

QUICK = {"num_steps": 2, "progress": False}


@dataclass(kw_only=True)
class Inverted(Attack):
    """A new attack, outside the package: as far as allowed towards the negative."""

    name: ClassVar[str] = "inverted"

    def run(self, victim, pixels, labels, generator):
        return 1 - pixels


class Corner(nn.Module):
    """Four classes by the mean of the red and green channels; no dual encoder."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))

    def forward(self, pixels):
        return (pixels.mean((2, 3))[:, :2] - 0.5) @ self.weight.T * 20


@pytest.fixture(scope="module")
def images():
    return make_images(12)


def values(records):
    return [(r.level_name, r.classifier, r.clean_accuracy, r.robust_accuracy, r.flags) for r in records]


def test_the_snippet_of_the_readme(tiny_clip_dir, images):
    records = evaluate(tiny_clip_dir, images, attack="pgd", eps="4/255", tree=PATHS, num_steps=2)
    print(records_table(records))
    assert [(r.level_name, r.classifier) for r in records] == [
        ("leaf", "cosine"),
        ("superclass", "cosine"),
        ("superclass", "rollup"),
    ]
    assert all(r.attack["loss"] == "ce+margin" and r.attack["eps_text"] == "4/255" for r in records)


def test_every_way_to_name_a_model_measures_the_same(tiny_clip_dir, images):
    processor = AutoProcessor.from_pretrained(tiny_clip_dir)
    data = EvaluationSet(
        name="d",
        dataset=images,
        class_set=ClassSet.from_names(CLASSES),
        tree=LabelTree.from_paths(PATHS, name="tree"),
    )
    ours = RobustCLIPModel.from_pretrained(tiny_clip_dir)
    plan = AttackPlan.of("pgd", "4/255", num_steps=2)
    wanted = values(
        evaluate_model(ours, processor, [data], plan, model_name="m", batch_size=250, progress=False)
    )
    stock = CLIPModel.from_pretrained(tiny_clip_dir)
    for model, more in (
        (tiny_clip_dir, {}),
        (ours, {"processor": processor}),
        (stock, {}),
        (stock.train(), {"processor": processor}),
        (get_peft_model(copy.deepcopy(stock), LoraConfig(target_modules=["q_proj"])), {}),  # B starts at 0
    ):
        found = evaluate(model, images, eps="4/255", tree=PATHS, **more, **QUICK)
        assert values(found) == wanted
    assert stock.training and not stock.vision_model.encoder.layers[0].mlp.fc1.weight.grad


def test_data_of_every_kind(tiny_clip_dir, images, data_dir):
    whole = values(evaluate(tiny_clip_dir, images, **QUICK))
    (part, _) = random_split(images.with_format("torch"), [12, 0], torch.Generator().manual_seed(0))
    shuffled = evaluate(tiny_clip_dir, part, **QUICK)
    assert shuffled[0].clean_accuracy == whole[0][2]
    (record,) = evaluate(tiny_clip_dir, data_dir / "test.parquet", num_samples=8, **QUICK)
    assert (record.split, record.num_samples) == ("test", 8) and record.dataset.endswith("-test")
    (named,) = evaluate(tiny_clip_dir, images, split="odd", dataset_name="mine", model_name="m", **QUICK)
    assert (named.split, named.dataset, named.model) == ("odd", "mine", "m")


def test_a_new_attack_from_outside_alone_and_in_a_list(tiny_clip_dir, images):
    (alone,) = evaluate(tiny_clip_dir, images, attack=Inverted(eps="16/255"), progress=False)
    assert alone.attack["name"] == "inverted" and alone.attack["eps_text"] == "16/255"
    assert alone.checks["robust_after_inverted"] == pytest.approx(alone.robust_accuracy)
    (both,) = evaluate(tiny_clip_dir, images, attack=[Inverted(), "pgd"], eps="16/255", **QUICK)
    assert both.attack["name"] == "inverted+pgd" and both.robust_accuracy <= alone.robust_accuracy
    assert set(both.checks) >= {"robust_after_inverted", "robust_after_pgd_ce", "robust_after_pgd_margin"}


def test_several_budgets(tiny_clip_dir, images):
    for eps in ("1/255, 4/255", ["1/255", 4 / 255]):
        found = evaluate(tiny_clip_dir, images, eps=eps, **QUICK)
        assert [r.attack["eps_text"] for r in found] == ["1/255", "4/255"]


def test_a_network_that_is_no_dual_encoder(images):
    net = Corner().train()
    found = evaluate(net, images, eps="8/255", tree=PATHS, **QUICK)
    assert [(r.level_name, r.classifier, r.num_classes) for r in found] == [
        ("leaf", "network", 4),
        ("superclass", "rollup", 2),
    ]
    pixels = torch.stack([torch.from_numpy(__import__("numpy").array(i)) for i in images["image"]])
    pixels = pixels.permute(0, 3, 1, 2) / 255
    right = net(pixels).argmax(1) == torch.tensor(images["label"])
    assert found[0].clean_accuracy == pytest.approx(float(right.float().mean()))
    assert found[0].model == "Corner" and found[0].model_hash and net.training
    assert found[0].templates_hash is None and net.weight.requires_grad
    as_function = evaluate(lambda x: net(x), images, eps="8/255", **QUICK)
    assert values(as_function) == values(found[:1])


def test_a_network_and_numbered_images():
    pixels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    data = TensorDataset(pixels, torch.arange(8) % 3)  # the fourth class has no image
    (record,) = evaluate(Corner(), data, attack=PGD(eps="8/255", num_steps=2), progress=False)
    assert record.num_classes == 4 and record.sample_ids["per_class"]["without"] == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attack": "pgb"}, "attack='pgb' is unknown"),
        ({"eps": "8"}, "did you mean 8/255"),
        ({"classifiers": "cosin"}, r"unknown classifiers \['cosin'\]"),
        ({"tree": "cifar100-forest"}, "lacks|differ|no class|not"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_samples": 2.5}, "num_samples=2.5 must be an integer"),
        ({"batch_size": 0}, "batch_size=0 must be an integer, at least 1"),
        ({"seed": "a"}, "seed='a' must be a whole number"),
        ({"seed": 2**70}, "seed=1180591620717411303424 must be a whole number of 64 bits"),
        ({"progress": "no"}, "progress='no' must be True or False"),
        ({"device": "gpu"}, "device='gpu' cannot be used here"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used here"),
        ({"eps": ["1/255", 1 / 255]}, "the budget .* is there twice"),
        ({"model": Corner(), "space": "model"}, "give processor, or space='native'"),
        (
            {"model": Corner(), "processor": CLIPImageProcessorPil()},
            "processor has no effect: .* space='model'",
        ),
        ({"model": Corner(), "template": "a {}"}, "template has no effect on a Corner"),
        ({"model": Corner(), "class_set": "cifar10"}, "gives 4 logits, but 'cifar10' has 10 classes"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else "",
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(tiny_clip_dir, images, changes, words):
    options = {"model": tiny_clip_dir, "dataset": images, "progress": False} | changes
    with pytest.raises(ValueError, match=words):
        evaluate(**options)


def test_kind07_nan_logits_of_a_wrong_image_make_no_record(images):
    class Broken(Corner):
        def forward(self, pixels):
            logits = super().forward(pixels)
            return torch.where(torch.arange(len(pixels))[:, None] == len(pixels) - 1, torch.nan, logits)

    with pytest.raises(ValueError, match="NaN"):
        evaluate(Broken(), images, **QUICK)


def test_kind31_images_of_different_sizes_are_measured_at_the_models_size(tiny_clip_dir, caplog):
    images = make_images(8).cast_column("image", datasets.Image())
    mixed = datasets.concatenate_datasets([images.select(range(4)), make_images(4, size=40)])
    (record,) = evaluate(tiny_clip_dir, mixed, classifiers="cosine", num_steps=1, progress=False)
    assert record.attack["space"] == "model" and "images differ in size" in caplog.text
    (record,) = evaluate(tiny_clip_dir, images, classifiers="cosine", num_steps=1, progress=False)
    assert record.attack["space"] == "native"


def test_kind31_a_folder_without_splits_is_measured_whole(tiny_clip_dir, tmp_path):
    for index, row in enumerate(make_images(8)):
        (tmp_path / "pets" / CLASSES[row["label"]]).mkdir(parents=True, exist_ok=True)
        row["image"].save(tmp_path / "pets" / CLASSES[row["label"]] / f"{index}.png")
    (record,) = evaluate(
        str(tiny_clip_dir), str(tmp_path / "pets"), classifiers="cosine", num_steps=1, progress=False
    )
    assert (record.dataset, record.split, record.num_samples) == ("pets", "train", 8)


def test_every_kind_of_record_in_one_call(tiny_clip_dir, images):
    records = evaluate(
        tiny_clip_dir,
        images,
        eps="8/255",
        tree=PATHS,
        classifiers="cosine",
        transfer=True,
        targets="within, outside",
        text_attack="embedding",
        text_orders=["text_first", "joint"],
        defence="ttc",
        eot=1,
        **QUICK,
    )
    kinds = []
    for record in (r for r in records if not r.direct):
        kind = record.attack.get("target") or record.attack.get("text_order") or record.attack["name"]
        kinds.append(record.defence["name"] if record.defence else kind)
    leaf = ["within superclass", "outside superclass", "ttc", "embedding", "text_first", "joint"]
    assert kinds == [*leaf, "ttc", *["pgd"] * 4]
    shown = records_table(records)
    for words in ("cosine + ttc", "crafted at leaf", "within superclass", "embedding+pgd-2", "joint"):
        assert words in shown


def test_a_network_has_transfer_targets_and_checks_but_no_text_side(images):
    records = evaluate(
        Corner(), images, eps="8/255", tree=PATHS, transfer=True, targets=["outside"], checks=True, **QUICK
    )
    assert [
        (r.classifier, r.crafted_level, r.judged_level) for r in records if r.crafted_level is not None
    ] == [("rollup", i, j) for i in (0, 1) for j in (0, 1)]
    assert all("diagnostics" in r.checks for r in records if r.direct)
    for unused in ({"defence": "ttc"}, {"text_attack": "gradient"}):
        with pytest.raises(ValueError, match=f"{next(iter(unused))} has no effect on a Corner"):
            evaluate(Corner(), images, **unused, **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"transfer": True}, "transfer=True has no effect without a class tree"),
        ({"targets": "within"}, "targets=.*has no effect without a class tree"),
        ({"defence": "tcc"}, "defence='tcc' is unknown: choose ttc"),
        ({"eot": 3}, "eot=3 has no effect without a defence"),
        ({"text_orders": "joint"}, "no effect without a text_attack"),
        ({"drift_samples": 8}, "drift_samples=8 has no effect without drift_base"),
        ({"drift_base": "x", "drift_samples": 0}, "drift_samples=0 must be a number of images"),
        ({"drift_base": "x", "classifiers": "rollup"}, "drift_base has no effect without the classifier"),
        ({"classifiers": "cosine,hyperbolic"}, "'hyperbolic' was asked for, but the model has no calibrated"),
        ({"classifiers": ["cosine", "rollup"]}, "'rollup' was asked for, but there is no class tree"),
    ],
)
def test_options_without_effect_are_refused(tiny_clip_dir, images, options, words):
    with pytest.raises(ValueError, match=words):
        evaluate(tiny_clip_dir, images, **options, **QUICK)
