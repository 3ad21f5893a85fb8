"""From a loaded checkpoint to a model whose right parameters train, its text side and its frozen original."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.data import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from ..adapters.lora import add_lora, lora_config
from ..adapters.trainable import set_trainable
from ..adapters.visual_prompts import add_visual_prompt
from ..data import ClassSet, ImageStream, ImageView, as_images, check_numbering, stratified_rows
from ..modeling import ReferenceModel, RobustDualEncoder
from ..objectives import Objective
from .arguments import RobustTrainingArguments
from .forward import TextSide

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


def check_labelled(
    objective: Objective,
    train: ImageView | ImageStream | None,
    evaluation: ImageView | dict[str, ImageView] | None,
) -> None:
    """Refuse images without labels where the objective or the evaluation needs them.

    Raises:
        ValueError: see above; or captions are needed, and there are no labels to make class prompts of.
    """
    for view in evaluation.values() if isinstance(evaluation, dict) else (evaluation,):
        if view is not None and not view.labelled:
            raise ValueError(f"{view.source} has no labels to measure accuracy by")
    if train is None or train.labelled:
        return
    if objective.uses_labels:
        raise ValueError(
            f"objective {objective.name!r} needs class labels, which train_dataset lacks under its options: "
            "train fare, agft or advflyp, or give labelled images"
        )
    if "captions" in objective.needs and getattr(train, "captions", ()) is None:
        raise ValueError(
            f"objective {objective.name!r} needs captions, but train_dataset has neither captions nor labels "
            "to make class prompts of: give caption_column"
        )


def prepare_images(
    class_set: ClassSet,
    train: Dataset | IterableDataset | None,
    evaluation: Dataset | dict[str, Dataset] | None,
    eval_samples: int,
) -> tuple[ImageView | ImageStream | None, ImageView | dict[str, ImageView] | None]:
    """Training and evaluation data, or a dict of evaluation sets, in the classes of one class set.

    Args:
        eval_samples: images of each evaluation set, stratified by class.

    Raises:
        ValueError: labels that fit no class, or numbers without names beside names (see `as_images`).
    """
    if train is not None:
        train = as_images(train, class_set, labelled=None, name="train_dataset")
    if evaluation is None:
        return train, None
    several = isinstance(evaluation, dict) and not hasattr(evaluation, "column_names")
    sets = evaluation if several else {"": evaluation}
    views = {
        name: evaluation_images(data, class_set, eval_samples, f"eval_dataset{name and f'[{name!r}]'}")
        for name, data in sets.items()
    }
    check_numbering({"train_dataset": train} | {view.source: view for view in views.values()})
    return train, views if several else views[""]


def evaluation_images(
    dataset: Dataset, class_set: ClassSet, samples: int, name: str = "eval_dataset"
) -> ImageView:
    """An evaluation set in the classes of the class set: ``samples`` images, stratified by class.

    Raises:
        ValueError: labels that fit no class, no labels.
    """
    view = as_images(dataset, class_set, labelled=None, name=name)
    if not isinstance(view, ImageView):
        return view
    rows, how = stratified_rows(view.labels, samples)
    return view if how == "all rows" else view.select(rows)
