"""The tiny CLIP with a calibrated head, and the classifiers it offers."""

from __future__ import annotations

import pytest
import torch
from tiny_data import CLASSES, PATHS, make_images
from transformers import AutoProcessor

from hf_hierrobust.classifiers import level_classifiers
from hf_hierrobust.classifiers.levels import CLASSIFIERS
from hf_hierrobust.data import ClassSet, PixelDataset
from hf_hierrobust.evaluation import (
    EvaluationSet,
)
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import PixelPipeline, RobustCLIPModel, encode_prompts

TREE = LabelTree.from_paths(PATHS, name="tiny")
TEMPLATE = "a picture of {}"


@pytest.fixture(scope="module")
def clip(tiny_clip_dir):
    """Model with a calibrated head, its processor, pixels (8, 3, 32, 32) and labels."""
    model = RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()
    processor = AutoProcessor.from_pretrained(tiny_clip_dir)
    data = EvaluationSet(
        name="d", dataset=PixelDataset(make_images(8)), class_set=ClassSet.from_names(CLASSES)
    )
    batch = next(iter(data.loader(processor, "native", 8)))
    with torch.no_grad():
        pipeline = PixelPipeline(processor.image_processor)
        images = model.encode_image(pipeline(batch["pixels"]))
        texts = model.project_text(encode_prompts(model, processor.tokenizer, list(CLASSES)))
        model.hier_head.calibrate(images, texts, batch["labels"], float(model.logit_scale.exp()))
    return model, processor, batch["pixels"], batch["labels"]


def classifiers_of(clip, tree=TREE, **options) -> dict:
    model, processor, *_ = clip
    found = level_classifiers(
        model,
        PixelPipeline(processor.image_processor),
        processor.tokenizer,
        ClassSet.from_names(CLASSES),
        tree,
        **{"template": TEMPLATE, "names": CLASSIFIERS, **options},
    )
    return {(c.level, c.name): c for c in found}


@pytest.fixture(scope="module")
def found(clip):
    return classifiers_of(clip)
