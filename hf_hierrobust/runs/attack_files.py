"""An attacked image written down: PNG, perturbation, JSON, a figure, and a few lines of text."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import logging

from ..data.decoding import to_uint8
from ..evaluation.record_checks import checked_attack
from ..evaluation.records import environment_versions
from ..files import write_atomically
from ..reports import attack_label, plot_examples
from .attack_image import ImageAttack, Prediction

logger = logging.get_logger(__name__)
REACH = 100
"""How many grey levels from mid-grey the largest change is drawn in ``perturbation.png``."""


def write_attack(found: ImageAttack, folder: str | os.PathLike) -> list[str]:
    """Write ``adversarial.png``, ``perturbation.png``, ``attack.json`` and, with matplotlib, ``figure.png``.

    Returns:
        The names of the files, all directly in ``folder``.

    Raises:
        OSError: the PNG does not hold the image that was judged.
    """
    folder = Path(folder).expanduser()
    png = png_bytes(found.rounded.levels)
    with Image.open(io.BytesIO(png)) as image:
        if not torch.equal(to_uint8(image), found.rounded.levels):
            raise OSError("adversarial.png does not decode to the image that was judged")
    write_atomically(folder / "adversarial.png", png)
    perturbation, factor = perturbation_levels(found)
    write_atomically(folder / "perturbation.png", png_bytes(perturbation))
    facts = attack_facts(found) | {"perturbation_png": {"grey": 128, "factor": factor}}
    write_atomically(folder / "attack.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    written = ["adversarial.png", "perturbation.png", "attack.json"]
    try:
        _figure(found, folder / "figure.png")
    except ImportError as error:
        (folder / "figure.png").unlink(missing_ok=True)  # of an earlier attack
        logger.warning(f"figure.png is left out: {error}")
    else:
        written.append("figure.png")
    return written


def perturbation_levels(found: ImageAttack) -> tuple[Tensor, int]:
    """The change of the 8-bit image around mid-grey, (3, H, W) uint8, and the factor it is enlarged by."""
    change = found.rounded.levels.int() - (found.pixels * 255).round().int()
    factor = max(1, REACH // max(1, int(change.abs().max())))
    return (128 + factor * change).clamp(0, 255).to(torch.uint8), factor


def attack_facts(found: ImageAttack) -> dict:
    """All but the pixels, as JSON types."""
    change = found.rounded.levels.double() / 255 - found.pixels.double()
    return {
        "image": {"name": found.image, "sha256": found.sha256, "size": list(found.pixels.shape[:0:-1])},
        "model": found.model,
        "classifier": found.classifier,
        "level": found.level,
        "true": found.true,
        "true_is_the_clean_prediction": found.assumed,
        "attack": checked_attack(found.attack),
        "clean_correct": found.clean_correct,
        "fooled_before_rounding": found.exact_fooled,
        "fooled": found.succeeded,
        "rounding": {"how": found.rounded.how, "nearest_fooled": found.rounded.nearest_fooled},
        "change": {"linf": float(change.abs().max()), "l2": float(change.norm())},
        "clean": [asdict(one) for one in found.clean],
        "attacked": [asdict(one) for one in found.attacked],
        "versions": environment_versions(),
    }


def attack_text(found: ImageAttack) -> str:
    """What happened, for the terminal: the paths from the root to the leaf, and whether 8 bits undo it."""
    constants = checked_attack(found.attack)
    said = " (what the model takes the clean image for)" if found.assumed else ""
    lines = [
        f"{found.image} against {found.model} by {found.classifier}; {attack_label(constants)}, "
        f"space {constants['space']}",
        f"class: {found.true}{said}",
        "",
        f"{'level':14}  {'clean':32}  attacked, 8-bit",
    ]
    for before, after in zip(found.clean, found.attacked):
        mark = "" if before.name == after.name else "  <- changed"
        lines.append(f"{before.level_name:14}  {_said(before):32}  {_said(after)}{mark}")
        if before.level and (before.name, after.name) != (before.rolled_up, after.rolled_up):
            lines.append(
                f"{'  rolled up':14}  {_shown(before.rolled_up, before.rolled_up_confidence):32}  "
                f"{_shown(after.rolled_up, after.rolled_up_confidence)}"
            )
    return "\n".join([*lines, "", verdict(found)])


def verdict(found: ImageAttack) -> str:
    """One or two sentences: whether the attack succeeds, and what rounding to 8 bits does to it."""
    if not found.clean_correct:
        return "The clean image is misclassified already: there was nothing to attack."
    largest = float((found.rounded.levels.double() - 255 * found.pixels.double()).abs().max())
    size = f"the largest change of a pixel is {largest:.3g}/255"
    if not found.exact_fooled:
        if found.rounded.fooled:
            return f"The attack succeeds only in its 8-bit form ({found.rounded.how}); {size}."
        return "The attack fails: the model's answer stands within this budget."
    if found.rounded.nearest_fooled:
        return f"The attack succeeds, and still does as an 8-bit PNG; {size}."
    if found.rounded.fooled:
        return (
            "The attack succeeds. Rounding to the nearest 8-bit image undoes it; rounded "
            f"{found.rounded.how} within the budget it still succeeds; {size}."
        )
    small = found.attack["norm"] == "linf" and found.attack["eps"] * 255 < 1
    why = "no other 8-bit image is that near" if small else "however it was rounded within the budget"
    return (
        f"The attack succeeds, but rounding to 8 bits undoes it ({why}): adversarial.png is classified "
        "correctly."
    )


def _said(one: Prediction) -> str:
    return _shown(one.name, one.confidence)


def _shown(name: str, confidence: float) -> str:
    return f"{name} {100 * confidence:.1f} %"


def png_bytes(levels: Tensor) -> bytes:
    """(3, H, W) uint8 as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy()).save(stream, format="PNG")
    return stream.getvalue()


def _figure(found: ImageAttack, path: Path) -> None:
    constants = checked_attack(found.attack)
    clean, attacked = found.clean[-1], found.attacked[-1]
    # A figure's panel is an inch and a half: of a large photo every n-th pixel shows as much.
    step = max(1, math.ceil(max(found.pixels.shape[1:]) / 600))
    before, after = (x[None, :, ::step, ::step] for x in (found.pixels, found.rounded.levels / 255))
    plot_examples(
        before,
        after,
        [clean.name],
        [attacked.name],
        [found.true],
        path,
        setting=f"{found.model} ({found.classifier}) on {found.image}; {attack_label(constants)}; space "
        f"{constants['space']}",
        title="Attacked image",
    )
