"""A small network for scikit-learn's digits, 8 x 8 pixels, trained against one-step attacks in seconds."""

from __future__ import annotations

import contextlib

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

EPS = 0.12


def digits(images: int, epochs: int = 40):
    """The network twice, no kernels to choose, and test images with their labels."""
    data = load_digits()
    pixels = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 16, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    _train(net, pixels[:1300], labels[:1300], epochs)
    net.eval()
    return net, net, contextlib.nullcontext, pixels[1300 : 1300 + images], labels[1300 : 1300 + images]


def _train(net: nn.Module, pixels: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(pixels)).split(100):
            x, y = pixels[rows], labels[rows]
            noisy = (x + EPS * (2 * torch.rand_like(x) - 1)).clamp(0, 1).requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(net(noisy), y), noisy)
            attacked = (noisy + EPS * slope.sign()).clamp(x - EPS, x + EPS).clamp(0, 1).detach()
            optimizer.zero_grad()
            cross_entropy(net(attacked), y).backward()
            optimizer.step()
