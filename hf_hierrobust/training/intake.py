"""From what a user hands to the trainer, in any of its forms, to what the trainer works with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch
from transformers import (
    BaseImageProcessor,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    pipeline,
)

from ..attacks import TEXT_ATTACKS, TRAINING_ATTACKS, TextAttack, TrainingAttack
from ..data import ClassSet, available_class_sets, class_set_of, load_class_set
from ..hierarchy import Forest, TreeSpec, load_forest
from ..modeling import RobustDualEncoder, TextEncoder, load_processor
from ..objectives import OBJECTIVES, Objective
from .arguments import RobustTrainingArguments


def processor_for(processing_class, model: RobustDualEncoder) -> ProcessorMixin:
    """The processor that was given, itself or by its folder or Hub id, or the one of the model's checkpoint.

    Raises:
        TypeError: half a processor: a tokenizer or an image processor alone.
        ValueError: none was given and the model does not say where it comes from.
    """
    whole = "give the whole processor, AutoProcessor.from_pretrained(...)"
    if processing_class is None:
        if not model.name_or_path:
            raise ValueError(f"processing_class is missing and the model has no name_or_path: {whole}")
        processing_class = model.name_or_path
    if isinstance(processing_class, (str, os.PathLike)):
        processing_class = load_processor(processing_class)
    lacks = {
        "an image processor": isinstance(processing_class, PreTrainedTokenizerBase),
        "a tokenizer": isinstance(processing_class, BaseImageProcessor),
    }
    for part, missing in lacks.items():
        if missing or (part == "a tokenizer" and not hasattr(processing_class, "tokenizer")):
            raise TypeError(
                f"processing_class is a {type(processing_class).__name__}, which lacks {part}: {whole}"
            )
    return processing_class


def class_set_for(
    class_set: ClassSet | str | Sequence[str] | None, tree: str | None, train, evaluation
) -> ClassSet:
    """The classes of the labels: as given, by a built-in name or file, or as the data name them.

    Args:
        tree: of a built-in class set, which is then taken: its names are made for prompts.

    Raises:
        UnnamedLabelsError: no class set, and the labels have no names.
        ValueError: neither class set nor data.
    """
    if isinstance(class_set, str):
        return load_class_set(class_set)
    if class_set is not None:
        return class_set if isinstance(class_set, ClassSet) else ClassSet.from_names(class_set)
    if isinstance(tree, str) and tree in available_class_sets():
        return load_class_set(tree)
    if isinstance(evaluation, dict) and not hasattr(evaluation, "column_names"):
        evaluation = next(iter(evaluation.values()), None)
    named = {"train_dataset": train, "eval_dataset": evaluation}
    for name, data in named.items():
        if data is not None and getattr(data, "labelled", True):
            return class_set_of(data, name=name)
    raise ValueError("class_set is missing, and there is no labelled data set to read the class names off")


def forest_for(
    tree: TreeSpec | None,
    args: RobustTrainingArguments,
    class_set: ClassSet,
    model: RobustDualEncoder,
    tokenizer: PreTrainedTokenizerBase,
) -> Forest | None:
    """The trees that ``tree`` or ``args.tree`` names, over the classes; None where neither does.

    A `Forest` beside ``args.tree`` is taken for what that was resolved to.

    Raises:
        ValueError: two names, paths or mappings are given.
        TreeError: see `load_forest`.
    """
    if tree is not None and args.tree is not None and not isinstance(tree, Forest):
        raise ValueError(f"tree is given to the trainer and as args.tree={args.tree!r}: give it once")
    tree = args.tree if tree is None else tree
    if tree is None:
        return None

    return model_forest(tree, class_set, model, tokenizer, args.template)


def model_forest(
    tree: TreeSpec,
    class_set: ClassSet,
    model: RobustDualEncoder,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
) -> Forest:
    """The trees of a spec over the classes; those built from text embeddings take the model's own."""

    def embed(names: Sequence[str]) -> torch.Tensor:
        encoder = TextEncoder(model, tokenizer)
        return encoder(encoder.fit([template.replace("{}", name) for name in names]))

    def language_model(name: str) -> Callable:
        return pipeline("text-generation", model=name)

    return load_forest(
        tree, class_set.class_names, wnids=class_set.wnids, embed=embed, language_model=language_model
    )


def objective_for(
    objective: Objective | None, args: RobustTrainingArguments, class_set: ClassSet, forest: Forest | None
) -> Objective:
    """The instance that was given, or the one that the arguments name, bound to classes and trees.

    Raises:
        ValueError: an instance without a name, or arguments that would have no effect beside it.
    """
    if objective is None:
        objective = args.build_objective()
    else:
        OBJECTIVES.check(objective)
        args.refuse_beside("objective", "objective", "objective_args")
    objective.setup(class_set.class_names, forest)
    return objective


def attack_for(
    attack: TrainingAttack | None, args: RobustTrainingArguments, objective: Objective, *images
) -> TrainingAttack | None:
    """The training attack that was given or that arguments and objective name; None trains on clean images.

    An instance brings its own threat model; evaluations during training follow it. Otherwise the sizes of the
    ``images``, the training's and the evaluation's, settle the threat space where it is ``auto``.

    Raises:
        TypeError: an attack that evaluates.
        ValueError: an instance without a name, or arguments that would have no effect beside it.
    """
    if attack is None:
        args.settle_space(*images)
        return args.build_attack(objective)
    if not isinstance(attack, TrainingAttack):
        raise TypeError(
            f"attack is a {type(attack).__name__}: training takes a TrainingAttack, such as TrainingPGD; the "
            "attacks that evaluate judge a finished classifier"
        )
    TRAINING_ATTACKS.check(attack)
    args.refuse_beside("attack", "attack", "attack_args", "num_steps", "step_size")
    if args.changed("norm", "eps", "threat_space") and args.threat != attack.threat:
        raise ValueError(
            f"attack has the threat model {attack.threat} in space {attack.threat.space!r}, the arguments "
            f"{args.threat} in {args.threat.space!r}: leave norm, eps and threat_space to one of them"
        )
    args.threat, args.threat_space = attack.threat, attack.threat.space
    return attack


def text_attack_for(
    text_attack: TextAttack | None, args: RobustTrainingArguments, objective: Objective
) -> TextAttack | None:
    """The attack on captions, loaded; None where the objective trains on no attacked captions.

    Raises:
        ValueError: one is given or named but not used, or an instance without a name.
    """
    if "attacked_captions" not in objective.needs:
        if text_attack is not None or args.text_attack is not None or args.text_attack_args:
            raise ValueError(
                f"text_attack: {objective.name!r} trains on no attacked captions under its options; "
                "leave it out, or train mmcoa or hier_mmcoa"
            )
        return None
    if text_attack is None:
        text_attack = args.build_text_attack(objective.default_text_attack)
    else:
        TEXT_ATTACKS.check(text_attack)
        args.refuse_beside("text_attack", "text_attack", "text_attack_args")
    text_attack.prepare()
    return text_attack
