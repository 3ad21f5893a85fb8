"""Trees by what a user writes: a name, a file, a mapping, ``wordnet``, ``induced``, or a list of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from .builtin import FORESTS, builtin_tree, is_builtin, unknown_tree
from .checks import TreeError
from .forest import Forest
from .generated import generated_tree
from .induced import induced_tree
from .leaf_names import aliases_of, distinct_keys
from .senses import Embed, choose_senses
from .tree import LabelTree
from .wordnet import DepthError, WordNet, wordnet_tree

__all__ = ["TreeSpec", "load_forest"]

TreeSpec = str | Path | Mapping | LabelTree | Forest | Sequence
"""What `load_forest` takes."""
GENERATED = "generated:"


def load_forest(
    spec: TreeSpec,
    class_names: Sequence[str] | None = None,
    *,
    wnids: Sequence[str] | None = None,
    embed: Embed | None = None,
    language_model: Callable[[str], Callable[..., object]] | None = None,
) -> Forest:
    """The trees that a user means, one or several, aligned to the classes where those are given.

    Args:
        spec: a built-in name (`available_trees`), the path of a JSON file, a mapping ``{leaf: [ancestors]}``
            (or what `LabelTree.to_json` returns), a `LabelTree`, a `Forest`, or a list of these; texts may
            also be a comma-separated list. A built-in name wins over a file of that name. Three words build a
            tree of the classes: ``"wordnet"``, cut out of WordNet; ``"induced"``, clusters of the classes'
            text embeddings; ``"generated:<model>"``, superclasses that a language model names.
        class_names: K names, in the order the leaves shall have; without them the first tree's order counts.
        wnids: WordNet id of each class, for ``"wordnet"``; they tell classes of one name apart there.
        embed: N names to their text embeddings (N, D), for ``"induced"``, and for ``"wordnet"`` to choose
            among the senses of an ambiguous noun.
        language_model: name of a text-generation model to a pipeline or a callable from a prompt to a reply.

    Raises:
        TreeError: nothing of that name, an invalid tree or file, trees over different classes, a tree named
            twice, not one wnid per class, or a tree that has to be built and something is missing for it.
    """
    if wnids is not None and class_names is not None and len(wnids) != len(class_names):
        raise TreeError(f"{len(wnids)} wnids are given for {len(class_names)} classes: give one per class")
    need = _Classes(None if class_names is None else list(class_names), wnids, embed, language_model)
    trees = list(_trees(spec, need))
    names = [tree.name for tree in trees]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TreeError(
            f"several trees are called {twice[0]!r}: give each its own name, files by their 'name'"
        )
    if not trees:
        raise TreeError(f"tree={spec!r} names no tree")
    if class_names is not None:
        return Forest(tuple(tree.align(class_names) for tree in trees))
    return Forest((trees[0], *(_in_order_of(trees[0], tree) for tree in trees[1:])))


def _in_order_of(first: LabelTree, tree: LabelTree) -> LabelTree:
    if len(tree.leaves) != len(first.leaves):
        return tree  # no forest: its error names the leaf that only one has
    try:
        return tree.align_to(first)
    except TreeError:
        return tree


@dataclass(frozen=True)
class _Classes:
    """What trees are built from."""

    names: list[str] | None
    wnids: Sequence[str] | None
    embed: Embed | None
    language_model: Callable[[str], Callable[..., object]] | None

    def for_spec(self, spec: str) -> list[str]:
        if self.names is None:
            raise TreeError(f"tree={spec!r} is built from the classes: give class_names")
        return self.names


def _trees(spec: TreeSpec, need: _Classes) -> Iterator[LabelTree]:
    if isinstance(spec, LabelTree):
        yield spec
    elif isinstance(spec, Forest):
        yield from spec
    elif isinstance(spec, Mapping | Path):
        yield LabelTree.from_json(spec)
    elif isinstance(spec, str):
        yield from _of_text(spec, need)
    elif isinstance(spec, Sequence):
        for part in spec:
            yield from _trees(part, need)
    else:
        raise TreeError(
            f"tree={spec!r} is a {type(spec).__name__}: give a name, a path, a mapping "
            "{leaf: [ancestors]}, a LabelTree, a Forest or a list of these"
        )


def _of_text(text: str, need: _Classes) -> Iterator[LabelTree]:
    parts = [text] if Path(text).is_file() else [part.strip() for part in text.split(",")]
    for part in parts:
        if part in FORESTS:
            yield from map(builtin_tree, FORESTS[part])
        elif is_builtin(part):
            yield builtin_tree(part)
        elif part == "wordnet":
            yield _of_wordnet(need)
        elif part == "induced":
            yield _induced(need)
        elif part.startswith(GENERATED):
            yield _generated(part, need)
        elif Path(part).is_file():
            yield LabelTree.from_json(part)
        else:
            raise unknown_tree(part)


def _of_wordnet(need: _Classes) -> LabelTree:
    names, wordnet = need.for_spec("wordnet"), WordNet()
    keys = distinct_keys(names, need.wnids)
    if need.wnids is not None:
        senses = dict(zip(keys, need.wnids, strict=True))
    else:
        chosen = choose_senses(names, wordnet, need.embed)
        senses = {key: chosen.get(name, name) for key, name in zip(keys, names)}
    for depth in range(5 if len(names) >= 500 else 3, 0, -1):  # as many levels as the classes have
        try:
            tree = wordnet_tree(keys, senses=senses, depth=depth, wordnet=wordnet)
            return replace(tree, aliases=aliases_of(keys, names))
        except DepthError as error:
            refused = error
    raise refused


def _induced(need: _Classes) -> LabelTree:
    names = need.for_spec("induced")
    sizes = tuple(size for size in (len(names) // 4, len(names) // 12) if size > 1)
    if not sizes:
        raise TreeError(
            f"tree='induced' needs at least 8 classes to group, got {len(names)}: write a JSON tree"
        )
    if need.embed is None:
        raise TreeError("tree='induced' groups the classes' text embeddings: give embed, or a model to train")
    embeddings: Tensor = need.embed(names)
    return induced_tree(names, embeddings, level_sizes=sizes)


def _generated(spec: str, need: _Classes) -> LabelTree:
    names, model = need.for_spec(spec), spec.removeprefix(GENERATED)
    if need.language_model is None or not model:
        raise TreeError(f"tree={spec!r} asks a language model for superclasses: give its id behind the colon")
    levels = 2 if len(names) >= 50 else 1
    return generated_tree(
        names, need.language_model(model), num_levels=levels, source=f"generated by {model}"
    )
