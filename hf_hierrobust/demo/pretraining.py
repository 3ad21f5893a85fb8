"""Contrastive pretraining of a tiny CLIP: the accurate, undefended model of the embedded demonstration.

The saved folder is a stock checkpoint for ``AutoModel``, ``AutoProcessor`` and the zero-shot pipeline.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, Image
from transformers import CLIPModel, CLIPProcessor

from ..precision import attention_kernel, resolve_bf16
from ..progress import Pace, say
from .tiny import build_processor, build_tokenizer, tiny_clip_config

TEMPLATES = ("This is a photo of a {}.", "a photo of a {}.", "a picture of a {}.", "{}")
_MARKER = "pretraining.json"


@dataclass(frozen=True)
class PretrainRecipe:
    """Constants of the contrastive pretraining; together with the data they name the cached folder."""

    seed: int = 0
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    coarser_share: float = 0.2
    """A caption names the leaf's parent this much less often than the leaf, and so on upwards."""
    max_shift: int = 1
    brightness: float = 0.1
    bf16: bool | str = "auto"
    """Train under bf16 autocast; "auto" where the CPU has the instructions, and there 1.4 times faster."""
    version: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if not 0 < self.coarser_share <= 1:
            raise ValueError(f"coarser_share={self.coarser_share} must lie in (0, 1]")


@dataclass(frozen=True)
class _Captions:
    """All node names and, per leaf, the indices of its own name and its ancestors' (leaves, levels)."""

    nodes: list[str]
    chains: torch.Tensor


