"""Evaluation during training: names, values, and that it leaves the training alone."""

from __future__ import annotations

import pytest
import torch
from datasets import ClassLabel
from tiny_data import CLASSES, PATHS, make_images
from tiny_runs import furthest, make_trainer, weights
from transformers import AutoTokenizer

from hf_hierrobust.attacks import NanError
from hf_hierrobust.data import PixelDataset
from hf_hierrobust.evaluation import Shards, run_jobs
from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.modeling import encode_prompts
from hf_hierrobust.training import RobustCLIPTrainer, RobustTrainingArguments


@pytest.fixture(scope="module")
def evaluation():
    return PixelDataset(make_images(21, seed=5))


@pytest.fixture(scope="module")
def evaluated(tiny_clip_dir, tiny_tree, tmp_path_factory, evaluation):
    trainer = make_trainer(
        tiny_clip_dir,
        tmp_path_factory.mktemp("evaluated"),
        objective="hier_robust",
        tree=Forest((tiny_tree,)),
        evaluation=evaluation,
        per_device_eval_batch_size=8,
        eps="64/255",
        max_steps=10,
        optim="adamw_torch",
        learning_rate=2e-3,
    )
    trainer.train()
    return trainer


def test_metrics_name_every_level(evaluated):
    metrics = evaluated.evaluate()
    wanted = {
        f"eval_{level}_{kind}_accuracy" for level in ("leaf", "superclass") for kind in ("clean", "robust")
    }
    assert {k for k in metrics if k.endswith("_accuracy")} == wanted
    for level in ("leaf", "superclass"):
        assert 0 <= metrics[f"eval_{level}_robust_accuracy"] <= metrics[f"eval_{level}_clean_accuracy"] <= 1


def test_a_root_has_depth_but_no_accuracy(tiny_clip_dir, tmp_path, evaluation):
    """Of one node every image is right; the levels below are measured as ever."""
    tree = LabelTree.from_paths({c: [*path, "thing"] for c, path in PATHS.items()}, name="rooted")
    options = {"objective": "hier_robust", "tree": tree, "evaluation": evaluation, "max_steps": 1}
    trainer = make_trainer(tiny_clip_dir, tmp_path, **options)
    trainer.train()
    metrics = trainer.evaluate()
    accuracies = {k for k in metrics if k.endswith("clean_accuracy")}
    assert accuracies == {"eval_leaf_clean_accuracy", "eval_superclass_clean_accuracy"}
    assert {f"eval_depth_level{level}" for level in range(3)} < metrics.keys()


def test_one_class_is_refused_by_its_name(tiny_clip_dir, tmp_path):
    one = make_images(8).filter(lambda row: row["label"] == 0).remove_columns("label")
    one = one.add_column("label", [0] * len(one), feature=ClassLabel(names=["cat"]))
    args = RobustTrainingArguments(str(tmp_path), objective="tecoa", max_steps=1, bf16=False)
    trainer = RobustCLIPTrainer(tiny_clip_dir, args, train_dataset=one, eval_dataset=one)
    with pytest.raises(ValueError, match="the leaf level of 'eval_dataset' has 1 class"):
        trainer.evaluate()


def test_clean_values_are_those_of_a_loop_over_the_images(evaluated, evaluation, tiny_clip_dir, tiny_tree):
    """Cosine to the prompts of each level's own nodes, images one by one."""
    metrics, model = evaluated.evaluate(), evaluated.model
    tokenizer = AutoTokenizer.from_pretrained(tiny_clip_dir)
    names = {"leaf": CLASSES, "superclass": tiny_tree.levels[1]}
    parent = {c: tiny_tree.superclass(c, 1) for c in CLASSES}
    for level, nodes in names.items():
        with torch.no_grad():
            prompts = [f"This is a photo of a {n}." for n in nodes]
            texts = model.project_text(encode_prompts(model, tokenizer, prompts))
            texts = texts / texts.norm(dim=1, keepdim=True)
            right = 0
            for i in range(len(evaluation)):
                batch = evaluated.data_collator([evaluation[i]])
                image = model.encode_image(evaluated.step.views.pipeline(batch["pixels"]))[0]
                said = nodes[int((texts @ image).argmax())]
                truth = CLASSES[evaluation[i]["label"]]
                right += said == (truth if level == "leaf" else parent[truth])
        assert metrics[f"eval_{level}_clean_accuracy"] == pytest.approx(right / len(evaluation))
    assert metrics["eval_leaf_clean_accuracy"] > 0.3, "an untrained model tests nothing"


