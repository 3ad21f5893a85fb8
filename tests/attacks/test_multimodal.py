"""Images and prompts attacked together: the orders, and verdicts that can be recomputed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tiny_text import tiny_encoder

from hf_hierrobust.attacks import (
    PGD,
    GradientAttack,
    MultimodalAttack,
    PromptCrossEntropy,
    coordinate_kl,
)
from hf_hierrobust.attacks.image.base import Attack

PROMPTS = [f"a photo of a {name}" for name in ("cat", "dog", "oak", "rose")]
IMAGE_ATTACK = PGD(eps="16/255", num_steps=4)


@dataclass(kw_only=True)
class Still(Attack):
    """An attack without a loss: it leaves the pixels alone."""

    name: ClassVar[str] = "still"

    def run(self, victim, pixels, labels, generator):
        return pixels


@pytest.fixture
def encoder():
    return tiny_encoder()


@pytest.fixture
def encode_image(encoder):
    return lambda pixels: encoder.module.get_image_features(pixel_values=6 * pixels - 3).pooler_output


@pytest.fixture
def batch(encode_image, encoder):
    pixels = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    encoder.module.eval()
    with torch.no_grad():
        features, text = encode_image(pixels), encoder(PROMPTS)
        # The images of an untrained model all look alike: the prompts move to where the images are.
        directions = F.normalize(features - features.mean(0), dim=-1)[:4]
        matrix = torch.linalg.lstsq(text, 3 * directions + 1e-3 * text).solution
        weight = encoder.module.text_projection.weight
        weight.copy_(matrix.T @ weight)
        labels = predict(features, encoder(PROMPTS))
    assert len(labels.unique()) > 1
    labels[-4:] = (labels[-4:] + 1) % 4
    return pixels, labels


def predict(images, texts):
    return (F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T).argmax(1)


def attack(order, **options) -> MultimodalAttack:
    return MultimodalAttack(image_attack=IMAGE_ATTACK, text_attack=GradientAttack(), order=order, **options)


@pytest.mark.parametrize("order", ["independent", "text_first", "joint"])
def test_verdicts_are_those_of_what_is_returned(order, encode_image, encoder, batch, seeded):
    pixels, labels = batch
    model = encoder.module.train()
    result = attack(order)(encode_image, encoder, PROMPTS, pixels, labels, generator=seeded())
    assert all(part.training for part in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())

    model.eval()
    assert (result.adversarial - pixels).abs().max() <= 16 / 255 + 1e-6
    assert all(a != b for a, b in zip(result.prompts, PROMPTS))
    with torch.no_grad():
        found = (pixels, result.adversarial, result.pair_adversarial)
        images = [encode_image(each) for each in found]
    texts = [encoder(PROMPTS), encoder(result.prompts)]
    pairs = (result.clean_correct, result.image_correct, result.text_correct, result.pair_correct)
    for verdict, (text, image) in zip(pairs, [(0, 0), (0, 1), (1, 0), (1, 2)]):
        assert torch.equal(verdict, predict(images[image], texts[text]) == labels)
    assert torch.equal(result.robust_correct, torch.stack(pairs).all(0))
    assert result.clean_correct.sum() == 20 and result.robust_correct.sum() < 20
    assert result.zero_gradient == 0


def test_orders_differ_in_what_the_pixels_are_attacked_against(encode_image, encoder, batch, seeded):
    pixels, labels = batch
    scale = encoder.module.logit_scale.detach().exp()
    prompts = GradientAttack()(PROMPTS, encoder).texts
    for order, texts in (("independent", PROMPTS), ("text_first", prompts)):
        target = F.normalize(encoder(texts), dim=-1)

        def classifier(x, target=target):
            return scale * F.normalize(encode_image(x), dim=-1) @ target.T

        expected = IMAGE_ATTACK(classifier, pixels, labels, generator=seeded())
        result = attack(order)(encode_image, encoder, PROMPTS, pixels, labels, generator=seeded())
        assert result.prompts == prompts
        torch.testing.assert_close(result.adversarial, expected.adversarial)


def test_the_independent_pair_is_judged_on_the_last_iterate(encode_image, encoder, batch, seeded):
    """The iterate that first breaks an image stands next to the boundary; MMCoA's mode 3 goes on."""
    pixels, labels = batch
    result = attack("independent")(encode_image, encoder, PROMPTS, pixels, labels, generator=seeded())
    scale = encoder.module.logit_scale.detach().exp()
    texts = F.normalize(encoder(PROMPTS), dim=-1)

    def loss(x):
        logits = scale * F.normalize(encode_image(x), dim=-1) @ texts.T
        return F.cross_entropy(logits, labels, reduction="none")

    with torch.no_grad():
        first, last = loss(result.adversarial), loss(result.pair_adversarial)
    assert last.mean() > first.mean() + 0.5
    first_text = attack("text_first")(encode_image, encoder, PROMPTS, pixels, labels)
    assert first_text.pair_adversarial is first_text.adversarial


