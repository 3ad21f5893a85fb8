"""Sizes of the images of a data set, and the threat space that they allow."""

from __future__ import annotations

from itertools import islice

import numpy as np

from .decoding import to_pil
from .views import ImageStream, ImageView

MAX_HEADERS = 20_000
"""Images of a set whose size is looked at; larger sets are looked at in so many places."""


def mixed_sizes(images: ImageView | ImageStream) -> str | None:
    """None where all images have one size, else the two images that show the opposite, for a message.

    Headers are read, nothing is decoded: some seconds for `MAX_HEADERS` images. Of a stream the first 64
    images are looked at, decoded.
    """
    if isinstance(images, ImageStream):
        sizes = ((index, to_pil(item["image"]).size) for index, item in enumerate(islice(iter(images), 64)))
    else:
        count = len(images)
        places = np.unique(np.linspace(0, count - 1, min(count, MAX_HEADERS)).astype(int))
        sizes = ((int(place), images.size_of(place)) for place in places)
    first, expected = next(sizes)
    for place, size in sizes:
        if size != expected:
            return (
                f"image {first} of {images.source} is {expected[0]}x{expected[1]} and image {place} is "
                f"{size[0]}x{size[1]}"
            )
    return None


def threat_space_for(
    *sets: ImageView | ImageStream | None, argument: str = "threat_space"
) -> tuple[str, str]:
    """The threat space that fits some data sets, and the reason as a sentence.

    ``"native"`` where every set has images of one size, which the attack then perturbs as they are; else
    ``"model"``: they are resized and cropped to the model's size first.

    Args:
        argument: what the caller calls the threat space.
    """
    for images in sets:
        found = None if images is None else mixed_sizes(images)
        if found is not None:
            return "model", f"{argument}='model' was chosen, since images differ in size: {found}."
    return "native", f"{argument}='native' was chosen: the images of each set have one size."
