"""Whatever kind of data set a trainer is given, its labels count by name."""

from __future__ import annotations

import datasets as hf
import pytest
import torch
from tiny_data import CLASSES, make_images
from tiny_runs import furthest, make_trainer, weights
from torch.utils.data import ConcatDataset, Subset, random_split
from transformers import AutoProcessor

from hf_hierrobust.data import PixelDataset, PixelStream, UnnamedLabelsError
from hf_hierrobust.training import RobustCLIPTrainer, RobustTrainingArguments

REVERSED = list(CLASSES[::-1])


def renumbered(images: hf.Dataset, names=REVERSED) -> hf.Dataset:
    """The same images with labels numbered in the order of ``names``."""
    labels = [names.index(CLASSES[label]) for label in images["label"]]
    column = hf.ClassLabel(names=list(names))
    return images.remove_columns("label").add_column("label", labels, feature=column)


IMAGES = make_images(32)
GIVEN = {
    "datasets": lambda: renumbered(IMAGES),
    "random_split": lambda: random_split(PixelDataset(renumbered(IMAGES)), [32, 0], torch.Generator())[0],
    "parts of different orders": lambda: ConcatDataset(
        [PixelDataset(renumbered(IMAGES.select(range(9)))), Subset(IMAGES, range(9, 32))]
    ),
    "stream": lambda: PixelStream(renumbered(IMAGES).to_iterable_dataset()),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_kind01_training_counts_labels_by_name_in(kind, tiny_clip_dir, tmp_path):
    """Numbered the other way round, the labels trained other classes: 37 % clean became 0."""
    found = []
    for train in (GIVEN[kind](), IMAGES):
        trainer = make_trainer(tiny_clip_dir, tmp_path, train=train, max_steps=1)
        if kind == "random_split":  # its order is its own
            labels = sorted(trainer.train_dataset.labels)
            assert labels == sorted(IMAGES["label"])
            item = trainer.train_dataset[0]
            assert train is IMAGES or item["label"] == IMAGES[item["row"]]["label"]
            continue
        if kind == "stream":
            labels = [item["label"] for item in trainer.train_dataset]
            assert labels == list(IMAGES["label"])
            continue
        trainer.train()
        found.append(weights(trainer.model))
    assert not found or furthest(*found) == 0


def test_kind01_evaluation_counts_labels_by_name_in_dicts_and_other_sets(tiny_clip_dir, tmp_path):
    images = make_images(24, seed=4)
    trainer = make_trainer(
        tiny_clip_dir,
        tmp_path,
        evaluation={"a": images, "b": renumbered(images), "c": Subset(renumbered(images), range(24))},
        robust_eval_steps=2,
    )
    metrics = trainer.evaluate()
    clean = {metrics[f"eval_{name}_leaf_clean_accuracy"] for name in "abc"}
    assert len(clean) == 1
    for other in (renumbered(images), PixelDataset(renumbered(images)), ConcatDataset([renumbered(images)])):
        assert {trainer.evaluate(other)["eval_leaf_clean_accuracy"]} == clean
    assert {trainer.evaluate({"d": renumbered(images)})["eval_d_leaf_clean_accuracy"]} == clean


def test_kind01_numbers_beside_the_training_datas_names_are_refused(tiny_clip_dir, tmp_path):
    numbers = IMAGES.cast_column("label", hf.Value("int64"))
    trainer = RobustCLIPTrainer(
        tiny_clip_dir,
        RobustTrainingArguments(str(tmp_path), objective="tecoa", report_to="none", bf16=False),
        train_dataset=renumbered(IMAGES),
    )
    assert trainer.class_set.class_names == tuple(REVERSED)
    with pytest.raises(UnnamedLabelsError, match=r"labels of eval_dataset are numbers without names"):
        trainer.evaluate(numbers)


def test_kind02_training_and_its_evaluation_preprocess_once_in_space_model(tiny_clip_dir, tmp_path):
    """The processor resizes to 38 and crops 32, as 256 and 224 do; pixels were resized and cropped twice."""
    processor = AutoProcessor.from_pretrained(tiny_clip_dir)
    processor.image_processor.size = {"shortest_edge": 38}
    processor.image_processor.crop_size = {"height": 32, "width": 32}
    images = make_images(24, seed=3, size=60)
    arguments = RobustTrainingArguments(
        str(tmp_path),
        objective="tecoa",
        threat_space="model",
        robust_eval_steps=1,
        max_steps=1,
        report_to="none",
        save_strategy="no",
        bf16=False,
        learning_rate=1e-9,
    )
    trainer = RobustCLIPTrainer(
        tiny_clip_dir, arguments, train_dataset=images, eval_dataset=images, processing_class=processor
    )
    prompts = [f"This is a photo of a {name}." for name in CLASSES]
    inputs = processor(text=prompts, images=list(images["image"]), return_tensors="pt", padding=True)
    with torch.no_grad():
        stock = trainer.model.eval()(**inputs).logits_per_image.argmax(1)
    right = float((stock == torch.tensor(images["label"][:])).float().mean())
    assert trainer.evaluate()["eval_leaf_clean_accuracy"] == pytest.approx(right, abs=1e-6)
    trainer.train()  # space "model" with pixels of another size is refused by the pipeline
