"""Hierarchical AGFT against its equations, and the methods it joins as its limits."""

from __future__ import annotations

import pytest
import torch
from flat_batch import assert_same
from hier_reference import cosine, distance, exp0
from torch import Tensor

from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.modeling.hier_head import HierHead
from hf_hierrobust.objectives import AGFT, FARE, HierAGFT, HierRobust, Reference, Targets, View
from hf_hierrobust.objectives.hier_agft import soft_cross_entropy

CLASSES = ("cat", "dog", "wolf", "rose", "rock")
# Three levels; rock is padded twice.
KINDS = {
    "cat": ["pet", "animal"],
    "dog": ["pet", "animal"],
    "wolf": ["wild", "animal"],
    "rose": ["rose", "plant"],
    "rock": ["rock", "rock"],
}
PLACES = {c: ["indoor" if c in ("cat", "dog", "rose") else "outdoor"] for c in CLASSES}
FLAT = {c: [] for c in CLASSES}
DIM, SCALE, KAPPA, VIC = 6, 5.0, 2.5, 1.5


def forest_of(*trees) -> Forest:
    return Forest(tuple(LabelTree.from_paths(t, name=f"t{i}") for i, t in enumerate(trees)))


class Batch:
    """Tangents of attacked images and text nodes, which serve as embeddings too, and the original's."""

    def __init__(self, objective, count: int = 4):
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return 0.8 * torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.names = objective.nodes.names
        self.images, self.original, texts = draw(count, DIM), draw(count, DIM), draw(20, DIM)
        self.original_texts, self.labels = (
            draw(20, DIM)[: len(self.names)],
            torch.tensor([0, 3, 4, 0])[:count],
        )
        self.texts = texts[: len(self.names)]
        for tensor in (self.images, self.texts):
            tensor.requires_grad_()
        self.head = HierHead(DIM)
        self.head.kappa.fill_(KAPPA)
        self.head.vic_radius.fill_(VIC)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.images, self.texts]

    def view(self, **changes) -> View:
        scale = torch.tensor(SCALE, dtype=torch.float64)
        return View(self.images, self.texts, self.images, self.texts, scale, self.head)._replace(**changes)

    def targets(self) -> Targets:
        scale = torch.tensor(SCALE, dtype=torch.float64)
        return Targets(self.labels, reference=Reference(self.original, self.original_texts, scale))


def make(options, *trees, cls=HierAGFT):
    objective = cls(**options)
    objective.setup(CLASSES, forest_of(*trees))
    return objective, Batch(objective)


def sigma(image: Tensor, text: Tensor, score: str, vic_factor: float) -> Tensor:
    if score == "cosine":
        return SCALE * cosine(image, text)
    d = distance(exp0(image, 1.0), exp0(text, 1.0), 1.0)
    return -KAPPA * d if score == "hyperbolic" else -KAPPA * d * d / (2 * VIC / vic_factor)


def reference(
    batch: Batch,
    *trees,
    gamma=1.0,
    scale=1.0,
    label_weight=0.5,
    embedding_weight=3.0,
    hnsa="none",
    score="cosine",
    level_weights=None,
    vic_factor=0.9,
) -> dict[str, Tensor]:
    """One image, one tree, one level, one node at a time."""
    texts, total, moved = dict(zip(batch.names, batch.texts)), 0.0, 0.0
    for b in range(len(batch.images)):

        def score_of(node: str, image=batch.images[b]) -> Tensor:
            return scale * sigma(image, texts[node], score, vic_factor)

        logits = [
            gamma * scale * SCALE * cosine(batch.original[b], t) for t in batch.original_texts[: len(CLASSES)]
        ]
        p = {c: (1 - label_weight) * float(v) for c, v in zip(CLASSES, torch.stack(logits).softmax(0))}
        p[CLASSES[int(batch.labels[b])]] += label_weight
        new, old = batch.images[b], batch.original[b]
        moved = moved + sum((new[d] - old[d]) ** 2 for d in range(DIM)) / sum(x**2 for x in old)
        for tree in trees:
            chains = {leaf: [leaf, *path] for leaf, path in tree.items()}
            count = len(next(iter(chains.values())))
            for level in range(count):
                weight = 1 - level / count if level_weights is None else level_weights[level]
                here = sorted({chain[level] for chain in chains.values()})
                for v in here:
                    rivals = [score_of(w) for w in here]
                    for other, wanted in ((level - 1, ("both", "lower")), (level + 1, ("both", "upper"))):
                        if 0 <= other < count and hnsa in wanted:
                            joined = {chain[other] for chain in chains.values() if chain[level] == v}
                            everyone = sorted({chain[other] for chain in chains.values()})
                            rivals += [score_of(w) for w in everyone if w not in joined]
                    log_p = score_of(v) - torch.logsumexp(torch.stack(rivals), 0)
                    mass = sum(p[leaf] for leaf in CLASSES if chains[leaf][level] == v)
                    total = total - weight * mass * log_p
    terms = {"alignment": total, "embedding": embedding_weight * moved}
    return {name: term / len(batch.images) for name, term in terms.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gamma": 0.4, "scale": 1.8},
        {"label_weight": 0.0, "gamma": 0.7, "scale": 1.1},
        {"label_weight": 1.0, "hnsa": "upper"},
        {"embedding_weight": 0.3},
        {"hnsa": "lower", "score": "squared", "vic_factor": 0.75},  # a slope that fp32 buffers hold
        {"hnsa": "both", "score": "hyperbolic", "label_weight": 0.2},
        {"hnsa": "both", "level_weights": (0.3, 2.0, 1.1)},
    ],
    ids=lambda o: ",".join(map(str, o.values())) or "defaults",
)
def test_loss_and_gradient_equal_the_reference(options):
    trees = [KINDS] if "level_weights" in options else [KINDS, PLACES]
    objective, batch = make(options, *trees)
    terms = objective.loss([batch.view()], batch.targets())
    expected = reference(batch, *trees, **options)
    assert list(terms) == list(expected)
    for name, term in terms.items():
        assert_same(term, expected[name], batch.leaves)


