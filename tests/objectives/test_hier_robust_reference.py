"""HierRobust against an independent float64 reference: values and gradients of every term."""

from __future__ import annotations

import pytest
import torch
from hier_batch import (
    BATCH,
    CLASSES,
    DIM,
    KINDS,
    LOGIT_SCALE,
    PLACES,
    TREES,
    forest_of,
    make_batch,
    view_of,
)
from hier_reference import Reference

from hf_hierrobust.objectives import HierRobust, Targets, TextNodes


def both(options, trees, *, curvature=1.0, seed=0, dtype=torch.float64, text_delta=None):
    """Objective and reference on the same batch: (terms, tangents, reference, its tangents)."""
    objective = HierRobust(**options)
    objective.setup(CLASSES, forest_of(trees))
    names = objective.nodes.names
    images, texts, labels, head = make_batch(names, seed, curvature, dtype)
    delta = None if text_delta is None else text_delta.to(dtype)
    terms = objective.loss([view_of(images, texts, head, text_delta=delta)], Targets(labels))

    images64, texts64 = (t.detach().double().requires_grad_() for t in (images, texts))
    moved = texts64 if text_delta is None else texts64 + text_delta
    used = {k: v for k, v in options.items() if k not in ("lambda_vic", "lambda_gap")}
    reference = Reference(
        images64,
        dict(zip(names, moved)),
        [CLASSES[y] for y in labels],
        trees,
        r=curvature,
        kappa=2.5,
        vic_radius=1.5,
        logit_scale=LOGIT_SCALE,
        **used,
    )
    return terms, (images, texts), reference, (images64, texts64)


def assert_equal(loss, tangents, expected, tangents64, tolerance=1e-8):
    torch.testing.assert_close(loss.double(), expected, atol=tolerance, rtol=tolerance)
    ours = torch.autograd.grad(loss, tangents, allow_unused=True, retain_graph=True)
    theirs = torch.autograd.grad(expected, tangents64, allow_unused=True, retain_graph=True)
    for mine, other, kind in zip(ours, theirs, ("image", "text")):
        if other is None:  # the term does not depend on these
            assert mine is None or not mine.abs().max() > tolerance
            continue
        assert float(other.abs().max()) > 1e-4 or float(loss) == 0, f"the {kind} gradient tests nothing"
        torch.testing.assert_close(mine.double(), other, atol=tolerance, rtol=tolerance * 100)


VARIANTS = [
    *({"hnsa": h, "pooling": p} for h in ("both", "upper", "lower", "none") for p in ("midpoint", "none")),
    {"score": "squared", "kappa_scale": 0.5},
    {"score": "cosine"},
    {"kappa_scale": 2.0},
    {"level_weights": (0.2, 3.0, 0.7)},
]


@pytest.mark.parametrize("trees", TREES, ids=str)
@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: ",".join(map(str, o.values())))
def test_hita_equals_the_reference(options, trees):
    terms, tangents, reference, tangents64 = both(options, TREES[trees])
    assert_equal(terms["hita"], tangents, reference.hita(), tangents64)


@pytest.mark.parametrize("trees", TREES, ids=str)
@pytest.mark.parametrize("gaps", [("tangent", "sum"), ("ball", "mean")], ids=str)
@pytest.mark.parametrize("reading", ["label", "rollup", "both"])
def test_regularisers_equal_the_reference(reading, gaps, trees):
    options = {"intra_gap": reading, "lambda_vic": 0.5, "lambda_gap": 2.0, "gap_margin": 0.1}
    options |= {"gap_norm": gaps[0], "edge_reduction": gaps[1]}
    terms, tangents, reference, tangents64 = both(options, TREES[trees])
    assert set(terms) == {"hita", "vic", "label_gap", "level_gap", "intra_gap"}
    assert_equal(terms["vic"], tangents, 0.5 * reference.vic(), tangents64)
    assert_equal(terms["label_gap"], tangents, 2 * reference.label_gap(), tangents64)
    assert_equal(terms["level_gap"], tangents, 2 * reference.level_gap(), tangents64)
    assert_equal(terms["intra_gap"], tangents, 2 * reference.intra_gap(), tangents64)
    expected = reference.hita() + 0.5 * reference.vic() + 2 * reference.gaps()
    assert_equal(sum(terms.values()), tangents, expected, tangents64)


@pytest.mark.parametrize("curvature", [0.3, 4.0])
def test_every_term_equals_the_reference_at_other_curvatures(curvature):
    terms, tangents, reference, tangents64 = both({"intra_gap": "both"}, TREES["forest"], curvature=curvature)
    expected = reference.hita() + 0.5 * reference.vic() + reference.gaps()
    assert_equal(sum(terms.values()), tangents, expected, tangents64)


