"""Depth of a model's ball in words: where the levels of the tree lie, edges in order, margins and bounds."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.records import RobustnessRecord
from ..geometry import smallest_step
from .markdown import Markdown, table
from .tables import attack_key, attack_label


def depth_records(records: Sequence[RobustnessRecord]) -> list[RobustnessRecord]:
    """Records that tell depth, one a level, leaves first, all of one measurement.

    It is that of the first model and data set, at its largest eps under the first attack and seed there.
    """
    told = [record for record in records if record.depth is not None]
    if not told:
        return []

    def source(record: RobustnessRecord) -> tuple:
        images = record.dataset, record.split, record.sample_ids["sha256"]
        return record.model, record.model_hash, record.tree_hash, record.templates_hash, *images

    told = [record for record in told if source(record) == source(told[0])]
    strongest = max(told, key=lambda record: record.attack["eps"])
    levels: dict[int, RobustnessRecord] = {}
    for record in told:
        if (attack_key(record), record.seed) == (attack_key(strongest), strongest.seed):
            levels.setdefault(record.level, record)
    return [levels[level] for level in sorted(levels)]


def depth_table(records: Sequence[RobustnessRecord]) -> str:
    """Markdown table of a tree's levels and sentences on it; empty if no record tells depth."""
    rows, chosen = [], depth_records(records)
    if not chosen:
        return ""
    by_margin = any("gap_margin" in record.depth for record in chosen)
    attacked = any("attacked_margin" in record.depth for record in chosen)
    for record in chosen:
        depth = record.depth
        row = [
            record.level_name,
            depth["nodes"],
            f"{depth['tangent_norm']:.3f}",
            _of(depth, "edges_in_order"),
        ]
        row += [_of(depth, "edges_by_margin")] if by_margin else []
        row += [_median(depth, "clean_margin")]
        row += [_median(depth, "attacked_margin")] if attacked else []
        rows.append([*row, f"{depth['bound']:.0f}"])
    head = ["Level", "Nodes", "Median norm", "Edges in order"]
    head += ["by the margin"] if by_margin else []
    head += ["Median margin"] + (["attacked"] if attacked else []) + ["Bound"]
    grid = table(head, rows, right=len(head) - 1)
    return "\n".join([grid, "", " ".join(depth_sentences(chosen))]) + "\n"


def depth_sentences(chosen: Sequence[RobustnessRecord]) -> list[str]:
    """What the levels come to, as sentences of Markdown.

    Args:
        chosen: of `depth_records`, at least one.
    """
    leaf = chosen[0].depth
    found = [f"{edges_sentence(chosen)}."]
    if len(chosen) > 1:
        found.append(f"{steps_sentence(chosen)}.")
    if "image_depth" in leaf:
        found.append(f"{images_sentence(leaf)}.")
    attack = ""
    if "attacked_margin" in leaf:
        attack = f", attacked by {attack_label(chosen[0].attack)} unless they are wrong when clean"
    found.append(
        f"Norms are those of the texts' tangent vectors, √r‖v‖. Margins are log-odds of −κd at κ = "
        f"{leaf['kappa']:.4g} on {chosen[0].num_samples} images of {chosen[0].dataset} "
        f"({chosen[0].split}){attack}; the bound is the largest that the level's norms allow."
    )
    return [Markdown(sentence) for sentence in found]


def edges_sentence(chosen: Sequence[RobustnessRecord]) -> str:
    """How many edges of the tree are in order."""
    depths = [record.depth for record in chosen if "edges" in record.depth]
    total, in_order = (sum(depth[name] for depth in depths) for name in ("edges", "edges_in_order"))
    said = f"{in_order} of {total} edges are in order, the parent nearer the centre than its child"
    if all("gap_margin" in depth for depth in depths):
        by_margin = sum(depth["edges_by_margin"] for depth in depths)
        said += f"; {by_margin} by the training's margin of {depths[0]['gap_margin']:g}"
    return said


def steps_sentence(chosen: Sequence[RobustnessRecord]) -> str:
    """How far apart neighbouring levels lie."""
    least = smallest_step([record.depth["tangent_norm"] for record in chosen])
    if least > 0:
        return f"Medians fall from each level to the one above it, by at least {least:.3f}"
    return f"Medians do not fall from level to level: one level lies {-least:.3f} beyond the one below it"


def images_sentence(leaf: dict) -> str:
    """Where images lie beside their leaves' texts."""
    side = "beyond" if leaf["image_depth"] >= 0 else "nearer the centre than"
    return (
        f"In the median images lie {abs(leaf['image_depth']):.3f} {side} their own leaf's text, "
        f"{100 * leaf['images_not_nearer']:.0f} % of them not nearer the centre than it"
    )


def _of(depth: dict, name: str) -> str:
    return f"{depth[name]} of {depth['edges']}" if name in depth else "–"


def _median(depth: dict, name: str) -> Markdown:
    return Markdown(f"{depth[name][1]:.2f}" if name in depth else "–")  # a minus sign is no list
