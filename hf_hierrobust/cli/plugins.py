"""Python files that register objectives and attacks of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def load_plugins(files: str | Sequence[str] | None) -> None:
    """Import each file once; what it registers can then be named like what is built in.

    A class registers itself by its decorator, e.g. ``@OBJECTIVES.register``.

    Args:
        files: paths, as a list or comma-separated.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the file fails, with its own error.
    """
    if files is None:
        return
    listed = [files] if isinstance(files, str) else files
    for part in (part for entry in listed for part in entry.split(",")):
        path = Path(part.strip()).expanduser().resolve()
        if path.suffix != ".py" or not path.is_file():
            raise FileNotFoundError(f"plugins={part!r} is not a Python file")
        name = f"hf_hierrobust_plugin_{path.stem}"
        known = sys.modules.get(name)
        if known is not None and known.__file__ == str(path):
            continue
        spec = spec_from_file_location(name, path)
        module = module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look their module up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ImportError(f"plugins={part!r} fails: {type(error).__name__}: {error}") from error
