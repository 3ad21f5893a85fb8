"""Trainer's hooks for files: what is saved, loaded and pushed beside the stock weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import Trainer

from ..adapters.lora import adapter_layers
from ..modeling.side_files import expected_files, is_side_key, load_side_files
from .starting import Start, saving


class CheckpointHooks(Trainer):
    """A `Trainer` whose checkpoints carry head, prompt and adapter, and are sealed once they are whole.

    Attributes:
        start: how the training began; set before its first checkpoint.
    """

    start: Start | None = None

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

    def _save_checkpoint(self, model, trial) -> None:
        with saving(self.args, self.start.state, self.state, self.accelerator.wait_for_everyone):
            super()._save_checkpoint(model, trial)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # Trainer copies only the files it knows; the others would be missing from intermediate pushes.
        if self.is_world_process_zero():
            for name in expected_files(self.model.facts()):
                target = Path(self.args.output_dir, name)
                target.parent.mkdir(exist_ok=True)
                shutil.copy(Path(checkpoint_folder, name), target)
        super()._push_from_checkpoint(checkpoint_folder)
