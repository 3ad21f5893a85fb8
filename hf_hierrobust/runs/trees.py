"""What a class tree looks like: levels, counts, self-loops, edges and prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data import ClassSet, available_class_sets, load_class_set
from ..data.class_sets import DEFAULT_TEMPLATE
from ..hierarchy import Forest, LabelTree, TreeSpec, load_forest, node_names
from ..naming import level_name


@dataclass(frozen=True)
class OpenTrees:
    """Trees with the classes that they are over.

    Attributes:
        class_set: None where only the trees say what the classes are called.
        templates: of the prompts.
    """

    forest: Forest
    class_set: ClassSet | None
    templates: tuple[str, ...]

    def shown(self) -> list[tuple[LabelTree, list[list[str]]]]:
        """Each tree and what the nodes of its levels are called in prompts."""
        names = None if self.class_set is None else self.class_set.class_names
        return [(tree, node_names(names or tree.display_names(0), tree)) for tree in self.forest]


def open_trees(
    spec: TreeSpec,
    *,
    classes: str | Sequence[str] | ClassSet | None = None,
    template: str | None = None,
    model: str | None = None,
) -> OpenTrees:
    """The trees of a spec (see `load_forest`) over some classes.

    Args:
        classes: class set, its built-in name or JSON file, or names, also as text ``"a, b, c"``; by default
            the built-in class set that the tree is named after, else the tree's own leaves.
        template: of the prompts; by default the class set's own.
        model: folder or Hub id of the model whose text embeddings build an ``"induced"`` tree.

    Raises:
        TreeError, ValueError: see `load_forest` and `load_class_set`.
    """
    class_set = classes_of(classes)
    if class_set is None and isinstance(spec, str) and spec in available_class_sets():
        class_set = load_class_set(spec)
    templates = (template,) if template else class_set.templates if class_set else (DEFAULT_TEMPLATE,)
    if class_set is None:
        return OpenTrees(load_forest(spec), None, templates)
    if model is None:
        forest = load_forest(spec, class_set.class_names, wnids=class_set.wnids)
    else:
        from ..modeling import load_robust_model
        from ..training.intake import model_forest, processor_for

        loaded = load_robust_model(model)
        tokenizer = processor_for(None, loaded).tokenizer
        forest = model_forest(spec, class_set, loaded, tokenizer, templates[0])
    return OpenTrees(forest, class_set, templates)


def classes_of(classes: str | Sequence[str] | ClassSet | None) -> ClassSet | None:
    """A class set from what a user writes: its name, a JSON file, or the names themselves.

    Raises:
        ValueError: no such class set, or names that make none.
    """
    if classes is None or isinstance(classes, ClassSet):
        return classes
    if isinstance(classes, str):
        if classes in available_class_sets() or Path(classes).suffix == ".json":
            return load_class_set(classes)
        if "," not in classes:
            return load_class_set(classes)  # which says what there is
        classes = [name.strip() for name in classes.split(",") if name.strip()]
    return ClassSet.from_names(classes)


def describe_trees(trees: OpenTrees) -> list[dict]:
    """Facts of each tree, as JSON types; ``levels`` from the leaves to the top."""
    return [_describe(tree, names, trees.templates) for tree, names in trees.shown()]


def _describe(tree: LabelTree, names: Sequence[Sequence[str]], templates: Sequence[str]) -> dict:
    levels = []
    for level, keys in enumerate(tree.levels):
        below = Counter(tree.parents[level - 1]) if level else Counter()
        # A node that only repeats the one below it, as padding, is a self-loop: it makes no edge.
        loops = int(tree.self_loops(level - 1).sum()) if level else 0
        levels.append(
            {
                "level": level,
                "name": level_name(level),
                "nodes": len(keys),
                "edges_from_below": (len(tree.levels[level - 1]) - loops) if level else 0,
                "self_loops": loops,
                "children": {"least": min(below.values()), "most": max(below.values())} if level else None,
                "names": list(names[level]),
                "prompts": [[t.replace("{}", name) for t in templates] for name in names[level]],
            }
        )
    return {
        "name": tree.name,
        "source": tree.source,
        "licence": tree.licence,
        "hash": tree.hash,
        "classes": len(tree.leaves),
        "templates": list(templates),
        "levels": levels,
        "parents": [list(parents) for parents in tree.parents],
    }


def trees_text(described: Sequence[Mapping], *, prompts: bool = False) -> str:
    """What `describe_trees` found, as text: a table of levels, then the nodes, indented from the top.

    Args:
        prompts: list every node's prompts in place of the nodes.
    """
    return "\n\n".join("\n".join(_lines(tree, prompts)) for tree in described)


def _lines(tree: Mapping, prompts: bool) -> list[str]:
    lines = [f"tree {tree['name']}: {tree['classes']} classes, hash {tree['hash']}"]
    lines += [f"{what}: {tree[what]}" for what in ("source", "licence") if tree[what]]
    lines += [
        f"templates: {' | '.join(tree['templates'])}",
        "",
        "level  name           nodes  edges from below  self-loops  children",
    ]
    for level in tree["levels"]:
        inside = level["children"]
        spread = f"{inside['least']} to {inside['most']}" if inside else "–"
        lines.append(
            f"{level['level']:5}  {level['name']:13}  {level['nodes']:5}  {level['edges_from_below']:16}  "
            f"{level['self_loops']:10}  {spread}"
        )
    lines.append("")
    if prompts:
        for level in reversed(tree["levels"]):
            lines.append(f"level {level['level']} ({level['name']}):")
            lines += [f"  {' | '.join(texts)}" for texts in level["prompts"]]
        return lines
    top = len(tree["levels"]) - 1
    children = [_children(parents) for parents in tree["parents"]]
    for node in range(tree["levels"][top]["nodes"]):
        _indent(tree, children, top, node, 0, lines)
    return lines


def _children(parents: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for child, parent in enumerate(parents):
        found.setdefault(parent, []).append(child)
    return found


def _indent(tree: Mapping, children: Sequence[dict], level: int, node: int, depth: int, lines: list) -> None:
    """A node and what is below it; the leaves of one node stand on one line."""
    name, below = tree["levels"][level]["names"][node], children[level - 1][node] if level else []
    if level and below == [below[0]] and tree["levels"][level - 1]["names"][below[0]] == name:
        _indent(tree, children, level - 1, below[0], depth, lines)  # a self-loop is shown once
        return
    if level == 1:
        leaves = ", ".join(tree["levels"][0]["names"][leaf] for leaf in below)
        lines.append(f"{'  ' * depth}{name} ({len(below)}): {leaves}")
        return
    lines.append(f"{'  ' * depth}{name}" + (f" ({len(below)})" if level else ""))
    for child in below:
        _indent(tree, children, level - 1, child, depth + 1, lines)
