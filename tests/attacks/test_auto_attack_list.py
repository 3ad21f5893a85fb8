"""AutoAttack as a list of attacks: its versions, its members, what it refuses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from hf_hierrobust.attacks import (
    APGD,
    ATTACKS,
    FAB,
    PGD,
    AutoAttack,
    Square,
    TargetedAPGD,
)
from hf_hierrobust.attacks.image.auto_attack import MEMBERS
from hf_hierrobust.classifiers import Classifier


class TestList:
    def test_versions_are_those_of_the_paper(self):
        standard = AutoAttack(eps="4/255")
        assert [a.describe()["name"] for a in standard] == ["apgd", "apgd-t", "fab-t", "square"]
        assert all(a.threat.eps == 4 / 255 for a in standard)
        first, second, third, *rest = AutoAttack(norm="l2", eps=0.5, version="plus")
        assert (first.loss, first.restarts, second.loss, second.restarts) == ("ce", 5, "dlr", 5)
        assert third.restarts == 5 and [a.name for a in rest] == ["square", "apgd-t", "fab-t"]
        assert [(a.loss, a.eot, a.restarts) for a in AutoAttack(version="rand")] == [
            ("ce", 20, 1),
            ("dlr", 20, 1),
        ]
        assert {name for name, _ in MEMBERS.values()} <= {*ATTACKS.names()}

    @pytest.mark.parametrize(
        ("attacks", "options", "words"),
        [
            (None, {"version": "custom"}, "version='custom' needs attacks"),
            (["square"], {"version": "standard"}, "version='standard' has its own attacks"),
            (["apgd-ce", len], {}, "attacks holds <built-in function len>: give names"),
            ([("apgd",)], {}, "attacks holds .*: give names"),
            ("apgd-ce, squar", {}, "unknown attack 'squar'.*did you mean 'square'"),
            (None, {"seed": 1.5}, "seed=1.5 must be a whole number"),
            (None, {"version": "best"}, "version='best' is unknown: choose standard, plus, rand or custom"),
            (["squares"], {}, "unknown attack 'squares'.*did you mean 'square'"),
            ([], {}, "attacks is empty"),
            (None, {"eps": "8"}, "did you mean 8/255"),
            ([PGD(eps="8/255"), PGD(eps=0.5, norm="l2")], {}, "need one budget.*0.5.*8/255"),
            ([PGD(eps="8/255"), PGD(eps="8/255", space="model")], {}, "need one budget.*model.*native"),
            ([PGD(eps="8/255"), "square"], {}, "need one budget, got .*1/255.*8/255.*give eps"),
            ([PGD(norm="l2", eps=0.5), "square"], {"eps": 0.5}, "need one budget.*give eps, norm or space"),
        ],
    )
    def test_what_makes_no_list_is_refused(self, attacks, options, words):
        with pytest.raises((ValueError, TypeError), match=words):
            AutoAttack(attacks, **options)

    def test_instances_keep_their_budget_where_none_is_given(self):
        mine = [PGD(eps=0.5, norm="l2", space="model"), PGD(eps=0.5, norm="l2", space="model", loss="margin")]
        assert list(AutoAttack(mine)) == mine
        (large,) = AutoAttack(mine[:1], eps=2)
        assert (large.eps, large.norm, large.space) == (2, "l2", "model")
        copied = copy.deepcopy(AutoAttack(mine, seed=3))
        assert list(copied) == mine and copied.seed == 3
        assert [a.threat.eps for a in AutoAttack("apgd-ce, square")] == [1 / 255] * 2

    def test_zero_gradients_are_a_share_of_all_attacked_images(self):
        """The one of eight images that the first attack leaves has no gradient at all."""

        def net(x):
            z = (x.mean((1, 2, 3)) - 0.5).clamp(max=0.3)
            return torch.stack([-z, z], 1)

        pixels = torch.full((8, 3, 2, 2), 0.51)
        pixels[0] = 0.9
        labels = torch.ones(8, dtype=torch.long)
        attack = AutoAttack([PGD(num_steps=1, random_start="zero", loss=loss) for loss in ("ce", "margin")])
        result = AutoAttack(attack, eps=0.05)(net, pixels, labels)
        assert result.robust_correct.tolist() == [True] + [False] * 7
        assert result.zero_gradient == pytest.approx(1 / 8)

    def test_names_in_one_text_and_any_whole_seed(self):
        attack = AutoAttack("apgd-ce, square", seed=np.int64(3))
        assert [one.name for one in attack] == ["apgd", "square"] and attack.version == "custom"

    def test_it_is_the_worst_case_in_five_lines(self, wide, seeded):
        net, pixels, labels = wide
        mean, std = [0.2] * 3, [0.5] * 3
        normalised = Classifier(net, mean=mean, std=std)
        with torch.no_grad():
            labels = normalised(pixels).argmax(1)
        attack = AutoAttack([APGD(num_steps=20), Square(num_queries=250)], eps=1e-2, seed=3)
        result = attack(normalised, pixels, labels)
        alone = [one(normalised, pixels, labels, generator=seeded(3)) for one in attack]
        assert torch.equal(result.robust_correct & alone[0].robust_correct, result.robust_correct)
        assert 0 < result.robust_correct.sum() <= alone[0].robust_correct.sum() < len(pixels)
        with torch.no_grad():
            assert torch.equal(normalised(result.adversarial).argmax(1) == labels, result.robust_correct)
        assert result.cost.forwards > alone[0].cost.forwards

    def test_the_official_list_gives_the_same(self, wide):
        theirs = pytest.importorskip("pyautoattack")
        net, pixels, labels = wide[0], wide[1][:12], wide[2][:12]
        reference = theirs.AutoAttack(
            net, attacks=["apgd-ce", "apgd-t"], version="custom", eps=3 / 255, norm="Linf", seed=0
        )
        reference.apgd.n_restarts = 1
        with torch.random.fork_rng():
            expected, _ = reference.run_standard_evaluation(pixels, labels)
        found = AutoAttack(["apgd-ce", "apgd-t"], eps=3 / 255, seed=0)(net, pixels, labels)
        with torch.no_grad():
            assert torch.equal(net(expected).argmax(1) == labels, found.robust_correct)
        assert 0 < found.robust_correct.sum() < 12


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: APGD(num_steps=0), "num_steps=0 must be an integer"),
        (lambda: APGD(eot=0), "eot=0 must be an integer"),
        (lambda: APGD(rho=2), r"rho=2 must be a number in \[0, 1\]"),
        (lambda: APGD(loss="dlr-t"), "loss='dlr-t' is unknown"),
        (lambda: TargetedAPGD(loss="ce"), "loss='ce' has no effect"),
        (lambda: TargetedAPGD(num_targets=0), "num_targets=0 must be an integer"),
        (lambda: FAB(beta=1.5), r"beta=1.5 must be a number in \[0, 1\]"),
        (lambda: FAB(eta=0), "eta=0 must be a positive number"),
        (lambda: Square(p_init=-1), r"p_init=-1 must be a number in \[0, 1\]"),
        (lambda: Square(loss="dlr"), "loss='dlr' is unknown: choose one of margin, ce"),
        (lambda: Square(skip="no"), "skip='no' must be true or false"),
    ],
)
def test_bad_options_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
