"""Options that do not fit together, or a file that is not what it is called: known without torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from ..files import read_json
from ..options import json_mapping
from ..runs.arguments import RunArguments
from .options import all_options, registered_class
from .values import UsageError


def check_combinations(command: str, args: RunArguments, training: Mapping) -> None:
    """Refuse what would be refused seconds later.

    Args:
        training: values of the training arguments that were given.

    Raises:
        ValueError: in one sentence, the first that does not fit.
    """
    _check_adapters(training)
    _check_prompts(args)
    if command == "train":
        _check_objective(training)
        _check_evaluations(training)
        if args.retrieval:
            raise UsageError("retrieval=True is what evaluate measures: leave it out of train")
    else:
        _check_evaluation(args, training)
    names = args.classifiers
    if names and training.get("tree") is None and all("rollup" in name for name in names):
        raise UsageError(f"eval_classifiers={args.eval_classifiers!r} needs a class tree: give tree")
    taken = {"threat", "eps", "norm"} & json_mapping(training.get("attack_args"), "attack_args").keys()
    if taken:
        raise UsageError(
            f"attack_args: {', '.join(sorted(taken))} is set by the arguments norm, eps and threat_space; "
            "leave it out"
        )
    if command == "train" and args.dataset_name is None and args.train_file is None:
        raise UsageError(f"no training data: give train_file beside eval_file={args.eval_file!r}")


def _check_evaluations(training: Mapping) -> None:
    """What only the evaluations during a training read; a run measures before and after by other options."""
    if str(training.get("eval_strategy") or "no") != "no" or training.get("eval_on_start"):
        return
    for name in (
        "robust_eval_samples",
        "robust_eval_steps",
        "per_device_eval_batch_size",
        "eval_accumulation_steps",
    ):
        value = training.get(name)
        if value is not None and value != all_options()[name].default:
            raise UsageError(
                f"{name}={value!r} has no effect without eval_strategy or eval_on_start: before and after a "
                "training eval_samples images are measured, in batches of eval_batch"
            )


def _check_evaluation(args: RunArguments, training: Mapping) -> None:
    """What a training would have a use for beside the other option, and `evaluate` has not."""
    beside = {
        "eps": (training.get("eps"), "eval_eps", args.eval_eps),
        "template": (training.get("template"), "eval_template", args.eval_template),
        "dataset_name": (args.dataset_name, "eval_file", args.eval_file),
    }
    for name, (value, other, wins) in beside.items():
        if value is not None and wins is not None:
            raise UsageError(f"{name}={value!r} has no effect beside {other}={wins!r}: leave one of them out")
    if args.drift_base is None and args.drift_samples != RunArguments.drift_samples:
        raise UsageError(f"drift_samples={args.drift_samples} has no effect without drift_base: give it")
    if args.drift_samples == 0:
        raise UsageError("drift_samples=0 leaves no image for drift_base: give at least 1")
    if args.caption_column is not None and not args.retrieval:
        raise UsageError(f"caption_column={args.caption_column!r} has no effect without --retrieval true")


def check_contents(args: RunArguments, training: Mapping) -> None:
    """Look into the files that are there: a few bytes of each, and JSON whole.

    Raises:
        ValueError: a parquet file or a JSON file that is none, a folder without a checkpoint.
    """
    trees = training.get("tree")
    trees = trees.split(",") if isinstance(trees, str) else []
    for source in (*trees, args.class_set or ""):
        if source.endswith(".json") and Path(source).is_file():
            read_json(source)
    for name in ("train_file", "eval_file"):
        path = Path(getattr(args, name) or "")
        if path.suffix == ".parquet" and path.is_file() and not _is_parquet(path):
            raise UsageError(
                f"{name}={str(path)!r} is not a whole parquet file: it is torn or something else"
            )
    _check_columns(args)
    folder = Path(args.model_name_or_path).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UsageError(
            f"model_name_or_path={args.model_name_or_path!r} holds no checkpoint (no config.json there): "
            "give the folder of a saved model, or a Hub id"
        )


def _check_objective(training: Mapping) -> None:
    """Options of the objective by name; a tree and captions only where it is plain who needs them."""
    name = str(training.get("objective", all_options()["objective"].default))
    read = registered_class("objectives", name)
    if read is None:  # a plug-in's
        return
    known, line = read
    for key in json_mapping(training.get("objective_args"), "objective_args"):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise UsageError(f"objective_args: {key!r} is no option{hint}; {name!r} takes {', '.join(known)}")
    if "TreeObjective" in line and training.get("tree") is None:
        raise UsageError(f"objective={name!r} needs a class tree: pass tree='cifar100' or a JSON file")
    if not line & {"Composed", "MMCoA"} and (training.get("text_attack") or training.get("text_attack_args")):
        raise UsageError(
            f"text_attack: {name!r} trains on no attacked captions: leave it out, or train mmcoa or "
            "hier_mmcoa"
        )


def _check_columns(args: RunArguments) -> None:
    """Named columns are columns of the parquet files."""
    for source in (args.train_file, args.eval_file):
        path = Path(source or "")
        named = {"image_column": args.image_column, "label_column": args.label_column}
        if path.suffix != ".parquet" or not path.is_file() or not any(named.values()):
            continue
        from pyarrow.parquet import read_schema

        columns = read_schema(path).names
        for option, column in named.items():
            if column is not None and column not in columns:
                raise UsageError(
                    f"{option}={column!r} is not a column of {str(path)!r}: it has "
                    f"{', '.join(map(repr, columns[:20]))}"
                )


def _check_adapters(training: Mapping) -> None:
    rank, alpha = training.get("lora_r"), training.get("lora_alpha")
    towers = training.get("lora_towers")
    if rank is None and (alpha is not None or training.get("lora_dropout") or towers):
        raise UsageError("lora_alpha, lora_dropout and lora_towers need lora_r, the adapters' rank")
    if alpha is not None and not alpha > 0:
        raise UsageError(f"lora_alpha={alpha} must be positive; by default it is twice the rank")
    for tower in (towers or "").split(","):
        if towers and tower.strip() not in ("vision", "text"):
            raise UsageError(f"lora_towers={tower.strip()!r} is unknown: choose vision, text or vision,text")


def _check_prompts(args: RunArguments) -> None:
    if args.eval_text_attack is None:
        if args.eval_text_attack_args:
            raise UsageError("eval_text_attack_args are given but no eval_text_attack that takes them")
    elif args.classifiers and "cosine" not in args.classifiers:
        raise UsageError(
            f"eval_text_attack={args.eval_text_attack!r} attacks the prompts of the classifier 'cosine', "
            f"which eval_classifiers={args.eval_classifiers!r} leaves out: add it"
        )


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(4)
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - 4))
        return start == stream.read(4) == b"PAR1"
