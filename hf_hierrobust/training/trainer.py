"""A `transformers.Trainer` that attacks each batch and trains on what the attack found.

Two rules keep the gradients right under DDP, accumulation and mixed precision: the attack runs on the
unwrapped, frozen model and differentiates with respect to its perturbation only; the training graph is
built only through ``model(...)``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from transformers import ProcessorMixin, logging

from ..attacks import Attack, NanError, Perturbation, TextAttack, check_pixels
from ..classifiers import frozen
from ..data import ClassSet, PixelCollator
from ..hierarchy import Forest, as_forest
from ..modeling import PixelPipeline, RobustDualEncoder, TextEncoder
from ..modeling.kernels import fast_kernels
from ..objectives import Objective, Targets
from .arguments import RobustTrainingArguments
from .callbacks import InvariantsCallback
from .checkpoints import NonFiniteLossError, last_good_checkpoint, prepare_output_dir, remove_earlier_run
from .forward import Batch, BatchForward
from .preparation import check_labelled, prepare, prepare_images
from .robust_evaluation import EvaluatingTrainer

if TYPE_CHECKING:
    from peft import PeftConfig

logger = logging.get_logger(__name__)

_CAPTIONS = frozenset({"captions", "attacked_captions"})


class RobustCLIPTrainer(EvaluatingTrainer):
    """Adversarial fine-tuning of a CLIP or SigLIP model under any registered objective and attack.

    Args:
        model: the model to train; which of its parameters train follows from the objective.
        args: see `RobustTrainingArguments`.
        processor: the checkpoint's processor; it is saved with every checkpoint.
        class_set: classes of the training labels.
        forest: class trees, for objectives that need them.
        train_dataset, eval_dataset: what `as_images` takes, labels found in ``class_set`` by name; training
            images without labels if the objective uses none; ``eval_dataset`` may be a dict of several.
            ``args.robust_eval_samples`` images of an evaluation set are attacked at each evaluation,
            stratified by class.
        objective, attack, text_attack: instances, in place of the names in ``args``.
        peft_config: trains adapters in place of the towers' weights; ``args.lora_r`` is the short form.

    Logged beside the loss: every named term of the objective. Evaluation reports clean and robust
    accuracy per level (``eval_leaf_clean_accuracy``, ``eval_level1_robust_accuracy``, …) by cosine to the
    level's prompts.
    """

    # Trainer would otherwise assume a loss already divided by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: RobustDualEncoder,
        args: RobustTrainingArguments,
        *,
        processor: ProcessorMixin,
        class_set: ClassSet,
        forest: Forest | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        objective: Objective | None = None,
        attack: Attack | None = None,
        text_attack: TextAttack | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs,
    ):
        self.objective = objective if objective is not None else args.build_objective()
        self.objective.setup(class_set.class_names, forest)
        train_dataset, eval_dataset = prepare_images(
            class_set, train_dataset, eval_dataset, args.robust_eval_samples
        )
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
        self.pipeline = PixelPipeline(processor.image_processor, args.threat_space)
        self.class_set, self.forest = class_set, None if forest is None else as_forest(forest)
        self.base_model = model.name_or_path or "an unnamed checkpoint"
        model.config.hier_robust = model.facts() | self.recipe(args)
        if isinstance(train_dataset, IterableDataset) and self.objective.needs & _CAPTIONS:
            # accelerate would read on one process and send tensors to the others: captions are none.
            if args.accelerator_config.dispatch_batches:
                raise ValueError("dispatch_batches=True cannot send captions between processes: leave it out")
            args.accelerator_config.dispatch_batches = False
        super().__init__(
            model,
            args,
            data_collator=PixelCollator(processor.image_processor, args.threat_space),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processor,
            compute_metrics=kwargs.pop("compute_metrics", self._metrics),
            **kwargs,
        )
        self.model_accepts_loss_kwargs = False
        self.text_encoder = None
        if self.objective.needs & _CAPTIONS:
            if args.train_batch_size * args.world_size == 1:
                raise ValueError(
                    f"per_device_train_batch_size=1: {self.objective.name!r} contrasts the pairs of a batch, "
                    "and one has no other; take at least 2 (accumulation adds no negatives)"
                )
            self.text_encoder = TextEncoder(self._core(), processor.tokenizer)
        self.forward = BatchForward(
            self.objective, self.pipeline, text, reference, self.accelerator.autocast, self._encode
        )
        self.add_callback(InvariantsCallback(reference))
        self._terms: dict[str, list[Tensor]] = defaultdict(list)
        self._micro_step = (-1, 0)
        counts = ", ".join(f"{group} {count:,}" for group, count in self.trained.items())
        total = sum(self.trained.values())
        logger.warning(f"{self.objective.name}: training {counts} parameters ({total:,} in all)")

    def recipe(self, args: RobustTrainingArguments) -> dict:
        """What ``config.hier_robust`` and the card say about this training."""
        facts = {
            "objective": self.objective.name,
            "objective_args": self.objective.options(),
            "attack": None if self.attack is None else self.attack.describe_training(),
            **({} if self.text_attack is None else {"text_attack": self.text_attack.describe()}),
            "template": args.template,
        }
        if self.forest is not None:
            facts["trees"] = [{"name": t.name, "hash": t.hash, "sizes": list(t.sizes)} for t in self.forest]
        return facts

    # ---- training ----

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As `Trainer.train`; the hyperbolic head is calibrated on clean training images before.

        ``resume_from_checkpoint=True`` goes on from the last good checkpoint, or starts where there is none.

        Raises:
            OutputDirError: ``output_dir`` holds another run and ``overwrite_output_dir`` is off.
            ValueError: no training images.
        """
        if self.train_dataset is None or (
            hasattr(self.train_dataset, "__len__") and len(self.train_dataset) == 0
        ):
            raise ValueError("train_dataset is empty: there is nothing to train on")
        checkpoint = prepare_output_dir(
            self.args.output_dir, resume=resume_from_checkpoint, overwrite=self.args.overwrite_output_dir
        )
        self.accelerator.wait_for_everyone()  # every process has looked before one of them deletes
        if checkpoint is None and self.is_world_process_zero():
            remove_earlier_run(self.args.output_dir)
        with fast_kernels(self.model, torch.bfloat16 if self.args.bf16 else None):
            self._calibrate()
            return super().train(checkpoint, *args, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Attack the batch, forward all perturbations once, sum the objective's terms.

        Raises:
            NonFiniteLossError: a term is NaN or infinite; nothing was stepped with it.
        """
        batch = self._batch(inputs)
        try:
            targets = self.forward.targets(batch)
            perturbations = self.perturb(batch, targets)
        except NanError as error:  # diverged weights show in the attack's gradient first
            raise self._non_finite(str(error)) from error
        views, targets, outputs = self.forward.training_views(
            model, self._core(), batch, perturbations, targets
        )
        terms = self.objective.loss(views, targets)
        loss = sum(terms.values())
        if not torch.isfinite(loss):
            raise self._non_finite(", ".join(f"{n}={float(v.detach()):g}" for n, v in terms.items()))
        for name, value in terms.items():
            self._terms[name].append(value.detach())
        return (loss, outputs) if return_outputs else loss

    def perturb(self, batch: Batch, targets: Targets) -> list[Perturbation]:
        """Training perturbations of a batch, (B, 3, H, W) in [0, 1], against the current weights.

        Raises:
            ValueError: in the first step, no pixel of the batch moved: nothing adversarial would be trained.
        """
        check_pixels(batch.pixels)
        if self.attack is None:
            return [Perturbation(batch.pixels)]
        core = self._core()
        with frozen(core):
            view = self.forward.attack_view(core, batch)

            def loss_fn(pixels: Tensor, text_delta: Tensor | None = None, levels=None) -> Tensor:
                loss = self.objective.inner_loss(view(pixels, text_delta, levels), targets)
                # An objective that does not read the tangents gives the text perturbation gradient zero.
                return loss if text_delta is None else loss.sum() + 0 * text_delta.sum()

            shape = (len(self.forward.text.prompts), core.embedding_dim)
            found = self.attack.perturb(
                loss_fn, batch.pixels, shape, self.objective.num_levels, self._generator()
            )
        if self.state.global_step == 0 and all(torch.equal(p.pixels, batch.pixels) for p in found):
            raise ValueError(
                "the attack moved no pixel in the first step: its inner loss has no gradient at the start. "
                "One that is least at the clean image needs a random_start other than 'zero'"
            )
        return found

    def _batch(self, inputs: dict) -> Batch:
        """Pixels, labels and, where the objective needs them, captions: the data's or the class prompts."""
        pixels, labels, needs = inputs["pixels"], inputs["labels"], self.objective.needs
        if not needs & _CAPTIONS:
            return Batch(pixels, labels)
        captions, attacked = inputs.get("captions"), None
        if captions is None:
            if labels.min() < 0:
                raise ValueError("images with neither caption nor label: there is no text to train on")
            captions = [self.forward.text.prompts[label] for label in labels.tolist()]
        else:
            captions = self.text_encoder.fit(captions)
        if "attacked_captions" in needs:
            # Outside model(...) nothing is autocast unless one asks for it.
            with frozen(self._core()), self.accelerator.autocast():
                found = self.text_attack(captions, self.text_encoder, generator=self._generator())
            attacked = tuple(found.texts)
        return Batch(pixels, labels, tuple(captions), attacked)

    def _encode(self, core: RobustDualEncoder, pixel_values: Tensor) -> Tensor:
        if not self.args.torch_compile:
            return core.encode_image(pixel_values)
        if not hasattr(self, "_compiled_encode"):
            self._compiled_encode = torch.compile(core.encode_image)
        return self._compiled_encode(pixel_values)

    def _generator(self) -> torch.Generator:
        """Random starts of this batch: a function of seed, rank, step and micro-step only.

        So a resumed run draws what the uninterrupted one would have, ranks differ, and neither
        evaluation nor the global generator is touched.
        """
        step, micro = self._micro_step
        self._micro_step = (self.state.global_step, micro + 1 if step == self.state.global_step else 0)
        key = (self.args.seed, self.args.process_index, *self._micro_step)
        seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little") >> 1
        return torch.Generator(self.args.device).manual_seed(seed)

    def _calibrate(self) -> None:
        """Set the head's constants from clean images, the same ones on every rank."""
        data, count = self.train_dataset, self.args.calibration_samples
        if hasattr(data, "__len__"):
            # Spread over the whole set: image folders come sorted by class.
            rows = torch.linspace(0, len(data) - 1, min(count, len(data))).long()
            examples = [data[row] for row in rows.tolist()]
        else:
            examples = list(islice(iter(data), count))
        batch = self.data_collator(examples)
        pixels, labels = batch["pixels"].to(self.args.device), batch["labels"].to(self.args.device)
        check_pixels(pixels)
        self.model.to(self.args.device)
        batch, clean = Batch(pixels, labels), [Perturbation(pixels)]
        if self.objective.needs & _CAPTIONS:
            prompts = tuple(self.forward.text.prompts[label] for label in labels.tolist())
            batch = batch._replace(captions=prompts, attacked_captions=prompts)
        with frozen(self.model), torch.no_grad():
            views, *_ = self.forward.training_views(self.model, self.model, batch, clean, Targets(labels))
            self.objective.calibrate(views[0], labels)

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
