"""The classifiers that a model offers at each level of a tree."""

from __future__ import annotations

import poincare
import pytest
import torch
from calibrated_clip import TEMPLATE, TREE, classifiers_of
from tiny_data import CLASSES, make_images
from transformers import CLIPModel

from hf_hierrobust.attacks import PGD
from hf_hierrobust.classifiers import (
    level_classifiers,
    modules_behind,
    network_classifiers,
    roll_up,
    shared_logits,
)
from hf_hierrobust.data import ClassSet
from hf_hierrobust.evaluation import (
    attack_classifier,
)
from hf_hierrobust.modeling import PixelPipeline, RobustCLIPModel, encode_prompts


def test_the_offer_depends_on_tree_and_head(clip, found, tiny_clip_dir):
    leaf = {"cosine", "hyperbolic", "path", "path-hyperbolic"}
    upper = leaf | {"rollup", "rollup-hyperbolic"}
    assert {n for level, n in found if level == 0} == leaf and {
        n for level, n in found if level == 1
    } == upper
    assert [c.level for c in found.values()] == sorted(c.level for c in found.values())
    usual = {n for _, n in classifiers_of(clip, names=None)}
    assert usual == {"cosine", "hyperbolic", "rollup", "rollup-hyperbolic"}
    assert set(classifiers_of(clip, None, names=None)) == {(0, "cosine"), (0, "hyperbolic")}
    stock = (RobustCLIPModel.from_pretrained(tiny_clip_dir).eval(), *clip[1:])
    assert {n for _, n in classifiers_of(stock)} == {"cosine", "rollup", "path"}
    assert set(classifiers_of(clip, names=["cosine", "rollup"])) == {
        (0, "cosine"),
        (1, "cosine"),
        (1, "rollup"),
    }
    with pytest.raises(ValueError, match=r"unknown classifiers \['rolup'\].*rollup-hyperbolic"):
        classifiers_of(clip, names=["cosine", "rolup"])


def test_labels_lead_to_nodes_of_each_level(found):
    assert found[0, "cosine"].to_node.tolist() == [0, 1, 2, 3]
    for name in ("cosine", "rollup", "path", "hyperbolic"):
        nodes = [TREE.levels[1][n] for n in found[1, name].to_node]
        assert nodes == ["animal", "animal", "plant", "plant"]


