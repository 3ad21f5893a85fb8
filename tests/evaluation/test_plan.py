"""Attack plans: what names mean, which options they take, how records describe them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tiny_data import CLASSES, make_images

from hf_hierrobust.attacks import ATTACKS, PGD, Attack, AutoAttack
from hf_hierrobust.data import ClassSet
from hf_hierrobust.evaluation import AttackPlan, EvaluationSet, attack_classifier, build_attacks
from hf_hierrobust.evaluation.plan import attack_labels, describe_attacks


@dataclass(kw_only=True)
class Greyer(Attack):
    """An attack from outside the package: moves every pixel towards grey."""

    name: ClassVar[str] = "greyer"

    def run(self, victim, pixels, labels, generator):
        return pixels + (0.5 - pixels).clamp(-self.eps, self.eps)


def test_kind03_the_default_is_cross_entropy_then_margin():
    first, second = build_attacks("pgd")
    assert (first.loss, second.loss) == ("ce", "margin")
    for attack in (first, second):
        constants = attack.describe()
        assert (constants["num_steps"], constants["step_size"]) == (20, pytest.approx(1 / 255 / 4))
    assert [a.loss for a in build_attacks("pgd-margin, pgd-ce")] == ["margin", "ce"]


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("pgd-20", ["pgd ce"]),
        ("apgd-ce+t", ["apgd ce", "apgd-t dlr"]),
        ("autoattack", ["apgd ce", "apgd-t dlr", "fab-t -", "square margin"]),
        ("autoattack-plus", ["apgd ce", "apgd dlr", "fab -", "square margin", "apgd-t dlr", "fab-t -"]),
        ("autoattack-rand", ["apgd ce", "apgd dlr"]),
    ],
)
def test_suites_are_lists_of_registered_attacks(name, members):
    attacks = build_attacks(name, eps="4/255", norm="l2", space="model")
    assert [f"{a.name} {getattr(a, 'loss', '-')}" for a in attacks] == members
    assert {str(a.threat) for a in attacks} == {"l2:0.0156863"}
    labels = attack_labels(attacks)
    assert len({*labels}) == len(labels)
    assert describe_attacks(attacks)["eps"] == 4 / 255


def test_options_go_to_the_attacks_that_have_them():
    first, second, third, square = build_attacks("autoattack", num_steps=7, num_queries=9, num_targets=2)
    assert (first.num_steps, second.num_steps, third.num_steps, square.num_queries) == (7, 7, 7, 9)
    assert second.num_targets == third.num_targets == 2
    with pytest.raises(ValueError, match=r"has no option steps; it has .*num_queries, "):
        build_attacks("autoattack", steps=7)


def test_a_list_of_attacks_is_taken_as_it_is():
    mine = AutoAttack(["square", "apgd-ce"], eps="2/255")
    assert build_attacks(mine) == tuple(mine)
    assert [a.eps for a in build_attacks(mine, eps="1/255")] == [1 / 255] * 2


def test_a_seed_that_the_evaluations_own_would_replace_is_refused():
    """Every one of these draws random starts from the seed that records state."""
    mine = AutoAttack(["apgd-ce"], eps="2/255", seed=0)
    for take in (
        build_attacks,
        AttackPlan.of,
        lambda attacks: AttackPlan(budgets=(attacks,)),
        lambda attacks: attack_classifier(torch.nn.Identity(), [], attacks),
    ):
        with pytest.raises(ValueError, match=r"AutoAttack\(seed=0\) has no effect here: .* leave it out"):
            take(mine)


def test_budgets_and_options_reach_named_attacks():
    plan = AttackPlan.of("pgd", "1/255, 4/255", space="model", num_steps=3, restarts=2)
    assert [round(255 * one[0].eps) for one in plan.budgets] == [1, 4] and plan.spaces() == ["model"]
    assert all(a.num_steps == 3 and a.restarts == 2 for one in plan.budgets for a in one)


def test_a_given_budget_replaces_an_instances_own():
    mine = Greyer(eps="8/255")
    assert build_attacks(mine) == (mine,)
    (plan,) = AttackPlan.of(mine, "2/255").budgets
    assert plan == (replace(mine, eps=2 / 255),) and mine.eps == 8 / 255
    both = build_attacks([mine, "pgd-ce"], eps="2/255", norm="linf")
    assert [a.threat for a in both] == [plan[0].threat] * 2


@pytest.mark.parametrize(
    ("spec", "options", "error", "words"),
    [
        ("pgb", {}, ValueError, "attack='pgb' is unknown.*did you mean 'pgd'"),
        ("", {}, ValueError, "names no attack"),
        ([], {}, ValueError, "names no attack"),
        (PGD, {}, TypeError, "give a name .*an Attack, or a list"),
        (7, {}, TypeError, "attack=7 is a int"),
        ("pgd", {"steps": 3}, ValueError, "attack 'pgd' has no option steps; it has .*num_steps"),
        ("pgd", {"loss": "ce"}, ValueError, "attack 'pgd' has no option loss"),
        ("pgd", {"eps": "8"}, ValueError, "did you mean 8/255"),
        (Greyer(), {"num_steps": 3}, ValueError, "num_steps: options of named attacks"),
        ([Greyer(eps=0.1), "pgd"], {}, ValueError, "need one budget.*give eps"),
    ],
    ids=str,
)
def test_what_makes_no_plan_is_refused(spec, options, error, words):
    with pytest.raises(error, match=words):
        build_attacks(spec, **options)


@pytest.mark.parametrize("eps", [[], ()])
def test_no_budget_is_named_as_the_caller_calls_it(eps):
    with pytest.raises(ValueError, match=r"eps=[\[(][\])] names no budget: give at least one"):
        AttackPlan.of("pgd", eps)


def test_options_that_an_attack_cannot_do_without_are_named(monkeypatch):
    @dataclass(kw_only=True)
    class Guided(Greyer):
        name: ClassVar[str] = "guided"
        guide: str

    monkeypatch.setitem(ATTACKS._classes, "guided", Guided)
    with pytest.raises(ValueError, match="attack 'guided' needs guide"):
        build_attacks("guided")
    assert build_attacks("guided", guide="north")[0].guide == "north"


def test_records_describe_the_worst_case():
    pgd = build_attacks("pgd", eps="4/255", num_steps=5)
    joined = describe_attacks(pgd)
    assert joined["loss"] == "ce+margin" and joined["name"] == "pgd" and "attacks" not in joined
    assert attack_labels(pgd) == ["ce", "margin"]
    mixed = build_attacks(["pgd", Greyer()], eps="4/255")
    described = describe_attacks(mixed)
    assert described["name"] == "pgd+greyer" and described["eps"] == 4 / 255 and "loss" not in described
    assert [one["name"] for one in described["attacks"]] == ["pgd", "pgd", "greyer"]
    assert attack_labels(mixed) == ["pgd_ce", "pgd_margin", "greyer"]
    assert attack_labels([Greyer(), Greyer()]) == ["greyer_1", "greyer_2"]
    assert attack_labels(build_attacks("pgd-ce")) == ["ce"]


def test_sets_that_cannot_be_measured_are_refused():
    classes = ClassSet.from_names(CLASSES)
    images = make_images(4)
    with pytest.raises(ValueError, match="'four' have no labels"):
        EvaluationSet(name="four", dataset=images.remove_columns("label"), class_set=classes)
    with pytest.raises(TypeError, match="'four' is a stream"):
        EvaluationSet(name="four", dataset=images.to_iterable_dataset(), class_set=classes)
    with pytest.raises(ValueError, match="num_samples=0"):
        EvaluationSet(name="four", dataset=images, class_set=classes, num_samples=0)
