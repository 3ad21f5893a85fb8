"""What ``--help`` prints: the common options of a command first, then its others; no torch needed."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable

from .options import INHERITED, Option, options_of

COMMON = {
    "train": [
        "model_name_or_path",
        "dataset_name",
        "train_file",
        "eval_file",
        "class_set",
        "tree",
        "objective",
        "eps",
        "num_steps",
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "lora_r",
        "bf16",
        "eval_eps",
        "eval_samples",
        "output_dir",
        "resume_from_checkpoint",
        "overwrite_output_dir",
        "config",
        "plugins",
    ],
    "evaluate": [
        "model_name_or_path",
        "dataset_name",
        "eval_file",
        "eval_split",
        "class_set",
        "tree",
        "eps",
        "eval_eps",
        "eval_samples",
        "eval_attack",
        "eval_num_steps",
        "zero_shot",
        "output_dir",
        "config",
        "plugins",
    ],
}
SUMMARY = {
    "train": "Train a robust model, measure it beside its base, and describe it.",
    "evaluate": "Measure clean and robust accuracy of a checkpoint.",
    "suite": "Measure several models on the zero-shot data sets, on the same images.",
    "attack": "Attack one image, and show what the model says of it before and after.",
    "push": "Upload a run's checkpoint, card and records to the Hub.",
    "report": "Merge records of many models into one leaderboard with figures.",
    "convert": "Turn open_clip weights into a stock CLIP checkpoint, and back.",
    "tree": "Show the levels, counts and prompts of a class tree.",
}
_SWITCHES = (
    ("--help", "This text; --help-all also shows what transformers.TrainingArguments offers."),
    ("--debug", "Show the traceback of an error."),
)


def help_text(command: str, everything: bool = False) -> str:
    """The options of a command with their defaults; ``everything`` includes those of transformers."""
    options = options_of(command)
    common = [options[name] for name in COMMON[command] if name in options]
    others = [o for o in options.values() if o not in common and o.origin != INHERITED]
    shared = [o for o in options.values() if o not in common and o.origin == INHERITED]
    lines = [f"usage: hf-hierrobust {command} [--config run.yaml] --name value …", "", SUMMARY[command], ""]
    lines += _section("common options", common)
    if command == "evaluate":
        others, shared = others + shared, []
    lines += _section("more options", others)
    if everything:
        lines += _section("options of transformers.TrainingArguments", shared)
    lines += [f"  {flag:26} {text}" for flag, text in _SWITCHES]
    return "\n".join(lines)


def _section(title: str, options: Iterable[Option]) -> list[str]:
    width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns))
    lines = [f"{title}:"]
    for option in options:
        shown = "" if option.default in (None, "") else f" [{option.default}]"
        text = " ".join(f"{option.help}{shown}".split())
        first, *rest = textwrap.wrap(text, width - 30) or [""]
        flag = f"--{option.name}"
        if len(flag) > 26:
            lines.append(f"  {flag}")
            flag = ""
        lines.append(f"  {flag:26} {first}")
        lines += [f"{'':29}{line}" for line in rest]
    return [*lines, ""]
