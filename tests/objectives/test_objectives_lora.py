"""Every objective trains through adapters: they move, the base does not, what is saved is what trained."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import first_batch, furthest, make_trainer, weights
from transformers import CLIPModel

from hf_hierrobust.adapters.lora import adapter_parameters
from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.objectives import OBJECTIVES

pytest.importorskip("peft", reason="needs the extra peft")


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_adapters_move_and_the_base_does_not(name, tiny_clip_dir, tiny_tree, tmp_path):
    trainer = make_trainer(
        tiny_clip_dir, tmp_path, objective=name, tree=Forest((tiny_tree,)), lora_r=2, max_steps=2, eps="2/255"
    )
    model, start = trainer.model, weights(trainer.model)
    trainer.train()  # its own callback compares weights around the first step
    after = weights(model)
    adapters = {key for part in adapter_parameters(model).values() for key in part}
    small = adapters | {key for key in start if key.startswith(("hier_head.", "logit_scale"))}
    rest = start.keys() - small
    assert adapters and furthest({k: start[k] for k in adapters}, {k: after[k] for k in adapters}) > 0
    assert furthest({k: start[k] for k in rest}, {k: after[k] for k in rest}) == 0
    trainer.save_model()
    stock = CLIPModel.from_pretrained(tmp_path).eval()
    values = trainer.step.views.pipeline(first_batch(trainer)[0])
    with torch.no_grad():
        expected = model.eval().encode_image(values)
        torch.testing.assert_close(
            stock.get_image_features(pixel_values=values).pooler_output, expected, rtol=1e-4, atol=1e-5
        )
