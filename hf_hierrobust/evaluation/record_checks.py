"""Checks of a robustness record: types, ranges, and the agreement of its numbers with one another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

from ..naming import MACHINE_PATH
from ..threat import Norm, format_eps
from .flags import unpack_flags
from .metrics import wilson_interval

NORMS = get_args(Norm)
TARGETS = ("within superclass", "outside superclass")
DEFENDED = ("undefended_clean", "undefended_robust", "blind_robust", "adaptive_robust")
"""What is measured of a defence; its other entries are its constants."""
VERDICTS = ("passed", "failed", "not applicable")


def eps_text(norm: str, eps: float) -> str:
    """A budget the way papers write it: "4/255" for l-inf, "0.5" for other norms."""
    # Only an l-inf budget is a number of grey levels; an l2 radius of 0.5 is not "127.5/255".
    return format_eps(eps) if norm == "linf" else f"{eps:.6g}"


def to_plain(value: Any, name: str) -> Any:
    """Turn numpy/torch scalars, arrays and tuples into JSON types, recursively."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(entry, name) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        if name.startswith("checks"):
            return None
        raise ValueError(f"{name}={value} is not finite; a record holds measured numbers only.")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    raise TypeError(
        f"{name} holds a {type(value).__name__}, which JSON cannot keep; pass its constants instead."
    )


def check_identity(entries: Mapping[str, Any]) -> None:
    """Check the fields of a record that say which model, images and classes it is about."""
    for name in ("model", "objective", "dataset", "split", "class_set", "level_name", "classifier"):
        value = entries[name]
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name}={value!r} must be a non-empty string.")
    for name in ("model", "dataset"):
        check_public(name, entries[name])
    for name in ("model_hash", "tree", "tree_hash", "templates_hash"):
        if entries[name] is not None and not isinstance(entries[name], str):
            raise ValueError(f"{name}={entries[name]!r} must be text or None.")
    for name in ("attack", "sample_ids", "intervals", "versions", "checks"):
        if not isinstance(entries[name], Mapping):
            raise ValueError(f"{name}={entries[name]!r} must be an object.")
    if isinstance(entries["seed"], bool) or not isinstance(entries["seed"], int):
        raise ValueError(f"seed={entries['seed']!r} must be an integer.")
    for name, least in (("num_classes", 1), ("level", 0), ("num_samples", 1)):
        value = entries[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer >= {least}.")
    samples, count = entries["sample_ids"], entries["num_samples"]
    if samples.get("count") != count or not isinstance(samples.get("sha256"), str):
        raise ValueError(
            f"sample_ids={samples} must hold sha256 and a count equal to num_samples={count}; build it with "
            "describe_samples."
        )
    seconds, created, cost = entries["wall_seconds"], entries["created"], entries["cost"]
    if seconds is not None and not (_is_number(seconds) and seconds >= 0):
        raise ValueError(f"wall_seconds={seconds!r} must be a number, not negative.")
    counts = isinstance(cost, Mapping) and set(cost) == {"forwards", "backwards"}
    if cost is not None and not (counts and all(_is_number(n) and n >= 0 for n in cost.values())):
        raise ValueError(f"cost={cost} must count forwards and backwards per image, none negative.")
    try:
        datetime.fromisoformat(created)
    except (TypeError, ValueError) as error:
        raise ValueError(f"created={created!r} must be an ISO date such as 2026-01-31.") from error


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_public(name: str, value: str) -> None:
    """Refuse names that are paths of one machine."""
    if MACHINE_PATH.match(value):
        raise ValueError(f"{name}={value!r} is a path of this machine; pass public_name(...) of it.")


def checked_attack(attack: Mapping[str, Any]) -> dict[str, Any]:
    """The attack's constants with `eps_text` added."""
    missing = {"name", "norm", "eps", "space"} - set(attack)
    if missing:
        raise ValueError(f"attack lacks {sorted(missing)}; got {sorted(attack)}.")
    for name in ("name", "norm"):
        if not isinstance(attack[name], str) or not attack[name]:
            raise ValueError(f"attack.{name}={attack[name]!r} must be a non-empty string.")
    if attack["norm"] not in NORMS:
        raise ValueError(f"attack.norm={attack['norm']!r} is unknown; choose 'linf' or 'l2'.")
    parts = attack.get("attacks", ())
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, Mapping) for part in parts):
        raise ValueError(f"attack.attacks={parts!r} must be a list of the constants of each attack.")
    if attack["space"] not in ("native", "model"):
        raise ValueError(f"attack.space={attack['space']!r} is unknown; choose 'native' or 'model'.")
    target, level = attack.get("target"), attack.get("target_level")
    if (target is None) != (level is None) or target not in (None, *TARGETS):
        raise ValueError(
            f"attack.target={target!r} at attack.target_level={level!r}: give both, the first one of "
            f"{', '.join(TARGETS)}"
        )
    if level is not None and (isinstance(level, bool) or not isinstance(level, int) or level < 1):
        raise ValueError(f"attack.target_level={level!r} must be a superclass level, an integer >= 1.")
    eps = attack["eps"]
    if not _is_number(eps) or eps < 0:
        raise ValueError(f"attack.eps={eps!r} must be a number >= 0 on the pixel scale [0, 1], e.g. 4/255.")
    text = eps_text(attack["norm"], eps)
    if attack.get("eps_text", text) != text:
        raise ValueError(
            f"attack.eps_text={attack['eps_text']!r} contradicts attack.eps={eps}, which is {text!r}."
        )
    return {**attack, "eps_text": text}


