"""What one run holds once everything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import Dataset
from transformers import ProcessorMixin

from ..data import ClassSet
from ..evaluation import EvaluationSet
from ..hierarchy import Forest
from ..modeling import RobustDualEncoder
from ..naming import public_name
from ..training import RobustTrainingArguments
from .arguments import RunArguments


@dataclass
class Run:
    """Everything loaded and checked, before anything expensive."""

    args: RunArguments
    training_args: RobustTrainingArguments
    model: RobustDualEncoder
    processor: ProcessorMixin
    class_set: ClassSet
    forest: Forest | None
    train_dataset: Dataset
    eval_sets: list[EvaluationSet]

    @property
    def public_name(self) -> str:
        """What records, cards and figures call the model."""
        return public_name(self.training_args.hub_model_id or self.training_args.output_dir)

    @property
    def output_dir(self) -> Path:
        return Path(self.training_args.output_dir)
