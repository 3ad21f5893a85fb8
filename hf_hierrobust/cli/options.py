"""Every option of the command line, read from the source of the argument classes without importing them.

The classes need torch and transformers, whose import takes seconds. A wrong flag and ``--help`` do not have
to wait for it: fields, defaults and help texts stand in three source files. A test keeps this reading equal
to the classes themselves.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
RUN, TRAINING, INHERITED, OWN = "run", "training", "transformers", "command line"

TRAINING_ONLY = frozenset(
    [
        "train_split",
        "train_file",
        "streaming",
        "shuffle_buffer",
        "unlabelled",
        "max_train_samples",
        "skip_train_samples",
        "eval_base",
        "holdout",
        "card_license",
        "card_base_model",
        "card_dataset",
    ]
)
"""Options of a run that `evaluate` has no use for."""
EVALUATION_ALSO = frozenset(
    [
        "norm",
        "eps",
        "threat_space",
        "template",
        "tree",
        "seed",
        "use_cpu",
        "output_dir",
        "overwrite_output_dir",
        "disable_tqdm",
    ]
)
"""Options of a training that `evaluate` shares."""


@dataclass(frozen=True)
class Option:
    """One option.

    Args:
        name: as in Python and YAML; the flag is ``--name``.
        annotation: its type, as source.
        default: its default, as source or value.
        help: one sentence.
        origin: "run", "training", "transformers" or "command line".
    """

    name: str
    annotation: str
    default: object
    help: str
    origin: str

    @property
    def kind(self) -> str:
        """What a value must look like: bool, switch (bool or text), int, float, dict, list or str."""
        parts = [part.strip() for part in re.sub(r"\[[^\]]*\]", "", self.annotation).split("|")]
        if "bool" in parts:
            return "switch" if "str" in parts else "bool"
        if self.name in ("bf16", "bf16_search", "resume_from_checkpoint"):
            return "switch"
        return next((k for k in ("dict", "list", "int", "float") if k in parts), "str")

    @property
    def optional(self) -> bool:
        """Whether None, in YAML null, is a value."""
        return "None" in self.annotation

    @property
    def choices(self) -> tuple[str, ...] | None:
        """Values of a type that transformers enumerates, else None."""
        name = "SchedulerType" if self.name == "lr_scheduler_type" else self.annotation.split("|")[0].strip()
        return _enumerations().get(name)


@lru_cache(maxsize=1)
def all_options() -> dict[str, Option]:
    """Every option by name, in the order of help: the run's, the training's own, the inherited ones."""
    found: dict[str, Option] = {
        "config": Option("config", "str | None", None, "YAML file with any of these; flags win.", OWN),
        "plugins": Option(
            "plugins", "list[str] | None", None, "Python files with objectives and attacks of your own.", OWN
        ),
    }
    own = _fields(PACKAGE / "training/arguments.py", "RobustTrainingArguments", TRAINING)
    inherited = _fields(_transformers() / "training_args.py", "TrainingArguments", INHERITED)
    for options in (_fields(PACKAGE / "runs/arguments.py", "RunArguments", RUN), own, inherited):
        for option in options:
            found.setdefault(option.name, option)
    return found


def options_of(command: str) -> dict[str, Option]:
    """The options that a command takes."""
    options = all_options()
    if command != "evaluate":
        return options
    return {
        name: option
        for name, option in options.items()
        if option.origin == OWN
        or name in EVALUATION_ALSO
        or (option.origin == RUN and name not in TRAINING_ONLY)
    }


@lru_cache(maxsize=1)
def registered() -> dict[str, tuple[str, ...]]:
    """Names that the registries will hold, by their folder: objectives, attacks and text attacks."""
    return {
        "objective": _registered_in("objectives"),
        "attack": tuple(sorted({*_registered_in("attacks/training"), "pgd", "none"})),
        "eval_attack": (*_registered_in("attacks/image"), *_suites()),
        "text_attack": _registered_in("attacks/text"),
        "eval_text_attack": (*_registered_in("attacks/text"), "embedding"),
    }


@lru_cache(maxsize=1)
def refused() -> dict[str, str]:
    """Inherited options that robust training cannot honour, and why."""
    constants: dict[str, str] = {}
    for node in ast.parse((PACKAGE / "training/refusals.py").read_text(encoding="utf-8")).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if not isinstance(target, ast.Name) or node.value is None:
            continue
        if target.id == "REFUSED":
            return {
                ast.literal_eval(key): constants.get(ast.unparse(value)) or ast.literal_eval(value)
                for key, value in zip(node.value.keys, node.value.values)
            }
        if isinstance(node.value, ast.Constant):
            constants[target.id] = node.value.value
    return {}


def shipped(folder: str) -> list[str]:
    """Stems of the JSON files that the package carries in a folder, e.g. ``hierarchy/trees``."""
    return sorted(path.stem for path in (PACKAGE / folder).glob("*.json"))


@lru_cache
def registered_class(folder: str, name: str) -> tuple[list[str], set[str]] | None:
    """Options and ancestors of the class that is registered under a name; None if it cannot be read.

    Args:
        folder: of the registry, e.g. ``objectives``.
    """
    classes = {
        node.name: node
        for path in (PACKAGE / folder).glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found = next((c for c in classes.values() if _registered_name(c) == name), None)
    line = [found] if found is not None else []
    for node in line:  # grows: the bases of each class come after it
        line += [classes[b] for b in map(ast.unparse, node.bases) if b in classes and classes[b] not in line]
    if not line or any(ast.unparse(base) not in classes for node in line for base in node.bases):
        return None
    parts = [part for node in reversed(line) for part in node.body]
    if any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in parts):
        return None
    names = [
        part.target.id
        for part in parts
        if isinstance(part, ast.AnnAssign)
        and not ast.unparse(part.annotation).startswith("ClassVar")
        and "init=False" not in ast.unparse(part)
    ]
    return names, {node.name for node in line}


def _registered_name(node: ast.ClassDef) -> str | None:
    if not any(ast.unparse(mark).endswith(".register") for mark in node.decorator_list):
        return None
    for line in node.body:
        target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == "name":
            return ast.literal_eval(line.value)
    return None


def trees() -> list[str]:
    """Names of the built-in trees and forests."""
    path = PACKAGE / "hierarchy/builtin.py"
    forests = next(
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FORESTS"
    )
    return sorted([*forests, *shipped("hierarchy/trees")])


def _suites() -> list[str]:
    """Names of several image attacks together."""
    for node in ast.parse((PACKAGE / "evaluation/plan.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "SUITES":
            return [key.value for key in node.value.keys]
    return []


def _registered_in(folder: str) -> tuple[str, ...]:
    nodes = [
        node
        for path in (PACKAGE / folder).glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    ]
    return tuple(sorted(name for name in map(_registered_name, nodes) if name is not None))


def _fields(path: Path, class_name: str, origin: str) -> list[Option]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    found = []
    for node in body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        annotation, call = ast.unparse(node.annotation), node.value
        if annotation.startswith("ClassVar"):
            continue
        keywords = {}
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("field"):
            keywords = {keyword.arg: keyword.value for keyword in call.keywords}
            call = keywords.get("default", keywords.get("default_factory"))
        if ast.unparse(keywords.get("init", ast.Constant(True))) == "False":
            continue
        metadata = keywords.get("metadata", ast.Dict([], []))
        texts = {ast.unparse(k).strip("'"): v for k, v in zip(metadata.keys, metadata.values)}
        default = ast.unparse(call) if call is not None else "None"
        try:
            default = ast.literal_eval(default)
        except ValueError:
            default = default.removeprefix("lambda: ")
        found.append(Option(node.target.id, annotation, default, _text(texts.get("help")), origin))
    return found


def _text(node: ast.expr | None) -> str:
    """A help text; a part that is computed is filled in where it names a registry."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant):
            parts.append(part.value)
            continue
        source = ast.unparse(part)
        parts.append(", ".join(_listed(source)))
    return "".join(parts)


def _listed(source: str) -> list[str]:
    """The names that a computed part of a help text lists."""
    if "available_trees" in source:
        return trees()
    if "available_class_sets" in source:
        return shipped("data/class_sets")
    for key, registry in (
        ("text_attack", "TEXT_ATTACKS"),
        ("attack", "ATTACKS"),
        ("objective", "OBJECTIVES"),
    ):
        if registry in source:
            return [name for name in registered()[key] if name != "none"]
    return ["…"]


def _transformers() -> Path:
    spec = PathFinder.find_spec("transformers")
    if spec is None:
        raise ImportError("transformers is not installed: pip install hf_hierrobust")
    return Path(spec.origin).parent


@lru_cache(maxsize=1)
def _enumerations() -> dict[str, tuple[str, ...]]:
    """Values of each enumeration that types of `TrainingArguments` name."""
    found = {}
    for name in ("training_args.py", "trainer_utils.py"):
        for node in ast.parse((_transformers() / name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and [ast.unparse(base) for base in node.bases] == [
                "ExplicitEnum"
            ]:
                values = [line.value for line in node.body if isinstance(line, ast.Assign)]
                found[node.name] = tuple(v.value for v in values if isinstance(v, ast.Constant))
    return found
