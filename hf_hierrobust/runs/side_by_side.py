"""A picture attacked on a base and on a robust model, within limits that suit a public demonstration."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import Image

from ..data import decode_image
from ..hierarchy import available_trees
from ..modeling import RobustDualEncoder, load_robust_model
from ..naming import public_name
from .attack_image import ImageAttack, attack_image
from .load import glyph_base
from .trees import open_trees

DEMO_FOLDER = "outputs/demo"
"""Where ``make demo`` leaves its robust model."""
FORWARDS_BESIDE_STEPS = 3
"""Of each attack: the clean image, the last iterate and the verdict."""
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask of a shared machine.

    Args:
        side: longer pictures are shrunk to it.
        classes, name_length: of labels; a tree's leaves count as well.
        steps: of each of PGD's two runs.
        eps: largest budget, in grey levels of 255.
        seconds: of one attack on one model.
    """

    side: int = 448
    classes: int = 200
    name_length: int = 60
    steps: int = 40
    eps: float = 16
    seconds: float = 180


@dataclass(frozen=True)
class Pair:
    """Two checkpoints, folders or Hub ids; ``robust`` is None where there is only the base."""

    name: str
    base: str
    robust: str | None = None

    @property
    def models(self) -> dict[str, str | None]:
        return {"base": self.base, "robust": self.robust}


@dataclass(frozen=True)
class Request:
    """What is attacked and how.

    Args:
        picture: encoded image file.
        labels: class names, comma-separated, without a tree.
        tree: name of a built-in tree.
        true: the picture's class, by default what each model takes it for.
        eps: in grey levels of 255.
        steps: of each of PGD's two runs.
    """

    picture: bytes
    labels: str = ""
    tree: str | None = None
    true: str = ""
    eps: float = 4
    steps: int = 20
    limits: Limits = field(default_factory=Limits)

    def classes(self) -> list[str] | None:
        """The typed names, or None where the tree's leaves are the classes.

        Raises:
            ValueError: neither, both or an unknown tree, or names beyond the limits.
        """
        names = [name.strip() for name in self.labels.replace("\n", ",").split(",") if name.strip()]
        limits = self.limits
        if self.tree:
            if self.tree not in demo_trees(limits):
                raise ValueError(f"tree {self.tree!r} is not offered: {', '.join(demo_trees(limits))}")
            if names:
                raise ValueError("labels beside a class tree: clear the labels, or choose no tree")
            return None
        if len(set(names)) < 2:
            raise ValueError("type two or more different labels, separated by commas, or choose a class tree")
        if len(names) > limits.classes:
            raise ValueError(f"{len(names)} labels are more than the {limits.classes} that are allowed here")
        longest = max(names, key=len)
        if len(longest) > limits.name_length:
            raise ValueError(f"label {longest[:20]!r}… is longer than {limits.name_length} characters")
        return names

    def check_numbers(self) -> None:
        """Raises:
        ValueError: budget or steps outside the limits.
        """
        if not 0 < self.eps <= self.limits.eps:
            raise ValueError(f"eps={self.eps:g}/255 must be above 0 and at most {self.limits.eps:g}/255")
        if not 1 <= self.steps <= self.limits.steps or self.steps != int(self.steps):
            raise ValueError(f"steps={self.steps:g} must be a whole number from 1 to {self.limits.steps}")

    def image(self) -> Image.Image:
        """The picture in RGB, shrunk to the limit.

        Raises:
            UnreadableImageError: no image, or one of hostile size.
        """
        picture = {"image": {"bytes": self.picture, "path": None}}
        image = decode_image(picture, "the picture", advice="Choose another one.").copy()
        image.thumbnail((self.limits.side, self.limits.side), Image.Resampling.LANCZOS)
        return image


def demo_trees(limits: Limits) -> list[str]:
    """Built-in single trees whose leaves are within the limits."""
    found = {name: open_trees(name).forest for name in available_trees()}
    return [
        name for name, trees in found.items() if len(trees) == 1 and len(trees[0].leaves) <= limits.classes
    ]


