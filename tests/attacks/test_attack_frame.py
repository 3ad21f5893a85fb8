"""What every attack promises: it checks its input, leaves no trace and never leaves its threat model."""

from __future__ import annotations

import re
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from hf_hierrobust.attacks import PGD, TrainingPGD, check_pixels, cross_entropy
from hf_hierrobust.attacks.base import attackable
from hf_hierrobust.classifiers import frozen
from hf_hierrobust.threat import ThreatModel


def attack(**options) -> PGD:
    return PGD(**{"eps": 8 / 255, "num_steps": 3, **options})


def training_attack() -> TrainingPGD:
    return TrainingPGD(eps=8 / 255, num_steps=3)


class TestCheckPixels:
    def test_accepts_the_box_and_the_rounding_of_a_sum(self):
        check_pixels(torch.tensor([0.0, 1.0, -5e-6, 1 + 5e-6]).view(1, 1, 2, 2))

    def test_8_bit_images(self):
        with pytest.raises(TypeError, match=r"x has dtype torch.uint8: convert .* pixels.float\(\) / 255"):
            check_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "x")

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_non_finite_values_name_the_first_image(self, value):
        pixels = torch.rand(5, 3, 4, 4)
        pixels[3, 1, 0, 2] = pixels[4] = value
        with pytest.raises(ValueError, match=r"NaN or infinite values, first in image 3 of the batch"):
            check_pixels(pixels)

    def test_normalised_pixels(self):
        with pytest.raises(ValueError, match=r"already normalised; pass do_normalize=False"):
            check_pixels((torch.rand(2, 3, 4, 4) - 0.5) / 0.25)

    def test_pixels_up_to_255(self):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]: divide 8-bit images by 255"):
            check_pixels(torch.rand(2, 3, 4, 4) * 255)

    @pytest.mark.parametrize("shape", [(3, 4, 4), (2, 48), (1, 2, 3, 4, 4)])
    def test_wrong_number_of_dimensions(self, shape):
        with pytest.raises(ValueError, match=rf"shape {re.escape(str(shape))}: expected \(B, C, H, W\)"):
            check_pixels(torch.zeros(shape))

    def test_empty_batch(self):
        with pytest.raises(ValueError, match=r"there is no image to attack"):
            check_pixels(torch.zeros(0, 3, 4, 4))

    def test_call_and_perturb_check(self, net):
        bad = torch.full((2, 3, 8, 8), 200.0)
        with pytest.raises(ValueError, match="divide 8-bit images"):
            attack()(net, bad, torch.zeros(2, dtype=torch.long))
        with pytest.raises(ValueError, match="divide 8-bit images"):
            training_attack().perturb(lambda x: x, bad)


def test_attackable_clamps_and_raises_the_precision():
    pixels = torch.tensor([-5e-6, 0.5, 1 + 5e-6, 1.0], requires_grad=True).view(1, 1, 2, 2)
    ready = attackable(pixels)
    assert ready.flatten().tolist() == [0, 0.5, 1, 1] and not ready.requires_grad
    assert attackable(ready.bfloat16()).dtype == attackable(ready.half()).dtype == torch.float32
    assert attackable(ready.double()).dtype == torch.float64


