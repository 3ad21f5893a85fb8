"""Retrieval records as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.retrieval_records import DIRECTIONS, RetrievalRecord
from .markdown import table

WORDS = {"nothing": "clean", "image": "image", "text": "text", "joint": "image and text"}


def retrieval_table(records: Sequence[RetrievalRecord]) -> str:
    """Markdown: a row for each record, R@1, 5 and 10 in % from images to captions and back."""
    head = ["Model", "Data", "Attacked", "eps"]
    head += [f"{way} R@{k}" for way in ("I→T", "T→I") for k in (1, 5, 10)]
    rows = []
    for record in records:
        values = [record.recalls[way][k] for way in DIRECTIONS for k in ("1", "5", "10")]
        eps = record.attack["eps_text"] if record.attack else "–"
        shown = [f"{100 * value:.1f}" for value in values]
        rows.append([record.model, record.dataset, WORDS[record.attacked], eps, *shown])
    return f"{table(head, rows, right=6)}\n"
