"""The package's import arrows, read from one table."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import hf_hierrobust

PACKAGE = Path(hf_hierrobust.__file__).parent

# Room -> rooms it may import. `training.card`'s names for the rest of the package are the rooms' own.
ARROWS = {
    "__init__": set(),  # lazy: names rooms in its stub only
    "threat": set(),
    "registry": set(),
    "files": set(),
    "naming": set(),
    "options": set(),
    "modes": set(),
    "geometry": set(),
    "hierarchy": set(),
    "adapters": {"modes"},
    "data": {"hierarchy"},
    "modeling": {"geometry", "modes", "adapters"},
    "classifiers": {"data", "hierarchy", "modeling"},
    "attacks": {"threat", "registry", "naming", "options", "hierarchy", "classifiers"},
    "objectives": {"geometry", "hierarchy", "options", "registry"},
    "evaluation": {
        "files",
        "naming",
        "threat",
        "adapters",
        "attacks",
        "classifiers",
        "modeling",
        "data",
        "hierarchy",
    },
    "reports": {"naming", "evaluation"},
    "hub": {"files", "naming", "threat", "evaluation", "reports"},
    "training": {
        "naming",
        "options",
        "threat",
        "adapters",
        "attacks",
        "classifiers",
        "objectives",
        "modeling",
        "data",
        "hierarchy",
        "evaluation",
        "hub",
    },
    "demo": {"modes"},
    "runs": {
        "files",
        "naming",
        "options",
        "threat",
        "adapters",
        "attacks",
        "classifiers",
        "data",
        "demo",
        "evaluation",
        "hierarchy",
        "modeling",
        "reports",
        "training",
    },
    "cli": {"adapters", "evaluation", "reports", "runs", "training"},
}
LIGHT = {"modes", "files", "naming", "options", "threat", "registry", "geometry", "hierarchy"}
"""Rooms that must not need the Hugging Face stack."""
HEAVY = {"transformers", "datasets", "accelerate", "peft", "evaluate", "huggingface_hub"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    """Dotted names that a module imports at run time, in package-absolute form."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    parts = ["hf_hierrobust", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = parts[: -node.level] if node.level else []
            module = ".".join([*base, *((node.module or "").split(".") if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


MODULES = sorted(p for p in PACKAGE.rglob("*.py"))


def test_every_room_is_in_the_table():
    assert {room_of(p) for p in MODULES} == set(ARROWS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    room = room_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "hf_hierrobust" and len(parts) > 1 and parts[1] in ARROWS and parts[1] != room:
            assert parts[1] in ARROWS[room], f"{path.name} in {room} imports {name}"
        if room in LIGHT:
            assert parts[0] not in HEAVY, f"{room} must stay light but {path.name} imports {name}"


def test_the_table_has_no_circle():
    done: set[str] = set()
    remaining = {room: set(arrows) for room, arrows in ARROWS.items()}
    while remaining:
        free = [room for room, arrows in remaining.items() if arrows <= done]
        assert free, f"circle among {sorted(remaining)}"
        done |= set(free)
        for room in free:
            del remaining[room]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 330


def test_public_names_resolve_and_import_is_lazy():
    import subprocess
    import sys

    code = "import hf_hierrobust, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in hf_hierrobust.__all__:
        assert getattr(hf_hierrobust, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        hf_hierrobust.nonsense  # noqa: B018
