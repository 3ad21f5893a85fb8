"""A `transformers.Trainer` that attacks each batch and trains on what the attack found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import PreTrainedModel, ProcessorMixin, enable_full_determinism, set_seed
from transformers.trainer_utils import TrainOutput

from ..attacks import NanError, TextAttack, TrainingAttack
from ..data import ClassSet, ImageStream, ImageView, PixelCollator
from ..hierarchy import TreeSpec
from ..hub import CardFacts, render_card, write_card
from ..modeling import PixelPipeline, TextEncoder, as_robust_model
from ..modeling.kernels import fast_kernels
from ..objectives import Objective
from . import images, intake, without_effect
from .arguments import RobustTrainingArguments
from .batch import BatchReader
from .callbacks import InvariantsCallback
from .card import TrainingFacts, card_facts, recipe, usual_options, with_card_options
from .checkpoints import non_finite_loss
from .hooks import CheckpointHooks
from .item_draws import drawn
from .launch import announce
from .optimizer import ScaleRates
from .preparation import choose_metric, compiled, evaluator_for, prepare
from .random_starts import StepGenerators
from .refusals import refuse_trainer_arguments
from .settings import training_settings
from .starting import Start, begin, check_can_train, final_state, must_move
from .step import RobustStep
from .term_means import TermMeans
from .tracking import tracking_callbacks
from .views import BatchViews
from .wrapping import check_averaged, to_prepare

if TYPE_CHECKING:
    from peft import PeftConfig


class RobustCLIPTrainer(ScaleRates, CheckpointHooks):
    """Adversarial fine-tuning of a CLIP or SigLIP model under any registered objective and attack.

    Args:
        model: Hub id or folder, a stock `CLIPModel` or `SiglipModel`, a model of ours, or a `PeftModel`
            around one; which of its parameters train follows from the objective.
        args: see `RobustTrainingArguments`.
        train_dataset, eval_dataset: any data set of images (see `as_images`), labels found in ``class_set``
            by name; training images need labels only if the objective uses them. ``eval_dataset`` may be a
            dict of several; ``args.robust_eval_samples`` images of each, stratified by class, are attacked.
        processing_class: the processor, by default that of the model's checkpoint; saved with the model.
        class_set: a `ClassSet`, a built-in name, a file or names; by default the classes the data name.
        tree: class trees in place of ``args.tree``: name, path, mapping, `LabelTree`, `Forest` or a list.
        objective, attack, text_attack: instances, in place of the names in ``args``.
        peft_config: trains adapters in place of the towers' weights; ``args.lora_r`` is the short form.
        trainer_kwargs: further arguments of `Trainer`, such as ``callbacks`` and ``optimizers``.

    Logged beside the loss: every named term of the objective. Evaluation reports clean and robust accuracy
    per level (``eval_leaf_clean_accuracy``, ``eval_superclass_robust_accuracy``, …) by cosine to the
    level's prompts.

    Attributes:
        reader, step, evaluator: what a collated batch goes through, see there.
        trained: number of trained parameters by group.
    """

    # Trainer would otherwise assume a loss already divided by the accumulation steps.
    loss_is_scaled_for_ga = False
    _described: dict | None = None
    _begun = False

    def __init__(
        self,
        model: str | os.PathLike | PreTrainedModel,
        args: RobustTrainingArguments,
        *,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: ProcessorMixin | None = None,
        class_set: ClassSet | str | Sequence[str] | None = None,
        tree: TreeSpec | None = None,
        objective: Objective | None = None,
        attack: TrainingAttack | None = None,
        text_attack: TextAttack | None = None,
        peft_config: PeftConfig | None = None,
        **trainer_kwargs,
    ):
        refuse_trainer_arguments(trainer_kwargs, args)
        model = as_robust_model(model)
        processor = intake.processor_for(processing_class, model)
        tokenizer, self.args = processor.tokenizer, args
        self.class_set = intake.class_set_for(class_set, tree or args.tree, train_dataset, eval_dataset)
        self.forest = intake.forest_for(tree, args, self.class_set, model, tokenizer)
        self.objective = intake.objective_for(objective, args, self.class_set, self.forest)
        self.text_attack = intake.text_attack_for(text_attack, args, self.objective)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        self.attack = intake.attack_for(attack, args, self.objective, self.train_dataset, self.eval_dataset)
        facts = {"evaluated": self.eval_dataset is not None, "calibrated": model.hier_head.calibrated}
        without_effect.refuse_without_effect(args, self.objective, self.attack, **facts)
        images.check_training_images(args, self.objective, self.train_dataset)
        space = args.threat.space
        self.trained, text, reference = prepare(model, tokenizer, self.objective, args, peft_config)
        self.base_model = model.name_or_path or "an unnamed checkpoint"
        model.config.hier_robust = model.facts() | self.recipe()
        super().__init__(
            model,
            args,
            data_collator=PixelCollator(processor.image_processor, space),
            train_dataset=self.train_dataset,
            eval_dataset=self.eval_dataset,
            processing_class=processor,
            compute_metrics=trainer_kwargs.pop("compute_metrics", self._metrics),
            **trainer_kwargs,
        )
        self.model_accepts_loss_kwargs = False
        pipeline, autocast = PixelPipeline(processor.image_processor, space), self.accelerator.autocast
        encode = compiled(model.encode_image, args)
        encoder = TextEncoder(model, tokenizer) if self.objective.needs & images.CAPTIONS else None
        self.reader = BatchReader(text.prompts, encoder, self.text_attack, autocast)
        pooled = self.attack is not None and self.attack.text_perturbation == "pooled"
        views = BatchViews(model, self.objective, pipeline, text, reference, autocast, encode, pooled)
        self.step = RobustStep(self.objective, self.attack, views)
        self.evaluator = evaluator_for(views, self.objective, self.attack, self.forest, tokenizer, args)
        if self.compute_metrics == self._metrics:
            choose_metric(args, self.evaluator.metric_names, self.eval_dataset)
        self._starts = StepGenerators(args.seed, args.process_index, args.device)
        for callback in (self._starts, InvariantsCallback(reference), *tracking_callbacks(self)):
            self.add_callback(callback)
        self._terms = TermMeans()
        announce(self.objective, self.trained, args)

    # ---- data: whatever comes in becomes images of the class set ----

    @property
    def train_dataset(self) -> ImageView | ImageStream | None:
        return self._train_images

    @train_dataset.setter
    def train_dataset(self, data) -> None:
        self._train_images = images.training_images(data, self.class_set)

    @property
    def eval_dataset(self) -> ImageView | dict[str, ImageView] | None:
        return self._eval_images

    @eval_dataset.setter
    def eval_dataset(self, data) -> None:
        self.__dict__.pop("_eval_dataloaders", None)  # persistent workers hold the former images
        self._eval_images = images.evaluation_sets(
            data, self.class_set, self.args.robust_eval_samples, beside=self.train_dataset
        )

    def get_eval_dataloader(self, eval_dataset=None):
        """As of `Trainer`; another set than the trainer's own is read like it."""
        if eval_dataset is None or isinstance(eval_dataset, str):
            return super().get_eval_dataloader(eval_dataset)
        eval_dataset = self._images(eval_dataset, "eval_dataset", self.args.robust_eval_samples)
        kept = self.__dict__.pop("_eval_dataloaders", {})  # else persistent workers give their own images
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self._eval_dataloaders = kept

    def get_test_dataloader(self, test_dataset):
        """As of `Trainer`: all images."""
        return super().get_test_dataloader(self._images(test_dataset, "test_dataset"))

    def _get_dataloader(self, dataset, *args, **kwargs):
        if kwargs.get("is_training"):
            self._drawn = drawn(dataset, self.args.seed)
            return super()._get_dataloader(self._drawn, *args, **kwargs)
        with images.every_image(self.args):
            return super()._get_dataloader(dataset, *args, **kwargs)

    def _images(self, dataset, name: str, samples: int | None = None) -> ImageView:
        return images.evaluation_images(dataset, self.class_set, samples, name, beside=self.train_dataset)

    def recipe(self) -> dict:
        """What ``config.hier_robust`` and the card say about this training."""
        return recipe(self.objective, self.attack, self.text_attack, self.args.template, self.forest)

    def facts(self) -> TrainingFacts:
        """What this training is, as far as it has come."""
        data, uses_tree = self.train_dataset, "tree" in self.objective.needs
        return TrainingFacts(
            base_model=self.base_model,
            objective=self.objective,
            recipe=self.recipe(),
            threat=None if self.attack is None else self.attack.threat,
            trained=self.trained,
            parts={k: v for k, v in self.model.facts().items() if k in ("adapter", "visual_prompt")},
            trees=tuple(self.forest) if uses_tree and self.forest is not None else (),
            images=len(data) if hasattr(data, "__len__") else "stream",
            # Not the argument's: auto_find_batch_size may have found a smaller one.
            batch_size=self.get_total_train_batch_size(self.args),
            precision={"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision),
            steps=self.state.global_step,
            epochs=self.state.epoch or 0.0,
            changes=() if self.start is None else self.start.state.changes,
            usual=usual_options(self.objective, self.attack, self.text_attack),
        )

    # ---- training ----

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As `Trainer.train`; the hyperbolic head is calibrated on clean training images before.

        ``resume_from_checkpoint=True`` goes on from the last good checkpoint, or starts where there is none;
        of a finished training it loads the end. None takes the argument of that name.

        Raises:
            NothingTrainedError: no step was made, or none moved a weight.
            Errors of `begin`.
        """
        if not self._begun:
            self.begin(resume_from_checkpoint)
        self._begun = False
        if self.start.is_finished(self.args.max_steps):
            return self._restore(self.start.checkpoint)
        self.model_wrapped = to_prepare(self.model, self.model_wrapped)
        # Trainer seeds when it is made: what came between, and other trainers, must not show.
        (enable_full_determinism if self.args.full_determinism else set_seed)(self.args.seed)
        with fast_kernels(self.model, torch.bfloat16 if self.args.bf16 else None):
            self.calibrate()
            self.reader.warn_of_long(getattr(self.train_dataset, "captions", None))
            with must_move(self.model, self.start.checkpoint):
                return super().train(self.start.checkpoint, *args, **kwargs)

    def begin(self, resume_from_checkpoint=None) -> Start:
        """Check that a training can run, decide where it starts, and write that to ``run.json``.

        `train` does so where the caller has not; a run calls it before it measures its base.

        Raises:
            Errors of `check_can_train` and `starting.begin`.
        """
        if resume_from_checkpoint is None:
            resume_from_checkpoint = self.args.resume_from_checkpoint
        data, model = self.train_dataset, self.model
        check_can_train(self.args, model, data)
        facts = self.recipe(), self.class_set.class_names, data, self.trained, model
        settings = training_settings(self.args, *facts)
        self.start = begin(self.args, settings, resume_from_checkpoint, self.accelerator.wait_for_everyone)
        self._begun = True
        model.config.hier_robust |= {"changes": self.start.state.changes} if self.start.state.changes else {}
        return self.start

    def _restore(self, folder: str) -> TrainOutput:
        """Weights, head, adapter and history of a finished training, from its folder."""
        self._load_from_checkpoint(folder)
        self.state = final_state(folder)
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint and not self.start.is_run:
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Attack the batch, forward all perturbations once, sum the objective's terms; see `RobustStep`.

        Raises:
            NonFiniteLossError: a term is NaN or infinite; nothing was stepped with it.
            NotAveragedError: see `check_averaged`.
        """
        check_averaged(model, self.args.world_size)
        try:
            batch = self.reader.read(inputs, self._starts)
            terms, outputs = self.step.terms(model, batch, self._starts)
        except NanError as error:  # diverged weights show in the attack's gradient first
            raise non_finite_loss(self.args.output_dir, self.state.global_step, str(error)) from error
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            values = ", ".join(f"{name}={float(value.detach()):g}" for name, value in terms.items())
            raise non_finite_loss(self.args.output_dir, self.state.global_step, values)
        self._terms.add(terms)
        return (loss, outputs) if return_outputs else loss

    def calibrate(self) -> None:
        """Set the head's constants from clean images, the same ones on every rank."""
        examples = images.spread_examples(self.train_dataset, self.args.calibration_samples)
        self.model.to(self.args.device)
        self.step.calibrate(self.reader.read_clean(self._prepare_inputs(self.data_collator(examples))))

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """As `Trainer.log`, with the mean of every term, over steps and processes, since the last one."""
        if "loss" in logs:
            logs |= self._terms.take(lambda means: self.accelerator.reduce(means, "mean"))
        super().log(logs, *args, **kwargs)

    # ---- evaluation ----

    def evaluation_loop(self, dataloader, *args, **kwargs):
        """As of `Trainer`, for `evaluate` and `predict`: what is measured are the current weights."""
        self.evaluator.refresh(dataloader.dataset, self.args.eval_batch_size)
        # A new data loader draws from the global generator even if nothing is shuffled.
        with torch.random.fork_rng(devices=[]):
            return super().evaluation_loop(dataloader, *args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Flags of `RobustEvaluator` in place of logits, and the labels; there is no loss."""
        inputs = self._prepare_inputs(inputs)
        return None, self.evaluator.flags(inputs["pixels"], inputs["labels"]), inputs["labels"]

    def _metrics(self, prediction):
        return self.evaluator.metrics(prediction)

    # ---- the card, and uploads that carry it ----

    def describe(self, **facts) -> None:
        """Keep what cards written from now on state beside the training: fields of `CardFacts`.

        Raises:
            TypeError, ValueError: a fact that no card can state.
        """
        self._described = facts
        render_card(self.card())

    def card(self) -> CardFacts:
        """What a card written now would say."""
        facts = {"class_names": self.class_set.class_names, **(self._described or {})}
        return card_facts(self.args, self.facts(), **facts)

    def create_model_card(self, **options) -> None:
        """Write our card into README.md of the output directory; ``options`` as of `Trainer`."""
        facts = with_card_options(self.card(), options)
        if self.is_world_process_zero():
            self.model.card_text = write_card(self.args.output_dir, facts).read_text(encoding="utf-8")
