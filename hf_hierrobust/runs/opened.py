"""Images to evaluate on, with their classes and what the records call them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from transformers import logging

from ..data import ClassSet, MissingSplitError, load_images
from ..evaluation import EvaluationSet
from ..hierarchy import Forest, TreeSpec
from ..naming import source_name
from ..training.intake import class_set_for

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class OpenedData:
    """Images with what the records call them."""

    images: Any
    name: str
    split: str

    @classmethod
    def opened(cls, dataset, split: str | None, name: str | None) -> OpenedData:
        """A path or Hub id is loaded, other data stay as they are."""
        if isinstance(dataset, (str, os.PathLike)):
            name = name or source_name(os.fspath(dataset))
            try:
                return cls(load_images(dataset, split=split or "test"), name, split or "test")
            except MissingSplitError as error:
                if split is not None or len(error.known) > 1:
                    raise
                only = error.known[0]
            logger.warning(f"{name} has no split 'test': {only!r}, its only one, is taken")
            return cls(load_images(dataset, split=only), name, only)
        info = getattr(dataset, "info", None)
        name = name or getattr(info, "dataset_name", None) or "dataset"
        return cls(dataset, name, split or str(getattr(dataset, "split", None) or "unknown"))

    def classes(self, class_set: str | ClassSet | None, tree: TreeSpec | None = None) -> ClassSet:
        """Those given, else the built-in set that the tree is named after, else the data's own."""
        found = class_set_for(class_set, tree, None, self.images)
        return replace(found, name=self.name) if found.inferred else found

    def evaluation_set(
        self, class_set: ClassSet, forest: Forest | None, num_samples: int | None
    ) -> EvaluationSet:
        if forest is not None and len(forest) > 1:
            names = ", ".join(tree.name for tree in forest)
            raise ValueError(f"tree names {len(forest)} trees ({names}): evaluate measures the levels of one")
        return EvaluationSet(
            name=self.name,
            dataset=self.images,
            class_set=class_set,
            split=self.split,
            tree=None if forest is None else forest[0],
            num_samples=num_samples,
        )