def embedded_pair(folder: str | os.PathLike = DEMO_FOLDER) -> Pair:
    """The tiny CLIP of ``make demo``, and its repaired copy where that command has left one.

    The first call on a machine pretrains the base, which takes minutes.
    """
    folder = Path(folder)
    robust = str(folder) if (folder / "config.json").is_file() else None
    return Pair("rendered symbols (tiny CLIP)", glyph_base(), robust)


def read_pairs(text: str) -> list[Pair]:
    """Pairs as a Space's variable holds them: ``name = base | robust; …``, the robust one optional.

    Raises:
        ValueError: an entry of another form, or a name twice.
    """
    pairs: dict[str, Pair] = {}
    for entry in filter(None, map(str.strip, text.split(";"))):
        name, _, models = map(str.strip, entry.partition("="))
        base, _, robust = map(str.strip, models.partition("|"))
        if not name or not base or "|" in robust:
            raise ValueError(f"models: {entry!r} is not of the form 'name = base | robust'")
        if name in pairs:
            raise ValueError(f"models: {name!r} is there twice")
        pairs[name] = Pair(name, base, robust or None)
    return list(pairs.values())


def attack_side_by_side(
    pair: Pair, request: Request, progress: Progress | None = None
) -> Iterator[tuple[str, ImageAttack | None]]:
    """Attack a picture on the base, then on the robust model, each by its own gradients.

    Args:
        progress: called with the fraction done of both and a few words, at every step.

    Yields:
        ``"base"`` or ``"robust"`` and the attack; None where the pair has no such model.

    Raises:
        ValueError: a request beyond the limits, a model that cannot be loaded.
        TimeoutError: an attack took too long.
    """
    request.check_numbers()
    classes, image = request.classes(), request.image()
    with tempfile.TemporaryDirectory(prefix="picture-") as folder:
        path = Path(folder, "picture.png")
        image.save(path)
        models = {side: name for side, name in pair.models.items() if name is not None}
        for place, (side, name) in enumerate(models.items()):
            if progress:
                progress(place / len(models), f"{side} model: loading {public_name(name)}")
            model = _loaded(name)

            def tell(done: float, words: str, side=side, place=place) -> None:
                if progress:
                    progress((place + done) / len(models), f"{side} model: {words}")

            with _watched(model, request, tell):
                found = _attack(model, path, classes, request)
            yield side, found
    if pair.robust is None:
        yield "robust", None


def _attack(
    model: RobustDualEncoder, path: Path, classes: Sequence[str] | None, request: Request
) -> ImageAttack:
    return attack_image(
        model,
        path,
        labels=classes,
        tree=request.tree,
        true=request.true.strip() or None,
        attack="pgd",
        eps=request.eps / 255,
        num_steps=int(request.steps),
    )


@lru_cache(maxsize=4)
def _loaded(name: str) -> RobustDualEncoder:
    try:
        return load_robust_model(name).eval()
    except OSError as error:  # its message may name folders of this machine
        raise ValueError(f"model {public_name(name)!r} cannot be loaded: {type(error).__name__}") from error


@contextmanager
def _watched(model: RobustDualEncoder, request: Request, tell: Progress) -> Iterator[None]:
    """Count the image tower's forward passes, which are the attack's steps, and stop it when time is up."""
    expected, limit = 2 * (int(request.steps) + FORWARDS_BESIDE_STEPS), request.limits.seconds
    passes, begin = 0, time.monotonic()

    def count(*_) -> None:
        nonlocal passes
        passes += 1
        if time.monotonic() - begin > limit:
            raise TimeoutError(f"stopped after {limit:g} seconds: take fewer steps or a smaller picture")
        where = f"of about {expected}" if passes <= expected else "while rounding to 8 bits"
        tell(min(passes / expected, 0.99), f"pass {passes} {where}")

    hook = model.get_submodule("vision_model").register_forward_hook(count)
    try:
        yield
    finally:
        hook.remove()
