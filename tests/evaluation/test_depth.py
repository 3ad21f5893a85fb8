"""Depth in records: norms, edges, margins and their bound, against the definitions."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import poincare
import pytest
import torch
from calibrated_clip import TREE
from example_records import make_record
from tiny_data import CLASSES, make_images

from hf_hierrobust.data import ClassSet, PixelDataset
from hf_hierrobust.evaluation import (
    AttackPlan,
    EvaluationSet,
    RobustnessRecord,
    evaluate_model,
    load_records,
    save_records,
)
from hf_hierrobust.evaluation.depth import clean_depth
from hf_hierrobust.geometry import classification_margin, hyperbolic_margin, polar
from hf_hierrobust.modeling import PixelPipeline, encode_prompts

NAMES = {0: CLASSES, 1: TREE.levels[1]}
EPS = 32 / 255


def noise() -> EvaluationSet:
    images, class_set = PixelDataset(make_images(12)), ClassSet.from_names(CLASSES, name="four")
    return EvaluationSet(name="noise", dataset=images, class_set=class_set, tree=TREE)


def measured(clip, **options) -> list[RobustnessRecord]:
    model, processor, *_ = clip
    plan = AttackPlan.of("pgd", EPS, num_steps=2)
    facts = {"model_name": "org/tiny", "objective": "hier_robust", "progress": False, "batch_size": 5}
    return evaluate_model(model, processor, [noise()], plan, **facts | options)


@pytest.fixture(scope="module")
def records(clip):
    return measured(clip)


def by_level(records, classifier="hyperbolic") -> list[RobustnessRecord]:
    return sorted((r for r in records if r.classifier == classifier), key=lambda r: r.level)


@pytest.fixture(scope="module")
def tangents(clip):
    """Tangent vectors of the clean images, and of the texts of each level, in float64."""
    model, processor, *_ = clip
    template = ClassSet.from_names(CLASSES).templates[0]
    data = EvaluationSet(
        name="d", dataset=PixelDataset(make_images(12)), class_set=ClassSet.from_names(CLASSES)
    )
    batch = next(iter(data.loader(processor, "native", 12)))
    with torch.no_grad():
        images = model.encode_image(PixelPipeline(processor.image_processor)(batch["pixels"]))
        texts = [
            model.project_text(
                encode_prompts(model, processor.tokenizer, [template.replace("{}", n) for n in names])
            )
            for names in NAMES.values()
        ]
        head = model.hier_head
        return head.image_tangent(images).double(), [head.text_tangent(t).double() for t in texts]


def test_norms_edges_and_images_are_those_of_the_tangent_vectors(records, tangents):
    images, texts = tangents
    leaf, upper = (record.depth for record in by_level(records))
    norms = [t.norm(dim=1) for t in texts]
    for depth, values in zip((leaf, upper), norms):
        assert depth["nodes"] == len(values)
        assert depth["tangent_norm"] == pytest.approx(float(values.quantile(0.5)), rel=1e-5)
        assert depth["largest_tangent_norm"] == pytest.approx(float(values.max()), rel=1e-5)
        assert depth["ball_norm"] == pytest.approx(math.tanh(depth["tangent_norm"]))
    parents = [TREE.levels[1].index(TREE.superclass(c, 1)) for c in CLASSES]
    in_order = sum(float(norms[1][p]) < float(n) for n, p in zip(norms[0], parents))
    assert (leaf["edges"], leaf["edges_in_order"]) == (4, in_order) and "edges" not in upper
    labels = torch.arange(12) % 4
    beyond = (images.norm(dim=1) - norms[0][labels]).sort().values
    assert leaf["image_depth"] == pytest.approx(float((beyond[5] + beyond[6]) / 2), abs=1e-5)
    assert leaf["images_not_nearer"] == pytest.approx(float((beyond >= 0).double().mean()))
    assert "image_depth" not in upper


def test_clean_margins_are_those_of_the_moebius_distance(records, tangents, clip):
    """Quantiles of kappa (d to the best other node - d to the true one), each distance by itself."""
    images, texts = tangents
    kappa, labels = float(clip[0].hier_head.kappa), torch.arange(12) % 4
    for level, record in enumerate(by_level(records)):
        points, nodes = poincare.exp0(images, 1.0), TREE.ancestors(level)[labels]
        margins = []
        for point, own in zip(points, nodes.tolist()):
            away = [float(poincare.distance(point, poincare.exp0(t, 1.0), 1.0)) for t in texts[level]]
            margins.append(kappa * (min(d for k, d in enumerate(away) if k != own) - away[own]))
        expected = torch.tensor(margins).double().quantile(torch.tensor([0.1, 0.5, 0.9]).double())
        assert record.depth["clean_margin"] == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-2)
        right = sum(margin > 0 for margin in margins)
        assert right == round(12 * record.clean_accuracy), "what is right has a margin above 0"


def test_the_bound_is_the_largest_distance_of_two_texts_that_such_norms_allow(records, clip):
    kappa = float(clip[0].hier_head.kappa)
    for record in by_level(records):
        depth = record.depth
        end = torch.tensor([depth["largest_tangent_norm"], 0.0], dtype=torch.float64)
        apart = poincare.distance(poincare.exp0(end, 1.0), poincare.exp0(-end, 1.0), 1.0)
        assert depth["bound"] == pytest.approx(kappa * float(apart), rel=1e-6)
        assert depth["kappa"] == pytest.approx(kappa) and depth["curvature"] == 1.0
        for name in ("clean_margin", "attacked_margin"):
            assert all(abs(margin) <= depth["bound"] for margin in depth[name])


def test_an_attack_lowers_margins_and_turns_those_of_broken_images_negative(records):
    for record in by_level(records):
        clean, attacked = record.depth["clean_margin"], record.depth["attacked_margin"]
        assert all(b <= a + 1e-4 for a, b in zip(clean, attacked)) and attacked != clean
    assert any(r.robust_accuracy < 0.5 and r.depth["attacked_margin"][1] < 0 for r in by_level(records))


def test_only_the_prompts_of_a_tree_tell_depth(records, clip):
    assert all((r.depth is not None) == (r.classifier == "hyperbolic") for r in records)
    cosine = measured(clip, classifiers=["cosine", "rollup"])
    assert {r.classifier for r in cosine} == {"cosine", "rollup"}
    told = by_level(cosine, "cosine")
    for record, other in zip(told, by_level(records)):
        expected = {k: v for k, v in other.depth.items() if k != "attacked_margin"}
        assert record.depth == expected, "no attack on the cosine is one on -kappa d"
    assert all(r.depth is None for r in cosine if r.classifier == "rollup")


def test_edges_by_the_margin_are_counted_in_the_norms_that_training_took(clip, tangents):
    """Ball norms of neighbouring levels differ by less than their tangent norms do."""
    model, processor, *_ = clip
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.hier_head.grow(2)
        model.hier_head.log_text_scale[1] -= 0.5
    leaf, upper = (t.norm(dim=1) for t in tangents[1])
    upper, parents = upper * math.exp(-0.5), TREE.ancestors(1)
    gaps = {"tangent": leaf - upper[parents], "ball": leaf.tanh() - upper.tanh()[parents]}
    margin = float((gaps["tangent"].max() + gaps["ball"].max()) / 2)
    for norm, gap in gaps.items():
        model.config.hier_robust = {"objective_args": {"gap_margin": margin, "gap_norm": norm}}
        depth = by_level(measured((model, processor), classifiers=["hyperbolic"]))[0].depth
        assert depth["edges_in_order"] == int((gap > 0).sum()) > 0
        assert depth["edges_by_margin"] == int((gap >= margin).sum())
        assert (depth["edges_by_margin"] > 0) == (norm == "tangent")


def test_without_a_calibrated_head_or_a_tree_there_is_no_depth(clip, tiny_clip_dir):
    from hf_hierrobust.modeling import RobustCLIPModel

    _, processor, *_ = clip
    fresh = RobustCLIPModel.from_pretrained(tiny_clip_dir).eval()
    assert all(r.depth is None for r in measured((fresh, processor)))


def test_depth_survives_the_file_and_old_records_load(records, tmp_path):
    path = tmp_path / "r.json"
    save_records(path, records)
    assert load_records(path) == records
    document = json.loads(path.read_text())
    for entries in document["records"]:
        del entries["depth"]
    path.write_text(json.dumps(document))
    assert all(r.depth is None for r in load_records(path))


def depth_of_a_record(**changes) -> dict:
    depth = {
        "curvature": 1.0, "kappa": 100.0, "nodes": 10, "tangent_norm": 0.9, "ball_norm": math.tanh(0.9),
        "largest_tangent_norm": 1.0, "bound": 400.0, "simplex": 200.0, "edges": 10, "edges_in_order": 8,
        "gap_margin": 0.02, "edges_by_margin": 7, "image_depth": 0.01, "images_not_nearer": 0.6,
        "clean_margin": [-1.0, 2.0, 5.0], "attacked_margin": [-4.0, -1.0, 2.0],
    }  # fmt: skip
    return {key: value for key, value in (depth | changes).items() if value is not None}


def record_with(**changes) -> RobustnessRecord:
    return make_record(classifier="hyperbolic", tree="t", tree_hash="ab", depth=depth_of_a_record(**changes))


def test_a_record_with_depth_is_whole():
    record = record_with()
    assert RobustnessRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tangent_norm": 1.1}, r"depth.tangent_norm=1.1 must lie in 0..largest_tangent_norm=1.0"),
        ({"tangent_norm": "0.9"}, "depth.tangent_norm='0.9' must be a number"),
        ({"ball_norm": 0.9}, "depth.ball_norm=0.9 must be the tanh of tangent_norm"),
        ({"bound": 40.0}, "depth.bound=40.0 must be 4 kappa"),
        ({"kappa": None}, r"depth lacks \['kappa'\]"),
        ({"kappa": 0.0}, "depth.kappa=0.0 must be positive"),
        ({"kappa": float("nan")}, "depth.kappa=nan is not finite"),
        ({"depht": 1.0}, r"unknown \['depht'\]"),
        ({"edges": None}, "give both or neither"),
        ({"gap_margin": None}, "give both or neither"),
        ({"edges_in_order": 11}, "edges_by_margin <= edges_in_order <= edges"),
        ({"edges_by_margin": 9}, "edges_by_margin <= edges_in_order <= edges"),
        ({"edges_in_order": 7.5}, "needs integers"),
        ({"images_not_nearer": 60.0}, "images_not_nearer=60.0 must be a fraction"),
        ({"clean_margin": [5.0, 2.0, -1.0]}, "three ascending numbers"),
        ({"clean_margin": [1.0, 2.0]}, "three ascending numbers"),
        ({"attacked_margin": [0.0, 1.0, 401.0]}, "depth.attacked_margin reaches 401.0, above the bound"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        record_with(**changes)


def test_depth_of_something_else_is_refused():
    for changes in ({"classifier": "rollup"}, {"tree": None}):
        with pytest.raises(ValueError, match="depth is of the prompts of a tree's level"):
            replace(record_with(), **changes)
    with pytest.raises(ValueError, match=r"unknown \['image_depth', 'images_not_nearer'\] at level 1"):
        replace(record_with(), level=1, level_name="superclass")


@pytest.mark.parametrize("curvature", [0.5, 1.0, 4.0])
def test_no_margin_passes_the_bound_of_unequal_norms(curvature):
    """Random texts and images, and the worst case: an image at the farthest text, its rival opposite."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator).double(), dim=1)
    directions[1] = -directions[0]
    norms = 0.2 + torch.rand(40, 1, generator=generator).double()
    norms[:2] = norms.max()
    texts = polar.from_tangent(directions * norms / curvature**0.5, curvature)
    images = polar.Polar(texts.direction[:30], texts.radius[:30] * 0.5)
    images = polar.Polar(
        torch.cat([texts.direction, images.direction]), torch.cat([texts.radius, images.radius])
    )
    scores = -100 * polar.pairwise_distance(images, texts, curvature)
    margins = classification_margin(scores, torch.cat([torch.arange(40), torch.arange(30)]))
    eta = math.tanh(float(norms.max())) / curvature**0.5
    bound = float(hyperbolic_margin(eta, curvature, 100.0))
    assert float(margins.max()) <= bound * (1 + 1e-9)
    alone = classification_margin(scores[:1, :2], torch.tensor([0]))
    assert float(alone) == pytest.approx(bound, rel=1e-6), "reached where only the opposite text competes"


def test_clean_depth_is_what_the_records_say(records, clip):
    model, processor, *_ = clip
    data = noise()
    model.train()
    found = clean_depth(model, processor, data, batch_size=5)
    assert model.training
    for level, record in zip(found, by_level(records)):
        expected = {k: v for k, v in record.depth.items() if k != "attacked_margin"}
        assert set(level) == set(expected)
        for name, value in expected.items():
            assert level[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    with pytest.raises(ValueError, match="'noise' has no tree"):
        clean_depth(model, processor, replace(data, tree=None))
