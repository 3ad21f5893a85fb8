"""Labelled images from the Hub, parquet files, image folders or saved datasets, in standard columns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import datasets as hf
import numpy as np

from .labels import HFDataset, label_array
from .standard import EmptyDatasetError, standard_dataset


def load_images(
    source: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    split: str = "train",
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    labelled: bool = True,
    streaming: bool = False,
    max_samples: int | None = None,
    cache_dir: str | None = None,
) -> HFDataset:
    """Load a labelled image set and give its columns their standard names.

    Args:
        source: Hub id, parquet file, glob or list of parquet files, folder of parquet files, image folder
            (one sub-folder per class), or folder written by ``save_to_disk``.
        split: split name, ``"train[:1000]"`` style slices included. Parquet files named one by one have no
            split: they are all read.
        config: configuration name of a Hub dataset.
        image_column, label_column: needed only where the columns cannot be told by type or usual name.
        caption_column: text column to keep as ``caption``; None keeps none.
        labelled: False looks for no labels, for objectives that need none.
        streaming: read rows as they come instead of preparing an Arrow copy.
        max_samples: keep the first rows only.

    Returns:
        Dataset with ``image`` (PIL on access), ``label`` (ClassLabel where names are known, else integers;
        absent if not labelled),
        ``caption`` where asked for and, unless streaming, ``row``: the position in the source, which survives
        any later selection.

    Raises:
        FileNotFoundError: a path or glob that leads nowhere.
        EmptyDatasetError: no rows.
        MissingColumnError: no (single) image or label column, or no such text column of captions.
        ValueError: an unknown split, or `max_samples` below 1.
    """
    dataset = _open(source, split, config, streaming, cache_dir)
    where = f"{_describe(source)} (split {split!r})"
    dataset = standard_dataset(
        dataset,
        where,
        image_column=image_column,
        label_column=label_column,
        caption_column=caption_column,
        labelled=labelled,
    )
    if next(iter(dataset.take(1)), None) is None:
        raise EmptyDatasetError(f"{where} has no rows; check the path and the split.")
    dataset = dataset.cast_column("image", hf.Image())
    return dataset if max_samples is None else first_n(dataset, max_samples)


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


def balanced_subset(dataset: hf.Dataset, per_class: int, seed: int | None = None) -> hf.Dataset:
    """`per_class` rows of each class that occurs, in their original order.

    Args:
        seed: draws the rows at random; None takes the first ones.

    Raises:
        ValueError: a class has fewer rows.
    """
    _require_map_style(dataset, "balanced_subset")
    if per_class < 1:
        raise ValueError(f"per_class must be at least 1, got {per_class}.")
    generator = None if seed is None else np.random.default_rng(seed)
    chosen = []
    for label, rows in _rows_by_class(dataset).items():
        if len(rows) < per_class:
            raise ValueError(f"class {label} has {len(rows)} rows, fewer than per_class={per_class}.")
        chosen.append(
            rows[:per_class] if generator is None else generator.choice(rows, per_class, replace=False)
        )
    return dataset.select(np.sort(np.concatenate(chosen)))


def split_holdout(dataset: hf.Dataset, n: int, seed: int = 0) -> tuple[hf.Dataset, hf.Dataset]:
    """Split off `n` random rows in the class proportions of the whole: (remaining, held out).

    For choosing hyper-parameters on training images, so that no test image is looked at. Class quotas are
    rounded by largest remainders, hence within one row of proportional.
    """
    _require_map_style(dataset, "split_holdout")
    if not 1 <= n < len(dataset):
        raise ValueError(
            f"n must lie in 1..{len(dataset) - 1} for a dataset of {len(dataset)} rows, got {n}."
        )
    generator = np.random.default_rng(seed)
    by_class = list(_rows_by_class(dataset).values())
    share = np.array([len(rows) for rows in by_class]) * n / len(dataset)
    quota = np.floor(share).astype(int)
    # equal remainders (balanced data) are served in random class order, not always the first classes
    order = generator.permutation(len(by_class))
    largest = order[np.argsort(-(share - quota)[order], kind="stable")]
    quota[largest[: n - quota.sum()]] += 1
    held = np.concatenate([generator.choice(rows, k, replace=False) for rows, k in zip(by_class, quota)])
    rest = np.setdiff1d(np.arange(len(dataset)), held)
    return dataset.select(rest), dataset.select(np.sort(held))


def shuffled_stream(dataset: hf.IterableDataset, seed: int, buffer_size: int) -> hf.IterableDataset:
    """A stream in random order among ``buffer_size`` images; ``row`` stays the position in the source."""
    stream = dataset.cast_column("image", hf.Image(decode=False))
    features = hf.Features({**stream.features, "row": hf.Value("int64")})
    stream = stream.map(lambda _, row: {"row": row}, with_indices=True, features=features)
    return stream.cast_column("image", hf.Image()).shuffle(seed=seed, buffer_size=buffer_size)


def _open(source, split: str, config: str | None, streaming: bool, cache_dir: str | None) -> HFDataset:
    files = _parquet_files(source)
    options = {"split": split, "streaming": streaming, "cache_dir": cache_dir}
    if files is not None:
        import pyarrow.parquet as pq

        if sum(pq.read_metadata(file).num_rows for file in files) == 0:
            raise EmptyDatasetError(f"{_describe(source)} has no rows.")
        return hf.load_dataset("parquet", data_files={split.split("[")[0]: files}, **options)
    path = Path(source).expanduser()
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        try:
            dataset = hf.load_from_disk(str(path))
        except IndexError as error:  # how datasets answers a saved table without any shard
            raise EmptyDatasetError(f"{_describe(source)} has no rows.") from error
        if isinstance(dataset, hf.DatasetDict):
            if split not in dataset:
                raise ValueError(f"{_describe(source)} has no split {split!r}; it has {list(dataset)}.")
            dataset = dataset[split]
        return dataset.to_iterable_dataset() if streaming else dataset
    return hf.load_dataset(str(path if path.is_dir() else source), config, **options)


def _parquet_files(source) -> list[str] | None:
    """The parquet files that `source` names one by one, or None for a folder or a Hub id."""
    if isinstance(source, (list, tuple)):
        files = [file for item in source for file in _parquet_files(item) or [str(item)]]
        if not files:
            raise ValueError("source is an empty list; name at least one parquet file.")
    else:
        text = os.path.expanduser(os.fspath(source))
        if os.path.isdir(text):
            return None
        if os.path.isfile(text):
            files = [text]
        elif glob.has_magic(text):
            files = sorted(glob.glob(text, recursive=True))
            if not files:
                raise FileNotFoundError(f"source {text!r} matches no file.")
        elif isinstance(source, Path) or text.startswith((".", os.sep)) or text.endswith(".parquet"):
            raise FileNotFoundError(f"source {text!r} does not exist.")
        else:
            return None
    other = [file for file in files if not file.endswith(".parquet")]
    if other:
        raise ValueError(
            f"source names {other[0]!r}, which is not a .parquet file; give parquet files or a folder."
        )
    return files


def _describe(source) -> str:
    if isinstance(source, (list, tuple)):
        return f"source of {len(source)} files, first {str(source[0])!r}"
    return f"source {str(source)!r}"


def _rows_by_class(dataset: hf.Dataset) -> dict[int, np.ndarray]:
    labels = label_array(dataset)
    return {int(label): np.flatnonzero(labels == label) for label in np.unique(labels)}


def _require_map_style(dataset, function: str) -> None:
    if not isinstance(dataset, hf.Dataset):
        raise TypeError(
            f"{function} needs random access, got {type(dataset).__name__}; load with streaming=False."
        )
