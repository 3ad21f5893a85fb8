"""Where labelled images come from: files of one kind, folders, saved datasets and the Hub."""

from __future__ import annotations

import glob
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

import datasets as hf

from .columns import MissingColumnError, image_column_name, is_text
from .image_paths import check_files_exist, with_own_paths
from .labels import HFDataset
from .standard import EmptyDatasetError
from .streams import parquet_stream

Source = str | os.PathLike | Sequence[str | os.PathLike]
KINDS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".tar": "webdataset",
}
"""Kind of each file that `load_images` reads, by suffix."""


class MissingSplitError(ValueError):
    """The source has no such split; ``known`` are those it has."""

    def __init__(self, source: Source, split: str, known: list[str]):
        self.known = known
        super().__init__(
            f"{describe(source)} has no split {split.split('[')[0]!r}, only {', '.join(map(repr, known))}: "
            "name one of these, or hold out a part of the training images (holdout=0.2)."
        )


def describe(source: Source) -> str:
    """The source for messages."""
    if isinstance(source, (list, tuple)):
        return f"source of {len(source)} files, first {str(source[0])!r}" if source else "empty source"
    return f"source {str(source)!r}"


def open_source(
    source: Source,
    split: str,
    *,
    config: str | None = None,
    streaming: bool = False,
    cache_dir: str | None = None,
    image_column: str | None = None,
) -> HFDataset:
    """The data of a source as they are stored; see `load_images` for what a source is.

    Paths in the image column of CSV, JSON and parquet files are resolved against the file's folder; such
    lists and saved datasets come with random access even if a stream was asked for.

    Raises:
        FileNotFoundError, MissingSplitError, ValueError: see `load_images`.
    """
    files = local_files(source)
    if files is not None:
        return _open_files(files, source, split, streaming, cache_dir, image_column)
    path, options = (
        Path(source).expanduser(),
        {"split": split, "streaming": streaming, "cache_dir": cache_dir},
    )
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        return _open_saved(path, source, split)
    try:
        if not path.is_dir():
            return hf.load_dataset(str(source), config, **options)
        dataset = hf.load_dataset(str(path), config, **options)
        if dataset.info.builder_name in ("csv", "json"):  # a folder of lists: its images lie beside them
            dataset = hf.load_dataset(str(path), config, split=split, cache_dir=cache_dir)
            return with_own_paths(dataset, str(path / "*"), image_column)
    except (ConnectionError, hf.exceptions.DatasetNotFoundError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise FileNotFoundError(
            f"{describe(source)} is no file or folder here, and not to be had from the Hub ({why}): give a "
            "path, or the id of a data set that can be reached"
        ) from error
    except (ValueError, hf.exceptions.DatasetGenerationError) as error:
        raise _split_error(error, source, split) from error
    if dataset.info.builder_name == "imagefolder" and not streaming:
        check_files_exist(dataset, describe(source))
    return dataset


def lists_in(source: Source) -> list[str]:
    """CSV and JSON files directly in a source that is a folder, which may list its images."""
    if isinstance(source, (list, tuple)) or not Path(source).expanduser().is_dir():
        return []
    inside = sorted(Path(source).expanduser().iterdir())
    return [file.name for file in inside if KINDS.get(file.suffix.lower()) in ("csv", "json")]


def local_files(source: Source) -> list[str] | None:
    """The files that `source` names one by one, or None for a folder or a Hub id.

    Raises:
        FileNotFoundError: a path or glob that leads nowhere.
        ValueError: no files, files of several kinds or of none of `KINDS`.
    """
    if isinstance(source, (list, tuple)):
        files = [file for item in source for file in local_files(item) or [str(item)]]
        if not files:
            raise ValueError("source is an empty list; name at least one file.")
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
        elif isinstance(source, Path) or text.startswith((".", os.sep)) or Path(text).suffix in KINDS:
            raise FileNotFoundError(f"source {text!r} does not exist.")
        else:
            return None
    suffixes = {Path(file).suffix.lower(): file for file in files}
    for suffix, file in suffixes.items():
        if suffix not in KINDS:
            raise ValueError(
                f"source names {file!r}, which is not a {', '.join(KINDS)} file; give such files or a folder."
            )
    if len({KINDS[suffix] for suffix in suffixes}) > 1:
        raise ValueError(f"source names files of several kinds, {list(suffixes.values())}; give one kind.")
    return files


def _open_files(files, source, split: str, streaming: bool, cache_dir, image_column) -> HFDataset:
    kind = KINDS[Path(files[0]).suffix.lower()]
    base, _, rest = split.partition("[")
    options = {"split": split, "cache_dir": cache_dir}
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in files:
            try:
                rows = pq.read_metadata(file).num_rows
            except (pa.ArrowException, OSError) as error:
                raise ValueError(f"{file!r} is no readable parquet file: {error}") from error
            if rows == 0 and len(files) == 1:
                raise EmptyDatasetError(f"{describe(source)} has no rows.")
    if kind == "webdataset":
        for file in files:
            if not tarfile.is_tarfile(file):
                raise ValueError(f"{file!r} is no readable tar file.")
        return hf.load_dataset(kind, data_files={base: files}, streaming=streaming, **options)
    if kind == "parquet" and streaming and not rest and not _names_paths(files[0], image_column):
        return parquet_stream(files)
    if kind == "parquet" and not any(_names_paths(file, image_column) for file in files):
        return hf.load_dataset(kind, data_files={base: files}, streaming=streaming, **options)
    parts = [with_own_paths(_stored(kind, file, cache_dir), file, image_column) for file in files]
    try:
        dataset = hf.concatenate_datasets(parts)
    except ValueError as error:
        raise ValueError(f"the files of {describe(source)} have different columns: {error}") from error
    if rest:
        dataset = hf.concatenate_datasets(
            [dataset.select(rows) for rows in _slices(split, base, len(dataset))]
        )
    return dataset


def _stored(kind: str, file: str, cache_dir: str | None) -> hf.Dataset:
    """The rows of one text file or parquet as they are."""
    more = {"sep": "\t"} if file.lower().endswith(".tsv") else {}
    try:
        return hf.load_dataset(kind, data_files={"rows": [file]}, split="rows", cache_dir=cache_dir, **more)
    except (ValueError, hf.exceptions.DatasetGenerationError) as error:
        if "corresponds to no data" in str(error):
            raise EmptyDatasetError(f"{file!r} has no rows.") from error
        cause = error.__cause__ or error
        raise ValueError(f"{file!r} is no readable {kind} file: {cause}") from error


def _slices(split: str, base: str, count: int) -> list[range]:
    """The rows that ``train[10:20]`` and the like ask for."""
    found = hf.ReadInstruction.from_spec(split).to_absolute({base: count})
    return [range(part.from_ or 0, count if part.to is None else part.to) for part in found]


def _names_paths(file: str, image_column: str | None) -> bool:
    """Whether the image column of a parquet file holds paths and no bytes, by the file's own statistics."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        features, metadata = hf.Features.from_arrow_schema(opened.schema_arrow), opened.metadata
        try:
            column = image_column_name(features, image_column, file)
        except MissingColumnError:  # said better when all columns are looked for
            return False
        if is_text(features[column]):
            return True
        for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
            for stored in (group.column(index) for index in range(group.num_columns)):
                if stored.path_in_schema == f"{column}.bytes":
                    nulls = stored.statistics.null_count if stored.statistics else None
                    if nulls != group.num_rows:
                        return False
    return metadata.num_rows > 0 and not isinstance(features[column], hf.Value)


def _open_saved(path: Path, source: Source, split: str) -> hf.Dataset:
    try:
        dataset = hf.load_from_disk(str(path))
    except IndexError as error:  # how datasets answers a saved table without any shard
        raise EmptyDatasetError(f"{describe(source)} has no rows.") from error
    if isinstance(dataset, hf.DatasetDict):
        if split not in dataset:
            raise MissingSplitError(source, split, list(dataset))
        dataset = dataset[split]
    dataset.info.builder_name = "arrow"  # what the folder says of its origin is not to be trusted
    return dataset


def _split_error(error: Exception, source: Source, split: str) -> ValueError:
    """`datasets` names the splits that there are in its own words."""
    found = re.search(r"Unknown split \"(.*?)\".*?\[(.*?)\]", str(error))
    if found is None:
        cause = error.__cause__ if isinstance(error, hf.exceptions.DatasetGenerationError) else error
        return ValueError(f"{describe(source)} (split {split!r}) cannot be opened: {cause or error}")
    return MissingSplitError(source, split, [name.strip("' ") for name in found[2].split(",")])
