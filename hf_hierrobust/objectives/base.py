"""What every training objective is: an inner loss for the attacker and named terms for the optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..hierarchy import Forest, node_names
from ..options import refuse_idle
from ..registry import Registry
from .losses import cosine_logits

OBJECTIVES: Registry[Objective] = Registry("objective", "hf_hierrobust.objectives")


NEEDS: dict[str, str] = {
    "tree": "a class tree",
    "reference": "the frozen original model on the clean images",
    "attacked_reference": "the frozen original model on each view's adversarial images",
    "clean": "the trained model on the clean images",
    "patches": "patch tokens of every image",
    "captions": "a caption of every image; its class prompt where the data have none",
    "attacked_captions": "the captions after the text attack",
    "original_captions": "the frozen original model on the captions",
    "text_nodes": "the prompts of classes and nodes in the training loss, not only in the attack",
}
"""What an objective may ask of the trainer."""


class View(NamedTuple):
    """One batch of images and the text nodes as an objective sees them.

    Attributes:
        image_features, text_features: (B, D) and (N, D), projected, not normalised. While the text tower
            trains, a training view holds no text nodes (N = 0) unless the objective needs ``text_nodes``.
        image_tangent, text_tangent: the same before the exponential map, (B, D) and (N, D), fp32.
        logit_scale: CLIP's multiplier, 0-dim.
        head: the model's hyperbolic head, for its constants and maps (never for trained parameters,
            which already acted on the tangents).
        text_delta: perturbation of the text tangents, (N, D) or (1, D), or None.
        levels: tree levels this view counts for, None for all.
        patch_features: (B, P, D) projected patch tokens, not normalised, where asked for.
        caption_features, attacked_caption_features: (B, D) of each image's caption, clean and after the
            text attack, not normalised, where asked for.
        caption_keys, attacked_caption_keys: (B,) int64, equal for equal texts on all processes.
        logit_bias: SigLIP's offset of the logits, 0-dim; None for CLIP. A softmax does not feel it.
    """

    image_features: Tensor
    text_features: Tensor
    image_tangent: Tensor
    text_tangent: Tensor
    logit_scale: Tensor
    head: object
    text_delta: Tensor | None = None
    levels: tuple[int, ...] | None = None
    patch_features: Tensor | None = None
    caption_features: Tensor | None = None
    attacked_caption_features: Tensor | None = None
    caption_keys: Tensor | None = None
    attacked_caption_keys: Tensor | None = None
    logit_bias: Tensor | None = None


class Reference(NamedTuple):
    """What the frozen original model says of one batch: constants, without gradients.

    Attributes:
        image_features, text_features: (B, D) and (N, D), projected, not normalised.
        logit_scale: the original's multiplier, 0-dim.
        patch_features: (B, P, D) projected patch tokens, where asked for.
        caption_features: (B, D) of each image's caption, not normalised, where asked for. They are the
            trained model's only while no objective beside trains the text encoder.
    """

    image_features: Tensor
    text_features: Tensor
    logit_scale: Tensor
    patch_features: Tensor | None = None
    caption_features: Tensor | None = None


class Targets(NamedTuple):
    """What a batch is trained towards; beside the labels only what the objective's ``needs`` name.

    Attributes:
        labels: (B,) leaf indices; -1 for images without, where the objective uses none.
        reference: the original model on the clean images.
        attacked_reference: the original model on the adversarial images of each view; not in the attack.
        clean: the trained model on the clean images, with gradients; not in the attack.
    """

    labels: Tensor
    reference: Reference | None = None
    attacked_reference: tuple[Reference, ...] | None = None
    clean: View | None = None


@dataclass(frozen=True)
class TextNodes:
    """Rows of the text states that an objective needs.

    Attributes:
        names: one name per row, filled into the prompt template; the leaves come first.
        rows: for each tree and level the (K_l,) row of each node.
        levels: (N,) level of each row in its tree, the lowest if it is padded over several; 0 for the leaves
            and for whatever has no level, such as ``prompts``.
        prompts: complete prompts of further rows, after those of ``names``; no template touches them.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Tensor, ...], ...] = ()
    prompts: tuple[str, ...] = ()

    @property
    def levels(self) -> torch.Tensor:
        found = torch.zeros(len(self.names) + len(self.prompts), dtype=torch.long)
        for tree in self.rows:
            for level in reversed(range(len(tree))):
                found[tree[level]] = level
        return found

    def fill(self, template: str) -> list[str]:
        """The prompt of every row."""
        return [*(template.replace("{}", name) for name in self.names), *self.prompts]

    @classmethod
    def of_forest(cls, class_names: Sequence[str], forest: Forest) -> TextNodes:
        """Leaf rows are shared by all trees; a node padded over several levels keeps one row."""
        names, all_rows = list(class_names), []
        for tree in forest:
            row_of = {key: row for row, key in enumerate(tree.leaves)}
            rows, shown_names = [torch.arange(len(tree.leaves))], node_names(class_names, tree)
            for level in range(1, tree.num_levels):
                for key, shown in zip(tree.levels[level], shown_names[level]):
                    if key not in row_of:
                        row_of[key] = len(names)
                        names.append(shown)
                rows.append(torch.tensor([row_of[key] for key in tree.levels[level]]))
            all_rows.append(tuple(rows))
        return cls(tuple(names), tuple(all_rows))