@torch.no_grad()
def test_cosine_is_stock_clip_on_the_nodes_prompts(clip, found, tiny_clip_dir):
    _, processor, pixels, _ = clip
    stock = CLIPModel.from_pretrained(tiny_clip_dir).eval()
    images = list(make_images(8)["image"])
    for level, names in enumerate((CLASSES, TREE.levels[1])):
        text = [TEMPLATE.replace("{}", n) for n in names]
        logits = stock(
            **processor(text=text, images=images, return_tensors="pt", padding=True)
        ).logits_per_image
        torch.testing.assert_close(found[level, "cosine"].classifier(pixels), logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_hyperbolic_is_the_scaled_ball_distance(clip, found):
    model, processor, pixels, _ = clip
    head = model.hier_head
    pipeline = PixelPipeline(processor.image_processor)
    images = poincare.exp0(head.image_tangent(model.encode_image(pipeline(pixels))).double(), 1.0)
    for level, names in enumerate((CLASSES, TREE.levels[1])):
        prompts = [TEMPLATE.replace("{}", n) for n in names]
        features = model.project_text(encode_prompts(model, processor.tokenizer, prompts))
        texts = poincare.exp0(head.text_tangent(features).double(), 1.0)
        wanted = -head.kappa * poincare.distance(images[:, None], texts[None], 1.0)
        got = found[level, "hyperbolic"].classifier(pixels)
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("suffix", ["", "-hyperbolic"])
@torch.no_grad()
def test_rollup_and_path_follow_from_the_levels_logits(suffix, clip, found):
    pixels = clip[2]
    score = suffix[1:] or "cosine"
    leaf, upper = (found[level, score].classifier(pixels).double() for level in (0, 1))
    rolled = found[1, f"rollup{suffix}"].classifier(pixels)
    torch.testing.assert_close(rolled, roll_up(leaf.float(), TREE.ancestors(1), 2))
    probabilities = leaf.softmax(1)
    summed = torch.stack([probabilities[:, :2].sum(1), probabilities[:, 2:].sum(1)], dim=1)
    torch.testing.assert_close(rolled.double().softmax(1), summed, rtol=1e-4, atol=1e-6)

    # a leaf's log-probability plus its superclass's, by hand
    path = torch.stack(
        [leaf.log_softmax(1)[:, i] + upper.log_softmax(1)[:, [0, 0, 1, 1][i]] for i in range(4)], dim=1
    )
    got = found[0, f"path{suffix}"].classifier(pixels)
    torch.testing.assert_close(got.double(), path, rtol=1e-4, atol=1e-4)
    above = torch.stack([path[:, :2].logsumexp(1), path[:, 2:].logsumexp(1)], dim=1)
    got = found[1, f"path{suffix}"].classifier(pixels)
    torch.testing.assert_close(got.double(), above, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_search_versions_run_under_autocast_and_agree_roughly(clip, found):
    pixels = clip[2]
    for one in found.values():
        exact, searched = one.classifier(pixels), one.search(pixels)
        assert searched.dtype == torch.float32 and searched.shape == exact.shape
        torch.testing.assert_close(exact, searched, rtol=0.1, atol=0.3)
    exact, searched = (getattr(found[0, "cosine"], k)(pixels) for k in ("classifier", "search"))
    assert not torch.equal(exact, searched)


def test_attacks_reach_the_model_behind_every_classifier(clip, found):
    """Derived classifiers too must hand over the module that has to be frozen."""
    model, _, pixels, labels = clip
    for one in found.values():
        attack_classifier(
            one.classifier,
            [{"pixels": pixels, "labels": labels}],
            [PGD(eps=8 / 255, num_steps=2)],
            to_class=one.to_node,
        )
        assert all(model in modules_behind(callable_) for callable_ in (one.classifier, one.search))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_templates_are_averaged(clip):
    model, processor, pixels, _ = clip
    templates = ("a picture of {}", "this is a photo of a {}")
    class_set = ClassSet.from_names(CLASSES, templates=templates)
    pipeline = PixelPipeline(processor.image_processor)
    (one, *_) = level_classifiers(model, pipeline, processor.tokenizer, class_set)
    texts = 0
    for template in templates:
        prompts = [template.replace("{}", n) for n in CLASSES]
        features = model.project_text(encode_prompts(model, processor.tokenizer, prompts))
        texts = texts + features / features.norm(dim=1, keepdim=True)
    images = model.encode_image(pipeline(pixels))
    logits = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T
    torch.testing.assert_close(one.classifier(pixels), model.logit_scale.exp() * logits, rtol=1e-4, atol=1e-4)


# ---- evaluate_model, with_base ----


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@torch.no_grad()
def test_one_forward_of_the_image_tower_serves_all_scores_of_the_same_pixels(clip, found, monkeypatch, dtype):
    model, _, pixels, _ = clip
    classifiers = [c.classifier if dtype is None else c.search for c in found.values()]
    apart = [classifier(pixels) for classifier in classifiers]
    encode, calls = model.encode_image, []
    monkeypatch.setattr(model, "encode_image", lambda x: calls.append(len(x)) or encode(x))
    together = shared_logits([*classifiers, lambda x: x.mean((2, 3))], pixels)
    assert len(found) == 10 and calls == [8]
    assert all(map(torch.equal, apart, together)) and torch.equal(together[-1], pixels.mean((2, 3)))


def test_a_network_is_rolled_up_from_one_forward():
    calls = []
    net = lambda x: calls.append(1) or x.flatten(1)[:, :4]  # noqa: E731
    one, rolled = (c.classifier for c in network_classifiers(net, 4, TREE))
    pixels = torch.rand(3, 3, 2, 2)
    logits = shared_logits([one, rolled], pixels)
    assert len(calls) == 1 and torch.equal(logits[1], roll_up(logits[0], TREE.ancestors(1), 2))
