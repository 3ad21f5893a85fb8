"""Training steps: accumulation, precision, logs, instances of one's own, and what stops a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tiny_data import make_images
from tiny_runs import checkpoint_weights, first_batch, furthest, make_trainer, perturb, train, weights

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.objectives import HierRobust

# Random starts differ between one batch and two halves of it, and so does a text perturbation, which sums
# over the batch.
STILL = {"random_start": "zero"}
STILL_UNIVERSAL = STILL | {"text_eps": 0}


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
    perturb(trainer, pixels, labels)
    hook.remove()
    assert seen == {torch.bfloat16}


def test_bf16_reaches_the_text_attack(tiny_clip_dir, tmp_path):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="mmcoa", bf16=True)
    seen = set()
    hook = trainer.model.text_projection.register_forward_hook(lambda m, i, o: seen.add(o.dtype))
    pixels, labels = first_batch(trainer)
    trainer.reader.read({"pixels": pixels, "labels": labels}, trainer._starts)
    hook.remove()
    assert seen == {torch.bfloat16}


def test_random_starts_follow_seed_step_and_rank_only(tiny_clip_dir, tmp_path):
    """Not the global generator, which data loaders and users move."""
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    pixels, labels = first_batch(trainer)

    def attack(step):
        trainer._starts.step, trainer._starts.drawn = step, 0
        torch.manual_seed(torch.seed())
        return perturb(trainer, pixels, labels)[0].pixels

    state = torch.get_rng_state()
    assert torch.equal(attack(3), attack(3)) and not torch.equal(attack(3), attack(4))
    torch.set_rng_state(state)
    perturb(trainer, pixels, labels)
    assert torch.equal(torch.get_rng_state(), state)
    twice = [perturb(trainer, pixels, labels)[0].pixels for _ in range(2)]
    assert not torch.equal(*twice), "micro-batches of one step share their random start"


def test_trained_groups_are_announced_with_their_counts(tiny_clip_dir, tiny_tree, tmp_path, caplog, capsys):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="hier_robust", tree=Forest((tiny_tree,)))
    said = caplog.text + capsys.readouterr().err
    model = trainer.model
    vision = sum(p.numel() for p in model.vision_model.parameters()) + model.visual_projection.weight.numel()
    assert f"vision {vision:,}" in said
    assert f"text_projection {model.text_projection.weight.numel():,}" in said and "hier_head 3" in said


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
    assert trainer.recipe()["trees"][0]["name"] == "tiny"


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
    how = {"torch_compile": True, "torch_compile_backend": "aot_eager"}  # without a C++ compiler, in seconds
    compiled = train(tiny_clip_dir, tmp_path / "compiled", **how, **options)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2
    compiled.save_model()
    assert furthest(weights(plain.model), checkpoint_weights(tmp_path / "compiled")) < 1e-6
