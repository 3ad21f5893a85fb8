"""Objectives and attacks of one's own, and data or losses that stop a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from datasets import ClassLabel
from tiny_data import CLASSES, make_images
from tiny_runs import (
    checkpoint_weights,
    first_batch,
    furthest,
    make_trainer,
    perturb,
    train,
    views_of,
    weights,
)

from hf_hierrobust.attacks import Perturbation, TrainingPGD, UniversalHierarchicalAttack
from hf_hierrobust.data import PixelDataset
from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.hub import render_card
from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.objectives import HierRobust, Objective, TeCoA
from hf_hierrobust.training import NonFiniteLossError
from hf_hierrobust.training.card import card_facts


@dataclass(kw_only=True)
class NanAtStepTwo(TeCoA):
    """A loss that breaks down after the first step."""

    name: ClassVar[str] = "nan_at_step_two"
    calls: int = 0

    def loss(self, views, targets):
        self.calls += 1
        terms = super().loss(views, targets)
        return terms | {"extra": terms["ce"] * (float("nan") if self.calls > 1 else 1.0)}


def test_a_non_finite_loss_stops_the_run_and_names_the_way_back(tiny_clip_dir, tmp_path):
    trainer = make_trainer(
        tiny_clip_dir, tmp_path, objective=NanAtStepTwo(), save_strategy="steps", save_steps=1, max_steps=4
    )
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train()
    message = str(caught.value)
    assert "step 1" in message and "extra=nan" in message and "ce=" in message
    assert str(tmp_path / "checkpoint-1") in message and "learning_rate" in message
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert furthest(weights(trainer.model), checkpoint_weights(tmp_path / "checkpoint-1")) == 0


def test_a_non_finite_loss_before_any_checkpoint_says_so(tiny_clip_dir, tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"step 0.*none was saved yet"):
        train(tiny_clip_dir, tmp_path, objective=NanAtStepTwo(calls=1))


@dataclass(kw_only=True)
class Grey(TrainingPGD):
    """A training attack that is not registered: it washes images out."""

    name: ClassVar[str] = "grey"
    used: int = 0

    def perturb(self, loss_fn, pixels, *, text_shape=None, levels=1, generator=None):
        self.used += 1
        assert loss_fn(pixels).requires_grad is False  # callable, and nothing to train inside
        return [Perturbation(pixels * 0.5 + 0.25)]


@dataclass(kw_only=True)
class Squared(Objective):
    """An objective that is not registered."""

    name: ClassVar[str] = "squared"
    scale: float = 1e-3

    def inner_loss(self, view, targets):
        return self.scale * view.image_features.square().sum(1)

    def loss(self, views, targets):
        return {"norm": self.inner_loss(views[0], targets).mean()}


def test_instances_need_no_registration(tiny_clip_dir, tmp_path):
    attack = Grey()
    trainer = train(tiny_clip_dir, tmp_path, objective=Squared(scale=0.5), attack=attack)
    assert attack.used == 2
    assert all("norm" in e for e in trainer.state.log_history if "loss" in e)
    facts = trainer.model.config.hier_robust
    assert facts["objective_args"] == {"scale": 0.5} and facts["attack"]["name"] == "grey"


@pytest.mark.parametrize("attack", ["universal", "leaf", "per_level"])
def test_flat_objectives_accept_the_hierarchical_attacks(attack, tiny_clip_dir, tmp_path):
    """Text that the loss does not read is not perturbed, and the records say so."""
    trainer = train(tiny_clip_dir, tmp_path, objective="tecoa", attack=attack, max_steps=1)
    (perturbation, *_) = perturb(trainer, *first_batch(trainer))
    assert perturbation.text_delta is None
    assert trainer.recipe()["attack"]["text_eps"] == 0


def test_one_perturbation_a_level_trains_on_all_of_them(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = train(
        tiny_clip_dir,
        tmp_path,
        objective="hier_robust",
        attack="per_level",
        tree=Forest((tiny_tree,)),
        max_steps=1,
    )
    perturbations = perturb(trainer, *first_batch(trainer))
    assert [p.levels for p in perturbations] == [(0,), (1,)]
    assert not torch.equal(perturbations[0].pixels, perturbations[1].pixels)


def test_attack_none_trains_on_clean_images(tiny_clip_dir, tmp_path):
    clean = train(tiny_clip_dir, tmp_path / "a", objective="clean")
    tecoa = train(tiny_clip_dir, tmp_path / "b", objective="tecoa", attack="none")
    attacked = train(tiny_clip_dir, tmp_path / "c", objective="tecoa")
    assert furthest(weights(clean.model), weights(tecoa.model)) == 0
    assert furthest(weights(clean.model), weights(attacked.model)) > 1e-5


# ---- data that cannot be trained on ----


class Items(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_an_empty_training_set_is_refused(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    with pytest.raises(ValueError, match="train_dataset has no rows"):
        trainer.train_dataset = Items([])
    trainer.train_dataset = None
    with pytest.raises(ValueError, match="train_dataset is missing"):
        trainer.train()


@pytest.mark.parametrize("value", [float("nan"), 2.0])
def test_wrong_pixels_are_refused_before_the_first_step(value, tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    collate = trainer.data_collator

    def broken(examples):
        batch = collate(examples)
        batch["pixels"][1, 0, 0, 0] = value
        return batch

    trainer.data_collator = broken
    with pytest.raises(ValueError, match="first in image 1" if value != value else r"must lie in \[0, 1\]"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_tree_that_lacks_classes_is_refused_at_once(tiny_clip_dir, tmp_path):
    tree = LabelTree.from_paths({"cats": ["a"], "dog": ["a"], "oak": ["b"], "rose": ["b"]}, name="short")
    with pytest.raises(ValueError, match=r"lacks 1 of the classes: 'cat'.*nearest: 'cats'"):
        make_trainer(tiny_clip_dir, tmp_path, objective="hier_robust", tree=Forest((tree,)))
    with pytest.raises(ValueError, match="needs a class tree"):
        make_trainer(tiny_clip_dir, tmp_path, objective="hier_robust")


def test_shared_text_perturbation_has_one_row(tiny_clip_dir, tiny_tree, tmp_path):
    attack = UniversalHierarchicalAttack(shared_text=True, text_eps=0.01)
    trainer = train(
        tiny_clip_dir,
        tmp_path,
        objective="hier_robust",
        attack=attack,
        tree=Forest((tiny_tree,)),
        max_steps=1,
    )
    (perturbation,) = perturb(trainer, *first_batch(trainer))
    assert perturbation.text_delta.shape == (1, 32)
    assert float(perturbation.text_delta.abs().max()) == pytest.approx(0.01)
    assert len(trainer.objective.nodes.names) == len(CLASSES) + 2


def test_diverged_weights_stop_the_run_in_the_attack(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="hier_robust", tree=tiny_tree)
    trainer.calibrate()
    with torch.no_grad():
        trainer.model.visual_projection.weight[0, 0] = float("nan")
    pixels, labels = first_batch(trainer)
    with pytest.raises(NonFiniteLossError, match=r"step 0.*gradient.*NaN.*none was saved yet"):
        trainer.compute_loss(trainer.model, {"pixels": pixels, "labels": labels})


def test_the_leaf_rival_still_trains_on_all_levels(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="hier_robust", attack="leaf", tree=tiny_tree)
    trainer.calibrate()
    pixels, labels = first_batch(trainer)
    views, targets = views_of(trainer, pixels, labels, perturb(trainer, pixels, labels))
    whole = trainer.objective.loss(views, targets)["hita"]
    leaves = trainer.objective.loss([views[0]._replace(levels=(0,))], targets)["hita"]
    upper = trainer.objective.loss([views[0]._replace(levels=(1,))], targets)["hita"]
    assert float(upper) > 0 and float(whole) == pytest.approx(float(leaves) + float(upper), rel=1e-5)


def test_the_ball_follows_the_objective(tiny_clip_dir, tiny_tree, tmp_path):
    options = {"curvature": 0.5, "ball_margin": 1e-2, "max_tangent_norm": 3.0, "tangent_norm": None}
    objective = HierRobust(**options, train_scales=False)
    trainer = train(tiny_clip_dir, tmp_path, objective=objective, tree=tiny_tree, max_steps=1)
    trainer.save_model()
    again = RobustCLIPModel.from_pretrained(tmp_path)
    assert float(again.hier_head.curvature) == 0.5 and again.hier_head.max_tangent_norm == 3.0
    assert not trainer.model.hier_head.log_image_scale.requires_grad
    assert float(again.hier_head.log_image_scale) == pytest.approx(-0.5 * math.log(32))
    with pytest.raises(ValueError, match="curvature=-1 must be a positive number"):
        HierRobust(curvature=-1)


def renumbered(names) -> PixelDataset:
    """The same images with labels numbered in the order of ``names``."""
    images = make_images(8)
    labels = [names.index(CLASSES[label]) for label in images["label"]]
    images = images.remove_columns("label").add_column("label", labels, feature=ClassLabel(names=list(names)))
    return PixelDataset(images)


def test_labels_are_matched_to_the_classes_by_name(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, train=renumbered(CLASSES[::-1]))
    assert first_batch(trainer)[1].tolist() == make_images(8)["label"][:]
    with pytest.raises(ValueError, match="'bird' is unknown"):
        make_trainer(tiny_clip_dir, tmp_path, train=renumbered((*CLASSES, "bird")))


def test_data_may_number_their_labels_differently(tiny_clip_dir, tmp_path):
    trainer = make_trainer(
        tiny_clip_dir, tmp_path, train=renumbered(CLASSES), evaluation=renumbered(CLASSES[::-1])
    )
    assert trainer.eval_dataset.labels.tolist() == trainer.train_dataset.labels.tolist()


def test_the_card_states_optimizer_adapters_and_every_tree(tiny_clip_dir, tiny_tree, tmp_path):
    other = LabelTree.from_paths({c: ["thing"] for c in CLASSES}, name="other")
    trainer = make_trainer(
        tiny_clip_dir,
        tmp_path,
        objective="hier_robust",
        tree=Forest((tiny_tree, other)),
        optim_args="momentum=0.9",
        visual_prompt_tokens=2,
    )
    facts = card_facts(trainer.args, trainer.facts())
    assert facts.hyperparameters["optim_args"] == "momentum=0.9"
    assert facts.hyperparameters["scale_learning_rate"] == trainer.args.learning_rate  # under SGD
    assert facts.hyperparameters["visual_prompt_tokens"] == 2 and facts.visual_prompt
    assert [tree.name for tree in facts.trees] == [tiny_tree.name, "other"]
    adam = make_trainer(tiny_clip_dir, tmp_path, optim="adamw_torch", adam_beta2=0.98, lora_r=4)
    facts = card_facts(adam.args, adam.facts())
    assert (facts.hyperparameters["adam_beta2"], facts.hyperparameters["lora_r"]) == (0.98, 4)
    assert not facts.visual_prompt and not facts.trees
    assert "scale_learning_rate" not in facts.hyperparameters


def test_the_card_states_the_parts_that_the_model_has(tiny_clip_dir, tmp_path):
    """A prompt of the checkpoint that it went on from, an adapter that was handed over."""
    from peft import LoraConfig

    prompted = make_trainer(tiny_clip_dir, tmp_path, visual_prompt_tokens=3, visual_prompt_border=2)
    prompted.save_model()
    facts = make_trainer(str(tmp_path), tmp_path / "on").card()
    assert facts.visual_prompt and "prompt.safetensors" in render_card(facts)
    shown = facts.hyperparameters
    assert (shown["visual_prompt_tokens"], shown["visual_prompt_border"]) == (3, 2)
    adapter = LoraConfig(r=2, lora_alpha=6, lora_dropout=0.1, target_modules=r"vision_model.*q_proj")
    adapted = make_trainer(tiny_clip_dir, tmp_path / "b", trainer={"peft_config": adapter})
    shown = adapted.card().hyperparameters
    assert (shown["lora_r"], shown["lora_alpha"], shown["lora_dropout"]) == (2, 6, 0.1)


def test_kind10_trainers_own_card_options_count_or_are_refused(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    trainer.create_model_card(
        license="mit", tags="mine", finetuned_from="org/base", dataset=["org/a", "org/b"]
    )
    header = (tmp_path / "README.md").read_text().split("---\n")[1]
    for line in ("license: mit", "- mine", "base_model: org/base", "- org/a", "- org/b"):
        assert line in header
    with pytest.raises(TypeError, match="no place for dataset_tags, tasks; it takes license"):
        trainer.create_model_card(tasks="x", dataset_tags="y")
    with pytest.raises(ValueError, match="'gpl-9' is no licence that the Hub knows: did you mean"):
        trainer.create_model_card(license="gpl-9")


def test_an_attack_that_cannot_start_is_refused(tiny_clip_dir, tmp_path):
    """FARE's loss is least, and flat, at the clean image: a zero start would train on nothing."""
    zero = {"random_start": "zero"}
    with pytest.raises(ValueError, match=r"moved no pixel in the first step.*random_start other"):
        train(tiny_clip_dir, tmp_path, objective="fare", attack_args=zero)
    train(tiny_clip_dir, tmp_path, objective="tecoa", attack_args=zero)
