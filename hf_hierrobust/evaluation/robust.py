"""Robust accuracy of one classifier: worst case over attacks, each on the images that still stand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..attacks import Attack, NanError
from ..classifiers import frozen
from ..classifiers.freezing import Classifier


class Outcome(NamedTuple):
    """Per-image verdicts, in the order of the data.

    Attributes:
        clean, robust: (N,) bool; robust implies clean.
        after: fraction of the N images that still stood after each attack, in their order.
        zero_gradient: largest fraction of images with an exactly zero first gradient, over batches and
            attacks.
        seconds: wall time.
    """

    clean: Tensor
    robust: Tensor
    after: tuple[float, ...]
    zero_gradient: float
    seconds: float


def judge(classifier: Classifier, pixels: Tensor, labels: Tensor) -> Tensor:
    """Whether each image is classified correctly, (B,) bool, in evaluation mode.

    Raises:
        NanError: NaN among the logits of any image; its arg-max would be a verdict about nothing.
    """
    # One verdict on an image, whatever mode the model is in.
    with frozen(classifier), torch.no_grad():
        logits = classifier(pixels)
    bad = logits.isnan().any(1)
    if bad.any():
        raise NanError(
            f"the logits of {int(bad.sum())} of {len(bad)} images are NaN, first of image "
            f"{int(bad.nonzero()[0])} of its batch: the precision overflows or the model divides by zero"
        )
    return logits.argmax(1) == labels


def attack_classifier(
    classifier: Classifier,
    batches: Iterable[dict[str, Tensor]],
    attacks: Sequence[Attack],
    *,
    to_class: Tensor | None = None,
    search: Classifier | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    desc: str | None = None,
) -> Outcome:
    """Attack every image with every attack; an image is robust if none of them succeeds.

    Args:
        classifier: pixels (B, 3, H, W) in [0, 1] -> logits (B, K), in fp32: its verdicts decide.
        batches: ``{"pixels", "labels"}``, e.g. a DataLoader with `PixelCollator`.
        attacks: in the order given; later ones see only the survivors of the earlier ones.
        to_class: (C,) class of each label, e.g. a tree's ancestors at some level.
        search: cheaper callable for gradients, such as the same model under bf16.
        seed: of the random starts, which are drawn anew for each batch and attack, for the images still
            standing.
        desc: title of a progress bar with the running robust accuracy; None draws none.
    """
    start, clean, robust, zero = time.perf_counter(), [], [], 0.0
    standing = torch.zeros(len(attacks))
    bar = tqdm(batches, desc=desc, disable=desc is None, leave=False)
    for index, batch in enumerate(bar):
        pixels, labels = batch["pixels"].to(device), batch["labels"].to(device)
        if to_class is not None:
            labels = to_class.to(device)[labels]
        correct = judge(classifier, pixels, labels)
        alive = correct.clone()
        for number, attack in enumerate(attacks):
            rows = alive.nonzero()[:, 0]
            if len(rows) == 0:
                break  # nothing stands after the later attacks either
            generator = torch.Generator(device).manual_seed(seed + 1_000_003 * index + 7919 * number)
            result = attack(classifier, pixels[rows], labels[rows], search_model=search, generator=generator)
            alive[rows] = result.robust_correct
            standing[number] += int(alive.sum())
            zero = max(zero, result.zero_gradient)
        clean.append(correct.cpu())
        robust.append(alive.cpu())
        bar.set_postfix(robust=f"{torch.cat(robust).float().mean():.3f}")
    if not clean:
        raise ValueError("batches is empty: there is nothing to evaluate")
    after = tuple((standing / sum(map(len, clean))).tolist())
    return Outcome(torch.cat(clean), torch.cat(robust), after, zero, time.perf_counter() - start)
