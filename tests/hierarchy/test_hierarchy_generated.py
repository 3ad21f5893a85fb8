from __future__ import annotations

import json
import re

import pytest

from hf_hierrobust.hierarchy import TreeError, generated_tree
from hf_hierrobust.hierarchy.generated import parse_reply

TRUTH = {
    "cat": "mammal",
    "dog": "mammal",
    "trout": "fish",
    "shark": "fish",
    "maple tree": "tree",
    "oak tree": "tree",
}
ABOVE = {"mammal": "animal", "fish": "animal", "tree": "plant", "bush": "plant"}
NAMES = ["cat", "dog", "trout", "shark", "maple_tree", "oak_tree"]


def asked(prompt: str) -> list[str]:
    return re.search(r"Classes:\n(.*?)\n\nLines:", prompt, re.S)[1].splitlines()


def model(prompt: str) -> str:
    return "Sure!\n" + "\n".join(f"- {name.title()}: {(TRUTH | ABOVE)[name]}." for name in asked(prompt))


def test_levels_are_asked_for_one_after_the_other():
    tree = generated_tree(NAMES, model, num_levels=2)
    assert tree.levels_of("oak_tree") == ("oak_tree", "tree", "plant")
    assert tree.sizes == (6, 3, 2) and tree.display_names(0)[-1] == "oak tree"
    assert "model" in tree.source


def test_classes_of_one_name_are_asked_for_once():
    names = [*NAMES, "Cat", "oak tree"]
    tree = generated_tree(names, model, num_levels=2)
    assert tree.leaves == (*NAMES, "Cat (6)", "oak tree (7)")
    assert tree.levels_of("oak tree (7)")[1:] == tree.levels_of("oak_tree")[1:]
    assert tree.levels_of("Cat (6)")[1:] == ("mammal", "animal") and tree.align(names) == tree


def test_only_missing_classes_are_asked_again():
    questions = []

    def forgetful(prompt: str) -> str:
        questions.append(asked(prompt))
        return "\n".join(model(prompt).splitlines()[:4])

    assert generated_tree(NAMES, forgetful).superclass("shark", 1) == "fish"
    assert [len(question) for question in questions] == [6, 3]


def test_batches_are_told_the_superclasses_in_use():
    prompts = []

    def spy(prompt: str) -> str:
        prompts.append(prompt)
        return model(prompt)

    generated_tree(NAMES, spy, batch_size=2)
    assert len(prompts) == 3 and "Reuse" not in prompts[0] and "fish, mammal" in prompts[2]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("1. **cat**: *mammal*\n2) dog -> Mammal.\nnoise", {"cat": "mammal", "dog": "mammal"}),
        ("```json\n" + json.dumps({"cat": "mammal", "doggy bag": "mammal"}) + "\n```", {"cat": "mammal"}),
        (json.dumps({"mammal": ["cat", "dog"]}), {"cat": "mammal", "dog": "mammal"}),
        ("cat: mammal\ncat: feline\ndog: mammal", {"dog": "mammal"}),
        ('{"cat": "mammal", "cat": "feline"}', {}),
        ("doog: mammal\nmaple trees: tree\nbat: mammal", {"dog": "mammal", "maple tree": "tree"}),
        ("no idea", {}),
    ],
)
def test_replies(reply, expected):
    assert parse_reply(reply, ["cat", "dog", "maple tree"]) == expected


@pytest.mark.parametrize(
    ("generate", "message"),
    [
        (lambda prompt: "I cannot do that", "after 3 questions.*6 classes: 'cat', 'dog'"),
        (lambda prompt: "\n".join(f"{name}: {name}" for name in asked(prompt)), "no usable superclass for 6"),
        (lambda prompt: "\n".join(f"{name}: dog" for name in asked(prompt)), "no usable superclass for 6"),
        (lambda prompt: "\n".join(f"{name}: thing" for name in asked(prompt)), "under 1 superclasses"),
        (
            lambda prompt: "\n".join(f"{name}: kind of {name}" for name in asked(prompt)),
            "under 6 superclasses",
        ),
    ],
)
def test_useless_answers_are_refused(generate, message):
    with pytest.raises(TreeError, match=message):
        generated_tree(NAMES, generate)


def test_bad_arguments():
    with pytest.raises(TypeError, match="as str, got list"):
        generated_tree(NAMES, lambda prompt: [prompt])
    with pytest.raises(ValueError, match="num_levels=0"):
        generated_tree(NAMES, model, num_levels=0)
    with pytest.raises(ValueError, match="num_levels=2 entries"):
        generated_tree(NAMES, model, num_levels=2, level_sizes=(3,))


@pytest.mark.parametrize("chat_template", [None, "{% for m in messages %}{{ m['content'] }}{% endfor %}"])
def test_an_untrained_pipeline_is_refused_cleanly(chat_template):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed
    from transformers.pipelines import pipeline

    words = {word: index for index, word in enumerate(["<unk>", "<eos>", ":", *NAMES, "fish", "tree"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = chat_template
    set_seed(0)
    config = GPT2Config(vocab_size=len(words), n_positions=512, n_embd=8, n_layer=1, n_head=1, eos_token_id=1)
    generate = pipeline("text-generation", model=GPT2LMHeadModel(config), tokenizer=tokenizer, device="cpu")
    with pytest.raises(TreeError, match="no usable superclass for"):
        generated_tree(NAMES, generate, attempts=2, max_new_tokens=8)
