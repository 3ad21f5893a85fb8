"""SigLIP with a hyperbolic head that saves itself as a stock SigLIP checkpoint."""

from __future__ import annotations

from torch import Tensor
from transformers import SiglipModel

from .dual_encoder import RobustDualEncoder


class RobustSiglipModel(RobustDualEncoder, SiglipModel):
    """`transformers.SiglipModel` (2303.15343) for robust training, see `RobustDualEncoder`.

    The text projection is the text tower's ``head`` on the state of the last token, padding included; the
    image embedding is pooled by attention in the vision tower's ``head``. Logits are
    ``exp(logit_scale) cos + logit_bias``, made for a sigmoid of each pair. A softmax over class prompts does
    not feel the bias, so that zero-shot objectives and attacks mean what they mean for CLIP.

    SigLIP 2 checkpoints of a fixed resolution are of this type too; those of variable resolution
    (``model_type: siglip2``) are not supported.
    """

    stock_class = SiglipModel
    projections = {"text_projection": "text_model.head", "visual_projection": "vision_model.head"}

    @property
    def embedding_dim(self) -> int:
        return self.config.text_config.projection_size

    def pool_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States (N, w) at the last position."""
        out = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        return out.last_hidden_state[:, -1]

    def _project_patches(self, hidden: Tensor) -> Tensor:
        """Each token pooled alone: attention then has one thing to see, its value (MaskCLIP, 2112.01071).

        What the head's MLP gets for the whole image is, attention head by attention head, a weighted mean of
        what it gets for these tokens.
        """
        patches = hidden if self.visual_prompt is None else self.visual_prompt.split(hidden)
        batch, count, width = patches.shape
        return self.vision_model.head(patches.reshape(batch * count, 1, width)).view(batch, count, -1)
