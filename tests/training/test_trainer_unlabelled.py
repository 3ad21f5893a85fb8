"""Images without labels train the objectives that use none; all others refuse them."""

from __future__ import annotations

import pytest
from tiny_data import make_images
from tiny_runs import furthest, make_trainer, weights

from hf_hierrobust.data import PixelDataset, PixelStream
from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.objectives import OBJECTIVES
from hf_hierrobust.training import RobustCLIPTrainer

FREE = ("fare", "agft", "advflyp")


def unlabelled(captions: bool = False) -> PixelDataset:
    images = make_images(32).remove_columns("label")
    if captions:
        images = images.add_column("caption", [f"a photo of number {i}" for i in range(32)])
    return PixelDataset(images)


@pytest.mark.parametrize("name", FREE)
def test_training_without_labels(name, tiny_clip_dir, tmp_path):
    labelled = PixelDataset(make_images(8, seed=1))
    data = unlabelled(captions=name == "advflyp")
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective=name, train=data, evaluation=labelled)
    start = weights(trainer.model)
    trainer.train()
    assert furthest(start, weights(trainer.model)) > 1e-5
    assert 0 <= trainer.evaluate()["eval_leaf_clean_accuracy"] <= 1


def test_labels_change_nothing_for_them(tiny_clip_dir, tmp_path):
    found = []
    for data in (unlabelled(), PixelDataset(make_images(32))):
        trainer = make_trainer(tiny_clip_dir, tmp_path, objective="fare", train=data)
        trainer.train()
        found.append(weights(trainer.model))
    assert furthest(*found) == 0


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES.names()) - set(FREE)))
def test_all_others_need_labels(name, tiny_clip_dir, tiny_tree, tmp_path):
    words = f"objective '{name}' needs class labels, which train_dataset lacks"
    with pytest.raises(ValueError, match=words):
        make_trainer(tiny_clip_dir, tmp_path, objective=name, train=unlabelled(), tree=Forest((tiny_tree,)))


def test_refusals(tiny_clip_dir, tmp_path):
    def make(objective, train, evaluation=None) -> RobustCLIPTrainer:
        return make_trainer(tiny_clip_dir, tmp_path, objective=objective, train=train, evaluation=evaluation)

    with pytest.raises(ValueError, match="neither captions nor labels to make class prompts of"):
        make("advflyp", unlabelled())
    with pytest.raises(ValueError, match="eval_dataset has no labels"):
        make("fare", unlabelled(), unlabelled())
    stream = PixelStream(make_images(32).remove_columns("label").to_iterable_dataset())
    with pytest.raises(ValueError, match="images with neither caption nor label"):
        make("advflyp", stream).train()
