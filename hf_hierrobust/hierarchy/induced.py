"""Class trees induced from text embeddings by agglomerative clustering."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch

from .checks import TreeError, normalise
from .leaf_names import aliases_of, distinct_keys
from .tree import LabelTree
from .wordnet import LICENCE, WordNet

__all__ = ["induced_tree"]

Cluster = tuple[int, ...]  # sorted class indices


def induced_tree(
    class_names: Sequence[str],
    text_embeddings: torch.Tensor,
    *,
    level_sizes: Sequence[int] = (25, 8),
    linkage: str = "average",
    center: bool = True,
    wordnet: WordNet | None = None,
    senses: Mapping[str, str] | None = None,
    min_depth: int = 4,
    name: str = "induced",
) -> LabelTree:
    """Nested clusters of the classes by cosine distance of their text embeddings.

    A cluster of one class repeats the class. A larger one is named after the deepest common WordNet ancestor
    of its classes if ``wordnet`` is given, that ancestor is specific enough and at least half of the classes
    below it are in the cluster; else after its most central classes, "trout, shark or similar", as many as
    make the name unique.

    Args:
        class_names: K names, the keys of the leaves, a repeated one with its number; underscores become
            blanks in the prompt names.
        text_embeddings: ``(K, D)``, any scale.
        level_sizes: number of nodes of each level above the leaves, strictly decreasing.
        linkage: "average", "complete" or "single" (`scipy.cluster.hierarchy.linkage`); complete linkage gives
            more even clusters.
        center: subtract the mean embedding first. Text embeddings of one template share a large component,
            which shrinks all distances and leaves the clustering to chance.
        wordnet: where to look for names.
        senses: class name -> wnid for ``wordnet``.
        min_depth: least depth below ``entity`` of an ancestor that may name a cluster. The default admits
            "artifact" and "living thing" and refuses "object", "whole" and other nodes above them.

    Raises:
        TreeError: wrong shapes, embeddings that are zero or not finite, or impossible level sizes.
    """
    import scipy.cluster.hierarchy

    count = len(class_names)
    if text_embeddings.ndim != 2 or len(text_embeddings) != count:
        raise TreeError(f"text_embeddings must be ({count}, D), got {tuple(text_embeddings.shape)}")
    embeddings = text_embeddings.detach().double().cpu()
    bad = [class_names[i] for i, e in enumerate(embeddings) if not (e.isfinite().all() and e.any())]
    if bad:
        raise TreeError(f"the text embeddings of {bad} are zero or not finite")
    if sorted({count, *level_sizes, 1}, reverse=True) != [count, *level_sizes, 1]:
        raise TreeError(
            f"level_sizes must fall strictly from below {count} classes to at least 2, got {level_sizes}"
        )
    if linkage not in ("average", "complete", "single"):
        raise TreeError(f"linkage={linkage!r} must be 'average', 'complete' or 'single'")

    unit = torch.nn.functional.normalize(embeddings - embeddings.mean(0) * center, dim=1)
    merges = scipy.cluster.hierarchy.linkage(unit.numpy(), method=linkage, metric="cosine")
    assignment = scipy.cluster.hierarchy.cut_tree(merges, n_clusters=list(level_sizes))
    levels: list[list[Cluster]] = []
    for column in assignment.T:
        members: dict[int, list[int]] = {}
        for index, cluster in enumerate(column.tolist()):
            members.setdefault(cluster, []).append(index)
        levels.append([tuple(cluster) for cluster in members.values()])

    leaves = distinct_keys(class_names)
    texts = [leaf.replace("_", " ") for leaf in leaves]
    wnids = [wordnet.find((senses or {}).get(n, n)) for n in class_names] if wordnet else None
    keys: dict[Cluster, str] = {(index,): leaf for index, leaf in enumerate(leaves)}
    taken = {normalise(text) for text in texts}
    for level in levels:
        fresh = [cluster for cluster in level if cluster not in keys]
        for cluster in fresh:
            candidates = _central_names(cluster, unit, class_names)
            candidates += _central_names(cluster, unit, texts)  # where repeated names make no difference
            if wordnet:
                wnid = wordnet.common_ancestor([wnids[i] for i in cluster])
                below = sum(wnid in wordnet.path(other) for other in wnids)
                if len(wordnet.path(wnid)) > min_depth and 2 * len(cluster) >= below:
                    candidates.insert(0, wordnet.lemmas(wnid)[0])
            numbered = (f"{candidates[-1]} ({number})" for number in itertools.count(2))
            names = itertools.chain(candidates, numbered)
            keys[cluster] = next(text for text in names if normalise(text) not in taken)
            taken.add(normalise(keys[cluster]))

    cluster_of = [{index: cluster for cluster in level for index in cluster} for level in levels]
    return LabelTree.from_paths(
        {leaf: [keys[clusters[i]] for clusters in cluster_of] for i, leaf in enumerate(leaves)},
        name=name,
        display={leaf: text for leaf, text in zip(leaves, texts) if leaf != text},
        aliases=aliases_of(leaves, class_names),
        source=f"{linkage} linkage on cosine distances of text embeddings"
        + (", nodes named by WordNet 3.0 where possible" if wordnet else ""),
        licence=f"node names: {LICENCE}" if wordnet else "",
    )


def _central_names(cluster: Cluster, unit: torch.Tensor, texts: Sequence[str]) -> list[str]:
    """Names made of the 1, 2, ... classes nearest to the cluster's mean; the last one lists all."""
    members = unit[list(cluster)]
    # rounded, so that the tie of any two-class cluster goes to the first class and not to float noise
    order = (members @ members.mean(0)).round(decimals=6).argsort(descending=True, stable=True).tolist()
    central = list(dict.fromkeys(texts[cluster[i]].replace("_", " ") for i in order))
    return [", ".join(central[:n]) + " or similar" for n in range(1, len(central) + 1)]
