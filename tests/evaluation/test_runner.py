"""Robust evaluation: worst case over attacks, the classifiers of each level, records with their base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from hf_hierrobust.attacks import PGD, Attack, LastIterates, NanError
from hf_hierrobust.evaluation import attack_classifier
from hf_hierrobust.evaluation.jobs import Predictions
from hf_hierrobust.evaluation.runner import Job, run_jobs

EPS = 8 / 255


class Brightness(nn.Module):
    """Class 1 if the image is brighter than 0.5, with the distance to it as margin."""

    def __init__(self, sharpness: float = 10.0):
        super().__init__()
        self.sharpness = sharpness

    def forward(self, pixels):
        z = self.sharpness * (pixels.flatten(1).mean(1) - 0.5)
        return torch.stack([-z, z], dim=1)


def grey_batches(*levels: list[float]) -> list[dict]:
    """Batches of grey images with their right labels."""
    return [
        {
            "pixels": torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone(),
            "labels": (torch.tensor(values) > 0.5).long(),
        }
        for values in levels
    ]


def pgd(**options) -> PGD:
    return PGD(**{"eps": EPS, "num_steps": 3, "step_size": EPS, "random_start": "zero", **options})


@dataclass(kw_only=True)
class OnlyDark(PGD):
    """An attack that succeeds on images darker than a bound, and notes what it was asked."""

    name: ClassVar[str] = "only_dark"
    eps: float = 0.99
    bound: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        self.asked = []

    def run(self, victim, pixels, labels, generator):
        self.asked.append(len(pixels))
        dark = pixels.flatten(1).mean(1) < self.bound
        delta = torch.zeros_like(pixels, requires_grad=True)
        victim.gradient(0 * delta.flatten(1).sum(1), delta)
        return torch.where(dark.view(-1, 1, 1, 1), 1 - pixels, pixels)


def test_images_fall_exactly_within_eps_of_the_boundary():
    batches = grey_batches([0.1, 0.49, 0.51], [0.9, 0.5 + EPS + 0.01])
    batches[1]["labels"][0] = 0  # a mistake on the clean image
    outcome = attack_classifier(Brightness(), batches, [pgd()])
    assert outcome.clean.tolist() == [True, True, True, False, True]
    assert outcome.robust.tolist() == [True, False, False, False, True]
    assert outcome.zero_gradient == (0,) and outcome.seconds >= 0


def test_the_worst_case_counts_and_later_attacks_see_survivors():
    batches = grey_batches([0.05, 0.3, 0.51, 0.7, 0.95])
    first, second = OnlyDark(bound=0.2), OnlyDark(bound=0.4)
    both = attack_classifier(Brightness(), batches, [first, pgd(), second])
    assert both.robust.tolist() == [False, False, False, True, True]
    assert first.asked == [5] and second.asked == [3]  # 0.05 fell to the first, 0.51 to PGD
    singles = [attack_classifier(Brightness(), batches, [a]).robust for a in (first, pgd(), second)]
    assert torch.equal(both.robust, singles[0] & singles[1] & singles[2])
    assert both.zero_gradient == (1, 0, 1)
    assert both.attacked == (1, 0.8, 0.6) and both.after == (0.8, 0.6, 0.4)


def test_no_attack_runs_without_survivors():
    attack = OnlyDark(bound=2.0, eps=0.99)
    never = OnlyDark()
    outcome = attack_classifier(Brightness(), grey_batches([0.1, 0.9]), [attack, never])
    assert not outcome.robust.any() and never.asked == []


def test_the_classifier_judges_what_the_search_model_proposes():
    """A search model that sees errors everywhere breaks nothing by itself."""

    class Pessimist(Brightness):
        def forward(self, pixels):
            return super().forward(pixels).flip(1)

    batches = grey_batches([0.1, 0.9])
    outcome = attack_classifier(Brightness(), batches, [pgd()], search=Pessimist())
    assert outcome.robust.all()
    # and one that steers well is used: the judge alone gives no gradient
    flat = Brightness()
    stepped = lambda x: flat(x).sign()  # noqa: E731
    near = grey_batches([0.49, 0.9])
    alone = attack_classifier(stepped, near, [pgd()])
    assert alone.robust.tolist() == [True, True] and alone.zero_gradient == (1,)
    helped = attack_classifier(stepped, near, [pgd()], search=flat)
    assert helped.robust.tolist() == [False, True] and helped.zero_gradient == (0,)


def test_labels_may_be_mapped_to_classes():
    batches = grey_batches([0.1, 0.9])
    leaves = [{"pixels": b["pixels"], "labels": torch.tensor([2, 0])} for b in batches]
    outcome = attack_classifier(Brightness(), leaves, [pgd()], to_class=torch.tensor([1, 1, 0]))
    assert outcome.clean.all() and outcome.robust.all()


def test_random_starts_follow_the_seed_alone():
    batches = grey_batches([0.47, 0.48, 0.52], [0.53, 0.475])
    weak = [PGD(eps=EPS, num_steps=1, step_size=1e-6)]
    seen = []

    class Spy(Brightness):
        def forward(self, pixels):
            seen.append(pixels.detach().clone())
            return super().forward(pixels)

    def starts(seed):
        seen.clear()
        attack_classifier(Spy(), batches, weak, seed=seed)
        return torch.cat([p for p in seen if len(p) > 0])

    state = torch.get_rng_state()
    first = starts(0)
    torch.rand(7)
    assert torch.equal(first, starts(0)) and not torch.equal(first, starts(1))
    torch.set_rng_state(state)
    starts(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_models_are_judged_in_evaluation_mode_and_given_back_as_they_were():
    model = nn.Sequential(nn.Dropout(0.9), Brightness()).train()
    outcome = attack_classifier(model, grey_batches([0.45] * 20 + [0.55] * 20), [pgd()])
    assert outcome.clean.all() and model.training and model[0].training


def test_there_must_be_something_to_evaluate():
    with pytest.raises(ValueError, match="batches is empty"):
        attack_classifier(Brightness(), [], [pgd()])


@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_kind07_nan_logits_of_any_image_are_an_error(right):
    """Also of an image that would count as wrong and that no attack ever sees."""

    class Broken(Brightness):
        def forward(self, pixels):
            logits = super().forward(pixels)
            return torch.where((pixels.flatten(1).mean(1) > 0.85)[:, None], torch.nan, logits)

    batches = grey_batches([0.1, 0.9])
    # arg-max over NaN answers 0
    batches[0]["labels"][1] = 0 if right else 1
    with pytest.raises(NanError, match="NaN for 1 of 2 images, first for image 1"):
        attack_classifier(Broken(), batches, [pgd()])


@dataclass(kw_only=True)
class Darken(Attack):
    """Takes a share of the budget from every pixel."""

    name: ClassVar[str] = "darken"
    share: float = 1.0

    def run(self, victim, pixels, labels, generator):
        return pixels - self.share * self.eps


def test_of_several_attacks_the_deepest_image_is_the_one_that_other_judges_see():
    own, judge = Brightness(), Brightness()
    judge.forward = lambda pixels: own(pixels - 0.07)  # from 0.57 on it is class 1
    batches = grey_batches([0.6, 0.58, 0.52], [0.9])
    for shares in ([1.0, 0.1], [0.1, 1.0], [0.1, 1.0, 0.5]):
        attacks = [LastIterates(attack=Darken(eps=0.05, share=share)) for share in shares]
        job = Job(classifier=own, attacks=attacks, probe=Predictions([judge], against=own))
        (outcome,) = run_jobs([job], batches)
        assert outcome.robust.tolist() == [True, True, False, True]
        clean, attacked = outcome.notes
        assert clean[:, 0].tolist() == [1, 1, 0, 1] and attacked[:, 0].tolist() == [0, 0, 0, 1]
        wanted = own(torch.tensor([0.55, 0.53, 0.47, 0.85]).view(-1, 1, 1, 1).expand(-1, 3, 4, 4))
        assert torch.allclose(attacked[:, 1], wanted[:, 0] - wanted[:, 1], atol=1e-5)
