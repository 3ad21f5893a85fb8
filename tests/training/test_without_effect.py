"""Options that the objective, the attack or the data leave without effect are refused by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tiny_data import CLASSES, make_images
from tiny_runs import make_trainer

from hf_hierrobust.attacks import LeafAttack, TrainingPGD, UniversalHierarchicalAttack
from hf_hierrobust.data import PixelDataset
from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.objectives import (
    FARE,
    PMGAFT,
    TGAZSR,
    AdvFLYP,
    Composite,
    CompTGA,
    HierAGFT,
    HierMMCoA,
    HierRobust,
    MMCoA,
    TeCoA,
)
from hf_hierrobust.options import refuse_idle
from hf_hierrobust.training import RobustTrainingArguments
from hf_hierrobust.training.without_effect import refuse_without_effect

COSINE = {"score": "cosine", "pooling": "none", "lambda_vic": 0.0, "lambda_gap": 0.0}
FORMER = {"edge_reduction": "mean", "level_scales": False, "gap_norm": "ball", "tangent_norm": None}
KINDS = Forest((LabelTree.from_paths({c: [f"kind {i // 2}"] for i, c in enumerate(CLASSES)}, name="kinds"),))
FLAT = Forest((LabelTree.from_paths({c: [] for c in CLASSES}, name="flat"),))


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (
            HierRobust,
            {"lambda_vic": 0, "vic_hinge": False},
            "vic_hinge=False has no effect with lambda_vic=0",
        ),
        (
            HierRobust,
            {"lambda_gap": 0, "level_gap": False},
            "level_gap=False .*with lambda_gap=0",
        ),
        (
            HierRobust,
            {"lambda_gap": 0, "edge_reduction": "mean"},
            "edge_reduction='mean' .*with lambda_gap=0",
        ),
        (
            HierRobust,
            {"lambda_gap": 0, "intra_gap": "both"},
            "intra_gap='both' has no effect with lambda_gap=0",
        ),
        (HierRobust, {"pooling": "none", "sync_midpoints": True}, "sync_midpoints=True .*pooling='none'"),
        (HierRobust, COSINE | {"sync_midpoints": True}, "sync_midpoints=True has no effect"),
        (HierAGFT, {"label_weight": 1, "gamma": 3.0}, "gamma=3.0 has no effect with label_weight=1"),
        (HierAGFT, {"train_scales": False}, "train_scales=False has no effect with score='cosine'"),
        (TGAZSR, {"alpha": 0, "beta": 0, "norm": "l1"}, "norm='l1' has no effect with alpha=0 and beta=0"),
        (TGAZSR, {"alpha": 0, "beta": 0, "resolution": 7}, "resolution=7 has no effect"),
        (TGAZSR, {"alpha": 0, "beta": 0, "official_quirks": True}, "official_quirks=True has no effect"),
        (CompTGA, {"alpha": 0, "beta": 0, "negative_template": "no {}"}, "negative_template='no {}' has no"),
        (Composite, {"members": {"hier_robust": {"lambda_vic": 0, "vic_hinge": False}}}, "vic_hinge=False"),
        (HierMMCoA, {"alignment_args": {"lambda_gap": 0, "intra_gap": "none"}}, "intra_gap='none' has no"),
        (HierMMCoA, {"alignment_args": {"train_text_projection": False}}, "beside 'mmcoa', which trains"),
        (
            Composite,
            {"members": {"hier_robust": {"train_scales": False}, "hier_agft": {"score": "squared"}}},
            "train_scales=False has no effect on 'hier_robust' beside 'hier_agft'",
        ),
    ],
)
def test_options_that_others_switch_off(cls, options, words):
    with pytest.raises(ValueError, match=words):
        cls(**options)


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (HierRobust, COSINE),
        (HierRobust, FORMER | {"kappa_scale": 1.0}),
        (HierRobust, COSINE | {"vic_hinge": True, "intra_gap": "label", "sync_midpoints": False}),
        (HierRobust, {"pooling": "none", "intra_gap": "both", "sync_midpoints": True}),
        (HierAGFT, {"label_weight": 1, "gamma": 1.0, "train_scales": True}),
        (HierAGFT, {"score": "hyperbolic", "train_scales": False}),
        (CompTGA, {"alpha": 0, "beta": 0, "norm": "l2", "resolution": 224}),
        (CompTGA, {"alpha": 0, "negative_template": "no {}", "norm": "cosine"}),
        (PMGAFT, {"alpha": 0, "beta": 0, "official_quirks": True}),
        (AdvFLYP, {"lambda_logit": 0, "lambda_feature": 0, "positives": "class"}),
        (MMCoA, {"lambda_image": 0, "positives": "diagonal", "gather_negatives": False}),
        (FARE, {"target": "own"}),
        (Composite, {"members": {"hier_robust": {"train_text_projection": False}, "hier_agft": {}}}),
        (HierMMCoA, {"alignment": "hier_agft", "alignment_args": {"train_text_projection": False}}),
    ],
)
def test_what_has_an_effect_or_is_the_default_stays(cls, options):
    assert cls(**cls(**options).options()).options() == cls(**options).options()


@pytest.mark.parametrize(
    ("options", "forest", "words"),
    [
        ({"tree_reduction": "mean"}, KINDS, "tree_reduction='mean' has no effect on a single tree"),
        ({"hnsa": "none"}, FLAT, "hnsa='none' has no effect on these trees"),
        ({"level_weights": (1.0, 0.0), "hnsa": "upper"}, KINDS, "hnsa='upper' .*the negatives of 'both'"),
        (
            {"level_weights": (1.0, 0.0), "pooling": "none"},
            KINDS,
            "pooling='none' has no effect where no level",
        ),
        ({"level_scales": False}, FLAT, "level_scales=False has no effect on a tree without superclasses"),
        ({"pooling": "none"}, FLAT, "pooling='none' has no effect"),
        ({"sync_midpoints": True}, FLAT, "sync_midpoints=True has no effect"),
        ({"edge_reduction": "mean"}, FLAT, "edge_reduction='mean' has no effect"),
        ({"level_gap": False}, FLAT, "level_gap=False has no effect"),
        ({"intra_gap": "both"}, FLAT, "intra_gap='both' has no effect"),
    ],
)
def test_options_that_the_trees_switch_off(options, forest, words):
    with pytest.raises(ValueError, match=words):
        HierRobust(**options).setup(CLASSES, forest)
    if forest is FLAT:
        HierRobust(**options).setup(CLASSES, KINDS)
    HierRobust().setup(CLASSES, forest)


def refuse(objective, attack=None, evaluated=True, calibrated=False, **options):
    if "tree" in objective.needs:
        objective.setup(CLASSES, KINDS)
    args = SimpleNamespace(**options, changed=lambda *names: [name for name in names if name in options])
    refuse_without_effect(args, objective, attack, evaluated=evaluated, calibrated=calibrated)


TEXT = {"text_eps": 0.5, "text_step_size": 0.1, "shared_text": True, "text_perturbation": "pooled"}


@pytest.mark.parametrize(
    ("objective", "attack", "words"),
    [
        *(
            (TeCoA(), UniversalHierarchicalAttack(**{k: v}), f"{k}=.*'tecoa', which reads")
            for k, v in TEXT.items()
        ),
        (FARE(), LeafAttack(text_eps=0, shared_text=True), "shared_text=True has no effect on 'fare'"),
        (Composite(members={"tecoa": {}, "agft": {}}), LeafAttack(shared_text=True), "shared_text=True"),
        (
            HierRobust(),
            UniversalHierarchicalAttack(text_eps=0, shared_text=True),
            "shared_text=True .*text_eps=0",
        ),
        (HierRobust(), UniversalHierarchicalAttack(num_steps=1, momentum=0.9), "momentum=0.9 .*num_steps=1"),
        (
            TeCoA(),
            TrainingPGD(num_steps=1, schedule="cosine"),
            "schedule='cosine' has no effect with num_steps=1",
        ),
        (MMCoA(lambda_image=0), TrainingPGD(), "attack='pgd' has no effect: 'mmcoa' trains on no attacked"),
        (
            HierRobust(lambda_vic=0, vic_factor=0.3),
            TrainingPGD(),
            "vic_factor=0.3 has no effect with lambda_vic=0",
        ),
        (HierAGFT(vic_factor=0.3), TrainingPGD(), "vic_factor=0.3 has no effect on 'hier_agft'"),
        (
            Composite(members={"hier_agft": {"vic_factor": 0.3}}),
            TrainingPGD(),
            "vic_factor=0.3 has no effect",
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_options_that_the_attack_or_the_objective_switches_off(objective, attack, words):
    with pytest.raises(ValueError, match=words):
        refuse(objective, attack)


def test_what_the_objective_reads_stays():
    refuse(HierRobust(), UniversalHierarchicalAttack(**TEXT))
    refuse(TeCoA(), UniversalHierarchicalAttack(num_steps=1))
    refuse(TeCoA(), UniversalHierarchicalAttack(text_eps=0))
    refuse(Composite(members={"tecoa": {}, "hier_agft": {}}), UniversalHierarchicalAttack(text_eps=0.5))
    both = {"hier_robust": {"vic_factor": 0.3}, "hier_agft": {"vic_factor": 0.3}}
    refuse(Composite(members=both), TrainingPGD())
    refuse(HierAGFT(vic_factor=0.3), TrainingPGD(), calibrated=True)  # the checkpoint's own
    refuse(HierMMCoA(mmcoa_args={"lambda_image": 0}), TrainingPGD())


EVALUATED = {
    "eval_strategy": "steps",
    "eval_on_start": True,
    "metric_for_best_model": "foo",
    "robust_eval_samples": 7,
    "robust_eval_steps": 7,
    "per_device_eval_batch_size": 4,
    "eval_accumulation_steps": 1,
}


@pytest.mark.parametrize("name", EVALUATED)
def test_fields_of_evaluations_need_an_evaluation_set(name):
    with pytest.raises(ValueError, match=f"{name}=.* has no effect without eval_dataset"):
        refuse(TeCoA(), TrainingPGD(), evaluated=False, **{name: EVALUATED[name]})
    refuse(TeCoA(), TrainingPGD(), **{name: EVALUATED[name]})


def test_calibration_and_attacked_evaluations_that_never_happen():
    for objective in (TeCoA(), Composite(members={"tecoa": {}, "fare": {}})):
        with pytest.raises(ValueError, match=f"calibration_samples=8 has no effect: '{objective.name}' cal"):
            refuse(objective, TrainingPGD(), calibration_samples=8)
    refuse(Composite(members={"tecoa": {}, "hier_agft": {}}), TrainingPGD(), calibration_samples=8)
    with pytest.raises(ValueError, match="robust_eval_steps=3 has no effect: nothing is attacked"):
        refuse(TeCoA(), robust_eval_steps=3)


def test_the_trainer_refuses(tiny_clip_dir, tmp_path):
    given = {"attack": "universal", "attack_args": {"text_eps": 0.5}}
    with pytest.raises(ValueError, match=r"text_eps=0\.5 has no effect on 'tecoa'"):
        make_trainer(tiny_clip_dir, tmp_path, **given)
    with pytest.raises(ValueError, match="robust_eval_samples=7 has no effect without eval_dataset"):
        make_trainer(tiny_clip_dir, tmp_path, robust_eval_samples=7)
    options = {"robust_eval_samples": 7, "robust_eval_steps": 7}
    make_trainer(tiny_clip_dir, tmp_path, evaluation=PixelDataset(make_images(8)), **options)


def test_an_attack_by_name_says_whether_it_perturbs_text(tmp_path):
    args = RobustTrainingArguments(str(tmp_path), bf16=False, attack="leaf")
    flat, tree = args.build_attack(TeCoA()), args.build_attack(HierRobust())
    assert flat.describe()["text_eps"] == 0 and tree.text_eps == LeafAttack().text_eps


@pytest.mark.parametrize(("name", "value"), [("num_steps", 3), ("step_size", "1/255")])
def test_one_option_in_two_places_is_refused(name, value, tmp_path):
    args = RobustTrainingArguments(str(tmp_path), bf16=False, attack_args={name: value}, **{name: value})
    with pytest.raises(ValueError, match=f"attack_args and {name} both set {name}: give it once"):
        args.build_attack(TeCoA())


def test_defaults_are_never_refused():
    refuse_idle(TeCoA(), {})
    refuse_idle(FARE(target="original"), {"target": "never", "clean_weight": "never"})
    with pytest.raises(ValueError, match="target='own' has no effect never: leave it out"):
        refuse_idle(FARE(target="own"), {"target": "never"})
