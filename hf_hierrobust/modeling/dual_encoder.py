"""What robust training adds to a stock dual encoder of images and text, whatever its family."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from huggingface_hub import CommitInfo, HfApi
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.utils import can_return_tuple

from ..adapters.lora import adapter_facts, has_adapters, merged_state
from ..adapters.visual_prompts import VisualPrompts, remove_visual_prompt
from ..files import write_atomically
from ..readme import read_card, with_tags
from ..uploads import README, upload
from . import sources
from .hier_head import HierHead
from .side_files import PROMPT_FILE, SIDE_FILE, is_side_key, load_prompt_file, load_side_file, save_side_files
from .stored_facts import check_facts

CONFIG_KEY = "hier_robust"


@dataclass
class HierRobustOutput(CLIPOutput):
    """`CLIPOutput` plus what robust objectives need, from one forward.

    Attributes:
        image_features: (B, D) projected image embeddings, not normalised.
        text_features: (N, D) projected text embeddings, not normalised.
        image_tangent: (B, D) scaled embeddings before the exponential map, fp32.
        text_tangent: (N, D) likewise.
        patch_features: (B, P, D) projected patch tokens, not normalised, where they were asked for.
        logit_scale: the model's multiplier (about 100), 0-dim, within the graph.
        logit_bias: SigLIP's offset (about -13), 0-dim, within the graph; None for CLIP.
    """

    image_features: Tensor | None = None
    text_features: Tensor | None = None
    image_tangent: Tensor | None = None
    text_tangent: Tensor | None = None
    patch_features: Tensor | None = None
    logit_scale: Tensor | None = None
    logit_bias: Tensor | None = None


def mean_embedding(features: Tensor) -> Tensor:
    """(N, T, D) embeddings of T templates to (N, D): the mean direction, at the mean norm."""
    norms = features.norm(dim=-1, keepdim=True)
    direction = (features / norms).mean(1)
    return direction / direction.norm(dim=-1, keepdim=True) * norms.mean(1)


class RobustDualEncoder:
    """A stock dual encoder with a hyperbolic head, trained by `RobustCLIPTrainer`.

    Stands before the stock class among the bases of a family's class, which says in a few members how the
    family pools and projects (`RobustCLIPModel`, `RobustSiglipModel`).

    ``save_pretrained`` writes a plain checkpoint that names the stock class as its architecture and that
    stock transformers loads with an empty load report, plus the head in ``hier_head.safetensors`` and facts
    under ``config.hier_robust``. Adapters (`add_lora`) are merged into the stock weights and also written to
    ``adapter/``; a visual prompt has its own file, and stock transformers knows nothing of it.
    ``from_pretrained`` reads head, prompt and merged weights, from a folder or a Hub id, and accepts any
    stock checkpoint of the family, whose head then starts untrained.
    """

    stock_class: ClassVar[type[PreTrainedModel]]
    """The transformers class whose checkpoints are read and written."""
    projections: ClassVar[Mapping[str, str]]
    """Modules that project to the shared space, by CLIP's names for them."""

    _keys_to_ignore_on_load_missing = [r"hier_head\..*", r"visual_prompt\..*"]

    def __init__(self, config: PreTrainedConfig):
        # Outputs are read by name, and stock forwards fail under a config that turns that off.
        config.return_dict = True
        super().__init__(config)
        self.card_text: str | None = None
        facts = check_facts(getattr(config, CONFIG_KEY, None) or {})
        stored = ("text_levels", *HierHead.CONSTANTS)
        self.hier_head = HierHead(
            self.embedding_dim, **{name: facts[name] for name in stored if name in facts}
        )
        self.visual_prompt: VisualPrompts | None = None
        if "visual_prompt" in facts:
            self.visual_prompt = VisualPrompts(config.vision_config, **facts["visual_prompt"])
            self.visual_prompt.attach(self.vision_model.embeddings)

    def _init_weights(self, module):
        # from_pretrained builds on the meta device: without this the head would hold garbage memory.
        super()._init_weights(module)
        if isinstance(module, HierHead | VisualPrompts):
            module.reset()

    # ---- what the families do differently ----

    @property
    def embedding_dim(self) -> int:
        """D, width of the shared space."""
        raise NotImplementedError

    def pool_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Pooled states (N, w) of the text trunk, before the projection; tokens as of `text_inputs`."""
        raise NotImplementedError

    def _project_patches(self, hidden: Tensor) -> Tensor:
        """The tower's last states, class token and prompts among them, to patch embeddings (B, P, D)."""
        raise NotImplementedError

    # ---- embeddings ----

    @property
    def logit_multiplier(self) -> Tensor:
        """``exp(logit_scale)``, 0-dim, with its graph."""
        return self.logit_scale.exp().squeeze()

    @property
    def logit_offset(self) -> Tensor | None:
        """SigLIP's ``logit_bias``, 0-dim, with its graph; None for CLIP."""
        bias = getattr(self, "logit_bias", None)
        return None if bias is None else bias.squeeze()

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        """Projected, un-normalised image embeddings (B, D) of normalised pixels."""
        return self.get_image_features(pixel_values=pixel_values).pooler_output

    def encode_patches(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Image embeddings (B, D) and patch embeddings (B, P, D) from one run of the tower.

        A patch embedding is the patch's token brought to the shared space as the family brings its pooled
        state there; neither is normalised.
        """
        out = self.get_image_features(pixel_values=pixel_values)
        return out.pooler_output, self._project_patches(out.last_hidden_state)

    def project_text(self, text_states: Tensor) -> Tensor:
        """Pooled states of the frozen text trunk (N, w) or (N, T, w) to embeddings (N, D).

        With T templates the direction is the mean of the unit embeddings, as in CLIP's prompt
        ensembles, and the norm the mean norm.
        """
        features = self.get_submodule(self.projections["text_projection"])(text_states)
        return features if features.ndim == 2 else mean_embedding(features)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        text_states: Tensor | None = None,
        text_levels: Tensor | None = None,
        patches: bool = False,
        **kwargs,
    ) -> HierRobustOutput:
        """As the stock forward; ``text_states`` (N, w) stands in for ``input_ids``.

        With ``return_dict=False`` a tuple of what is not None, in the order of `HierRobustOutput`.

        Args:
            pixel_values: (B, 3, h, w), normalised.
            text_states: pooled states of the text trunk, cached by `encode_prompts`, so
                that no text tower runs in a training step.
            text_levels: (N,) level of each text in a class tree; None takes all for leaves.
            patches: also return ``patch_features``, see `encode_patches`.
        """
        if text_states is None:
            out = super().forward(
                input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask, **kwargs
            )
            vision, stock = out.vision_model_output, dict(out.items())
            text_features = out.text_model_output.pooler_output
        else:
            if kwargs.pop("return_loss", None):
                raise ValueError("return_loss=True needs input_ids, a caption of each image, not text_states")
            vision, stock = self.get_image_features(pixel_values=pixel_values, **kwargs), None
            # One small product: in bf16 its rounding alone would move distances by a tenth of a logit.
            with torch.autocast(text_states.device.type, enabled=False):
                text_features = self.project_text(text_states)
        image_features = vision.pooler_output
        logit_scale, logit_bias = self.logit_multiplier, self.logit_offset
        if stock is None:
            stock = {
                "image_embeds": image_features / image_features.norm(dim=-1, keepdim=True),
                "text_embeds": text_features / text_features.norm(dim=-1, keepdim=True),
            }
            logits = logit_scale * stock["image_embeds"] @ stock["text_embeds"].T
            logits = logits if logit_bias is None else logits + logit_bias
            stock |= {"logits_per_image": logits, "logits_per_text": logits.T}
        return HierRobustOutput(
            **stock,
            image_features=image_features,
            text_features=text_features,
            image_tangent=self.hier_head.image_tangent(image_features),
            text_tangent=self.hier_head.text_tangent(text_features, text_levels),
            patch_features=self._project_patches(vision.last_hidden_state) if patches else None,
            logit_scale=logit_scale,
            logit_bias=logit_bias,
        )

    # ---- checkpoints ----

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Write a stock checkpoint, the files beside it and ``config.hier_robust``."""
        state = merged_state(self, kwargs.pop("state_dict", None) or self.state_dict())
        push, repo_id = kwargs.pop("push_to_hub", False), kwargs.pop("repo_id", None)
        hub = {k: kwargs.pop(k) for k in ("private", "commit_message", "create_pr") if k in kwargs}
        stock_state = {k: v for k, v in state.items() if not is_side_key(k)}
        self.config.hier_robust = self.facts()
        # A meta-device stock model lends its class name and saving code; the tensors are ours.
        with torch.device("meta"):
            stock = self.stock_class(self.config).to(self.dtype)
        stock.save_pretrained(save_directory, state_dict=stock_state, **kwargs)
        # The shell pointed config.architectures at its own class, which is what readers should build.
        if kwargs.get("is_main_process", True):
            save_side_files(self, state, save_directory)
        if push:
            self.push_to_hub(repo_id or Path(save_directory).name, token=kwargs.get("token"), **hub)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload robust CLIP checkpoint",
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> CommitInfo:
        """As stock, with the robustness card of the run where there is one (`card_text`).

        Sent is what `uploads.public_files` lists, and a README in the repository keeps its owner's text.
        """
        api = HfApi(token=token, library_name="hf_hierrobust")
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        sizes = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        with tempfile.TemporaryDirectory(prefix="hf_hierrobust-push-") as folder:
            self.save_pretrained(folder, **sizes)
            if self.card_text is not None:
                write_atomically(Path(folder) / README, with_tags(self.card_text, tags or ()))
            return upload(
                api,
                repo_id,
                folder,
                commit_message=commit_message,
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
            )

    def facts(self) -> dict:
        """What ``config.hier_robust`` records: the model's constants beside whatever training added."""
        facts = dict(getattr(self.config, CONFIG_KEY, None) or {})
        facts |= self.hier_head.constants | {"text_levels": self.hier_head.text_levels}
        # Of the model as it is: a merged checkpoint that trains on has no adapter any more.
        for name in ("adapter", "visual_prompt"):
            facts.pop(name, None)
        if has_adapters(self):
            facts["adapter"] = adapter_facts(self)
        if self.visual_prompt is not None:
            facts["visual_prompt"] = self.visual_prompt.facts()
        return facts

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *args,
        hier_head: bool = True,
        visual_prompt: bool = True,
        **kwargs,
    ):
        """Load a checkpoint of ours or any stock one of the family, in fp32 unless ``dtype`` says otherwise.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            hier_head: False ignores the side file and starts with an untrained head.
            visual_prompt: False leaves the checkpoint's visual prompt out, as stock transformers does.

        Raises:
            ValueError: the checkpoint is not a dual encoder of this family; or code of others was asked for.
            UnsafeCheckpointError: a file of it names code or files elsewhere, or is a pickle with more than
                tensors in it, or the weights are not all there.
            CorruptSideFileError: the announced ``hier_head.safetensors`` or ``visual_prompt.safetensors``
                is not there, cannot be read, or holds what no training writes.
        """
        source, hub = pretrained_model_name_or_path, sources.hub_options(kwargs)
        sources.refuse_code(kwargs)
        if (found := sources.dual_encoder_type(source, **hub)) != cls.config_class.model_type:
            raise ValueError(
                f"model_name_or_path={str(source)!r} is a {found!r} checkpoint, which is not for "
                f"{cls.__name__}: load it with hf_hierrobust.modeling.load_robust_model"
            )
        # Robust fine-tuning in half precision loses eps-sized steps: checkpoints load in fp32.
        if "torch_dtype" not in kwargs:  # the old name, which transformers still takes
            kwargs.setdefault("dtype", torch.float32)
        sources.check_weights(source, **hub)
        wants_info = kwargs.pop("output_loading_info", False)
        with sources.tensors_only(source):
            model, info = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        sources.check_complete(source, [key for key in info["missing_keys"] if not is_side_key(key)])
        facts = getattr(model.config, CONFIG_KEY, None) or {}
        if hier_head:
            path = sources.companion_file(source, SIDE_FILE, **hub)
            if path is not None or "curvature" in facts:
                load_side_file(model, path)
        if not visual_prompt:
            remove_visual_prompt(model)
        elif model.visual_prompt is not None:
            load_prompt_file(model, sources.companion_file(source, PROMPT_FILE, **hub))
        if facts and (path := sources.companion_file(source, README, **hub)) is not None:
            model.card_text = read_card(path)
        return (model, info) if wants_info else model
