"""Records besides the classifiers' own: transfer, targets, test-time defence, attacked text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from calibrated_clip import TREE
from tiny_data import CLASSES, make_images
from tiny_runs import PhotoToPicture

from hf_hierrobust.attacks import PGD, EmbeddingPGD, LastIterates, MultimodalAttack, SuperclassTarget
from hf_hierrobust.classifiers import TTC, level_classifiers
from hf_hierrobust.data import ClassSet, PixelDataset
from hf_hierrobust.evaluation import (
    AttackPlan,
    EvaluationSet,
    StateError,
    evaluate_model,
    probes,
    records_hash,
)
from hf_hierrobust.evaluation.flags import unpack_flags
from hf_hierrobust.evaluation.text_attacks import attacked_text
from hf_hierrobust.modeling import PixelPipeline, TextEncoder
from hf_hierrobust.reports import masking_sentence, records_table
from hf_hierrobust.reports.tables import DOUBT

COUNT, EPS = 12, 24 / 255
CLASS_SET = ClassSet.from_names(CLASSES, name="four", templates=("this is a photo of a {}",))


def measure(clip, besides, attack="pgd-ce", names=("cosine", "rollup"), batch_size=COUNT, **options):
    model, processor, *_ = clip
    data = EvaluationSet(
        name="noise", dataset=PixelDataset(make_images(COUNT)), class_set=CLASS_SET, tree=TREE
    )
    plan = AttackPlan.of(attack, EPS, num_steps=3, random_start="zero", besides=besides)
    options = {"model_name": "org/tiny", "progress": False} | options
    return evaluate_model(model, processor, [data], plan, classifiers=names, batch_size=batch_size, **options)


@pytest.fixture(scope="module")
def scene(clip):
    """Classifiers by level and name, pixels, leaf labels, and the attack of the plan."""
    model, processor, *_ = clip
    found = level_classifiers(
        model, PixelPipeline(processor.image_processor), processor.tokenizer, CLASS_SET, TREE
    )
    data = EvaluationSet(name="d", dataset=PixelDataset(make_images(COUNT)), class_set=CLASS_SET)
    batch = next(iter(data.loader(processor, "native", COUNT)))
    attack = PGD(eps=EPS, num_steps=3, random_start="zero")
    return {(c.level, c.name): c for c in found}, batch["pixels"], batch["labels"], attack


def robust(record):
    return unpack_flags(record.flags["robust"], COUNT)


@torch.no_grad()
def right(one, pixels, labels):
    return one.classifier(pixels).argmax(1) == one.to_node[labels]


def crafted(scene, level, name):
    """Last iterates against one classifier, of the images that it gets right."""
    found, pixels, labels, attack = scene
    one = found[level, name]
    known = right(one, pixels, labels)
    made = LastIterates(attack=attack)(one.classifier, pixels, one.to_node[labels], clean_correct=known)
    return made.adversarial


@pytest.fixture(scope="module")
def transfers(clip):
    return measure(clip, {"transfer": True})


def test_the_matrix_of_each_kind_is_what_a_loop_finds(scene, transfers):
    found, pixels, labels, _ = scene
    matrix = {
        (r.classifier, r.crafted_level, r.judged_level): r for r in transfers if r.crafted_level is not None
    }
    assert len(matrix) == 2 * 4 and len(transfers) == 3 + 8
    own = {(r.level, r.classifier): r for r in transfers if r.direct}
    kinds = {"cosine": ("cosine", "cosine"), "rollup": ("cosine", "rollup")}
    for (kind, i, j), record in matrix.items():
        source, judge = (i, kinds[kind][i]), (j, kinds[kind][j])
        clean = right(found[judge], pixels, labels)
        wanted = clean & right(found[judge], crafted(scene, *source), labels)
        if i == j:
            wanted &= robust(own[source])
        assert torch.equal(robust(record), wanted) and record.level == j
        assert record.clean_accuracy == pytest.approx(float(clean.float().mean()))
        assert record.transfer_rate == pytest.approx(1 - float(wanted.sum()) / float(clean.sum()))
        assert record.attack["to_the_end"] and record.num_classes == (4, 2)[j]


def test_one_forward_serves_all_judges_and_costs_add_up(clip, monkeypatch):
    model, encode, passed = clip[0], clip[0].encode_image, []
    monkeypatch.setattr(model, "encode_image", lambda x: passed.append(len(x)) or encode(x))
    monkeypatch.setattr("hf_hierrobust.attacks.image.base.check_steady", lambda *args, **kwargs: None)
    records = measure(clip, {"transfer": True})
    assert passed[0] == COUNT  # three jobs' classifiers and three jobs that craft
    total = sum(r.cost["forwards"] for r in records)
    assert total == pytest.approx(sum(passed) / COUNT, abs=0.005 * len(records))


@pytest.mark.parametrize("target", ["within", "outside"])
def test_targets_are_one_level_up(clip, scene, target):
    found, pixels, labels, attack = scene
    records = measure(clip, {"targets": (target,)})
    (record,) = [r for r in records if "target" in r.attack]
    assert (record.level, record.classifier) == (0, "cosine") and record.attack["target_level"] == 1
    aimed = SuperclassTarget(attack=attack, to_superclass=TREE.ancestors(1), target=target)
    result = aimed(found[0, "cosine"].classifier, pixels, labels)
    assert torch.equal(robust(record), result.robust_correct)


def test_a_defence_is_attacked_blindly_and_through_it(clip):
    records = measure(clip, {"defence": TTC(threshold=0.5), "eot": 2}, names=("cosine",))
    assert [r.defence is None for r in records] == [True, False] * 2
    for own, record in zip(records[::2], records[1::2]):
        facts = record.defence
        assert (facts["undefended_clean"], facts["undefended_robust"]) == (
            own.clean_accuracy,
            own.robust_accuracy,
        )
        assert record.robust_accuracy <= min(facts["blind_robust"], facts["adaptive_robust"])
        assert max(facts["blind_robust"], facts["adaptive_robust"]) <= record.clean_accuracy
        assert (facts["name"], facts["threshold"], facts["eot"]) == ("ttc", 0.5, 2)
        # each forward of the search takes two draws of at least three passes
        assert record.cost["forwards"] > 4 * own.cost["forwards"]
    again = measure(clip, {"defence": TTC(threshold=0.5), "eot": 2}, names=("cosine",))
    state = torch.random.get_rng_state()
    assert [r.flags for r in again] == [r.flags for r in records], "random, but from the seed"
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("order", ["independent", "joint"])
def test_orders_of_text_and_pixels_are_those_of_the_multimodal_attack(clip, scene, order):
    model, processor, *_ = clip
    found, pixels, labels, attack = scene
    records = measure(clip, {"text_attack": PhotoToPicture(), "text_orders": (order,)}, names=("cosine",))
    alone, pair = [r for r in records if "text_attack" in r.attack]
    oracle = MultimodalAttack(image_attack=attack, text_attack=PhotoToPicture(), order=order)(
        found[0, "cosine"].classifier.features,
        TextEncoder(model, processor.tokenizer),
        [prompt for (prompt,) in CLASS_SET.prompts()],
        pixels,
        labels,
    )
    assert torch.equal(robust(alone), oracle.clean_correct & oracle.text_correct)
    agree = robust(pair) == oracle.robust_correct
    if order == "joint":  # the oracle also attacks images that the altered prompts break already
        agree |= ~oracle.text_correct
    assert agree.all()
    assert pair.attack["text_order"] == order and pair.attack["text_attack"]["name"] == "photo_to_picture"
    assert pair.attack["name"] == "photo_to_picture+pgd" and alone.attack["eps"] == 0
    assert (pair.attack["loss"] == "joint") == (order == "joint")


def test_embeddings_are_a_column_too(clip, scene):
    model, processor, *_ = clip
    found, pixels, labels, _ = scene
    attack = EmbeddingPGD(eps=0.5, num_steps=3)
    besides = {"text_attack": attack, "text_orders": ("text_first", "joint")}
    records = measure(clip, besides, names=("cosine",))
    alone, first, joint = [r for r in records if "text_attack" in r.attack]
    text = attacked_text(model, processor.tokenizer, CLASS_SET, attack)
    one = found[0, "cosine"].classifier
    with torch.no_grad():
        features = torch.nn.functional.normalize(one.features(pixels), dim=1)
        attacked = (features @ torch.nn.functional.normalize(text.features, dim=1).T).argmax(1) == labels
    clean = right(found[0, "cosine"], pixels, labels)
    assert torch.equal(robust(alone), clean & attacked)
    assert alone.attack["text_attack"]["eps"] == 0.5 and alone.attack["name"] == "embedding"
    assert (robust(first) <= robust(alone)).all() and (robust(joint) <= robust(alone)).all()
    two = replace(CLASS_SET, templates=("a photo of a {}", "this is a picture of {}"))
    assert attacked_text(model, processor.tokenizer, two, attack).features.shape == (4, 32)


def test_the_order_of_the_orders_changes_no_record_and_joint_costs_its_own_attack(clip, scene):
    model, processor, *_ = clip
    found, pixels, labels, _ = scene
    attack, per_order = EmbeddingPGD(eps=0.5, num_steps=2), []
    for orders in (("text_first", "independent", "joint"), ("joint", "text_first", "independent")):
        besides = {"text_attack": attack, "text_orders": orders}
        records = measure(clip, besides, names=("cosine",))
        assert [r.attack["text_order"] for r in records if "text_order" in r.attack][-3:] == list(orders)
        per_order.append(
            sorted(
                json.dumps([r.level, r.attack, r.checks, r.cost, r.flags], sort_keys=True) for r in records
            )
        )
    assert per_order[0] == per_order[1]

    (joint,) = [r for r in records if r.attack.get("text_order") == "joint"]
    (pixels_alone,) = [r for r in records if r.level == 0 and "text_attack" not in r.attack]
    text = attacked_text(model, processor.tokenizer, CLASS_SET, attack)
    with torch.no_grad():
        right = found[0, "cosine"].classifier.with_text(text.features)(pixels).argmax(1) == labels
    # Three steps on each image that the attacked prompts get right; nothing of the pixels' own attack.
    assert joint.cost["backwards"] == pytest.approx(3 * float(right.float().mean()), abs=0.005)
    assert pixels_alone.cost["backwards"] > 0
    assert "robust_after_pgd-ce" not in joint.checks and "robust_after_joint" in joint.checks


@pytest.mark.parametrize("seed", [0, 3])
def test_the_seed_of_the_run_reaches_the_attack_on_the_prompts(clip, monkeypatch, seed):
    drawn, real = [], EmbeddingPGD.__call__

    def watched(self, texts, encoder, *, score=None, generator=None):
        drawn.append(generator.initial_seed())
        return real(self, texts, encoder, score=score, generator=generator)

    monkeypatch.setattr(EmbeddingPGD, "__call__", watched)
    attack = EmbeddingPGD(eps=0.5, num_steps=1)
    records = measure(clip, {"text_attack": attack}, names=("cosine",), seed=seed)
    assert drawn == [seed] and {r.seed for r in records} == {seed}


def test_plans_that_make_no_sense_are_refused():
    for besides, words in (
        ({"text_orders": ("joint",)}, "no effect without a text_attack"),
        ({"text_attack": PhotoToPicture(), "text_orders": ("last",)}, "text_orders: 'last' is unknown"),
        ({"targets": ("inside",)}, "targets: 'inside' is unknown, choose from within, outside"),
        ({"eot": 0}, "eot=0"),
        ({"transfer": "yes"}, "transfer='yes'"),
    ):
        with pytest.raises(ValueError, match=words):
            AttackPlan.of("pgd", EPS, besides=besides)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_checks_are_stored_named_and_mark_the_number(clip, monkeypatch):
    monkeypatch.setattr(probes, "MORE_STEPS", 10)
    monkeypatch.setattr(probes, "QUERIES", 10)
    monkeypatch.setattr(probes, "DRAWS", 2)
    names = ("cosine", "hyperbolic", "rollup")
    records = measure(clip, {"checks": True}, attack="pgd", names=names)
    for record in records:
        found = record.checks["diagnostics"]
        assert len(found) == 12 and record.checks["diagnosed"]["images"] == COUNT
        assert record.checks["diagnosed"]["backwards"] >= 1
        related = found["transfer_between_scores"]["verdict"]
        assert (related == "not applicable") == (record.classifier == "rollup")
    multiplier = records[0].checks["diagnostics"]["scale"]["multiplier"]
    assert multiplier == pytest.approx(float(clip[0].logit_scale.exp()))
    assert "multiplier" not in records[1].checks["diagnostics"]["scale"]
    assert measure(clip, {}, attack="pgd", names=("cosine",))[0].checks.keys().isdisjoint(["diagnostics"])

    class_set = replace(CLASS_SET, class_names=("cat", "cat", "oak", "rose"), duplicate_names=("cat",))
    model, processor, *_ = clip
    images = PixelDataset(make_images(COUNT))
    images.label_names = None
    twins = EvaluationSet(name="twins", dataset=images, class_set=class_set)
    plan = AttackPlan.of("pgd-ce", EPS, num_steps=2, besides={"checks": True})
    (record, _) = evaluate_model(model, processor, [twins], plan, model_name="m", progress=False)
    assert record.checks["diagnostics"]["twins"]["merged"] == 1
    assert "twins: 1 classes share the prompt" in record.checks["masking"]
    table = records_table([record])
    assert f"{DOUBT} |" in table and f"{DOUBT} Probably too high" in table
    assert DOUBT not in records_table([replace(record, checks={"masking": "none seen"})])
    assert "twins: 1 classes share" in masking_sentence([record])


def test_an_interrupted_evaluation_of_every_kind_ends_with_the_same_records(clip, tmp_path):
    besides = {
        "transfer": True,
        "targets": ("within", "outside"),
        "defence": TTC(threshold=0.5),
        "eot": 2,
        "text_attack": PhotoToPicture(),
        "text_orders": ("text_first", "independent", "joint"),
    }
    options = {"batch_size": 7, "names": ("cosine", "rollup")}
    whole = measure(clip, besides, state_dir=tmp_path / "state", **options)
    assert len(whole) == 3 + 8 + 2 + 3 + 4 and len({str(r.to_dict()) for r in whole}) == len(whole)
    (path,) = (tmp_path / "state").rglob("verdicts-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for place, line in enumerate(lines) if place % 3]  # of each job something is lost
    path.write_text("".join(kept))
    resumed = measure(clip, besides, state_dir=tmp_path / "state", **options)
    assert records_hash(resumed) == records_hash(whole)
    assert [r.cost for r in resumed] == [r.cost for r in whole]
    with pytest.raises(StateError, match="targets"):
        measure(clip, besides | {"targets": ("within",)}, state_dir=tmp_path / "state", **options)


def test_what_the_classifiers_leave_no_room_for_is_refused(clip):
    with pytest.raises(ValueError, match=r"transfer has no effect: classifiers .'rollup'. have one level"):
        measure(clip, {"transfer": True}, names=("rollup",))
    with pytest.raises(ValueError, match="text_attack attacks the prompts of the classifier 'cosine'"):
        measure(clip, {"text_attack": PhotoToPicture()}, names=("hyperbolic",))