def checked_accuracies(clean: float, robust: float, n: int, prefix: str) -> dict[str, list[float]]:
    """Check two accuracies over the same n images and return their Wilson intervals."""
    intervals = {}
    for kind, value in (("clean", clean), ("robust", robust)):
        name = f"{prefix}{kind}_accuracy"
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"{name}={value!r} must be a fraction in [0, 1]; divide percent by 100.")
        count = round(value * n)
        # A rounded percentage or a mean over data sets is no count; float32 means of real counts pass.
        if abs(value * n - count) > 0.01:
            raise ValueError(
                f"{name}={value} is not a count over num_samples={n}; pass correct / {n}, unrounded."
            )
        intervals[kind] = list(wilson_interval(count, n))
    if robust * n > clean * n + 0.01:
        raise ValueError(
            f"{prefix}robust_accuracy={robust} exceeds {prefix}clean_accuracy={clean} on the same images; "
            "count an image as robust only if it is also right when clean."
        )
    return intervals


def check_intervals(given: Mapping[str, Any], computed: Mapping[str, list[float]]) -> None:
    """Refuse intervals that do not follow from the counts; a record without any is given them."""
    for kind, bounds in computed.items():
        if given and (
            len(given.get(kind) or ()) != 2
            or any(not math.isclose(a, b, abs_tol=1e-6) for a, b in zip(given[kind], bounds))
        ):
            raise ValueError(f"intervals.{kind}={given.get(kind)} is not the Wilson interval {bounds}.")


def check_flags(flags: Mapping[str, str], clean: float, robust: float, n: int) -> None:
    """Refuse verdicts per image that do not add up to the accuracies."""
    if set(flags) != {"clean", "robust"}:
        raise ValueError(f"flags has the keys {sorted(flags)}; give exactly 'clean' and 'robust'.")
    for kind, value in (("clean", clean), ("robust", robust)):
        right = int(unpack_flags(flags[kind], n).sum())
        if right != round(value * n):
            raise ValueError(
                f"flags[{kind!r}] says {right} of {n} images are right, {kind}_accuracy={value} says "
                f"{round(value * n)}."
            )


def check_classes(classes: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    """Refuse counts of the classes that do not add up to the accuracies."""
    if set(classes) != {"names", "images", "clean", "robust"} or not all(
        isinstance(values, list) and len(values) == len(classes["names"]) for values in classes.values()
    ):
        raise ValueError("classes must hold the lists names, images, clean and robust, of one length.")
    count = entries["num_samples"]
    wanted = {
        "images": count,
        "clean": round(entries["clean_accuracy"] * count),
        "robust": round(entries["robust_accuracy"] * count),
    }
    for kind, total in wanted.items():
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in classes[kind]):
            raise ValueError(f"classes.{kind} must hold whole numbers, none negative.")
        if sum(classes[kind]) != total:
            raise ValueError(f"classes.{kind} add up to {sum(classes[kind])}, not to {total} images.")
    if any(not r <= c <= n for n, c, r in zip(classes["images"], classes["clean"], classes["robust"])):
        raise ValueError("classes: a class has more images right under attack than clean, or than it has.")


