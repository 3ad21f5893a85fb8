"""Records of many models and runs, from their files to one leaderboard with figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import logging

from ..evaluation import RobustnessRecord
from ..evaluation.record_files import find_record_files, merge_records, read_records
from ..files import write_atomically
from ..hierarchy import LabelTree, TreeError, TreeSpec, load_forest
from ..naming import file_stem
from ..reports.class_plot import plot_class_drop
from ..reports.depth import plot_depth
from ..reports.figure_io import save_png_and_svg
from ..reports.leaderboard import Leaderboard, build_leaderboard
from ..reports.leaderboard_plots import figure_groups, plot_budgets, plot_clean_robust
from ..reports.leaderboard_text import leaderboard_json, leaderboard_markdown
from ..reports.tables import attack_label
from ..reports.transfer import plot_transfer

logger = logging.get_logger(__name__)
FILES = ("leaderboard.md", "leaderboard.json")
MAX_SINGLE = 20
"""Figures of single models, of each kind."""


@dataclass(frozen=True)
class WrittenLeaderboard:
    """A leaderboard on disk.

    Attributes:
        files: relative to the folder.
    """

    board: Leaderboard
    files: list[str]


def write_leaderboard(
    sources: Sequence[str | os.PathLike],
    folder: str | os.PathLike,
    *,
    tree: TreeSpec | None = None,
    figures: bool = True,
) -> WrittenLeaderboard:
    """Merge records into ``leaderboard.md``, ``leaderboard.json`` and, as PNG and SVG, ``figures/``.

    Args:
        sources: files of records, folders of runs and suites, or folders of these.
        tree: orders the classes of the per-class figures where their records name no built-in tree; by
            default the built-in one of their class set, if there is one.
        figures: False draws none; neither does a missing matplotlib, with a warning.

    Raises:
        FileNotFoundError: a source without records.
        RecordFormatError: a damaged one.
    """
    files = dict.fromkeys(file.resolve() for source in sources for file in find_record_files(source))
    records, notes = merge_records([read_records(file) for file in files])
    board = build_leaderboard(records, notes)
    folder = Path(folder).expanduser()
    captions = _draw(board, folder, tree) if figures else {}
    write_atomically(
        folder / FILES[0], leaderboard_markdown(board, {f"{k}.png": v for k, v in captions.items()})
    )
    text = json.dumps(leaderboard_json(board), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / FILES[1], text + "\n")
    drawn = [f"{stem}{suffix}" for stem in captions for suffix in (".png", ".svg")]
    return WrittenLeaderboard(board, [*FILES, *drawn])


def _draw(board: Leaderboard, folder: Path, tree: TreeSpec | None) -> dict[str, str]:
    """Draw what the records allow; the caption of each figure by its path without suffix."""
    captions: dict[str, str] = {}

    def draw(stem: str, caption: str, plot: Callable[[], object]) -> bool:
        stem = _free(stem, captions)
        try:
            save_png_and_svg(plot(), folder / "figures" / stem)
        except ImportError as error:
            logger.warning(f"the figures are left out: {error}")
            return False
        except Exception as error:  # one that does not fit must not cost the others
            logger.warning(f"figures/{stem} could not be drawn and is left out: {error!r}")
            return True
        captions[f"figures/{stem}"] = caption
        return True

    for number, tables in enumerate(figure_groups(board), 1):
        end, said = "" if number == 1 else f"-{number}", tables[0].title
        if not draw(f"budgets{end}", f"Accuracy by budget, {said}", partial(plot_budgets, tables)):
            return {}
        draw(f"clean-robust{end}", f"Clean and robust accuracy, {said}", partial(plot_clean_robust, tables))
    for record in _for_classes(board):
        where = f"{record.dataset} ({record.split}), {record.num_samples} images"
        how = f"{attack_label(record.attack)}; space {record.attack['space']}"
        draw(
            f"classes-{file_stem(record.dataset)}",
            f"Accuracy by class of {record.model} on {record.dataset}",
            partial(
                plot_class_drop,
                record.classes,
                _ancestors(record, tree),
                setting=f"{record.model} by {record.classifier} on {where}; {how}",
            ),
        )
    told, transfers = _for_depth(board), _transfers(board)
    for kind, found in {"depth": told, "transfer": transfers}.items():
        if len(found) > MAX_SINGLE:
            logger.warning(f"of {len(found)} figures of {kind} the first {MAX_SINGLE} are drawn")
    for record in told[:MAX_SINGLE]:
        own = [one for one in board.records if _source(one) == _source(record)]
        name, where = f"{record.model} on {record.dataset}", file_stem(f"{record.model}-{record.dataset}")
        draw(f"margins-{where}", f"Margin against depth of {name}", partial(plot_depth, own))
    for records in transfers[:MAX_SINGLE]:
        first = records[0]
        name, where = f"{first.model} on {first.dataset}", file_stem(f"{first.model}-{first.dataset}")
        draw(f"transfer-{where}", f"Transfer between levels of {name}", partial(plot_transfer, records))
    return captions


def _free(stem: str, taken: Container[str]) -> str:
    """The path, with a number where another figure has it: names of models and data sets may be equal."""
    found, number = stem, 1
    while f"figures/{found}" in taken:
        number += 1
        found = f"{stem}-{number}"
    return found


def _source(record: RobustnessRecord) -> tuple:
    """What was measured on which images, under whatever attack."""
    model = record.model, record.model_hash, record.objective, record.templates_hash
    classes = record.class_set, record.tree_hash, record.num_classes if record.tree_hash is None else None
    return *model, *classes, record.dataset, record.split, record.sample_ids["sha256"]


def _for_depth(board: Leaderboard) -> list[RobustnessRecord]:
    """One record of each model and data set that tells where the levels lie."""
    return list({_source(record): record for record in board.records if record.depth is not None}.values())


def _transfers(board: Leaderboard) -> list[list[RobustnessRecord]]:
    """Of each model and data set the transfers under one attack at its largest budget."""
    groups: dict[tuple, dict[tuple, list[RobustnessRecord]]] = {}
    for record in board.records:
        if record.crafted_level is not None:
            attack = record.attack["eps"], json.dumps(record.attack, sort_keys=True), record.seed
            groups.setdefault(_source(record), {}).setdefault(attack, []).append(record)
    return [found[max(found)] for found in groups.values()]


def _for_classes(board: Leaderboard) -> list[RobustnessRecord]:
    """Of each data set the leaf record of the model that is most robust at the largest budget."""
    best: dict[str, RobustnessRecord] = {}
    for record in board.records:
        if record.classes is None or record.level or not record.direct:
            continue
        other = best.get(record.dataset)
        if other is None or _strength(record) > _strength(other):
            best[record.dataset] = record
    return list(best.values())


def _strength(record: RobustnessRecord) -> tuple[float, float]:
    return record.attack["eps"], record.robust_accuracy


def _ancestors(record: RobustnessRecord, spec: TreeSpec | None) -> list[list[str]]:
    """Superclasses of the record's classes at each level.

    By its own tree, if that is built in, else by ``spec``, else by the built-in tree of its class set.
    """
    for candidate in filter(None, (record.tree, spec, record.class_set)):
        try:
            tree: LabelTree = load_forest(candidate, record.classes["names"])[0]
        except (TreeError, OSError):
            continue  # a tree of other classes, or one that only the run had
        if candidate != record.tree or tree.hash == record.tree_hash:
            levels = range(1, tree.num_levels)
            return [
                [tree.display_names(level)[n] for n in tree.ancestors(level).tolist()] for level in levels
            ]
    return []
