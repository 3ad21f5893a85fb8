"""Which jobs a plan makes of a target: the classifiers' own, and those behind records of other kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..attacks import Attack, JointAttack, LastIterates, SuperclassTarget, margin
from ..attacks.text.joint import has_loss
from ..classifiers import Averaged, parts_of, passes_of, shared_logits
from ..classifiers.levels import LevelClassifier
from ..naming import level_name, public_name
from .plan import AttackPlan
from .runner import Job
from .targets import Target

Kind = Literal["own", "within", "outside", "crafted", "defended", "prompted", "joint"]
TITLES = {
    "own": "",
    "within": ", within the superclass",
    "outside": ", outside the superclass",
    "crafted": ", for other levels and defences",
    "defended": ", through the defence",
    "prompted": ", attacked prompts",
    "joint": ", prompts and pixels jointly",
}


class Key(NamedTuple):
    """A job by its budget, its classifier among those of the target, and what it is for."""

    budget: int
    index: int
    kind: Kind = "own"


def keys_of(plan: AttackPlan, target: Target, budgets: Sequence[int]) -> list[Key]:
    """The jobs of these budgets, those of one classifier together."""
    return [
        Key(budget, index, kind)
        for budget, index in product(budgets, range(len(target.found)))
        for kind in _kinds(plan, target, index)
    ]


def _kinds(plan: AttackPlan, target: Target, index: int) -> list[Kind]:
    one, kinds = target.found[index], ["own"]
    if superclasses(target, one) is not None:
        kinds += plan.targets
    if judges_of(plan, target, index):
        kinds.append("crafted")
    if target.defended:
        kinds.append("defended")
    if target.paired(one):
        kinds.append("prompted")
        kinds += ["joint"] * ("joint" in plan.text_orders)
    return kinds


def job_of(plan: AttackPlan, target: Target, key: Key, *, bf16_search: bool) -> Job:
    """The job of a key."""
    one, attacks = target.found[key.index], plan.budgets[key.budget]
    where = f"{public_name(target.data.name)}, {level_name(one.level)}, {one.name}"
    values = {
        "classifier": one.classifier,
        "attacks": attacks,
        "to_class": one.to_node,
        "search": one.search if bf16_search else None,
        "title": f"{where}, {attacks[0].threat}{TITLES[key.kind]}",
    }
    if key.kind == "own":
        values["probe"] = None if target.depth is None else target.depth.probe(one)
    elif key.kind in ("within", "outside"):
        above = superclasses(target, one)
        values["attacks"] = [
            SuperclassTarget(attack=attack, to_superclass=above, target=key.kind, level=one.level + 1)
            for attack in attacks
        ]
    elif key.kind == "crafted":
        values["attacks"] = [LastIterates(attack=attack) for attack in attacks]
        judges = judges_of(plan, target, key.index).values()
        values["probe"] = Predictions([classifier for classifier, _ in judges], against=one.classifier)
    elif key.kind == "defended":
        defended = target.defended[key.index]
        search = defended.with_autocast(torch.bfloat16) if bf16_search else defended
        values |= {"classifier": defended, "search": Averaged(search, plan.eot)}
    else:
        values |= {"classifier": target.prompted.classifier, "to_class": target.prompted.to_node}
        values["search"] = target.prompted.search if bf16_search else None
        if key.kind == "joint":
            values["attacks"] = [joint_attack(attacks, target.text)]
            values["probe"] = Predictions([one.classifier])
        elif "text_first" not in plan.text_orders:
            values["attacks"] = []  # only the clean images are judged
    return Job(**values)


def joint_attack(attacks: Sequence[Attack], text: Tensor) -> JointAttack:
    """The joint order of the first attack whose loss can be replaced.

    Args:
        text: (K, D) embeddings of the attacked prompts.
    """
    return JointAttack(attack=next(attack for attack in attacks if has_loss(attack)), text=text)


def superclasses(target: Target, one: LevelClassifier) -> Tensor | None:
    """The superclass, one level up, of each of a classifier's classes; None at the top."""
    tree = target.data.tree and target.data.tree.align(target.data.class_set.class_names)
    if tree is None or one.level + 1 >= tree.num_levels:
        return None
    above = tree.ancestors(one.level + 1)
    return torch.zeros(int(one.to_node.max()) + 1, dtype=torch.long).scatter(0, one.to_node, above)


def families(found: Sequence[LevelClassifier]) -> dict[str, dict[int, int]]:
    """The classifiers of each kind, as place among ``found`` by level; roll-ups begin at the leaves' own."""
    names = list(dict.fromkeys(one.name for one in found))
    table = {
        name: {one.level: place for place, one in enumerate(found) if one.name == name} for name in names
    }
    for name in ("rollup", "rollup-hyperbolic"):
        for leaf in ("hyperbolic",) if name.endswith("hyperbolic") else ("cosine", "network"):
            if name in table and 0 in table.get(leaf, {}):
                table[name] = {0: table[leaf][0], **table[name]}
    return {name: dict(sorted(levels.items())) for name, levels in table.items() if len(levels) > 1}


def judges_of(
    plan: AttackPlan, target: Target, index: int
) -> dict[object, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Who else is asked about a classifier's adversarial images, and the class of each leaf there.

    Returns:
        By place among the target's classifiers, ``"defended"`` or ``"prompted"``.
    """
    one, judges = target.found[index], {}
    if plan.transfer:
        for levels in families(target.found).values():
            if index in levels.values():
                found = ((place, target.found[place]) for place in levels.values())
                judges |= {place: (other.classifier, other.to_node) for place, other in found}
    if target.defended:
        judges["defended"] = (target.defended[index], one.to_node)
    if target.paired(one) and "independent" in plan.text_orders:
        judges["prompted"] = (target.prompted.classifier, target.prompted.to_node)
    return judges


class Predictions:
    """What several classifiers take images for, as the probe of a job; shared embeddings are computed once.

    Args:
        classifiers: pixels -> logits.
        against: the classifier that is attacked. Its margin is then the last number, and an image that stands
            keeps the numbers of the attack after which it is largest.

    Attributes:
        passes: images passed forward and back so far.
        ranks: see `Job`.
    """

    def __init__(
        self,
        classifiers: Sequence[Callable[[Tensor], Tensor]],
        against: Callable[[Tensor], Tensor] | None = None,
    ):
        self.ranks, self.passes = against is not None, [0, 0]
        self.classifiers = [*classifiers, against] if self.ranks else list(classifiers)

    def __call__(self, pixels: Tensor, labels: Tensor) -> Tensor:
        before = [passes_of(one) for one in self.classifiers]
        logits = shared_logits(self.classifiers, pixels)
        for one, start in zip(self.classifiers, before):
            for place, count in enumerate(start or ()):
                self.passes[place] += passes_of(one)[place] - count
        stems = {parts_of(one).key for one, start in zip(self.classifiers, before) if start is None}
        self.passes[0] += len(stems) * len(pixels)
        columns = [found.argmax(1) for found in logits]
        if self.ranks:
            columns[-1] = margin(logits[-1], labels)
        return torch.stack([column.double() for column in columns], 1)
