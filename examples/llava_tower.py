"""Put a robust image tower into a LLaVA model: ``python examples/llava_tower.py LLAVA TOWER OUT``.

LLAVA is a ``LlavaForConditionalGeneration`` whose tower is a CLIP (llava-hf/llava-1.5-7b-hf: L/14 at 336 px),
TOWER a CLIP checkpoint of the same shape, as ``hf-hierrobust train`` or ``convert`` writes. Projector and
language model stay as they are. A tower of another resolution (224 px in a LLaVA of 336) has its position
embeddings resized.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoProcessor, CLIPVisionModel, LlavaForConditionalGeneration

SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "patch_size",
    "hidden_act",
)


def at_resolution(tower: CLIPVisionModel, size: int) -> CLIPVisionModel:
    """The tower for square images of ``size`` pixels: its position embeddings resized.

    The same as ``tower(pixel_values, interpolate_pos_encoding=True)`` on such images, done once.
    """
    config = tower.config
    if size == config.image_size:
        return tower
    if size % config.patch_size:
        raise ValueError(f"size={size} is no multiple of the patch size, {config.patch_size}")
    state = tower.state_dict()
    key = next(name for name in state if name.endswith("position_embedding.weight"))
    cls, patches = state[key][:1], state[key][1:]
    grid, new = config.image_size // config.patch_size, size // config.patch_size
    patches = patches.reshape(1, grid, grid, -1).permute(0, 3, 1, 2).float()
    patches = torch.nn.functional.interpolate(patches, size=(new, new), mode="bicubic", align_corners=False)
    state[key] = torch.cat([cls, patches.permute(0, 2, 3, 1).flatten(0, 2).to(cls.dtype)])
    resized = CLIPVisionModel(type(config).from_dict(config.to_dict() | {"image_size": size})).to(tower.dtype)
    resized.load_state_dict(state)
    return resized.eval()


def with_tower(llava: LlavaForConditionalGeneration, tower: CLIPVisionModel) -> LlavaForConditionalGeneration:
    """The LLaVA with this tower in place of its own.

    Raises:
        ValueError: the towers differ in shape, so that the projector would read something else.
    """
    wanted = llava.config.vision_config
    for name in SHAPE:
        has, needs = getattr(tower.config, name), getattr(wanted, name)
        if has != needs:
            raise ValueError(f"the tower's {name} is {has}, the LLaVA's {needs}: take one of the same shape")
    tower = at_resolution(tower, wanted.image_size).to(llava.dtype)
    llava.model.vision_tower.load_state_dict(tower.state_dict())
    return llava


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("llava", "tower", "out"):
        parser.add_argument(name)
    args = parser.parse_args()
    llava = LlavaForConditionalGeneration.from_pretrained(args.llava)
    with_tower(llava, CLIPVisionModel.from_pretrained(args.tower)).save_pretrained(args.out)
    AutoProcessor.from_pretrained(args.llava).save_pretrained(args.out)


if __name__ == "__main__":
    main()
