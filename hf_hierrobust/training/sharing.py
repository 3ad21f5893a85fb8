"""How robust runs are stored, resumed and shared: the part of the trainer that knows files."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import Trainer

from ..adapters.lora import adapter_layers
from ..hub import push_folder, write_card
from ..modeling.side_files import expected_files, is_side_key, load_side_files
from .card import card_facts


class SharingTrainer(Trainer):
    """A `Trainer` whose checkpoints carry head, prompt and adapter, and whose uploads carry the card."""

    _described: dict | None = None

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
            path = write_card(self.args.output_dir, card_facts(self, **(self._described or {})))
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
