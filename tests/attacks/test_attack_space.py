"""An attack and the pipeline of what it attacks agree on the size of the pixels."""

from __future__ import annotations

import pytest
import torch
from tiny_data import CLASSES
from transformers import AutoProcessor

from hf_hierrobust.attacks import PGD
from hf_hierrobust.classifiers import ZeroShotClassifier
from hf_hierrobust.modeling import PixelPipeline, RobustCLIPModel, encode_prompts


@pytest.mark.parametrize("spaces", [("native", "model"), ("model", "native")])
def test_kind02_an_attack_in_another_space_than_the_pipelines_is_refused(tiny_clip_dir, spaces):
    """Pixels of the model's size would be resized and cropped once more."""
    model = RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()
    processor = AutoProcessor.from_pretrained(tiny_clip_dir)
    states = encode_prompts(model, processor.tokenizer, list(CLASSES))
    pixels, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    for space in spaces:
        classifier = ZeroShotClassifier(model, PixelPipeline(processor.image_processor, space), states)
        assert PGD(space=space, num_steps=1)(classifier, pixels, labels).adversarial.shape == pixels.shape
        other = "model" if space == "native" else "native"
        with pytest.raises(
            ValueError, match=rf"space='{other}' of the attack.*takes pixels of space '{space}'"
        ):
            PGD(space=other)(classifier, pixels, labels)