class TestFrozen:
    """`frozen` and whole attacks leave a half-frozen, half-training model as they found it."""

    @pytest.fixture
    def busy(self, net):
        net.train()
        net.norm.eval()
        net.stem.weight.requires_grad_(False)
        net.head.weight.grad = torch.full_like(net.head.weight, 7.0)
        return net

    @staticmethod
    def state(model) -> tuple:
        return (
            [m.training for m in model.modules()],
            [p.requires_grad for p in model.parameters()],
            [None if p.grad is None else p.grad.clone().tolist() for p in model.parameters()],
            {k: v.tolist() for k, v in model.state_dict().items()},
            torch.get_rng_state().tolist(),
        )

    def test_inside_nothing_trains_and_gradients_flow(self, busy):
        with torch.no_grad(), frozen(busy):
            assert not any(m.training for m in busy.modules())
            assert not any(p.requires_grad for p in busy.parameters())
            assert torch.is_grad_enabled()

    @pytest.mark.parametrize("early_stop", [True, False])
    def test_attack_leaves_no_trace(self, busy, images, labels, seeded, early_stop):
        before = self.state(busy)
        assert len(set(before[0])) == len(set(before[1])) == 2
        attack(early_stop=early_stop, restarts=2)(busy, images, labels, generator=seeded())
        assert self.state(busy) == before

    def test_attack_leaves_no_trace_when_the_model_raises(self, busy, images, labels, seeded):
        before, calls = self.state(busy), []

        def explode(*_):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("out of cheese")

        busy.head.register_forward_hook(explode)
        with pytest.raises(RuntimeError, match="out of cheese"):
            attack()(busy, images, labels, generator=seeded())
        assert len(calls) == 3
        assert self.state(busy) == before

    def test_perturb_touches_no_gradient(self, busy, images, labels, seeded):
        before = self.state(busy)
        with frozen(busy):
            training_attack().perturb(lambda x: cross_entropy(busy(x), labels), images, generator=seeded())
        assert self.state(busy) == before

    def test_module_is_found_however_deep(self, busy):
        view = SimpleNamespace(module=SimpleNamespace(module=busy))
        with frozen(view):
            assert not any(m.training for m in busy.modules())
            assert not any(p.requires_grad for p in busy.parameters())
        assert busy.training and busy.head.weight.requires_grad

    def test_without_a_generator_only_the_random_start_draws(self, net, images, labels):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        attack(random_start="zero")(net, images, labels)
        assert torch.equal(torch.get_rng_state(), before)
        first = attack()(net, images, labels).adversarial
        assert not torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(5)
        assert torch.equal(attack()(net, images, labels).adversarial, first)

    def test_inference_mode_is_refused(self, net, images, labels):
        with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside torch.inference_mode\(\)"):
            attack()(net, images, labels)

    def test_no_grad_is_no_obstacle(self, net, images, labels, seeded):
        expected = attack()(net, images, labels, generator=seeded())
        with torch.no_grad():
            found = attack()(net, images, labels, generator=seeded())
        assert torch.equal(found.adversarial, expected.adversarial)


def test_plain_function_as_model(net, images, labels, seeded):
    expected = attack()(net, images, labels, generator=seeded())
    found = attack()(lambda pixels: net(pixels), images, labels, generator=seeded())
    assert torch.equal(found.adversarial, expected.adversarial)
    assert torch.equal(found.robust_correct, expected.robust_correct)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


class TestLabels:
    @pytest.mark.parametrize(("wrong", "span"), [(4, "[0, 4]"), (-1, "[-1, 3]")])
    def test_outside_the_classes(self, net, images, labels, wrong, span):
        labels[7], labels[8] = 0 if wrong > 0 else 3, wrong
        message = re.escape(f"labels span {span} but there are 4 classes")
        with pytest.raises(ValueError, match=message):
            attack()(net, images, labels)

    def test_of_the_wrong_shape(self, net, images, labels):
        for bad in (labels[:, None], labels[:5]):
            with pytest.raises(ValueError, match=r"labels have shape .*: expected \(48,\), one per image"):
                attack()(net, images, bad)


@pytest.mark.parametrize("threat", [ThreatModel(eps=6 / 255), ThreatModel(norm="l2", eps=0.3)], ids=str)
@pytest.mark.parametrize("start", ["uniform", "gaussian", "zero"])
def test_result_is_within_the_threat_model_and_consistent(net, images, labels, threat, start, seeded):
    result = attack(**asdict(threat), random_start=start, num_steps=4)(
        net, images, labels, generator=seeded()
    )
    with torch.no_grad():
        clean = net(images).argmax(1) == labels
        after = net(result.adversarial).argmax(1) == labels
    assert (threat.size(result.adversarial - images) <= threat.eps * (1 + 1e-6)).all()
    assert result.adversarial.min() >= 0 and result.adversarial.max() <= 1
    assert torch.equal(result.clean_correct, clean)
    assert not (result.robust_correct & ~clean).any()
    assert torch.equal(result.robust_correct, after & clean), "verdict and returned image disagree"
    assert torch.equal(result.adversarial[~clean], images[~clean])
    assert 0 < result.robust_correct.sum() < clean.sum() < len(images), (
        "the case must be neither easy nor hard"
    )


