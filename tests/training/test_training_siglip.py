"""Robust training of SigLIP: every objective, the sigmoid loss of pairs, texts, checkpoints, evaluation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_data import make_images
from tiny_runs import (
    checkpoint_weights,
    first_batch,
    furthest,
    group_of,
    inner_loss_of,
    make_trainer,
    perturb,
    views_of,
    weights,
)
from transformers import SiglipModel

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.modeling import RobustSiglipModel, load_robust_model, text_inputs
from hf_hierrobust.objectives import OBJECTIVES
from hf_hierrobust.objectives.contrastive import pair_losses, positive_pairs


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_trains_its_groups_and_nothing_else(name, tiny_siglip_dir, tiny_tree, tmp_path):
    trainer = make_trainer(
        tiny_siglip_dir, tmp_path, objective=name, tree=Forest((tiny_tree,)), optim="adamw_torch"
    )
    assert type(trainer.model) is RobustSiglipModel
    buffers, before = {n for n, _ in trainer.model.named_buffers()}, weights(trainer.model)
    trainer.train()
    after = weights(trainer.model)
    if "hier_head" not in trainer.trained:  # set by calibration
        buffers |= {n for n in before if group_of(n) == "hier_head"}
    moved = {group_of(n) for n in before.keys() - buffers if not torch.equal(before[n], after[n])}
    assert moved == set(trainer.objective.trained_groups)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(torch.tensor(losses).isfinite())


@pytest.mark.parametrize("name", ["tecoa", "hier_robust", "advflyp", "tga_zsr"])
def test_the_training_attack_raises_the_inner_loss(name, tiny_siglip_dir, tiny_tree, tmp_path):
    trainer = make_trainer(
        tiny_siglip_dir, tmp_path, objective=name, tree=Forest((tiny_tree,)), eps="4/255", max_steps=1
    )
    trainer.train()  # calibrates the head
    pixels, labels = first_batch(trainer)
    (attacked, *_) = perturb(trainer, pixels, labels)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    noise = (pixels + 4 / 255 * noise.sign()).clamp(0, 1)
    with torch.no_grad():
        found, *others = (
            float(inner_loss_of(trainer, pixels, labels, attacked._replace(pixels=x)).sum())
            for x in (attacked.pixels, pixels, noise)
        )
    assert found > max(others)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_adapters_bf16_and_accumulation_go_together(name, tiny_siglip_dir, tiny_tree, tmp_path):
    pytest.importorskip("peft")
    trainer = make_trainer(
        tiny_siglip_dir,
        tmp_path,
        objective=name,
        tree=Forest((tiny_tree,)),
        optim="adamw_torch",
        lora_r=2,
        bf16=True,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_steps=1,
    )
    before = weights(trainer.model)
    trainer.train()  # with the check that adapters move and base weights do not
    after = weights(trainer.model)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert any("lora_" in n for n in moved)
    assert not any("base_layer" in n or "original_module" in n for n in moved)


@pytest.mark.parametrize("name", ["tga_zsr", "mmcoa"])
def test_bf16_is_close_to_fp32(name, tiny_siglip_dir, tmp_path):
    losses = []
    for bf16 in (False, True):
        trainer = make_trainer(
            tiny_siglip_dir, tmp_path / str(bf16), objective=name, max_steps=1, bf16=bf16, optim="adamw_torch"
        )
        trainer.train()
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        losses += [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


class TestPairs:
    def test_advflyps_loss_is_siglips_own(self, tiny_siglip_dir, tmp_path):
        """The loss of stock transformers, 2303.15343, on the same images and captions."""
        trainer = make_trainer(tiny_siglip_dir, tmp_path, objective="advflyp")
        pixels, labels = first_batch(trainer)
        rows = [labels.tolist().index(label) for label in labels.unique().tolist()]  # one caption an image
        pixels, labels = pixels[rows], labels[rows]
        stock = SiglipModel.from_pretrained(tiny_siglip_dir).eval()
        captions = [trainer.step.views.text.prompts[label] for label in labels.tolist()]
        tokens = text_inputs(stock, trainer.processing_class.tokenizer, captions)
        trainer.model.eval()
        with torch.no_grad():
            expected = stock(
                **tokens, pixel_values=trainer.step.views.pipeline(pixels), return_loss=True
            ).loss
            found = inner_loss_of(trainer, pixels, labels).mean()
            views, targets = views_of(trainer, pixels, labels)
            trained = trainer.objective.loss(views, targets)["contrastive"]
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(trained, expected)

    def test_copies_of_a_caption_match_each_others_images(self):
        generator = torch.Generator().manual_seed(0)
        images, texts = (torch.randn(4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
        texts[2] = texts[0] * (1 + 1e-7)  # encoded in another batch, a copy is not equal to the last bit
        positives, keys = positive_pairs("diagonal", torch.zeros(4)), torch.tensor([7, 8, 7, 9])
        to_texts, to_images = pair_losses(
            images, texts, torch.tensor(10.0), torch.tensor(-2.0), positives, keys
        )
        cosines = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
        signs = 2 * torch.eye(4, dtype=torch.float64) - 1
        signs[0, 2] = signs[2, 0] = 1
        expected = F.softplus(-signs * (10 * cosines - 2)).sum(1)
        torch.testing.assert_close(to_texts, expected)
        torch.testing.assert_close(to_images.mean(), expected.mean())

    def test_captions_are_known_by_their_text(self, tiny_siglip_dir, tmp_path):
        trainer = make_trainer(tiny_siglip_dir, tmp_path, objective="mmcoa")
        pixels, labels = first_batch(trainer)
        with torch.no_grad():
            (view,), _ = views_of(trainer, pixels, labels)
        for keys in (view.caption_keys, view.attacked_caption_keys):
            assert torch.equal(keys[:, None] == keys, labels[:, None] == labels)
        assert not set(view.caption_keys.tolist()) & set(view.attacked_caption_keys.tolist())

    def test_mmcoa_counts_pairs_of_a_class_as_positives(self, tiny_siglip_dir, tmp_path):
        trainer = make_trainer(tiny_siglip_dir, tmp_path, objective="mmcoa")
        pixels, labels = first_batch(trainer)
        trainer.model.eval()
        with torch.no_grad():
            views, targets = views_of(trainer, pixels, labels)
            terms = trainer.objective.loss(views, targets)
        view, same = views[0], labels[:, None] == labels
        cosines = F.normalize(view.image_features, dim=-1) @ F.normalize(view.caption_features, dim=-1).T
        logits = 10 * cosines - 10
        nll = torch.where(same, F.softplus(-logits), F.softplus(logits)).sum(1).mean()
        torch.testing.assert_close(terms["attacked_images"], 0.5 * 2 * nll)

    def test_a_trained_text_tower_sees_whole_contexts(self, tiny_siglip_dir, tmp_path):
        trainer = make_trainer(tiny_siglip_dir, tmp_path, objective="mmcoa")
        pixels, labels = first_batch(trainer)
        stock = SiglipModel.from_pretrained(tiny_siglip_dir).eval()
        captions = [trainer.step.views.text.prompts[label] for label in labels.tolist()]
        tokenizer = trainer.processing_class.tokenizer
        tokens = tokenizer(captions, padding="max_length", max_length=64, return_tensors="pt")
        trainer.model.eval()
        with torch.no_grad():
            (view, *_), _ = views_of(trainer, pixels, labels)
            expected = stock.get_text_features(**tokens).pooler_output
        torch.testing.assert_close(view.caption_features, expected)

    def test_scale_and_bias_train_together(self, tiny_siglip_dir, tmp_path):
        trainer = make_trainer(tiny_siglip_dir, tmp_path, objective="mmcoa", max_steps=1)
        trainer.train()
        assert trainer.trained["logit_scale"] == 2
        assert trainer.model.logit_bias != -10 and trainer.model.logit_scale.exp() != 10


OPTIONS = {
    "objective": "hier_robust",
    "max_steps": 3,
    "save_strategy": "steps",
    "save_steps": 1,
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def run(tiny_siglip_dir, tiny_tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    evaluation = PixelDataset(make_images(8, seed=5))
    trainer = make_trainer(
        tiny_siglip_dir, folder, tree=Forest((tiny_tree,)), evaluation=evaluation, **OPTIONS
    )
    trainer.train()
    return trainer, folder


def test_checkpoints_are_stock_siglip(run):
    trainer, folder = run
    stock, report = SiglipModel.from_pretrained(folder / "checkpoint-3", output_loading_info=True)
    assert not any(report.values()), report
    pixels, _ = first_batch(trainer)
    tokens = text_inputs(trainer.model, trainer.processing_class.tokenizer, ["cat", "oak"])
    values = trainer.step.views.pipeline(pixels)
    with torch.no_grad():
        expected = trainer.model.eval()(**tokens, pixel_values=values).logits_per_image
        found = stock.eval()(**tokens, pixel_values=values).logits_per_image
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    loaded = load_robust_model(folder / "checkpoint-3")
    assert furthest(weights(loaded), weights(trainer.model)) == 0 and loaded.hier_head.calibrated


def test_a_resumed_run_equals_the_uninterrupted_one(run, tiny_siglip_dir, tiny_tree, tmp_path):
    straight, folder = run
    resumed = make_trainer(tiny_siglip_dir, tmp_path, tree=Forest((tiny_tree,)), **OPTIONS)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert furthest(weights(straight.model), weights(resumed.model)) == 0
    first, last = (checkpoint_weights(folder / f"checkpoint-{n}") for n in (1, 3))
    assert furthest(first, last) > 0


def test_evaluation_reports_every_level(run):
    metrics = run[0].evaluate()
    names = {
        f"eval_{level}_{kind}_accuracy" for level in ("leaf", "superclass") for kind in ("clean", "robust")
    }
    assert names <= metrics.keys()
    assert all(metrics[n.replace("clean", "robust")] <= metrics[n] for n in names if "clean" in n)


def test_lora_keeps_the_base_and_trains_the_text_head(tiny_siglip_dir, tiny_tree, tmp_path):
    pytest.importorskip("peft")
    trainer = make_trainer(
        tiny_siglip_dir, tmp_path, objective="hier_robust", tree=Forest((tiny_tree,)), lora_r=2
    )
    before = weights(trainer.model)
    trainer.train()  # with the check that adapters move and base weights do not
    moved = {n for n, old in weights(trainer.model).items() if not torch.equal(old, before[n])}
    assert "text_model.head.modules_to_save.default.weight" in moved
    assert not any("base_layer" in n or "original_module" in n for n in moved)
    trainer.save_model()
    _, report = SiglipModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
