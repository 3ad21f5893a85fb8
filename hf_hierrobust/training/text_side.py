"""The text half of a training step: cached states of a frozen tower, tokens of one that trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..adapters.lora import adapters_off
from ..modeling import RobustDualEncoder, encode_prompts, text_inputs


class TextSide:
    """The text half of every forward: cached states of a frozen trunk, tokens of one that trains.

    Args:
        model, tokenizer: as loaded, before training.
        prompts: of the objective's text nodes; classes first.
        levels: (N,) level of each in a class tree; None takes all for leaves, as further texts always are.
        trains_trunk: whether the text tower's own weights will change.

    Attributes:
        states: (N, w) pooled states of the prompts by the original model.
    """

    def __init__(
        self,
        model: RobustDualEncoder,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str],
        trains_trunk: bool = False,
        levels: Tensor | None = None,
    ):
        self.tokenizer, self.prompts, self.trains_trunk = tokenizer, tuple(prompts), trains_trunk
        self.levels = levels if levels is None else levels.to(model.device)
        with adapters_off(model):  # adapters need not start as the identity
            self.states = encode_prompts(model, tokenizer, self.prompts)
        self._row = {prompt: row for row, prompt in enumerate(self.prompts)}

    def current_states(self, core: RobustDualEncoder) -> Tensor:
        """(N, w) pooled states of the prompts under the current weights."""
        return encode_prompts(core, self.tokenizer, self.prompts) if self.trains_trunk else self.states

    def inputs(
        self, core: RobustDualEncoder, texts: Sequence[str], deltas: Sequence[Tensor] = ()
    ) -> dict[str, Tensor]:
        """Arguments of the model's forward for these texts.

        Args:
            deltas: perturbations (N, w) or (1, w) of the prompts' pooled states, which are appended,
                perturbed, once for each; of a frozen trunk only.
        """
        if self.trains_trunk:
            found = text_inputs(core, self.tokenizer, texts)
        else:
            states = self._frozen_states(core, texts)
            found = {"text_states": torch.cat([states, *(self.states + delta for delta in deltas)])}
        if self.levels is not None and texts[: len(self.prompts)] == self.prompts:
            further = self.levels.new_zeros(len(texts) - len(self.prompts))
            found["text_levels"] = torch.cat([self.levels, further, *[self.levels] * len(deltas)])
        return found

    @torch.no_grad()
    def features(self, core: RobustDualEncoder, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of texts under the current weights, as constants."""
        if self.trains_trunk:
            return core.project_text(encode_prompts(core, self.tokenizer, texts, distinct=False))
        return core.project_text(self._frozen_states(core, texts))

    def original_states(self, core: RobustDualEncoder, texts: Sequence[str]) -> Tensor | None:
        """(N, w) pooled states of texts by the original trunk; None where the trunk trains."""
        return None if self.trains_trunk else self._frozen_states(core, texts)

    def _frozen_states(self, core: RobustDualEncoder, texts: Sequence[str]) -> Tensor:
        if texts is self.prompts:
            return self.states
        new = [text for text in dict.fromkeys(texts) if text not in self._row]
        row, states = self._row, self.states
        if new:
            row = row | {text: len(states) + place for place, text in enumerate(new)}
            states = torch.cat([states, encode_prompts(core, self.tokenizer, new, distinct=False)])
        return states[[row[text] for text in texts]]
