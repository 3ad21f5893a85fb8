"""Trainer's hooks for files: what is saved, loaded and pushed beside the stock weights."""

from __future__ import annotations

from pathlib import Path

from transformers import Trainer
from transformers.utils.hub import PushInProgress

from ..modeling.side_files import load_side_files, without_side_keys
from .starting import Start, place_in_stream, saving
from .uploads import push_progress, push_result, unfinished, wants_push


class CheckpointHooks(Trainer):
    """A `Trainer` whose checkpoints carry head, prompt and adapter, and are sealed once they are whole.

    Attributes:
        start: how the training began; set before its first checkpoint.
    """

    start: Start | None = None

    def _init_training_state(self, max_steps, updates_a_pass, passes, checkpoint, trial) -> tuple[int, int]:
        """As of `Trainer`, which takes a stream for endless: of one it says how often it has begun again."""
        found = super()._init_training_state(max_steps, updates_a_pass, passes, checkpoint, trial)
        if checkpoint is None or hasattr(self.train_dataset, "__len__"):
            return found
        epoch, batch = place_in_stream(checkpoint)
        return epoch, 0 if self.args.ignore_data_skip else batch

    def _run_epoch(self, *args, epoch: int, **kwargs) -> None:
        self._drawn.set_epoch(epoch)  # accelerate may tell the sampler alone
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_side_files(model or self.model, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        load_side_files(self.model, self.state.best_model_checkpoint)

    def _issue_warnings_after_load(self, load_result) -> None:
        super()._issue_warnings_after_load(without_side_keys(load_result, self.model))

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        super()._save(output_dir, state_dict)
        # A pickle that no reader needs, and that would carry a token to the Hub.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)

    def _save_checkpoint(self, model, trial) -> None:
        with saving(self.args, self.start.state, self.state, self.accelerator.wait_for_everyone):
            super()._save_checkpoint(model, trial)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or not wants_push(self.args, self.push_in_progress):
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.create_model_card()
        card, step = self.model.card_text, self.state.global_step
        jobs = push_progress(self.args, self.hub_model_id, checkpoint_folder, card, step)
        self.push_in_progress = PushInProgress([*unfinished(self.push_in_progress), *jobs])

    def push_to_hub(
        self,
        commit_message: str = "Robust CLIP",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        **card,
    ):
        """Upload checkpoint, head, card (with the options ``card``) and results; see `hub.push_folder`.

        Args:
            blocking: False uploads in the background and returns the future.
            token, revision, private: by default those of the arguments.
            create_pr: open a pull request, as one must in repositories of others.
        """
        self.save_model(_internal_call=True)
        self.create_model_card(**card)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        hub = {"token": token, "revision": revision, "private": private, "create_pr": create_pr}
        return push_result(self.args, commit_message, blocking, **hub)
