"""How to measure: budgets, the attacks of each one, and what else is to be known."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from ..attacks import ATTACKS, Attack, EmbeddingPGD, TextAttack
from ..attacks.image.auto_attack import MEMBERS, VERSIONS, AutoAttack, check_one_budget
from ..attacks.image.superclass_target import TARGETS
from ..attacks.text.joint import has_loss
from ..classifiers import TTC
from ..options import check_counts, check_flag
from ..threat import Norm, Space

TEXT_ORDERS = ("text_first", "independent", "joint")
"""Orders in which prompts and pixels are attacked, see `MultimodalAttack`."""

SUITES: dict[str, tuple[tuple[str, dict], ...]] = {
    "pgd": (("pgd", {"loss": "ce"}), ("pgd", {"loss": "margin"})),
    "pgd-ce": (("pgd", {"loss": "ce"}),),
    "pgd-margin": (("pgd", {"loss": "margin"}),),
    "pgd-20": (("pgd", {"loss": "ce", "num_steps": 20}),),
    "apgd-ce": (MEMBERS["apgd-ce"],),
    "apgd-dlr": (MEMBERS["apgd-dlr"],),
    "apgd-ce+t": (MEMBERS["apgd-ce"], MEMBERS["apgd-t"]),
    "autoattack": VERSIONS["standard"],
    "autoattack-plus": VERSIONS["plus"],
    "autoattack-rand": VERSIONS["rand"],
}
"""Names of several attacks, each a registered one with options; the worst case over them counts."""


def build_attacks(
    spec: str | Attack | Sequence[str | Attack],
    *,
    eps: float | str | None = None,
    norm: Norm | None = None,
    space: Space | None = None,
    **options,
) -> tuple[Attack, ...]:
    """The attacks of one budget, in the order in which they run.

    Args:
        spec: a suite's or a registered attack's name, a comma-separated list of these, an `Attack`, or a
            sequence of names and attacks.
        eps, norm, space: the budget, of instances too where it is given; None leaves the attacks' own.
        options: of the named attacks, such as ``num_steps=50``.

    Raises:
        TypeError: neither a name nor an `Attack`.
        ValueError: an unknown name, an attack without a name of its own, nothing to attack with, an option
            that a named attack lacks, options without a named attack, attacks of different budgets, or an
            `AutoAttack` with a seed of its own.
    """
    check_seedless(spec)
    budget = {"eps": eps, "norm": norm, "space": space}
    budget = {key: value for key, value in budget.items() if value is not None}
    parts = list(spec) if isinstance(spec, (list, tuple)) else [spec]
    named, attacks = False, []
    for part in parts:
        if isinstance(part, Attack):
            ATTACKS.check(part)
            attacks.append(replace(part, **budget) if budget else part)
            continue
        if not isinstance(part, str):
            raise TypeError(
                f"attack={part!r} is a {type(part).__name__}: give a name "
                f"({', '.join(sorted({*SUITES, *ATTACKS.names()}))}), an Attack, or a list of these"
            )
        for name in filter(None, map(str.strip, part.split(","))):
            named = True
            attacks += _build(name, budget, options)
    if not attacks:
        raise ValueError(f"attack={spec!r} names no attack: give one, such as 'pgd'")
    if options and not named:
        raise ValueError(f"{_listed(options)}: options of named attacks, but attack={spec!r} names none")
    check_one_budget(attacks)
    return tuple(attacks)


def check_seedless(attacks: object) -> None:
    """Refuse an `AutoAttack` with a seed where random starts are drawn from the seed of the evaluation.

    Raises:
        ValueError: it has one.
    """
    if isinstance(attacks, AutoAttack) and attacks.seed is not None:
        raise ValueError(
            f"AutoAttack(seed={attacks.seed}) has no effect here: every attack starts from the seed of the "
            "evaluation, which its records state: leave it out of AutoAttack, and give that one"
        )


def _members(name: str) -> tuple[tuple[str, dict], ...]:
    if name not in SUITES and name not in ATTACKS.names():
        known = sorted({*SUITES, *ATTACKS.names()})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"attack={name!r} is unknown: choose from {', '.join(known)}{hint}")
    return SUITES.get(name, ((name, {}),))


def _build(name: str, budget: dict, options: dict) -> list[Attack]:
    """The attacks behind a name; an option goes to those of them that have it."""
    members = [(ATTACKS.get(member), constants) for member, constants in _members(name)]
    free = [_options(cls) - {"eps", "norm", "space", *constants} for cls, constants in members]
    if unknown := [key for key in options if not any(key in names for names in free)]:
        known = sorted(set().union(*free))
        raise ValueError(f"attack {name!r} has no option {_listed(unknown)}; it has {_listed(known)}")
    built = []
    for (cls, constants), names in zip(members, free):
        given = constants | {key: value for key, value in options.items() if key in names}
        no_default = [f for f in fields(cls) if f.init and f.default is f.default_factory is MISSING]
        if missing := [f.name for f in no_default if f.name not in given]:
            raise ValueError(
                f"attack {name!r} needs {_listed(missing)}: give it as an option, or an instance"
            )
        built.append(cls(**budget, **given))
    return built


def _options(cls: type[Attack]) -> set[str]:
    return {f.name for f in fields(cls) if f.init}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def attack_labels(attacks: Sequence[Attack]) -> list[str]:
    """A short distinct name of each attack: its loss where one attack runs under several, else its name."""
    described = [attack.describe() for attack in attacks]
    losses = [constants.get("loss") for constants in described]
    names = [constants["name"] for constants in described]
    if len(set(names)) == 1 and None not in losses and len(set(losses)) == len(losses):
        return losses
    labels = [name if loss is None else f"{name}_{loss}" for name, loss in zip(names, losses)]
    labels = names if len(set(names)) == len(names) else labels
    return [
        label if labels.count(label) == 1 else f"{label}_{labels[: index + 1].count(label)}"
        for index, label in enumerate(labels)
    ]


def describe_attacks(attacks: Sequence[Attack]) -> dict:
    """Constants of the worst case over attacks, for the record.

    What all share stands as it is; names and losses that differ are joined by ``+``. Where anything else
    differs, ``attacks`` holds the constants of each.
    """
    described = [attack.describe() for attack in attacks]
    joined, differ = {}, False
    for key in dict.fromkeys(key for constants in described for key in constants):
        values = [constants.get(key) for constants in described]
        if all(value == values[0] for value in values[1:]) and all(key in c for c in described):
            joined[key] = values[0]
        elif key in ("name", "loss") and all(isinstance(value, str) for value in values):
            joined[key] = "+".join(dict.fromkeys(values))
        else:
            differ = True
    return joined | {"attacks": described} if differ else joined


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """The attacks of one evaluation.

    Args:
        budgets: the attacks of each budget, which are evaluated separately; within one the worst case counts,
            and later attacks see only the survivors of the earlier ones.
        text_attack: also attack the class prompts, by their words or their embeddings; leaf level, cosine.
        text_orders: of prompts and pixels, see `MultimodalAttack`; the prompts alone are measured anyway.
        transfer: also judge what is crafted at each level at every other level.
        targets: also aim at wrong classes ``"within"`` the superclass one level up, or ``"outside"`` of it.
        defence: also measure every classifier behind this test-time defence, attacked as if it were not there
            and through it.
        eot: draws that the attack through it averages over.
        checks: also run the `diagnostics` of every classifier at every budget.

    Raises:
        ValueError: no budget, the same one twice, one without attacks, attacks of different budgets together,
            an unknown order or target, orders without an attack on the prompts, or a joint order without an
            attack that it can use.
    """

    budgets: tuple[tuple[Attack, ...], ...]
    text_attack: TextAttack | EmbeddingPGD | None = None
    text_orders: tuple[str, ...] | None = None
    transfer: bool = False
    targets: tuple[str, ...] = ()
    defence: TTC | None = None
    eot: int = 10
    checks: bool = False

    def __post_init__(self):
        check_counts(self, "eot")
        check_flag(self, "transfer")
        check_flag(self, "checks")
        if self.eot != 10 and self.defence is None:
            raise ValueError(f"eot={self.eot} has no effect without a defence")
        if self.text_orders is not None and self.text_attack is None:
            raise ValueError(f"text_orders={self.text_orders!r} has no effect without a text_attack")
        orders = ("text_first",) if self.text_orders is None else self.text_orders
        object.__setattr__(self, "text_orders", _chosen("text_orders", orders, TEXT_ORDERS))
        object.__setattr__(self, "targets", _chosen("targets", self.targets, TARGETS))
        budgets = tuple(build_attacks(attacks) for attacks in self.budgets)
        if not budgets:
            raise ValueError("budgets is empty: give the attacks of at least one budget")
        for place, attacks in enumerate(budgets):
            if attacks in budgets[:place]:
                raise ValueError(f"the budget {attacks[0].threat} is there twice: leave one of them out")
        object.__setattr__(self, "budgets", budgets)
        if self.text_attack is not None and "joint" in self.text_orders:
            for attacks in budgets:
                if not any(map(has_loss, attacks)):
                    raise ValueError(
                        f"text_orders={self.text_orders!r}: the joint order maximises its own loss, which "
                        f"{', '.join(attack_labels(attacks))} cannot: add an attack such as 'pgd'"
                    )

    @classmethod
    def of(
        cls,
        attack: str | Attack | Sequence[str | Attack] = "pgd",
        eps: float | str | Sequence[float | str] | None = None,
        *,
        norm: Norm | None = None,
        space: Space | None = None,
        besides: Mapping[str, Any] | None = None,
        **options,
    ) -> AttackPlan:
        """The same attacks at each budget; see `build_attacks`.

        Args:
            eps: one budget, several, or a comma-separated list.
            besides: further fields of the plan.

        Raises:
            ValueError: no budget in ``eps``, or what the plan itself refuses.
        """
        if isinstance(eps, str):
            eps = [part.strip() for part in eps.split(",")]
        many = eps if isinstance(eps, Sequence) else [eps]
        if not many:
            raise ValueError(f"eps={eps!r} names no budget: give at least one, such as '4/255'")
        budgets = [build_attacks(attack, eps=one, norm=norm, space=space, **options) for one in many]
        return cls(budgets=tuple(budgets), **besides or {})

    def spaces(self) -> list[str]:
        """Threat spaces of the budgets; the images are decoded once for each."""
        return list(dict.fromkeys(attacks[0].threat.space for attacks in self.budgets))

    def describe_text(self, image: dict | None, space: str, order: str = "") -> dict:
        """Constants of the attack on the prompts: alone, or with the image attack ``image`` in an order."""
        text = self.text_attack.describe()
        if image is None:
            return {"name": text["name"], "norm": "linf", "eps": 0.0, "space": space, "text_attack": text}
        name = f"{text['name']}+{image['name']}"
        return image | {"name": name, "text_attack": text, "text_order": order}


def check_levels(plan: AttackPlan, has_tree: bool) -> None:
    """Refuse what only levels above the leaves give a meaning.

    Raises:
        ValueError: transfer or targets without a class tree.
    """
    for name in ("transfer", "targets"):
        if getattr(plan, name) and not has_tree:
            raise ValueError(f"{name}={getattr(plan, name)!r} has no effect without a class tree: give tree")


def _chosen(name: str, values: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise ValueError(f"{name}: {value!r} is unknown, choose from {', '.join(known)}")
    return tuple(dict.fromkeys(values))
