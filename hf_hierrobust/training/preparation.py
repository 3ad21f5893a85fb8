"""From a loaded checkpoint to a model whose right parameters train, its text side and its frozen original."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..adapters.lora import add_lora, lora_config
from ..adapters.trainable import set_trainable
from ..adapters.visual_prompts import add_visual_prompt
from ..modeling import ReferenceModel, RobustDualEncoder
from ..objectives import Objective
from .arguments import RobustTrainingArguments
from .text_side import TextSide

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
    """
    if peft_config is not None and args.lora_r is not None:
        raise ValueError(f"peft_config and lora_r={args.lora_r} both describe adapters: give one of them")
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
    trained = set_trainable(model, groups)
    model.to(args.device)
    prompts = objective.nodes.fill(args.template)
    text = TextSide(model, tokenizer, prompts, trains_trunk="text" in trained)
    wanted = objective.needs & {"reference", "attacked_reference"}
    return trained, text, ReferenceModel(model, text.states) if wanted else None


def levels_of(objective: Objective) -> list[tuple[Tensor, Tensor]]:
    """For each level of the first tree its nodes' rows among the prompts, and the node (K,) of each leaf.

    Args:
        objective: after its ``setup``; one without trees has the leaf level only.
    """
    if not objective.nodes.rows:
        leaves = torch.arange(objective.num_classes)
        return [(leaves, leaves)]
    tree = objective.forest.trees[0]
    return [(rows, tree.ancestors(level)) for level, rows in enumerate(objective.nodes.rows[0])]
