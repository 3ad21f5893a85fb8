"""Arguments are checked before anything is loaded, with messages that name option, value and fix."""

from __future__ import annotations

import pytest

from hf_hierrobust.attacks import TrainingPGD, UniversalHierarchicalAttack
from hf_hierrobust.objectives import FARE, Clean, Composite, HierRobust, MMCoA, TeCoA
from hf_hierrobust.training import RobustTrainingArguments


def arguments(tmp_path, **options) -> RobustTrainingArguments:
    return RobustTrainingArguments(output_dir=str(tmp_path), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": "4"}, "eps='4'.*did you mean 4/255"),
        ({"eps": 8.0}, "eps=8.0.*did you mean 8/255"),
        ({"eps": "0"}, "eps='0' must be positive"),
        ({"eps": "-1/255"}, "eps='-1/255' must be positive"),
        ({"eps": "4/0"}, "eps='4/0' is not a number"),
        ({"eps": "four"}, "eps='four' is not a number.*'4/255'"),
        ({"eps": "nan"}, "eps='nan'"),
        ({"step_size": "2"}, "step_size='2'.*did you mean 2/255"),
        ({"norm": "l1"}, "norm='l1'.*'linf' or 'l2'"),
        ({"threat_space": "pixel"}, "space='pixel'.*'native' or 'model'"),
        ({"objective_args": "{hnsa: upper}"}, "objective_args='{hnsa: upper}' is not JSON"),
        ({"objective_args": "[1]"}, "objective_args=.* must be a JSON object"),
        ({"attack_args": "3"}, "attack_args=.* must be a JSON object"),
        ({"hub_token": "hf_secret"}, "HF_TOKEN"),
        ({"template": "a photo"}, r"template='a photo' must contain '\{\}' exactly once"),
        ({"fp16": True}, "fp16=True cannot be used: attack gradients underflow.*use bf16"),
    ],
)
def test_wrong_values_are_refused(options, words, tmp_path):
    with pytest.raises(ValueError, match=words) as caught:
        arguments(tmp_path, **options)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(("option", "value"), [("objective", "hier_robus"), ("attack", "universa")])
def test_unknown_names_come_with_the_nearest(option, value, tmp_path):
    with pytest.raises(KeyError, match=rf"unknown .*{option}.*did you mean '{value}[tl]'"):
        arguments(tmp_path, **{option: value})


def test_unknown_options_list_the_known_ones(tmp_path):
    args = arguments(tmp_path, objective="hier_robust", objective_args={"hsna": "upper"})
    with pytest.raises(ValueError, match=r"objective_args.*'hsna'.*'hier_robust' takes hnsa, score, "):
        args.build_objective()
    args = arguments(tmp_path, attack_args={"steps": 3})
    with pytest.raises(ValueError, match=r"attack_args.*'steps'.*'universal' takes.*num_steps"):
        args.build_attack(HierRobust())
    with pytest.raises(ValueError, match="hnsa='sibling'"):
        arguments(tmp_path, objective_args={"hnsa": "sibling"}).build_objective()


def test_objective_options_come_as_json_or_as_a_mapping(tmp_path):
    for value in ('{"hnsa": "upper", "lambda_vic": 0.25}', {"hnsa": "upper", "lambda_vic": 0.25}):
        objective = arguments(tmp_path, objective_args=value).build_objective()
        assert objective == HierRobust(hnsa="upper", lambda_vic=0.25)


def test_attack_defaults_are_the_papers(tmp_path):
    """HierRobust: 3 steps from Gaussian noise; TeCoA: 2; with a step of eps. FARE: 10 of 1/255."""
    args = arguments(tmp_path, eps="4/255")
    universal, pgd = args.build_attack(HierRobust()), args.build_attack(TeCoA())
    assert (universal.num_steps, universal.random_start, universal.text_eps) == (3, "gaussian", 2e-4)
    assert (pgd.num_steps, pgd.random_start) == (2, "uniform") and type(pgd) is TrainingPGD
    for attack in (universal, pgd):
        assert attack.threat.eps == attack.step == pytest.approx(4 / 255)
    assert args.build_attack(Clean()) is None
    assert args.build_attack(FARE()).num_steps == args.build_attack(MMCoA()).num_steps == 10
    assert args.build_attack(FARE()).step_size == pytest.approx(1 / 255)
    assert arguments(tmp_path, eps="0.5/255").build_attack(FARE()).step_size == pytest.approx(0.5 / 255)
    assert arguments(tmp_path, norm="l2", eps="2").build_attack(FARE()).step == 2
    assert args.build_attack(Composite(members={"fare": {}})).step_size == pytest.approx(1 / 255)
    assert args.build_attack(Composite(members={"fare": {}, "tecoa": {}})).step == args.threat.eps
    assert arguments(tmp_path, num_steps=3).build_attack(FARE()).num_steps == 3
    assert arguments(tmp_path, attack="pgd").build_attack(HierRobust()).num_steps == 2


def test_named_attack_options_win(tmp_path):
    args = arguments(
        tmp_path, attack="leaf", eps="2/255", step_size="1/255", num_steps=5, attack_args='{"text_eps": 0}'
    )
    attack = args.build_attack(HierRobust())
    assert (attack.name, attack.num_steps, attack.text_eps) == ("leaf", 5, 0)
    assert attack.step_size == pytest.approx(1 / 255)
    assert arguments(tmp_path, attack="none").build_attack(TeCoA()) is None


def test_options_that_training_does_not_use_are_refused(tmp_path):
    args = arguments(tmp_path, attack_args={"restarts": 5, "loss": "margin"})
    with pytest.raises(ValueError, match=r"attack_args: .*'restarts'; 'pgd' takes eps, norm, "):
        args.build_attack(TeCoA())


def test_steps_are_checked_like_budgets(tmp_path):
    with pytest.raises(ValueError, match=r"step_size=4 covers.*did you mean 4/255"):
        arguments(tmp_path, attack_args={"step_size": 4}).build_attack(TeCoA())
    attack = arguments(tmp_path, attack_args={"step_size": "1/255"}).build_attack(HierRobust())
    assert attack.step_size == pytest.approx(1 / 255)


def test_an_instance_of_the_universal_attack_steps_by_eps(tmp_path):
    by_name = arguments(tmp_path, eps="4/255").build_attack(HierRobust())
    instance = UniversalHierarchicalAttack(eps=by_name.eps)
    assert instance.step == by_name.step == by_name.eps


def test_l2_budgets_are_radii(tmp_path):
    args = arguments(tmp_path, norm="l2", eps="2.5")
    assert str(args.threat) == "l2:2.5" and args.build_attack(TeCoA()).step == 2.5


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("false", False), ("a/checkpoint-1",) * 2]
)
def test_resume_is_a_switch_or_a_path(text, value, tmp_path):
    assert arguments(tmp_path, resume_from_checkpoint=text).resume_from_checkpoint == value


def test_defaults_that_silence_would_break(tmp_path):
    """remove_unused_columns drops the labels, label_names decides whether evaluation returns anything."""
    args = arguments(tmp_path)
    assert args.remove_unused_columns is False and args.label_names == ["labels"]
