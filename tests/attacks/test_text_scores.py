"""Scores of altered texts against their definitions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hf_hierrobust.attacks import LabelFreeScore, PromptCrossEntropy, coordinate_kl


def test_coordinate_kl_near_and_far(seeded):
    reference = torch.randn(6, 512, generator=seeded())
    for step in (1e-4, 1e-2, 1.0, 100.0):
        other = reference + step * torch.randn(6, 512, generator=seeded(1))
        p, q = (F.normalize(a.double(), dim=-1).log_softmax(-1) for a in (reference, other))
        expected = F.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        # The plain form in fp32 loses the first of these, about 1e-11, in its rounding.
        torch.testing.assert_close(coordinate_kl(reference, other).double(), expected, rtol=3e-3, atol=1e-13)
    assert (coordinate_kl(reference, reference) == 0).all()
    assert (coordinate_kl(3 * reference, reference).abs() < 1e-12).all()


def test_label_free_score_finds_the_original():
    anchors = torch.eye(4)
    values = LabelFreeScore(anchors)(anchors[[2, 0, 1]], torch.tensor([2, 0, 3]))
    assert values[0] == values[1] == 0 and values[2] > 0


def test_prompt_cross_entropy_alters_one_prompt_at_a_time(seeded):
    images, prompts = torch.randn(7, 16, generator=seeded()), torch.randn(5, 16, generator=seeded(1))
    labels, index = torch.tensor([0, 1, 1, 2, 4, 4, 4]), torch.tensor([1, 4, 0, 1, 3])
    altered = torch.randn(5, 16, generator=seeded(2))
    expected = []
    for embedding, k in zip(altered, index):
        changed = prompts.clone()
        changed[k] = embedding
        logits = 100 * F.normalize(images, dim=-1) @ F.normalize(changed, dim=-1).T
        expected.append(F.cross_entropy(logits, labels))
    found = PromptCrossEntropy(images, labels, prompts, 100.0)(altered, index)
    torch.testing.assert_close(found, torch.stack(expected))
