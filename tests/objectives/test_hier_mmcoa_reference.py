"""Hierarchical MMCoA: the documented composite of a tree's alignment and MMCoA."""

from __future__ import annotations

import json

import pytest
import torch
from whole_batch import CLASSES, set_up

from hf_hierrobust.objectives import Composite, HierMMCoA, HierRobust, MMCoA


@pytest.mark.parametrize("alignment", ["hier_robust", "hier_agft"])
def test_it_is_the_weighted_sum_of_its_two_members(alignment):
    ours, batch = set_up(
        HierMMCoA(
            alignment=alignment,
            alignment_args={"hnsa": "upper"},
            mmcoa_args={"lambda_text": 0.2},
            alignment_weight=0.5,
            mmcoa_weight=2.0,
        )
    )
    composite, _ = set_up(
        Composite(
            members={alignment: {"hnsa": "upper"}, "mmcoa": {"lambda_text": 0.2}},
            weights={alignment: 0.5, "mmcoa": 2.0},
        )
    )
    terms, expected = (o.loss([batch.view()], batch.targets()) for o in (ours, composite))
    assert terms.keys() == expected.keys() and {"mmcoa/attacked_images", "mmcoa/attacked_texts"} < set(terms)
    assert all(torch.equal(terms[name], expected[name]) for name in terms)
    inner, inner_expected = (o.inner_loss(batch.view(), batch.attack_targets()) for o in (ours, composite))
    assert torch.equal(inner, inner_expected)
    (gradient,) = torch.autograd.grad(sum(terms.values()), batch.texts)
    assert float(gradient.abs().max()) > 1e-3, "prompts of the tree must train the text tower"


def test_both_encoders_train_on_nodes_and_captions():
    objective, _ = set_up(HierMMCoA())
    assert {"vision", "text", "text_projection", "logit_scale", "hier_head"} == set(objective.trained_groups)
    assert {"tree", "text_nodes", "captions", "attacked_captions", "clean"} == objective.needs
    assert objective.default_attack == "universal" and objective.default_text_attack == "bert"
    assert objective.num_levels == 2 and objective.nodes.names == (*CLASSES, "animal", "plant")
    agft = HierMMCoA(alignment="hier_agft")
    agft.setup(CLASSES, objective.forest)
    assert agft.needs == objective.needs | {"reference"} and "text" in agft.trained_groups


def test_defaults_and_options():
    options = json.loads(json.dumps(HierMMCoA().options()))
    assert (
        options["alignment"] == "hier_robust" and options["alignment_weight"] == options["mmcoa_weight"] == 1
    )
    assert options["alignment_args"] == HierRobust().options() and options["mmcoa_args"] == MMCoA().options()
    assert HierMMCoA(**options).options() == options


def test_both_papers_are_cited_and_neither_is_claimed():
    assert HierRobust.citation in HierMMCoA().citation and MMCoA.citation in HierMMCoA().citation
    assert not HierMMCoA.paper_id
    assert "2604.18867" in HierMMCoA.__doc__ and "2404.19287" in HierMMCoA.__doc__


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alignment": "agft"}, "alignment='agft' is unknown: choose one of hier_robust, hier_agft"),
        (
            {"alignment_args": {"gamma": 1}},
            r"alignment_args=\{'gamma': 1\} must hold options of 'hier_robust'",
        ),
        ({"mmcoa_args": {"lambda_image": -1}}, "lambda_image=-1"),
        ({"mmcoa_weight": 0}, "weight of 'mmcoa' is 0, but must be a positive number"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        HierMMCoA(**options)


def test_a_tree_is_required():
    with pytest.raises(ValueError, match="needs a class tree"):
        HierMMCoA().setup(CLASSES)
