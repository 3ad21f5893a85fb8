"""The robust Trainer and its arguments."""

from .arguments import RobustTrainingArguments
from .checkpoints import (
    NonFiniteLossError,
    OutputDirError,
    last_good_checkpoint,
    prepare_output_dir,
    remove_earlier_run,
)
from .trainer import RobustCLIPTrainer

__all__ = [
    "NonFiniteLossError",
    "OutputDirError",
    "RobustCLIPTrainer",
    "RobustTrainingArguments",
    "last_good_checkpoint",
    "prepare_output_dir",
    "remove_earlier_run",
]
