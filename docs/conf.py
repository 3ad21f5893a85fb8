"""Sphinx configuration: the Markdown pages of this folder, and an API reference from the docstrings.

The same pages are read in the repository, so links lead to files. Those that leave this folder become links
to the repository where its address is known (``GITHUB_REPOSITORY``, which GitHub Actions sets), else code.
"""

import ast
import os
import re
from pathlib import Path

import hf_hierrobust

DOCS = Path(__file__).resolve().parent
ROOMS = DOCS / "api"  # generated, one page a room of the package

project = "hf_hierrobust"
version = release = hf_hierrobust.__version__
copyright = "the authors of hf_hierrobust"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings give shapes and units, and signatures stay short
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "hf_hierrobust"
html_show_sourcelink = False


def public_names() -> dict[str, list[str]]:
    """Room of the package -> public names, as ``hf_hierrobust/__init__.pyi`` lists them."""
    stub = ast.parse(Path(hf_hierrobust.__file__).with_name("__init__.pyi").read_text())
    rooms: dict[str, list[str]] = {}
    for line in stub.body:
        if isinstance(line, ast.ImportFrom):
            rooms.setdefault(line.module.split(".")[0], []).extend(name.name for name in line.names)
    return rooms


def write_reference(app) -> None:
    """A page for each room; pages that are up to date keep their time, so that nothing is read again."""
    ROOMS.mkdir(exist_ok=True)
    for room, names in public_names().items():
        page = ROOMS / f"{room}.md"
        text = f"# {room}\n\n```{{eval-rst}}\n.. py:currentmodule:: hf_hierrobust\n\n"
        text += "".join(_entry(name) for name in sorted(names, key=str.lower)) + "```\n"
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _entry(name: str) -> str:
    value = getattr(hf_hierrobust, name)
    if isinstance(value, type):
        return f".. autoclass:: {name}\n   :members:\n\n"
    return f".. autofunction:: {name}\n\n" if callable(value) else f".. autodata:: {name}\n   :no-value:\n\n"


def leave_the_folder(app, docname: str, source: list[str]) -> None:
    """Point links to files outside this folder at the repository."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    home = f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}/blob/main/"

    def replaced(link: re.Match) -> str:
        text, target = link[1], os.path.normpath(Path(docname).parent / link[2])
        if not target.startswith(".."):
            return link[0]
        return f"[{text}]({home}{target.removeprefix('../')})" if repository else f"{text} (`{target[3:]}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)", replaced, source[0])


def setup(app) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("source-read", leave_the_folder)
