"""From models and sets of images to robustness records: one per classifier and budget."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext

import torch
from transformers import logging

from ..adapters.fingerprints import weights_hash
from ..modeling import RobustDualEncoder
from ..modeling.kernels import attack_kernels
from ..naming import public_name
from .checkups import diagnose_target
from .entries import records_of
from .identity import plan_facts, run_facts
from .images import Batches
from .jobs import families, job_of, keys_of
from .plan import AttackPlan, check_levels
from .progress_line import progress_line
from .records import RobustnessRecord
from .runner import run_jobs
from .sets import EvaluationSet
from .shards import Shards
from .state import EvaluationState
from .targets import Target, model_target, target_facts

logger = logging.get_logger(__name__)


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
    strict: bool = False,
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
        strict: refuse a name that the model has no classifier for; else at least one of them has to exist.
        batch_size: images a batch.
        bf16_search: attack gradients under bf16 autocast; verdicts stay fp32.
        seed: of random starts.
        progress: draw one bar over everything, with the time left.
        stage: what the bar says of the model, such as "base" or "trained".
        state_dir, shards: see `measure`.

    Returns:
        One record per set, level, classifier and budget, and those that the plan asks for besides.

    Raises:
        ValueError: an unknown classifier, one that the model lacks, a prompt longer than the text encoder's
            context, labels outside the classes, or logits that are NaN.
        StateError: ``state_dir`` holds another evaluation.
    """
    targets = [model_target(model, processor, data, plan, template, classifiers, seed) for data in sets]
    _check_asked(classifiers, targets, strict)
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
    check_levels(plan, any(target.data.tree for target in targets))
    if plan.transfer and not any(families(target.found) for target in targets):
        kept = sorted({one.name for target in targets for one in target.found})
        raise ValueError(f"transfer has no effect: classifiers {kept} have one level each; add 'cosine'")
    names = _names(targets)
    most = max((len(target.data.batches(batch_size)) for target in targets), default=0)
    if shards.rank == 0 and shards.count > most:
        logger.warning(
            f"{shards.count - most} of {shards.count} processes have nothing to do: make the batches smaller "
            f"than {batch_size} images, of which there are {most}"
        )
    state = None
    if state_dir is not None:
        common = run_facts(facts["seed"], batch_size, device, bf16_search) | plan_facts(plan)
        state = EvaluationState(state_dir, common, names, shards)
    records = []
    mine = [
        sum(map(len, shards.mine(target.data.batches(batch_size))))
        * len(keys_of(plan, target, range(len(plan.budgets))))
        for target in targets
    ]
    with progress_line(progress, sum(mine), shards) as advance, state or nullcontext():
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
                    key: job_of(plan, target, key, bf16_search=bf16_search)
                    for key in keys_of(plan, target, budgets)
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
            diagnosed = {}
            if plan.checks:
                diagnosed = diagnose_target(
                    plan,
                    target,
                    outcomes,
                    processor=processor,
                    device=device,
                    seed=facts["seed"],
                    notes=state and state.notes(scope),
                    shards=shards,
                )
            records += records_of(plan, target, outcomes, samples, facts, bf16_search, diagnosed)
    return records


def _check_asked(names: Sequence[str] | None, targets: Sequence[Target], strict: bool) -> None:
    """Classifiers that were asked for by name are there."""
    found = {one.name for target in targets for one in target.found}
    missing = [name for name in names or () if name not in found]
    if not missing or (found and not strict):
        return
    why = "the model has no calibrated hyperbolic head"
    if missing[0].startswith(("rollup", "path")) and not any(target.data.tree for target in targets):
        why = "there is no class tree: give tree"
    raise ValueError(f"classifier {missing[0]!r} was asked for, but {why}")


def _names(targets: Sequence[Target]) -> list[str]:
    """Names of the sets, those that occur twice with a number."""
    names = [target.data.name for target in targets]
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names)]
