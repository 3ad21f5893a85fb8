"""Drift of the image tower: hooked tokens as oracle, the record's checks, and what reaches the card."""

from __future__ import annotations

import pytest
import torch
from example_records import make_record
from transformers import CLIPVisionModel

from hf_hierrobust.evaluation.drift import patch_tokens, token_drift
from hf_hierrobust.evaluation.records import RobustnessRecord
from hf_hierrobust.modeling import PixelPipeline, load_robust_model
from hf_hierrobust.reports.drift import drift_sentences
from hf_hierrobust.runs.evaluate import evaluate
from hf_hierrobust.threat import ThreatModel


@pytest.fixture(scope="module")
def towers(tiny_clip_dir):
    base, model = load_robust_model(tiny_clip_dir), load_robust_model(tiny_clip_dir)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.vision_model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, base


def test_tokens_are_those_that_enter_the_last_block(towers, tiny_clip_dir):
    _, base = towers
    pixels = torch.randn(3, 3, 32, 32)
    entered = []
    last = base.vision_model.encoder.layers[-1]

    def watch(module, args, kwargs):
        entered.append(args[0] if args else kwargs["hidden_states"])

    handle = last.register_forward_pre_hook(watch, with_kwargs=True)
    with torch.no_grad():
        tokens = patch_tokens(base, pixels)
    handle.remove()
    assert tokens.shape == (3, 16, 32) and torch.equal(tokens, entered[0][:, 1:])
    stock = CLIPVisionModel.from_pretrained(tiny_clip_dir)
    with torch.no_grad():
        assert torch.allclose(tokens, stock(pixels, output_hidden_states=True).hidden_states[-2][:, 1:])


def test_drift_is_the_mean_cosine_and_the_attack_lowers_it_within_its_budget(towers):
    from transformers import CLIPImageProcessor

    model, base = towers
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipeline, pixels = (
        PixelPipeline(images),
        torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    )
    seen = []

    def watched(x):
        seen.append((x.detach() - pixels).abs().max().item())
        return pipeline(x)

    found = token_drift(model, base, pixels, watched, ThreatModel("linf", 4 / 255, "native"), num_steps=5)
    with torch.no_grad():
        own, anchor = patch_tokens(model, pipeline(pixels)), patch_tokens(base, pipeline(pixels))
        norms = own.norm(dim=-1) * anchor.norm(dim=-1)
        by_hand = ((own * anchor).sum(-1) / norms).mean()
    assert found["clean"] == pytest.approx(by_hand.item(), abs=1e-6)
    assert found["attacked"] < found["clean"] - 0.01 and found["base_attacked"] < 0.99
    assert max(seen) <= 4 / 255 + 1e-6 and (found["tokens"], found["num_samples"]) == (16, 4)
    # Without a budget the base is itself; a tower beside itself is not the attack's doing.
    still = token_drift(base, base, pixels, pipeline, ThreatModel("linf", 1e-6, "native"), num_steps=1)
    assert min(still["clean"], still["base_attacked"]) > 0.9999
    assert all(p.requires_grad for p in base.vision_model.parameters())
    halves = token_drift(model, base, pixels.split(2), pipeline, ThreatModel("linf", 4 / 255, "native"))
    assert halves["clean"] == pytest.approx(found["clean"], abs=1e-6) and halves["num_samples"] == 4


def test_records_of_the_leaves_by_cosine_carry_it(tiny_clip_dir, tiny_images, tiny_tree):
    records = evaluate(
        tiny_clip_dir, tiny_images, tree=tiny_tree, eps=["1/255", "4/255"], attack="pgd-ce", num_steps=1,
        drift_base=tiny_clip_dir, drift_samples=5, progress=False,
    )  # fmt: skip
    told = [record for record in records if record.drift]
    assert {(r.level, r.classifier, r.attack["eps_text"]) for r in told} == {
        (0, "cosine", "1/255"),
        (0, "cosine", "4/255"),
    }
    one, four = (record.drift for record in told)
    assert one["clean"] == pytest.approx(1, abs=1e-5) and four["attacked"] < one["attacked"] < 1
    assert four["attacked"] == four["base_attacked"] and four["num_samples"] == 5


DRIFT = {
    "base": "openai/clip",
    "layer": -2,
    "tokens": 256,
    "num_samples": 32,
    "num_steps": 10,
    "clean": 0.93,
    "attacked": 0.81,
    "base_attacked": 0.12,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clean": 1.2}, "must be a cosine"),
        ({"attacked": 0.95}, "is above drift.clean"),
        ({"num_samples": 201}, "at most the record's num_samples=200"),
        ({"tokens": 2.5}, "drift.tokens"),
        ({"layer": -1}, "drift.layer=-1 must be -2"),
        ({"base": ""}, "must name the base"),
        ({"extra": 1}, "must hold"),
    ],
)
def test_a_record_refuses_a_drift_that_cannot_be(changes, words):
    with pytest.raises(ValueError, match=words):
        make_record(drift=DRIFT | changes)


def test_it_survives_the_file_and_stands_on_the_card():
    from hf_hierrobust.hub.card import render_card
    from hf_hierrobust.hub.facts import CardFacts

    record = make_record(drift=DRIFT)
    assert RobustnessRecord.from_dict(record.to_dict()) == record
    with pytest.raises(ValueError, match="stands with the leaves' cosine"):
        make_record(drift=DRIFT, classifier="rollup")
    card = render_card(
        CardFacts(
            model_name="m",
            base_model="openai/clip",
            objective="hier_robust",
            threat_model="linf",
            records=[record],
        )
    )
    assert "0.930 on clean images and 0.810 under attack at linf 4/255" in card and "LLaVA" in card


def test_every_model_and_set_that_tells_drift_is_told():
    one, other = make_record(drift=DRIFT), make_record(drift=DRIFT | {"clean": 0.9}, dataset="dtd")
    assert len(drift_sentences([one, one])) == 1 and " of " not in drift_sentences([one])[0].split(")")[-1]
    first, second = drift_sentences([one, other])
    assert first.endswith(", of uoft-cs/cifar10") and second.startswith("0.900") and "of dtd" in second
