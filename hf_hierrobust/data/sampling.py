"""Which rows: the first, a stratified choice, a held-out part."""

from __future__ import annotations

from collections.abc import Sequence

import datasets as hf
import numpy as np

from .labels import HFDataset, label_array


def first_n(dataset: HFDataset, n: int) -> HFDataset:
    """The first `n` rows, or all where there are fewer."""
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}.")
    if isinstance(dataset, hf.IterableDataset):
        return dataset.take(n)
    return dataset.select(range(min(n, len(dataset))))


def stratified_rows(labels: Sequence[int], n: int, seed: int = 0) -> tuple[list[int], str]:
    """``n`` rows in the class proportions of the whole, and how they were chosen, in words.

    Every class that occurs keeps at least one row where ``n`` allows it; with fewer rows than classes each
    row is of another class. Within a class the rows are drawn at random, the same ones for the same `seed`.

    Args:
        labels: (N,) of all images; all equal where there are none.

    Raises:
        ValueError: `n` below 1.
    """
    labels = np.asarray(labels)
    if n < 1:
        raise ValueError(f"the number of samples must be at least 1, got {n}.")
    if n >= len(labels):
        return list(range(len(labels))), "all rows"
    generator = np.random.default_rng(seed)
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quota = _quotas(counts, n, generator)
    order = generator.permutation(len(labels))
    by_class = order[np.argsort(inverse[order], kind="stable")]  # each class's rows in random order
    start = np.cumsum(counts) - counts
    place = np.arange(len(labels)) - np.repeat(start, counts)
    rows = np.sort(by_class[place < np.repeat(quota, counts)])
    if len(classes) == 1:
        return rows.tolist(), f"random rows, seed {seed}"
    return rows.tolist(), f"stratified by class, seed {seed}"


def _quotas(counts: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    """Rows per class: proportional by largest remainders, at least one each where `n` allows it."""
    every = n >= len(counts)
    least, most = (np.ones_like(counts), counts) if every else (np.zeros_like(counts), np.ones_like(counts))
    share = counts * (n / counts.sum())
    quota = np.clip(np.floor(share).astype(int), least, most)
    # equal remainders (balanced data) are served in random class order, not always the first classes
    order = generator.permutation(len(counts))
    while (missing := n - quota.sum()) != 0:
        able = quota < most if missing > 0 else quota > least
        gap = np.where(able, (share - quota) * np.sign(missing), -np.inf)
        first = order[np.argsort(-gap[order], kind="stable")]
        quota[first[: min(abs(missing), able.sum())]] += np.sign(missing)
    return quota


def holdout(dataset: hf.Dataset, size: int | float, seed: int = 0) -> tuple[hf.Dataset, hf.Dataset]:
    """Split one source into images to train on and images held out, stratified by class if labelled.

    Args:
        dataset: of `load_images`, map-style.
        size: images to hold out, or below 1 their fraction.
        seed: the same one gives the same parts.

    Returns:
        (remaining, held out); ``row`` stays the position in the source.

    Raises:
        TypeError: a stream.
        ValueError: a size outside 1..N-1, or too small or large to give every class a part of both.
    """
    if not isinstance(dataset, hf.Dataset):
        raise TypeError(
            f"holdout needs random access, got {type(dataset).__name__}; load with streaming=False."
        )
    count = round(size * len(dataset)) if 0 < size < 1 else size
    if count != int(count) or not 1 <= count < len(dataset):
        raise ValueError(
            f"holdout={size} must be a fraction below 1 or a number of images in 1..{len(dataset) - 1}, of "
            f"{len(dataset)} in all."
        )
    labelled = "label" in dataset.column_names
    labels = label_array(dataset) if labelled else np.zeros(len(dataset), dtype=np.int64)
    classes, ids = np.unique(labels, return_inverse=True)
    names = hf.ClassLabel(names=[str(label) for label in classes])
    rows = hf.Dataset.from_dict({"position": range(len(labels)), "label": ids}).cast_column("label", names)
    try:
        parts = rows.train_test_split(
            test_size=int(count), seed=seed, stratify_by_column="label" if len(classes) > 1 else None
        )
    except ValueError as error:  # a class with one image, or fewer images than classes
        raise ValueError(
            f"holdout={size} of {len(dataset)} images in {len(classes)} classes cannot be stratified: {error}"
        ) from error
    return tuple(dataset.select(np.sort(parts[part]["position"][:])) for part in ("train", "test"))