def test_the_attack_makes_a_difference_and_repeats(evaluated):
    first, second = evaluated.evaluate(), evaluated.evaluate()
    for level in ("leaf", "superclass"):
        key = f"eval_{level}_robust_accuracy"
        assert first[key] == second[key]
    assert first["eval_leaf_robust_accuracy"] < first["eval_leaf_clean_accuracy"]


def test_random_starts_are_those_of_one_process(tiny_clip_dir, tmp_path, evaluation, monkeypatch):
    """A process takes every other batch, under the number that one process would have given it."""
    seeds = []

    def note(jobs, batches, device, seed):
        seeds.append(seed)
        return run_jobs(jobs, batches, device=device, seed=seed)

    monkeypatch.setattr("hf_hierrobust.training.evaluator.run_jobs", note)
    options = {"evaluation": evaluation, "per_device_eval_batch_size": 8, "robust_eval_steps": 1}
    make_trainer(tiny_clip_dir, tmp_path, **options).evaluate()
    one_process = seeds.copy()
    monkeypatch.setattr(RobustTrainingArguments, "process_index", 1)
    second = make_trainer(tiny_clip_dir, tmp_path, **options).evaluator
    monkeypatch.setattr("hf_hierrobust.training.evaluator.Shards.joined", lambda: Shards(1, 2))
    second.refresh()
    seeds.clear()
    second.flags(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    assert seeds == one_process[1:2] and len(one_process) == 3


def test_robust_eval_samples_are_stratified_by_class(tiny_clip_dir, tmp_path, evaluation):
    trainer = make_trainer(tiny_clip_dir, tmp_path, evaluation=evaluation, robust_eval_samples=6)
    assert len(trainer.eval_dataset) == 6
    assert set(trainer.eval_dataset.labels) == {0, 1, 2, 3}
    accuracy = trainer.evaluate()["eval_leaf_clean_accuracy"]
    assert accuracy * 6 == pytest.approx(round(accuracy * 6))


def test_clean_training_reports_clean_accuracy_only(tiny_clip_dir, tmp_path, evaluation):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective="clean", evaluation=evaluation)
    metrics = trainer.evaluate()
    assert "eval_leaf_clean_accuracy" in metrics and "eval_leaf_robust_accuracy" not in metrics


