"""A cheap model searches for perturbations, the model itself judges them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hf_hierrobust.attacks import PGD, TargetedFAB


class TestSearchModel:
    """A cheap model may search, but the model itself judges."""

    def run(self, model, images, labels, search, **options):
        attack = PGD(eps=5 / 255, num_steps=5, **options)
        generator = torch.Generator().manual_seed(1)
        return attack(model, images, labels, search=search, generator=generator)

    @pytest.mark.parametrize("early_stop", [True, False])
    def test_bf16_search_with_fp32_verdict(self, net, images, labels, early_stop):
        kinds = set()

        def search(pixels):
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(pixels)
            kinds.add(logits.dtype)
            return logits

        result = self.run(net, images, labels, search, early_stop=early_stop)
        full = self.run(net, images, labels, None, early_stop=early_stop)
        assert kinds == {torch.bfloat16}
        with torch.no_grad():
            after = net(result.adversarial).argmax(1) == labels
        assert torch.equal(after & result.clean_correct, result.robust_correct)
        assert 0 < result.robust_correct.sum() < result.clean_correct.sum()
        assert (result.robust_correct ^ full.robust_correct).sum() <= 2

    def test_false_alarms_are_not_counted(self, net, images, labels):
        def alarmist(pixels):
            return net(pixels) * 1e-3 - 9 * F.one_hot(net(images[: len(pixels)]).argmax(1), 4)

        def always_wrong(pixels):
            logits = net(pixels)
            return logits - 1e3 * F.one_hot(logits.argmax(1), 4)

        for search in (alarmist, always_wrong):
            result = self.run(net, images, labels, search)
            with torch.no_grad():
                after = net(result.adversarial).argmax(1) == labels
            assert torch.equal(after & result.clean_correct, result.robust_correct)

    def test_last_iterate_is_judged_even_if_the_search_model_sees_no_mistake(self, net, images, labels):
        def blind(pixels):
            logits = net(pixels)
            truth = labels[(pixels[:, None] - images).abs().flatten(2).amax(2).argmin(1)]
            return logits + 1e3 * F.one_hot(truth, 4).detach()

        result = self.run(net, images, labels, blind, loss="margin")
        with torch.no_grad():
            after = net(result.adversarial).argmax(1) == labels
        assert result.robust_correct.sum() < result.clean_correct.sum()
        assert torch.equal(after & result.clean_correct, result.robust_correct)

    def test_verdict_and_clean_accuracy_are_the_models(self, net, images, labels):
        result = self.run(net, images, labels, lambda x: -net(x))
        with torch.no_grad():
            assert torch.equal(result.clean_correct, net(images).argmax(1) == labels)

    def test_fab_asks_the_model_about_points_it_would_keep(self, net, images, labels):
        """Most of its points lie beyond the boundary, far from the image."""
        asked, sought = [], []

        def judge(pixels):
            asked.append(len(pixels))
            return net(pixels)

        def search(pixels):
            sought.append(len(pixels))
            return net(pixels)

        attack = TargetedFAB(eps=5 / 255, num_steps=20, num_targets=3)
        found = attack(judge, images, labels, search=search)
        alone = attack(net, images, labels)
        assert 0 < alone.robust_correct.sum() < alone.clean_correct.sum()
        assert torch.equal(found.robust_correct, alone.robust_correct)
        assert torch.equal(found.adversarial, alone.adversarial)
        assert sum(asked) < 0.3 * sum(sought)
