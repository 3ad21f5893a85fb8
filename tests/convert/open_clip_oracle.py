"""CLIP as open_clip builds it, of `torch.nn.MultiheadAttention` blocks under its names: the tests' oracle."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, activation: type[nn.Module], mask: torch.Tensor | None):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width), gelu=activation(), c_proj=nn.Linear(4 * width, width)
            )
        )
        self.mask = mask

    def forward(self, x):
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=self.mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers, heads, activation, mask=None):
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, heads, activation, mask) for _ in range(layers)))

    def forward(self, x):
        return self.resblocks(x)


class Visual(nn.Module):
    """The image tower; ``hidden`` are the states of all tokens after its last block but one."""

    def __init__(self, size, patch, width, layers, heads, projection, activation):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((size // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, activation)
        self.proj = nn.Parameter(torch.randn(width, projection) / width**0.5)
        self.hidden = None

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        x = self.ln_pre(x)
        self.hidden = self.transformer.resblocks[:-1](x)
        return self.ln_post(self.transformer.resblocks[-1](self.hidden)[:, 0]) @ self.proj


class OpenCLIP(nn.Module):
    def __init__(
        self,
        size,
        patch,
        width,
        layers,
        *,
        text_width=64,
        text_layers=1,
        vocab=49408,
        context=77,
        projection=48,
        quick=True,
        eos=None,
    ):
        super().__init__()
        activation = QuickGELU if quick else nn.GELU
        self.visual = Visual(size, patch, width, layers, width // 64, projection, activation)
        mask = torch.full((context, context), -torch.inf).triu(1)
        self.transformer = Transformer(text_width, text_layers, text_width // 64, activation, mask)
        self.token_embedding = nn.Embedding(vocab, text_width)
        self.positional_embedding = nn.Parameter(torch.randn(context, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(torch.randn(text_width, projection) / text_width**0.5)
        self.logit_scale = nn.Parameter(torch.tensor(4.5))
        self.eos = eos  # open_clip's pool_type "eos"; None is its "argmax"

    def encode_image(self, pixels):
        return self.visual(pixels)

    def encode_text(self, ids):
        x = self.transformer(self.token_embedding(ids) + self.positional_embedding)
        ends = ids.argmax(-1) if self.eos is None else (ids == self.eos).int().argmax(-1)
        return self.ln_final(x)[torch.arange(len(x)), ends] @ self.text_projection


def oracle(seed: int = 0, **shape) -> OpenCLIP:
    """Norms and biases drawn too, so that a swapped or forgotten one shows."""
    torch.manual_seed(seed)
    model = OpenCLIP(**shape).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "ln_" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def config_of(model: OpenCLIP, quick: bool) -> dict:
    """``model_cfg`` as open_clip's own configs write it."""
    visual, text = model.visual, model.transformer
    patch, grid = visual.conv1.kernel_size[0], round((len(visual.positional_embedding) - 1) ** 0.5)
    return {
        "embed_dim": visual.proj.shape[1],
        "quick_gelu": quick,
        "vision_cfg": {
            "image_size": grid * patch,
            "layers": len(visual.transformer.resblocks),
            "width": visual.proj.shape[0],
            "patch_size": patch,
        },
        "text_cfg": {
            "context_length": len(model.positional_embedding),
            "vocab_size": model.token_embedding.num_embeddings,
            "width": model.ln_final.normalized_shape[0],
            "heads": model.ln_final.normalized_shape[0] // 64,
            "layers": len(text.resblocks),
        },
    }