def pretrain_glyph_clip(
    output_dir: str | os.PathLike,
    *,
    dataset: Dataset,
    paths: Mapping[str, Sequence[str]],
    recipe: PretrainRecipe | None = None,
    threads: int | None = None,
) -> Path:
    """Pretrain a tiny CLIP on captions that name the leaf, its superclass or its top node.

    As in CLIP's own data, coarse captions are rare, so that superclass prompts are understood less well than
    leaf prompts. An image's other true names are left out of the softmax: they are not wrong captions.

    Args:
        output_dir: folder in which the model's own folder is made, or found if data and recipe are the same.
        dataset: columns ``image`` (all of one square size) and ``label`` (``ClassLabel``), see
            :func:`hf_hierrobust.data.glyphs.glyph_dataset`.
        paths: ``{leaf: [parent, ..., top]}`` in label order, see ``glyph_paths``; one depth for all leaves.
        recipe: training constants and seed.
        threads: CPU threads while training; None leaves torch's setting.

    Returns:
        ``output_dir/glyph-clip-<hash>``: a stock :class:`CLIPModel` with its :class:`CLIPProcessor` and
        ``pretraining.json``. It appears complete or not at all.

    Raises:
        ValueError: labels and paths disagree, paths of different depth, a name used at two nodes, fewer
            images than one batch, or images that are not square and of one size.
    """
    recipe = recipe or PretrainRecipe()
    recipe = replace(recipe, bf16=resolve_bf16(recipe.bf16, "pretraining bf16", "cpu"))
    captions = _check_captions(dataset, paths)
    if len(dataset) < recipe.batch_size:
        raise ValueError(
            f"dataset has {len(dataset)} images, fewer than one batch (batch_size={recipe.batch_size}); "
            "render more images or lower batch_size"
        )
    facts = {
        "recipe": asdict(recipe),
        "data": _content_hash(dataset),
        "paths": {k: list(v) for k, v in paths.items()},
    }
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    final = Path(output_dir) / f"glyph-clip-{digest[:12]}"
    if (final / _MARKER).is_file():
        say(f"pretraining: found the model of an earlier run, {final.name}")
        return final
    with _threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model, processor = _pretrain(dataset, captions, recipe)
    final.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: a run that is killed leaves no half model under the final name.
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".glyph-clip-") as aside:
        partial = Path(aside, final.name)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        (partial / _MARKER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        try:
            os.replace(partial, final)
        except OSError:
            if not (final / _MARKER).is_file():  # else another run made the same model first
                raise
    return final


def _check_captions(dataset: Dataset, paths: Mapping[str, Sequence[str]]) -> _Captions:
    names = dataset.features["label"].names
    if list(paths) != names:
        different = next((a, b) for a, b in zip([*paths, None], [*names, None]) if a != b)
        raise ValueError(f"paths must list the dataset's classes in label order; they part at {different}")
    if len({len(path) for path in paths.values()}) != 1:
        raise ValueError("paths of different depth; give every leaf the same number of ancestors")
    full = [(leaf, *path) for leaf, path in paths.items()]
    levels = [list(dict.fromkeys(level)) for level in zip(*full)]
    nodes = [name for level in levels for name in level]
    if len(set(nodes)) != len(nodes):
        twice = next(name for name in nodes if nodes.count(name) > 1)
        raise ValueError(f"{twice!r} names two nodes of the tree; a caption could not tell them apart")
    return _Captions(nodes, torch.tensor([[nodes.index(name) for name in path] for path in full]))


def _content_hash(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for row in dataset.select_columns(["image", "label"]).cast_column("image", Image(decode=False)):
        encoded = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
        digest.update(encoded + str(row["label"]).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pretrain(
    dataset: Dataset, captions: _Captions, recipe: PretrainRecipe
) -> tuple[CLIPModel, CLIPProcessor]:
    images = [image.convert("RGB") for image in dataset["image"]]
    sizes = {image.size for image in images}
    if len({side for size in sizes for side in size}) != 1:
        raise ValueError(f"images must all be square and of one size, found {sorted(sizes)[:4]}; resize them")
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    pixels = (
        pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    )  # the processor's map for mean = std = 0.5
    chains = captions.chains[torch.tensor(dataset["label"])]
    size = pixels.shape[-1]

    prompts = [[template.format(name) for name in captions.nodes] for template in TEMPLATES]
    tokenizer = build_tokenizer([prompt for group in prompts for prompt in group])
    texts = [tokenizer(group, padding=True, truncation=True, return_tensors="pt") for group in prompts]
    model = CLIPModel(tiny_clip_config(tokenizer, image_size=size)).train()
    model.set_attn_implementation(attention_kernel("cpu", torch.bfloat16 if recipe.bf16 else None) or "sdpa")
    _whiten_patches(model, pixels)

    shares = recipe.coarser_share ** torch.arange(chains.shape[1])
    steps = recipe.epochs * (len(pixels) // recipe.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, steps, pct_start=0.1)
    losses, pace = [], Pace("pretraining", steps)
    for _ in range(recipe.epochs):
        order = torch.randperm(len(pixels)).split(recipe.batch_size)
        for batch in (indices for indices in order if len(indices) == recipe.batch_size):
            images = _augment(pixels[batch], recipe)
            text = texts[torch.randint(len(texts), ()).item()]
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
                image_features = model.get_image_features(pixel_values=images).pooler_output
                text_features = model.get_text_features(**text).pooler_output
            cosines = (
                F.normalize(image_features.float(), dim=-1) @ F.normalize(text_features.float(), dim=-1).T
            )
            level = torch.multinomial(shares, len(batch), replacement=True)
            loss = _caption_loss(model.logit_scale.exp() * cosines, chains[batch], level)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))
            losses.append(loss.item())
            pace.step(len(losses), f"loss {np.mean(losses[-50:]):.2f}")
    return model.eval(), build_processor(size, tokenizer)


def _caption_loss(logits: torch.Tensor, chains: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of logits (B, nodes) against the node of chains (B, levels) at level (B,)."""
    target = chains.gather(1, level[:, None])
    also_true = (
        torch.zeros_like(logits, dtype=torch.bool).scatter_(1, chains, True).scatter_(1, target, False)
    )
    return F.cross_entropy(logits.masked_fill(also_true, -torch.inf), target[:, 0])


def _augment(images: torch.Tensor, recipe: PretrainRecipe) -> torch.Tensor:
    """Shift the batch (B, 3, H, W), the border wrapped, and the brightness of each channel of each image."""
    shift = torch.randint(-recipe.max_shift, recipe.max_shift + 1, (2,)).tolist()
    offset = (torch.rand(len(images), 3, 1, 1) * 2 - 1) * 2 * recipe.brightness
    return torch.roll(images, shift, dims=(2, 3)) + offset


@torch.no_grad()
def _whiten_patches(model: CLIPModel, pixels: torch.Tensor, ridge: float = 0.03) -> None:
    """Start the patch embedding as a PCA whitening of ``pixels`` (N, 3, H, W), with distinct positions.

    From CLIP's random start the tiny tower sees little but mean colour and needs about twice the epochs.
    ``ridge`` is the variance below which a component counts as pixel noise.
    """
    embeddings = model.vision_model.embeddings
    weight, side = embeddings.patch_embedding.weight, embeddings.patch_size
    patches = F.unfold(pixels[:2000], side, stride=side).transpose(1, 2).reshape(-1, weight[0].numel())
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    kept = min(len(weight), len(variances))
    filters = (directions / (variances + ridge).sqrt()).flip(1)[:, :kept]
    weight[:kept] = filters.T.reshape(kept, *weight.shape[1:])
    embeddings.position_embedding.weight.normal_(std=0.3)
