"""Composite: one member is that objective exactly, several are their weighted sum."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tiny_runs import furthest, make_trainer, weights
from whole_batch import CLASSES, FOREST, set_up

from hf_hierrobust.hierarchy import Forest
from hf_hierrobust.objectives import OBJECTIVES, Composite, HierRobust, Objective
from hf_hierrobust.objectives.composite import Composed

SINGLE = [name for name in OBJECTIVES.names() if not issubclass(OBJECTIVES.get(name), Composed)]
FACTS = (
    *("needs", "attack_needs", "trained_groups", "num_levels"),
    *("default_attack", "default_attack_steps", "default_text_attack"),
)


def gradients(loss, leaves):
    return torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)


@pytest.mark.parametrize("name", SINGLE)
def test_one_member_of_weight_one_is_that_objective_exactly(name):
    alone, batch = set_up(OBJECTIVES.get(name)())
    composite, _ = set_up(Composite(members={name: {}}))
    for fact in FACTS:
        assert getattr(composite, fact) == getattr(alone, fact), fact
    assert composite.nodes.fill("a {}") == alone.nodes.fill("a {}")
    for ours, theirs in zip(composite.nodes.rows, alone.nodes.rows, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    terms, expected = (o.loss([batch.view()], batch.targets()) for o in (composite, alone))
    assert list(terms) == [f"{name}/{term}" for term in expected]
    assert all(torch.equal(terms[f"{name}/{term}"], value) for term, value in expected.items())
    inner, inner_expected = (o.inner_loss(batch.view(), batch.attack_targets()) for o in (composite, alone))
    assert torch.equal(inner, inner_expected)
    pairs = ((sum(terms.values()), sum(expected.values())), (inner.sum(), inner_expected.sum()))
    for loss, loss_expected in pairs:
        for mine, other in zip(gradients(loss, batch.leaves), gradients(loss_expected, batch.leaves)):
            assert torch.equal(mine, other)


@pytest.mark.parametrize("name", ["hier_robust", "pmg_aft"])
def test_one_member_trains_as_that_objective_does(name, tiny_clip_dir, tiny_tree, tmp_path):
    after = []
    for objective in (name, Composite(members={name: {}})):
        trainer = make_trainer(
            tiny_clip_dir, tmp_path, objective=objective, tree=Forest((tiny_tree,)), eps="2/255", max_steps=2
        )
        start = weights(trainer.model)
        trainer.train()
        after.append(weights(trainer.model))
        assert furthest(start, after[-1]) > 1e-4
    assert furthest(*after) == 0


def test_members_with_nodes_of_their_own_see_those_and_are_weighed():
    """A tree's superclasses, negated prompts and nothing beyond the classes, on one forward."""
    members = {"comp_tga": {"alpha": 0.5}, "hier_robust": {}, "agft": {}, "hier_agft": {"label_weight": 0.3}}
    factors = {"comp_tga": 0.5, "hier_robust": 2.0}
    composite, batch = set_up(Composite(members=members, weights=factors))
    negated = tuple(f"This is not a photo of a {c}" for c in CLASSES)
    assert composite.nodes.names == (*CLASSES, "animal", "plant") and composite.nodes.prompts == negated
    terms, seen = composite.loss([batch.view()], batch.targets()), 0
    inner = composite.inner_loss(batch.view(), batch.attack_targets())
    expected_inner, text_gradients = 0.0, []
    for name, options in members.items():
        alone, own = set_up(OBJECTIVES.get(name)(**options))
        factor = factors.get(name, 1.0)
        expected = alone.loss([own.view()], own.targets())
        for term, value in expected.items():
            torch.testing.assert_close(terms[f"{name}/{term}"], factor * value)
            seen += 1
        expected_inner = expected_inner + factor * alone.inner_loss(own.view(), own.attack_targets())
        names = [*alone.nodes.names, *alone.nodes.prompts]
        (gradient,) = gradients(factor * sum(expected.values()), [own.texts])
        text_gradients.append(dict(zip(names, gradient)))
    assert seen == len(terms)
    torch.testing.assert_close(inner, expected_inner)
    (gradient,) = gradients(sum(terms.values()), [batch.texts])
    for text, mine in zip([*composite.nodes.names, *composite.nodes.prompts], gradient):
        parts = [g[text] for g in text_gradients if text in g]
        assert parts
        torch.testing.assert_close(mine, sum(parts))