def test_the_attack_maximises_the_same_loss_image_by_image():
    objective, batch = make({"hnsa": "both"}, KINDS)
    inner = objective.inner_loss(batch.view(), batch.targets())
    assert inner.shape == batch.labels.shape
    terms = objective.loss([batch.view()], batch.targets())
    torch.testing.assert_close(inner.mean(), terms["alignment"] + terms["embedding"])
    one = batch.targets()
    alone = objective.inner_loss(
        batch.view(image_features=batch.images[1:2], image_tangent=batch.images[1:2]),
        Targets(one.labels[1:2], one.reference._replace(image_features=batch.original[1:2])),
    )
    torch.testing.assert_close(alone, inner[1:2])


def test_a_flat_tree_without_labels_and_anchor_is_agft():
    agft = AGFT()
    objective, batch = make({"label_weight": 0.0, "embedding_weight": 0.0} | agft.options(), FLAT)
    agft.setup(CLASSES)
    terms = objective.loss([batch.view()], batch.targets())
    assert list(terms) == ["alignment"]
    expected = agft.loss([batch.view()], batch.targets())["alignment"]
    assert_same(terms["alignment"], expected, batch.leaves)


def test_the_anchor_is_fares_loss_in_units_of_the_originals_norm():
    objective, batch = make({"embedding_weight": 2.0}, KINDS)
    batch.original = 3 * torch.nn.functional.normalize(batch.original, dim=-1)
    term = objective.loss([batch.view()], batch.targets())["embedding"]
    fare = FARE().loss([batch.view()], batch.targets())["embedding"]
    assert_same(term, 2 / 9 * fare, batch.leaves)


@pytest.mark.parametrize("hnsa", ["both", "none"])
@pytest.mark.parametrize("score", ["cosine", "hyperbolic"])
def test_labels_alone_are_hier_robust_without_midpoints_and_regularisers(score, hnsa):
    shared = {"score": score, "hnsa": hnsa}
    objective, batch = make(shared | {"label_weight": 1, "embedding_weight": 0}, KINDS, PLACES)
    options = shared | {"pooling": "none", "lambda_vic": 0, "lambda_gap": 0, "kappa_scale": 1}
    hier_robust, _ = make(options, KINDS, PLACES, cls=HierRobust)
    targets = Targets(batch.labels)  # no original model
    loss = objective.loss([batch.view()], targets)["alignment"]
    assert_same(loss, hier_robust.loss([batch.view()], targets)["hita"], batch.leaves)


def test_targets_are_the_originals_and_the_labels_on_leaves():
    objective, batch = make({"label_weight": 0.25}, KINDS)
    mixed = objective.leaf_targets(batch.targets())
    torch.testing.assert_close(mixed.sum(1), torch.ones(4, dtype=torch.float64))
    plain, _ = make({"label_weight": 0.0}, KINDS)
    original = plain.leaf_targets(batch.targets())
    rows = torch.arange(4)
    torch.testing.assert_close((mixed - 0.75 * original)[rows, batch.labels], torch.full((4,), 0.25).double())


