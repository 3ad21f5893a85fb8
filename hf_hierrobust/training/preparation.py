"""From a loaded checkpoint to a model whose right parameters train, its text side and its frozen original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ..adapters.lora import add_lora, lora_config
from ..adapters.trainable import set_trainable
from ..adapters.visual_prompts import add_visual_prompt
from ..attacks import TrainingAttack
from ..evaluation import build_attacks
from ..hierarchy import Forest
from ..modeling import ReferenceModel, RobustDualEncoder
from ..objectives import Objective, TextNodes
from .arguments import BEST_METRIC, RobustTrainingArguments
from .evaluator import RobustEvaluator
from .text_side import TextSide
from .views import BatchViews

if TYPE_CHECKING:
    from peft import PeftConfig


def prepare(
    model: RobustDualEncoder,
    tokenizer: PreTrainedTokenizerBase,
    objective: Objective,
    args: RobustTrainingArguments,
    peft_config: PeftConfig | None = None,
) -> tuple[dict[str, int], TextSide, ReferenceModel | None]:
    """Add adapters and prompts, freeze what does not train, encode the prompts, keep the original.

    Args:
        objective: after its ``setup``.
        peft_config: in place of ``args.lora_r``.

    Returns:
        Trained parameters of each group, the text side, and the frozen original where the objective needs it.

    Raises:
        ValueError: adapters given twice, or a hyperbolic head that does not fit the objective.
    """
    if peft_config is not None and args.lora_r is not None:
        raise ValueError(f"peft_config and lora_r={args.lora_r} both describe adapters: give one of them")
    objective.check_head(model.hier_head)
    groups = objective.trained_groups
    if args.lora_r is not None:
        towers = args.lora_towers and [tower.strip() for tower in args.lora_towers.split(",")]
        peft_config = lora_config(
            groups, r=args.lora_r, alpha=args.lora_alpha, dropout=args.lora_dropout, towers=towers
        )
    if peft_config is not None:
        add_lora(model, peft_config, seed=args.seed)
    if args.visual_prompt_tokens or args.visual_prompt_border:
        add_visual_prompt(model, args.visual_prompt_tokens, args.visual_prompt_border, seed=args.seed)
    if objective.text_levels is not None:
        model.hier_head.grow(int(objective.text_levels.max()) + 1)
    trained = set_trainable(model, groups)
    model.to(args.device)
    prompts = objective.nodes.fill(args.template)
    text = TextSide(model, tokenizer, prompts, "text" in trained, objective.text_levels)
    wanted = objective.needs & {"reference", "attacked_reference"}
    if not wanted:
        return trained, text, None
    return trained, text, ReferenceModel(model, text.states, captions="original_captions" in objective.needs)


def levels_of(
    objective: Objective, forest: Forest | None, template: str
) -> tuple[list[tuple[Tensor, Tensor]], tuple[str, ...]]:
    """What an evaluation asks at each level of the first tree, also under objectives that use no tree.

    Args:
        objective: after its ``setup``.

    Returns:
        For each level, leaves first, its nodes' rows among the prompts and the node (K,) of each leaf; and
        the prompts: the objective's own where it has the tree's nodes among them.
    """
    nodes = objective.nodes
    if forest is not None and not nodes.rows:
        nodes = TextNodes.of_forest(nodes.names[: objective.num_classes], Forest((forest.trees[0],)))
    prompts = tuple(nodes.fill(template))
    if not nodes.rows:
        leaves = torch.arange(objective.num_classes)
        return [(leaves, leaves)], prompts
    tree = forest.trees[0]
    return [(rows, tree.ancestors(level)) for level, rows in enumerate(nodes.rows[0])], prompts


def evaluator_for(
    views: BatchViews,
    objective: Objective,
    attack: TrainingAttack | None,
    forest: Forest | None,
    tokenizer: PreTrainedTokenizerBase,
    args: RobustTrainingArguments,
) -> RobustEvaluator:
    """The evaluation beside a training: PGD in its threat model, at every level of the first tree.

    As in every evaluation, on the cross-entropy and then on the margin of what still stands.
    """
    attacks = ()
    if attack is not None:
        attacks = build_attacks("pgd", **asdict(args.threat), num_steps=args.robust_eval_steps)
    levels, prompts = levels_of(objective, forest, args.template)
    model, text = views.model, views.text
    return RobustEvaluator(
        model,
        views.pipeline,
        text if prompts == text.prompts else TextSide(model, tokenizer, prompts, text.trains_trunk),
        levels,
        attacks,
        search=torch.bfloat16 if args.bf16 else None,
        seed=args.seed,  # batches carry their number over all processes
        tree=None if forest is None or len(levels) == 1 else forest.trees[0],
    )


def choose_metric(
    args: RobustTrainingArguments, names: Sequence[str], evaluation: Dataset | dict | None
) -> None:
    """Settle ``metric_for_best_model`` among what the evaluation reports.

    Args:
        names: of the metrics of one set, the most important of each kind first.
        evaluation: a dict of several sets puts their names in front; the first set chooses by default.

    Raises:
        ValueError: a metric that no evaluation reports; it lists those that are.
    """
    wanted = args.metric_for_best_model
    if wanted is None or evaluation is None:
        return
    sets = [f"{name}_" for name in evaluation] if isinstance(evaluation, dict) else [""]
    known = [f"{one}{name}" for one in sets for name in names]
    if wanted == BEST_METRIC and wanted not in known:
        wanted = next((name for name in known if name.endswith(BEST_METRIC)), known[0])
    if wanted.removeprefix("eval_") not in known:
        raise ValueError(
            f"metric_for_best_model={wanted!r} is not reported: choose one of {', '.join(known)}"
        )
    args.metric_for_best_model = wanted


def compiled(function: Callable, args: RobustTrainingArguments) -> Callable:
    """The function under ``torch.compile`` as the arguments ask for it, or itself."""
    if not args.torch_compile:
        return function
    return torch.compile(function, backend=args.torch_compile_backend, mode=args.torch_compile_mode)
