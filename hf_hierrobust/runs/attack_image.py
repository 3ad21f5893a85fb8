"""One image under attack: what the model says of it from the root of a class tree down, before and after."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..attacks import Attack
from ..attacks.image.grid import Rounded, round_to_levels
from ..classifiers import level_classifiers
from ..classifiers.levels import LevelClassifier
from ..data import ClassSet, PixelCollator, UnreadableImageError, decode_image
from ..evaluation.plan import build_attacks, describe_attacks
from ..hierarchy import LabelTree, TreeSpec, node_names
from ..modeling import PixelPipeline, RobustDualEncoder, as_robust_model
from ..naming import level_name, public_name
from ..options import check_whole
from ..threat import Norm, Space
from ..training.intake import model_forest, processor_for
from .trees import classes_of, open_trees


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image at one level.

    Attributes:
        level, level_name: 0 are the leaves.
        name, confidence: of the node that the level's own prompts choose, and its softmax probability.
        rolled_up, rolled_up_confidence: of the node with the largest sum of leaf probabilities; at the leaves
            the same as above.
        right: whether ``name`` is the true class's ancestor.
    """

    level: int
    level_name: str
    name: str
    confidence: float
    rolled_up: str
    rolled_up_confidence: float
    right: bool


@dataclass(frozen=True)
class ImageAttack:
    """An attacked image.

    Attributes:
        image, sha256, model: name of the file, its hash, and name of the model.
        true, assumed: the class; whether it is only what the model takes the clean image for.
        attack: constants of the attacks, as in a record.
        classifier, level: what was attacked.
        pixels, adversarial: (3, H, W) in [0, 1], what was attacked and the attack's own result.
        rounded: the 8-bit image that stands for it.
        clean_correct, exact_fooled: verdicts on the clean pixels and on the result before it is rounded.
        clean, attacked: predictions from the top level down to the leaves, ``attacked`` of the 8-bit image.
    """

    image: str
    sha256: str
    model: str
    true: str
    assumed: bool
    attack: dict
    classifier: str
    level: int
    pixels: Tensor
    adversarial: Tensor
    rounded: Rounded
    clean_correct: bool
    exact_fooled: bool
    clean: list[Prediction]
    attacked: list[Prediction]

    @property
    def succeeded(self) -> bool:
        """Whether the 8-bit image, unlike the clean one, is misclassified."""
        return self.clean_correct and self.rounded.fooled


def attack_image(
    model: str | os.PathLike | RobustDualEncoder,
    image: str | os.PathLike,
    *,
    labels: str | Sequence[str] | ClassSet | None = None,
    tree: TreeSpec | None = None,
    true: str | None = None,
    attack: str | Attack | Sequence[str | Attack] = "pgd",
    eps: float | str | None = "4/255",
    norm: Norm | None = None,
    space: Space = "native",
    level: int = 0,
    classifier: str = "cosine",
    template: str | None = None,
    seed: int = 0,
    **attack_options,
) -> ImageAttack:
    """Attack one image; several attacks run until one succeeds.

    Args:
        model: folder or Hub id of a CLIP or SigLIP checkpoint, or a loaded one.
        image: file.
        labels: the classes: names, a class set, or its name; by default the leaves of the tree.
        tree: one class tree over them.
        true: the image's class, by default what the model takes the clean image for.
        attack, attack_options: see `build_attacks`.
        level: of the tree whose prompts are attacked; 0 are the leaves.
        classifier: ``"cosine"`` or ``"hyperbolic"``.
        template: by default the one that the model was trained with, else the class set's own.

    Raises:
        UnreadableImageError: the file is no image.
        ValueError: no classes, fewer than two, an unknown true class, several trees, a level that the tree
            lacks, a hyperbolic classifier of a model without the head, or a seed that is no whole number.
    """
    check_whole(seed=seed)
    path = Path(image).expanduser()
    picture = decode_image(
        {"image": str(path)}, f"image {path.name!r}", follow=True, advice="Give another one."
    )
    attacks = build_attacks(attack, eps=eps, norm=norm, space=space, **attack_options)
    _check_frames(path)
    name = str(model) if isinstance(model, (str, os.PathLike)) else model.name_or_path
    model = as_robust_model(model)
    processor = processor_for(None, model)
    facts = getattr(model.config, "hier_robust", None) or {}
    class_set, found_tree = _classes(
        model, processor.tokenizer, labels, tree, template or facts.get("template")
    )
    template = template or facts.get("template")
    pipeline = PixelPipeline(processor.image_processor, space)
    names = [classifier, "rollup" if classifier == "cosine" else f"rollup-{classifier}"]
    found = level_classifiers(
        model, pipeline, processor.tokenizer, class_set, found_tree, template=template, names=names
    )
    attacked = _attacked_level(found, classifier, level)
    try:
        collator = PixelCollator(processor.image_processor, space)
        pixels = collator([{"image": picture}])["pixels"].to(model.device)
    except ValueError as error:
        raise UnreadableImageError(f"image {path.name!r}: {error}") from error
    reading = _Reading(found, class_set, found_tree)
    with torch.no_grad():
        leaf = _leaf_index(class_set, true) if true else reading.likeliest_leaf(classifier, pixels)
    label = attacked.to_node[leaf : leaf + 1].to(model.device)
    adversarial, clean_correct, fooled = pixels, True, False
    for number, one in enumerate(attacks):
        generator = torch.Generator(model.device).manual_seed(seed + 7919 * number)
        result = one(attacked.classifier, pixels, label, generator=generator)
        adversarial, clean_correct = result.adversarial, bool(result.clean_correct[0])
        fooled = clean_correct and not bool(result.robust_correct[0])
        if fooled or not clean_correct:
            break
    threat = attacks[0].threat
    rounded = round_to_levels(attacked.classifier, pixels, adversarial, int(label), threat)
    shown = rounded.levels[None].to(model.device) / 255
    return ImageAttack(
        image=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        model=public_name(name),
        true=class_set.class_names[leaf],
        assumed=true is None,
        attack=describe_attacks(attacks),
        classifier=classifier,
        level=level,
        pixels=pixels[0].cpu(),
        adversarial=adversarial[0].cpu(),
        rounded=rounded,
        clean_correct=clean_correct,
        exact_fooled=fooled,
        clean=reading.path(classifier, pixels, leaf),
        attacked=reading.path(classifier, shown, leaf),
    )