@dataclass(kw_only=True)
class Objective:
    """Base of all objectives; subclasses are dataclasses whose fields are their options.

    Class attributes say what the rest of the package needs to know: the trainer, the card and the
    tests read them.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper_id: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    trains: ClassVar[tuple[str, ...]] = ("vision",)
    """Parameter groups, see `modeling.trainable.GROUPS`."""
    default_attack: ClassVar[str] = "pgd"
    default_attack_steps: ClassVar[int | None] = None
    """Steps of that attack in the paper; None leaves them to the attack (``pgd``: 2, as in TeCoA)."""
    default_step_size: ClassVar[float | None] = None
    """Its step under linf in the paper, in pixel scale; None is the budget."""
    default_text_attack: ClassVar[str] = "none"

    nodes: TextNodes = field(init=False, repr=False, compare=False, default=None)
    num_classes: int = field(init=False, repr=False, compare=False, default=0)

    def setup(self, class_names: Sequence[str], forest: Forest | None = None) -> None:
        """Bind the objective to the classes of a data set; called once before training."""
        self.nodes = TextNodes(tuple(class_names))
        self.num_classes = len(class_names)

    def leaf_logits(self, view: View | Reference) -> Tensor:
        """CLIP's zero-shot logits (B, K) of the view's images against the K class prompts."""
        return cosine_logits(view.image_features, view.text_features[: self.num_classes], view.logit_scale)

    @property
    def needs(self) -> frozenset[str]:
        """What the trainer must provide under the chosen options: keys of `NEEDS`."""
        return frozenset({"text_nodes"})

    @property
    def attack_needs(self) -> frozenset[str]:
        """What the inner loss reads of `needs` that costs extra in every step: ``patches``, ``captions``."""
        return frozenset()

    @property
    def uses_labels(self) -> bool:
        """Whether the images must have class labels, for the loss or the attack."""
        return True

    @property
    def num_levels(self) -> int:
        """Levels that an attack may address; 1 is a flat set of classes."""
        return 1

    @property
    def text_levels(self) -> torch.Tensor | None:
        """(N,) level of each text row whose tangent scale is its level's; None: one scale for all."""
        return None

    @property
    def trained_groups(self) -> tuple[str, ...]:
        """The parameter groups that train under the chosen options."""
        return self.trains

    @property
    def trains_on_attack(self) -> bool:
        """Whether attacked images enter the loss under the chosen options."""
        return True

    @property
    def reads_text_delta(self) -> bool:
        """Whether the loss reads the text nodes' tangents, which an attack may perturb: those of trees do."""
        return "tree" in self.needs

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` sets anything."""
        return type(self).calibrate is not Objective.calibrate

    @property
    def idle_head_options(self) -> dict[str, str]:
        """Options of the hyperbolic head that nothing reads beside the others, and why."""
        return {}

    def refuse_idle_head_options(self) -> None:
        """Called before a head is calibrated; of one that is, its constants must be given as they are.

        Raises:
            ValueError: an option that differs from its default and is read by nothing.
        """
        refuse_idle(self, self.idle_head_options)

    def check_head(self, head: object) -> None:
        """Refuse a hyperbolic head with which `calibrate` would fail, as far as no image is needed to know.

        Raises:
            ValueError: what does not fit.
        """

    def calibrate(self, view: View, labels: Tensor) -> None:
        """Set constants from a clean batch at the start of training; nothing by default."""

    def inner_loss(self, view: View, targets: Targets) -> Tensor:
        """What the attacker maximises; any shape, its sum counts."""
        raise NotImplementedError

    def loss(self, views: Sequence[View], targets: Targets) -> dict[str, Tensor]:
        """Named 0-dim terms whose sum is minimised.

        Args:
            views: one per training perturbation (most attacks make one).
            targets: labels, and what ``needs`` asks for.
        """
        raise NotImplementedError

    def options(self) -> dict:
        """The options as plain values, for records, cards and ``config.hier_robust``."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}
