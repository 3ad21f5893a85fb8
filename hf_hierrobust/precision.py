"""Which precision and which kernels a machine is good at, decided in one place.

bf16 autocast is two to four times faster than fp32 on a CPU with AVX512-BF16 or AMX. On one without, every
product is emulated, up to 27 times slower. So nothing here asks whether a device is a CPU or a GPU: the
hardware is asked whether it multiplies bf16 numbers itself, and only where it does not say are both
candidates timed, once. Verdicts of an evaluation are fp32 whatever is decided here.
"""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch

from .options import AUTO, read_switch
from .progress import say

# Values of ONEDNN_MAX_CPU_ISA (and its older name) under which oneDNN's products of bf16 numbers are native.
_NATIVE_ISA = ("avx512_core_bf16", "avx512_core_fp16", "amx", "avx10", "default", "all")


@dataclass(frozen=True)
class Capability:
    """What a device can do.

    Args:
        device_type: "cpu", "cuda", "xpu", "mps", …
        name: for the announcement, e.g. "AVX2".
        native_bf16: whether it multiplies bf16 numbers itself; None is unknown.
        onednn_fp32: whether oneDNN multiplies fp32 numbers faster than torch's default does, as exactly.
    """

    device_type: str
    name: str
    native_bf16: bool | None
    onednn_fp32: bool = False


class Precision(NamedTuple):
    """A decision.

    ``dtype``: autocast type, None for fp32. ``reason``: one phrase for the announcement. ``attention``: the
    attention kernel that is fastest under ``dtype``, None for the model's own.
    """

    dtype: torch.dtype | None
    reason: str
    attention: str | None = None


