"""PGD against plain loops, closed forms and its own promises."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

from hf_hierrobust.attacks import PGD, TrainingPGD, cross_entropy, margin
from hf_hierrobust.threat import ThreatModel

EPS = 8 / 255
L2 = {"norm": "l2", "eps": 0.3}


def plain_pgd(loss, pixels, delta, eps, step, steps):
    """The projected ascent of Madry et al., one line after the other."""
    delta = delta.clamp(-eps, eps)
    delta = torch.max(torch.min(delta, 1 - pixels), -pixels)
    for _ in range(steps):
        delta.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(pixels + delta).sum(), [delta])
        delta = (delta.detach() + step * gradient.sign()).clamp(-eps, eps)
        delta = torch.max(torch.min(delta, 1 - pixels), -pixels)
    return pixels + delta


@pytest.mark.parametrize("start", ["uniform", "gaussian", "zero"])
def test_training_pgd_is_the_plain_loop_bit_for_bit(net, images, labels, seeded, start):
    def loss(x):
        return F.cross_entropy(net(x), labels, reduction="none")

    draw = {
        "uniform": lambda g: torch.empty_like(images).uniform_(-EPS, EPS, generator=g),
        "gaussian": lambda g: 1e-3 * torch.empty_like(images).normal_(generator=g),
        "zero": lambda g: torch.zeros_like(images),
    }[start]
    expected = plain_pgd(loss, images, draw(seeded(4)), EPS, EPS / 4, 5)
    run = TrainingPGD(eps=EPS, num_steps=5, step_size=EPS / 4, random_start=start)
    (found,) = run.perturb(loss, images, generator=seeded(4))
    assert torch.equal(found.pixels, expected)
    assert found.text_delta is None and found.levels is None
    assert loss(found.pixels).sum() > 1.3 * loss(images).sum()


def hover(logits, labels):
    """Largest on the decision boundary: the iterates hop over it and back."""
    return -margin(logits, labels).abs()


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("loss", [cross_entropy, hover])
def test_verdicts_are_those_of_the_full_any_iterate_reference(net, images, labels, seeded, early_stop, loss):
    steps, eps = 6, 4 / 255
    with torch.no_grad():
        clean = net(images).argmax(1) == labels
    x, y = images[clean], labels[clean]
    noise = torch.empty_like(x).uniform_(-eps, eps, generator=seeded(2))
    wrong = []
    for count in range(steps + 1):
        iterate = plain_pgd(lambda a: loss(net(a), y), x, noise, eps, eps, count)
        wrong.append(net(iterate).argmax(1) != y)
    ever, last = torch.stack(wrong).any(0), wrong[-1]

    run = PGD(eps=eps, num_steps=steps, step_size=eps, early_stop=early_stop, loss=loss)
    result = run(net, images, labels, generator=seeded(2))
    assert torch.equal(result.robust_correct[clean], ~ever)
    assert 0 < ever.sum() < len(ever)
    assert (ever & ~last).any() == (loss is hover), "hovering must take mistakes back, ascent must not"
    with torch.no_grad():
        assert torch.equal(net(result.adversarial).argmax(1)[clean] != y, ever), "not a fooling iterate"


def test_early_stop_saves_work_and_changes_nothing(net, images, labels, seeded):
    counts, results = [], []
    for early_stop in (True, False):
        seen = []

        def model(pixels, seen=seen):
            seen.append(len(pixels))
            return net(pixels)

        run = PGD(eps=EPS, num_steps=8, early_stop=early_stop, restarts=2)
        results.append(run(model, images, labels, generator=seeded()))
        counts.append(sum(seen))
    assert counts[0] < 0.7 * counts[1]
    assert torch.equal(results[0].robust_correct, results[1].robust_correct)
    assert torch.allclose(results[0].adversarial, results[1].adversarial, atol=1e-6)


def test_restarts_only_lower_robust_accuracy(net, images, labels, seeded):
    robust = []
    for restarts in (1, 2, 6):
        run = PGD(eps=3 / 255, num_steps=1, step_size=1 / 255, restarts=restarts)
        robust.append(run(net, images, labels, generator=seeded()).robust_correct)
    assert not (robust[1] & ~robust[0]).any()
    assert not (robust[2] & ~robust[1]).any()
    assert 0 < robust[2].sum() < robust[0].sum()


def test_restarts_work_on_the_survivors_only(net, images, labels, seeded):
    seen = []

    def model(pixels):
        seen.append(len(pixels))
        return net(pixels)

    options = {"eps": 2 / 255, "num_steps": 2, "early_stop": False}
    survivors = int(PGD(**options)(net, images, labels, generator=seeded()).robust_correct.sum())
    PGD(**options, restarts=2)(model, images, labels, generator=seeded())
    # Clean, asked twice more, two steps and the last iterate's verdict, two steps, the frame's verdict.
    assert seen == [48, 8, 8, 42, 42, 42, survivors, survivors, 42] and 0 < survivors < 42


class TestLinearModel:
    """For logits (w x, 0) the worst perturbation is known exactly."""

    @pytest.fixture
    def weight(self) -> torch.Tensor:
        return torch.randn(3 * 8 * 8, generator=torch.Generator().manual_seed(7))

    @staticmethod
    def gain(weight, attack, pixels) -> torch.Tensor:
        """How far the attack raised w x for label 1, whose margin is w x."""

        def model(x):
            score = x.flatten(1) @ weight
            return torch.stack([score - 1e4, torch.zeros_like(score)], 1)  # never misclassified: all steps

        labels = torch.ones(len(pixels), dtype=torch.long)
        result = attack(model, pixels, labels, generator=torch.Generator().manual_seed(0))
        return (result.adversarial - pixels).flatten(1) @ weight

    @pytest.mark.parametrize("momentum", [0.0, 1.0])
    def test_linf_reaches_eps_times_the_l1_norm(self, weight, momentum):
        run = PGD(eps=EPS, num_steps=10, loss="margin", momentum=momentum)
        gain = self.gain(weight, run, torch.full((4, 3, 8, 8), 0.5))
        assert torch.allclose(gain, EPS * weight.norm(1).expand(4), rtol=1e-5)

    @pytest.mark.parametrize("start", ["zero", "uniform"])
    def test_l2_reaches_eps_times_the_l2_norm(self, weight, start):
        run = PGD(**L2, num_steps=60, loss="margin", random_start=start)
        gain = self.gain(weight, run, torch.full((4, 3, 8, 8), 0.5))
        assert torch.allclose(gain, 0.3 * weight.norm().expand(4), rtol=2e-4)
        assert (gain <= 0.3 * weight.norm() * (1 + 1e-5)).all()

    def test_linf_optimum_with_black_and_white_pixels(self, weight, images):
        run = PGD(eps=EPS, num_steps=10, loss="margin")
        low, high = (-images).clamp(min=-EPS), (1 - images).clamp(max=EPS)
        best = torch.where(weight.view(3, 8, 8) > 0, high, low).flatten(1) @ weight
        assert torch.allclose(self.gain(weight, run, images), best, rtol=1e-4)

    @pytest.mark.parametrize(
        ("schedule", "factors"),
        [
            ("constant", [1, 1, 1, 1]),
            ("linear", [1, 0.75, 0.5, 0.25]),
            ("cosine", [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]),
        ],
    )
    def test_schedules_shrink_the_steps(self, weight, schedule, factors):
        run = PGD(
            eps=0.4,
            num_steps=4,
            step_size=0.01,
            random_start="zero",
            loss="margin",
            schedule=schedule,
        )
        gain = self.gain(weight, run, torch.full((1, 3, 8, 8), 0.5))
        assert torch.allclose(gain, 0.01 * sum(factors) * weight.norm(1), rtol=1e-4)


def test_momentum_is_mi_fgsm(net, images, labels):
    """Gradients divided by their L1 norm are accumulated, and the sign of the sum is the step."""
    steps, decay = 5, 0.9
    delta, velocity = torch.zeros_like(images), torch.zeros_like(images)
    for _ in range(steps):
        x = (images + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), labels, reduction="sum"), x)
        velocity = decay * velocity + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        delta = (delta + EPS / 4 * velocity.sign()).clamp(-EPS, EPS)
        delta = (images + delta).clamp(0, 1) - images
    run = TrainingPGD(eps=EPS, num_steps=steps, step_size=EPS / 4, random_start="zero", momentum=decay)

    def loss(x):
        return F.cross_entropy(net(x), labels, reduction="none")

    (found,) = run.perturb(loss, images)
    assert torch.allclose(found.pixels, images + delta, atol=1e-6)
    run.momentum = 0.0
    (without,) = run.perturb(loss, images)
    assert (found.pixels - without.pixels).abs().amax() > EPS / 4


def test_uniform_l2_start_fills_the_ball(seeded):
    pixels = torch.full((4000, 1, 2, 2), 0.5)
    delta = PGD(**L2).start(pixels, seeded())
    # In d dimensions (r / eps)^d is uniform, and so the volume is filled evenly.
    volume = (delta.flatten(1).norm(dim=1) / 0.3).pow(4).sort().values
    assert (volume - torch.linspace(0, 1, 4000)).abs().max() < 0.035
    direction = F.normalize(delta.flatten(1), dim=1)
    assert direction.mean(0).abs().max() < 0.03
    assert torch.allclose(direction.T @ direction / 4000, torch.eye(4) / 4, atol=0.02)


@pytest.mark.parametrize("threat", [ThreatModel(eps=EPS), ThreatModel(**L2)], ids=str)
@pytest.mark.parametrize("start", ["uniform", "gaussian"])
def test_starts_are_inside_and_random(images, seeded, threat, start):
    run = PGD(**asdict(threat), random_start=start)
    first, second = run.start(images, seeded(0)), run.start(images, seeded(1))
    assert not torch.equal(first, second) and torch.equal(first, run.start(images, seeded(0)))
    assert (threat.size(first) <= threat.eps * (1 + 1e-6)).all()
    assert (images + first).min() >= 0 and (images + first).max() <= 1
    assert first[:, :, 2:].abs().amax() > 1e-3


@pytest.mark.parametrize("threat", [ThreatModel(eps=EPS), ThreatModel(**L2)], ids=str)
def test_agrees_with_foolbox_step_by_step_from_one_start(net, images, labels, seeded, threat):
    foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    model = foolbox.PyTorchModel(net.eval(), bounds=(0, 1), device="cpu")
    theirs = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[threat.norm]
    before = images
    for steps in range(1, 6):
        run = PGD(**asdict(threat), num_steps=steps, step_size=threat.eps / 4)
        attack = theirs(steps=steps, abs_stepsize=threat.eps / 4)
        beginning = images + run.start(images, seeded(4))
        attack.get_random_start = lambda x, eps, beginning=beginning: type(x)(beginning)
        expected = attack.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=threat.eps)
        found, _ = run.to_the_end(net, images, labels, generator=seeded(4))
        assert torch.allclose(found, expected, atol=1e-6)
        assert threat.size(found - before).max() > threat.eps / 20, "no step was made"
        before = found


def test_momentum_agrees_with_torchattacks(net, images, labels):
    torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    expected = torchattacks.MIFGSM(net, eps=EPS, alpha=EPS / 4, steps=5, decay=1.0)(images, labels)
    run = TrainingPGD(eps=EPS, num_steps=5, step_size=EPS / 4, random_start="zero", momentum=1.0)
    (found,) = run.perturb(lambda x: F.cross_entropy(net(x), labels, reduction="none"), images)
    assert torch.allclose(found.pixels, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps=0 must be an integer, at least 1"),
        ({"restarts": 0}, "restarts=0 must be an integer, at least 1"),
        ({"step_size": 0.0}, r"step_size=0.0 must be positive"),
        ({"random_start": "normal"}, "random_start='normal' is unknown: choose one of uniform"),
        ({"schedule": "step"}, "schedule='step' is unknown: choose one of constant"),
        ({"loss": "cw"}, r"loss='cw' is unknown"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PGD(**options)
