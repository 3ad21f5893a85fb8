"""Robust evaluation during training: clean and attacked accuracy of each level's zero-shot classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers.trainer_utils import EvalPrediction

from ..attacks import Attack, misclassified
from ..classifiers import ZeroShotClassifier, merge_twins
from ..modeling import PixelPipeline, RobustDualEncoder
from ..naming import level_name
from .text_side import TextSide


class RobustEvaluator:
    """Attacks each level's classifier by cosine to its prompts.

    `refresh` takes the text states of the current weights; between two of them nothing may train.

    Args:
        model, pipeline, text: of the training.
        levels: for each level the rows of its nodes among the text states, and the node (K,) of each leaf.
        attack: None measures clean accuracy only.
        search: autocast type of the attack's gradients; verdicts are always fp32. None is fp32.
        seed: of the attack's random starts; every pass over the data draws the same.
    """

    def __init__(
        self,
        model: RobustDualEncoder,
        pipeline: PixelPipeline,
        text: TextSide,
        levels: Sequence[tuple[Tensor, Tensor]],
        attack: Attack | None,
        search: torch.dtype | None = None,
        seed: int = 0,
    ):
        self.model, self.pipeline, self.text, self.levels = model, pipeline, text, levels
        self.attack, self.search, self.seed = attack, search, seed
        self._classifiers: list[tuple[Callable[[Tensor], Tensor], Tensor]] = []

    @property
    def metric_names(self) -> list[str]:
        """``leaf_clean_accuracy``, ``leaf_robust_accuracy``, ``superclass_clean_accuracy``, …"""
        kinds = ("clean",) if self.attack is None else ("clean", "robust")
        levels = [level_name(level).replace(" ", "_") for level in range(len(self.levels))]
        return [f"{level}_{kind}_accuracy" for level in levels for kind in kinds]

    def refresh(self) -> None:
        """Classifiers of the current weights, random starts from the beginning."""
        self._generator = torch.Generator(self.model.device).manual_seed(self.seed)
        states = self.text.current_states(self.model)
        self._classifiers = []
        for rows, to_node in self.levels:
            prompts = [self.text.prompts[row] for row in rows.tolist()]
            classifier = ZeroShotClassifier(self.model, self.pipeline, states[rows], prompts=prompts)
            self._classifiers.append(merge_twins(classifier, prompts, to_node.to(self.model.device)))

    def flags(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """(B, len(metric_names)) in {0, 1}: right when clean and when attacked, level by level.

        Args:
            pixels: (B, 3, H, W) in [0, 1].
            labels: (B,) class indices.
        """
        flags = []
        for classifier, to_node in self._classifiers:
            if self.attack is None:
                with torch.no_grad():
                    flags.append(~misclassified(classifier(pixels), to_node[labels]))
                continue
            search = classifier.with_autocast(self.search) if self.search else None
            result = self.attack(
                classifier, pixels, to_node[labels], search=search, generator=self._generator
            )
            flags += [result.clean_correct, result.robust_correct]
        return torch.stack(flags, dim=1).float()

    def metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """The mean of every flag."""
        return dict(zip(self.metric_names, prediction.predictions.mean(0).tolist()))
