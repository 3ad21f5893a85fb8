"""Checks before a run starts: what would otherwise fail, or mislead, hours later."""

from __future__ import annotations

from collections.abc import Iterable, Set
from importlib.util import find_spec

import datasets as hf

from ..classifiers import check_classifiers, level_prompts
from ..data import PixelDataset
from ..evaluation import EvaluationSet, check_levels
from ..modeling import RobustDualEncoder, check_prompts as check_own_prompts
from ..threat import ThreatModel
from ..training.images import CAPTIONS
from .arguments import RunArguments
from .plans import evaluation_plan

PRELOAD_BYTES = 2 << 30


def check_columns(args: RunArguments, objective: str, needs: Set[str]) -> None:
    """Refuse a column that the objective would not read.

    Args:
        objective: its name.
        needs: what it reads, see `objectives.NEEDS`.

    Raises:
        ValueError: captions for an objective that trains on none.
    """
    if args.caption_column is not None and not needs & CAPTIONS:
        raise ValueError(
            f"caption_column={args.caption_column!r} has no effect: {objective!r} trains on no captions "
            "under its options; leave it out, or train advflyp, mmcoa or hier_mmcoa"
        )


def check_evaluation(
    args: RunArguments, threat: ThreatModel, has_tree: bool, trains_head: bool = True, draws: bool = True
) -> None:
    """Build every attack of the evaluation once and load its models, and look for what its figures need.

    Args:
        has_tree: whether the run has a class tree.
        trains_head: whether the model will have a calibrated hyperbolic head to evaluate.
        draws: whether there are figures to draw.

    Raises:
        ValueError: a budget, step size, loss or classifier that does not exist.
        OSError, ImportError: figures or the text attack need something that is missing.
    """
    plan = evaluation_plan(args, threat)
    if plan.text_attack is not None:
        plan.text_attack.prepare()
    check_levels(plan, has_tree)
    names = args.classifiers
    check_classifiers(names or ())
    if names and not has_tree and all("rollup" in name for name in names):
        raise ValueError(f"eval_classifiers={args.eval_classifiers!r} needs a class tree: give tree")
    if names and not trains_head and all("hyperbolic" in name for name in names):
        raise ValueError(
            f"eval_classifiers={args.eval_classifiers!r} needs a hyperbolic head, which this objective does "
            "not train: add 'cosine'"
        )
    if args.eval_text_attack and names and "cosine" not in names:
        raise ValueError(
            f"eval_text_attack={args.eval_text_attack!r} attacks the prompts of the classifier 'cosine', "
            f"which eval_classifiers={args.eval_classifiers!r} leaves out: add it"
        )
    if args.figures and draws and find_spec("matplotlib") is None:
        raise ImportError(
            "figures need matplotlib: pip install 'hf_hierrobust[plots]', or pass --figures false"
        )


def check_prompts(
    sets: Iterable[EvaluationSet], model: RobustDualEncoder, tokenizer, template: str | None
) -> None:
    """Tokenise what the evaluation will ask, classes and superclasses of every set, before hours of training.

    Raises:
        ValueError: a prompt longer than the text encoder's context, or a tokenizer that is not the model's.
    """
    for data in sets:
        for level in level_prompts(data.class_set, data.tree, template):
            check_own_prompts(model.config, tokenizer, level)


def worth_preloading(train: hf.Dataset) -> bool:
    """Whether all training images, decoded, fit into two GiB; judged by the first one."""
    width, height = PixelDataset(train.select([0]))[0]["image"].size
    return 3 * width * height * len(train) <= PRELOAD_BYTES
