"""Robust evaluation during training: the part of the trainer that measures."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor
from transformers.trainer_utils import EvalPrediction

from ..attacks import PGD, misclassified
from ..classifiers import ZeroShotClassifier
from ..modeling import RobustDualEncoder
from .preparation import check_labelled, prepare_images
from .sharing import SharingTrainer


class EvaluatingTrainer(SharingTrainer):
    """A `Trainer` whose evaluation attacks each level's zero-shot classifier, by cosine to its prompts.

    It reads ``objective``, ``attack`` (None measures clean accuracy only), ``forward``, ``pipeline`` and
    ``class_set`` of the subclass.
    """

    def _core(self) -> RobustDualEncoder:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def evaluate(self, eval_dataset=None, *args, **kwargs):
        """Clean and robust accuracy per level on ``robust_eval_samples`` images.

        Args:
            eval_dataset: another set than the trainer's own, or a dict of sets: whatever `as_images` takes.
        """
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            _, eval_dataset = prepare_images(
                self.class_set, None, eval_dataset, self.args.robust_eval_samples
            )
            check_labelled(self.objective, None, eval_dataset)
        self._eval_generator = torch.Generator(self.args.device).manual_seed(
            self.args.seed + self.args.process_index
        )
        core = self._core()
        states = self.forward.text.current_states(core)
        self._level_classifiers = [
            (ZeroShotClassifier(core, self.pipeline, states[rows]), ancestors.to(self.args.device))
            for rows, ancestors in self._levels()
        ]
        # A new data loader draws from the global generator even if nothing is shuffled.
        with torch.random.fork_rng(devices=[]):
            return super().evaluate(eval_dataset, *args, **kwargs)

    def _levels(self) -> list[tuple[Tensor, Tensor]]:
        """Rows of the text states and leaf-to-node map of each level of the first tree."""
        leaves = torch.arange(len(self.class_set))
        if not self.objective.nodes.rows:
            return [(leaves, leaves)]
        tree = self.objective.forest.trees[0]
        return [(rows, tree.ancestors(level)) for level, rows in enumerate(self.objective.nodes.rows[0])]

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Flags (B, 2 levels): correct when clean and when attacked, level by level."""
        inputs = self._prepare_inputs(inputs)
        pixels, labels = inputs["pixels"], inputs["labels"]
        attack = PGD(**asdict(self.args.threat), num_steps=self.args.robust_eval_steps)
        flags = []
        for classifier, ancestors in self._level_classifiers:
            if self.attack is None:
                with torch.no_grad():
                    flags.append(~misclassified(classifier(pixels), ancestors[labels]))
                continue
            search = classifier.with_autocast(torch.bfloat16) if self.args.bf16 else None
            result = attack(
                classifier, pixels, ancestors[labels], search=search, generator=self._eval_generator
            )
            flags += [result.clean_correct, result.robust_correct]
        return None, torch.stack(flags, dim=1).float(), labels

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        kinds = ("clean",) if self.attack is None else ("clean", "robust")
        names = [
            f"{'leaf' if level == 0 else f'level{level}'}_{kind}_accuracy"
            for level in range(len(self._level_classifiers))
            for kind in kinds
        ]
        return {name: float(column.mean()) for name, column in zip(names, prediction.predictions.T)}
