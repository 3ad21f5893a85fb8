"""A float64 batch that holds whatever any objective needs; text rows are drawn by their names."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.modeling.hier_head import HierHead
from hf_hierrobust.objectives import Objective, Reference, Targets, TextNodes, View

CLASSES = ("cat", "dog", "oak", "rose")
PATHS = {"cat": ["animal"], "dog": ["animal"], "oak": ["plant"], "rose": ["plant"]}
DIM, PATCHES, LABELS = 6, 4, (0, 3, 1, 1, 2)
FOREST = Forest((LabelTree.from_paths(PATHS, name="tiny"),))


def draw(name: str, *shape: int) -> Tensor:
    """The same values for the same name, whoever asks."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return 0.7 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def rows_of(nodes: TextNodes, kind: str) -> Tensor:
    return torch.stack([draw(f"{kind} {text}", DIM) for text in (*nodes.names, *nodes.prompts)])


class WholeBatch:
    """Views and targets of one objective that is set up; ``leaves`` are what gradients flow to."""

    def __init__(self, objective: Objective):
        count, nodes = len(LABELS), objective.nodes
        self.labels, self.scale = torch.tensor(LABELS), torch.tensor(5.0, dtype=torch.float64)
        self.sides = ("attacked", "clean", "captions", "attacked captions")
        self.features = {side: draw(side, count, DIM).requires_grad_() for side in self.sides}
        self.patches = {
            s: draw(f"{s} patches", count, PATCHES, DIM) for s in ("attacked", "clean", "original")
        }
        self.texts = rows_of(nodes, "text").requires_grad_()
        self.delta, self.original_texts = 0.1 * rows_of(nodes, "delta"), rows_of(nodes, "original")
        self.original, self.original_attacked = draw("original", count, DIM), draw("before", count, DIM)
        self.original_captions = draw("original captions", count, DIM)
        self.head = HierHead(DIM)
        self.head.kappa.fill_(2.5)
        self.head.vic_radius.fill_(1.5)

    @property
    def leaves(self) -> list[Tensor]:
        return [*self.features.values(), self.texts]

    def view(self, side: str = "attacked", **changes) -> View:
        images = self.features[side]
        view = View(images, self.texts, images, self.texts, self.scale, self.head)
        return view._replace(
            text_delta=self.delta,
            patch_features=self.patches[side],
            caption_features=self.features["captions"],
            attacked_caption_features=self.features["attacked captions"],
        )._replace(**changes)

    def targets(self, views: int = 1) -> Targets:
        def original(features: Tensor) -> Reference:
            return Reference(
                features, self.original_texts, self.scale, self.patches["original"], self.original_captions
            )

        attacked = tuple(original(self.original_attacked + number) for number in range(views))
        clean = self.view("clean", text_delta=None)
        return Targets(self.labels, original(self.original), attacked, clean)

    def attack_targets(self) -> Targets:
        return self.targets()._replace(attacked_reference=None, clean=None)


def set_up(objective: Objective) -> tuple[Objective, WholeBatch]:
    objective.setup(CLASSES, FOREST)
    return objective, WholeBatch(objective)
