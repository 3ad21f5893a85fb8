"""Records of many models side by side, in tables whose every column holds one protocol only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..evaluation.record_checks import eps_text
from ..evaluation.records import RobustnessRecord
from .protocols import Cell, Entry, Row, base_entry, difference, entry_of
from .tables import attack_label, defences_apart


class Mean(NamedTuple):
    """An unweighted mean over data sets, with the half-width of its 95 % interval."""

    value: float
    half_width: float
    doubted: bool


@dataclass
class Table:
    """Rows that were measured on the same images of each data set under the same attack.

    Attributes:
        method: constants of the attack without its budgets.
        level, level_name, kind: which nodes were told apart, and how they were asked for.
        protocols: of each data set: what its records share beside the attack.
        budgets: (norm, eps), ascending.
        cells: of each row, by data set and budget.
        variant: 0 for the most common protocol of each data set, else which of the others.
        differs: for other variants: in what they differ from the first, in words.
    """

    method: dict[str, Any]
    level: int
    level_name: str
    kind: str
    variant: int
    title: str
    protocols: dict[str, dict] = field(default_factory=dict)
    budgets: list[tuple[str, float]] = field(default_factory=list)
    cells: dict[Row, dict[tuple[str, tuple[str, float]], Cell]] = field(default_factory=dict)
    differs: str = ""

    @property
    def sets(self) -> list[str]:
        return sorted(self.protocols)

    def clean(self, row: Row) -> Mean | None:
        """Mean clean accuracy over the table's data sets; None where the row lacks one of them."""
        found = [self._any(row, name) for name in self.sets]
        return _mean(found, "clean") if None not in found else None

    def robust(self, row: Row, budget: tuple[str, float]) -> Mean | None:
        """Mean robust accuracy over the table's data sets; None where the row lacks one of them."""
        found = [self.cells[row].get((name, budget)) for name in self.sets]
        return _mean(found, "robust") if None not in found else None

    def cost(self, row: Row, budget: tuple[str, float]) -> tuple[float, float] | None:
        """Mean forwards and backwards per image over the row's data sets; None where nobody counted."""
        cells = self.cells[row]
        costs = [cell.cost for (_, b), cell in cells.items() if b == budget and cell.cost]
        if not costs:
            return None
        return tuple(sum(cost[name] for cost in costs) / len(costs) for name in ("forwards", "backwards"))

    def ordered(self) -> list[Row]:
        """Rows by mean robust accuracy at the largest budget, then at smaller ones; incomplete ones last."""

        def rank(row: Row) -> tuple:
            means = [self.robust(row, budget) for budget in reversed(self.budgets)]
            return (*(-(mean.value if mean else -1) for mean in means), *map(str, row))

        return sorted(self.cells, key=rank)

    def _any(self, row: Row, name: str) -> Cell | None:
        """The cell of the smallest budget."""
        found = (self.cells[row].get((name, budget)) for budget in self.budgets)
        return next((cell for cell in found if cell is not None), None)


@dataclass
class Leaderboard:
    """Tables, and what a reader has to know beside them.

    Attributes:
        tables: by attack, level, kind and variant.
        notes: sentences about records that were left out or need care.
        records: all of them, for figures.
    """

    tables: list[Table]
    notes: list[str]
    records: list[RobustnessRecord]

    @property
    def rows(self) -> list[Row]:
        return list(dict.fromkeys(row for table in self.tables for row in table.cells))


def build_leaderboard(records: Sequence[RobustnessRecord], notes: Iterable[str] = ()) -> Leaderboard:
    """Sort records into tables.

    A base that only stands beside other records (`with_base`) gets a row of its own. Transfers between levels
    are no rows: figures show them.

    Args:
        records: each measurement once, see `merge_records`.
        notes: of whoever read them.

    Raises:
        ValueError: there are no records, or two of one measurement with other results.
    """
    if not records:
        raise ValueError("records is empty: a leaderboard needs at least one")
    entries = [entry_of(record) for record in records if record.crafted_level is None]
    notes = list(notes)
    entries += _bases(records, entries, notes)
    tables: dict[tuple, Table] = {}
    ranks = _ranks(entries)
    for entry in entries:
        variant = ranks[entry.nominal, entry.protocol_key]
        key = (*entry.section, variant)
        table = tables.setdefault(key, _table(entry, variant))
        table.protocols.setdefault(entry.dataset, entry.protocol)
        if entry.budget not in table.budgets:
            table.budgets = sorted([*table.budgets, entry.budget])
        cells, place = table.cells.setdefault(entry.row, {}), (entry.dataset, entry.budget)
        if place in cells and _numbers(cells[place]) != _numbers(entry.cell):
            raise ValueError(
                f"two records of {entry.row.model!r} on {entry.dataset!r} ({table.level_name}, "
                f"{entry.row.scored_by}, {table.title}, eps {budget_text(entry.budget)}, seed "
                f"{entry.row.seed}) differ in their results: leave one out, or merge them with merge_records"
            )
        cells.setdefault(place, entry.cell)
    order = sorted(tables, key=lambda key: (key[3], -len(tables[key].cells), key[0], key[1], key[2]))
    first = {key[:3]: tables[key] for key in order if key[3] == 0}
    for key in order:
        if key[3]:
            tables[key].differs = difference(tables[key].protocols, first[key[:3]].protocols)
    _tell_apart([tables[key] for key in order])
    notes += _several_clean([tables[key] for key in order])
    return Leaderboard([tables[key] for key in order], list(dict.fromkeys(notes)), list(records))


