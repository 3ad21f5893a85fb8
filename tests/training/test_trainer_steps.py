"""Training steps: accumulation, precision, logs, instances of one's own, and what stops a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tiny_data import CLASSES, make_images
from tiny_runs import checkpoint_weights, furthest, make_trainer, weights

from hf_hierrobust.attacks import PGD, Perturbation, UniversalHierarchicalAttack
from hf_hierrobust.data import PixelDataset
from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.objectives import HierRobust, Objective, TeCoA
from hf_hierrobust.training import NonFiniteLossError

# Random starts differ between one batch and two halves of it, and so does a text perturbation, which sums
# over the batch.
STILL = {"random_start": "zero"}
STILL_UNIVERSAL = STILL | {"text_eps": 0}


def train(*args, **kwargs):
    trainer = make_trainer(*args, **kwargs)
    trainer.train()
    return trainer


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "tecoa", "attack_args": STILL, "learning_rate": 0.1},
        {"objective": "hier_robust", "attack_args": STILL_UNIVERSAL, "objective_args": {"pooling": "none"}},
    ],
    ids=["tecoa", "hier_robust per image"],
)
def test_accumulation_equals_one_large_batch(options, tiny_clip_dir, tiny_tree, tmp_path):
    options = options | {"tree": Forest((tiny_tree,))}
    start = make_trainer(tiny_clip_dir, tmp_path / "start", **options)
    before = weights(start.model)
    one = train(tiny_clip_dir, tmp_path / "1x8", **options)
    two = train(
        tiny_clip_dir,
        tmp_path / "2x4",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        **options,
    )
    assert furthest(before, weights(one.model)) > 1e-3, "nothing was trained"
    assert furthest(weights(one.model), weights(two.model)) < 1e-5
    assert losses(one) == pytest.approx(losses(two), rel=1e-4)
    terms = [[e for e in t.state.log_history if "loss" in e] for t in (one, two)]
    for a, b in zip(*terms):
        assert a.keys() == b.keys() and a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)
        assert all(a[k] == pytest.approx(b[k], rel=1e-3, abs=1e-4) for k in a)


def test_gradient_checkpointing_changes_nothing(tiny_clip_dir, tiny_tree, tmp_path):
    options = {"objective": "hier_robust", "tree": Forest((tiny_tree,))}
    plain = train(tiny_clip_dir, tmp_path / "plain", **options)
    saved = train(tiny_clip_dir, tmp_path / "saved", gradient_checkpointing=True, **options)
    assert saved.model.vision_model.encoder.gradient_checkpointing
    assert furthest(weights(plain.model), weights(saved.model)) < 1e-6


def test_bf16_trains_fp32_weights_near_the_fp32_run(tiny_clip_dir, tiny_tree, tmp_path):
    options = {"objective": "hier_robust", "tree": Forest((tiny_tree,))}
    full, half = (train(tiny_clip_dir, tmp_path / str(b), bf16=b, **options) for b in (False, True))
    assert all(p.dtype == torch.float32 for p in half.model.parameters())
    assert losses(half) == pytest.approx(losses(full), rel=0.05)
    assert losses(half) != losses(full), "bf16 was not used"
    assert 0 < furthest(weights(full.model), weights(half.model)) < 0.05


def test_bf16_reaches_the_inner_loop(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, bf16=True)
    seen = set()
    hook = trainer.model.visual_projection.register_forward_hook(lambda m, i, o: seen.add(o.dtype))
    pixels, labels = first_batch(trainer)
    trainer.perturb(pixels, labels)
    hook.remove()
    assert seen == {torch.bfloat16}


def first_batch(trainer):
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    return batch["pixels"], batch["labels"]


def test_random_starts_follow_seed_step_and_rank_only(tiny_clip_dir, tmp_path):
    """Not the global generator, which data loaders and users move."""
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    pixels, labels = first_batch(trainer)

    def attack(step):
        trainer.state.global_step, trainer._micro_step = step, (-1, 0)
        torch.manual_seed(torch.seed())
        return trainer.perturb(pixels, labels)[0].pixels

    state = torch.get_rng_state()
    assert torch.equal(attack(3), attack(3)) and not torch.equal(attack(3), attack(4))
    torch.set_rng_state(state)
    trainer.perturb(pixels, labels)
    assert torch.equal(torch.get_rng_state(), state)
    twice = [trainer.perturb(pixels, labels)[0].pixels for _ in range(2)]
    assert not torch.equal(*twice), "micro-batches of one step share their random start"


def test_trained_groups_are_announced_with_their_counts(tiny_clip_dir, tiny_tree, tmp_path, caplog, capsys):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="hier_robust", tree=Forest((tiny_tree,)))
    said = caplog.text + capsys.readouterr().err
    model = trainer.model
    vision = sum(p.numel() for p in model.vision_model.parameters()) + model.visual_projection.weight.numel()
    assert f"vision {vision:,}" in said
    assert f"text_projection {model.text_projection.weight.numel():,}" in said and "hier_head 2" in said


def test_the_model_config_records_the_recipe(tiny_clip_dir, tiny_tree, tmp_path):
    import json

    trainer = train(
        tiny_clip_dir,
        tmp_path,
        objective="hier_robust",
        tree=Forest((tiny_tree,)),
        objective_args={"hnsa": "upper"},
    )
    trainer.save_model()
    facts = json.loads((tmp_path / "config.json").read_text())["hier_robust"]
    assert facts["objective"] == "hier_robust" and facts["objective_args"]["hnsa"] == "upper"
    assert facts["attack"]["name"] == "universal" and facts["attack"]["eps"] == pytest.approx(1 / 255)
    assert facts["trees"] == [{"name": "tiny", "hash": tiny_tree.hash, "sizes": [4, 2]}]
    assert set(facts["objective_args"]) == set(HierRobust().options())
    assert not list(tmp_path.rglob("*.bin")), "a pickle was written"
    assert furthest(weights(trainer.model), checkpoint_weights(tmp_path)) == 0


def test_a_single_tree_will_do_for_a_forest(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = train(tiny_clip_dir, tmp_path, objective="hier_robust", tree=tiny_tree, max_steps=1)
    assert trainer.recipe(trainer.args)["trees"][0]["name"] == "tiny"


def test_calibration_sees_all_classes_of_sorted_data(tiny_clip_dir, tiny_tree, tmp_path):
    """Image folders come class by class: the first images would be all of one class."""
    images = make_images(32).sort("label")
    seen = {}

    @dataclass(kw_only=True)
    class Spy(HierRobust):
        name: ClassVar[str] = "spy"

        def calibrate(self, view, labels):
            seen["labels"] = labels.tolist()
            super().calibrate(view, labels)

    make_trainer(
        tiny_clip_dir,
        tmp_path,
        objective=Spy(),
        tree=Forest((tiny_tree,)),
        train=PixelDataset(images),
        calibration_samples=8,
        max_steps=1,
    ).train()
    assert sorted(set(seen["labels"])) == [0, 1, 2, 3] and len(seen["labels"]) == 8


@pytest.mark.slow
def test_a_compiled_model_trains_the_same_weights(tiny_clip_dir, tiny_tree, tmp_path):
    """The attack runs compiled too, and checkpoints keep the plain names."""
    options = {"objective": "hier_robust", "tree": Forest((tiny_tree,)), "max_steps": 1}
    plain = train(tiny_clip_dir, tmp_path / "plain", **options)
    torch._dynamo.utils.counters.clear()
    compiled = train(tiny_clip_dir, tmp_path / "compiled", torch_compile=True, **options)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    compiled.save_model()
    assert furthest(weights(plain.model), checkpoint_weights(tmp_path / "compiled")) < 1e-6


# ---- instances of one's own ----


@dataclass(kw_only=True)
class NanAtStepTwo(TeCoA):
    """A loss that breaks down after the first step."""

    name: ClassVar[str] = "nan_at_step_two"
    calls: int = 0

    def loss(self, views, labels):
        self.calls += 1
        terms = super().loss(views, labels)
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
class Grey(PGD):
    """A training attack that is not registered: it washes images out."""

    name: ClassVar[str] = "grey"
    used: int = 0

    def perturb(self, loss_fn, pixels, text_shape=None, levels=1, generator=None):
        self.used += 1
        assert loss_fn(pixels).requires_grad is False  # callable, and nothing to train inside
        return [Perturbation(pixels * 0.5 + 0.25)]


@dataclass(kw_only=True)
class Squared(Objective):
    """An objective that is not registered."""

    name: ClassVar[str] = "squared"
    scale: float = 1e-3

    def inner_loss(self, view, labels):
        return self.scale * view.image_features.square().sum(1)

    def loss(self, views, labels):
        return {"norm": self.inner_loss(views[0], labels).mean()}


def test_instances_need_no_registration(tiny_clip_dir, tmp_path):
    attack = Grey()
    trainer = train(tiny_clip_dir, tmp_path, objective=Squared(scale=0.5), attack=attack)
    assert attack.used == 2
    assert all("norm" in e for e in trainer.state.log_history if "loss" in e)
    facts = trainer.model.config.hier_robust
    assert facts["objective_args"] == {"scale": 0.5} and facts["attack"]["name"] == "grey"


@pytest.mark.parametrize("attack", ["universal", "leaf", "per_level"])
def test_flat_objectives_accept_the_hierarchical_attacks(attack, tiny_clip_dir, tmp_path):
    """Text that the loss does not read has gradient zero: the perturbation stays at zero."""
    trainer = train(tiny_clip_dir, tmp_path, objective="tecoa", attack=attack, max_steps=1)
    (perturbation, *_) = trainer.perturb(*first_batch(trainer))
    assert not perturbation.text_delta.any()


def test_one_perturbation_a_level_trains_on_all_of_them(tiny_clip_dir, tiny_tree, tmp_path):
    trainer = train(
        tiny_clip_dir,
        tmp_path,
        objective="hier_robust",
        attack="per_level",
        tree=Forest((tiny_tree,)),
        max_steps=1,
    )
    perturbations = trainer.perturb(*first_batch(trainer))
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


@pytest.mark.parametrize("data", [Items([]), None], ids=["no rows", "none"])
def test_an_empty_training_set_is_refused(data, tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    trainer.train_dataset = data
    with pytest.raises(ValueError, match="train_dataset is empty"):
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
    (perturbation,) = trainer.perturb(*first_batch(trainer))
    assert perturbation.text_delta.shape == (1, 32)
    assert float(perturbation.text_delta.abs().max()) == pytest.approx(0.01)
    assert len(trainer.objective.nodes.names) == len(CLASSES) + 2