def test_bf16_search_keeps_fp32_verdicts(tiny_clip_dir, tmp_path, evaluation):
    """Gradients come from forwards under autocast, verdicts from forwards without."""
    trainer = make_trainer(
        tiny_clip_dir, tmp_path, evaluation=evaluation, bf16=True, max_steps=10, optim="adamw_torch"
    )
    trainer.train()
    seen = set()
    trainer.model.vision_model.register_forward_pre_hook(
        lambda *_: seen.add((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
    )
    assert trainer.evaluate()["eval_leaf_clean_accuracy"] > 0, "no image was attacked"
    assert seen == {(True, True), (False, False)}


def test_evaluation_leaves_generator_weights_and_mode_alone(evaluated):
    evaluated.model.train()
    before, state = weights(evaluated.model), torch.get_rng_state()
    flags = {n: p.requires_grad for n, p in evaluated.model.named_parameters()}
    evaluated.evaluate()
    assert furthest(before, weights(evaluated.model)) == 0
    assert torch.equal(torch.get_rng_state(), state)
    assert flags == {n: p.requires_grad for n, p in evaluated.model.named_parameters()}


def test_evaluating_in_between_does_not_change_the_training(tiny_clip_dir, tiny_tree, tmp_path, evaluation):
    options = {
        "objective": "hier_robust",
        "tree": Forest((tiny_tree,)),
        "evaluation": evaluation,
        "max_steps": 5,  # over the end of an epoch of four
    }
    never = make_trainer(tiny_clip_dir, tmp_path / "never", **options)
    often = make_trainer(tiny_clip_dir, tmp_path / "often", eval_strategy="steps", eval_steps=1, **options)
    for trainer in (never, often):
        trainer.train()
    assert sum("eval_leaf_robust_accuracy" in e for e in often.state.log_history) == 5
    assert furthest(weights(never.model), weights(often.model)) == 0


def test_kind03_evaluation_beside_training_is_cross_entropy_then_margin(evaluated):
    attacks = evaluated.evaluator.attacks
    assert [attack.loss for attack in attacks] == ["ce", "margin"]
    assert {attack.threat.eps for attack in attacks} == {64 / 255}


@pytest.mark.parametrize("attacked", [True, False])
def test_kind07_nan_logits_stop_an_evaluation_beside_training(evaluated, evaluation, monkeypatch, attacked):
    evaluator = evaluated.evaluator
    monkeypatch.setattr(evaluator, "attacks", evaluator.attacks if attacked else ())
    evaluator.refresh()
    batch = evaluated.data_collator([evaluation[0], evaluation[1]])
    encode = evaluator.model.encode_image
    monkeypatch.setattr(
        evaluator.model, "encode_image", lambda pixels: encode(pixels) * torch.tensor([[1.0], [torch.nan]])
    )
    with pytest.raises(NanError, match="NaN for 1 of 2 images"):
        evaluator.flags(batch["pixels"], batch["labels"])


def test_depth_metrics_are_those_of_a_loop_over_edges_and_images(evaluated, evaluation, tiny_tree):
    """Norms text by text and image by image, medians by sorting."""
    metrics, model, head = evaluated.evaluate(), evaluated.model, evaluated.model.hier_head
    text, levels = evaluated.evaluator.text, evaluated.evaluator.levels
    with torch.no_grad():
        features = model.project_text(text.current_states(model))
        leaves, upper = (
            [float(head.text_tangent(features[row : row + 1], torch.tensor([level])).norm()) for row in rows]
            for level, (rows, _) in enumerate(levels)
        )
        beyond = []
        for item in evaluation:
            pixels = evaluated.data_collator([item])["pixels"]
            image = model.encode_image(evaluated.step.views.pipeline(pixels))
            beyond.append(float(head.image_tangent(image).norm()) - leaves[item["label"]])
    parents = [tiny_tree.levels[1].index(tiny_tree.superclass(c, 1)) for c in CLASSES]
    in_order = [upper[parent] < leaf for leaf, parent in zip(leaves, parents)]
    assert metrics["eval_edges_in_order"] == pytest.approx(sum(in_order) / len(in_order))
    for level, values in enumerate((leaves, upper)):
        low, high = sorted(values)[(len(values) - 1) // 2], sorted(values)[len(values) // 2]
        assert metrics[f"eval_depth_level{level}"] == pytest.approx((low + high) / 2, rel=1e-5)
    assert metrics["eval_image_depth"] == pytest.approx(sorted(beyond)[len(beyond) // 2], abs=1e-5)


def test_depth_is_measured_only_with_a_tree_and_a_calibrated_head(
    evaluated, tiny_clip_dir, tiny_tree, tmp_path, evaluation
):
    def depth_of(metrics):
        return [name for name in metrics if "depth" in name or "edges" in name]

    options = {"objective": "tecoa", "evaluation": evaluation}
    with_tree = make_trainer(tiny_clip_dir, tmp_path / "a", tree=Forest((tiny_tree,)), **options)
    assert depth_of(with_tree.evaluate()) == [], "TeCoA leaves the head as it was"
    without = make_trainer(tiny_clip_dir, tmp_path / "b", **options)
    without.model.hier_head.kappa.fill_(1.0)
    assert depth_of(without.evaluate()) == []
    assert len(depth_of(evaluated.evaluate())) == 4
