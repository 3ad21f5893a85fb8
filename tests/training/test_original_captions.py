"""What the frozen original says of captions, while the trained model's text encoder moves."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import batch_of, first_batch, make_trainer, perturb, views_of
from transformers import AutoProcessor, CLIPModel

from hf_hierrobust.objectives import Composite

MEMBERS = {
    "text trains": {"advflyp": {}, "mmcoa": {}},
    "projection trains": {"advflyp": {}, "hier_robust": {}},
    "text is frozen": {"advflyp": {}, "tecoa": {}},
}


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("lora", [None, 4], ids=["full", "lora"])
def test_kind11_advflyps_original_distribution_is_by_the_originals_captions(
    members, lora, tiny_clip_dir, tiny_tree, tmp_path
):
    tree = tiny_tree if "hier_robust" in members else None
    trainer = make_trainer(
        tiny_clip_dir, tmp_path, objective=Composite(members=members), tree=tree, lora_r=lora, max_steps=2
    )
    trainer.train()
    pixels, labels = first_batch(trainer)
    batch = batch_of(trainer, pixels, labels)
    _, targets = views_of(trainer, pixels, labels, perturb(trainer, pixels, labels))
    (original,) = targets.attacked_reference
    stock = CLIPModel.from_pretrained(tiny_clip_dir).eval()
    tokenizer = AutoProcessor.from_pretrained(tiny_clip_dir).tokenizer
    text = tokenizer(list(batch.captions), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = stock.get_text_features(**text).pooler_output
    assert torch.allclose(original.caption_features, expected, atol=1e-5)
    moved = (targets.clean.caption_features - expected).abs().max() > 1e-3
    assert bool(moved) == ("tecoa" not in members)
    trainer.step.views.reference.assert_unchanged()
