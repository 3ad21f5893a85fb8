"""From the outcomes of a target's jobs to its records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..attacks import Cost
from ..classifiers.levels import LevelClassifier
from ..naming import level_name, public_name
from .doubts import Look, checks
from .flags import class_counts, pack_flags
from .jobs import Key, families, job_of, joint_attack, judges_of
from .plan import AttackPlan, describe_attacks
from .records import RobustnessRecord
from .targets import Target
from .text_attacks import both, text_only
from .verdicts import Outcome


def records_of(
    plan: AttackPlan,
    target: Target,
    outcomes: Mapping[Key, Outcome],
    samples: Mapping[str, dict],
    facts: Mapping,
    bf16_search: bool,
    diagnosed: Mapping[tuple[int, int], Callable[[Mapping], dict]] | None = None,
) -> list[RobustnessRecord]:
    """Records of one set, by budget and classifier; then the transfer between its levels.

    Args:
        samples: ``sample_ids`` of each threat space.
        facts: ``model``, ``objective``, ``model_hash`` and ``seed`` of the records.
        diagnosed: see `diagnose_target`.
    """
    records, dtype = [], {"search_dtype": "bfloat16" if bf16_search else "float32"}
    for budget, attacks in enumerate(plan.budgets):
        image = describe_attacks(attacks) | dtype
        entries = _Entries(plan, target, outcomes, samples, facts, budget, image, diagnosed or {})
        for index in range(len(target.found)):
            records += entries.of(index)
        if plan.transfer:
            records += entries.transfers()
    return records


class _Entries:
    """The records of one budget."""

    def __init__(self, plan, target, outcomes, samples, facts, budget: int, image: dict, diagnosed):
        data = target.data
        self.plan, self.target, self.budget, self.image = plan, target, budget, image
        self.diagnosed = diagnosed
        self.space = plan.budgets[budget][0].threat.space
        self.looks = Look.of(plan.budgets[budget])
        self.outcomes = {
            (key.index, key.kind): value for key, value in outcomes.items() if key.budget == budget
        }
        self.classes = torch.tensor([data.images.labels[row] for row in data.rows])
        self.common = {
            **facts,
            "dataset": public_name(data.name),
            "split": data.split,
            "class_set": data.class_set.name,
            "tree": data.tree.name if data.tree else None,
            "tree_hash": data.tree.hash if data.tree else None,
            "templates_hash": target.templates_hash,
            "sample_ids": samples[self.space],
        }

    def of(self, index: int) -> Iterator[RobustnessRecord]:
        """All records of one classifier but its transfers."""
        one, own = self.target.found[index], self.outcomes[index, "own"]
        depth = None if self.target.depth is None else self.target.depth.facts(one, own.notes)
        found = checks(own, self.looks)
        if (budgeted := self.diagnosed.get((self.budget, index))) is not None:
            found = budgeted(found)
        yield self._record(one, own, self.looks, depth=depth, checks=found)
        for kind in self.plan.targets:
            if (outcome := self.outcomes.get((index, kind))) is not None:
                job = job_of(self.plan, self.target, Key(self.budget, index, kind), bf16_search=False)
                yield self._record(one, outcome, self.looks, attack=self.image | describe_target(job.attacks))
        if (index, "defended") in self.outcomes:
            yield self._defended(index)
        if self.target.paired(one):
            yield from self._with_text(index)

    def transfers(self) -> Iterator[RobustnessRecord]:
        """The matrix of each kind of classifier: crafted at one level, judged at another."""
        found, tables = self.target.found, families(self.target.found)
        for name, levels in tables.items():
            for crafted, source in levels.items():
                outcome = self._part(source)
                for judged, place in levels.items():
                    clean, robust = self.outcomes[place, "own"].clean, self._judged(source, place)
                    robust = robust & clean
                    if place == source:  # what its own attack found counts too
                        robust = robust & self.outcomes[place, "own"].robust
                    right = int(clean.sum())
                    yield self._record(
                        found[place],
                        outcome._replace(clean=clean, robust=robust),
                        self.looks,
                        classifier=name,
                        attack=self.image | {"to_the_end": True},
                        crafted_level=crafted,
                        judged_level=judged,
                        transfer_rate=1 - int(robust.sum()) / right if right else None,
                    )

    def _defended(self, index: int) -> RobustnessRecord:
        one, own, adaptive = (
            self.target.found[index],
            self.outcomes[index, "own"],
            self.outcomes[index, "defended"],
        )
        crafted = self._part(index)
        blind = adaptive.clean & self._judged(index, "defended")
        robust, count = adaptive.robust & blind, len(blind)
        accuracies = {
            "undefended_clean": own.clean,
            "undefended_robust": own.robust,
            "blind_robust": blind,
            "adaptive_robust": adaptive.robust,
        }
        together = adaptive._replace(
            robust=robust,
            cost=Cost(*(a + b for a, b in zip(adaptive.cost, crafted.cost))),
            seconds=adaptive.seconds + crafted.seconds,
        )
        shares = {name: int(flags.sum()) / count for name, flags in accuracies.items()}
        defence = self.plan.defence.describe() | {"eot": self.plan.eot} | shares
        return self._record(one, together, self.looks, defence=defence)

    def _with_text(self, index: int) -> Iterator[RobustnessRecord]:
        """Attacked prompts alone, and with attacked pixels in each order."""
        one, own = self.target.found[index], self.outcomes[index, "own"]
        prompted, plan = self.outcomes[index, "prompted"], self.plan
        if self.budget == 0:  # without pixels there is no budget
            alone = text_only(own.clean, prompted, self.target.text_seconds)
            yield self._record(one, alone, [Look("text")], attack=plan.describe_text(None, self.space))
        for order in plan.text_orders:
            before, image, looks = own, self.image, [*self.looks, Look(order)]
            if order == "text_first":
                pair, robust = prompted, own.robust & prompted.robust
            elif order == "independent":
                pair = self._part(index)
                robust = own.robust & prompted.clean & self._judged(index, "prompted")
            else:
                pair = self.outcomes[index, "joint"]
                robust = own.clean & prompted.clean & pair.robust
                robust = robust & (pair.notes[1][:, 0].long() == one.to_node[self.classes])
                # The clean prompts' own attack has no part in it.
                before, looks = own.unattacked(), [Look(order)]
                image = {k: v for k, v in image.items() if k != "attacks"}
                image |= describe_joint(plan, self.budget, self.target.text)
            attack = plan.describe_text(image, self.space, order)
            yield self._record(one, both(before, pair, robust), looks, attack=attack)

    def _judged(self, source: int, judge: object) -> Tensor:
        """(N,) bool: a judge's verdicts on the images made against a classifier."""
        judges = judges_of(self.plan, self.target, source)
        _, to_node = judges[judge]
        made = self.outcomes[source, "crafted"].notes[1]
        return made[:, list(judges).index(judge)].long() == to_node[self.classes]

    def _part(self, source: int) -> Outcome:
        """The crafting job's outcome, its cost in equal parts for each of the records that it serves."""
        outcome, judges = self.outcomes[source, "crafted"], judges_of(self.plan, self.target, source)
        served = sum(isinstance(judge, str) for judge in judges)
        if self.plan.transfer:
            tables = families(self.target.found).values()
            served += sum(len(levels) for levels in tables if source in levels.values())
        cost = Cost(*(value / served for value in outcome.cost))
        return outcome._replace(cost=cost, seconds=outcome.seconds / served)

    def _nodes(self, one: LevelClassifier) -> tuple[Sequence[str], Tensor]:
        """Names of the classes at a classifier's level, and the one (K,) of each leaf.

        Nodes that share a prompt are one, which has the first's name; leaves are told apart all the same.
        """
        data = self.target.data
        leaves = data.class_set.class_names
        if one.level == 0:
            return leaves, torch.arange(len(leaves))
        shown, own = data.tree.display_names(one.level), data.tree.ancestors(one.level).tolist()
        names = {node: shown[above] for node, above in reversed([*zip(one.to_node.tolist(), own)])}
        return [names[node] for node in range(len(names))], one.to_node.cpu()

    def _record(
        self, one: LevelClassifier, outcome: Outcome, looks: Sequence[Look], **more
    ) -> RobustnessRecord:
        count = len(outcome.clean)
        values = {"classifier": one.name, "attack": self.image, "checks": checks(outcome, looks)} | more
        if "crafted_level" not in more:
            names, nodes = self._nodes(one)
            values["classes"] = class_counts(names, nodes[self.classes], outcome.clean, outcome.robust)
        return RobustnessRecord(
            **self.common,
            **values,
            num_classes=int(one.to_node.max()) + 1,
            level=one.level,
            level_name=level_name(one.level),
            num_samples=count,
            clean_accuracy=int(outcome.clean.sum()) / count,
            robust_accuracy=int(outcome.robust.sum()) / count,
            wall_seconds=round(outcome.seconds, 1),
            cost={name: round(value, 2) for name, value in outcome.cost._asdict().items()},
            flags={"clean": pack_flags(outcome.clean), "robust": pack_flags(outcome.robust)},
        )


def describe_target(attacks: Sequence) -> dict:
    """What attacks are aimed at."""
    return {key: value for key, value in attacks[0].describe().items() if key.startswith("target")}


def describe_joint(plan: AttackPlan, budget: int, text: Tensor) -> dict:
    """Constants of the joint order's one attack, in place of the plan's."""
    return joint_attack(plan.budgets[budget], text).describe()
