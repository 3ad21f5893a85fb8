"""What can be known to be wrong before torch is imported: names, numbers, budgets and files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..naming import MACHINE_PATH, check_template
from ..options import named_sources, read_switch
from ..runs.arguments import RunArguments
from ..threat import ThreatModel, parse_eps
from .combinations import check_combinations, check_contents
from .options import all_options, refused, registered, shipped, trees
from .values import UsageError, split_values

CLASSIFIERS = ("cosine", "hyperbolic", "rollup", "rollup-hyperbolic", "path", "path-hyperbolic")
_AT_LEAST_ONE = [
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "robust_eval_samples",
    "robust_eval_steps",
    "calibration_samples",
    "num_steps",
    "lora_r",
]
_AT_LEAST_ZERO = [
    "learning_rate",
    "weight_decay",
    "num_train_epochs",
    "warmup_steps",
    "max_grad_norm",
    "logging_steps",
    "dataloader_num_workers",
    "visual_prompt_tokens",
    "visual_prompt_border",
    "lora_dropout",
    "seed",
]


def check_early(command: str, values: Mapping) -> RunArguments:
    """The run's arguments, and whatever of the training's can be judged from text and files alone.

    Raises:
        UsageError, ValueError, OSError: in one sentence, the first that is wrong.
    """
    run_values, training = split_values(values)
    for name, reason in refused().items():
        value, default = training.get(name), all_options()[name].default
        if value is not None and value != default and (value or default):
            shown = "" if name == "hub_token" else f"={value!r}"  # no token in a log
            raise UsageError(f"{name}{shown} cannot be used: {reason}")
    plugins = bool(values.get("plugins"))
    _check_names(values, plugins)
    args = RunArguments(**run_values)
    space = training.get("threat_space", "auto")
    threat = ThreatModel(
        training.get("norm", "linf"), training.get("eps", "1/255"), "native" if space == "auto" else space
    )
    for budget in (args.eval_eps or "").split(","):
        if budget:
            parse_eps(budget.strip(), "eval_eps", threat.norm)
    for name in ("step_size", "eval_step_size"):
        if values.get(name) is not None:
            parse_eps(values[name], name, threat.norm)
    if training.get("template") is not None:
        check_template("template", training["template"])
    read_switch(training.get("bf16"), "bf16")
    _check_numbers(training)
    _check_files(command, args, training)
    check_combinations(command, args, training)
    check_contents(args, training)
    return args


def _check_names(values: Mapping, plugins: bool) -> None:
    for name, choices in registered().items():
        for word in _words(values, name) if not plugins else ():
            one_of(name, word, choices)
    for word in _words(values, "eval_classifiers"):
        one_of("eval_classifiers", word, CLASSIFIERS)
    sets = shipped("data/class_sets")
    if values.get("class_set") is not None:
        _name_or_file("class_set", str(values["class_set"]), sets)
    for word in _words(values, "tree"):
        check_tree("tree", word)
    for source in named_sources(values.get("zero_shot"), "zero_shot").values():
        check_existing("zero_shot", source)


def check_tree(name: str, word: str) -> None:
    """One tree is built in, a file, or a word that builds one.

    Raises:
        UsageError: it is none of these; with the nearest name.
    """
    if not word.startswith("generated:"):
        _name_or_file(name, word, [*trees(), "wordnet", "induced"])


def check_attacks(name: str, text: str) -> None:
    """Comma-separated names are attacks of an evaluation.

    Raises:
        UsageError: one of them is none; with the nearest name.
    """
    words = list(filter(None, map(str.strip, text.split(","))))
    if not words:
        raise UsageError(f"{name}={text!r} names no attack: give one, such as 'pgd'")
    for word in words:
        one_of(name, word, registered()["eval_attack"])


def _words(values: Mapping, name: str) -> list[str]:
    value = values.get(name)
    if value is None or isinstance(value, Mapping):
        return []
    words = value if isinstance(value, (list, tuple)) else str(value).split(",")
    return [str(word).strip() for word in words if str(word).strip()]


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """A value is one of those that there are.

    Raises:
        UsageError: it is none; with the nearest.
    """
    if value in choices:
        return
    near = difflib.get_close_matches(value, choices, n=1)
    hint = f": did you mean {near[0]!r}?" if near else f": choose one of {', '.join(choices)}"
    raise UsageError(f"{name}={value!r} is unknown{hint}")


def _name_or_file(name: str, value: str, names: Sequence[str]) -> None:
    if value in names or Path(value).is_file():
        return
    near = difflib.get_close_matches(value, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if MACHINE_PATH.match(value) or "/" in value or value.endswith(".json"):
        raise UsageError(f"{name}={value!r} is not a file{hint}")
    raise UsageError(f"{name}={value!r} is not built in ({', '.join(names)}) and no file{hint}")


def _check_numbers(training: Mapping) -> None:
    for names, least in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
        for name in names:
            value = training.get(name)
            # NaN is not at least anything.
            if value is not None and not value >= least:
                kind = "an integer" if isinstance(value, int) and least else "a number"
                raise UsageError(f"{name}={value!r} must be {kind}, at least {least}")
            if value == float("inf"):
                raise UsageError(f"{name}={value!r} must be finite")


def _check_files(command: str, args: RunArguments, training: Mapping) -> None:
    for name in ("train_file", "eval_file"):
        value = getattr(args, name)
        if value is not None and (command == "train" or name == "eval_file"):
            check_existing(name, value)
    if args.dataset_name is not None and MACHINE_PATH.match(args.dataset_name):
        check_existing("dataset_name", args.dataset_name)
    model = args.model_name_or_path
    if MACHINE_PATH.match(model) and not Path(model).expanduser().is_dir():
        raise UsageError(f"model_name_or_path={model!r} holds no checkpoint: there is no such folder")
    resume = training.get("resume_from_checkpoint")
    if isinstance(resume, str) and not Path(resume).is_dir():
        raise UsageError(
            f"resume_from_checkpoint={resume!r} is not a whole checkpoint: there is no such folder; give "
            "one, or true for the last one in output_dir"
        )
    _check_writable(training.get("output_dir") or "trainer_output")


def check_existing(name: str, value: str) -> None:
    """What looks like a path is there.

    Raises:
        UsageError: it is not; with the nearest name in its folder.
    """
    if "://" in value or any(sign in value for sign in "*?["):
        return  # a URL, or a pattern that its reader expands
    path = Path(value).expanduser()
    if (MACHINE_PATH.match(value) or path.suffix) and not path.exists():
        raise UsageError(f"{name}={value!r} does not exist: {_nearest(path)}")


def _nearest(path: Path) -> str:
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r}"
    near = difflib.get_close_matches(path.name, (p.name for p in folder.iterdir()), n=1)
    return f"did you mean {near[0]!r}?" if near else f"its folder holds no {path.name!r}"


def _check_writable(output_dir: str) -> None:
    path = Path(output_dir).expanduser()
    if path.exists() and not path.is_dir():
        raise UsageError(f"output_dir={output_dir!r} is a file: give a folder")
    while not path.exists():
        path = path.absolute().parent
    if path.is_file():
        raise UsageError(f"output_dir={output_dir!r} lies below the file {str(path)!r}: give a folder")
    if not os.access(path, os.W_OK):
        raise UsageError(f"output_dir={output_dir!r} cannot be written: {str(path)!r} is read-only")
