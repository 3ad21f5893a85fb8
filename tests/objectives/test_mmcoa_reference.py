"""MMCoA against its equations (2404.19287)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from flat_batch import assert_same, log_softmax
from pair_batch import CLASSES, PairBatch, both_ways, cosine, positives_of
from tiny_data import make_images
from tiny_runs import group_of, make_trainer, weights

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.objectives import MMCoA
from hf_hierrobust.objectives.contrastive import multi_positive_cross_entropy


def make_objective(**options) -> MMCoA:
    objective = MMCoA(**options)
    objective.setup(CLASSES)
    return objective


@pytest.mark.parametrize("captions", ["prompts", "own"])
@pytest.mark.parametrize("positives", ["class", "diagonal"])
def test_losses_and_gradients_equal_the_reference(positives, captions):
    batch = PairBatch(captions)
    objective = make_objective(positives=positives, lambda_image=0.3, lambda_text=0.8)
    terms = objective.loss([batch.view()], batch.targets())
    assert list(terms) == ["attacked_images", "attacked_texts"]
    mine = positives_of(batch, positives)
    images = 0.3 * both_ways(batch.attacked, batch.captions, batch.scale, mine)
    texts = 0.8 * both_ways(batch.clean, batch.attacked_captions, batch.scale, mine)
    assert_same(terms["attacked_images"], images, batch.leaves)
    assert_same(terms["attacked_texts"], texts, batch.leaves)


def test_by_default_pairs_of_a_class_are_positives_and_both_halves_weigh_one_half():
    batch = PairBatch("own")
    loss = sum(make_objective().loss([batch.view()], batch.targets()).values())
    mine = positives_of(batch, "class")
    assert [len(m) for m in mine] == [3, 1, 2, 3, 3, 2]
    images = both_ways(batch.attacked, batch.captions, batch.scale, mine)
    texts = both_ways(batch.clean, batch.attacked_captions, batch.scale, mine)
    assert_same(loss, (images + texts) / 2, batch.leaves)


def test_the_released_codes_targets_are_the_diagonal():
    """As the code has it: two cross-entropies whose labels count up."""
    batch = PairBatch("own")
    terms = make_objective(positives="diagonal").loss([batch.view()], batch.targets())
    diagonal = torch.arange(len(batch.labels))

    def code(images, texts):
        logits = batch.scale * F.normalize(images) @ F.normalize(texts).T
        return 0.5 * (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal))

    assert_same(terms["attacked_images"], code(batch.attacked, batch.captions), batch.leaves)
    assert_same(terms["attacked_texts"], code(batch.clean, batch.attacked_captions), batch.leaves)


def test_on_class_prompts_the_diagonal_pushes_nothing_away():
    """Equal captions make equal rows and columns: both targets have one sum over the batch, one gradient."""
    batch = PairBatch("prompts")
    batch.attacked_captions = batch.texts.flip(1)[batch.labels]  # one attacked prompt a class
    views, targets = [batch.view()], batch.targets()
    by_class, diagonal = (
        sum(make_objective(positives=p).loss(views, targets).values()) for p in ("class", "diagonal")
    )
    assert_same(by_class, diagonal, [batch.attacked, batch.clean, batch.texts, batch.scale])
    own = PairBatch("own")
    losses = [
        sum(make_objective(positives=p).loss([own.view()], own.targets()).values())
        for p in ("class", "diagonal")
    ]
    assert abs(float((losses[0] - losses[1]).detach())) > 0.1


def test_a_batch_of_different_classes_has_the_diagonal_whatever_the_option():
    batch = PairBatch(labels=[2, 0, 1])
    losses = [
        sum(make_objective(positives=p).loss([batch.view()], batch.targets()).values())
        for p in ("class", "diagonal")
    ]
    torch.testing.assert_close(*losses)


def test_perfectly_aligned_prompts_are_the_minimum():
    """Copies of a prompt share its probability: the least loss is log |P|, and there the gradient is zero."""
    logits = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    aligned = (logits + 60.0 * positives).requires_grad_()
    losses = multi_positive_cross_entropy(aligned, positives)
    torch.testing.assert_close(losses, logits.new_tensor([math.log(2), math.log(2), 0]))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.abs().max() < 1e-12


def test_the_attack_maximises_cross_entropy_over_the_class_prompts():
    batch = PairBatch()
    objective = make_objective()
    inner = objective.inner_loss(batch.view(nodes=True), batch.targets()._replace(clean=None))
    expected = [
        -log_softmax([batch.scale * cosine(image, text) for text in batch.texts])[label]
        for image, label in zip(batch.attacked, batch.labels.tolist())
    ]
    assert inner.shape == batch.labels.shape
    assert_same(inner.sum(), sum(expected), batch.leaves)


def test_it_trains_on_the_captions_of_the_data(tiny_clip_dir, tmp_path):
    """From a text column through the trainer's batches to the loss."""
    images = make_images(16)
    captions = [
        f"a {colour} picture of thing" for colour in ("red", "green", "blue", "dark") for _ in range(4)
    ]
    seen = []

    class Spy(MMCoA):
        name = "spy"

        def loss(self, views, targets):
            seen.append(views[0].caption_features.detach())
            return super().loss(views, targets)

    data = PixelDataset(images.add_column("caption", captions))
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective=Spy(lambda_text=0), train=data, max_steps=1)
    before = weights(trainer.model)
    batch = trainer.data_collator([data[row] for row in (0, 5, 15)])
    assert trainer.reader.read(batch, trainer._starts).captions == (captions[0], captions[5], captions[15])
    trainer.train()
    (features,) = seen
    assert len(features) == 8 and len(features.unique(dim=0)) > 1
    after = weights(trainer.model)
    moved = {group_of(name) for name in before if not before[name].equal(after[name]) and "head" not in name}
    assert moved == set(trainer.objective.trained_groups)


def test_halves_of_weight_zero_need_nothing_and_are_absent():
    batch = PairBatch()
    images_only, texts_only = make_objective(lambda_text=0), make_objective(lambda_image=0)
    assert images_only.needs == {"captions"}
    assert make_objective().needs == texts_only.needs == {"captions", "attacked_captions", "clean"}
    assert list(images_only.loss([batch.view()], batch.targets()._replace(clean=None))) == ["attacked_images"]
    assert list(texts_only.loss([batch.view()], batch.targets())) == ["attacked_texts"]
    assert texts_only.default_attack == "none" and images_only.default_attack == "pgd"
    assert make_objective().default_text_attack == "bert"


def test_all_of_clip_trains():
    assert set(make_objective().trained_groups) == {"vision", "text", "text_projection", "logit_scale"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lambda_image": -1}, "lambda_image=-1 must be a number, at least 0"),
        ({"lambda_text": "0.5"}, "lambda_text='0.5' must be a number"),
        ({"lambda_image": 0, "lambda_text": 0}, "leave no loss"),
        ({"positives": "same"}, "positives='same' is unknown: choose one of class, diagonal"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        MMCoA(**options)