@pytest.mark.parametrize("trees", TREES, ids=str)
def test_sums_in_place_of_means(trees):
    """OC-9, OC-12 and OC-14: factors that counting gives."""
    found = {}
    for name, options in {
        "default": {},
        "edges": {"edge_reduction": "mean"},
        "trees": {"tree_reduction": "mean"} if trees == "forest" else {},  # refused on one tree
        "levels": {"level_reduction": "sum", "pooling": "none"},
        "per image": {"pooling": "none"},
        "no hinge": {"vic_hinge": False},
    }.items():
        objective = HierRobust(**options)
        objective.setup(CLASSES, forest_of(TREES[trees]))
        images, texts, labels, head = make_batch(objective.nodes.names)
        view = view_of(images, texts, head)
        found[name] = objective.loss([view], Targets(labels)), objective.inner_loss(view, Targets(labels))
    (default, inner), count = found["default"], len(TREES[trees])
    for term, value in found["trees"][0].items():
        torch.testing.assert_close(count * value, default[term])
    torch.testing.assert_close(count * found["trees"][1], inner)
    torch.testing.assert_close(found["levels"][1], BATCH * found["per image"][1])
    if trees == "tree":
        edges = sum(len(forest_of(TREES[trees]).trees[0].edges(level)[0]) for level in (0, 1))
        for term in ("label_gap", "level_gap"):
            torch.testing.assert_close(edges * found["edges"][0][term], default[term])
    distances = head.own_distance(head.lift(images), head.lift(texts[labels]))
    expected = count * 0.5 * (distances - head.vic_radius).mean()
    torch.testing.assert_close(found["no hinge"][0]["vic"], expected)


def test_float32_stays_close_to_the_reference():
    terms, tangents, reference, tangents64 = both({}, TREES["forest"], dtype=torch.float32)
    expected = reference.hita() + 0.5 * reference.vic() + reference.gaps()
    assert sum(terms.values()).dtype == torch.float32
    assert_equal(sum(terms.values()), tangents, expected, tangents64, tolerance=2e-5)


@pytest.mark.parametrize("rows", [1, None], ids=["shared", "per node"])
def test_text_perturbation_is_added_to_the_tangents(rows):
    count = rows or len(TextNodes.of_forest(CLASSES, forest_of([KINDS])).names)
    delta = 0.3 * torch.randn(count, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    terms, tangents, reference, tangents64 = both({}, [KINDS], text_delta=delta)
    assert_equal(terms["hita"], tangents, reference.hita(), tangents64)
    still, *_ = both({}, [KINDS])
    assert abs(float((still["hita"] - terms["hita"]).detach())) > 1e-2


def test_the_mask_follows_the_true_node():
    """Where the nearest node is another one, masking by it gives another loss: that mistake would show."""
    terms, _, reference, _ = both({}, [KINDS])
    reference.mask = "predicted"
    assert abs(float((terms["hita"] - reference.hita()).detach())) > 1e-2


def test_inner_loss_is_hita():
    objective = HierRobust()
    objective.setup(CLASSES, forest_of(TREES["forest"]))
    images, texts, labels, head = make_batch(objective.nodes.names)
    view = view_of(images, texts, head)
    assert torch.equal(
        objective.inner_loss(view, Targets(labels)), objective.loss([view], Targets(labels))["hita"]
    )


def test_levels_of_a_view_add_up_with_the_papers_weights():
    """omega_l = 1 - l / (L + 1): 1, 2/3 and 1/3 for three levels."""
    objective, equal = HierRobust(), HierRobust(level_weights=(1, 1, 1))
    for o in (objective, equal):
        o.setup(CLASSES, forest_of([KINDS]))
    images, texts, labels, head = make_batch(objective.nodes.names)

    def level(o, *levels):
        return float(o.inner_loss(view_of(images, texts, head, levels=levels), Targets(labels)))

    for number, weight in enumerate((1, 2 / 3, 1 / 3)):
        assert level(equal, number) > 0.1
        assert level(objective, number) == pytest.approx(weight * level(equal, number))
    assert level(objective, 0, 1, 2) == pytest.approx(sum(level(objective, n) for n in range(3)))
    everything = float(objective.inner_loss(view_of(images, texts, head), Targets(labels)))
    assert level(objective, 0, 1, 2) == pytest.approx(everything)


@pytest.mark.parametrize("pooling", ["midpoint", "none"])
def test_a_single_root_contributes_exactly_zero(pooling):
    objective = HierRobust(pooling=pooling)
    objective.setup(CLASSES, forest_of([PLACES]))
    images, texts, labels, head = make_batch(objective.nodes.names)
    root = objective.inner_loss(view_of(images, texts, head, levels=(2,)), Targets(labels))
    assert float(root) == 0
    for gradient in torch.autograd.grad(root, (images, texts), allow_unused=True):
        assert gradient is None or not gradient.any()
    # nor does it change the levels below: no node of theirs gets it as a negative
    without = {c: path[:1] for c, path in PLACES.items()}
    weights = (1.0, 0.5, 0.25)
    terms, *_ = both({"level_weights": weights, "pooling": pooling}, [PLACES])
    fewer, *_ = both({"level_weights": weights[:2], "pooling": pooling}, [without])
    # the root's text row is the last: all other tangents are the same in both
    assert float(terms["hita"]) == pytest.approx(float(fewer["hita"]), rel=1e-12)


def test_a_point_of_several_views_is_the_sum_over_them():
    """Per-level perturbations: each view counts for its levels, regularisers for the first."""
    objective = HierRobust()
    objective.setup(CLASSES, forest_of([KINDS]))
    images, texts, labels, head = make_batch(objective.nodes.names)
    shifted = images + 0.1
    views = [view_of(images, texts, head, levels=(0,)), view_of(shifted, texts, head, levels=(1,))]
    terms = objective.loss(views, Targets(labels))
    parts = [objective.inner_loss(view, Targets(labels)) for view in views]
    assert float(terms["hita"]) == pytest.approx(float(sum(parts)))
    assert float(terms["vic"]) == pytest.approx(float(objective.loss(views[:1], Targets(labels))["vic"]))
