"""CLIP with a hyperbolic head that saves itself as a stock CLIP checkpoint."""

from __future__ import annotations

from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from .dual_encoder import RobustDualEncoder


class RobustCLIPModel(RobustDualEncoder, CLIPModel):
    """`transformers.CLIPModel` for robust training, see `RobustDualEncoder`."""

    stock_class = CLIPModel
    projections = {"text_projection": "text_projection", "visual_projection": "visual_projection"}

    def __init__(self, config: CLIPConfig):
        # CLIPVisionModelWithProjection builds its projection by the tower's own copy of the width.
        for tower in (config.text_config, config.vision_config):
            tower.projection_dim = config.projection_dim
        super().__init__(config)

    @property
    def embedding_dim(self) -> int:
        return self.config.projection_dim

    def pool_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States (N, w) at the end token."""
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output

    def _project_patches(self, hidden: Tensor) -> Tensor:
        # As in TGA-ZSR (2410.21802). CLIP's tower normalises its class token only: `hidden` is as the last
        # block left it.
        patches = hidden[:, 1:] if self.visual_prompt is None else self.visual_prompt.split(hidden)
        return self.visual_projection(self.vision_model.post_layernorm(patches))
