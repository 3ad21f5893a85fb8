"""Loaded runs and small parquet files for tests of the command line."""

from __future__ import annotations

import datasets
from PIL import Image

from hf_hierrobust.cli.arguments import build_arguments
from hf_hierrobust.cli.values import read_values
from hf_hierrobust.runs.load import load_run

IMAGE = Image.new("RGB", (32, 32))
INTEGERS = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})


def load(command, *, training=True, **changes):
    return load_run(*build_arguments(read_values("train", command.argv(**changes))), training=training)


def write(folder, name, rows: dict, features=None):
    path = folder / f"{name}.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    return path