def this_device_type() -> str:
    """Type of the accelerator that torch would use, or "cpu"."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if device is None else device.type


@lru_cache
def query_capability(device_type: str) -> Capability:
    """Ask the hardware; asked once per process and device type."""
    if device_type == "cpu":
        return _cpu_capability()
    backend = getattr(torch, device_type, None)
    supported = getattr(backend, "is_bf16_supported", None)
    if supported is None:
        return Capability(device_type, device_type, False)  # the safe answer of a backend that does not say
    try:
        native = bool(supported(including_emulation=False))
    except TypeError:  # torch before 2.6, and backends that emulate nothing
        native = bool(supported())
    named = getattr(backend, "get_device_name", None)
    return Capability(device_type, named() if named else device_type, native)


def _cpu_capability() -> Capability:
    name = torch.backends.cpu.get_cpu_capability()
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if not torch.backends.mkldnn.is_available() or supported is None or not supported():
        return Capability("cpu", f"{name} without bf16 instructions", False)
    if platform.machine().lower() in ("aarch64", "arm64"):  # there oneDNN looks for the instructions itself
        return Capability("cpu", f"{name} with bf16 instructions", True)
    # On x86, oneDNN also says yes to an AVX512 without bf16 instructions, where it is slower than fp32; and
    # a limit in the environment switches off what the processor has.
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "default"
    if not limit.lower().startswith(_NATIVE_ISA):
        return Capability("cpu", f"{name}, oneDNN limited to {limit}", False)
    flags = _processor_flags()
    if flags is None:
        return Capability("cpu", name, None)
    native = [flag for flag in ("amx_bf16", "avx512_bf16", "avx10_2") if flags.get(flag)]
    if native:
        name = f"{name} with {native[0].upper().replace('_', '-')}"
    else:
        name = f"{name} without bf16 instructions"
    return Capability("cpu", name, bool(native), _onednn_leads(flags))


def _onednn_leads(flags: dict) -> bool:
    """MKL reaches half of oneDNN's fp32 rate on AMD's AVX512; with AMX, oneDNN would round to bf16."""
    amd = "AMD" in str(flags.get("cpu_name", ""))
    rounds = any(flags.get(flag) for flag in ("amx_tile", "amx_bf16", "avx10_2"))
    return amd and not rounds and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _processor_flags() -> dict | None:
    """Instruction sets of the processor by name; None where torch does not tell."""
    query = getattr(torch.cpu, "get_capabilities", None)
    if query is not None:
        return query()
    query = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    # Processors with AMX have AVX512-BF16 too.
    return None if query is None else {"avx512_bf16": query()}


def decide_precision(device_type: str | None = None, capability: Capability | None = None) -> Precision:
    """The faster of fp32 and bf16 autocast on this machine.

    Args:
        device_type: "cpu", "cuda", …; None is the accelerator that torch would use, else the CPU.
        capability: what the device can do; None asks it.

    Returns:
        The same decision for the same machine and environment, so that a resumed run trains in the precision
        it began with; only a processor that does not say what it has is timed.
    """
    capability = capability or query_capability(device_type or this_device_type())
    native, how = capability.native_bf16, ""
    if native is None:
        ratio = _time_ratio(capability.device_type)
        native, how = ratio < 0.8, f", where bf16 takes {ratio:.2g} times as long as fp32"
    if not native:
        return Precision(None, f"fp32 on {capability.name}{how}")
    return Precision(
        torch.bfloat16,
        f"bf16 autocast on {capability.name}{how}",
        attention_kernel(capability.device_type, torch.bfloat16),
    )


def prefers_onednn(device_type: str) -> bool:
    """Whether fp32 matrix products should go to oneDNN on this device."""
    return query_capability(device_type).onednn_fp32


def attention_kernel(device_type: str, dtype: torch.dtype | None) -> str | None:
    """The attention that is fastest under an autocast type; None leaves the model's own.

    The fused kernel of CPUs takes under bf16 up to 2.7 times as long as plain matrix products, native or
    emulated; in fp32 the two are within a tenth of each other. They agree to 1e-5 in fp32.
    """
    return "eager" if device_type == "cpu" and dtype == torch.bfloat16 else None


@lru_cache
def _time_ratio(device_type: str, size: int = 256) -> float:
    """Seconds of a product in bf16 over seconds in fp32, the best of five of each: some 50 ms in all."""
    left, right = (torch.ones(size, size, device=device_type) for _ in range(2))
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = left.to(dtype), right.to(dtype)
        (a @ b).sum().item()
        times = []
        for _ in range(5):
            start = time.perf_counter()
            (a @ b).sum().item()
            times.append(time.perf_counter() - start)
        best[dtype] = min(times)
    return best[torch.bfloat16] / best[torch.float32]


def resolve_bf16(
    choice: bool | str | None,
    option: str = "bf16",
    device_type: str | None = None,
    capability: Capability | None = None,
) -> bool:
    """Whether to run under bf16 autocast: what was asked for, or what the machine is good at.

    Says in one line what "auto" chose, and warns once of a choice that is emulated.

    Args:
        choice: True, False, their spellings as text, or "auto"; None is "auto".
        option: what a message calls it.
        device_type, capability: as for `decide_precision`.

    Raises:
        ValueError: another value.
    """
    wanted = read_switch(choice, option)
    if wanted is False:
        return False
    decision = decide_precision(device_type, capability)
    if wanted == AUTO:
        _once(say, f"{option}: auto chose {decision.reason}")
    elif decision.dtype is None:
        line = f"{option}: true is obeyed, but emulated and slow here: auto would choose {decision.reason}"
        _once(warnings.warn, line)
    return wanted is True or decision.dtype is not None


def accelerate_choice(bf16: bool | str | None) -> bool | str | None:
    """``bf16`` where it is a choice; where it is "auto", what accelerate's own configuration asks for.

    ``accelerate launch`` hands its ``mixed_precision``, from its flag or its file, over in the environment.
    It writes "no" there also when nobody chose, so "no" leaves "auto" to the machine.

    Raises:
        ValueError: fp16 or fp8, which attacks cannot use.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if asked in ("fp16", "fp8"):
        raise ValueError(
            f"mixed_precision={asked} in accelerate's configuration: attack gradients underflow in it and no "
            "loss scale covers them; use bf16 or no (accelerate launch --mixed_precision no)"
        )
    return True if asked == "bf16" and read_switch(bf16, "bf16") == AUTO else bf16


@lru_cache
def _once(tell: Callable[[str], None], line: str) -> None:
    """Tell a line once per process."""
    tell(line)
