"""The image processor as a differentiable function of pixels in [0, 1].

An attack perturbs pixels before normalisation, so resize, crop and normalise must sit inside the
attacked function, equal to what the checkpoint's own processor does.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_MODES = {2: "bilinear", 3: "bicubic"}  # PIL resampling codes that torch reproduces with antialiasing


class PixelPipeline:
    """Differentiable resize, centre crop and normalisation.

    A separable resize is linear, so it is applied as two small matrix products whose matrices are
    read off ``torch.nn.functional.interpolate(antialias=True)``, which uses PIL's kernels. Equal to
    the processor up to PIL's rounding to 8 bit after each pass of a resize, and exact without one. PIL
    resizes horizontally first; from version 13 on it starts vertically where a resize to a fixed height and
    width shrinks the height much more than the width, which differs at sharp edges.

    Args:
        image_processor: a CLIP-like image processor (``size``, ``crop_size``, ``image_mean``, …).
        space: threat space of the pixels that come in. ``"native"`` images have their own size and are
            resized and cropped here, also those that happen to have the model's; ``"model"`` ones already
            were, by `PixelCollator`, and are only normalised.

    Raises:
        ValueError: the processor resamples in a way torch cannot reproduce (nearest, Lanczos, …) or does not
            divide 8-bit images by 255; on a call, pixels of space ``"model"`` that lack the model's size.
    """

    def __init__(self, image_processor, space: Literal["native", "model"] = "native"):
        if space not in ("native", "model"):
            raise ValueError(f"space={space!r} must be 'native' or 'model'")
        self.processor, self.space = image_processor, space
        mean, std = [0.0] * 3, [1.0] * 3
        if image_processor.do_normalize:
            mean, std = image_processor.image_mean, image_processor.image_std
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std)
        )
        factor = image_processor.rescale_factor if image_processor.do_rescale else None
        if factor is None or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
            raise ValueError(
                f"image processor has do_rescale={image_processor.do_rescale} with rescale_factor={factor}: "
                "only the factor 1/255 turns 8-bit images into the pixels in [0, 1] that attacks work on"
            )
        if image_processor.do_resize and int(image_processor.resample) not in _MODES:
            raise ValueError(
                f"image processor resamples with {image_processor.resample!r}: "
                "only bilinear and bicubic have a differentiable equal"
            )
        self._matrices: dict[tuple, tuple[Tensor, Tensor] | None] = {}

    @property
    def model_size(self) -> tuple[int, int]:
        """Height and width of what enters the model; for a processor without crop, of a square image."""
        size = self.processor.crop_size if self._crops else self.processor.size
        edge = size.get("shortest_edge")
        return (edge, edge) if edge else (size["height"], size["width"])

    @property
    def _crops(self) -> bool:
        return bool(getattr(self.processor, "do_center_crop", False))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] to the model's ``pixel_values`` (B, 3, h, w), in fp32."""
        with torch.autocast(pixels.device.type, enabled=False):
            pixels = pixels.float()
            matrices = self._resize_matrices(pixels)
            if matrices is not None:
                rows, columns = matrices
                pixels = _clamp_straight_through(pixels @ columns)
                pixels = _clamp_straight_through(rows @ pixels)
            return (pixels - self.mean.to(pixels.device)) / self.std.to(pixels.device)

    def _resize_matrices(self, pixels: Tensor) -> tuple[Tensor, Tensor] | None:
        height, width = pixels.shape[-2:]
        key = (self.space, height, width, pixels.device)
        if key not in self._matrices:
            self._matrices[key] = self._build(height, width, pixels.device)
        return self._matrices[key]

    def _build(self, height: int, width: int, device) -> tuple[Tensor, Tensor] | None:
        if self.space == "model":
            self._check_model_size(height, width)
            return None
        new_height, new_width = self._resized(height, width)
        crop_height, crop_width = self.model_size if self._crops else (new_height, new_width)
        if (new_height, new_width) == (height, width) == (crop_height, crop_width):
            return None
        if crop_height > new_height or crop_width > new_width:
            raise ValueError(
                f"images of {height}x{width} are resized to {new_height}x{new_width}, smaller than the crop "
                f"{crop_height}x{crop_width}; use a processor that resizes to at least its crop"
            )
        mode = _MODES[int(self.processor.resample)]
        rows = _window(_resize_matrix(height, new_height, mode), crop_height)
        columns = _window(_resize_matrix(width, new_width, mode), crop_width)
        return rows.to(device), columns.T.contiguous().to(device)

    def _check_model_size(self, height: int, width: int) -> None:
        resizes = self._crops or self.processor.do_resize
        whole = self._crops or "shortest_edge" not in self.processor.size
        if not resizes or ((height, width) if whole else (min(height, width),) * 2) == self.model_size:
            return
        raise ValueError(
            f"pixels of {height}x{width} come into space 'model', where images already have the model's size "
            f"{self.model_size[0]}x{self.model_size[1]}: make them with PixelCollator(processor, 'model'), "
            "or use space='native'"
        )

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        size = self.processor.size
        if not self.processor.do_resize:
            return height, width
        if "shortest_edge" in size:
            edge, short = size["shortest_edge"], min(height, width)
            return int(edge * height / short), int(edge * width / short)
        return size["height"], size["width"]


def _resize_matrix(old: int, new: int, mode: str) -> Tensor:
    """(new, old) matrix of a one-dimensional antialiased resize."""
    identity = torch.eye(old, dtype=torch.float32)  # whatever the default dtype is
    if new == old:
        return identity
    return F.interpolate(identity[None, None], size=(new, old), mode=mode, antialias=True)[0, 0]


def _window(matrix: Tensor, length: int) -> Tensor:
    """The rows of a centre crop."""
    top = (matrix.shape[0] - length) // 2
    return matrix[top : top + length]


def _clamp_straight_through(pixels: Tensor) -> Tensor:
    """Clamp to [0, 1] as 8-bit images do after each pass of a resize, but let the gradient through.

    Bicubic overshoot and rounding put white areas a hair above 1; a plain clamp would zero their
    gradient, which hides them from the attacker.
    """
    return pixels + (pixels.clamp(0, 1) - pixels).detach()
