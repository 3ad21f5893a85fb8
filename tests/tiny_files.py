"""Loaded runs and small parquet files for tests of the command line."""

from __future__ import annotations

import datasets
from PIL import Image

from hf_hierrobust.cli.config import parse_with_config
from hf_hierrobust.runs.arguments import RunArguments
from hf_hierrobust.runs.load import load_run
from hf_hierrobust.training import RobustTrainingArguments

IMAGE = Image.new("RGB", (32, 32))
INTEGERS = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})


def load(command, **changes):
    args, training = parse_with_config((RunArguments, RobustTrainingArguments), command.argv(**changes))
    return load_run(args, training)


def write(folder, name, rows: dict, features=None):
    path = folder / f"{name}.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    return path