def _bases(records: Sequence[RobustnessRecord], entries: Sequence[Entry], notes: list[str]) -> list[Entry]:
    """Rows of the bases that only stand beside records; what stands there in vain is noted.

    Of a base that was measured twice the newest numbers count, and a record of its own before all of them.
    """

    def who(entry: Entry) -> tuple:
        return entry.place, entry.row.model, entry.row.scored_by, entry.row.seed

    owned = {who(entry): entry for entry in entries if not entry.row.defence}
    found: dict[tuple, Entry] = {}
    for record in sorted(records, key=lambda one: one.created, reverse=True):
        base = base_entry(record)
        if base is None:
            continue
        counts = owned.get(who(base)) or found.setdefault(who(base), base)
        if _numbers(counts.cell) != _numbers(base.cell):
            notes.append(
                f"{base.row.model} on {base.dataset} ({record.level_name}, {base.row.scored_by}, eps "
                f"{budget_text(base.budget)}) has other numbers beside {record.model} "
                f"({100 * base.cell.robust:.1f} % robust) than those that count "
                f"({100 * counts.cell.robust:.1f} %): its own record's, or else the newest."
            )
    return list(found.values())


def _numbers(cell: Cell) -> tuple[float, float, int]:
    return cell.clean, cell.robust, cell.count


def _several_clean(tables: Sequence[Table]) -> list[str]:
    """Rows whose clean accuracy on a data set was measured with every budget, and came out differently."""
    notes = []
    for table in tables:
        for row, name in ((row, name) for row in table.cells for name in table.sets):
            cells = [table.cells[row].get((name, budget)) for budget in table.budgets]
            values = list(dict.fromkeys(cell.clean for cell in cells if cell is not None))
            if len(values) > 1:
                shown = ", ".join(f"{100 * value:.1f}" for value in values)
                notes.append(
                    f"Clean accuracies of {row.model} ({row.scored_by}) on {name} differ between budgets "
                    f"({shown} %); shown is that of the smallest one."
                )
    return notes


def _ranks(entries: Sequence[Entry]) -> dict[tuple, int]:
    """Place of each protocol among those of its data set, by how many rows have it."""
    rows: dict[tuple, dict[str, set[Row]]] = {}
    for entry in entries:
        rows.setdefault(entry.nominal, {}).setdefault(entry.protocol_key, set()).add(entry.row)
    ranks = {}
    for nominal, found in rows.items():
        order = sorted(found, key=lambda key: (-len(found[key]), key))
        ranks |= {(nominal, key): rank for rank, key in enumerate(order)}
    return ranks


def _table(entry: Entry, variant: int) -> Table:
    record = entry.record
    name = attack_label(record.attack).split(", ")
    title = ", ".join(part for part in name if not part.startswith(("eps ", "step ")))
    return Table(
        json.loads(entry.section[0]), record.level, record.level_name, entry.section[2], variant, title
    )


def _tell_apart(tables: Sequence[Table]) -> None:
    """Attacks of one name say in their titles which constants differ."""
    for title in {table.title for table in tables}:
        methods = [table.method for table in tables if table.title == title]
        names = {key for one in methods for key in one}
        differ = [key for key in sorted(names) if any(one.get(key) != methods[0].get(key) for one in methods)]
        for table in tables if differ else ():
            if table.title == title:
                shown = ", ".join(f"{key} {table.method.get(key)}"[:60] for key in differ)
                table.title = f"{title} ({shown})"
    for title in {table.title for table in tables}:  # what differs may be too long to be shown
        methods = list(dict.fromkeys(json.dumps(t.method) for t in tables if t.title == title))
        for table in [one for one in tables if one.title == title]:
            number = methods.index(json.dumps(table.method)) + 1
            table.title = title if number == 1 else f"{title} ({number})"


def _mean(cells: Sequence[Cell], kind: str) -> Mean:
    """Of independent samples: the half-widths of their Wilson intervals add up as squares."""
    values = [getattr(cell, kind) for cell in cells]
    widths = [max(abs(v - bound) for bound in cell.intervals[kind]) for v, cell in zip(values, cells)]
    doubted = kind == "robust" and any(cell.doubted for cell in cells)
    return Mean(sum(values) / len(values), math.hypot(*widths) / len(values), doubted)


def budget_text(budget: tuple[str, float]) -> str:
    """A budget in a heading: "4/255", or with its norm where that is not linf."""
    norm, eps = budget
    return eps_text(norm, eps) if norm == "linf" else f"{norm} {eps_text(norm, eps)}"


def row_names(rows: Sequence[Row]) -> dict[Row, str]:
    """A name of each row: its model, with what else tells it apart."""
    names, defences = {}, {row: json.loads(row.defence) if row.defence else None for row in rows}
    apart = defences_apart(defences.values())
    for row in rows:
        twins = [other for other in rows if other.model == row.model and other != row]
        parts = [row.model]
        if any(other.objective != row.objective for other in twins):
            parts.append(row.objective)
        behind = apart(defences[row])
        if behind or any(other.scored_by != row.scored_by for other in twins):
            parts.append(row.scored_by)
        parts += [behind] if behind else []
        same = [other for other in twins if other.scored_by == row.scored_by]
        if any(other.model_hash != row.model_hash for other in same):
            parts.append(f"weights {row.model_hash[:6]}" if row.model_hash else "weights unknown")
        if any(other.seed != row.seed for other in same):
            parts.append(f"seed {row.seed}")
        names[row] = ", ".join(parts)
    return names
