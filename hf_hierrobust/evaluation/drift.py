"""How far an image tower's patch tokens moved from its base's: what LLaVA-type models read of it.

They take the patch tokens before the last block, ``hidden_states[-2]``, which no loss on the class token or
the pooled embedding supervises. A tower in place of its base has to give tokens near the base's, also under
attack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attacks.image.steps import ascend, start
from ..classifiers import frozen
from ..modeling import PixelPipeline, RobustDualEncoder
from ..options import check_whole
from ..threat import ThreatModel

LAYER = -2


def patch_tokens(model: RobustDualEncoder, pixel_values: Tensor, layer: int = LAYER) -> Tensor:
    """Patch tokens (B, P, w) of a layer of the image tower; pixels are normalised."""
    hidden = model.vision_model(pixel_values=pixel_values, output_hidden_states=True).hidden_states[layer]
    if model.visual_prompt is not None:
        return model.visual_prompt.split(hidden)
    return hidden[:, 1:] if hasattr(model.vision_model.embeddings, "class_embedding") else hidden


def token_drift(
    model: RobustDualEncoder,
    base: RobustDualEncoder,
    pixels: Tensor | Sequence[Tensor],
    pipeline: PixelPipeline,
    threat: ThreatModel,
    *,
    num_steps: int = 10,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean cosine of layer -2 patch tokens to those of the base on the clean image.

    The attack looks for pixels in the budget with the lowest cosine, by PGD of steps eps/4 from a uniform
    start, keeping each image's lowest. It attacks each of the two towers by itself, and needs no labels.

    Args:
        pixels: (B, 3, H, W) in [0, 1], or several such batches.
        threat: budget in pixel scale; its space is that of the pixels and the pipeline.

    Returns:
        The entry ``drift`` of a record: ``clean`` and ``attacked``, of the model; ``base_attacked``, of the
        base under its own attack; ``layer``, ``tokens``, ``num_samples``, ``num_steps``.

    Raises:
        ValueError: towers of other shapes, whose tokens do not correspond; ``num_steps`` below 1, or a seed
            that is no whole number.
    """
    check_whole(num_steps=num_steps, seed=seed)
    batches = [pixels] if isinstance(pixels, Tensor) else list(pixels)
    found: dict[str, list[Tensor]] = {"clean": [], "attacked": [], "base_attacked": []}
    with frozen(model, base):
        for number, batch in enumerate(batches):
            with torch.no_grad():
                anchor = patch_tokens(base, pipeline(batch))
                own = patch_tokens(model, pipeline(batch))
            if own.shape != anchor.shape:
                raise ValueError(
                    f"the towers give patch tokens {tuple(own.shape[1:])} and {tuple(anchor.shape[1:])} of "
                    "an image: drift compares a model with the base that it was trained from"
                )
            found["clean"].append(_cosine(own, anchor))
            for name, tower in (("attacked", model), ("base_attacked", base)):
                generator = torch.Generator().manual_seed(seed + 1_000_003 * number)

                def cosine(x: Tensor, tower=tower, anchor=anchor) -> Tensor:
                    return _cosine(patch_tokens(tower, pipeline(x)), anchor)

                found[name].append(_lowest(cosine, batch, threat, num_steps, generator))
    means = {name: float(torch.cat(values).double().mean()) for name, values in found.items()}
    return {
        "layer": LAYER,
        "tokens": anchor.shape[1],
        "num_samples": sum(map(len, batches)),
        "num_steps": num_steps,
        **means,
    }


def _cosine(tokens: Tensor, anchor: Tensor) -> Tensor:
    """(B,) mean over the patches."""
    return F.cosine_similarity(tokens.float(), anchor.float(), dim=-1).mean(-1)


def _lowest(
    cosine: Callable[[Tensor], Tensor],
    pixels: Tensor,
    threat: ThreatModel,
    num_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """(B,) the lowest cosine of each image's iterates, the clean image among them."""
    with torch.no_grad():
        lowest = cosine(pixels)
    delta = start(threat, pixels, "uniform", generator)
    for step in range(num_steps + 1):
        with torch.enable_grad():
            x = (pixels + delta).requires_grad_()
            values = cosine(x)
            lowest = torch.minimum(lowest, values.detach())
            if step < num_steps:
                (gradient,) = torch.autograd.grad(values.sum(), x)
                delta = ascend(threat, delta, -gradient, pixels, threat.eps / 4)
    return lowest
