"""Drift of an image tower from its base, measured on some of an evaluation set's images, into records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..data import PixelCollator
from ..evaluation import AttackPlan, EvaluationSet, RobustnessRecord
from ..evaluation.drift import token_drift
from ..modeling import PixelPipeline, RobustDualEncoder, load_robust_model
from ..naming import public_name
from .load import model_path
from .plans import evaluation_plan
from .run import Run

BATCH = 32


def with_drift(
    records: Iterable[RobustnessRecord],
    model: RobustDualEncoder,
    base: RobustDualEncoder,
    processor,
    data: EvaluationSet,
    plan: AttackPlan,
    *,
    samples: int = 32,
    seed: int = 0,
) -> list[RobustnessRecord]:
    """Records of one model with the entry ``drift`` in those of the leaves by cosine, for each budget.

    Args:
        base: the model that it was trained from.
        data: the set whose records get it, and the first of whose images are measured, spread over its rows.
        plan: of the records.
        samples: how many images.
    """
    rows = _spread(data.rows, samples)
    images = [data.images[row] for row in rows]
    found: dict[tuple, dict] = {}
    for attacks in plan.budgets:
        threat = attacks[0].threat
        collate = PixelCollator(getattr(processor, "image_processor", processor), threat.space)
        pipeline = PixelPipeline(processor.image_processor, threat.space)
        batches = [
            collate(images[first : first + BATCH])["pixels"].to(model.device)
            for first in range(0, len(images), BATCH)
        ]
        drift = token_drift(model, base.to(model.device), batches, pipeline, threat, seed=seed)
        key = (threat.norm, threat.eps, threat.space)
        found[key] = drift | {"base": public_name(base.name_or_path or type(base).__name__)}
    return [_with(record, found, public_name(data.name)) for record in records]


def _with(record: RobustnessRecord, found: dict[tuple, dict], name: str) -> RobustnessRecord:
    attack = record.attack
    drift = found.get((attack["norm"], attack["eps"], attack["space"]))
    own = record.direct and record.dataset == name and (record.level, record.classifier) == (0, "cosine")
    return replace(record, drift=drift) if own and drift is not None else record


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """So many of the rows, at equal distances."""
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def measure_drift(run: Run, records: Sequence[RobustnessRecord]) -> list[RobustnessRecord]:
    """Records of a run's model with its drift from ``drift_base``, or from what its training started from."""
    args = run.args
    base = load_robust_model(args.drift_base or model_path(args, run.training_args.seed))
    return with_drift(
        records,
        run.model,
        base,
        run.processor,
        run.eval_sets[0],
        evaluation_plan(args, run.training_args.threat),
        samples=args.drift_samples,
        seed=run.training_args.seed,
    )
