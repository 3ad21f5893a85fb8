"""AutoAttack's members against the official code, closed forms and their own promises."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import ToyNet, noise_images
from linear_models import Linear

from hf_hierrobust.attacks import (
    APGD,
    FAB,
    PGD,
    Attack,
    NanError,
    Square,
    TargetedAPGD,
    TargetedFAB,
)
from hf_hierrobust.attacks.image.hyperplane import to_hyperplane
from hf_hierrobust.attacks.image.targets import FewClassesWarning

BUDGETS = {"linf": 4 / 255, "l2": 0.12}
QUICK = {
    "apgd-ce": partial(APGD, num_steps=20),
    "apgd-dlr": partial(APGD, num_steps=20, loss="dlr", restarts=2),
    "apgd-t": partial(TargetedAPGD, num_steps=12),
    "fab": partial(FAB, num_steps=8, restarts=2),
    "fab-t": partial(TargetedFAB, num_steps=8),
    "square": partial(Square, num_queries=250),
}
MEMBER = pytest.mark.parametrize("name", QUICK)
NORM = pytest.mark.parametrize("norm", BUDGETS)


def official(name: str, net, attack):
    """The same attack of the official code, with the same constants and seed 5."""
    base = pytest.importorskip("pyautoattack.autopgd_base")
    shared = {"eps": attack.eps, "norm": attack.norm.capitalize(), "seed": 5, "device": "cpu"}
    steps = {"n_iter": getattr(attack, "num_steps", 0), "n_restarts": attack.restarts}
    if name in ("apgd-ce", "apgd-dlr"):
        return base.APGDAttack(net, **shared, **steps, loss=attack.loss)
    if name == "apgd-t":
        return base.APGDAttack_targeted(net, **shared, **steps, n_target_classes=attack.num_targets)
    if name == "square":
        square = pytest.importorskip("pyautoattack.square")
        return square.SquareAttack(net, **shared, n_queries=attack.num_queries, resc_schedule=False)
    fab = pytest.importorskip("pyautoattack.fab_pt")
    return fab.FABAttack_PT(net, **shared, **steps, targeted=name == "fab-t")


class TestOfficialCode:
    @NORM
    @MEMBER
    def test_same_verdict_on_every_image(self, wide, seeded, name, norm):
        net, pixels, labels = wide
        attack = QUICK[name](norm=norm, eps=BUDGETS[norm])
        expected = official(name, copy.deepcopy(net), attack).perturb(pixels.clone(), labels.clone())
        with torch.no_grad():
            robust = net(expected).argmax(1) == labels
        robust |= attack.threat.size(expected - pixels) > attack.eps * (1 + 1e-6)  # FAB's
        found = attack(net, pixels, labels, generator=seeded(5)).robust_correct
        assert torch.equal(found, robust)
        assert 0 < robust.sum() < len(robust)

    @NORM
    @pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t"])
    def test_same_iterates_step_by_step(self, seeded, name, norm):
        net, pixels = ToyNet(12).eval(), noise_images(6, seed=3)
        labels = net(pixels).argmax(1)
        seen = []

        def watched(x):
            seen.append(x.detach().clone())
            return net(x)

        def moved():
            found = [x for x in seen if len(x) == 6 and not torch.equal(x, pixels)]
            seen.clear()
            return found

        options = {"early_stop": False} | ({"num_targets": 1} if name == "apgd-t" else {"restarts": 1})
        attack = QUICK[name](norm=norm, eps=BUDGETS[norm] / 20, **options)
        reference = official(name, watched, attack)
        with torch.random.fork_rng():
            reference.perturb(pixels, labels)
        theirs = moved()
        attack(watched, pixels, labels, generator=seeded(5))
        ours = moved()
        assert len(theirs) == attack.num_steps + 1 == len(ours) - 1  # the frame judges at the end
        for a, b in zip(theirs, ours):
            assert (a - b).abs().max() < 1e-5


class TestLinearModels:
    @NORM
    @pytest.mark.parametrize(
        ("attack", "classes"),
        [
            (PGD(num_steps=30), 2),
            (PGD(num_steps=30, loss="margin"), 2),
            (APGD(num_steps=30), 2),
            (APGD(num_steps=30, loss="margin"), 2),
            (TargetedAPGD(num_steps=30), 10),
        ],
        ids=lambda value: f"{value.name}-{value.loss}" if isinstance(value, Attack) else None,
    )
    def test_robust_accuracy_is_the_exact_one(self, attack, classes, norm, seeded):
        model = Linear(classes=classes)
        pixels, labels = model.images(100, *((0, 1) if norm == "linf" else (0.3, 0.7)))
        exact, shares = model.distance(pixels, labels, norm), []
        for quantile in (0.2, 0.5, 0.8):
            eps = float(exact.quantile(quantile)) * 1.003
            run = replace(attack, norm=norm, eps=eps)
            robust = run(model, pixels, labels, generator=seeded()).robust_correct
            decided = (exact / eps - 1).abs() > 2e-3
            assert decided.sum() >= 98
            assert torch.equal(robust[decided], (exact > eps)[decided])
            shares.append(float(robust.float().mean()))
        assert 0.7 < shares[0] < 0.9 and 0.4 < shares[1] < 0.6 and 0.1 < shares[2] < 0.3

    @NORM
    @pytest.mark.parametrize(("attack", "classes"), [(FAB, 3), (TargetedFAB, 10)])
    def test_fab_finds_the_smallest_perturbation(self, attack, classes, norm):
        model = Linear(classes=classes)
        pixels, _ = model.images(60)
        pixels[:, :, 0], pixels[:, :, 1] = 0, 1
        labels = model(pixels).argmax(1)
        run = attack(norm=norm, eps=0.9 if norm == "linf" else 9, early_stop=False, num_steps=30)
        result = run(model, pixels, labels)
        assert not result.robust_correct.any()
        ratio = run.threat.size(result.adversarial - pixels) / model.distance(pixels, labels, norm)
        assert ratio.min() > 1 - 1e-4 and ratio.max() < 1.02

    @NORM
    def test_the_projection_is_the_nearest_point(self, norm):
        """Without a sort, on coordinates at the bounds, flat normals and hyperplanes out of reach."""
        generator = torch.Generator().manual_seed(0)
        points = torch.rand(200, 40, generator=generator).round(decimals=1)
        normal = torch.randn(200, 40, generator=generator) * (torch.rand(200, 40, generator=generator) > 0.2)
        height = torch.randn(200, generator=generator) * torch.logspace(-3, 2, 200)
        move = to_hyperplane(points, normal, height, norm)
        down = (normal > 0) == (height >= 0)[:, None]
        room = torch.where(down, points, 1 - points) * (normal != 0)
        reach = (normal.abs() * room).sum(1)
        expected = torch.where(height.abs() < reach, height.abs(), reach)
        gained = -(normal * move).sum(1) * torch.where(height >= 0, 1, -1)
        assert torch.allclose(gained, expected, rtol=1e-4, atol=1e-5)
        assert 20 < (height.abs() > reach).sum() < 180
        assert (points + move).min() >= -1e-6 and (points + move).max() <= 1 + 1e-6
        # Optimal: all that is free to move goes equally far, in the measure of the norm.
        share = move.abs() / (normal.abs() if norm == "l2" else 1)
        free = (normal != 0) & (move.abs() < room * (1 - 1e-5))
        high = share.masked_fill(~free, -torch.inf).amax(1)
        low = share.masked_fill(~free, torch.inf).amin(1)
        assert (high - low)[free.any(1)].abs().max() < 1e-4

    def test_exact_distances_are_right_where_there_is_no_box(self):
        model = Linear()
        pixels, labels = model.images(20, 0.45, 0.55)
        gaps = model(pixels).gather(1, labels[:, None]) - model(pixels)
        for norm, order in (("linf", 1), ("l2", 2)):
            slopes = (model.weight[:, :, None] - model.weight[:, None]).norm(order, dim=0)[labels]
            expected = (gaps / slopes).masked_fill(slopes == 0, torch.inf).amin(1)
            assert torch.allclose(model.distance(pixels, labels, norm).float(), expected, rtol=1e-4)


class TestPromises:
    @NORM
    @MEMBER
    def test_stays_in_the_threat_model_and_repeats(self, wide, seeded, name, norm):
        net, pixels, labels = wide
        attack = QUICK[name](norm=norm, eps=BUDGETS[norm])
        state = torch.random.get_rng_state()
        first, second = (attack(net, pixels, labels, generator=seeded(1)) for _ in range(2))
        assert torch.equal(first.adversarial, second.adversarial)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert (attack.threat.size(first.adversarial - pixels) <= attack.eps * (1 + 1e-5)).all()
        assert first.adversarial.min() >= 0 and first.adversarial.max() <= 1
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
        # What stands is perturbed too, for transfer and pictures (FAB: where it found any boundary).
        moved = attack.threat.size(first.adversarial - pixels)[first.robust_correct]
        assert (moved > 0).any()

    @pytest.mark.parametrize("name", ["apgd-ce", "fab-t", "square"])
    def test_the_saving_changes_no_verdict(self, wide, seeded, name):
        net, pixels, labels = wide
        option = "skip" if name == "square" else "early_stop"
        forwards, robust = [], []
        for on in (True, False):
            result = QUICK[name](eps=4 / 255, **{option: on})(net, pixels, labels, generator=seeded(1))
            forwards.append(result.cost.forwards)
            robust.append(result.robust_correct)
        assert torch.equal(*robust) and forwards[0] < (0.99 if name == "square" else 0.9) * forwards[1]

    @MEMBER
    def test_nan_is_refused(self, wide, name):
        net, pixels, labels = wide

        def broken(x):  # NaN next to the clean images only
            moved = (x - pixels[: len(x)]).abs().amax() > 1e-4
            return net(x) * torch.where(moved, torch.nan, 1.0)

        with pytest.raises(NanError):
            QUICK[name](eps=4 / 255)(broken, pixels[:3], labels[:3])

    @MEMBER
    def test_one_image_and_a_thousand_classes(self, name):
        model = Linear(classes=1000)
        pixels, labels = model.images(1)
        options = {"num_steps": 3} if name == "fab" else {}
        result = QUICK[name](eps=0.2, **options)(model, pixels, labels)
        assert result.robust_correct.shape == (1,) and not result.robust_correct.any()

    def test_a_cheaper_search_is_not_believed(self, wide, seeded):
        net, pixels, labels = wide
        for name in QUICK:
            attack = QUICK[name](eps=4 / 255)
            lying = attack(net, pixels, labels, search=lambda x: net(x).roll(1, 1), generator=seeded())
            with torch.no_grad():
                right = net(lying.adversarial).argmax(1) == labels
            assert torch.equal(lying.robust_correct, right)


class TestFewClasses:
    @pytest.mark.parametrize(
        ("classes", "words"),
        [
            (2, {"aim at the 1 others", "needs three: the margin", "needs four: the margin"}),
            (3, {"aim at the 2 others", "needs four: the gap is divided by z_1 - z_3"}),
            (5, {"aim at the 4 others"}),
        ],
    )
    def test_every_attack_adapts_and_says_so(self, classes, words):
        model = Linear(classes=classes)
        pixels, labels = model.images(40)
        exact = model.distance(pixels, labels, "linf")
        eps = float(exact.quantile(0.5)) * 1.01
        said = []
        for name in QUICK:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("default")
                result = QUICK[name](eps=eps)(model, pixels, labels)
            assert all(issubclass(one.category, FewClassesWarning) for one in caught)
            said += {str(one.message) for one in caught}
            if name != "square":
                assert (result.robust_correct != (exact > eps)).sum() <= 3, name
        assert all(f"there are {classes} classes" in line for line in said)
        assert all(any(word in line for line in said) for word in words)
        assert len({*said}) == len(words)

    def test_one_class_is_refused(self):
        pixels = torch.rand(2, 1, 6, 6)
        for name in QUICK:
            with pytest.raises(ValueError, match="returned one score an image"):
                QUICK[name](eps=0.1)(lambda x: x.flatten(1).sum(1, keepdim=True), pixels, [0, 0])

    @NORM
    @MEMBER
    def test_twins_hide_nothing(self, wide, seeded, name, norm):
        """A second class with the logits of the first can't be told apart, and must not stop an attack."""
        net, pixels, labels = wide
        doubled = torch.arange(12).repeat_interleave(2)  # classes 0 and 1 are one, 2 and 3, ...

        def with_twins(x):
            return net(x)[:, doubled]

        attack = QUICK[name](norm=norm, eps=BUDGETS[norm])
        alone = attack(net, pixels, labels, generator=seeded()).robust_correct
        result = attack(with_twins, pixels, 2 * labels, generator=seeded())
        assert result.zero_gradient == 0
        assert int(result.robust_correct.sum()) <= int(alone.sum()) + 2


def test_square_breaks_what_masks_its_gradient(seeded):
    net, pixels = ToyNet(12).eval(), noise_images(40, seed=3)

    def masked(x):  # 8-bit images of 32 grey levels: the gradient is zero, the decision is not
        return net((x * 31).round() / 31)

    with torch.no_grad():
        labels = masked(pixels).argmax(1)
    by_gradient = APGD(eps=8 / 255, num_steps=20, rho=0.75)(masked, pixels, labels, generator=seeded())
    by_search = Square(eps=8 / 255, num_queries=500)(masked, pixels, labels, generator=seeded())
    assert by_gradient.zero_gradient == 1
    assert by_search.robust_correct.float().mean() < 0.3
    assert by_search.robust_correct.sum() < 0.6 * by_gradient.robust_correct.sum()
