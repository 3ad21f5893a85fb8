"""The options read from source are those of the classes; help comes without torch."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from hf_hierrobust.attacks import TEXT_ATTACKS
from hf_hierrobust.classifiers import levels
from hf_hierrobust.cli import checks
from hf_hierrobust.cli.checks import check_early
from hf_hierrobust.cli.help import COMMON, help_text
from hf_hierrobust.cli.main import COMMANDS, main
from hf_hierrobust.cli.options import (
    INHERITED,
    OWN,
    RUN,
    TRAINING,
    all_options,
    options_of,
    refused,
    registered,
    registered_class,
    trees,
)
from hf_hierrobust.cli.values import UsageError
from hf_hierrobust.data import available_class_sets
from hf_hierrobust.hierarchy import available_trees
from hf_hierrobust.objectives import OBJECTIVES
from hf_hierrobust.runs.arguments import RunArguments
from hf_hierrobust.training import RobustTrainingArguments

ROOT = Path(__file__).resolve().parents[2]


def real_fields() -> dict:
    return {f.name: f for cls in (RobustTrainingArguments, RunArguments) for f in fields(cls) if f.init}


def test_what_is_read_from_source_is_what_the_classes_have():
    real, read = real_fields(), all_options()
    assert set(read) - {o.name for o in read.values() if o.origin == OWN} == set(real)
    for name, option in read.items():
        if option.origin in (RUN, TRAINING):
            assert option.help == real[name].metadata.get("help", ""), name
        default = getattr(real.get(name), "default", MISSING)
        if default is not MISSING and not isinstance(option.default, str):
            assert option.default == default, name


def test_names_in_help_and_early_checks_are_the_registered_ones():
    assert registered()["objective"] == tuple(OBJECTIVES.names())
    assert registered()["text_attack"] == tuple(TEXT_ATTACKS.names())
    assert trees() == available_trees()
    assert checks.CLASSIFIERS == levels.CLASSIFIERS
    for name in available_class_sets():
        assert name in all_options()["class_set"].help


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_kind32_each_command_shows_its_own_options_the_common_ones_first(command):
    text = help_text(command)
    assert len(text.splitlines()) < 150
    shown = [line.split()[0][2:] for line in text.splitlines() if line.startswith("  --")]
    assert shown[: len(COMMON[command])] == COMMON[command]
    assert set(shown) <= set(options_of(command)) | {"help", "debug"}
    inherited = {o.name for o in all_options().values() if o.origin == INHERITED}
    if command == "evaluate":
        assert not {"learning_rate", "objective", "train_file", "lora_r"} & set(shown)
    else:
        assert {"weight_decay"} <= set(help_text(command, everything=True).split()) | inherited
        assert "--weight_decay" not in text and "--weight_decay" in help_text(command, everything=True)


def test_kind26_help_of_each_command_takes_half_a_second():
    """And no torch: it is the CPU time of a process of its own, whose start counts for each of them."""
    code = (
        "import sys, time; from hf_hierrobust.cli.main import COMMANDS, main; begun = time.process_time()\n"
        "for name in COMMANDS:\n"
        "    before = time.process_time(); main([name, '--help'])\n"
        "    print('took', name, begun + time.process_time() - before)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    took = dict(line.split()[1:] for line in said.stdout.splitlines() if line.startswith("took "))
    assert set(took) == set(COMMANDS) and max(map(float, took.values())) < 0.5, took


@pytest.mark.parametrize("module", ["hf_hierrobust", "hf_hierrobust.cli.main"])
def test_kind32_the_package_runs_as_a_module(module):
    start = time.process_time()
    command = [sys.executable, "-m", module, "train", "--epss", "1/255"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "did you mean --eps?" in done.stderr
    assert time.process_time() - start < 3


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("run_*.py")), ids=lambda path: path.stem)
def test_kind26_the_examples_answer_like_the_command(script):
    done = subprocess.run(
        [sys.executable, script, "--epss", "1/255"], capture_output=True, text=True, cwd=ROOT
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "--epss is no option of train: did you mean --eps?" in line


def test_debug_keeps_the_traceback(capsys):
    for argv, traceback in ((["train"], False), (["train", "--debug"], True)):
        with pytest.raises(SystemExit):
            main(argv)
        assert ("Traceback" in capsys.readouterr().err) is traceback


def test_plugins_register_before_arguments_are_parsed(tmp_path, command, capsys):
    """An objective from one file, by its name on the command line."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from hf_hierrobust.objectives import OBJECTIVES, TeCoA\n\n"
        "@OBJECTIVES.register\n@dataclass(kw_only=True)\nclass Mine(TeCoA):\n"
        '    """TeCoA by another name."""\n    name: ClassVar[str] = "mine_of_the_plugin_test"\n'
    )
    options = {"objective": "mine_of_the_plugin_test", "tree": None, "max_steps": 1, "figures": "false"}
    with pytest.raises(SystemExit):
        main(["train", *command.argv(**options)])
    assert "objective='mine_of_the_plugin_test' is unknown" in capsys.readouterr().err
    main(["train", "--plugins", str(plugin), *command.argv(**options, eval_base="false", eval_samples=4)])
    assert "mine_of_the_plugin_test" in (command.options["output_dir"] / "results.json").read_text()


def test_kind10_the_table_of_all_options_is_up_to_date():
    """Works or refused, none silent; what is refused is refused on the command line with its reason."""
    from hf_hierrobust.cli.table import options_table

    written = (ROOT / "docs/options.md").read_text()
    assert written.strip() == options_table().strip(), "python -m hf_hierrobust.cli.table > docs/options.md"
    for name in all_options():
        assert f"| `{name}` |" in written


@pytest.mark.parametrize("name", sorted(refused()))
def test_kind10_what_the_table_calls_refused_is_refused(name, tmp_path):
    option = all_options()[name]
    value = {"bool": not option.default, "int": 3, "float": 0.5, "dict": {"a": 1}}.get(option.kind, "x")
    values = {"dataset_name": "glyphs", "output_dir": str(tmp_path / "out"), name: value}
    with pytest.raises(UsageError, match=rf"{name}.* cannot be used: "):
        check_early("train", values)


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_options_of_objectives_are_read_as_they_are(name):
    read = registered_class("objectives", name)
    if read is not None:  # else its options are checked when it is built
        assert set(read[0]) == {f.name for f in fields(OBJECTIVES.get(name)) if f.init}