def test_levels_of_a_view_and_several_views_add_up():
    objective, batch = make({"hnsa": "both", "embedding_weight": 0.0}, KINDS)
    targets = batch.targets()
    whole = objective.inner_loss(batch.view(), targets)
    parts = [batch.view(levels=levels) for levels in ((0,), (1, 2))]
    torch.testing.assert_close(sum(objective.inner_loss(view, targets) for view in parts), whole)
    torch.testing.assert_close(objective.loss(parts, targets)["alignment"], whole.mean())


def test_views_of_single_levels_count_the_anchor_once():
    objective, batch = make({}, KINDS)
    targets = batch.targets()
    whole = objective.loss([batch.view()], targets)
    parts = [batch.view(levels=levels) for levels in ((0,), (1,), (2,))]
    for name, value in objective.loss(parts, targets).items():
        torch.testing.assert_close(value, whole[name])
    upper = sum(objective.inner_loss(view, targets) for view in parts[1:])
    leaves = objective.inner_loss(parts[0], targets)
    torch.testing.assert_close(leaves + upper, objective.inner_loss(batch.view(), targets))


def test_the_text_perturbation_acts_on_the_tangents():
    objective, batch = make({}, KINDS)
    delta = 0.3 * torch.ones(1, DIM, dtype=torch.float64)
    moved = batch.view(text_tangent=batch.texts + delta)
    perturbed = objective.inner_loss(batch.view(text_delta=delta), batch.targets())
    torch.testing.assert_close(perturbed, objective.inner_loss(moved, batch.targets()))
    assert (perturbed - objective.inner_loss(batch.view(), batch.targets())).abs().max() > 1e-2


@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_soft_cross_entropy_is_the_expectation_over_masked_softmaxes(spread):
    generator = torch.Generator().manual_seed(3)
    scores = spread * torch.randn(3, 6, generator=generator, dtype=torch.float64)
    scores.requires_grad_()
    target = torch.rand(3, 4, generator=generator, dtype=torch.float64).softmax(1)
    # the last node is joined to both further ones: it has no extra negative
    joined = torch.tensor([[True, False], [False, True], [False, False], [True, True]])
    loss = soft_cross_entropy(scores, target, joined)
    expected = 0.0
    for v in range(4):
        kept = torch.cat([torch.ones(4, dtype=torch.bool), ~joined[v]])
        log_p = scores[:, v] - scores[:, kept].logsumexp(1)
        expected = expected - target[:, v] * log_p
    assert_same(loss.sum(), expected.sum(), [scores])


def test_a_joined_node_far_above_its_level_is_no_negative_in_fp32():
    scores = torch.tensor([[-110.0, -120.0, 0.0, -300.0]], requires_grad=True)
    joined = torch.tensor([[True, False], [True, False]])
    loss = soft_cross_entropy(scores, torch.tensor([[1.0, 0.0]]), joined)
    exact = scores.detach().double().requires_grad_()
    expected = exact[:, [0, 1, 3]].logsumexp(1) - exact[:, 0]
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(loss.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=1e-5)


def test_what_it_needs_and_what_trains():
    assert make({}, KINDS)[0].needs == {"tree", "text_nodes", "reference"}
    assert "reference" in make({"label_weight": 1}, KINDS)[0].needs
    assert make({"label_weight": 1, "embedding_weight": 0}, KINDS)[0].needs == {"tree", "text_nodes"}
    assert HierAGFT().trained_groups == ("vision",)
    assert HierAGFT(train_text_projection=True).trained_groups == ("vision", "text_projection")
    assert HierAGFT(score="hyperbolic").trained_groups == ("vision", "hier_head")
    assert not HierAGFT.paper_id
    for source in (HierRobust, AGFT, FARE):
        assert source.paper_id in HierAGFT.__doc__ and source.citation in HierAGFT().citation


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma": 0}, "gamma=0 must be a positive number"),
        ({"scale": "1.8"}, "scale='1.8' must be a positive number"),
        ({"label_weight": -0.1}, "label_weight=-0.1 must be a number, at least 0"),
        ({"label_weight": 1.5}, "label_weight=1.5 must not exceed 1"),
        ({"embedding_weight": -1}, "embedding_weight=-1 must be a number, at least 0"),
        ({"score": "dot"}, "score='dot' is unknown: choose one of hyperbolic"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        HierAGFT(**options)


def test_a_tree_is_required():
    with pytest.raises(ValueError, match="objective 'hier_agft' needs a class tree"):
        HierAGFT().setup(CLASSES)
