"""Name -> class registries that fill themselves by importing the modules of one package folder.

Adding an attack or an objective is adding one file: nothing else in the package lists them.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Generic, TypeVar

from .naming import check_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes of one kind by their ``name`` attribute.

    Args:
        kind: word for messages, e.g. ``"objective"``.
        packages: dotted names of the folders whose modules register themselves on import.
    """

    def __init__(self, kind: str, *packages: str):
        self.kind, self.packages = kind, packages
        self._classes: dict[str, type[T]] = {}
        self._scanned = False

    def register(self, cls: type[T]) -> type[T]:
        """Class decorator; refuses a class without a name and two classes of the same name."""
        name = self._name_of(cls)
        if name in self._classes and self._classes[name] is not cls:
            raise ValueError(f"{self.kind} {name!r} is registered twice: {self._classes[name]} and {cls}")
        self._classes[name] = cls
        return cls

    def check(self, instance: T) -> T:
        """An instance that is handed over, registered or not: it must go by a name of its own.

        Records and cards say the name.

        Raises:
            ValueError: it has none, or that of a registered class that it merely inherits from.
        """
        cls = type(instance)
        name = self._name_of(cls)
        self.names()
        owner = self._classes.get(name, cls)
        if owner is not cls:
            raise ValueError(
                f"{self.kind} {cls.__name__} goes by the name {name!r} of {owner.__name__}: set its own "
                "class attribute ``name``"
            )
        return instance

    def _name_of(self, cls: type) -> str:
        name = getattr(cls, "name", "")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{self.kind} {cls.__name__} has no name: set the class attribute ``name``")
        check_name(f"{self.kind} {cls.__name__}: name", name, file=True)
        return name

    def names(self) -> list[str]:
        if not self._scanned:
            for folder in self.packages:
                package = importlib.import_module(folder)
                for module in pkgutil.iter_modules(package.__path__):
                    importlib.import_module(f"{folder}.{module.name}")
            self._scanned = True
        return sorted(self._classes)

    def get(self, name: str) -> type[T]:
        """The class of that name.

        Raises:
            KeyError: unknown name; the message lists the known ones and the nearest.
        """
        known = self.names()
        if name not in self._classes:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"unknown {self.kind} {name!r}: choose one of {', '.join(known)}{hint}")
        return self._classes[name]
