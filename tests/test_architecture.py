"""The package's import arrows, read from one table."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median

import pytest

import hf_hierrobust

PACKAGE = Path(hf_hierrobust.__file__).parent

# Room -> rooms it may import, for types too.
ARROWS = {
    "__init__": set(),  # lazy: names rooms in its stub only
    "__main__": {"cli"},
    "threat": set(),
    "registry": {"naming"},
    "files": set(),
    "digests": set(),
    "seals": {"files"},
    "naming": set(),
    "options": set(),
    "licences": set(),
    "modes": set(),
    "progress": set(),
    "precision": {"options", "progress"},
    "readme": {"files"},
    "stock_files": {"files"},
    "uploads": {"naming", "readme", "stock_files"},
    "geometry": set(),
    "hierarchy": {"files", "naming"},
    "adapters": {"digests", "naming"},
    "data": {"files", "hierarchy", "naming"},
    "modeling": {
        *("files", "geometry", "modes", "naming", "precision", "readme", "stock_files", "uploads", "adapters")
    },
    "classifiers": {"digests", "modes", "options", "threat", "geometry", "data", "hierarchy", "modeling"},
    "attacks": {"threat", "registry", "naming", "options", "hierarchy", "classifiers"},
    "objectives": {"geometry", "hierarchy", "naming", "options", "registry"},
    "evaluation": {
        "digests",
        "files",
        "seals",
        "naming",
        "options",
        "threat",
        "geometry",
        "adapters",
        "attacks",
        "classifiers",
        "modeling",
        "data",
        "hierarchy",
    },
    "reports": {"naming", "geometry", "evaluation"},
    "hub": {
        "files",
        "licences",
        "naming",
        "readme",
        "stock_files",
        "threat",
        "uploads",
        "evaluation",
        "reports",
    },
    "training": {
        "digests",
        "files",
        "seals",
        "readme",
        "uploads",
        "naming",
        "options",
        "precision",
        "threat",
        "geometry",
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
    "demo": {"precision", "progress"},
    "runs": {
        "digests",
        "files",
        "licences",
        "naming",
        "options",
        "precision",
        "progress",
        "threat",
        "adapters",
        "attacks",
        "classifiers",
        "data",
        "demo",
        "evaluation",
        "hierarchy",
        "hub",
        "modeling",
        "reports",
        "training",
    },
    "cli": {"evaluation", "files", "naming", "options", "progress", "reports", "runs", "threat", "training"},
}
LIGHT = {
    "progress",
    "modes",
    "precision",
    "digests",
    "files",
    "seals",
    "naming",
    "options",
    "threat",
    "registry",
    "geometry",
    "hierarchy",
}
"""Rooms that must not need the Hugging Face stack."""
HEAVY = {"transformers", "datasets", "accelerate", "peft", "evaluate", "huggingface_hub"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    """Dotted names that a module imports anywhere, for types too, in package-absolute form."""
    tree = ast.parse(path.read_text())
    parts = ["hf_hierrobust", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(tree):
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


def module_of(name: str) -> str | None:
    """The module of the package that an imported dotted name comes from."""
    parts = name.split(".")
    if parts[0] != "hf_hierrobust":
        return None
    while parts:
        path = PACKAGE.joinpath(*parts[1:])
        if path.with_suffix(".py").is_file() or path.joinpath("__init__.py").is_file():
            return ".".join(parts)
        parts.pop()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach one another."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        reach[start] = seen
    groups = {frozenset(o for o in reach[m] if m in reach.get(o, ())) for m in graph if m in reach[m]}
    return sorted(sorted(group) for group in groups)


def test_no_modules_import_one_another_not_even_for_types():
    graph = {}
    for path in MODULES:
        name = ".".join(["hf_hierrobust", *path.relative_to(PACKAGE).with_suffix("").parts])
        name = name.removesuffix(".__init__")
        graph[name] = {module for i in imports(path) if (module := module_of(i)) not in (None, name)}
    assert not circles(graph)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 330


def test_half_of_the_modules_are_short():
    assert median(len(path.read_text().splitlines()) for path in MODULES) <= 180


def test_public_names_resolve_and_import_is_lazy():
    import subprocess
    import sys

    code = "import hf_hierrobust, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in hf_hierrobust.__all__:
        assert getattr(hf_hierrobust, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        hf_hierrobust.nonsense  # noqa: B018
