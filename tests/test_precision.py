"""One decision on precision and kernels, from what the hardware can do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings

import pytest
import torch

from hf_hierrobust import precision
from hf_hierrobust.demo.pretraining import PretrainRecipe
from hf_hierrobust.modeling.kernels import fast_kernels
from hf_hierrobust.precision import (
    Capability,
    accelerate_choice,
    attention_kernel,
    decide_precision,
    query_capability,
    resolve_bf16,
)
from hf_hierrobust.runs.arguments import RunArguments
from hf_hierrobust.training import RobustTrainingArguments

AVX2 = Capability("cpu", "AVX2", False)
NATIVE = Capability("cpu", "AVX512 with AVX512-BF16", True)


@pytest.fixture(autouse=True)
def said_anew(monkeypatch):
    """A line is said once per process; each test is a process of its own here."""
    precision._once.cache_clear()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


@pytest.fixture()
def emulating(monkeypatch):
    """This machine, as if its CPU had no bf16 instructions."""
    monkeypatch.setattr(precision, "query_capability", lambda device_type: AVX2)


def test_a_cpu_without_bf16_instructions_runs_in_fp32():
    decision = decide_precision("cpu", AVX2)
    assert decision.dtype is None and decision.attention is None and "fp32 on AVX2" in decision.reason


def test_a_device_with_bf16_instructions_runs_under_autocast():
    assert decide_precision("cpu", NATIVE)[::2] == (torch.bfloat16, "eager")
    assert decide_precision("cuda", Capability("cuda", "A100", True))[::2] == (torch.bfloat16, None)
    assert decide_precision("cuda", Capability("cuda", "T4", False)).dtype is None
    assert query_capability("meta").native_bf16 is False, "a backend that does not say"


@pytest.mark.parametrize(("ratio", "dtype"), [(0.5, torch.bfloat16), (0.95, None), (27.0, None)])
def test_a_processor_that_does_not_say_is_timed(ratio, dtype, monkeypatch):
    monkeypatch.setattr(precision, "_time_ratio", lambda device_type: ratio)
    decision = decide_precision("cpu", Capability("cpu", "riscv", None))
    assert decision.dtype == dtype and f"bf16 takes {ratio:.2g} times" in decision.reason


def test_timing_takes_a_fraction_of_a_second():
    start = time.process_time()
    assert precision._time_ratio.__wrapped__("cpu") > 0
    assert time.process_time() - start < 1, "emulated products included"


@pytest.mark.parametrize(
    ("limit", "machine", "supported", "flags", "native"),
    [
        (None, "x86_64", True, {"avx512_bf16": True}, True),
        (None, "x86_64", True, {"amx_bf16": True}, True),
        (None, "x86_64", True, {"avx512_f": True}, False),  # oneDNN says yes and emulates
        (None, "x86_64", True, None, None),
        (None, "x86_64", False, {"avx512_bf16": True}, False),  # switched off by a limit that oneDNN knows
        ("AVX512_CORE", "x86_64", True, {"avx512_bf16": True}, False),
        ("AVX512_CORE_BF16", "x86_64", True, {"avx512_bf16": True}, True),
        (None, "aarch64", True, {}, True),
        (None, "arm64", False, {}, False),
    ],
)
def test_what_a_cpu_says_of_itself(limit, machine, supported, flags, native, monkeypatch):
    monkeypatch.setattr(precision.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(precision, "_processor_flags", lambda: flags)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision._cpu_capability().native_bf16 is native


def test_the_limit_of_this_process_is_seen():
    """ONEDNN_MAX_CPU_ISA=AVX2 takes bf16 away from a CPU that has it: 27 times slower if nobody looks."""
    code = "from hf_hierrobust.precision import decide_precision as d; print(d('cpu').dtype)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "None"


def test_auto_says_what_it_chose_and_an_emulated_choice_is_obeyed_with_one_warning(capsys):
    assert resolve_bf16("auto", capability=AVX2) is False
    assert resolve_bf16(None, capability=NATIVE) is True
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "auto chose fp32 on AVX2" in said[0] and "auto chose bf16" in said[1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert all(resolve_bf16("true", capability=AVX2) for _ in range(3))
    assert len(caught) == 1 and "emulated" in str(caught[0].message)
    assert resolve_bf16(False, capability=NATIVE) is False and resolve_bf16("no", capability=NATIVE) is False
    assert not capsys.readouterr().out
    with pytest.raises(ValueError, match="bf16='maybe' must be auto, true or false"):
        resolve_bf16("maybe")


def test_every_default_follows_the_machine(emulating, tmp_path):
    training = RobustTrainingArguments(str(tmp_path))
    assert training.bf16 is False and training.mixed_precision == "no"
    assert RunArguments(dataset_name="glyphs").searches_in_bf16 is False
    assert RobustTrainingArguments(str(tmp_path), bf16=True).mixed_precision == "bf16"
    assert PretrainRecipe().bf16 == "auto"


def test_kind09_accelerates_configuration_counts(emulating, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    args = RobustTrainingArguments(str(tmp_path))
    assert args.bf16 is True and args.mixed_precision == "bf16", "the card reads args.bf16"
    args = RobustTrainingArguments(str(tmp_path), bf16=False)
    assert args.bf16 is False and args.mixed_precision == "no", "the nearer choice wins, whole"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert accelerate_choice("auto") == "auto", "accelerate writes no where nobody chose"
    for refused in ("fp16", "fp8"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", refused)
        with pytest.raises(ValueError, match=f"mixed_precision={refused} in accelerate's configuration"):
            RobustTrainingArguments(str(tmp_path))


def test_the_kernels_follow_the_same_decision(tiny_clip_dir):
    from hf_hierrobust.modeling import load_robust_model

    model = load_robust_model(tiny_clip_dir)
    before = model.config._attn_implementation
    assert attention_kernel("cuda", torch.bfloat16) is None and attention_kernel("cpu", None) is None
    with fast_kernels(model, decide_precision("cpu", AVX2).dtype):
        assert model.config._attn_implementation == before
    with fast_kernels(model, decide_precision("cpu", NATIVE).dtype):
        assert model.config.vision_config._attn_implementation == "eager"
    assert model.config._attn_implementation == before


def test_a_trained_run_is_in_the_precision_that_was_chosen(tiny_clip_dir, tmp_path, emulating):
    from tiny_runs import make_trainer

    trainer = make_trainer(tiny_clip_dir, tmp_path, max_steps=1, bf16="auto")
    assert trainer.accelerator.mixed_precision == "no" and not trainer.args.bf16
    assert json.loads(trainer.args.to_json_string())["bf16"] is False
