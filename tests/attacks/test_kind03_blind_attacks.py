"""Kind 3: attacks that go blind: saturated cross-entropy, twins under the margin, a pair's own loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tiny_text import tiny_encoder
from torch import nn

from hf_hierrobust.attacks import PGD, Attack, GradientAttack, MultimodalAttack, cross_entropy, margin


class TestCrossEntropy:
    @pytest.mark.parametrize("gap", [20.0, 36.0, 60.0, 200.0, 700.0])
    def test_kind03_a_saturated_softmax_keeps_its_gradient(self, gap):
        """In fp32 the label's part is lost from a gap of 17 on, in float64's log-softmax from 37 on."""
        logits = torch.tensor([[gap, 0, 0]], dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([0])).sum(), logits)
        expected = torch.tensor([[-2.0, 1, 1]], dtype=torch.float64) * torch.tensor(-gap).double().exp()
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_kind03_it_is_the_cross_entropy(self, dtype):
        logits = (30 * torch.randn(64, 9, generator=torch.Generator().manual_seed(0))).to(dtype)
        logits.requires_grad_()
        labels = torch.arange(64) % 9
        loss = cross_entropy(logits, labels)
        expected = F.cross_entropy(logits.double(), labels, reduction="none")
        torch.testing.assert_close(loss, expected)
        gradients = [torch.autograd.grad(v.sum(), logits)[0] for v in (loss, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-12)

    def test_kind03_inflating_the_logits_does_not_help_against_the_default(self, net, images, labels, seeded):
        with torch.no_grad():
            labels = net(images).argmax(1)
        attack, robust = PGD(eps=3 / 255, num_steps=10), {}
        for scale in (10, 30, 100):
            steep = lambda x, scale=scale: scale * net(x)  # noqa: E731
            robust[scale] = int(attack(steep, images, labels, generator=seeded()).robust_correct.sum())
        by_margin = replace(attack, loss="margin")(net, images, labels, generator=seeded())
        assert set(robust.values()) == {int(by_margin.robust_correct.sum())}
        blind = replace(attack, loss=lambda z, y: F.cross_entropy(z.float(), y, reduction="none"))
        fp32 = blind(lambda x: 100 * net(x), images, labels, generator=seeded())
        assert fp32.zero_gradient < 0.5 and int(fp32.robust_correct.sum()) > robust[100], "blind, and unseen"


class Twins(nn.Module):
    """A network whose classes 0 and 1 have one text, and 2 and 3 another."""

    def __init__(self, net, to=(0, 0, 2, 2)):
        super().__init__()
        self.net, self.to_class = net, list(to)

    def forward(self, pixels):
        return self.net(pixels)[:, self.to_class]


class TestTwins:
    def test_kind03_the_margin_sees_past_a_twin(self, net, images, seeded):
        twins = Twins(net)
        with torch.no_grad():
            labels = twins(images).argmax(1)
        robust = {}
        for loss in ("ce", "margin"):
            found = PGD(eps=8 / 255, num_steps=5, loss=loss)(twins, images, labels, generator=seeded())
            robust[loss] = int(found.robust_correct.sum())
            assert found.clean_correct.all() and found.zero_gradient == 0
        assert robust["margin"] <= robust["ce"] + 1 < 24

    def test_kind03_twins_that_rounding_parts(self, net, images, seeded):
        def nearly(pixels):
            z = net(pixels)[:, [0, 0, 2, 2]]
            return z * torch.tensor([1, 1 + 2e-7, 1, 1 + 2e-7])

        with torch.no_grad():
            labels = nearly(images).argmax(1)
        found = PGD(eps=8 / 255, num_steps=5, loss="margin")(nearly, images, labels, generator=seeded())
        assert int(found.robust_correct.sum()) < 24

    def test_kind03_values_and_gradients(self):
        logits = torch.tensor([[3.0, 3.0, 1.0, 2.0], [3.0, 0.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
        logits.requires_grad_()
        values = margin(logits, torch.tensor([0, 0, 0]))
        assert values.tolist() == [-1, -1, 0]
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert gradient[0].tolist() == [-2, 1, 0, 1], "the twin and the best of the others"
        assert gradient[1].tolist() == [-1, 0, 0, 1]
        assert gradient[2].tolist() == pytest.approx([-1, 1 / 3, 1 / 3, 1 / 3])


PROMPTS = [f"a photo of a {name}" for name in ("cat", "dog", "oak", "rose")]


@dataclass(kw_only=True)
class Signed(Attack):
    """A plug-in without loss or restarts: single steps along the margin's sign, by its own rules."""

    name: ClassVar[str] = "signed"
    calls: int = 0

    def run(self, victim, pixels, labels, generator):
        self.calls += 1
        x = pixels.clone()
        for _ in range(3):
            x = x.detach().requires_grad_()
            logits = victim.logits(x)
            if victim.fooled(x, labels, logits).all():
                break
            x = x + self.eps * victim.gradient(margin(logits, labels), x).sign()
            x = (pixels + (x - pixels).clamp(-self.eps, self.eps)).clamp(0, 1)
        return x


