"""AutoAttack (Croce and Hein, 2003.01690): attacks in a row, each on what the earlier ones left standing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...options import check_given
from ...threat import Norm, Space
from .base import ATTACKS, Attack, AttackResult
from .victim import Cost

Member = tuple[str, dict]
"""Name of a registered attack and the options that it gets."""

MEMBERS: dict[str, Member] = {
    "apgd-ce": ("apgd", {"loss": "ce"}),
    "apgd-dlr": ("apgd", {"loss": "dlr"}),
    "apgd-t": ("apgd-t", {}),
    "fab": ("fab", {}),
    "fab-t": ("fab-t", {}),
    "square": ("square", {}),
}
"""The attacks by the names of the official code."""

VERSIONS: dict[str, tuple[Member, ...]] = {
    "standard": tuple(MEMBERS[name] for name in ("apgd-ce", "apgd-t", "fab-t", "square")),
    "plus": (
        ("apgd", {"loss": "ce", "restarts": 5}),
        ("apgd", {"loss": "dlr", "restarts": 5}),
        ("fab", {"restarts": 5}),
        MEMBERS["square"],
        MEMBERS["apgd-t"],
        MEMBERS["fab-t"],
    ),
    "rand": (("apgd", {"loss": "ce", "eot": 20}), ("apgd", {"loss": "dlr", "eot": 20})),
}
"""What each version runs, in this order."""


class AutoAttack(tuple[Attack, ...]):
    """The attacks of a version, which can be called like one attack, or handed to `evaluate` as they are.

        result = AutoAttack(eps="4/255")(Classifier(net, mean=mean, std=std), pixels, labels)

    Args:
        attacks: of version ``"custom"``: names of `MEMBERS` or of registered attacks, and instances; or names
            in one text, separated by commas.
        eps, norm, space: the budget of all of them, of instances too where it is given; None leaves the
            attacks' own, for names the defaults of `PixelAttack`.
        version: ``"standard"``, ``"plus"`` (more restarts, and the untargeted attacks too; its `FAB` costs K
            backward passes a step), ``"rand"`` for networks that draw random numbers (20 gradients averaged),
            or ``"custom"``.
        seed: every attack starts from it, as in the official code; None draws from the generator of the call.

    Raises:
        ValueError: an unknown version or attack, a named version with a list, ``"custom"`` without one,
            attacks of different budgets, or a seed that is no whole number.
        TypeError: a list of anything else.
    """

    version: str
    seed: int | None

    def __new__(
        cls,
        attacks: str | Sequence[str | Attack] | None = None,
        *,
        eps: float | str | None = None,
        norm: Norm | None = None,
        space: Space | None = None,
        version: str | None = None,
        seed: int | None = None,
    ):
        if isinstance(attacks, str):
            attacks = [name.strip() for name in attacks.split(",") if name.strip()]
        check_given(seed=seed)
        version = version or ("standard" if attacks is None else "custom")
        if version != "custom" and version not in VERSIONS:
            raise ValueError(f"version={version!r} is unknown: choose {', '.join(VERSIONS)} or custom")
        if (version == "custom") != (attacks is not None):
            rule = "needs attacks" if attacks is None else "has its own attacks: leave these out"
            raise ValueError(f"version={version!r} {rule}")
        budget = {"eps": eps, "norm": norm, "space": space}
        budget = {name: value for name, value in budget.items() if value is not None}
        parts = VERSIONS[version] if attacks is None else attacks
        self = super().__new__(cls, [_member(part, budget) for part in parts])
        if not self:
            raise ValueError("attacks is empty: give at least one")
        check_one_budget(self)
        self.version, self.seed = version, seed
        return self

    def __call__(
        self,
        classifier: Callable[[Tensor], Tensor],
        pixels: Tensor,
        labels: Tensor,
        *,
        search: Callable[[Tensor], Tensor] | None = None,
        generator: torch.Generator | None = None,
        clean_correct: Tensor | None = None,
    ) -> AttackResult:
        """Run the attacks in turn, see `Attack.__call__`.

        Returns:
            The worst case: ``adversarial`` is the first point that fooled, or the last attack's; the zero
            gradients are the most that an attack saw, as a share of the images that were right when clean;
            the cost is per such image.
        """
        result = None
        for attack in self:
            if self.seed is not None:
                generator = torch.Generator(pixels.device).manual_seed(self.seed)
            options = {"search": search, "generator": generator}
            if result is None:
                result = attack(classifier, pixels, labels, **options, clean_correct=clean_correct)
                attacked = int(result.clean_correct.sum())
                continue
            rows = result.robust_correct.nonzero()[:, 0]
            if len(rows) == 0:
                break
            labels = torch.as_tensor(labels, device=pixels.device).long()
            clean = torch.ones_like(rows, dtype=torch.bool)
            later = attack(classifier, pixels[rows], labels[rows], **options, clean_correct=clean)
            share = len(rows) / attacked
            result = result._replace(
                adversarial=result.adversarial.index_copy(0, rows, later.adversarial),
                robust_correct=result.robust_correct.index_copy(0, rows, later.robust_correct),
                zero_gradient=max(result.zero_gradient, share * later.zero_gradient),
                cost=Cost(*(a + share * b for a, b in zip(result.cost, later.cost))),
            )
        return result

    def describe(self) -> dict:
        """The version and the constants of its attacks, for records."""
        return {"name": f"autoattack-{self.version}", "attacks": [attack.describe() for attack in self]}


def check_one_budget(attacks: Sequence[Attack]) -> None:
    """Refuse attacks of different norms, radii or spaces, whose worst case belongs to no threat model.

    Raises:
        ValueError: names them.
    """
    threats = {attack.threat for attack in attacks}
    if len(threats) > 1:
        found = sorted(f"{threat} ({threat.space})" for threat in threats)
        raise ValueError(f"attacks in a row need one budget, got {found}: give eps, norm or space to all")


def _member(part: str | Attack | Member, budget: dict) -> Attack:
    if isinstance(part, Attack):
        return replace(ATTACKS.check(part), **budget)
    whole = isinstance(part, str) or (isinstance(part, tuple) and [*map(type, part)] == [str, dict])
    if not whole:
        known = ", ".join(MEMBERS)
        raise TypeError(f"attacks holds {part!r}: give names ({known}) or instances of an Attack")
    name, options = part if isinstance(part, tuple) else MEMBERS.get(part, (part, {}))
    try:
        return ATTACKS.get(name)(**budget, **options)
    except KeyError as error:
        raise ValueError(error.args[0]) from None