def _classes(
    model: RobustDualEncoder, tokenizer, labels, tree: TreeSpec | None, template: str | None
) -> tuple[ClassSet, LabelTree | None]:
    """The classes and the tree over them."""
    class_set = classes_of(labels)
    if class_set is None:
        if tree is None:
            raise ValueError("no classes: give labels, such as 'a kit fox, a mushroom', or tree")
        opened = open_trees(tree)
        class_set = opened.class_set or ClassSet.from_names(
            opened.forest[0].display_names(0), name=opened.forest[0].name
        )
    if len(class_set) < 2:
        raise ValueError(f"labels={labels!r} name one class: an attack needs a second one to lead to")
    if tree is None:
        return class_set, None
    forest = model_forest(tree, class_set, model, tokenizer, template or class_set.templates[0])
    if len(forest) > 1:
        raise ValueError(f"tree={tree!r} names {len(forest)} trees: give the one whose levels to show")
    return class_set, forest[0].align(class_set.class_names)


def _attacked_level(found: Sequence[LevelClassifier], name: str, level: int) -> LevelClassifier:
    own = {one.level: one for one in found if one.name == name}
    if not own:
        raise ValueError(f"classifier={name!r}: the model has no calibrated hyperbolic head; use 'cosine'")
    if level not in own:
        raise ValueError(f"level={level} is not in the tree, whose levels are 0..{max(own)}")
    return own[level]


def _leaf_index(class_set: ClassSet, true: str) -> int:
    try:
        return int(class_set.index_map([true])[0])
    except ValueError as error:
        raise ValueError(f"true={true!r} is none of the classes: {error}") from error


class _Reading:
    """What the classifiers of a model say of one image, in words."""

    def __init__(self, found: Sequence[LevelClassifier], class_set: ClassSet, tree: LabelTree | None):
        self.found, self.names = found, node_names(class_set.class_names, tree)
        leaves = range(len(class_set))
        self.nodes = (
            [tree.ancestors(level).tolist() for level in range(len(self.names))] if tree else [leaves]
        )

    def likeliest_leaf(self, score: str, pixels: Tensor) -> int:
        """Index of the class that the clean image is taken for."""
        leaf = next(one for one in self.found if (one.level, one.name) == (0, score))
        column = int(leaf.classifier(pixels).argmax(1))
        return leaf.to_node.tolist().index(column)

    @torch.no_grad()
    def path(self, score: str, pixels: Tensor, true_leaf: int) -> list[Prediction]:
        """One prediction a level, the top first.

        Args:
            score: classifier of the levels' own prompts.
            pixels: (1, 3, H, W).
        """
        path = []
        for level in reversed(range(len(self.names))):
            own = next(one for one in self.found if (one.level, one.name) == (level, score))
            name, confidence, right = self._predicted(own, pixels, true_leaf)
            rolled = next((o for o in self.found if o.level == level and "rollup" in o.name), own)
            other, sure, _ = self._predicted(rolled, pixels, true_leaf)
            path.append(Prediction(level, level_name(level), name, confidence, other, sure, right))
        return path

    def _predicted(self, one: LevelClassifier, pixels: Tensor, true_leaf: int) -> tuple[str, float, bool]:
        confidence, column = one.classifier(pixels).double().softmax(1)[0].max(0)
        leaf = one.to_node.tolist().index(int(column))  # any leaf below the node: twins share one column
        name = self.names[one.level][self.nodes[one.level][leaf]]
        return name, float(confidence), int(column) == int(one.to_node[true_leaf])


def _check_frames(path: Path) -> None:
    with Image.open(path) as opened:
        frames = getattr(opened, "n_frames", 1)
    if frames > 1:
        raise UnreadableImageError(f"image {path.name!r} is animated, of {frames} frames: save one of them")
