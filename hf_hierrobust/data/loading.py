"""Labelled images from files, folders, saved datasets or the Hub, in standard columns."""

from __future__ import annotations

import datasets as hf

from .columns import MissingColumnError
from .labels import HFDataset
from .sources import Source, describe, lists_in, open_source
from .standard import PLACE, EmptyDatasetError, standard_dataset
from .streams import numbered_stream


def load_images(
    source: Source,
    *,
    split: str = "train",
    config: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    labelled: bool = True,
    streaming: bool = False,
    cache_dir: str | None = None,
) -> HFDataset:
    """Load a labelled image set and give its columns their standard names.

    Args:
        source: Hub id; file, glob or list of files of one kind (parquet, CSV, TSV, JSON, JSON lines, or
            webdataset tars); folder of such files; image folder (one sub-folder per class, or a
            ``metadata.csv`` or ``metadata.jsonl``); or folder written by ``save_to_disk``. Paths in a file's
            image column are followed inside the file's own folder only.
        split: split name, ``"train[:1000]"`` style slices included. Files named one by one have no split:
            they are all read.
        config: configuration name of a Hub dataset.
        image_column, label_column: needed only where the columns cannot be told by type or usual name.
        caption_column: text column to keep as ``caption``; None keeps none.
        labelled: False looks for no labels, for objectives that need none.
        streaming: read rows as they come instead of preparing an Arrow copy.

    Returns:
        Dataset with ``image`` (PIL on access), ``label`` (ClassLabel where names are known, else integers, in
        a stream perhaps text; absent if not labelled), ``caption`` where asked for and ``row``: the position
        in the source, which survives any later selection. In a stream ``row`` is the position in the file or
        shard that ``file`` names.

    Raises:
        FileNotFoundError: a path or glob that leads nowhere.
        EmptyDatasetError: no rows.
        ImagePathError: an image path that leads out of the data's folder, onto a network or nowhere.
        MissingColumnError: no (single) image or label column, or no such text column of captions.
        MissingSplitError: an unknown split (its ``known`` are those there are).
        ValueError: an unreadable file.
    """
    columns = {
        "image_column": image_column,
        "label_column": label_column,
        "caption_column": caption_column,
    }
    dataset = open_source(
        source, split, config=config, streaming=streaming, cache_dir=cache_dir, image_column=image_column
    )
    where = f"{describe(source)} (split {split!r})"
    try:
        dataset = standard_dataset(dataset, where, **columns, labelled=labelled)
    except MissingColumnError as error:
        lists = lists_in(source)
        if not lists:
            raise
        raise MissingColumnError(f"{error} It holds {lists[0]!r}: give that file as the source.") from error
    if next(iter(dataset.take(1)), None) is None:
        raise EmptyDatasetError(f"{where} has no rows; check the path and the split.")
    if streaming and isinstance(dataset, hf.Dataset):
        dataset = dataset.to_iterable_dataset()
    elif streaming and not set(PLACE) <= set(dataset.features):
        dataset = numbered_stream(dataset, describe(source))
    return dataset.cast_column("image", hf.Image())
