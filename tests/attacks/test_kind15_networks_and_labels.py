"""Kind 15: what networks return, their precision, and labels of every number type; else one sentence."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import ImageClassifierOutput

from hf_hierrobust.attacks import ATTACKS, PGD, AutoAttack, NoGradientError, TrainingPGD
from hf_hierrobust.attacks.image.auto_attack import MEMBERS
from hf_hierrobust.classifiers import Classifier, SuperclassView, UnsteadyClassifierWarning
from hf_hierrobust.hierarchy import LabelTree

ATTACK = PGD(eps=4 / 255, num_steps=3)

OUTPUTS = {
    "tuple": lambda z: (z,),
    "loss, then logits": lambda z: (z.sum(), z, (z[:, None],)),
    "loss an image, then logits": lambda z: (z.sum(1), z),
    "list": lambda z: [z, z[:, :2]],
    "dict": lambda z: {"loss": z.sum(), "logits": z},
    "dict of one": lambda z: {"out": z},
    "ModelOutput": lambda z: ImageClassifierOutput(logits=z, hidden_states=(z, z)),
    "image-text output": lambda z: SimpleNamespace(logits_per_image=z, logits_per_text=z.T),
    "bf16": lambda z: z.bfloat16(),
    "float64": lambda z: z.double(),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_kind15_logits_are_found_in_what_a_network_returns(kind, net, images, labels, seeded):
    expected = ATTACK(net, images, labels, generator=seeded())
    found = ATTACK(lambda x: OUTPUTS[kind](net(x)), images, labels, generator=seeded())
    assert abs(int(found.robust_correct.sum()) - int(expected.robust_correct.sum())) <= (kind == "bf16")
    assert found.clean_correct.sum() == expected.clean_correct.sum()


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (
            lambda z: z[:, 0],
            ValueError,
            r"one score an image, shape \(48,\): return one logit a class",
        ),
        (lambda z: z[:, :1], ValueError, r"one score an image, shape \(48, 1\)"),
        (lambda z: (z[:, 0],), ValueError, r"one score an image"),
        (lambda z: z[:, :, None], ValueError, r"shape \(48, 4, 1\) for 48 images: expected logits \(48, K\)"),
        (lambda z: z[:7], ValueError, r"shape \(7, 4\) for 48 images"),
        (lambda z: z.argmax(1), ValueError, "one score an image"),
        (lambda z: z.round().long(), TypeError, "torch.int64 values: logits are floating-point"),
        (lambda z: {"a": z, "b": z}, TypeError, r"a dict without logits \(it has a, b\)"),
        (lambda z: {}, TypeError, r"a dict without logits \(it has nothing\)"),
        (lambda z: None, TypeError, "a NoneType without logits"),
        (lambda z: (), TypeError, "a tuple without logits"),
        (lambda z: z.detach().numpy(), TypeError, "a ndarray without logits"),
        (lambda z: "cat", TypeError, "a str without logits"),
    ],
)
def test_kind15_what_is_no_logits_gets_one_sentence(output, error, message, net, images, labels):
    with pytest.raises(error, match=message) as caught:
        ATTACK(lambda x: output(net(x)), images, labels)
    assert "\n" not in str(caught.value)


NO_PATH = {
    "no_grad": lambda net: torch.no_grad()(net.forward),
    "detached": lambda net: lambda x: net(x).detach(),
    "detached pixels": lambda net: lambda x: net(x.detach()),
    "numpy inside": lambda net: lambda x: net(torch.from_numpy((x.detach() * 1).numpy())),
    "8 bit": lambda net: lambda x: net((x * 255).byte().float() / 255),
    "inference mode": lambda net: torch.inference_mode()(net.forward),
}


@pytest.mark.parametrize("kind", NO_PATH)
@pytest.mark.parametrize("trains", [False, True])
def test_kind15_a_callable_without_gradient_path_gets_one_sentence(kind, trains, net, images, labels):
    classifier = NO_PATH[kind](net)
    with pytest.raises(
        NoGradientError, match="no gradient leads from the attacked loss to the pixels"
    ) as caught:
        if trains:
            TrainingPGD().perturb(lambda x, *_: classifier(x).sum(1), images)
        else:
            ATTACK(classifier, images, labels)
    assert "\n" not in str(caught.value)


def test_kind15_rounding_inside_is_a_zero_gradient(net, images, labels, seeded):
    found = ATTACK(lambda x: net((x * 255).round() / 255), images, labels, generator=seeded())
    assert found.zero_gradient == 1, "round has a gradient, and it is zero"


@pytest.mark.parametrize(
    "convert",
    [
        lambda y: y.int(),
        lambda y: y.to(torch.uint8),
        lambda y: y.float(),
        lambda y: y.half(),
        lambda y: y.numpy(),
        lambda y: y.numpy().astype(np.int16),
        lambda y: y.tolist(),
        lambda y: tuple(map(float, y.tolist())),
        lambda y: [torch.tensor(v) for v in y.tolist()],
    ],
)
def test_kind15_labels_of_any_number_type(convert, net, images, labels, seeded):
    expected = ATTACK(net, images, labels, generator=seeded())
    found = ATTACK(net, images, convert(labels), generator=seeded())
    assert torch.equal(found.robust_correct, expected.robust_correct)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda y: y + 0.5, ValueError, "labels of dtype torch.float32 are not whole numbers"),
        (lambda y: ["cat"] * len(y), TypeError, "labels are not class indices, one an image"),
        (lambda y: None, TypeError, "labels are not class indices"),
        (lambda y: np.array([None] * len(y)), TypeError, "labels are not class indices"),
        (lambda y: y.float() * torch.nan, ValueError, "not whole numbers"),
        (lambda y: y[:, None], ValueError, r"labels have shape \(48, 1\)"),
        (lambda y: 3, ValueError, r"labels have shape \(\): expected \(48,\)"),
    ],
)
def test_kind15_labels_that_are_none_get_one_sentence(bad, error, message, net, images, labels):
    with pytest.raises(error, match=message) as caught:
        ATTACK(net, images, bad(labels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_kind15_networks_in_other_precisions(dtype, net, images, labels, seeded):
    net.to(dtype)
    with torch.no_grad():
        labels = net.double()(images.double()).argmax(1)
    net.to(dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ATTACK(net, images, labels, generator=seeded())
    says = [
        str(w.message) for w in caught if "weights: it is attacked and judged in float32" in str(w.message)
    ]
    assert bool(says) == (dtype != torch.float64)
    assert found.clean_correct.all() and found.zero_gradient == 0
    assert 0 < found.robust_correct.sum() < 40
    expected = ATTACK(net.double(), images, labels, generator=seeded())
    assert torch.equal(found.robust_correct, expected.robust_correct)
    assert {p.dtype for p in net.parameters()} == {
        torch.float64
    } and net.norm.running_mean.dtype == torch.float64


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_kind15_every_attack_of_auto_attack_on_a_float64_network(norm, net, images, labels):
    attacks = AutoAttack(MEMBERS, eps=4 / 255 if norm == "linf" else 0.2, norm=norm, seed=0)
    options = {"num_steps": 3, "num_queries": 5}
    for one in attacks:
        one = replace(one, **{name: value for name, value in options.items() if hasattr(one, name)})
        expected = AutoAttack([one], seed=0)(net.float(), images, labels)
        found = AutoAttack([one], seed=0)(net.double(), images, labels)
        assert found.adversarial.dtype == torch.float32, "the pixels', not the network's"
        assert torch.equal(found.clean_correct, expected.clean_correct)
        assert (found.robust_correct != expected.robust_correct).sum() <= 1, "a rounding apart"


@pytest.mark.parametrize("name", ["pgd", "apgd", "fab", "square"])
def test_kind15_a_network_that_writes_into_its_input(name, net, images, labels):
    def normalises(pixels):
        return net(pixels.sub_(0.5).div_(0.5))

    short = {"num_queries": 20} if name == "square" else {"num_steps": 5}
    attacks, before = AutoAttack([ATTACKS.get(name)(eps=4 / 255, **short)], seed=0), images.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnsteadyClassifierWarning)
        found = attacks(normalises, images, labels)
    expected = attacks(lambda x: net((x - 0.5) / 0.5), images, labels)
    assert torch.equal(images, before) and torch.equal(found.adversarial, expected.adversarial)
    assert torch.equal(found.robust_correct, expected.robust_correct)


def test_kind15_a_function_before_a_half_network_says_what_to_do(net, images, labels):
    net.bfloat16()
    with pytest.raises(
        TypeError, match=r"the network behind it has torch.bfloat16 weights; hand over the network"
    ):
        ATTACK(lambda x: net(x), images, labels)
    net.float()
    assert ATTACK(lambda x: net(x), images.double(), labels).clean_correct.any(), "float64 pixels are cast"


def test_kind15_default_dtype_float64(net, images, labels, seeded):
    expected = ATTACK(net, images, labels, generator=seeded())
    tree = LabelTree.from_paths({"a": ["x"], "b": ["x"], "c": ["y"], "d": ["y"]}, name="t")
    torch.set_default_dtype(torch.float64)
    try:
        for pixels in (images, images.double()):
            found = ATTACK(net, pixels, labels, generator=seeded())
            assert torch.equal(found.robust_correct, expected.robust_correct)
            assert found.adversarial.dtype == pixels.dtype
        for options in ({"norm": "l2", "eps": 0.3}, {"random_start": "gaussian"}, {"loss": "margin"}):
            PGD(num_steps=2, **options)(net, images.double(), labels, generator=seeded())
        ATTACK(SuperclassView(net, tree, 1), images, labels // 2, generator=seeded())
        TrainingPGD().perturb(lambda x: net(x).sum(1), images, generator=seeded())
    finally:
        torch.set_default_dtype(torch.float32)


class TestClassifier:
    """`Classifier(net, mean, std)`: a network that normalises nothing itself."""

    MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]

    def test_normalises_inside(self, net, images, labels, seeded):
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.MEAN, self.STD))
        classifier = Classifier(net, self.MEAN, self.STD)
        with torch.no_grad():
            net.eval()
            assert torch.equal(classifier(images), net((images - mean) / std))
            labels = classifier(images).argmax(1)
        found = ATTACK(classifier, images, labels, generator=seeded())
        expected = ATTACK(lambda x: net((x - mean) / std), images, labels, generator=seeded())
        assert torch.equal(found.adversarial, expected.adversarial)
        assert ((found.adversarial - images).abs() <= 4 / 255 + 1e-6).all(), "eps is in pixel scale"

    def test_one_value_serves_all_channels_and_tensors_do_too(self, net, images):
        one = Classifier(net, 0.5, 0.25)(images)
        assert torch.equal(one, Classifier(net, torch.full((3,), 0.5), torch.full((3, 1, 1), 0.25))(images))

    def test_search_under_autocast(self, net, images, labels, seeded):
        classifier = Classifier(net, self.MEAN, self.STD)
        search = classifier.with_autocast(torch.bfloat16)
        assert search(images).dtype == torch.float32
        found = ATTACK(classifier, images, labels, search=search, generator=seeded())
        with torch.no_grad():
            right = classifier(found.adversarial).argmax(1) == labels
        assert torch.equal(found.robust_correct, found.clean_correct & right)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((3,), TypeError, "net is a int: pass a callable"),
            (("module", [124.0, 116.0, 104.0], [58.0, 57.0, 57.0]), ValueError, "scale of 8-bit images"),
            (("module", [0.5] * 3, [0.5, 0.0, 0.5]), ValueError, "must be positive"),
            (("module", ["red"], [1]), ValueError, "must be one number a channel"),
            (("module", [torch.nan], [1]), ValueError, "one finite number a channel"),
        ],
    )
    def test_bad_arguments(self, arguments, error, message, net):
        arguments = [net if a == "module" else a for a in arguments]
        with pytest.raises(error, match=message):
            Classifier(*arguments)

    def test_channels_must_fit(self, net, images):
        with pytest.raises(ValueError, match=re.escape("mean and std have 2 channels but the pixels 3")):
            Classifier(net, [0.5, 0.5], [1, 1])(images)


def test_kind15_a_quantised_network_gets_one_sentence(net, images, labels):
    quantised = torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(NoGradientError, match="no gradient leads"):
        ATTACK(quantised, images, labels)
