"""From models and sets of images to robustness records: one per classifier and budget."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import torch

from ..adapters.fingerprints import weights_hash
from ..classifiers.levels import LevelClassifier
from ..modeling import RobustDualEncoder
from ..modeling.kernels import attack_kernels
from ..naming import level_name, public_name
from .doubts import checks
from .flags import pack_flags
from .identity import plan_facts, run_facts
from .images import Batches
from .plan import AttackPlan, EvaluationSet, attack_labels, describe_attacks
from .progress_line import progress_line
from .records import RobustnessRecord
from .runner import Job, run_jobs
from .shards import Shards
from .state import EvaluationState
from .targets import Target, model_target, target_facts
from .text_attacks import both, text_only
from .verdicts import Outcome


def evaluate_model(
    model: RobustDualEncoder,
    processor,
    sets: Iterable[EvaluationSet],
    plan: AttackPlan,
    *,
    model_name: str,
    objective: str = "none",
    template: str | None = None,
    classifiers: Sequence[str] | None = None,
    batch_size: int = 256,
    bf16_search: bool = False,
    seed: int = 0,
    progress: bool = True,
    stage: str = "",
    state_dir: str | os.PathLike | None = None,
    shards: Shards | None = None,
) -> list[RobustnessRecord]:
    """Attack every classifier of a model on every set at every budget.

    Args:
        model, processor: of one checkpoint.
        sets: what to measure; their trees give the levels above the leaves.
        plan: the attacks and their budgets.
        model_name, objective: for the records.
        template: prompt template in place of each class set's own.
        classifiers: names to keep (see `LevelClassifier`); None evaluates the usual ones that the model has.
        batch_size: images a batch.
        bf16_search: attack gradients under bf16 autocast; verdicts stay fp32.
        seed: of random starts.
        progress: draw one bar over everything, with the time left.
        stage: what the bar says of the model, such as "base" or "trained".
        state_dir, shards: see `measure`.

    Returns:
        One record per set, level, classifier and budget; with a text attack, for the leaves' cosine
        classifier also one with attacked prompts alone and one per budget with both attacked.

    Raises:
        ValueError: an unknown classifier, a prompt longer than the text encoder's context, labels outside the
            classes, or logits that are NaN.
        StateError: ``state_dir`` holds another evaluation.
    """
    targets = [model_target(model, processor, data, plan, template, classifiers) for data in sets]
    dtype = torch.bfloat16 if bf16_search else None
    facts = {
        "model": public_name(model_name),
        "objective": objective,
        "model_hash": weights_hash(model),
        "seed": seed,
    }
    with attack_kernels(model, dtype):
        return measure(
            targets,
            plan,
            facts,
            processor=processor,
            device=model.device,
            batch_size=batch_size,
            bf16_search=bf16_search,
            progress=(stage or facts["model"]) if progress else None,
            state_dir=state_dir,
            shards=shards,
        )


def measure(
    targets: Sequence[Target],
    plan: AttackPlan,
    facts: Mapping,
    *,
    processor=None,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    bf16_search: bool = False,
    progress: str | None = None,
    state_dir: str | os.PathLike | None = None,
    shards: Shards | None = None,
) -> list[RobustnessRecord]:
    """Records of all targets; the images of a set are decoded once for each threat space.

    Args:
        facts: ``model``, ``objective``, ``model_hash`` and ``seed`` of the records.
        processor: only the threat space ``"model"`` needs it.
        progress: title of the overall bar; None draws none.
        state_dir: keeps the verdicts of every batch, see `EvaluationState`: the same call goes on from them
            after it was killed, and ends with the same records but for what `VOLATILE` names. The images are
            then hashed before the first is attacked; those that do not fit into memory are decoded twice.
        shards: the processes, which share the batches and all return the same records; None is this one.
    """
    shards = shards or Shards()
    names = _names(targets)
    state = None
    if state_dir is not None:
        common = run_facts(facts["seed"], batch_size, device, bf16_search) | plan_facts(plan)
        state = EvaluationState(state_dir, common, names, shards)
    records = []
    mine = [
        sum(map(len, shards.mine(target.data.batches(batch_size))))
        * len(_keys(target, range(len(plan.budgets))))
        for target in targets
    ]
    with progress_line(progress, sum(mine), shards) as advance:
        for target, name in zip(targets, names):
            outcomes, samples = {}, {}
            images = {
                space: Batches(target.data, processor, space, batch_size, shards) for space in plan.spaces()
            }
            scope = None
            if state is not None:
                scope = state.open(name, target_facts(target, images, device))
            for space in plan.spaces():
                budgets = [i for i, attacks in enumerate(plan.budgets) if attacks[0].threat.space == space]
                jobs = {
                    key: _job(plan, target, *key, bf16_search=bf16_search) for key in _keys(target, budgets)
                }
                target.set_space(space)
                found = run_jobs(
                    list(jobs.values()),
                    images[space],
                    device=device,
                    seed=facts["seed"],
                    advance=advance,
                    log=state and state.log(f"{scope}/{space}"),
                    shards=shards,
                )
                outcomes |= dict(zip(jobs, found))
                samples[space] = images[space].describe()
            records += _records(plan, target, outcomes, samples, facts, bf16_search)
    return records


def _names(targets: Sequence[Target]) -> list[str]:
    """Names of the sets, those that occur twice with a number."""
    names = [target.data.name for target in targets]
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names)]


def _keys(target: Target, budgets: Sequence[int]) -> list[tuple[int, int, bool]]:
    """Budget, classifier and whether its prompts are attacked, of every job."""
    return [
        (budget, index, prompted)
        for budget, index in product(budgets, range(len(target.found)))
        for prompted in (False, True)[: 1 + target.paired(target.found[index])]
    ]


def _job(
    plan: AttackPlan, target: Target, budget: int, index: int, prompted: bool, *, bf16_search: bool
) -> Job:
    one, attacks = target.found[index], plan.budgets[budget]
    title = f"{public_name(target.data.name)}, {level_name(one.level)}, {one.name}, {attacks[0].threat}"
    if prompted:
        one, title = target.prompted, f"{title}, attacked prompts"
    return Job(
        classifier=one.classifier,
        attacks=attacks,
        to_class=one.to_node,
        search=one.search if bf16_search else None,
        title=title,
        probe=None if prompted or target.depth is None else target.depth.probe(one),
    )


def _records(
    plan: AttackPlan, target: Target, outcomes: Mapping, samples: Mapping, facts: Mapping, bf16_search: bool
) -> list[RobustnessRecord]:
    """Records of one set, by budget and classifier."""
    data, records = target.data, []
    for budget, attacks in enumerate(plan.budgets):
        space = attacks[0].threat.space
        common = {
            **facts,
            "dataset": public_name(data.name),
            "split": data.split,
            "class_set": data.class_set.name,
            "tree": data.tree.name if data.tree else None,
            "tree_hash": data.tree.hash if data.tree else None,
            "templates_hash": target.templates_hash,
            "sample_ids": samples[space],
        }
        image = describe_attacks(attacks) | {"search_dtype": "bfloat16" if bf16_search else "float32"}
        labels = attack_labels(attacks)
        for index, one in enumerate(target.found):
            outcome = outcomes[budget, index, False]
            depth = None if target.depth is None else target.depth.facts(one, outcome.notes)
            records.append(_record(one, outcome, common | {"attack": image, "depth": depth}, labels))
            if not target.paired(one):
                continue
            pair = outcomes[budget, index, True]
            if budget == 0:  # without pixels there is no budget
                words = {"attack": plan.describe_text(None, space)}
                alone = text_only(outcome.clean, pair, target.text_seconds)
                records.append(_record(one, alone, common | words, ["text"]))
            joint = {"attack": plan.describe_text(image, space)}
            records.append(_record(one, both(outcome, pair), common | joint, [*labels, "text_first"]))
    return records


def _record(one: LevelClassifier, outcome: Outcome, common: dict, labels: Sequence[str]) -> RobustnessRecord:
    count = len(outcome.clean)
    return RobustnessRecord(
        **common,
        num_classes=int(one.to_node.max()) + 1,
        level=one.level,
        level_name=level_name(one.level),
        classifier=one.name,
        num_samples=count,
        clean_accuracy=int(outcome.clean.sum()) / count,
        robust_accuracy=int(outcome.robust.sum()) / count,
        wall_seconds=round(outcome.seconds, 1),
        cost={name: round(value, 2) for name, value in outcome.cost._asdict().items()},
        flags={"clean": pack_flags(outcome.clean), "robust": pack_flags(outcome.robust)},
        checks=checks(outcome, labels),
    )
