"""What a reader finds in a card, and what is folded away."""

from __future__ import annotations

import pytest
from example_records import depth_record
from test_hub_card import make_facts, make_record, section, split_card

from hf_hierrobust.hub import TreeFacts, render_card
from hf_hierrobust.hub.card import PRINTED_NODES

MANY = {"num_samples": 1000, "sample_ids": {"count": 1000, "sha256": "0", "how": "all"}}
WEAK = "Warning."


def body_of(**changes) -> str:
    return split_card(render_card(make_facts(**changes)))[1]


def record(**changes):
    entries = {"clean_accuracy": 0.7, "robust_accuracy": 0.4, **MANY}
    entries["base"] = {"clean_accuracy": 0.8, "robust_accuracy": 0.0}
    return make_record(**(entries | changes))


def test_kind34_the_attacks_constants_stand_once():
    facts = make_facts(records=[record(level=level, level_name=f"l{level}") for level in range(4)])
    text = render_card(facts)
    attack = facts.records[0].attack | {"weights": None}
    assert attack["step_size"] == 1 / 255 and text.count("step 1/255") == 3, "table, attacks, their fold"
    header, body = split_card(text)
    assert not any(
        "args" in metric for result in header["model-index"][0]["results"] for metric in result["metrics"]
    )
    assert "<summary>More on apgd-ce-20, linf, eps 4/255" in section(body, "Limitations")


def test_kind34_unequal_attacks_with_equal_names_are_told_apart():
    other = record().attack | {"momentum": 0.75}
    header, body = split_card(render_card(make_facts(records=[record(), record(attack=other)])))
    configs = [result["dataset"]["config"] for result in header["model-index"][0]["results"]]
    assert len(set(configs)) == 2 and "(2)" in configs[1]
    assert body.count("restarts (2)") == 3 and "| momentum | 0.75 |" in body


def test_kind34_the_classifiers_are_explained_and_stock_loading_gives_cosine():
    body = body_of(records=[record(), record(classifier="rollup"), record(classifier="hyperbolic")])
    assert "- **cosine**: cosine similarity" in body and "- **rollup**: probabilities of the leaves" in body
    assert "- **hyperbolic**: distance in the Poincaré ball" in body and "**path" not in body
    assert "Stock `transformers` scores by cosine only" in body
    assert "That is what stock `transformers` does" in body_of(records=[record()])


def test_kind33_a_base_by_another_classifier_is_marked_in_the_table():
    base = {"clean_accuracy": 0.8, "robust_accuracy": 0.0, "classifier": "cosine"}
    body = body_of(records=[record(base=base), record(classifier="hyperbolic", base=base)])
    rows = [line for line in body.splitlines() if line.startswith("| leaf")]
    assert "†" not in rows[0] and rows[1].count("†") == 2
    assert "† The base has no such classifier; shown is its cosine one." in body


def test_kind34_the_snippet_asks_for_the_classes():
    body = body_of(class_names=["tench", 'say "hi"', "kite", "crane"], template="art of a {}, {2024}")
    assert 'candidate_labels=["tench", "say \\"hi\\"", "kite"]' in body
    assert 'hypothesis_template="art of a {}, {{2024}}"' in body, "str.format reads it"
    assert 'text=[\n        "art of a tench, {2024}",\n' in body


def test_kind34_a_small_tree_is_printed_and_a_large_one_is_not():
    small = TreeFacts(
        name="t", levels=(3, 2), hash="h", paths={"cat": ["animal"], "dog": ["animal"], "car": ["car"]}
    )
    assert "```\nanimal\n  cat\n  dog\ncar\n```" in body_of(trees=[small])
    paths = {f"leaf {i}": ["all"] for i in range(PRINTED_NODES)}
    large = body_of(trees=[TreeFacts(name="t", levels=(PRINTED_NODES, 1), hash="h", paths=paths)])
    assert "leaf 1" not in large and f"with {PRINTED_NODES}, 1 classes" in large and "`t.tree.json`" in large


def test_kind34_budgets_are_fractions_and_defaults_are_folded_away():
    shown = {"attack.norm": "linf", "attack.eps": 2 / 255, "attack.step_size": 0.5 / 255, "lora_r": None}
    body = body_of(hyperparameters=shown, defaults={"attack.momentum": 0.0, "objective.x": None})
    assert "| attack.eps | 2/255 |" in body and "| attack.step_size | 0.5/255 |" in body
    assert "lora_r" not in body and "objective.x" not in body and "None" not in body
    before, folded = body.split("<details><summary>Settings at their defaults</summary>")
    assert "attack.momentum" not in before and "| attack.momentum | 0 |" in folded
    l2 = body_of(hyperparameters={"attack.norm": "l2", "attack.eps": 0.5})
    assert "| attack.eps | 0.5 |" in l2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"num_samples": 199, "clean_accuracy": 1.0, "robust_accuracy": 0.0, "base": None,
          "sample_ids": {"count": 199, "sha256": "0"}}, "Only 199 images"),
        ({"attack": record().attack | {"num_steps": 10}}, "only 10 steps"),
        ({"base": None}, "base model was not measured, so the gain is unknown"),
    ],
)  # fmt: skip
def test_kind34_weak_measurements_carry_a_warning(changes, said):
    body = body_of(records=[record(**changes)])
    assert (WEAK in body) == (said is not None)
    assert said is None or said in body
    assert "> **Warning.** Resumed elsewhere." in body_of(warnings=["Resumed elsewhere."])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"licence": "MIT"}, "licence='MIT' is no licence that the Hub knows: did you mean mit"),
        ({"language": "<b>"}, "language='<b>' is no ISO 639 code"),
        ({"template": "no place"}, "template='no place' must contain"),
        ({"class_names": ()}, "class_names is empty"),
    ],
)
def test_kind23_wrong_facts_are_refused_when_they_are_gathered(changes, message):
    with pytest.raises(ValueError, match=message):
        make_facts(**changes)


def test_depth_is_a_short_table_beside_what_was_measured():
    records = [depth_record(level, model="glyph-clip-robust") for level in range(3)]
    body = body_of(records=records, figures=("figures/depth.png",))
    measured = section(body, "What was measured")
    assert measured.count("### Depth") == 1 and "| superclass 2 | 3 | 0.450 |" in measured
    assert "43 of 45 edges are in order" in measured
    assert "![Margin against depth: what the norms of each level allow" in body
    assert "Depth" not in section(body_of(), "What was measured")