def test_a_mean_over_the_batch_counts_once_an_image_in_the_attack():
    composite, batch = set_up(Composite(members={"hier_robust": {}, "tecoa": {}}, weights={"tecoa": 3.0}))
    inner = composite.inner_loss(batch.view(), batch.attack_targets())
    tree, flat = (part.inner_loss(batch.view(), batch.attack_targets()) for part in composite.parts.values())
    assert tree.ndim == 0 and flat.shape == inner.shape == batch.labels.shape
    torch.testing.assert_close(inner.sum(), len(batch.labels) * tree + 3 * flat.sum())


def test_members_without_an_attack_train_on_the_clean_images():
    composite, batch = set_up(Composite(members={"tecoa": {}, "clean": {}}, weights={"clean": 0.5}))
    assert "clean" in composite.needs
    targets = batch.targets()
    terms = composite.loss([batch.view()], targets)
    alone, _ = set_up(OBJECTIVES.get("clean")())
    assert torch.equal(terms["clean/ce"], 0.5 * alone.loss([targets.clean], targets)["ce"])
    assert not torch.isclose(terms["clean/ce"], 0.5 * terms["tecoa/ce"])
    tecoa, _ = set_up(OBJECTIVES.get("tecoa")())
    steering = composite.inner_loss(batch.view(), batch.attack_targets())
    assert torch.equal(steering, tecoa.inner_loss(batch.view(), batch.attack_targets()))
    text_only, _ = set_up(Composite(members={"tecoa": {}, "mmcoa": {"lambda_image": 0}}))
    assert torch.equal(text_only.inner_loss(batch.view(), batch.attack_targets()), steering)


def test_with_a_perturbation_a_level_flat_members_train_on_the_leaves_one():
    composite, batch = set_up(Composite(members={"hier_robust": {}, "pmg_aft": {}}))
    views = [batch.view("clean", levels=(1,)), batch.view(levels=(0,))]
    terms, targets = composite.loss(views, batch.targets(2)), batch.targets(2)
    own = targets._replace(attacked_reference=targets.attacked_reference[1:])
    for term, value in composite.parts["pmg_aft"].loss(views[1:], own).items():
        assert torch.equal(terms[f"pmg_aft/{term}"], value)
    for term, value in composite.parts["hier_robust"].loss(views, targets).items():
        assert torch.equal(terms[f"hier_robust/{term}"], value)
    upper = composite.inner_loss(views[0], batch.attack_targets())
    assert torch.equal(upper, composite.parts["hier_robust"].inner_loss(views[0], batch.attack_targets()))


def test_a_view_without_text_nodes_stays_one():
    """A trained text tower encodes no prompts for members that need none of them."""
    composite, batch = set_up(Composite(members={"mmcoa": {}, "advflyp": {}}))
    assert "text_nodes" not in composite.needs
    empty = {"text_features": batch.texts[:0], "text_tangent": batch.texts[:0]}
    targets = batch.targets()
    targets = targets._replace(clean=targets.clean._replace(**empty))
    full = composite.loss([batch.view()], batch.targets())
    bare = composite.loss([batch.view(**empty)], targets)
    assert full.keys() == bare.keys() and all(torch.equal(full[name], bare[name]) for name in full)


