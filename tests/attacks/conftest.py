"""Small classifiers that attacks can and cannot break."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


def noise_images(count: int, seed: int) -> Tensor:
    """(count, 3, 8, 8) in [0, 1], with black and white pixels."""
    pixels = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    pixels[:, :, 0], pixels[:, :, 1] = 0, 1
    return pixels


class ToyNet(nn.Module):
    """A convolution with everything that an attack could disturb: batch statistics, dropout, frozen parts."""

    def __init__(self, classes: int = 4, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 16, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(std=0.3, generator=generator)
            # Centred, so that every class is predicted for some images; steep, so that small steps matter.
            self.eval()
            self.head.bias -= self(noise_images(256, seed=9)).mean(0)
            self.head.weight *= 10
            self.head.bias *= 10

    def forward(self, pixels: Tensor) -> Tensor:
        x = nn.functional.gelu(self.norm(self.stem(pixels)))
        x = nn.functional.avg_pool2d(x, 2)
        return self.head(self.drop(x).flatten(1))


@pytest.fixture
def net() -> ToyNet:
    return ToyNet()


@pytest.fixture
def images() -> Tensor:
    return noise_images(48, seed=3)


@pytest.fixture
def labels(net, images) -> Tensor:
    """(48,) what `net` predicts, wrong on purpose for the last six images."""
    with torch.no_grad():
        predicted = net(images).argmax(1)
    predicted[-6:] = (predicted[-6:] + 1) % 4
    return predicted


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(name="seeded")
def seeded_fixture():
    return seeded


@pytest.fixture(scope="module")
def wide():
    """A network of 12 classes, images, and what it calls them."""
    net, pixels = ToyNet(12).eval(), noise_images(32, seed=3)
    with torch.no_grad():
        return net, pixels, net(pixels).argmax(1)