def test_joint_order_raises_the_published_loss(encode_image, encoder, batch, seeded):
    pixels, labels = batch
    image_attack = PGD(eps="16/255", num_steps=5)
    joint = MultimodalAttack(image_attack=image_attack, text_attack=GradientAttack(), order="joint")
    result = joint(encode_image, encoder, PROMPTS, pixels, labels, generator=seeded())
    own = encoder(result.prompts)[labels]

    def loss(x):
        with torch.no_grad():
            features, clean = encode_image(x), encode_image(pixels)
        return coordinate_kl(clean, features) + 3 * coordinate_kl(own, features)

    noise = (torch.rand_like(pixels) - 0.5).sign() * 16 / 255
    assert (loss(result.adversarial) > loss((pixels + noise).clamp(0, 1))).all()


def test_prompts_can_be_attacked_against_the_images_or_once_for_all(encode_image, encoder, batch, seeded):
    pixels, labels = batch
    result = attack("independent", text_score="images")(encode_image, encoder, PROMPTS, pixels, labels)
    with torch.no_grad():
        features = encode_image(pixels)
    score = PromptCrossEntropy(features, labels, encoder(PROMPTS), encoder.module.logit_scale.exp().detach())
    assert result.prompts == GradientAttack()(PROMPTS, encoder, score=score).texts

    given = ["a thing", "a plant", "a animal", "a photo"]
    result = attack("text_first")(
        encode_image, encoder, PROMPTS, pixels, labels, attacked_prompts=given, generator=seeded()
    )
    assert result.prompts == given


def test_bad_input(encode_image, encoder, batch):
    pixels, labels = batch
    run = attack("independent")
    for arguments, error, message in (
        (("a dog", pixels, labels), TypeError, "prompts is one string"),
        ((PROMPTS, pixels * 255, labels), ValueError, "divide 8-bit images by 255"),
        ((PROMPTS, pixels, labels[:, None]), ValueError, r"labels have shape \(24, 1\)"),
        ((PROMPTS[:2], pixels, labels * 0 + 3), ValueError, r"\[3, 3\] but there are 2 classes"),
    ):
        with pytest.raises(error, match=message):
            run(encode_image, encoder, *arguments)
    with pytest.raises(ValueError, match="attacked_prompts has 1 texts but there are 4 prompts"):
        run(encode_image, encoder, PROMPTS, pixels, labels, attacked_prompts=["a"])
    for options, message in (
        ({"order": "image_first"}, "order='image_first'"),
        ({"text_score": "kl"}, "text_score='kl'"),
        ({"text_weight": -1}, "text_weight=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            MultimodalAttack(**options)
    with pytest.raises(TypeError, match="Still cannot: give an image_attack with a loss option"):
        MultimodalAttack(image_attack=Still(), order="joint")
    described = attack("joint").describe()
    assert described["order"] == "joint" and described["image"]["name"] == "pgd"
    assert described["text"]["name"] == "gradient"