def test_needs_groups_levels_and_attacks_are_unions():
    composite, _ = set_up(Composite(members={"tecoa": {}, "hier_robust": {}, "mmcoa": {}, "pmg_aft": {}}))
    assert composite.needs == {
        "tree", "text_nodes", "captions", "attacked_captions", "clean", "attacked_reference"
    }  # fmt: skip
    expected = {"vision", "text_projection", "hier_head", "text", "logit_scale"}
    assert set(composite.trained_groups) == expected and len(composite.trained_groups) == len(expected)
    assert composite.num_levels == 2 and composite.forest is composite.parts["hier_robust"].forest
    assert composite.default_attack == "universal" and composite.default_text_attack == "bert"
    flat = Composite(members={"clean": {}, "tecoa": {}})
    assert flat.default_attack == "pgd" and flat.default_text_attack == "none"
    assert Composite(members={"clean": {}}).default_attack == "none"
    assert Composite.default_attack == "pgd", "an instance's attack is its own"
    citations = [OBJECTIVES.get(n).citation for n in ("tecoa", "mmcoa")]
    assert Composite(members={"tecoa": {}, "mmcoa": {}}).citation == "\n\n".join(citations)


@dataclass(kw_only=True)
class Recorder(Objective):
    """Remembers the nodes that calibration showed it."""

    name: ClassVar[str] = "recorder"

    def calibrate(self, view, labels):
        self.seen = (len(view.text_features), labels)


def test_calibration_reaches_every_member_with_its_own_nodes(monkeypatch):
    monkeypatch.setitem(OBJECTIVES._classes, Recorder.name, Recorder)
    composite, batch = set_up(Composite(members={"hier_robust": {}, Recorder.name: {}}))
    batch.head.reset()
    composite.calibrate(batch.view(), batch.labels)
    assert batch.head.calibrated
    count, labels = composite.parts[Recorder.name].seen
    assert count == len(CLASSES) and labels is batch.labels


def test_options_are_plain_and_complete():
    given = {"members": {"hier_robust": {"hnsa": "upper"}, "agft": None}, "weights": {"agft": 0.5}}
    composite = Composite(**given)
    options = json.loads(json.dumps(composite.options()))
    assert options["weights"] == {"hier_robust": 1.0, "agft": 0.5}
    assert options["members"]["agft"] == {"gamma": 0.4, "scale": 1.8}
    assert options["members"]["hier_robust"] == HierRobust(hnsa="upper").options()
    assert Composite(**options).options() == options


def test_composites_nest():
    inner = {"members": {"tecoa": {}}, "weights": {"tecoa": 0.5}}
    nested, batch = set_up(
        Composite(members={"composite": inner, "hier_robust": {}}, weights={"composite": 4.0})
    )
    terms = nested.loss([batch.view()], batch.targets())
    alone = OBJECTIVES.get("tecoa")()
    alone.setup(CLASSES, FOREST)
    expected = 2.0 * alone.loss([batch.view()], batch.targets())["ce"]
    torch.testing.assert_close(terms["composite/tecoa/ce"], expected)
    assert nested.forest is nested.parts["hier_robust"].forest


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": {}}, r"members=\{\} must map names"),
        ({"members": ["tecoa"]}, r"members=\['tecoa'\] must map names"),
        (
            {"members": {"agft": {"gama": 1}}},
            r"members\['agft'\]=\{'gama': 1\} must hold.*'agft': gamma, scale",
        ),
        ({"members": {"agft": 0.5}}, r"members\['agft'\]=0.5 must hold options of 'agft'"),
        ({"members": {"agft": {"gamma": -1}}}, "gamma=-1 must be a positive number"),
        ({"members": {"tecoa": {}}, "weights": {"agft": 1}}, r"weights=\{'agft': 1\}.*members are tecoa"),
        ({"members": {"tecoa": {}}, "weights": {"tecoa": 0}}, "weight of 'tecoa' is 0"),
        ({"members": {"tecoa": {}}, "weights": {"tecoa": "1"}}, "weight of 'tecoa' is '1'"),
        (
            {"members": {"hier_robust": {"curvature": 2.0}, "hier_agft": {}}},
            r"'hier_robust' has curvature=2\.0 and 'hier_agft' has 1\.0.*one hyperbolic head",
        ),
    ],
    ids=str,
)
def test_wrong_members_and_weights_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Composite(**options)


def test_an_unknown_member_is_refused_with_the_nearest_name():
    with pytest.raises(KeyError, match=r"tecao.*did you mean 'tecoa'"):
        Composite(members={"tecao": {}})
