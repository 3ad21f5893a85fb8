"""What ``config.hier_robust`` of a checkpoint may hold: it comes from whoever wrote the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..naming import check_name, check_template

MAX_TEXT_LEVELS, MAX_PROMPT_TOKENS = 33, 4096
"""A tree's deepest level and its leaves; far more prompt tokens than any image has patches."""
LARGEST = 1e6
"""Of a head's constant."""
_NUMBERS = ("curvature", "ball_margin", "max_tangent_norm", "tangent_norm", "vic_factor")
_MAPPINGS = ("objective_args", "attack", "text_attack", "adapter", "visual_prompt")


def check_facts(facts: object) -> Mapping[str, Any]:
    """The facts, of the kinds and sizes that a model is built from.

    Raises:
        ValueError: names the entry and what it must be.
    """
    if not isinstance(facts, Mapping):
        raise ValueError(f"config.hier_robust is a {type(facts).__name__}: it must be a JSON object")
    for name in _NUMBERS:
        value = facts.get(name)
        if value is not None and not (_is_number(value) and abs(value) <= LARGEST):
            raise _wrong(name, value, f"a number, at most {LARGEST:,.0f}")
    levels = facts.get("text_levels", 1)
    if not (_is_whole(levels) and 1 <= levels <= MAX_TEXT_LEVELS):
        raise _wrong("text_levels", levels, f"a whole number from 1 to {MAX_TEXT_LEVELS}")
    for name in _MAPPINGS:
        if facts.get(name) is not None and not isinstance(facts[name], Mapping):
            raise _wrong(name, facts[name], "a JSON object")
    _check_prompt(facts.get("visual_prompt") or {})
    trees = facts.get("trees") or ()
    if not isinstance(trees, (list, tuple)) or not all(isinstance(tree, Mapping) for tree in trees):
        raise _wrong("trees", trees, "a list of JSON objects")
    for tree in trees:
        check_name("config.hier_robust.trees: name", tree.get("name"), file=True)
    if "objective" in facts:
        check_name("config.hier_robust.objective", facts["objective"])
    if facts.get("template") is not None:
        check_template("config.hier_robust.template", facts["template"])
    return facts


def _check_prompt(prompt: Mapping[str, Any]) -> None:
    if unknown := sorted(set(prompt) - {"tokens", "border", "init_std"}, key=str):
        raise _wrong("visual_prompt", unknown[0], "one of tokens, border and init_std")
    tokens = prompt.get("tokens", 0)
    if not (_is_whole(tokens) and tokens <= MAX_PROMPT_TOKENS):
        raise _wrong("visual_prompt.tokens", tokens, f"a whole number, at most {MAX_PROMPT_TOKENS}")
    if not _is_number(prompt.get("init_std", 1.0)):
        raise _wrong("visual_prompt.init_std", prompt["init_std"], "a number")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(name: str, value: object, what: str) -> ValueError:
    return ValueError(f"config.hier_robust.{name}={str(value)[:80]!r} must be {what}")
