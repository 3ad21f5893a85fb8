"""Kind 5: whatever callable stands before a network, it is attacked in evaluation mode and left as it was."""

from __future__ import annotations

import functools
import threading
import types
import warnings

import pytest
import torch
from torch import nn

from hf_hierrobust.attacks import PGD
from hf_hierrobust.classifiers import UnsteadyClassifierWarning, frozen, modules_behind
from hf_hierrobust.modes import evaluating

GLOBAL: nn.Module | None = None
NETS: dict[str, nn.Module] = {}
elsewhere = types.ModuleType("elsewhere")


class Wrapped:
    def __init__(self, net):
        self.inner = {"nets": [net]}

    def __call__(self, pixels):
        return self.inner["nets"][0](pixels)

    def logits(self, pixels):
        return self(pixels)


class Slotted:
    __slots__ = ("net",)

    def __init__(self, net):
        self.net = net

    def __call__(self, pixels):
        return self.net(pixels)


class Reader:
    """A callable object whose method reads a global."""

    def __call__(self, pixels):
        return GLOBAL(pixels)


def apply(net, pixels, scale=1.0):
    return net(pixels) * scale


def with_default(net):
    def classify(pixels, *, model=net):
        return model(pixels)

    return classify


def decorated(net):
    @functools.wraps(net.forward)
    def inner(pixels):
        return net(pixels)

    return torch.enable_grad()(inner)


def nested(net):
    return lambda pixels: (lambda x: net(x))(pixels)


def read_global(pixels):
    return GLOBAL(pixels)


def read_indirectly(pixels):
    return read_global(pixels)


def read_mapping(pixels):
    return NETS["it"](pixels)


def read_module(pixels):
    return elsewhere.net(pixels)


CALLABLES = {
    "module": lambda net: net,
    "lambda": lambda net: lambda x: net(x),
    "bound method": lambda net: net.forward,
    "partial": lambda net: functools.partial(apply, net, scale=1.0),
    "partial of a keyword": lambda net: functools.partial(lambda x, model: model(x), model=net),
    "partial of a method": lambda net: functools.partial(Wrapped(net).logits),
    "closure in a closure": nested,
    "default argument": with_default,
    "decorated": decorated,
    "callable object": Wrapped,
    "method of an object": lambda net: Wrapped(net).logits,
    "slots": Slotted,
    "attribute chain": lambda net: Slotted(
        types.SimpleNamespace(module=types.SimpleNamespace(module=net)).module.module
    ),
    "global": lambda net: read_global,
    "global of a function that it calls": lambda net: read_indirectly,
    "global mapping": lambda net: read_mapping,
    "attribute of an imported module": lambda net: read_module,
    "object that reads a global": lambda net: Reader(),
    "data parallel": lambda net: nn.DataParallel(net),
}


@pytest.fixture
def busy(net):
    """In training mode, one part not; its statistics would move."""
    global GLOBAL
    net.train()
    net.drop.eval()
    net.stem.weight.requires_grad_(False)
    GLOBAL = NETS["it"] = elsewhere.net = net
    yield net
    GLOBAL = NETS["it"] = elsewhere.net = None


def state(net) -> tuple:
    return (
        [m.training for m in net.modules()],
        [p.requires_grad for p in net.parameters()],
        [p.grad for p in net.parameters()],
        {k: v.tolist() for k, v in net.state_dict().items()},
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("kind", CALLABLES)
def test_kind05_a_network_behind_any_callable_is_attacked_in_evaluation_mode(
    kind, busy, images, labels, seeded
):
    busy.eval()
    attack = PGD(eps=4 / 255, num_steps=3)
    expected = attack(busy, images, labels, generator=seeded())
    busy.train()
    busy.drop.eval()
    before = state(busy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attack(CALLABLES[kind](busy), images, labels, generator=seeded())
    assert torch.equal(found.robust_correct, expected.robust_correct)
    assert torch.equal(found.clean_correct, expected.clean_correct)
    torch.testing.assert_close(found.adversarial, expected.adversarial)
    assert state(busy) == before


@pytest.mark.parametrize("kind", CALLABLES)
def test_kind05_everything_is_restored_when_the_classifier_raises(kind, busy, images, labels):
    before = state(busy)
    handle = busy.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("out of cheese")))
    with pytest.raises(RuntimeError, match="out of cheese"):
        PGD(num_steps=2)(CALLABLES[kind](busy), images, labels)
    handle.remove()
    assert state(busy) == before


def test_kind05_search_is_frozen_too(busy, images, labels, seeded):
    before = state(busy)
    PGD(num_steps=2)(busy, images, labels, search=functools.partial(apply, busy), generator=seeded())
    assert state(busy) == before


def test_kind05_threads_attack_one_model_at_the_same_time(busy, images, labels, seeded):
    busy.eval()
    attack = PGD(eps=4 / 255, num_steps=4, restarts=2)
    expected = [attack(busy, images, labels, generator=seeded(i)).robust_correct for i in range(6)]
    busy.train()
    busy.drop.eval()
    before = state(busy)
    found, barrier = [None] * 6, threading.Barrier(6)

    def work(index):
        barrier.wait()
        classifier = list(CALLABLES.values())[index](busy)
        found[index] = attack(classifier, images, labels, generator=seeded(index)).robust_correct

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, expected))
    assert state(busy) == before


def test_kind05_the_last_user_restores_whichever_leaves_first(busy):
    """Attacks and encoders of prompts (`evaluating`) share the count, and parts of a model their whole."""
    before = state(busy)
    first, second, part = frozen(busy), evaluating(busy), frozen(busy.stem)
    first.__enter__()
    second.__enter__()
    part.__enter__()
    first.__exit__(None, None, None)
    assert not any(m.training for m in busy.modules())
    assert not busy.stem.bias.requires_grad and busy.head.weight.requires_grad
    part.__exit__(None, None, None)
    assert not any(m.training for m in busy.modules())
    second.__exit__(None, None, None)
    assert state(busy) == before


def test_kind05_a_classifier_that_answers_differently_twice_is_named(net, images, labels, seeded):
    def noisy_defence(pixels):
        noise = torch.randn(
            pixels.shape, generator=torch.Generator().manual_seed(int(torch.randint(999, ())))
        )
        return net(pixels + 0.05 * noise)

    with pytest.warns(
        UnsteadyClassifierWarning, match=r"noisy_defence answers the same .* differ by up to \d"
    ):
        PGD(num_steps=1)(noisy_defence, images, labels, generator=seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PGD(num_steps=1)(noisy_defence, images, labels, generator=seeded())  # once is enough
        PGD(num_steps=1)(net, images, labels, generator=seeded())


def test_kind05_a_classifier_that_depends_on_its_batch_is_named(net, images, labels, seeded):
    def by_batch(pixels):
        z = net(pixels)
        return z - z.mean(0)

    with pytest.warns(UnsteadyClassifierWarning, match=r"by_batch answers an image depending on the others"):
        PGD(num_steps=1)(by_batch, images, labels, generator=seeded())


def test_kind05_only_the_networks_of_the_callable_are_frozen(net):
    other = nn.Linear(2, 2)
    assert modules_behind(lambda x: net(x), None) == [net]
    assert modules_behind(functools.partial(apply, net), lambda x: other(x)) == [net, other]
    assert modules_behind(lambda x: net.head(net.stem(x)), net.stem) == [net]
    assert modules_behind(torch.relu, lambda x: x.flatten(1)[:, :2]) == []
