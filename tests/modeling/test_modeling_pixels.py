"""The pixel pipeline is the checkpoint's own image processor, and differentiable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from hf_hierrobust.data import PixelCollator
from hf_hierrobust.modeling import PixelPipeline

CROP = {"height": 48, "width": 48}
PROCESSORS = {
    "crop": {"size": {"shortest_edge": 48}, "crop_size": CROP},
    "resize-52-crop-48": {"size": {"shortest_edge": 52}, "crop_size": CROP},
    "bilinear": {"size": {"shortest_edge": 48}, "crop_size": CROP, "resample": 2},
    "fixed-size": {"size": {"height": 48, "width": 40}, "do_center_crop": False},
    # Taller than any picture here: Pillow 13 resizes vertically first where it mostly shrinks the height.
    "fixed-size-crop": {"size": {"height": 65, "width": 53}, "crop_size": CROP},
    "no-crop": {"size": {"shortest_edge": 48}, "do_center_crop": False},
    "no-resize": {"do_resize": False, "crop_size": {"height": 24, "width": 30}},
    "no-normalize": {"size": {"shortest_edge": 48}, "crop_size": CROP, "do_normalize": False},
}
SIZES = [(32, 32), (48, 48), (64, 64), (40, 60), (60, 40)]


def picture(height: int, width: int, kind: str = "noise") -> np.ndarray:
    """(height, width, 3) of 8 bit; black and white dots overshoot most under a bicubic kernel."""
    rng = np.random.default_rng(height + 1000 * width)
    if kind == "dots":
        return (rng.integers(0, 2, (height, width, 3)) * 255).astype("uint8")
    return rng.integers(0, 256, (height, width, 3)).astype("uint8")


def as_pixels(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("kind", ["noise", "dots"])
@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_processor(name, size, kind):
    processor = CLIPImageProcessor(**PROCESSORS[name])
    pipeline, image = PixelPipeline(processor), picture(*size, kind)
    expected = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    found = pipeline(as_pixels(image))
    assert found.shape == expected.shape
    levels = ((found - expected) * pipeline.std * 255).abs().max()
    if name == "no-resize" or (size == (48, 48) and name in ("crop", "no-crop", "no-normalize")):
        assert levels < 1e-3, "nothing is resized, so nothing is rounded"
    else:
        # Half a grey level of rounding after each of two passes, the first spread by the second's kernel.
        assert levels < 1.3
        assert ((found - expected) * pipeline.std * 255).abs().mean() < 0.35


def test_model_size():
    sizes = {name: PixelPipeline(CLIPImageProcessor(**kw)).model_size for name, kw in PROCESSORS.items()}
    assert sizes.pop("fixed-size") == (48, 40)
    assert sizes.pop("no-resize") == (24, 30)
    assert set(sizes.values()) == {(48, 48)}


@pytest.mark.parametrize("size", [(48, 48), (32, 32), (64, 64)], ids=str)
def test_white_and_black_pixels_get_their_gradient(size):
    pipeline = PixelPipeline(CLIPImageProcessor(**PROCESSORS["crop"]))
    for value in (0.0, 1.0):
        pixels = torch.full((1, 3, *size), value, requires_grad=True)
        out = pipeline(pixels)
        assert torch.allclose(out, ((value - pipeline.mean) / pipeline.std).expand_as(out), atol=1e-5)
        (gradient,) = torch.autograd.grad(out.sum(), pixels)
        # Every weight of a row sums to one, so all outputs together weigh all inputs.
        assert (gradient > 0).all()
        total = (1 / pipeline.std).sum() * 48 * 48
        assert torch.isclose(gradient.sum(), total, rtol=1e-4)


@pytest.mark.parametrize("name", ["crop", "resize-52-crop-48", "bilinear", "fixed-size"])
@pytest.mark.parametrize("size", [(32, 32), (64, 48)], ids=str)
def test_gradient_is_the_finite_difference(name, size):
    """Away from the clamps the map is affine, so a difference of any width is exact."""
    pipeline = PixelPipeline(CLIPImageProcessor(**PROCESSORS[name]))
    generator = torch.Generator().manual_seed(0)
    pixels = (0.4 + 0.2 * torch.rand(2, 3, *size, generator=generator)).requires_grad_()
    direction = 0.05 * torch.randn(pixels.shape, generator=generator).clamp(-2, 2)
    out = pipeline(pixels)
    weights = torch.randn(out.shape, generator=generator)
    (gradient,) = torch.autograd.grad((weights * out).sum(), pixels)
    with torch.no_grad():
        step = pipeline(pixels + direction) - pipeline(pixels)
        half = pipeline(pixels + direction / 2) - pipeline(pixels)
    assert torch.allclose(step, 2 * half, atol=2e-6)
    found, expected = (gradient * direction).double().sum(), (weights * step).double().sum()
    assert abs(found - expected) < 1e-6 * (weights * step).norm() * weights.numel() ** 0.5
    assert step.abs().max() > 0.05


def test_fp32_under_autocast_and_for_low_precision_pixels():
    pipeline, pixels = PixelPipeline(CLIPImageProcessor(**PROCESSORS["crop"])), as_pixels(picture(32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pipeline(pixels), pipeline(pixels))
        inside = pipeline(pixels)
    assert inside.dtype == torch.float32 and torch.equal(inside, pipeline(pixels))
    assert pipeline(pixels.half()).dtype == torch.float32


def test_what_cannot_be_reproduced_is_refused():
    for resample in (0, 1, 4, 5):  # nearest, Lanczos, box, Hamming
        with pytest.raises(ValueError, match=r"only bilinear and bicubic have a differentiable equal"):
            PixelPipeline(CLIPImageProcessor(resample=resample))
    PixelPipeline(CLIPImageProcessor(resample=1, do_resize=False))
    for options in ({"do_rescale": False}, {"rescale_factor": 1 / 127.5}):
        with pytest.raises(ValueError, match=r"only the factor 1/255"):
            PixelPipeline(CLIPImageProcessor(**options))
    small = PixelPipeline(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=CROP))
    with pytest.raises(
        ValueError, match=r"images of 64x64 are resized to 32x32, smaller than the crop 48x48"
    ):
        small(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("name", [name for name in PROCESSORS if name != "no-crop"])
@pytest.mark.parametrize("size", [*SIZES, (24, 30), (300, 70)], ids=str)
def test_kind02_images_are_preprocessed_once_in_space_model(name, size):
    """Collator and pipeline together are the processor: it resized and cropped twice where 56 > 48."""
    processor = CLIPImageProcessor(**PROCESSORS[name])
    image = Image.fromarray(picture(*size))
    expected = processor(image, return_tensors="pt")["pixel_values"]
    pixels = PixelCollator(processor, "model")([{"image": image, "label": 0}])["pixels"]
    found = PixelPipeline(processor, "model")(pixels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_kind02_a_native_image_of_the_models_size_is_still_resized():
    """48 pixels come in, the processor makes 52 of them and crops 48: so must the pipeline."""
    processor = CLIPImageProcessor(**PROCESSORS["resize-52-crop-48"])
    pixels = as_pixels(picture(48, 48))
    native, model = (PixelPipeline(processor, space)(pixels) for space in ("native", "model"))
    expected = processor(Image.fromarray(picture(48, 48)), return_tensors="pt")["pixel_values"]
    assert float((native - expected).abs().mean()) < 0.01 < float((native - model).abs().mean())


def test_kind02_pixels_of_another_size_are_refused_in_space_model():
    pipeline = PixelPipeline(CLIPImageProcessor(**PROCESSORS["resize-52-crop-48"]), "model")
    with pytest.raises(ValueError, match=r"52x60 come into space 'model'.*48x48.*PixelCollator"):
        pipeline(torch.rand(1, 3, 52, 60))
    short = PixelPipeline(CLIPImageProcessor(**PROCESSORS["no-crop"]), "model")
    assert short(torch.rand(1, 3, 48, 60)).shape == (1, 3, 48, 60)
    with pytest.raises(ValueError, match="40x60 come into space 'model'"):
        short(torch.rand(1, 3, 40, 60))
    with pytest.raises(ValueError, match="space='big' must be 'native' or 'model'"):
        PixelPipeline(CLIPImageProcessor(), "big")
