"""From model and data to records: attack plans, bases, what a record says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calibrated_clip import TREE
from example_records import make_record
from tiny_data import CLASSES, make_images

from hf_hierrobust.classifiers import level_classifiers
from hf_hierrobust.data import ClassSet, PixelDataset
from hf_hierrobust.evaluation import (
    AttackPlan,
    EvaluationSet,
    compare,
    evaluate_model,
    load_records,
    runner,
    save_records,
    with_base,
)
from hf_hierrobust.evaluation.flags import unpack_flags
from hf_hierrobust.modeling import PixelPipeline, RobustCLIPModel


def small_set(**changes) -> EvaluationSet:
    class_set = ClassSet.from_names(CLASSES, name="four")
    values = {"name": "noise", "dataset": PixelDataset(make_images(12)), "class_set": class_set, "tree": TREE}
    return EvaluationSet(**values | {"num_samples": 10} | changes)


PLAN = AttackPlan.of("pgd-ce", "1/255, 16/255", num_steps=2)


@pytest.fixture(scope="module")
def records(clip):
    return measure(clip)


def measure(clip, sets=None, plan=PLAN, **options):
    model, processor, *_ = clip
    options = {"model_name": "org/tiny", "objective": "hier_robust", "progress": False} | options
    return evaluate_model(model, processor, sets or [small_set()], plan, batch_size=4, **options)


def test_there_is_one_valid_record_per_classifier_and_budget(records, tmp_path):
    assert len(records) == 6 * 2
    save_records(tmp_path / "r.json", records)
    assert load_records(tmp_path / "r.json") == records
    for record in records:
        assert record.num_samples == 10 and record.robust_accuracy <= record.clean_accuracy
        assert record.num_classes == (4, 2)[record.level] and record.tree_hash == TREE.hash
        assert record.level_name == ("leaf", "superclass")[record.level]
        assert record.attack["step_size"] == pytest.approx(record.attack["eps"] / 4)
        assert record.attack["search_dtype"] == "float32" and record.checks["zero_gradient_fraction"] == 0
        assert record.checks["robust_after_ce"] == pytest.approx(record.robust_accuracy)
        assert record.classes["names"] == list(TREE.display_names(record.level)), "of the level's own classes"
        assert sum(record.classes["images"]) == 10
        flags = {kind: unpack_flags(text, 10) for kind, text in record.flags.items()}
        assert flags["clean"].float().mean() == pytest.approx(record.clean_accuracy)
        assert flags["robust"].sum() == round(10 * record.robust_accuracy)
        assert not (flags["robust"] & ~flags["clean"]).any()
    assert len({record.model_hash for record in records}) == 1 and records[0].model_hash
    by_eps = {r.attack["eps_text"] for r in records}
    assert by_eps == {"1/255", "16/255"}


def test_accuracies_are_those_of_a_loop(clip, records):
    model, processor, *_ = clip
    data = small_set()
    batch = next(iter(data.loader(processor, "native", 10)))
    for one in level_classifiers(
        model, PixelPipeline(processor.image_processor), processor.tokenizer, data.class_set, TREE
    ):
        with torch.no_grad():
            right = one.classifier(batch["pixels"]).argmax(1) == one.to_node[batch["labels"]]
        for record in records:
            if (record.level, record.classifier) == (one.level, one.name):
                assert record.clean_accuracy == float(right.float().mean().double().round(decimals=6))


def test_worst_case_plans_name_all_losses(clip):
    options = {"num_steps": 2, "step_size": 0.01, "restarts": 2}
    kept = {"classifiers": ["cosine"], "sets": [small_set(tree=None)]}
    (record,) = measure(clip, plan=AttackPlan.of("pgd", "16/255", **options), **kept)
    attack = record.attack
    assert (attack["loss"], attack["step_size"], attack["restarts"]) == ("ce+margin", 0.01, 2)
    assert record.checks["robust_after_margin"] == record.robust_accuracy
    (single,) = measure(clip, plan=AttackPlan.of("pgd-ce", "16/255", **options), **kept)
    assert single.attack["loss"] == "ce" and record.robust_accuracy <= single.robust_accuracy
    assert record.checks["robust_after_ce"] == single.robust_accuracy


def test_label_names_and_templates_are_honoured(clip, records):
    """The same images with labels numbered in reverse measure the same."""
    dataset = PixelDataset(make_images(12))
    dataset.labels, dataset.label_names = 3 - dataset.labels, list(CLASSES[::-1])
    (mapped, *_) = measure(clip, sets=[small_set(dataset=dataset)], classifiers=["cosine"])
    (plain, *_) = records
    assert (mapped.clean_accuracy, mapped.robust_accuracy) == (plain.clean_accuracy, plain.robust_accuracy)
    (other, *_) = measure(clip, classifiers=["cosine"], template="a {}")
    assert other.templates_hash != plain.templates_hash


def test_bf16_search_is_recorded_and_leaves_the_attention_kernel_alone(clip):
    before = clip[0].config._attn_implementation
    (record, *_) = measure(clip, classifiers=["cosine"], bf16_search=True)
    assert record.attack["search_dtype"] == "bfloat16"
    assert clip[0].config._attn_implementation == before


def test_local_paths_stay_private(clip, tmp_path):
    (record, *_) = measure(
        clip, sets=[small_set(name=str(tmp_path))], classifiers=["cosine"], model_name=str(tmp_path / "run-3")
    )
    assert record.model == "run-3" and record.dataset == tmp_path.name


def test_a_record_stands_beside_its_own_base(clip, records, tiny_clip_dir):
    stock = (RobustCLIPModel.from_pretrained(tiny_clip_dir).eval(), *clip[1:])
    base = measure(stock, model_name="org/base", objective="none")
    assert base[0].model_hash != records[0].model_hash  # the head's constants are part of the model
    assert len(base) == 3 * 2
    paired = with_base(records, base)
    assert [replace(r, base=None) for r in paired] == records
    table = {(b.level, b.classifier, b.attack["eps"]): b for b in base}
    for record in paired:
        name = record.classifier.replace("-hyperbolic", "").replace("hyperbolic", "cosine")
        other = table[record.level, name, record.attack["eps"]]
        assert record.base["model"] == "org/base"
        assert record.base["clean_accuracy"] == other.clean_accuracy
        assert record.base["robust_accuracy"] == other.robust_accuracy


@pytest.mark.parametrize(
    "change",
    [
        {"split": "train"},
        {"dataset": "others"},
        {"templates_hash": "0" * 16},
        {"tree_hash": "0" * 16},
        {"class_set": "five"},
        {"attack": {"num_steps": 50}},
        {"attack": {"space": "model"}},
    ],
    ids=str,
)
def test_what_was_measured_otherwise_is_no_base(change, records):
    record = records[0]
    if "attack" in change:
        change = {"attack": record.attack | change["attack"]}
    assert with_base([record], [record])[0].base is not None
    assert with_base([record], [replace(record, **change)])[0].base is None


# ---- one engine ----


def test_images_are_decoded_once_a_space_and_judged_clean_once_a_classifier(clip, monkeypatch):
    decoded, encoded = [], []

    read = PixelDataset.__getitem__
    monkeypatch.setattr(
        PixelDataset, "__getitem__", lambda self, index: decoded.append(index) or read(self, index)
    )
    encode, judge_all = clip[0].encode_image, runner.judge_all

    def judging(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clip[0], "encode_image", lambda x: encoded.append(len(x)) or encode(x))
            return judge_all(*args)

    monkeypatch.setattr(runner, "judge_all", judging)
    data = small_set(dataset=PixelDataset(make_images(12)))
    found = measure(clip, sets=[data], plan=AttackPlan.of("pgd", ["1/255", "2/255", "4/255"], num_steps=1))
    assert len(found) == 6 * 3 and len(decoded) == 10
    assert encoded == [4, 4, 2]  # one forward a batch for six classifiers at three budgets


def test_records_of_a_budget_do_not_depend_on_the_other_budgets(clip, records):
    alone = measure(clip, plan=AttackPlan.of("pgd-ce", "16/255", num_steps=2))
    together = [r for r in records if r.attack["eps_text"] == "16/255"]
    assert [(r.level, r.classifier, r.flags) for r in alone] == [
        (r.level, r.classifier, r.flags) for r in together
    ]


def test_records_state_cost_doubts_and_spread(records):
    for record in records:
        # a share of the clean forward; two steps and a verdict for those that were right and stood; a probe
        assert 1 / 12 <= record.cost["forwards"] + 0.005 <= 1 + 5 and 0 <= record.cost["backwards"] <= 2
        assert record.cost["backwards"] <= 2 * record.clean_accuracy
        assert record.checks["masking"] == "none seen"
        assert record.sample_ids["per_class"] == {"least": 2, "most": 3, "without": 0}


def test_kind28_a_sorted_folder_is_measured_on_all_its_classes(clip):
    ordered = make_images(12).sort("label")
    found = measure(clip, sets=[small_set(dataset=ordered, num_samples=4)], classifiers=["cosine"])
    assert found[0].sample_ids["per_class"] == {"least": 1, "most": 1, "without": 0}


def test_kind29_shared_images_reach_the_record(clip):
    found = measure(clip, sets=[small_set(shared_with_training=3)], classifiers=["cosine"])
    assert found[0].sample_ids["shared_with_training"] == 3


def test_kind35_one_bar_over_everything_names_model_set_level_and_budget(clip, capsys):
    measure(clip, sets=[small_set(), small_set(name="others")], progress=True, stage="base")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "240/240" in shown  # 2 sets, 2 budgets, 6 classifiers, 10 images
    assert shown.startswith("\rbase:") and "others, superclass, rollup-hyperbolic, linf:16/255" in shown
    assert "image/s" in shown and "<" in shown  # the time left


def test_a_base_difference_is_paired(clip, records):
    (record, *_) = records
    fewer = replace(record, robust_accuracy=0.0, flags={**record.flags, "robust": "0000"})
    (merged,) = with_base([record], [fewer])
    difference = merged.base["difference"]["robust"]
    assert difference["difference"] == pytest.approx(record.robust_accuracy)
    assert merged.base["difference"]["clean"]["p_value"] == 1
    others = replace(fewer, sample_ids={**fewer.sample_ids, "sha256": "0" * 64})
    with pytest.raises(ValueError, match="different images"):
        compare(record, others)
    with pytest.raises(ValueError, match="has no flags"):
        compare(record, replace(fewer, flags=None))


def test_a_base_behind_another_defence_or_with_another_seed_is_no_match():
    measured = dict.fromkeys(("undefended_clean", "undefended_robust", "blind_robust"), 0.5)
    defence = {"name": "ttc", "threshold": 0.2, "eot": 10, "adaptive_robust": 0.5} | measured
    found = make_record(base=None, defence=defence)
    for changed in ({"threshold": 0.05}, {"eot": 50}):
        assert with_base([found], [replace(found, defence=defence | changed)])[0].base is None
    (merged,) = with_base([found], [replace(found, defence=defence | {"adaptive_robust": 0.45})])
    assert merged.base["robust_accuracy"] == 0.41
    seeds = [make_record(base=None, seed=seed, robust_accuracy=seed / 10, intervals={}) for seed in (1, 2, 3)]
    for record, base in zip(with_base(seeds, seeds[::-1]), seeds):
        assert record.base["robust_accuracy"] == base.robust_accuracy
    assert with_base([make_record(base=None)], seeds)[0].base is None
    assert with_base([make_record(base=None)], seeds[:1])[0].base["robust_accuracy"] == 0.1
