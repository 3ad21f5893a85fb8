"""HierRobust's options, the rows of its text nodes, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from hier_batch import CLASSES, DIM, KINDS, PLACES, forest_of, make_batch, view_of

from hf_hierrobust.modeling.hier_head import HierHead
from hf_hierrobust.objectives import HierRobust, Targets, TextNodes


def test_rows_share_leaves_and_padding_but_not_trees():
    forest = forest_of([KINDS, {c: ["pet" if c in ("cat", "dog") else "other"] for c in CLASSES}])
    nodes = TextNodes.of_forest(CLASSES, forest)
    assert nodes.names[: len(CLASSES)] == CLASSES
    first, second = nodes.rows
    assert first[0].tolist() == second[0].tolist() == list(range(len(CLASSES)))
    row = {key: int(r) for key, r in zip(forest[0].levels[1], first[1])}
    assert row["oak"] == CLASSES.index("oak") and row["rock"] == CLASSES.index("rock")
    other = {key: int(r) for key, r in zip(forest[1].levels[1], second[1])}
    assert nodes.names[row["pet"]] == nodes.names[other["pet"]] == "pet" and row["pet"] != other["pet"]


@pytest.mark.parametrize("reading", ["label", "rollup", "none"])
def test_a_flat_tree_has_no_gaps_between_levels(reading):
    objective = HierRobust(intra_gap=reading, gap_margin=0.3)
    objective.setup(CLASSES, forest_of([{c: [] for c in CLASSES}]))
    images, texts, labels, head = make_batch(objective.nodes.names)
    terms = objective.loss([view_of(images, texts, head)], Targets(labels))
    assert float(terms["label_gap"]) == float(terms["level_gap"]) == 0
    assert ("intra_gap" in terms) == (reading != "none")
    if reading == "rollup":
        assert float(terms["intra_gap"]) == 0
    sum(terms.values()).backward()
    assert images.grad.isfinite().all()


def test_setup_again_forgets_the_earlier_trees():
    """One instance may serve two trainers."""
    objective = HierRobust()
    objective.setup(CLASSES, forest_of([PLACES]))
    images, texts, labels, head = make_batch(objective.nodes.names)
    objective.inner_loss(view_of(images, texts, head), Targets(labels))
    objective.setup(CLASSES, forest_of([KINDS]))
    fresh = HierRobust()
    fresh.setup(CLASSES, forest_of([KINDS]))
    images, texts, labels, head = make_batch(fresh.nodes.names)
    view = view_of(images, texts, head)
    assert torch.equal(objective.inner_loss(view, Targets(labels)), fresh.inner_loss(view, Targets(labels)))


def test_options_are_the_fields_one_can_set():
    objective = HierRobust(hnsa="upper", level_weights=(1.0, 0.5, 0.1))
    objective.setup(CLASSES, forest_of([KINDS]))
    options = json.loads(json.dumps(objective.options()))
    assert options["hnsa"] == "upper" and options["level_weights"] == [1.0, 0.5, 0.1]
    assert HierRobust(**options).options() | {"level_weights": [1.0, 0.5, 0.1]} == options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hnsa": "sibling"}, "hnsa='sibling'.*both, upper, lower, none"),
        ({"score": "l2"}, "score='l2'.*hyperbolic"),
        ({"pooling": "mean"}, "pooling='mean'.*midpoint"),
        ({"intra_gap": "A"}, "intra_gap='A'.*label"),
        ({"kappa_scale": 0}, "kappa_scale=0"),
        ({"lambda_vic": "0.5"}, "lambda_vic='0.5'"),
        ({"lambda_gap": -1.0}, "lambda_gap=-1.0"),
        ({"vic_factor": 0.0}, "vic_factor=0.0"),
        ({"tangent_norm": -0.5}, "tangent_norm=-0.5"),
        ({"tangent_norm": 3.9}, "tangent_norm=3.9 must be below 3.8, where max_tangent_norm and ball_margin"),
        ({"tangent_norm": 1.5, "max_tangent_norm": 1.5}, "tangent_norm=1.5 must be below 1.5"),
        ({"ball_margin": 1}, "ball_margin=1 must be below 1"),
        ({"level_weights": (1.0, -0.5)}, "level_weights=.* must be a list of finite numbers, none negative"),
        ({"level_reduction": "max"}, "level_reduction='max'.*mean, sum"),
        ({"train_scales": "false"}, "train_scales='false' must be true or false"),
        ({"sync_midpoints": 1}, "sync_midpoints=1 must be true or false"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        HierRobust(**options)


@pytest.mark.parametrize("weights", [(1.0, 0.5), (1.0, 0.5, 0.2, 0.1)])
def test_level_weights_must_fit_the_tree(weights):
    with pytest.raises(ValueError, match=rf"level_weights has {len(weights)} values.*3 levels"):
        HierRobust(level_weights=weights).setup(CLASSES, forest_of([KINDS]))


def test_a_tree_is_required():
    with pytest.raises(ValueError, match="needs a class tree"):
        HierRobust().setup(CLASSES)


def test_an_uncalibrated_head_is_refused():
    objective = HierRobust()
    objective.setup(CLASSES, forest_of([KINDS]))
    images, texts, labels, _ = make_batch(objective.nodes.names)
    with pytest.raises(RuntimeError, match="not calibrated"):
        objective.inner_loss(view_of(images, texts, HierHead(DIM)), Targets(labels))


@pytest.mark.parametrize("option", [{"curvature": 0.5}, {"vic_factor": 0.3}, {"tangent_norm": 3.0}])
def test_other_constants_than_the_heads_are_refused(option):
    objective = HierRobust(**option)
    objective.setup(CLASSES, forest_of([KINDS]))
    images, texts, labels, head = make_batch(objective.nodes.names)
    ((name, value),) = option.items()
    held = f"'{name}': {head.constants[name]}"
    with pytest.raises(ValueError, match=rf"'{name}': {value}.*was calibrated with .*{held}"):
        objective.calibrate(view_of(images, texts, head), labels)
    with pytest.raises(ValueError, match=rf"'{name}': {value}.*was calibrated with .*{held}"):
        objective.check_head(head)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gap_margin": 0.2}, r"tree 't0': gap_margin=0.2 .* does not fit 3 levels .* 0.5"),
        ({"gap_margin": 0.2, "tangent_norm": 0.6}, r"does not fit 3 levels .* 0.6"),
        ({"gap_margin": 0.2, "gap_norm": "ball"}, r"does not fit 3 levels"),
        ({"gap_margin": 0.6, "level_scales": False}, r"does not fit 1 levels"),
    ],
    ids=str,
)
def test_levels_without_room_are_refused_before_there_are_images(options, words):
    objective = HierRobust(**options)
    objective.setup(CLASSES, forest_of([KINDS]))
    with pytest.raises(ValueError, match=words):
        objective.check_head(HierHead(DIM))
    fits = HierRobust(**options | {"gap_margin": 0.1})
    fits.setup(CLASSES, forest_of([KINDS]))
    fits.check_head(HierHead(DIM))
