"""From a batch to what an objective sees: one forward over all images, the frozen original beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import Perturbation
from ..modeling import PixelPipeline, ReferenceModel, RobustDualEncoder
from ..objectives import Objective, Reference, Targets, View
from .batch import Batch
from .text_side import TextSide

_OF_IMAGES = ("image_features", "image_tangent", "patch_features")


@dataclass
class BatchViews:
    """Builds the views of a batch.

    Args:
        model: the one that trains, unwrapped; attacks and the original's views call it.
        objective: its ``needs`` decide what is forwarded.
        pipeline: pixels in [0, 1] to the model's input.
        text: the text side.
        reference: the frozen original, where the objective needs it.
        autocast: context of forwards outside the wrapped model.
        encode: ``model.encode_image`` or its compiled form.
        pooled_deltas: the attack's text perturbation is one of the pooled states, not of the tangents.
    """

    model: RobustDualEncoder
    objective: Objective
    pipeline: PixelPipeline
    text: TextSide
    reference: ReferenceModel | None
    autocast: Callable[[], AbstractContextManager]
    encode: Callable[[Tensor], Tensor]
    pooled_deltas: bool = False

    @property
    def text_shape(self) -> tuple[int, int]:
        """(N, D) of the text nodes' tangents, or (N, w) of their pooled states, whichever is attacked."""
        width = self.text.states.shape[1] if self.pooled_deltas else self.model.embedding_dim
        return len(self.text.prompts), width

    def targets(self, batch: Batch) -> Targets:
        """Labels and, where asked for, the original model's view of the clean images."""
        wanted = "reference" in self.objective.needs
        return Targets(batch.labels, reference=self._original(batch.pixels) if wanted else None)

    def inner_loss(self, batch: Batch, targets: Targets) -> Callable[..., Tensor]:
        """What an attack maximises, as a function of pixels, text perturbation (N, D) and levels."""
        view = self.attack_view(batch)

        def loss(pixels: Tensor, text_delta: Tensor | None = None, levels=None) -> Tensor:
            found = self.objective.inner_loss(view(pixels, text_delta, levels), targets)
            # An objective that does not read the tangents gives the text perturbation gradient zero.
            return found if text_delta is None else found.sum() + 0 * text_delta.sum()

        return loss

    def attack_view(self, batch: Batch) -> Callable[..., View]:
        """The function from pixels, text perturbation and levels to a view, for the attack's inner loop.

        Text enters as a constant of the step: no tokenizer and no text tower runs in the loop.
        """
        core = self.model
        with torch.no_grad():
            text_features = self.text.features(core, self.text.prompts)
            text_tangent = core.hier_head.text_tangent(text_features, self.text.levels)
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
                    features = self.encode(pixel_values)
            features, tangent = features.float(), text_tangent
            if self.pooled_deltas and text_delta is not None:
                moved = core.project_text(self.text.states + text_delta)
                tangent, text_delta = core.hier_head.text_tangent(moved, self.text.levels), None
            return View(
                image_features=features,
                text_features=text_features,
                image_tangent=core.hier_head.image_tangent(features),
                text_tangent=tangent,
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

    def training(
        self,
        model: nn.Module,
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
        moved = [p.text_delta for p in perturbations if self.pooled_deltas and p.text_delta is not None]
        out = model(
            pixel_values=self.pipeline(torch.cat(images)),
            patches="patches" in needs,
            **self.text.inputs(self.model, texts, moved),
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
            "head": self.model.hier_head,
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
        views = [View(**dict(zip(_OF_IMAGES, part)), **common) for part in parts]
        if "clean" in needs:
            targets = targets._replace(clean=views.pop())
        if "attacked_reference" in needs:
            captions = self._original_captions(batch)
            attacked = tuple(self._original(p.pixels, captions) for p in perturbations)
            targets = targets._replace(attacked_reference=attacked)
        views = [v._replace(text_delta=p.text_delta, levels=p.levels) for v, p in zip(views, perturbations)]
        if moved:
            tangents = out.text_tangent.float()[len(texts) :].chunk(len(moved))
            views = [v._replace(text_delta=None, text_tangent=own) for v, own in zip(views, tangents)]
        return views, targets, out

    @property
    def _encodes_nodes(self) -> bool:
        """Frozen states cost one small product; a trained tower encodes the nodes only on demand."""
        return not self.text.trains_trunk or "text_nodes" in self.objective.needs

    def _texts(self, batch: Batch) -> tuple[tuple[str, ...], dict[str, int]]:
        """Texts of the training forward, nodes first, then each further caption once; and their rows."""
        nodes = self.text.prompts if self._encodes_nodes else ()
        row = {text: place for place, text in enumerate(nodes)}
        new = dict.fromkeys((*(batch.captions or ()), *(batch.attacked_captions or ())))
        new = tuple(text for text in new if text not in row)
        row |= {text: len(nodes) + place for place, text in enumerate(new)}
        return (nodes + new if new else nodes), row  # the nodes alone are known by identity

    def _original_captions(self, batch: Batch) -> Tensor | None:
        """Embeddings (B, D) of the captions by the original model, where asked for."""
        if "original_captions" not in self.objective.needs:
            return None
        states = self.text.original_states(self.model, batch.captions)
        with self.autocast():
            return self.reference.caption_features(self.text.tokenizer, batch.captions, states)

    def _original(self, pixels: Tensor, captions: Tensor | None = None) -> Reference:
        with self.autocast():
            features, tokens = self.reference(
                self.pipeline(pixels), patches="patches" in self.objective.needs
            )
        return Reference(
            features.float(),
            self.reference.text_features,
            self.reference.logit_scale,
            None if tokens is None else tokens.float(),
            captions,
        )


def _keys(captions: Sequence[str] | None, device: torch.device) -> Tensor | None:
    """(B,) int64, a hash of each text that is the same in every process."""
    if captions is None:
        return None
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in captions]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], device=device)
