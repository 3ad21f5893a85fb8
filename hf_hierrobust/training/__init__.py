"""The robust Trainer and its arguments."""

from .argument_checks import NothingTrainedError
from .arguments import RobustTrainingArguments
from .checkpoints import (
    NonFiniteLossError,
    OutputDirError,
    ResumeError,
    last_good_checkpoint,
    prepare_output_dir,
)
from .leftovers import remove_earlier_run
from .trainer import RobustCLIPTrainer

__all__ = [
    "NonFiniteLossError",
    "NothingTrainedError",
    "OutputDirError",
    "ResumeError",
    "RobustCLIPTrainer",
    "RobustTrainingArguments",
    "last_good_checkpoint",
    "prepare_output_dir",
    "remove_earlier_run",
]
