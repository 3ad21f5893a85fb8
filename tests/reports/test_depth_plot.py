"""Margin against depth: the figure's points, its lines, and the table's and ball's words."""

from __future__ import annotations

import numpy as np
import pytest
from example_records import DEPTH_NORMS as NORMS, KAPPA, PGD, depth_record, make_record
from figure_checks import check_png, setting_of

from hf_hierrobust.naming import level_name
from hf_hierrobust.reports import depth_table, plot_depth
from hf_hierrobust.reports.depth_table import depth_records

RECORDS = [make_record(), *(depth_record(level) for level in (2, 0, 1))]


def points_of(axes, label: str) -> np.ndarray:
    (line,) = (line for line in axes.lines if line.get_label().startswith(label))
    return np.column_stack(line.get_data())


@pytest.fixture(scope="module")
def figure(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    path = tmp_path_factory.mktemp("figures") / "depth.png"
    drawn = plot_depth(RECORDS, path)
    check_png(path)
    return drawn


def test_levels_lie_at_the_radius_of_their_median_norm(figure):
    allowed, measured = figure.axes
    assert points_of(allowed, "median, clean") == pytest.approx(
        np.array([[2 * norm, 4.0 - level] for level, norm in enumerate(NORMS)])
    )
    assert points_of(allowed, "median, attacked")[:, 1] == pytest.approx([-1.5] * 3)
    for level in range(3):
        said = measured.get_xticklabels()[level].get_text()
        assert said == f"{level_name(level)}\nK = {(36, 9, 3)[level]}\nρ {2 * NORMS[level]:.2f}"


def test_the_bound_is_a_straight_line_and_the_simplex_lies_below_it(figure):
    allowed = figure.axes[0]
    rho, bound = points_of(allowed, "bound").T
    assert bound == pytest.approx(2 * KAPPA * rho) and rho[0] == 0 and rho[-1] > 2 * max(NORMS)
    for rho, reached in points_of(allowed, "K equiangular"):
        assert 0 < reached < 2 * KAPPA * rho


def test_bars_reach_from_10_to_90_percent(figure):
    measured = figure.axes[1]
    bars = {c.get_label().split(":")[0]: c for c in measured.containers}
    for level, segment in enumerate(bars["clean"].lines[2][0].get_segments()):
        assert segment[:, 1] == pytest.approx([-1.0 - level, 9.0])
    for level, segment in enumerate(bars["attacked"].lines[2][0].get_segments()):
        assert segment[:, 1] == pytest.approx([-6.0, 3.0 - level])


def test_everything_is_explained_once_inside_the_page(figure):
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert [name.split()[0] for name in named] == ["bound", "K", "clean:", "attacked:"]
    page, box = figure.bbox, legend.get_window_extent()
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0


def test_levels_at_one_radius_stay_apart_on_the_page():
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    records = [depth_record(level) for level in range(3)]
    for record in records[1:]:
        record.depth.update(
            {k: records[0].depth[k] for k in ("tangent_norm", "ball_norm", "largest_tangent_norm", "bound")}
        )
    measured = plot_depth(records).axes[1]
    x = sorted(float(v) for c in measured.containers for v in c.lines[0].get_xdata())
    low, high = measured.get_xlim()
    assert min(np.diff(x)) > 0.01 * (high - low)


def test_the_title_says_what_was_measured(figure):
    said = setting_of(figure)
    for part in (
        "someone/robust-clip",
        "200 images",
        "tree t",
        "pgd-20, linf, eps 4/255",
        "43 of 45 edges are in order",
        "37 by the training's margin of 0.02",
        "images lie 0.031 beyond their own leaf's text, 87 % of them not nearer",
    ):
        assert part in said


def test_without_attacked_margins_only_clean_ones_are_drawn_and_told():
    records = [depth_record(level, attacked=False, classifier="cosine") for level in range(3)]
    assert "attacked" not in depth_table(records)
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    _, measured = plot_depth(records).axes
    assert len(measured.containers) == 1
    with pytest.raises(ValueError, match="no record tells depth"):
        plot_depth([make_record()])


def test_the_table_has_a_row_a_level_leaves_first():
    lines = depth_table(RECORDS).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in lines[:5]]
    assert cells[0][:4] == ["Level", "Nodes", "Median norm", "Edges in order"]
    assert cells[2] == ["leaf", "36", "0.900", "36 of 36", "30 of 36", "4.00", "-1.50", "380"]
    assert cells[3] == ["superclass", "9", "0.700", "7 of 9", "7 of 9", "3.00", "-1.50", "300"]
    assert cells[4] == ["superclass 2", "3", "0.450", "–", "–", "2.00", "-1.50", "200"]
    said = lines[6]
    assert "43 of 45 edges are in order" in said and "by at least 0.200" in said
    assert "attacked by pgd-20, linf, eps 4/255" in said and "κ = 100 on 200 images" in said


def test_levels_out_of_order_are_called_so():
    records = [depth_record(0), depth_record(1)]
    records[1].depth["tangent_norm"] = 0.93
    assert "one level lies 0.030 beyond the one below it" in depth_table(records)


def test_one_record_a_level_of_the_first_set_at_the_largest_budget():
    weak = PGD | {"eps": 1 / 255}
    records = [
        depth_record(0, attack=weak),
        depth_record(1),
        depth_record(0),
        depth_record(0, dataset="other/set"),
        make_record(),
    ]
    chosen = depth_records(records)
    assert [(r.level, r.attack["eps_text"], r.dataset) for r in chosen] == [
        (0, "4/255", "uoft-cs/cifar10"),
        (1, "4/255", "uoft-cs/cifar10"),
    ]
    assert depth_records([make_record()]) == [] and depth_table([make_record()]) == ""


@pytest.mark.parametrize(
    "other", [{"attack": PGD | {"loss": "margin"}}, {"seed": 1}, {"model_hash": "b"}, {"split": "train"}]
)
def test_levels_of_another_measurement_do_not_stand_between(other):
    chosen = depth_records([depth_record(1), depth_record(0, **other), depth_record(2)])
    assert [record.level for record in chosen] == [1, 2]
