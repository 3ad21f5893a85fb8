"""CLIP with a hyperbolic head that saves itself as a stock CLIP checkpoint."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, CLIPConfig, CLIPModel
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.utils import cached_file

from .hier_head import HierHead

SIDE_FILE = "hier_head.safetensors"
CONFIG_KEY = "hier_robust"
_PREFIX = "hier_head."
_HUB_OPTIONS = ("revision", "token", "cache_dir", "subfolder", "local_files_only", "force_download")


class CorruptSideFileError(ValueError):
    """The hyperbolic head's file cannot be read; the stock part of the checkpoint is unaffected."""


@dataclass
class HierRobustOutput(CLIPOutput):
    """`CLIPOutput` plus what robust objectives need, from one forward.

    Attributes:
        image_features: (B, D) projected image embeddings, not normalised.
        text_features: (N, D) projected text embeddings, not normalised.
        image_tangent: (B, D) scaled embeddings before the exponential map, fp32.
        text_tangent: (N, D) likewise.
    """

    image_features: Tensor | None = None
    text_features: Tensor | None = None
    image_tangent: Tensor | None = None
    text_tangent: Tensor | None = None


class RobustCLIPModel(CLIPModel):
    """`transformers.CLIPModel` with a hyperbolic head, trained by `RobustCLIPTrainer`.

    ``save_pretrained`` writes a plain CLIP checkpoint (``architectures: ["CLIPModel"]``) that stock
    transformers loads with an empty load report, plus the head in ``hier_head.safetensors`` and
    facts under ``config.hier_robust``. ``from_pretrained`` reads both, from a folder or a Hub id,
    and accepts any stock CLIP checkpoint, whose head then starts untrained.
    """

    _keys_to_ignore_on_load_missing = [r"hier_head\..*"]

    def __init__(self, config: CLIPConfig):
        super().__init__(config)
        self.card_text: str | None = None
        facts = getattr(config, CONFIG_KEY, None) or {}
        self.hier_head = HierHead(
            config.projection_dim,
            curvature=facts.get("curvature", 1.0),
            ball_margin=facts.get("ball_margin", 1e-3),
            max_tangent_norm=facts.get("max_tangent_norm", 4.0),
        )

    def _init_weights(self, module):
        # from_pretrained builds on the meta device: without this the head would hold garbage memory.
        super()._init_weights(module)
        if isinstance(module, HierHead):
            module.reset()

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Projected, un-normalised image embeddings (B, D) of normalised pixels."""
        return self.get_image_features(pixel_values=pixel_values).pooler_output

    def project_text(self, text_states: Tensor) -> Tensor:
        """Pooled states of the frozen text trunk (N, w) or (N, T, w) to embeddings (N, D).

        With T templates the direction is the mean of the unit embeddings, as in CLIP's prompt
        ensembles, and the norm the mean norm.
        """
        features = self.text_projection(text_states)
        if features.ndim == 2:
            return features
        norms = features.norm(dim=-1, keepdim=True)
        direction = (features / norms).mean(1)
        return direction / direction.norm(dim=-1, keepdim=True) * norms.mean(1)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_states: Tensor | None = None,
        **kwargs,
    ) -> HierRobustOutput:
        """As `CLIPModel.forward`; ``text_states`` (N, w) stands in for ``input_ids``.

        Args:
            pixel_values: (B, 3, h, w), normalised.
            text_states: pooled states of the text trunk, cached by `zero_shot.encode_prompts`, so
                that no text tower runs in a training step.
        """
        if text_states is None:
            out = super().forward(
                input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask, **kwargs
            )
            image_features = out.vision_model_output.pooler_output
            text_features = out.text_model_output.pooler_output
            stock = dict(out.items())
        else:
            image_features = self.encode_image(pixel_values)
            # One small product: in bf16 its rounding alone would move distances by a tenth of a logit.
            with torch.autocast(text_states.device.type, enabled=False):
                text_features = self.project_text(text_states)
            stock = {
                "image_embeds": image_features / image_features.norm(dim=-1, keepdim=True),
                "text_embeds": text_features / text_features.norm(dim=-1, keepdim=True),
            }
            logits = self.logit_scale.exp() * stock["image_embeds"] @ stock["text_embeds"].T
            stock |= {"logits_per_image": logits, "logits_per_text": logits.T}
        return HierRobustOutput(
            **stock,
            image_features=image_features,
            text_features=text_features,
            image_tangent=self.hier_head.image_tangent(image_features),
            text_tangent=self.hier_head.text_tangent(text_features),
        )

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Write a stock CLIP checkpoint, the head's side file and ``config.hier_robust``."""
        state = kwargs.pop("state_dict", None) or self.state_dict()
        push, repo_id = kwargs.pop("push_to_hub", False), kwargs.pop("repo_id", None)
        hub = {k: kwargs.pop(k) for k in ("private", "commit_message", "create_pr") if k in kwargs}
        stock_state = {k: v for k, v in state.items() if not k.startswith(_PREFIX)}
        head_state = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
        self.config.hier_robust = self.facts()
        # A meta-device CLIPModel lends its class name and saving code; the tensors are ours.
        with torch.device("meta"):
            stock = CLIPModel(self.config).to(self.dtype)
        stock.save_pretrained(save_directory, state_dict=stock_state, **kwargs)
        # The shell pointed config.architectures at CLIPModel, which is what readers should build.
        if kwargs.get("is_main_process", True):
            save_side_file(head_state, save_directory)
        if push:
            self.push_to_hub(repo_id or Path(save_directory).name, token=kwargs.get("token"), **hub)

    def push_to_hub(self, repo_id: str, **kwargs):
        """As stock, with the robustness card of the run where there is one (`card_text`)."""
        info = super().push_to_hub(repo_id, **kwargs)
        if self.card_text is not None:
            info = HfApi().upload_file(
                path_or_fileobj=self.card_text.encode(),
                path_in_repo="README.md",
                repo_id=info.repo_url.repo_id,
                token=kwargs.get("token"),
                revision=kwargs.get("revision"),
                commit_message="Model card",
            )
        return info

    def facts(self) -> dict:
        """What ``config.hier_robust`` records: the head's constants beside whatever training added."""
        facts = dict(getattr(self.config, CONFIG_KEY, None) or {})
        head = self.hier_head
        return facts | {
            "curvature": head._curvature,
            "ball_margin": head.ball_margin,
            "max_tangent_norm": head.max_tangent_norm,
        }

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, hier_head: bool = True, **kwargs):
        """Load a checkpoint of ours or any stock CLIP one, in fp32 unless ``dtype`` says otherwise.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            hier_head: False ignores the side file and starts with an untrained head.

        Raises:
            ValueError: the checkpoint is not a CLIP dual encoder.
            CorruptSideFileError: ``hier_head.safetensors`` cannot be read.
        """
        hub = {k: kwargs[k] for k in _HUB_OPTIONS if k in kwargs}
        check_dual_encoder(pretrained_model_name_or_path, **hub)
        # Robust fine-tuning in half precision loses eps-sized steps: checkpoints load in fp32.
        if "torch_dtype" not in kwargs:  # the old name, which transformers still takes
            kwargs.setdefault("dtype", torch.float32)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded

        def companion(name: str) -> str | None:
            return cached_file(
                pretrained_model_name_or_path,
                name,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **hub,
            )

        if hier_head and (path := companion(SIDE_FILE)) is not None:
            load_side_file(model, path)
        if getattr(model.config, CONFIG_KEY, None) and (path := companion("README.md")) is not None:
            model.card_text = Path(path).read_text(encoding="utf-8")
        return loaded


