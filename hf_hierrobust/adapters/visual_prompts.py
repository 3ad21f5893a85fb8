"""Visual prompts: a few learned tokens or a learned border, with the model itself frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, PreTrainedConfig, SiglipVisionConfig, initialization as init


class VisualPrompts(nn.Module):
    """Prompts of TeCoA (2212.07016), whose prompt training adds tokens, a border, or both.

    Tokens stand among the patches, without a position, before the tower's first LayerNorm. Without a class
    token (SigLIP) the attention pooling sees them beside the patches. The border is
    added to the normalised image at the model's resolution, inside the attacked function: the attacker sees
    it but does not change it.

    Args:
        config: of the vision tower.
        tokens: number of learned tokens.
        border: width of the learned border in pixels.
        init_std: standard deviation of the initial values; with 0 a border starts without effect.

    Raises:
        ValueError: neither tokens nor border, a negative number, or a border that leaves no pixel inside.
    """

    def __init__(
        self,
        config: CLIPVisionConfig | SiglipVisionConfig,
        tokens: int = 0,
        border: int = 0,
        init_std: float = 1.0,
    ):
        super().__init__()
        for name, value in (("tokens", tokens), ("border", border)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"visual prompt {name}={value!r} must be a whole number, at least 0")
        if tokens == border == 0:
            raise ValueError("a visual prompt needs tokens > 0, border > 0 or both")
        side, inner = config.image_size, config.image_size - 2 * border
        if inner < 1:
            raise ValueError(f"visual prompt border={border} covers all of {side}x{side} pixels: lower it")
        self.num_tokens, self.border, self.init_std = tokens, border, float(init_std)
        self.enabled = True
        self._class_tokens = 0 if isinstance(config, SiglipVisionConfig) else 1
        if tokens:
            self.tokens = nn.Parameter(torch.empty(tokens, config.hidden_size))
        if border:
            self.rows = nn.Parameter(torch.empty(2, config.num_channels, border, side))
            self.columns = nn.Parameter(torch.empty(2, config.num_channels, inner, border))
        self.reset()

    def reset(self) -> None:
        """Random initial values."""
        for parameter in self.parameters():
            init.normal_(parameter, std=self.init_std)

    def facts(self) -> dict:
        """What ``config.hier_robust["visual_prompt"]`` records, enough to build the module again."""
        return {"tokens": self.num_tokens, "border": self.border, "init_std": self.init_std}

    def attach(self, embeddings: nn.Module) -> None:
        """Put the prompt into every call of the tower's embeddings."""
        self._handles = (
            embeddings.register_forward_pre_hook(self._add_border),
            embeddings.register_forward_hook(self._insert_tokens),
        )

    def detach(self) -> None:
        """Undo `attach`."""
        for handle in self._handles:
            handle.remove()

    def split(self, hidden: Tensor) -> Tensor:
        """Patch tokens (B, P, w) of the tower's last states: class token if any, prompts, patches."""
        return hidden[:, self._class_tokens + (self.num_tokens if self.enabled else 0) :]

    def frame(self) -> Tensor:
        """The border as an image (C, H, W), zero inside."""
        (top, bottom), (left, right) = self.rows, self.columns
        inner = left.new_zeros(*left.shape[:2], top.shape[-1] - 2 * self.border)
        return torch.cat([top, torch.cat([left, inner, right], dim=2), bottom], dim=1)

    def _add_border(self, module: nn.Module, args: tuple) -> tuple:
        if not (self.enabled and self.border):
            return args
        (pixel_values, *rest), frame = args, self.frame()
        if pixel_values.shape[1:] != frame.shape:
            raise ValueError(
                f"pixel_values have shape {tuple(pixel_values.shape)} but the visual prompt's border was "
                f"made for {tuple(frame.shape)}: resize the images to the model's resolution"
            )
        return (pixel_values + frame, *rest)

    def _insert_tokens(self, module: nn.Module, args: tuple, embeddings: Tensor) -> Tensor:
        if not (self.enabled and self.num_tokens):
            return embeddings
        tokens = self.tokens.to(embeddings.dtype).expand(len(embeddings), -1, -1)
        start = self._class_tokens
        return torch.cat([embeddings[:, :start], tokens, embeddings[:, start:]], dim=1)


class Promptable(Protocol):
    """A model whose image tower can carry a prompt, such as `RobustDualEncoder`."""

    config: PreTrainedConfig
    vision_model: nn.Module
    visual_prompt: VisualPrompts | None
    device: torch.device
    dtype: torch.dtype


def add_visual_prompt(
    model: Promptable, tokens: int = 100, border: int = 0, *, init_std: float = 1.0, seed: int = 0
) -> VisualPrompts:
    """Give a model a new prompt, part of every image embedding from now on.

    `set_trainable` then trains the prompt in place of the vision tower. A checkpoint keeps the prompt in
    ``visual_prompt.safetensors``: stock transformers loads the base model **without** it,
    the model's own ``from_pretrained`` with it.

    Args:
        tokens, border, init_std: see `VisualPrompts`. TeCoA's README trains 100 tokens with SGD at learning
            rate 40; its code's border is 30 pixels wide at 224.
        seed: of the initial values; the global generator is left as it was.

    Raises:
        ValueError: the model has a prompt already; see `VisualPrompts` for the others.
    """
    if model.visual_prompt is not None:
        raise ValueError("the model has a visual prompt already: load it with visual_prompt=False first")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prompt = VisualPrompts(model.config.vision_config, tokens, border, init_std)
    model.visual_prompt = prompt.to(model.device, model.dtype)
    prompt.attach(model.vision_model.embeddings)
    return prompt


def remove_visual_prompt(model: Promptable) -> None:
    """Take the prompt out again, if there is one."""
    if model.visual_prompt is not None:
        model.visual_prompt.detach()
        model.visual_prompt = None


@contextmanager
def visual_prompt_off(model: Promptable) -> Iterator[None]:
    """The model without its prompt, also after an exception inside."""
    prompt = model.visual_prompt
    before = None if prompt is None else prompt.enabled
    try:
        if prompt is not None:
            prompt.enabled = False
        yield
    finally:
        if prompt is not None:
            prompt.enabled = before
