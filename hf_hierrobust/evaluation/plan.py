"""What is to be measured: sets of images, budgets, and the attacks of each budget."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property

from torch.utils.data import DataLoader, Dataset

from ..attacks import ATTACKS, Attack, TextAttack
from ..attacks.image.auto_attack import MEMBERS, VERSIONS
from ..data import ClassSet, ImageView, PixelCollator, as_images, stratified_rows
from ..hierarchy import LabelTree
from ..naming import level_name
from ..threat import Norm, Space
from .shards import Shards

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
            that a named attack lacks, options without a named attack, or attacks of different budgets.
    """
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
    threats = {attack.threat for attack in attacks}
    if len(threats) > 1:
        found = sorted(f"{threat} ({threat.space})" for threat in threats)
        raise ValueError(f"the attacks of one evaluation need one budget, got {found}: give eps")
    return tuple(attacks)


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
        text_attack: also attack the class prompts, by themselves and before the pixels; leaf level, cosine.

    Raises:
        ValueError: no budget, one without attacks, or attacks of different budgets together.
    """

    budgets: tuple[tuple[Attack, ...], ...]
    text_attack: TextAttack | None = None

    def __post_init__(self):
        budgets = tuple(build_attacks(attacks) for attacks in self.budgets)
        if not budgets:
            raise ValueError("budgets is empty: give the attacks of at least one budget")
        object.__setattr__(self, "budgets", budgets)

    @classmethod
    def of(
        cls,
        attack: str | Attack | Sequence[str | Attack] = "pgd",
        eps: float | str | Sequence[float | str] | None = None,
        *,
        norm: Norm | None = None,
        space: Space | None = None,
        text_attack: TextAttack | None = None,
        **options,
    ) -> AttackPlan:
        """The same attacks at each budget; see `build_attacks`.

        Args:
            eps: one budget, several, or a comma-separated list.
        """
        if isinstance(eps, str):
            eps = [part.strip() for part in eps.split(",")]
        many = eps if isinstance(eps, Sequence) else [eps]
        budgets = [build_attacks(attack, eps=one, norm=norm, space=space, **options) for one in many]
        return cls(budgets=tuple(budgets), text_attack=text_attack)

    def spaces(self) -> list[str]:
        """Threat spaces of the budgets; the images are decoded once for each."""
        return list(dict.fromkeys(attacks[0].threat.space for attacks in self.budgets))

    def describe_text(self, image: dict | None, space: str) -> dict:
        """Constants of the attack on the prompts: alone, or with the image attack ``image`` after it."""
        text = self.text_attack.describe()
        if image is None:
            return text | {"norm": "linf", "eps": 0.0, "space": space}
        return image | {"name": f"{text['name']}+{image['name']}", "text_attack": text}


def check_choice(name: str, level: int, classes: int) -> None:
    """Refuse a level whose classifiers would have nothing to choose.

    Raises:
        ValueError: it has one class.
    """
    if classes < 2:
        what = "class set" if level == 0 else "tree"
        raise ValueError(
            f"the {level_name(level)} level of {name!r} has {classes} class: every image would be right, under "
            f"any attack; give a {what} with at least two there"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Labelled images with their classes.

    Args:
        name, split: for the record.
        dataset: whatever `as_images` takes; labels are found in the class set by name.
        class_set: the classes.
        tree: class tree, or None for leaves only.
        num_samples: how many images, stratified by class; None takes all.
        shared_with_training: how many of the images the model was trained on, if someone has counted.

    Raises:
        TypeError: a stream, whose images can't be chosen.
        ValueError: see `as_images`; the images have no labels, `num_samples` is below 1, or a level has one
            class only.
    """

    name: str
    dataset: Dataset
    class_set: ClassSet
    split: str = "test"
    tree: LabelTree | None = None
    num_samples: int | None = None
    shared_with_training: int | None = None

    def __post_init__(self):
        images = self.images
        if not isinstance(images, ImageView):
            raise TypeError(f"{self.name!r} is a stream: evaluate a data set of known length")
        if not images.labelled:
            raise ValueError(f"the images of {self.name!r} have no labels to measure accuracy by")
        if self.num_samples is not None and self.num_samples < 1:
            raise ValueError(f"num_samples={self.num_samples} must be at least 1, or None for all images")
        for level, size in enumerate(self.tree.sizes if self.tree else [len(self.class_set)]):
            check_choice(self.name, level, size)
        count = len(images) if self.num_samples is None else self.num_samples
        object.__setattr__(self, "_rows", stratified_rows(images.labels, count))

    @cached_property
    def images(self) -> ImageView:
        """All images, their labels class indices."""
        return as_images(self.dataset, self.class_set, labelled=None, name=self.name)

    @property
    def rows(self) -> list[int]:
        """Rows that are evaluated, ascending."""
        return list(self._rows[0])

    @property
    def how(self) -> str:
        """How they were chosen, in words."""
        return self._rows[1]

    def batches(self, batch_size: int) -> list[list[int]]:
        """Rows of each batch, in their order; the last batch may be smaller."""
        rows = self.rows
        return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    def loader(
        self, processor, space: str, batch_size: int, shards: Shards | None = None, skip: int = 0
    ) -> DataLoader:
        """Batches of the chosen images, in the order of their rows.

        Args:
            processor: of the model; only the space ``"model"`` needs it.
            shards: the processes that share the batches; None is this one alone.
            skip: how many of this process's batches to leave out at the beginning.
        """
        collator = PixelCollator(getattr(processor, "image_processor", processor), space)
        mine = (shards or Shards()).mine(self.batches(batch_size))[skip:]
        return DataLoader(self.images, batch_sampler=mine, collate_fn=collator)
