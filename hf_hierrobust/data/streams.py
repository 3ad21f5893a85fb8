"""Streams that know the file and the row of each image, however they are shuffled or shared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets as hf

from .standard import PLACE


def numbered_stream(dataset: hf.IterableDataset, where: str) -> hf.IterableDataset:
    """The stream with the columns of `PLACE`, numbered inside each shard before any shuffling.

    `map(with_indices=True)` counts what arrives: after the shards were shuffled its rows are wrong.
    """
    count = dataset.num_shards
    parts = [dataset.shard(count, index) for index in range(count)] if count > 1 else [dataset]
    names = [f"shard {index + 1} of {count} of {where}" if count > 1 else where for index in range(count)]
    features = hf.Features({**dataset.features, **PLACE})
    return _of_generator(_rows_of_parts, {"parts": parts, "names": names}, features, dataset.info)


def parquet_stream(files: Sequence[str]) -> hf.IterableDataset:
    """A numbered stream of local parquet files, one shard each.

    Raises:
        ValueError: a file that is no parquet, or has other columns than the first.
    """
    import pyarrow.parquet as pq

    schemas = {file: pq.read_schema(file) for file in files}
    features = hf.Features.from_arrow_schema(schemas[files[0]])
    for file, schema in schemas.items():
        if set(schema.names) != set(features):
            raise ValueError(
                f"{file!r} has the columns {schema.names}, but {files[0]!r} has {list(features)}; give files "
                "of one kind."
            )
    plain = hf.Features({name: _undecoded(feature) for name, feature in features.items()} | PLACE)
    stream = _of_generator(_rows_of_files, {"files": list(files)}, plain, None)
    for name, feature in features.items():
        if plain[name] is not feature:
            stream = stream.cast_column(name, feature)
    return stream


def shuffled_stream(dataset: hf.IterableDataset, seed: int, buffer_size: int) -> hf.IterableDataset:
    """A stream of `load_images` in random order of its files and among ``buffer_size`` images."""
    stream = dataset.cast_column("image", hf.Image(decode=False))
    return stream.shuffle(seed=seed, buffer_size=buffer_size).cast_column("image", hf.Image())


def _rows_of_parts(parts: Sequence[hf.IterableDataset], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for part, name in zip(parts, names):
        for row, example in enumerate(part):
            yield {**example, "row": row, "file": name}


def _rows_of_files(files: Sequence[str]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for file in files:
        row = 0
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=64):
                for example in batch.to_pylist():
                    yield {**example, "row": row, "file": Path(file).name}
                    row += 1


def _of_generator(generator, arguments: dict, features: hf.Features, info) -> hf.IterableDataset:
    stream = hf.IterableDataset.from_generator(generator, features=features, gen_kwargs=arguments)
    stream.info.builder_name = "parquet" if info is None else info.builder_name
    return stream


def _undecoded(feature):
    return hf.Image(decode=False) if isinstance(feature, hf.Image) else feature