def check_dual_encoder(name_or_path, **hub) -> None:
    """Refuse early what is not a CLIP checkpoint.

    Raises:
        ValueError: naming the checkpoint's model type.
    """
    config = AutoConfig.from_pretrained(name_or_path, **hub)
    if config.model_type != "clip":
        raise ValueError(
            f"model_name_or_path={str(name_or_path)!r} is a {config.model_type!r} checkpoint, not a dual "
            "encoder of images and text: use a CLIP checkpoint such as openai/clip-vit-base-patch32"
        )


def save_side_file(head_state: dict[str, Tensor], directory: str | os.PathLike) -> None:
    """Write the head beside ``model.safetensors``, whole or not at all."""
    path = Path(directory) / SIDE_FILE
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().cpu().contiguous() for k, v in head_state.items()}, temporary)
    os.replace(temporary, path)


def load_side_file(model: RobustCLIPModel, path: str | os.PathLike) -> None:
    """Load the head's tensors into a model.

    Raises:
        CorruptSideFileError: unreadable file, wrong tensors, or another curvature than the config's.
    """
    try:
        state = load_file(path)
        _check_curvature(state, model.hier_head)
        model.hier_head.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CorruptSideFileError(
            f"{path} is corrupt ({error}). The CLIP weights beside it are unaffected: load them with "
            "CLIPModel.from_pretrained, or RobustCLIPModel.from_pretrained(..., hier_head=False), "
            "and restore the side file from another checkpoint"
        ) from error


def _check_curvature(state: dict[str, Tensor], head: HierHead) -> None:
    """Distances use the config's number: a head of another run would be scored in the wrong geometry."""
    stored = float(state["curvature"]) if "curvature" in state else head._curvature
    if not math.isclose(stored, head._curvature, rel_tol=1e-3):
        raise RuntimeError(f"it was trained at curvature {stored:g}, the config says {head._curvature:g}")
