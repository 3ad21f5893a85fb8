"""The heat map of transfer between levels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from example_records import make_record
from figure_checks import check_png, setting_of, texts_of

from hf_hierrobust.reports.transfer import plot_transfer, transfer_matrices


def transfers(size=3, names=("cosine", "rollup")):
    """Records whose rate is told by their levels: crafted i, judged j, 10 i + 5 j percent."""
    records = []
    for name, i, j in itertools.product(names, range(size), range(size)):
        rate = (2 * i + j) / 20
        records.append(
            make_record(
                classifier=name,
                level=j,
                level_name=("leaf", "superclass", "superclass 2")[j],
                clean_accuracy=0.5,
                robust_accuracy=0.5 * (1 - rate),
                base=None,
                crafted_level=i,
                judged_level=j,
                transfer_rate=rate,
            )
        )
    return records


def test_rows_are_the_level_attacked_and_columns_the_level_judged(tmp_path):
    records = [make_record(), *transfers()]
    matrices = transfer_matrices(records)
    wanted = np.add.outer(2 * np.arange(3), np.arange(3)) / 20
    assert list(matrices) == ["cosine", "rollup"]
    np.testing.assert_allclose(matrices["cosine"], wanted)
    figure = plot_transfer(records, tmp_path / "transfer")
    check_png(tmp_path / "transfer.png")
    assert "<svg" in (tmp_path / "transfer.svg").read_text()
    panels = figure.axes[:2]
    assert [axes.get_title() for axes in panels] == ["cosine", "rollup"]
    assert texts_of(panels[0]) == [f"{100 * rate:.1f}" for rate in wanted.flatten()]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == [
        "leaf",
        "superclass",
        "superclass 2",
    ]
    assert "4/255" in setting_of(figure) and "robust-clip" in setting_of(figure)


def test_missing_entries_are_blank_and_none_or_two_are_refused():
    records = transfers(2, ["cosine"])
    figure = plot_transfer(records[1:])
    assert texts_of(figure.axes[0])[0] == "–"
    with pytest.raises(ValueError, match="no transfer"):
        plot_transfer([make_record()])
    with pytest.raises(ValueError, match="two records of 'cosine' crafted at superclass and judged at leaf"):
        transfer_matrices([*records, records[2]])
