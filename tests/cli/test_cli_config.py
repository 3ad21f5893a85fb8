"""YAML configs: flags win, numbers stay numbers, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hf_hierrobust.cli.arguments import build_arguments
from hf_hierrobust.cli.values import UsageError, read_values
from hf_hierrobust.data import available_class_sets
from hf_hierrobust.runs.plans import evaluation_plan


@pytest.fixture()
def parse(tmp_path):
    def run(text: str, *flags: str, **defaults):
        path = tmp_path / "run.yaml"
        path.write_text("dataset_name: glyphs\noutput_dir: out\n" + text)
        return build_arguments(read_values("train", ["--config", str(path), *flags], defaults))

    return run


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "'0.001'"])
def test_learning_rates_are_floats_however_written(text, parse):
    _, training = parse(f"learning_rate: {text}\n")
    assert training.learning_rate == 0.001 and type(training.learning_rate) is float


def test_whole_numbers_become_floats_where_floats_are_meant(parse):
    _, training = parse("learning_rate: 1\nnum_train_epochs: 2\nmax_steps: 7\n")
    assert type(training.learning_rate) is float and type(training.num_train_epochs) is float
    assert training.max_steps == 7 and type(training.max_steps) is int


def test_flags_win_over_the_file_and_the_file_over_defaults(parse):
    args, training = parse(
        "eps: 2/255\neval_eps: 1/255\nobjective: tecoa\n", "--eps", "4/255", objective="hier_robust", tree="x"
    )
    assert training.eps == "4/255" and training.threat.eps == pytest.approx(4 / 255)
    assert args.eval_eps == "1/255" and training.objective == "tecoa" and training.tree == "x"


def test_flags_win_whatever_their_place(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("dataset_name: glyphs\nseed: 1\n")
    argv = ["--seed", "3", "--output_dir", str(tmp_path), "--config", str(path)]
    assert read_values("train", argv)["seed"] == 3


def test_a_budget_written_as_a_number_works(parse):
    args, training = parse("eps: 0.0157\nstep_size: 0.004\neval_eps: 0.0157\n")
    assert training.threat.eps == 0.0157
    assert evaluation_plan(args, training.threat).budgets[0][0].threat.eps == 0.0157


def test_switches_and_options_as_mappings(parse):
    args, training = parse(
        "figures: false\nbf16_search: no\nbf16: true\nobjective_args: {hnsa: upper}\n"
        "resume_from_checkpoint: true\nlr_scheduler_kwargs: {num_cycles: 2}\nreport_to: [none]\n"
    )
    assert args.figures is False and args.bf16_search is False and training.bf16 is True
    assert training.objective_args == {"hnsa": "upper"} and training.resume_from_checkpoint is True
    assert training.lr_scheduler_kwargs == {"num_cycles": 2} and training.report_to == []


def test_lists_are_commas(parse):
    args, training = parse(
        "eval_eps: [1/255, 4/255]\neval_attack: [pgd-margin, pgd-ce]\neval_classifiers: [cosine, path]\n"
    )
    plan = evaluation_plan(args, training.threat)
    assert [round(one[0].threat.eps * 255) for one in plan.budgets] == [1, 4]
    assert all([attack.loss for attack in one] == ["margin", "ce"] for one in plan.budgets)
    assert args.classifiers == ["cosine", "path"]


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        (
            "learning_rte: 0.1\n",
            r"run\.yaml: learning_rte is no option of train: did you mean learning_rate\?",
        ),
        ("config: other.yaml\n", r"run\.yaml: a config cannot name another"),
        ("eval_strategy: no\n", "eval_strategy: YAML reads.*quotes"),
        ("eps: [1\n", "is not YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(yaml, words, parse):
    with pytest.raises(ValueError, match=words):
        parse(yaml)


@pytest.mark.parametrize(("text", "kind"), [("- a\n", "list"), ("just words\n", "str"), ("[]\n", "list")])
def test_a_file_that_is_no_mapping_is_refused(text, kind, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"must map option names to values, it holds a {kind}"):
        read_values("train", ["--config", str(path)])


def test_a_missing_file_is_named():
    with pytest.raises(UsageError, match=r"config='nowhere\.yaml' is not a file"):
        read_values("train", ["--config", "nowhere.yaml"])


@pytest.mark.parametrize(
    ("yaml", "words"),
    [("max_steps: 1.5\n", "max_steps=1.5 must be a whole"), ("seed: x\n", "seed='x' must be a whole")],
)
def test_numbers_of_the_wrong_kind_are_refused_as_flags_are(yaml, words, parse):
    with pytest.raises(ValueError, match=words):
        parse(yaml)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epss", "1/255"], "--epss is no option of train: did you mean --eps?"),
        (["--eps"], "--eps needs a value, e.g. --eps 1/255"),
        (["--eps", "1/255", "2/255"], "--eps takes one value, got 2"),
        (["--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["--figures", "maybe"], "--figures='maybe' must be true or false"),
        (["--optim", "adam"], "--optim='adam' is unknown"),
        (["stray"], "'stray' belongs to no option"),
    ],
)
def test_kind26_flags_are_read_exactly(flags, words):
    """No abbreviations, no silent last one of two, no stray words."""
    with pytest.raises(UsageError) as caught:
        read_values("train", flags)
    assert words in str(caught.value)


def test_flags_come_in_every_usual_form():
    argv = [
        "--eval-samples=5",
        "--no_figures",
        "--bf16",
        "--eval_eps",
        "1/255",
        "4/255",
        "--report_to",
        "none",
    ]
    values = read_values("train", [*argv, "--learning-rate", "-1e-3"])
    assert values["eval_samples"] == 5 and values["figures"] is False and values["bf16"] is True
    assert values["eval_eps"] == "1/255,4/255" and values["learning_rate"] == -1e-3


def test_kind15_yaml_lists_and_mappings_where_several_are_taken(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "eval_attack: [pgd-ce, pgd-margin]\nzero_shot: {a: x.parquet, b: y.parquet}\nlora_towers: [vision]\n"
        "lr_scheduler_kwargs: {num_cycles: 2}\nreport_to: [none]\nplugins: [a.py, b.py]\n"
    )
    values = read_values("train", ["--config", str(path)])
    assert values["eval_attack"] == "pgd-ce,pgd-margin" and values["lora_towers"] == "vision"
    assert values["zero_shot"] == {"a": "x.parquet", "b": "y.parquet"}
    assert values["plugins"] == ["a.py", "b.py"]
    path.write_text("eps: [1/255]\n")
    with pytest.raises(UsageError, match=r"eps=.* takes one value, not a list"):
        read_values("train", ["--config", str(path)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a: &a [1, 2]\n"
            + "".join(f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n" for p, n in zip("abcdef", "bcdefg")),
            "aliases",
        ),
        ("eps: " + "[" * 5000, "nests too deeply|is not YAML"),
        ("eps: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    ],
)
def test_kind19_hostile_configs_meet_one_line(text, words, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read_values("train", ["--config", str(path)])


CONFIGS = sorted((Path(__file__).resolve().parents[2] / "examples/configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_name_what_exists(path, tmp_path):
    """Options, objective, attacks and class set of every config, without its data or model."""
    values = yaml.safe_load(path.read_text())
    given = {"output_dir": tmp_path, "model_name_or_path": "some/clip"}
    given |= {} if "dataset_name" in values else {"train_file": 1, "eval_file": 1}
    flags = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    args, training = build_arguments(read_values("train", ["--config", str(path), *flags]))
    objective = training.build_objective()
    assert training.build_attack(objective) is not None
    assert ("tree" in objective.needs) <= (training.tree is not None)
    if "attacked_captions" in objective.needs:
        assert training.build_text_attack(objective.default_text_attack) is not None
    if args.class_set is not None:
        assert args.class_set in available_class_sets()
