"""How robust runs are stored, resumed and shared: the part of the trainer that knows files."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils.hub import PushInProgress

from ..adapters.lora import adapter_layers
from ..hub import push_checkpoint, push_folder, write_card
from ..modeling.side_files import is_side_key, load_side_files
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
        """Write our card into README.md of the output directory; what its owner wrote there stays."""
        if self.is_world_process_zero():
            path = write_card(self.args.output_dir, card_facts(self, **(self._described or {})))
            self.model.card_text = path.read_text(encoding="utf-8")

    def push_to_hub(self, commit_message: str = "End of training", token: str | None = None, **kwargs):
        """Upload the stock checkpoint, the head, the card and the results to ``args.hub_model_id``.

        Optimizer states, checkpoints and pickles stay here; see `hub.push_folder` for errors.
        """
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card()
        self._finish_current_push()
        return push_folder(
            self.args.output_dir,
            self.args.hub_model_id or Path(self.args.output_dir).absolute().name,
            private=kwargs.pop("private", self.args.hub_private_repo),
            revision=kwargs.pop("revision", self.args.hub_revision),
            token=token or self.args.hub_token,
            commit_message=commit_message,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # Trainer would upload the output directory with whatever lies in it, and pickles with the checkpoint.
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        target = {
            "repo_id": self.hub_model_id,
            "checkpoint": checkpoint_folder,
            "revision": self.args.hub_revision,
            "commit_message": f"Training in progress, step {self.state.global_step}",
        }
        api = HfApi(token=self.args.hub_token, library_name="hf_hierrobust")
        self.create_model_card()
        jobs = [push_checkpoint(api, card=self.model.card_text, **target)]
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = self.args.hub_strategy == HubStrategy.CHECKPOINT
            folder = "last-checkpoint" if last else Path(checkpoint_folder).name
            jobs.append(push_checkpoint(api, path_in_repo=folder, **target))
        if busy:
            self.push_in_progress.jobs.extend(jobs)
        else:
            self.push_in_progress = PushInProgress(jobs)