def test_half_precision_and_slightly_overshooting_pixels(net, images, labels, seeded):
    overshooting = images.clone()
    overshooting[:, :, 0], overshooting[:, :, 1] = -9e-6, 1 + 9e-6
    for threat in (ThreatModel(eps=6 / 255), ThreatModel(norm="l2", eps=0.01)):
        run = attack(**asdict(threat))
        expected = run(net, images, labels, generator=seeded())
        found = run(net, overshooting, labels, generator=seeded())
        assert torch.equal(found.adversarial, expected.adversarial)
    rounded = images.bfloat16()
    result = attack()(net, rounded, labels, generator=seeded())
    assert result.adversarial.dtype == torch.float32
    size = (result.adversarial - rounded.float()).abs().amax()
    assert 7.9 / 255 < size <= 8 / 255 + 1e-6


class TestMaskedGradients:
    def test_healthy_model_reports_none(self, net, images, labels, seeded):
        assert attack()(net, images, labels, generator=seeded()).zero_gradient == 0

    def test_fraction_of_images_without_gradient(self, net, images, labels):
        half = torch.arange(len(images)) % 2 == 0
        images[half] = images[half] * 0.1 + 0.45

        def model(pixels):  # rounds away the dull images, attacked or not
            dull = pixels.flatten(1).std(1) < 0.15
            rounded = (pixels * 2).round() / 2
            return net(torch.where(dull.view(-1, 1, 1, 1), rounded, pixels))

        with torch.no_grad():
            labels = model(images).argmax(1)
        result = attack(eps=1e-3, step_size=1e-3)(model, images, labels)
        assert result.zero_gradient == 0.5
        assert result.robust_correct[half].all()

    def test_saturated_softmax(self, net, images, labels, seeded):
        def saturated(pixels):
            return net(pixels) * 1e6

        assert attack()(saturated, images, labels, generator=seeded()).zero_gradient > 0.9
        by_margin = attack(loss="margin")(saturated, images, labels, generator=seeded())
        assert by_margin.zero_gradient == 0
        assert by_margin.robust_correct.sum() < by_margin.clean_correct.sum()

    def test_no_image_left_to_attack(self, net, images, labels):
        result = attack()(net, images, (labels + 1 + (torch.arange(48) >= 42).long()) % 4)
        assert result.zero_gradient == 0 and not result.clean_correct.any()
        assert torch.equal(result.adversarial, images)


def test_nan_is_an_error_and_not_a_verdict(net, images, labels):
    def broken(pixels):
        ones = torch.ones(len(pixels), 1)
        ones[5] = torch.nan
        return net(pixels) * ones

    with pytest.raises(ValueError, match=r"the model's logits are NaN for 1 of 48 images, first for image 5"):
        attack()(broken, images, labels)

    def bad_gradient(pixels):  # sqrt has an infinite slope at 0, times 0 is NaN, whose sign is 0
        still = (pixels[2:3] - pixels[2:3].detach()).pow(2).sum().sqrt()
        return net(pixels) + F.pad(0 * still.view(1, 1), (0, 3, 2, len(pixels) - 3))

    message = r"the gradient of the attack loss is NaN for 1 of \d+ images, first for image 2"
    with pytest.raises(ValueError, match=message):
        attack()(bad_gradient, images, labels)
    with pytest.raises(ValueError, match=message), frozen(net):
        training_attack().perturb(lambda x: cross_entropy(bad_gradient(x), labels), images)


def test_describe_names_all_constants():
    def worst(logits, labels):
        return cross_entropy(logits, labels)

    facts = attack(step_size=1 / 255, restarts=2, loss=worst).describe()
    assert len(facts.pop("loss_code")) == 16  # of the function itself, whatever its name
    assert facts == {
        "name": "pgd",
        "norm": "linf",
        "eps": 8 / 255,
        "space": "native",
        "num_steps": 3,
        "step_size": 1 / 255,
        "restarts": 2,
        "random_start": "uniform",
        "loss": "worst",
        "momentum": 0.0,
        "schedule": "constant",
        "early_stop": True,
    }
