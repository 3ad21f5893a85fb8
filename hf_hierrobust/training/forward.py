"""From a batch to what an objective sees: the text side, one forward over all images, the frozen original."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..adapters.lora import adapters_off
from ..attacks import Perturbation
from ..modeling import PixelPipeline, ReferenceModel, RobustDualEncoder, encode_prompts, text_inputs
from ..objectives import Objective, Reference, Targets, View


class Batch(NamedTuple):
    """One batch before any forward.

    Attributes:
        pixels, labels: (B, 3, H, W) in [0, 1] and (B,) class indices.
        captions, attacked_captions: B texts each that fit the text encoder, for objectives that need them.
    """

    pixels: Tensor
    labels: Tensor
    captions: tuple[str, ...] | None = None
    attacked_captions: tuple[str, ...] | None = None


class TextSide:
    """The text half of every forward: cached states of a frozen trunk, tokens of one that trains.

    Args:
        model, tokenizer: as loaded, before training.
        prompts: of the objective's text nodes; classes first.
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
    ):
        self.tokenizer, self.prompts, self.trains_trunk = tokenizer, tuple(prompts), trains_trunk
        with adapters_off(model):  # adapters need not start as the identity
            self.states = encode_prompts(model, tokenizer, self.prompts)
        self._row = {prompt: row for row, prompt in enumerate(self.prompts)}

    def current_states(self, core: RobustDualEncoder) -> Tensor:
        """(N, w) pooled states of the prompts under the current weights."""
        return encode_prompts(core, self.tokenizer, self.prompts) if self.trains_trunk else self.states

    def inputs(self, core: RobustDualEncoder, texts: Sequence[str]) -> dict[str, Tensor]:
        """Arguments of the model's forward for these texts."""
        if self.trains_trunk:
            return text_inputs(core, self.tokenizer, texts)
        return {"text_states": self._frozen_states(core, texts)}

    @torch.no_grad()
    def features(self, core: RobustDualEncoder, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, D) of texts under the current weights, as constants."""
        if self.trains_trunk:
            return core.project_text(encode_prompts(core, self.tokenizer, texts, distinct=False))
        return core.project_text(self._frozen_states(core, texts))

    def _frozen_states(self, core: RobustDualEncoder, texts: Sequence[str]) -> Tensor:
        if texts is self.prompts:
            return self.states
        new = [text for text in dict.fromkeys(texts) if text not in self._row]
        row, states = self._row, self.states
        if new:
            row = row | {text: len(states) + place for place, text in enumerate(new)}
            states = torch.cat([states, encode_prompts(core, self.tokenizer, new, distinct=False)])
        return states[[row[text] for text in texts]]


@dataclass
class BatchForward:
    """Builds the views of a batch.

    Args:
        objective: its ``needs`` decide what is forwarded.
        pipeline: pixels in [0, 1] to the model's input.
        text: the text side.
        reference: the frozen original, where the objective needs it.
        autocast: context of forwards outside the wrapped model.
        encode: ``core.encode_image`` or its compiled form, called as (core, pixel_values).
    """

    objective: Objective
    pipeline: PixelPipeline
    text: TextSide
    reference: ReferenceModel | None
    autocast: Callable[[], AbstractContextManager]
    encode: Callable[[RobustDualEncoder, Tensor], Tensor]

    def targets(self, batch: Batch) -> Targets:
        """Labels and, where asked for, the original model's view of the clean images."""
        wanted = "reference" in self.objective.needs
        return Targets(batch.labels, reference=self._original(batch.pixels) if wanted else None)

    def attack_view(self, core: RobustDualEncoder, batch: Batch) -> Callable[..., View]:
        """The function from pixels, text perturbation and levels to a view, for the attack's inner loop.

        Text enters as a constant of the step: no tokenizer and no text tower runs in the loop.
        """
        with torch.no_grad():
            text_features = self.text.features(core, self.text.prompts)
            text_tangent = core.hier_head.text_tangent(text_features)
            captions = keys = None
            if "captions" in self.objective.attack_needs:
                captions = self.text.features(core, batch.captions)
                keys = _keys(batch.captions, captions.device)
        patches = "patches" in self.objective.attack_needs

        def view(pixels: Tensor, text_delta: Tensor | None = None, levels=None) -> View:
            pixel_values, tokens = self.pipeline(pixels), None
            with self.autocast():
                if patches:
                    features, tokens = core.encode_patches(pixel_values)
                else:
                    features = self.encode(core, pixel_values)
            features = features.float()
            return View(
                image_features=features,
                text_features=text_features,
                image_tangent=core.hier_head.image_tangent(features),
                text_tangent=text_tangent,
                logit_scale=core.logit_multiplier,
                head=core.hier_head,
                text_delta=text_delta,
                levels=levels,
                patch_features=None if tokens is None else tokens.float(),
                caption_features=captions,
                caption_keys=keys,
                logit_bias=core.logit_offset,
            )

        return view

    def training_views(
        self,
        model: nn.Module,
        core: RobustDualEncoder,
        batch: Batch,
        perturbations: Sequence[Perturbation],
        targets: Targets,
    ) -> tuple[list[View], Targets, object]:
        """One forward through the wrapped model over all perturbations, and the clean images if needed.

        Returns:
            A view for each perturbation; the targets, completed by the clean view and by the original's
            view of the attacked images where needed; the model's output.
        """
        needs = self.objective.needs
        images = [p.pixels for p in perturbations] + ([batch.pixels] if "clean" in needs else [])
        texts, row = self._texts(batch)
        out = model(
            pixel_values=self.pipeline(torch.cat(images)),
            patches="patches" in needs,
            **self.text.inputs(core, texts),
        )
        text_features = out.text_features.float()

        def of(captions: Sequence[str] | None) -> Tensor | None:
            return None if captions is None else text_features[[row[text] for text in captions]]

        nodes = len(self.text.prompts) if self._encodes_nodes else 0
        common = {
            "text_features": text_features[:nodes],
            "text_tangent": out.text_tangent.float()[:nodes],
            "logit_scale": out.logit_scale,
            "logit_bias": out.logit_bias,
            "head": core.hier_head,
            "caption_features": of(batch.captions),
            "attacked_caption_features": of(batch.attacked_captions),
            "caption_keys": _keys(batch.captions, out.image_features.device),
            "attacked_caption_keys": _keys(batch.attacked_captions, out.image_features.device),
        }
        chunks = len(images)
        parts = zip(
            out.image_features.float().chunk(chunks),
            out.image_tangent.float().chunk(chunks),
            [None] * chunks if out.patch_features is None else out.patch_features.float().chunk(chunks),
        )
        views = [
            View(image_features=features, image_tangent=tangent, patch_features=tokens, **common)
            for features, tangent, tokens in parts
        ]
        if "clean" in needs:
            targets = targets._replace(clean=views.pop())
        if "attacked_reference" in needs:
            original = tuple(self._original(p.pixels) for p in perturbations)
            targets = targets._replace(attacked_reference=original)
        views = [v._replace(text_delta=p.text_delta, levels=p.levels) for v, p in zip(views, perturbations)]
        return views, targets, out

    @property
    def _encodes_nodes(self) -> bool:
        """Frozen states cost one small product; a trained tower encodes the nodes only on demand."""
        return not self.text.trains_trunk or "text_nodes" in self.objective.needs

    def _texts(self, batch: Batch) -> tuple[tuple[str, ...], dict[str, int]]:
        """Texts of the training forward, nodes first, then each further caption once; and their rows."""
        nodes = self.text.prompts if self._encodes_nodes else ()
        texts, row = list(nodes), {text: place for place, text in enumerate(nodes)}
        for text in (*(batch.captions or ()), *(batch.attacked_captions or ())):
            if text not in row:
                row[text] = len(texts)
                texts.append(text)
        return (nodes if len(texts) == len(nodes) else tuple(texts)), row

    def _original(self, pixels: Tensor) -> Reference:
        with self.autocast():
            features, tokens = self.reference(
                self.pipeline(pixels), patches="patches" in self.objective.needs
            )
        return Reference(
            features.float(),
            self.reference.text_features,
            self.reference.logit_scale,
            None if tokens is None else tokens.float(),
        )


def _keys(texts: Sequence[str] | None, device: torch.device) -> Tensor | None:
    """(B,) int64, a hash of each text that is the same in every process."""
    if texts is None:
        return None
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], device=device)
