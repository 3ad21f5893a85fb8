"""Labels that a data set's items give are held against those that it lists beside them."""

from __future__ import annotations

import numpy as np
import pytest
from labelled_sets import CLASS_SET, REVERSED, TRUE, Torchvision, numbered, seen
from PIL import Image
from tiny_data import CLASSES
from torch.utils.data import ConcatDataset, Dataset, Subset

from hf_hierrobust.data import (
    ImageView,
    ItemLabelError,
    PixelDataset,
    UnnamedLabelsError,
    as_images,
    class_set_of,
)


class Relabelled(Torchvision):
    """Its items give other labels than ``targets`` lists, from one row on."""

    def __init__(self, first=0, targets=True):
        super().__init__(targets)
        self.first = first

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, 3 - label if index >= self.first else label


class Transformed(Torchvision):
    def __init__(self, change, targets=True):
        super().__init__(targets)
        self.target_transform = change

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, self.target_transform(label)


class RelabelledSubset(Subset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, 3 - label

    def __getitems__(self, indices):  # torch asks for it
        return [self[index] for index in indices]


class RelabelledPixels(PixelDataset):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"label": 3 - item["label"]}


class RelabelledView(ImageView):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        return item | {"label": 3 - item["label"]}


RELABELLED = {
    "own items": lambda: Relabelled(),
    "one row": lambda: Relabelled(first=7),
    "target_transform": lambda: Transformed(lambda label: 3 - label),
    "below a subset": lambda: Subset(Relabelled(), [5, 1]),
    "a part": lambda: ConcatDataset([Torchvision(), Relabelled()]),
    "pixels": lambda: RelabelledPixels(numbered(REVERSED)),
    "a view": lambda: RelabelledView(
        PixelDataset(numbered(list(CLASSES))), np.arange(8) % 4, labelled=True, class_set=CLASS_SET
    ),
}


@pytest.mark.parametrize("kind", RELABELLED)
def test_labels_that_items_contradict_are_refused(kind):
    with pytest.raises(ItemLabelError, match=r"row \d of it.* gives the label \d, but its \w+ say \d"):
        as_images(RELABELLED[kind](), CLASS_SET, name="it")


def test_an_item_that_is_relabelled_unseen_is_refused_when_it_is_read():
    items = [{"image": Image.new("RGB", (4, 4)), "label": row % 4} for row in range(40)]

    class Changing(Dataset):
        labels = [row % 4 for row in range(40)]
        changed = ()

        def __len__(self):
            return 40

        def __getitem__(self, index):
            return items[index] | ({"label": 3} if index in self.changed else {})

    data = Changing()
    view = as_images(data, CLASS_SET, name="it")
    data.changed = (2,)
    assert view[1]["label"] == 1 and as_images(data, CLASS_SET, labelled=False)[2].keys() == {"image", "row"}
    for shown in (view, view.select([2, 2, 2])):
        with pytest.raises(ItemLabelError, match="row 2 of it gives the label 3, but its labels say 2"):
            shown[2]
    data.changed, data.labels = (), None
    view = as_images(data, CLASS_SET, name="it")
    data.changed = (2,)
    with pytest.raises(ItemLabelError, match="its items, when they were first read, say 2"):
        view[2]


def test_names_that_a_relabelling_leaves_open_are_refused():
    with pytest.raises(ItemLabelError, match="it has a target_transform: nothing tells"):
        as_images(Transformed(lambda label: label // 2, targets=False), CLASS_SET, name="it")
    assert seen(as_images(Transformed(int), CLASS_SET)) == TRUE  # one that changes nothing
    with pytest.raises(UnnamedLabelsError, match="the labels of it have no names"):
        class_set_of(RelabelledSubset(Torchvision(), [5, 1]), name="it")
    assert as_images(RelabelledSubset(Torchvision(), [4, 1]), CLASS_SET).labels.tolist() == [0, 1]
    numbers = Torchvision()
    numbers.class_to_idx = {name: place for place, name in enumerate(REVERSED)}
    assert seen(as_images(numbers, CLASS_SET)) == TRUE
    numbers.class_to_idx = {name: place for place, name in enumerate(CLASSES)}
    with pytest.raises(
        ValueError, match=r"classes of it has '.*' at place 0, but its class_to_idx numbers it 3"
    ):
        as_images(numbers, CLASS_SET, name="it")
