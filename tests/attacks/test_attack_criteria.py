"""Attack losses and the roll-up of leaf logits."""

from __future__ import annotations

import pytest
import torch

from hf_hierrobust.attacks import cross_entropy, margin, misclassified
from hf_hierrobust.attacks.image.criteria import resolve_loss
from hf_hierrobust.classifiers import roll_up

ANCESTORS = torch.tensor([2, 0, 0, 2, 1, 2])


def reference(logits: torch.Tensor) -> torch.Tensor:
    logits = logits.double()
    return torch.stack([logits[:, v == ANCESTORS].logsumexp(1) for v in range(3)], 1)


def test_losses_per_image():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 3.5]])
    labels = torch.tensor([0, 1])
    assert torch.allclose(margin(logits, labels), torch.tensor([-1.0, 0.5]))
    assert torch.allclose(cross_entropy(logits, labels), -logits.double().log_softmax(1)[[0, 1], labels])
    assert misclassified(logits, labels).tolist() == [False, True]
    assert cross_entropy(logits.bfloat16(), labels).dtype == torch.float64


def test_margin_gradient_pulls_the_best_other_class_against_the_label():
    logits = torch.tensor([[2.0, 1.0, -1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(margin(logits, torch.tensor([0])).sum(), logits)
    assert gradient.tolist() == [[-1, 1, 0]]


def test_loss_by_name_or_callable():
    assert resolve_loss("ce") is cross_entropy
    assert resolve_loss("margin") is margin
    assert resolve_loss(misclassified) is misclassified
    with pytest.raises(ValueError, match=r"loss='cw' is unknown: choose one of ce, margin, dlr"):
        resolve_loss("cw")


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e4])
def test_roll_up_is_the_log_of_summed_probabilities(scale):
    logits = scale * torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    rolled = roll_up(logits, ANCESTORS, 3)
    assert rolled.dtype == torch.float32
    assert torch.allclose(rolled.double(), reference(logits), rtol=1e-6, atol=1e-5)
    summed = torch.zeros(20, 3, dtype=torch.float64).index_add(1, ANCESTORS, logits.double().softmax(1))
    assert torch.allclose(rolled.double().softmax(1), summed, atol=1e-6 * max(1, scale))


def test_roll_up_of_extreme_logits_has_finite_exact_gradients():
    # Sums inside one shared maximum would be log(0) for the superclasses 0 and 1.
    logits = torch.tensor([[900.0, -900.0, -901.0, 899.0, -1e30, 3e4], [0, 0, 0, 0, 1e30, -1e30]])
    logits.requires_grad_()
    rolled = roll_up(logits, ANCESTORS, 3)
    assert torch.isfinite(rolled).all()
    assert torch.allclose(rolled.double(), reference(logits.detach()), rtol=1e-6)
    weights = torch.tensor([[1.0, 10, 100], [1, 10, 100]])
    (gradient,) = torch.autograd.grad((rolled * weights).sum(), logits)
    exact = logits.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad((reference(exact) * weights).sum(), exact)
    assert torch.allclose(gradient.double(), expected, rtol=1e-5, atol=1e-30)
    assert gradient[0, 1] > 0.5, "the far superclass lost its gradient"


def test_roll_up_refuses_a_tree_of_other_classes():
    with pytest.raises(ValueError, match=r"ancestors has shape \(6,\) but there are 5 leaf logits: align"):
        roll_up(torch.zeros(2, 5), ANCESTORS, 3)
