"""Which leaf of a tree a class name means, and keys for classes that share a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .checks import TreeError, nearest, normalise


class LeafNames:
    """What a tree's leaves are called: by their keys, else by prompt names and aliases.

    Names are compared in their normalised form.

    Args:
        tree: its name, for messages.
        keys: of the leaves, in their order.
        display: key -> prompt name.
        aliases: key -> what data sets call the leaf besides.
    """

    def __init__(
        self,
        tree: str,
        keys: Sequence[str],
        display: Mapping[str, str],
        aliases: Mapping[str, Sequence[str]],
    ):
        self.tree, self.keys = tree, tuple(keys)
        self._place = {normalise(key): place for place, key in enumerate(keys)}
        self._names = [
            {normalise(name) for name in (key, display.get(key, key), *aliases.get(key, ()))} for key in keys
        ]
        self._others: dict[str, list[int]] = {}
        for place, names in enumerate(self._names):
            for name in names - self._place.keys():
                self._others.setdefault(name, []).append(place)

    def find(self, class_name: str) -> int:
        """Place of the one leaf of this name.

        Raises:
            TreeError: none, with the nearest names, or several that are called so.
        """
        found = self._candidates(class_name)
        if not found:
            raise TreeError(f"tree {self.tree!r} has no class {class_name!r}{nearest(class_name, self.keys)}")
        if len(found) > 1:
            raise TreeError(self._ambiguous(class_name, found))
        return found[0]

    def match(self, class_names: Sequence[str]) -> list[int]:
        """Place of the leaf of each class; all are different.

        Where names alone do not tell the leaves apart, the class at each place means the leaf there, if every
        leaf is called as the class at its place.

        Raises:
            TreeError: no classes, some that the tree lacks, each with its nearest names, a name that several
                leaves have, or two classes for one leaf.
        """
        found = [self._candidates(name) for name in class_names]
        if not found:
            raise TreeError("class_names is empty")
        if missing := [name for name, places in zip(class_names, found) if not places]:
            # Nearest names of the first few only: each costs a pass over all leaves.
            listed = ", ".join(f"{name!r}{nearest(name, self.keys)}" for name in missing[:10])
            listed += ", …" if len(missing) > 10 else ""
            raise TreeError(f"tree {self.tree!r} lacks {len(missing)} of the classes: {listed}")
        several = next((place for place, places in enumerate(found) if len(places) > 1), None)
        chosen = [places[0] for places in found]
        if several is None and len(set(chosen)) == len(chosen):
            return chosen
        if len(class_names) == len(self.keys) and all(map(self._is_called, range(len(found)), class_names)):
            return list(range(len(found)))
        if several is not None:
            raise TreeError(self._ambiguous(class_names[several], found[several]))
        raise TreeError(self._repeated(class_names, chosen))

    def first_other(self, other: LeafNames) -> int | None:
        """First place at which another tree's leaf is not the same class; None where all are.

        The same class has a key, prompt name or alias in common; where both trees have the same keys, it has
        the same one. Leaves that only the longer tree has are not compared.
        """
        one_set = self._place.keys() == other._place.keys()
        for place, (mine, theirs) in enumerate(zip(self._names, other._names)):
            keys_differ = normalise(self.keys[place]) != normalise(other.keys[place])
            if not mine & theirs or (one_set and keys_differ):
                return place
        return None

    def shared_with(self, other: LeafNames) -> list[str]:
        """For each leaf a name that another tree knows, its key where there is none."""
        own = ([key, *sorted(names)] for key, names in zip(self.keys, self._names))
        return [next((name for name in names if other._candidates(name)), names[0]) for names in own]

    def _candidates(self, class_name: str) -> list[int]:
        form = normalise(class_name)
        return [self._place[form]] if form in self._place else self._others.get(form, [])

    def _is_called(self, place: int, class_name: str) -> bool:
        return normalise(class_name) in self._names[place]

    def _ambiguous(self, class_name: str, places: Sequence[int]) -> str:
        return (
            f"tree {self.tree!r}: class {class_name!r} may be any of the leaves "
            f"{[self.keys[place] for place in places]}: call it by the key of one"
        )

    def _repeated(self, class_names: Sequence[str], chosen: Sequence[int]) -> str:
        first: dict[int, int] = {}
        for index, place in enumerate(chosen):
            other = first.setdefault(place, index)
            if other != index:
                break
        there = ""
        if len(chosen) == len(self.keys) and not self._is_called(index, class_names[index]):
            there = f", and the leaf at place {index}, {self.keys[index]!r}, is not called so"
        return (
            f"class names repeat: {class_names[other]!r} (class {other}) and {class_names[index]!r} (class "
            f"{index}) both mean the leaf {self.keys[place]!r} of tree {self.tree!r}{there}. Rename one, or "
            "give the tree a leaf for each class, in their order, with the class name among its 'aliases'"
        )


def distinct_keys(class_names: Sequence[str], wnids: Sequence[str] | None = None) -> list[str]:
    """A key for each class: its name or, where an earlier class has that, with its WordNet id or number.

    Args:
        wnids: of the classes; those of different classes differ.
    """
    taken, keys = {normalise(name) for name in class_names}, []
    seen: set[str] = set()
    for index, name in enumerate(class_names):
        key = name
        if normalise(name) in seen:
            key = f"{name} ({index if wnids is None else wnids[index]})"
            while normalise(key) in taken:  # another class is called just so
                key += "'"
            taken.add(normalise(key))
        seen.add(normalise(name))
        keys.append(key)
    return keys


def aliases_of(keys: Sequence[str], class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The class name of each key of `distinct_keys` that is not its class's name."""
    return {key: (name,) for key, name in zip(keys, class_names) if key != name}
