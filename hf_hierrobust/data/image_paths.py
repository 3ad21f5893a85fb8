"""Paths in an image column: followed inside the data's own folder only, and never over a network."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import datasets as hf

from .columns import MissingColumnError, image_column_name, is_text


class ImagePathError(ValueError):
    """A path in an image column leads out of the data's folder, onto a network, or nowhere."""


def with_own_paths(dataset: hf.Dataset, file: str, image_column: str | None) -> hf.Dataset:
    """The rows of a file whose image column holds paths, with that column as images of the file's own folder.

    Args:
        dataset: the rows of `file`, without any image bytes; kept in memory from here on.
        file: CSV, JSON or parquet; relative paths start at its folder.

    Raises:
        ImagePathError: a path that leads elsewhere (names file and row).
    """
    try:
        column = image_column_name(dataset.features, image_column, f"source {file!r}")
    except MissingColumnError:  # said better when all columns are looked for
        return dataset
    feature = dataset.features[column]
    if isinstance(feature, hf.Image):
        dataset = dataset.cast_column(column, hf.Image(decode=False))
    elif not is_text(feature) and not isinstance(feature, dict):
        return dataset
    values = dataset[column][:]
    paths = [value["path"] if isinstance(value, dict) else value for value in values]
    columns = {name: dataset[name][:] for name in dataset.column_names if name != column}
    columns[column] = own_paths(paths, file)
    features = hf.Features({**dataset.features, column: hf.Image()})
    return hf.Dataset.from_dict(columns, features=features)


def check_files_exist(dataset: hf.Dataset, where: str) -> None:
    """Refuse an image folder whose metadata name files that are not there.

    Raises:
        ImagePathError: names the first one.
    """
    for name, feature in dataset.features.items():
        if not isinstance(feature, hf.Image):
            continue
        for row, value in enumerate(dataset.select_columns([name]).cast_column(name, hf.Image(decode=False))):
            path = value[name] and value[name]["path"]
            if path and value[name]["bytes"] is None and "://" not in path and not os.path.isfile(path):
                raise ImagePathError(f"row {row} of {where} names the image {path!r}, which does not exist.")


def own_paths(paths: Iterable[str | None], file: str) -> list[str | None]:
    """Absolute paths of images named in `file`, each checked to exist inside the file's folder."""
    folder = Path(file).expanduser().absolute().parent
    inside = os.path.realpath(folder)
    real_folder = cache(os.path.realpath)  # a few folders hold many images
    found: list[str | None] = []
    for row, path in enumerate(paths):
        if path is None:
            found.append(None)
            continue
        if "://" in path or path.startswith("\\\\"):
            raise ImagePathError(
                f"row {row} of {file!r} names the image {path!r} on a network, where nothing is "
                "fetched from. Download it and give its path."
            )
        place = os.path.join(folder, path)
        real = os.path.join(real_folder(os.path.dirname(place)), os.path.basename(place))
        real = os.path.realpath(real) if os.path.islink(real) else real
        if os.path.commonpath([inside, real]) != inside:
            raise ImagePathError(
                f"row {row} of {file!r} names the image {path!r} outside its folder {str(folder)!r}, and "
                "paths are followed inside that only. Move the file to a folder that holds the images."
            )
        if not os.path.isfile(real):
            raise ImagePathError(f"row {row} of {file!r} names the image {path!r}, which does not exist.")
        found.append(real)
    return found
