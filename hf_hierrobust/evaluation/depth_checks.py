"""Checks of what a record says of depth: the agreement of its numbers with one another and the record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

REQUIRED = frozenset(
    {"curvature", "kappa", "nodes", "tangent_norm", "ball_norm", "largest_tangent_norm", "bound"}
)
OPTIONAL = frozenset(
    {"simplex", "edges", "edges_in_order", "gap_margin", "edges_by_margin", "clean_margin", "attacked_margin"}
)
LEAF_ONLY = frozenset({"image_depth", "images_not_nearer"})


def check_depth(depth: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Refuse an entry ``depth`` that contradicts itself or its record.

    Raises:
        ValueError: names the field.
    """
    if record["classifier"] not in ("hyperbolic", "cosine") or not record["tree"]:
        raise ValueError(
            f"depth is of the prompts of a tree's level, not of classifier={record['classifier']!r} with "
            f"tree={record['tree']!r}."
        )
    known = REQUIRED | OPTIONAL | (LEAF_ONLY if record["level"] == 0 else frozenset())
    missing, unknown = sorted(REQUIRED - set(depth)), sorted(set(depth) - known)
    if missing or unknown:
        raise ValueError(f"depth lacks {missing} and has unknown {unknown} at level {record['level']}.")
    for name, value in depth.items():
        if not name.endswith("_margin") and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"depth.{name}={value!r} must be a number.")
    for name in ("curvature", "kappa", "nodes"):
        if not depth[name] > 0:
            raise ValueError(f"depth.{name}={depth[name]} must be positive.")
    _check_norms(depth)
    _check_edges(depth)
    if not 0 <= depth.get("images_not_nearer", 0) <= 1:
        raise ValueError(
            f"depth.images_not_nearer={depth['images_not_nearer']} must be a fraction in [0, 1]."
        )
    for name in ("clean_margin", "attacked_margin"):
        if name in depth:
            _check_quantiles(f"depth.{name}", depth[name], depth["bound"])


def _check_norms(depth: Mapping[str, Any]) -> None:
    middle, largest = depth["tangent_norm"], depth["largest_tangent_norm"]
    if not 0 <= middle <= largest * (1 + 1e-9):
        raise ValueError(f"depth.tangent_norm={middle} must lie in 0..largest_tangent_norm={largest}.")
    derived = {
        "ball_norm": (math.tanh(middle), "the tanh of tangent_norm"),
        "bound": (
            4 * depth["kappa"] * largest / math.sqrt(depth["curvature"]),
            "4 kappa largest_tangent_norm / sqrt(curvature)",
        ),
    }
    for name, (value, what) in derived.items():
        # 1 - tanh loses digits as the edge comes near.
        if not math.isclose(depth[name], value, rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"depth.{name}={depth[name]} must be {what}, {value:.6g}.")


def _check_edges(depth: Mapping[str, Any]) -> None:
    for parts in (("edges", "edges_in_order"), ("gap_margin", "edges_by_margin")):
        if len(set(parts) & set(depth)) == 1:
            raise ValueError(f"depth has one of {parts[0]} and {parts[1]}: give both or neither.")
    if "gap_margin" in depth and ("edges" not in depth or not _is_number(depth["gap_margin"], 0)):
        raise ValueError(f"depth.gap_margin={depth['gap_margin']!r} must be a number >= 0, beside edges.")
    counts = [depth[name] for name in ("edges_by_margin", "edges_in_order", "edges") if name in depth]
    if any(not isinstance(count, int) for count in counts) or [0, *counts] != sorted([0, *counts]):
        raise ValueError(
            f"depth needs integers 0 <= edges_by_margin <= edges_in_order <= edges, got {counts}."
        )


def _check_quantiles(name: str, values: Any, bound: float) -> None:
    ordered = isinstance(values, list) and len(values) == 3 and all(_is_number(v) for v in values)
    if not ordered or values != sorted(values):
        raise ValueError(f"{name}={values} must be three ascending numbers: 10, 50 and 90 % of the images.")
    # Scores are fp32, kappa of the order of 100.
    if values[-1] > bound * (1 + 1e-4) + 1e-2:
        raise ValueError(f"{name} reaches {values[-1]}, above the bound {bound} that no margin can pass.")


def _is_number(value: Any, least: float = -math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= least
