"""Robust evaluation during training: clean and attacked accuracy of each level's zero-shot classifier."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.trainer_utils import EvalPrediction

from ..attacks import Attack
from ..classifiers import ZeroShotClassifier, merge_twins
from ..evaluation import Job, Shards, run_jobs
from ..evaluation.sets import check_choice
from ..hierarchy import LabelTree
from ..modeling import PixelPipeline, RobustDualEncoder
from ..naming import level_name
from .depth import DepthMetrics
from .text_side import TextSide


class RobustEvaluator:
    """Attacks each level's classifier by cosine to its prompts; measures depth where the head is calibrated.

    `refresh` takes the text states of the current weights; between two of them nothing may train. A tree's
    root has no accuracies.

    Args:
        model, pipeline, text: of the training.
        levels: for each level the rows of its nodes among the text states, and the node (K,) of each leaf.
        attacks: of which the worst case counts; none measures clean accuracy only.
        search: autocast type of the attacks' gradients; verdicts are always fp32. None is fp32.
        seed: of the attacks' random starts; every pass over the data draws the same.
        tree: whose levels these are, if it is one's.
    """

    def __init__(
        self,
        model: RobustDualEncoder,
        pipeline: PixelPipeline,
        text: TextSide,
        levels: Sequence[tuple[Tensor, Tensor]],
        attacks: Sequence[Attack],
        search: torch.dtype | None = None,
        seed: int = 0,
        tree: LabelTree | None = None,
    ):
        self.model, self.pipeline, self.text, self.levels = model, pipeline, text, levels
        self.attacks, self.search, self.seed = attacks, search, seed
        self._jobs: list[Job] = []
        self._numbers, self._sizes = count(), (None, None)
        self._depth = None if tree is None else DepthMetrics(model, pipeline, tree)
        # A root leaves nothing to choose: every image would be right there under any attack.
        self._measured = [n for n, (rows, _) in enumerate(levels) if n == 0 or len(rows) > 1]

    @property
    def metric_names(self) -> list[str]:
        """``leaf_clean_accuracy``, ``leaf_robust_accuracy``, ``superclass_clean_accuracy``, …: the flags'."""
        kinds = ("clean", "robust") if self.attacks else ("clean",)
        levels = [level_name(level).replace(" ", "_") for level in self._measured]
        return [f"{level}_{kind}_accuracy" for level in levels for kind in kinds]

    def refresh(self, dataset: Dataset | None = None, batch_size: int | None = None) -> None:
        """Classifiers of the current weights, random starts from the beginning.

        Args:
            dataset, batch_size: what `flags` will see, batch by batch, each process its share of whole ones;
                rows that fill up their last batches are then not attacked.

        Raises:
            ValueError: there is one class only.
        """
        check_choice("eval_dataset", 0, len(self.levels[0][0]))
        self._numbers = Shards.joined().numbers()
        self._sizes = (len(dataset) if hasattr(dataset, "__len__") else None, batch_size)
        states = self.text.current_states(self.model)
        self._jobs = [self._job(states, *self.levels[level]) for level in self._measured]
        if self._measures_depth:
            self._depth.refresh([states[rows] for rows, _ in self.levels])

    @property
    def _measures_depth(self) -> bool:
        return self._depth is not None and self.model.hier_head.calibrated

    def _job(self, states: Tensor, rows: Tensor, to_node: Tensor) -> Job:
        prompts = [self.text.prompts[row] for row in rows.tolist()]
        classifier = ZeroShotClassifier(self.model, self.pipeline, states[rows], prompts=prompts)
        classifier, to_node = merge_twins(classifier, prompts, to_node)
        search = classifier.with_autocast(self.search) if self.search else None
        return Job(classifier=classifier, attacks=self.attacks, to_class=to_node, search=search)

    def flags(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """(B, len(metric_names)) in {0, 1}: right when clean and when attacked, level by level.

        Where depth is measured a last column says how far beyond its leaf's text an image lies.

        Args:
            pixels: (B, 3, H, W) in [0, 1].
            labels: (B,) class indices.
        """
        number, (images, batch_size) = next(self._numbers), self._sizes
        real = len(pixels)
        if images is not None:  # what a single process sees in this batch: its random starts are the same
            real = max(0, min(real, images - number * batch_size))
        width = len(self.metric_names) + self._measures_depth
        columns = torch.zeros(len(pixels), width, device=pixels.device)
        if real == 0:
            return columns
        pixels, labels, flags = pixels[:real], labels[:real], []
        batch, seed = {"pixels": pixels, "labels": labels}, self.seed + 1_000_003 * number
        for outcome in run_jobs(self._jobs, [batch], device=pixels.device, seed=seed):
            flags += [outcome.clean, outcome.robust] if self.attacks else [outcome.clean]
        columns[:real, : len(flags)] = torch.stack(flags, dim=1).float().to(columns)
        if self._measures_depth:
            columns[:real, -1] = self._depth.beyond(pixels, labels)
        return columns

    def metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """The mean of every flag, and those of `DepthMetrics`."""
        columns = torch.as_tensor(prediction.predictions)
        found = dict(zip(self.metric_names, columns.mean(0).tolist()))
        return found | (self._depth.metrics(columns[:, -1]) if self._measures_depth else {})
