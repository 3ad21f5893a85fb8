"""Kind 4: classes that no image can tell apart are refused, unless they are twins, which count as one."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import AutoProcessor

from hf_hierrobust.attacks import PGD
from hf_hierrobust.classifiers import ZeroShotClassifier, level_classifiers, merge_twins
from hf_hierrobust.data import ClassSet
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import PixelPipeline, RobustCLIPModel, TokenizerError, encode_prompts

NAMES = ["cat", "dog", "oak", "cat"]


@pytest.fixture(scope="module")
def processor(tiny_clip_dir):
    return AutoProcessor.from_pretrained(tiny_clip_dir)


@pytest.fixture(scope="module")
def model(tiny_clip_dir):
    return RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()


@pytest.fixture(scope="module")
def pipeline(processor):
    return PixelPipeline(processor.image_processor)


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("score", ["cosine", "hyperbolic"])
@pytest.mark.parametrize("templates", [1, 3])
def test_kind04_equal_text_states_are_refused(model, pipeline, score, templates):
    states = torch.randn(4, templates, 32, generator=torch.Generator().manual_seed(0)).squeeze(1)
    states[3] = states[1] * (1 + 1e-7)
    with pytest.raises(TokenizerError, match=r"'class [13]' and 'class [13]' the same .*tokenizer's files"):
        ZeroShotClassifier(model, pipeline, states, score)
    with pytest.raises(TokenizerError, match=r"'a dog' and 'a cat' the same|'a cat' and 'a dog' the same"):
        ZeroShotClassifier(model, pipeline, states, score, prompts=["an oak", "a dog", "a rose", "a cat"])


def test_kind04_all_states_alike(model, pipeline):
    with pytest.raises(TokenizerError, match="4 of 4 prompts at least"):
        ZeroShotClassifier(model, pipeline, torch.ones(4, 32))


def test_kind04_twins_are_told_by_their_prompts(model, processor, pipeline, pixels):
    states = encode_prompts(model, processor.tokenizer, NAMES)
    with pytest.raises(TokenizerError):
        ZeroShotClassifier(model, pipeline, states)
    twins = ZeroShotClassifier(model, pipeline, states, prompts=NAMES)
    with torch.no_grad():
        logits = twins(pixels)
        assert torch.equal(twins.with_autocast(None)(pixels), logits)
    assert torch.allclose(logits[:, 0], logits[:, 3]) and logits.shape == (24, 4)
    with pytest.raises(ValueError, match="3 prompts but 4 text states"):
        ZeroShotClassifier(model, pipeline, states, prompts=NAMES[:3])


def test_kind04_twins_count_as_one_class_and_are_named(model, processor, pipeline, pixels):
    classes = ClassSet.from_names(NAMES, duplicate_names=("cat",))
    with pytest.warns(UserWarning, match=r"are counted as one: 0 and 3 \('This is a photo of a cat.'\)"):
        (one,) = level_classifiers(model, pipeline, processor.tokenizer, classes, names=["cosine"])
    assert one.to_node.tolist() == [0, 1, 2, 0]
    with torch.no_grad():
        logits = one.classifier(pixels)
        assert logits.shape == (24, 3) and one.search(pixels).shape == (24, 3)
    labels = one.to_node[torch.arange(24) % 4]
    found = PGD(eps=4 / 255, num_steps=2, loss="margin")(one.classifier, pixels, labels)
    assert torch.equal(found.clean_correct, logits.argmax(1) == labels)


def test_kind04_twins_with_different_parents_stay_apart_above(model, processor, pipeline, pixels):
    """A crane is a bird and a machine: one leaf, but both superclasses count it."""
    columns = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    merged, to_node = merge_twins(
        lambda x: columns, ["a crane", "a dog", "an oak", "a crane"], torch.arange(4)
    )
    assert torch.equal(merged(None), columns[:, :3]) and to_node.tolist() == [0, 1, 2, 0]
    tree = LabelTree.from_paths(
        {"cat": ["animal"], "dog": ["animal"], "oak": ["plant"], "rose": ["plant"]}, name="t"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = level_classifiers(
            model, pipeline, processor.tokenizer, ClassSet.from_names(["cat", "dog", "oak", "rose"]), tree
        )
    assert [one.to_node.tolist() for one in found[:1]] == [[0, 1, 2, 3]], "nothing changes without twins"