def checked_base(base: Mapping[str, Any], n: int) -> dict[str, Any]:
    """The base's accuracies, measured on the same n images, with their intervals added."""
    missing = {"clean_accuracy", "robust_accuracy"} - set(base)
    if missing:
        raise ValueError(
            f"base lacks {sorted(missing)}; measure it on the same images under the same attack."
        )
    if base.get("num_samples", n) != n:
        raise ValueError(
            f"base.num_samples={base['num_samples']} differs from num_samples={n}; same images only."
        )
    if "model" in base:
        check_public("base.model", base["model"])
    intervals = checked_accuracies(base["clean_accuracy"], base["robust_accuracy"], n, "base.")
    return {**base, "intervals": intervals}


def check_transfer(entries: Mapping[str, Any]) -> None:
    """Refuse a transfer that names one level only, or a rate that its accuracies contradict."""
    crafted, judged = entries["crafted_level"], entries["judged_level"]
    rate = entries["transfer_rate"]
    if (crafted is None) != (judged is None):
        raise ValueError(f"crafted_level={crafted} and judged_level={judged}: give both, or neither.")
    if crafted is None:
        if rate is not None:
            raise ValueError(f"transfer_rate={rate} needs crafted_level and judged_level.")
        return
    for name, value in (("crafted_level", crafted), ("judged_level", judged)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name}={value!r} must be an integer >= 0, 0 for the leaves.")
    if judged != entries["level"]:
        raise ValueError(
            f"judged_level={judged} differs from level={entries['level']}: it is the same level."
        )
    clean = entries["clean_accuracy"]
    wanted = 1 - entries["robust_accuracy"] / clean if clean else None
    if (rate is None) != (wanted is None) or (wanted is not None and abs(rate - wanted) > 1e-6):
        raise ValueError(f"transfer_rate={rate} is not 1 - robust_accuracy / clean_accuracy = {wanted}.")


def checked_defence(defence: Mapping[str, Any], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Check a defence's accuracies, each a count over the record's images, none below what both leave."""
    missing = [name for name in ("name", "eot", *DEFENDED) if name not in defence]
    if missing:
        raise ValueError(f"defence lacks {missing}; got {sorted(defence)}.")
    count, robust = entries["num_samples"], entries["robust_accuracy"]
    checked_accuracies(
        defence["undefended_clean"], defence["undefended_robust"], count, "defence.undefended_"
    )
    for name in ("blind_robust", "adaptive_robust"):
        checked_accuracies(entries["clean_accuracy"], defence[name], count, f"defence.{name}: ")
        if defence[name] * count < robust * count - 0.01:
            raise ValueError(
                f"defence.{name}={defence[name]} is below robust_accuracy={robust}, which counts the images "
                "that both attacks leave."
            )
    return dict(defence)


def defence_constants(defence: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A defence without what was measured of it: name, options and the draws of the attack through it."""
    return None if defence is None else {k: v for k, v in defence.items() if k not in DEFENDED}


def check_diagnostics(checks: Mapping[str, Any]) -> None:
    """Refuse diagnostics without a verdict, or failed ones that the masking verdict does not mention."""
    failed, diagnostics = [], checks.get("diagnostics") or {}
    if not isinstance(diagnostics, Mapping):
        raise ValueError(f"checks.diagnostics={diagnostics!r} must be an object, a verdict by each check.")
    for name, found in diagnostics.items():
        if not isinstance(found, Mapping) or found.get("verdict") not in VERDICTS:
            raise ValueError(f"checks.diagnostics.{name}={found!r} needs a verdict of {', '.join(VERDICTS)}.")
        if found["verdict"] == "failed":
            failed.append(name)
    if failed and not str(checks.get("masking")).startswith("suspected"):
        raise ValueError(
            f"checks.diagnostics failed ({', '.join(failed)}) but checks.masking says otherwise."
        )
