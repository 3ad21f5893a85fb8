"""A `transformers.Trainer` that attacks each batch and trains on what the attack found."""

from __future__ import annotations

import shutil
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset
from transformers import ProcessorMixin, Trainer, TrainerState, logging
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ..adapters.lora import adapter_layers
from ..attacks import PGD, Attack, NanError, TextAttack
from ..data import ClassSet, PixelCollator, representative_rows
from ..hierarchy import Forest, as_forest
from ..hub import push_folder, write_card
from ..modeling import PixelPipeline, RobustDualEncoder, TextEncoder
from ..modeling.kernels import fast_kernels
from ..modeling.side_files import expected_files, is_side_key, load_side_files
from ..objectives import Objective
from .arguments import RobustTrainingArguments
from .batch import BatchReader
from .callbacks import InvariantsCallback
from .card import TrainingFacts, card_facts
from .checkpoints import NonFiniteLossError, last_good_checkpoint
from .evaluator import RobustEvaluator
from .preparation import CAPTIONS, check_labelled, common_label_map, levels_of, prepare
from .random_starts import StepGenerators
from .settings import training_settings
from .starting import Start, begin, check_can_train, must_move, saving
from .step import RobustStep
from .views import BatchViews

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.get_logger(__name__)


class RobustCLIPTrainer(Trainer):
    """Adversarial fine-tuning of a CLIP or SigLIP model under any registered objective and attack.

    Args:
        model: the model to train; which of its parameters train follows from the objective.
        args: see `RobustTrainingArguments`.
        processor: the checkpoint's processor; it is saved with every checkpoint.
        class_set: classes of the training labels.
        forest: class trees, for objectives that need them.
        train_dataset, eval_dataset: items ``{"image", "label"}``, e.g. `PixelDataset`, the training images
            without labels if the objective uses none;
            ``args.robust_eval_samples`` of the evaluation set are attacked at each evaluation: the first,
            or seeded random ones where the first cover less than half the classes.
        objective, attack, text_attack: instances, in place of the names in ``args``.
        peft_config: trains adapters in place of the towers' weights; ``args.lora_r`` is the short form.
        label_map: (C,) class index of each dataset label; by default found by name (`ClassSet.label_map`).

    Logged beside the loss: every named term of the objective. Evaluation reports clean and robust
    accuracy per level (``eval_leaf_clean_accuracy``, ``eval_superclass_robust_accuracy``, …) by cosine to
    the level's prompts.

    Attributes:
        reader: `BatchReader`, from the collator's output to a batch.
        step: `RobustStep`, from a batch to named terms.
        evaluator: `RobustEvaluator`.
        trained: number of trained parameters by group.
    """

    start: Start | None = None
    _begun = False

    # Trainer would otherwise assume a loss already divided by the accumulation steps.
    loss_is_scaled_for_ga = False
    _described: dict | None = None

    def __init__(
        self,
        model: RobustDualEncoder,
        args: RobustTrainingArguments,
        *,
        processor: ProcessorMixin,
        class_set: ClassSet,
        forest: Forest | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | None = None,
        objective: Objective | None = None,
        attack: Attack | None = None,
        text_attack: TextAttack | None = None,
        peft_config: PeftConfig | None = None,
        label_map: Tensor | None = None,
        **kwargs,
    ):
        self.objective = objective if objective is not None else args.build_objective()
        self.objective.setup(class_set.class_names, forest)
        check_labelled(self.objective, train_dataset, eval_dataset)
        self.attack = attack if attack is not None else args.build_attack(self.objective)
        self.text_attack = None
        if "attacked_captions" in self.objective.needs:
            default = self.objective.default_text_attack
            self.text_attack = text_attack or args.build_text_attack(default)
            self.text_attack.prepare()
        elif args.text_attack is not None or args.text_attack_args:
            raise ValueError(
                f"text_attack: {self.objective.name!r} trains on no attacked captions under its options; "
                "leave it out, or train mmcoa or hier_mmcoa"
            )
        self.trained, text, reference = prepare(model, processor.tokenizer, self.objective, args, peft_config)
        pipeline = PixelPipeline(processor.image_processor)
        self.class_set, self.forest = class_set, None if forest is None else as_forest(forest)
        self.base_model = model.name_or_path or "an unnamed checkpoint"
        if label_map is None:
            label_map = common_label_map(class_set, train_dataset, eval_dataset)
        self.args = args
        model.config.hier_robust = model.facts() | self.recipe()
        if isinstance(eval_dataset, Dataset) and len(eval_dataset) > args.robust_eval_samples:
            labels = getattr(eval_dataset, "labels", range(len(eval_dataset)))
            rows, _ = representative_rows(labels, args.robust_eval_samples)
            eval_dataset = Subset(eval_dataset, rows)
        if isinstance(train_dataset, IterableDataset) and self.objective.needs & CAPTIONS:
            # accelerate would read on one process and send tensors to the others: captions are none.
            if args.accelerator_config.dispatch_batches:
                raise ValueError("dispatch_batches=True cannot send captions between processes: leave it out")
            args.accelerator_config.dispatch_batches = False
        super().__init__(
            model,
            args,
            data_collator=PixelCollator(processor.image_processor, args.threat_space, label_map),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processor,
            compute_metrics=kwargs.pop("compute_metrics", self._metrics),
            **kwargs,
        )
        self.model_accepts_loss_kwargs = False
        encoder = None
        if self.objective.needs & CAPTIONS:
            if args.train_batch_size * args.world_size == 1:
                raise ValueError(
                    f"per_device_train_batch_size=1: {self.objective.name!r} contrasts the pairs of a batch, "
                    "and one has no other; take at least 2 (accumulation adds no negatives)"
                )
            encoder = TextEncoder(model, processor.tokenizer)
        self.reader = BatchReader(text.prompts, encoder, self.text_attack, self.accelerator.autocast)
        encode = torch.compile(model.encode_image) if args.torch_compile else model.encode_image
        views = BatchViews(
            model, self.objective, pipeline, text, reference, self.accelerator.autocast, encode
        )
        self.step = RobustStep(self.objective, self.attack, views)
        self.evaluator = RobustEvaluator(
            model,
            pipeline,
            text,
            levels_of(self.objective),
            None if self.attack is None else PGD(threat=args.threat, num_steps=args.robust_eval_steps),
            search=torch.bfloat16 if args.bf16 else None,
            seed=args.seed + args.process_index,
        )
        self._starts = StepGenerators(args.seed, args.process_index, args.device)
        self.add_callback(self._starts)
        self.add_callback(InvariantsCallback(reference))
        self._terms: dict[str, list[Tensor]] = defaultdict(list)
        counts = ", ".join(f"{group} {count:,}" for group, count in self.trained.items())
        total = sum(self.trained.values())
        logger.warning(f"{self.objective.name}: training {counts} parameters ({total:,} in all)")

    def recipe(self) -> dict:
        """What ``config.hier_robust`` and the card say about this training."""
        facts = {
            "objective": self.objective.name,
            "objective_args": self.objective.options(),
            "attack": None if self.attack is None else self.attack.describe_training(),
            **({} if self.text_attack is None else {"text_attack": self.text_attack.describe()}),
            "template": self.args.template,
        }
        if self.forest is not None:
            facts["trees"] = [{"name": t.name, "hash": t.hash, "sizes": list(t.sizes)} for t in self.forest]
        return facts

    def facts(self) -> TrainingFacts:
        """What this training is, as far as it has come."""
        data, uses_tree = self.train_dataset, "tree" in self.objective.needs
        return TrainingFacts(
            base_model=self.base_model,
            objective=self.objective,
            recipe=self.recipe(),
            threat=None if self.attack is None else self.attack.threat,
            trained=self.trained,
            trees=tuple(self.forest) if uses_tree and self.forest is not None else (),
            images=len(data) if hasattr(data, "__len__") else "stream",
            # Not the argument's: auto_find_batch_size may have found a smaller one.
            batch_size=self.get_total_train_batch_size(self.args),
            precision={"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision),
            steps=self.state.global_step,
            epochs=self.state.epoch or 0.0,
            changes=() if self.start is None else self.start.state.changes,
        )

    # ---- training ----

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As `Trainer.train`; the hyperbolic head is calibrated on clean training images before.

        ``resume_from_checkpoint=True`` goes on from the last good checkpoint, or starts where there is none.

        A finished training is not gone on with: its end is loaded.

        Raises:
            NothingTrainedError: no step was made, or none moved a weight.
            Errors of `begin`.
        """
        if not self._begun:
            self.begin(resume_from_checkpoint)
        self._begun = False
        if self.start.is_finished(self.args.max_steps):
            return self._restore(self.start.checkpoint)
        with fast_kernels(self.model, torch.bfloat16 if self.args.bf16 else None):
            self.calibrate()
            with must_move(self.model, self.start.checkpoint):
                return super().train(self.start.checkpoint, *args, **kwargs)

    def begin(self, resume_from_checkpoint=None) -> Start:
        """Check that a training can run, decide where it starts, and write that to ``run.json``.

        `train` does so where the caller has not; a run calls it before it measures its base.

        Raises:
            Errors of `check_can_train` and `starting.begin`.
        """
        data, model = self.train_dataset, self.model
        check_can_train(self.args, model, data)
        facts = self.recipe(), self.class_set.class_names, data, self.trained, model
        settings = training_settings(self.args, *facts)
        wait = self.accelerator.wait_for_everyone
        self.start, self._begun = begin(self.args, settings, resume_from_checkpoint, wait), True
        if self.start.state.changes:
            self.model.config.hier_robust["changes"] = self.start.state.changes
        return self.start

    def _restore(self, folder: str) -> TrainOutput:
        """Weights, head, adapter and history of a finished training, from its folder."""
        logger.warning(f"{folder} is the end of a finished training: nothing is trained again")
        self._load_from_checkpoint(folder)
        self.state = TrainerState.load_from_json(str(Path(folder, TRAINER_STATE_NAME)))
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best and folder != self.args.output_dir:
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    def _save_checkpoint(self, model, trial) -> None:
        with saving(self.args, self.start.state, self.state, self.accelerator.wait_for_everyone):
            super()._save_checkpoint(model, trial)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Attack the batch, forward all perturbations once, sum the objective's terms; see `RobustStep`.

        Raises:
            NonFiniteLossError: a term is NaN or infinite; nothing was stepped with it.
        """
        try:
            batch = self.reader.read(inputs, self._starts)
            terms, outputs = self.step.terms(model, batch, self._starts)
        except NanError as error:  # diverged weights show in the attack's gradient first
            raise self._non_finite(str(error)) from error
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            raise self._non_finite(", ".join(f"{n}={float(v.detach()):g}" for n, v in terms.items()))
        for name, value in terms.items():
            self._terms[name].append(value.detach())
        return (loss, outputs) if return_outputs else loss

    def calibrate(self) -> None:
        """Set the head's constants from clean images, the same ones on every rank."""
        data, count = self.train_dataset, self.args.calibration_samples
        if hasattr(data, "__len__"):
            # Spread over the whole set: image folders come sorted by class.
            rows = torch.linspace(0, len(data) - 1, min(count, len(data))).long()
            examples = [data[row] for row in rows.tolist()]
        else:
            examples = list(islice(iter(data), count))
        self.model.to(self.args.device)
        self.step.calibrate(self.reader.read_clean(self._prepare_inputs(self.data_collator(examples))))

    def _non_finite(self, what: str) -> NonFiniteLossError:
        checkpoint = last_good_checkpoint(self.args.output_dir)
        return NonFiniteLossError(
            f"loss is not finite at step {self.state.global_step}: {what}. Last good checkpoint: "
            f"{checkpoint or 'none was saved yet'}. Lower learning_rate or max_grad_norm and resume from it"
        )

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        """As `Trainer.log`, with the mean of every term, over steps and processes, since the last one."""
        if "loss" in logs and self._terms:
            means = torch.stack([torch.stack(values).mean().float() for values in self._terms.values()])
            means = self.accelerator.reduce(means, "mean")  # over processes, like the loss
            logs |= {name: round(value, 5) for name, value in zip(self._terms, means.tolist())}
            self._terms.clear()
        super().log(logs, *args, **kwargs)

    # ---- evaluation ----

    def evaluation_loop(self, *args, **kwargs):
        """As of `Trainer`, for `evaluate` and `predict`: what is measured are the current weights."""
        self.evaluator.refresh()
        # A new data loader draws from the global generator even if nothing is shuffled.
        with torch.random.fork_rng(devices=[]):
            return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Flags of `RobustEvaluator` in place of logits, and the labels; there is no loss."""
        inputs = self._prepare_inputs(inputs)
        return None, self.evaluator.flags(inputs["pixels"], inputs["labels"]), inputs["labels"]

    def _metrics(self, prediction):
        return self.evaluator.metrics(prediction)

    # ---- files: checkpoints carry head, prompt and adapter, uploads carry the card ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_side_files(model or self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        load_side_files(self.model, self.state.best_model_checkpoint)

    def _issue_warnings_after_load(self, load_result) -> None:
        # Side files and adapters are read after the stock weights, whose merged layers have no place in an
        # adapted model.
        adapted = tuple(f"{name}." for name in adapter_layers(self.model))
        for keys in (load_result.missing_keys, load_result.unexpected_keys):
            keys[:] = [key for key in keys if not (is_side_key(key) or key.startswith(adapted))]
        super()._issue_warnings_after_load(load_result)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        # A pickle that no reader needs, and that would carry a token to the Hub.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)

    def describe(self, records=(), figures=(), datasets=()) -> None:
        """Keep what was measured, so that every card written from now on states it; see `card_facts`."""
        self._described = {"records": records, "figures": figures, "datasets": datasets}

    def create_model_card(self, *args, **kwargs) -> None:
        """Write our card (README.md) to the output directory, in place of Trainer's own."""
        if self.is_world_process_zero():
            facts = card_facts(self.args, self.facts(), **(self._described or {}))
            path = write_card(self.args.output_dir, facts)
            self.model.card_text = path.read_text()

    def push_to_hub(self, commit_message: str = "End of training", token: str | None = None, **kwargs):
        """Upload the stock checkpoint, the head, the card and the results to ``args.hub_model_id``.

        Optimizer states, checkpoints and pickles stay here; see `hub.push_folder` for errors.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card()
        repo_id = self.args.hub_model_id or Path(self.args.output_dir).name
        private = kwargs.pop("private", self.args.hub_private_repo)
        return push_folder(
            self.args.output_dir, repo_id, private=private, token=token, commit_message=commit_message
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # Trainer copies only the files it knows; the others would be missing from intermediate pushes.
        if self.is_world_process_zero():
            for name in expected_files(self.model.facts()):
                target = Path(self.args.output_dir, name)
                target.parent.mkdir(exist_ok=True)
                shutil.copy(Path(checkpoint_folder, name), target)
        super()._push_from_checkpoint(checkpoint_folder)
