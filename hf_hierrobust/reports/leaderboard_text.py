"""A leaderboard as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from .leaderboard import Leaderboard, Mean, Table, budget_text, row_names
from .markdown import Markdown, code, table, text, url
from .protocols import Cell, Row
from .tables import DOUBT

SCHEMA, SCHEMA_VERSION = "hf_hierrobust.leaderboard", 1


def leaderboard_markdown(board: Leaderboard, figures: Mapping[str, str] | None = None) -> str:
    """One document: for each attack and level a table of means, one a data set below, and the protocols.

    Args:
        figures: caption of each figure by its file, relative to the document.
    """
    names = row_names(board.rows)
    models = len({row.model for row in board.rows})
    lines = [
        "# Leaderboard",
        "",
        f"{len(board.records)} records of {models} model{'s' if models != 1 else ''}. Accuracies in %; ± is "
        "the half-width of the 95 % interval; robust accuracies are upper bounds, which stronger attacks may "
        "lower. A mean is unweighted over the data sets of its table and stands only beside models that were "
        "measured on all of them. Every column holds one protocol: the same images, classes, prompts and "
        "attack; rows behind one defence with other constants say which. Cost is forwards / backwards of the "
        "classifier per image.",
        "",
    ]
    for number, one in enumerate(board.tables, 1):
        lines += _section(one, number, names)
    if doubts := _doubts(board, names):
        lines += [
            "## Doubted numbers",
            "",
            f"{DOUBT} marks numbers whose checks speak against them:",
            "",
            *doubts,
            "",
        ]
    if figures:
        lines += ["## Figures", ""]
        for file, caption in figures.items():
            lines += [f"![{text(caption)}]({url(file)})", ""]
    if board.notes:
        lines += ["## Notes", "", *(f"- {text(note)}" for note in board.notes), ""]
    return "\n".join(lines).rstrip() + "\n"


def leaderboard_json(board: Leaderboard) -> dict:
    """The same as JSON types: every table with its protocols, rows and cells, and the notes."""
    names = row_names(board.rows)
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "records": len(board.records),
        "tables": [_table_json(one, names) for one in board.tables],
        "notes": board.notes,
    }


def _section(one: Table, number: int, names: Mapping[Row, str]) -> list[str]:
    asked = (
        ""
        if one.kind == "prompts" and one.level == 0
        else f" by {one.kind}"
        if one.kind == "prompts"
        else f", {one.kind}"
    )
    heading = f"## {number}. {text(one.title)}: {text(one.level_name)}{asked}"
    lines = [heading + (" (other protocol)" if one.variant else ""), ""]
    if one.differs:
        lines += [f"Not comparable with the table before: {text(one.differs)}.", ""]
    rows, several = one.ordered(), len(one.sets) > 1
    head = ["Model", "Objective", "Clean", *(f"eps {budget_text(b)}" for b in one.budgets), "Cost"]
    body = []
    for row in rows:
        means = [one.clean(row), *(one.robust(row, budget) for budget in one.budgets)]
        body.append([names[row], row.objective, *map(_mean_text, means), _cost_text(one, row)])
    lines += [table(head, body, right=len(head) - 2), ""]
    if several:
        order = " / ".join(["clean", *(f"eps {budget_text(b)}" for b in one.budgets)])
        lines += [f"Means over {len(one.sets)} data sets. By data set, {order}:", ""]
        head = ["Model", *one.sets]
        body = [[names[row], *(_cell_text(one, row, name) for name in one.sets)] for row in rows]
        lines += [table(head, body, right=len(one.sets)), ""]
    lines += [_protocols(one), ""]
    return lines


def _mean_text(mean: Mean | None) -> Markdown:
    if mean is None:
        return Markdown("–")
    return Markdown(f"{100 * mean.value:.1f} ± {100 * mean.half_width:.1f}{_mark(mean.doubted)}")


def _cell_text(one: Table, row: Row, name: str) -> Markdown:
    """Clean and robust accuracies of one data set: "62.0 / 41.0 / 20.1"."""
    cells = [one.cells[row].get((name, budget)) for budget in one.budgets]
    clean = next((cell for cell in cells if cell is not None), None)
    if clean is None:
        return Markdown("–")
    parts = [f"{100 * clean.clean:.1f}"]
    parts += [f"{100 * cell.robust:.1f}{_mark(bool(cell.doubted))}" if cell else "–" for cell in cells]
    return Markdown(" / ".join(parts))


def _cost_text(one: Table, row: Row) -> Markdown:
    costs = [one.cost(row, budget) for budget in one.budgets]
    shown = ["–" if cost is None else f"{cost[0]:.0f} / {cost[1]:.0f}" for cost in costs]
    return Markdown(shown[0] if len(set(shown)) == 1 else ", ".join(shown))


def _mark(doubted: bool) -> str:
    return f" {DOUBT}" if doubted else ""


def _protocols(one: Table) -> Markdown:
    head = [
        "Data set",
        "Split",
        "Classes",
        "Images",
        "Chosen",
        "Sample",
        "Templates",
        "Tree",
        "Space",
        "Search",
    ]
    body = [
        [
            name,
            p["split"],
            f"{p['classes']} ({p['class_set']})",
            p["images"],
            p["chosen"],
            code(p["sha256"][:8], table=True),
            code((p["templates_hash"] or "–")[:8], table=True),
            code((p["tree_hash"] or "–")[:8], table=True),
            p["space"],
            p["search_dtype"] or "–",
        ]
        for name, p in sorted(one.protocols.items())
    ]
    return table(head, body)


def _doubts(board: Leaderboard, names: Mapping[Row, str]) -> list[str]:
    """One line for each table, row and reason."""
    found: dict[tuple, list[str]] = {}
    for number, one in enumerate(board.tables, 1):
        for row, cells in one.cells.items():
            for (name, budget), cell in cells.items():
                if cell.doubted:
                    key = number, names[row], cell.doubted.removeprefix("suspected: ")
                    found.setdefault(key, []).append(f"{name} at {budget_text(budget)}")
    return [
        f"- {text(f'table {number}, {name}')}: {text(why)} ({text(', '.join(where))})"
        for (number, name, why), where in found.items()
    ]


def _table_json(one: Table, names: Mapping[Row, str]) -> dict:
    return {
        "attack": one.title,
        "method": one.method,
        "level": one.level,
        "level_name": one.level_name,
        "kind": one.kind,
        "variant": one.variant,
        "differs": one.differs or None,
        "budgets": [
            {"norm": norm, "eps": eps, "text": budget_text((norm, eps))} for norm, eps in one.budgets
        ],
        "datasets": one.protocols,
        "rows": [
            {
                "name": names[row],
                **row._asdict(),
                "defence": json.loads(row.defence) if row.defence else None,
                "clean": _mean_json(one.clean(row)),
                "robust": [_mean_json(one.robust(row, budget)) for budget in one.budgets],
                "cost": [_cost_json(one.cost(row, budget)) for budget in one.budgets],
                "cells": [
                    {"dataset": name, "norm": budget[0], "eps": budget[1], **_cell_json(cell)}
                    for (name, budget), cell in sorted(one.cells[row].items())
                ],
            }
            for row in one.ordered()
        ],
    }


def _mean_json(mean: Mean | None) -> dict | None:
    return None if mean is None else mean._asdict()


def _cost_json(cost: Sequence[float] | None) -> dict | None:
    return None if cost is None else {"forwards": cost[0], "backwards": cost[1]}


def _cell_json(cell: Cell) -> dict:
    return {
        "clean_accuracy": cell.clean,
        "robust_accuracy": cell.robust,
        "intervals": cell.intervals,
        "num_samples": cell.count,
        "cost": cell.cost,
        "doubted": cell.doubted,
    }