class TestMultimodal:
    @pytest.fixture
    def encoder(self):
        return tiny_encoder()

    @pytest.fixture
    def encode_image(self, encoder):
        return lambda pixels: encoder.module.get_image_features(pixel_values=6 * pixels - 3).pooler_output

    @pytest.fixture
    def batch(self, encode_image, encoder):
        pixels = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        encoder.module.eval()
        with torch.no_grad():
            logits = F.normalize(encode_image(pixels), dim=-1) @ F.normalize(encoder(PROMPTS), dim=-1).T
        return pixels, logits.argmax(1)

    def attack(self, image_attack, order="independent"):
        return MultimodalAttack(image_attack=image_attack, text_attack=GradientAttack(), order=order)

    def deepest_iterate(self, encode_image, encoder, loss, options, pixels, labels, generator):
        """Of all iterates of PGD, the start among them, each image's with the largest margin."""
        scale = encoder.module.logit_scale.detach().exp()
        text = F.normalize(encoder(PROMPTS), dim=-1)
        delta = torch.zeros_like(pixels)
        if options["random_start"] == "gaussian":
            delta = (1e-3 * delta.normal_(generator=generator)).clamp(-options["eps"], options["eps"])
        elif options["random_start"] == "uniform":
            delta.uniform_(-options["eps"], options["eps"], generator=generator)
        iterates, depths = [], []
        for _ in range(options["num_steps"] + 1):
            delta = ((pixels + delta).clamp(0, 1) - pixels).requires_grad_()
            logits = scale * F.normalize(encode_image(pixels + delta), dim=-1) @ text.T
            (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), delta)
            iterates.append((pixels + delta).detach())
            depths.append(margin(logits, labels).detach())
            delta = delta.detach() + options["eps"] / 4 * gradient.sign()
            delta = delta.clamp(-options["eps"], options["eps"])
        best = torch.stack(depths).argmax(0)
        return torch.stack(iterates)[best, torch.arange(len(pixels))]

    @pytest.mark.parametrize("start", ["zero", "gaussian", "uniform"])
    @pytest.mark.parametrize("loss", ["margin", "ce", "own"])
    def test_kind03_the_pair_keeps_the_image_attacks_loss_and_start(
        self, encode_image, encoder, batch, seeded, loss, start
    ):
        pixels, labels = batch
        losses = {"margin": margin, "ce": cross_entropy, "own": lambda z, y: -z.gather(1, y[:, None])[:, 0]}
        options = {"eps": 16 / 255, "num_steps": 4, "random_start": start}
        image_attack = PGD(**options, loss=losses[loss] if loss == "own" else loss)
        generator = seeded()
        result = self.attack(image_attack)(
            encode_image, encoder, PROMPTS, pixels, labels, generator=generator
        )
        again = seeded()
        image_attack(
            lambda x: F.normalize(encode_image(x), dim=-1) @ F.normalize(encoder(PROMPTS), dim=-1).T,
            pixels,
            labels,
            generator=again,
        )
        expected = self.deepest_iterate(encode_image, encoder, losses[loss], options, pixels, labels, again)
        same = (result.pair_adversarial - expected).abs() < 1e-5
        assert same.float().mean() > 0.99  # a sign may turn where a gradient is all but zero

    def test_kind03_the_pair_keeps_the_restarts(self, encode_image, encoder, batch, seeded):
        pixels, labels = batch
        right = []
        for restarts in (1, 4):
            image_attack = PGD(eps=2 / 255, num_steps=1, restarts=restarts, early_stop=False)
            seen = []

            def encode(x, seen=seen):
                seen.append(len(x))
                return encode_image(x)

            result = self.attack(image_attack)(encode, encoder, PROMPTS, pixels, labels, generator=seeded())
            right.append((result.pair_correct, sum(seen)))
        assert right[1][1] > right[0][1] + 3 * len(pixels), "every restart works on all images"

    def test_kind03_any_attack_serves_and_its_own_rules_hold(self, encode_image, encoder, batch, seeded):
        pixels, labels = batch
        signed = Signed(eps=8 / 255)
        result = self.attack(signed)(encode_image, encoder, PROMPTS, pixels, labels, generator=seeded())
        assert signed.calls == 2 and result.zero_gradient == 0
        moved = (result.pair_adversarial - pixels).abs().flatten(1).amax(1)
        assert torch.allclose(moved, torch.full_like(moved, 8 / 255), atol=1e-6), "never satisfied"

    @pytest.mark.parametrize("order", ["independent", "text_first", "joint"])
    def test_kind03_zero_gradients_are_measured_in_every_order(self, encode_image, encoder, batch, order):
        pixels, _ = batch

        def rounded(x):
            return encode_image((x * 8).round() / 8)

        with torch.no_grad():
            logits = F.normalize(rounded(pixels), dim=-1) @ F.normalize(encoder(PROMPTS), dim=-1).T
        attack = self.attack(PGD(eps=1 / 255, num_steps=2), order)
        result = attack(rounded, encoder, PROMPTS, pixels, logits.argmax(1), attacked_prompts=PROMPTS)
        assert result.zero_gradient == 1

    def test_kind03_joint_restarts_are_allowed(self, encode_image, encoder, batch, seeded):
        pixels, labels = batch
        attack = self.attack(PGD(eps=4 / 255, num_steps=2, restarts=3), "joint")
        result = attack(encode_image, encoder, PROMPTS, pixels, labels, generator=seeded())
        assert result.pair_adversarial is result.adversarial
