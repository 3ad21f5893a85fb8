"""Rebuild hf_hierrobust/hierarchy/trees/*.json.

    python tools/make_builtin_trees.py --classes classes.parquet --clip PATH_OR_ID [--wordnet PATH]

``classes.parquet`` has one row per class of imagenet1k, tinyimagenet200, cifar100 and cifar10, with the
columns dataset, index, name, clip_name, wnid, coarse_name and gloss.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer, CLIPModel

from hf_hierrobust.hierarchy import LabelTree, WordNet, induced_tree, wordnet_tree

OUT = Path(__file__).parents[1] / "hf_hierrobust" / "hierarchy" / "trees"
TEMPLATE = "This is a photo of a {}, {}."  # name and gloss: bare names say too little to a small text tower


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", required=True, help="parquet file with one row per class")
    parser.add_argument(
        "--clip", required=True, help="CLIP model whose text tower embeds the CIFAR-100 names"
    )
    parser.add_argument("--wordnet", default=None, help="WordNet directory or parquet file")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()

    rows = Dataset.from_parquet(args.classes).to_list()
    wordnet = WordNet(args.wordnet)
    cifar100, cifar10, tiny, imagenet = (
        sorted((row for row in rows if row["dataset"] == dataset), key=lambda row: row["index"])
        for dataset in ("cifar100", "cifar10", "tinyimagenet200", "imagenet1k")
    )
    # two ImageNet classes share the prompt name "missile", two "sunglasses": WordNet's lemmas tell them apart
    counts = Counter(row["clip_name"] for row in imagenet)
    for row in imagenet:
        row["published"] = row["clip_name"]
        row["clip_name"] = row["clip_name"] if counts[row["clip_name"]] == 1 else row["name"]
    for row in [*imagenet, *cifar100, *cifar10]:
        row["name"] = row["clip_name"]  # Tiny ImageNet keeps the data set's names as keys

    trees = [
        official_cifar100(cifar100),
        from_wordnet(cifar100, wordnet, "cifar100-wordnet", depth=3),
        induced_cifar100(cifar100, wordnet, args.clip),
        from_wordnet(cifar10, wordnet, "cifar10", depth=2),
        from_wordnet(tiny, wordnet, "tinyimagenet", depth=5),
        replace(from_wordnet(imagenet, wordnet, "imagenet", depth=5), aliases=published_names(imagenet)),
    ]
    for tree in trees:
        path = args.out / f"{tree.name}.json"
        path.write_text(json.dumps(tree.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(tree.name, tree.sizes, tree.hash)


def prompt_names(rows: list[dict]) -> dict[str, str]:
    return {row["name"]: row["clip_name"] for row in rows if row["name"] != row["clip_name"]}


def published_names(rows: list[dict]) -> dict[str, tuple[str, ...]]:
    return {row["name"]: (row["published"],) for row in rows if row["name"] != row["published"]}


def from_wordnet(rows: list[dict], wordnet: WordNet, name: str, depth: int) -> LabelTree:
    senses = {row["name"]: row["wnid"] for row in rows}
    return wordnet_tree(
        list(senses), depth=depth, senses=senses, wordnet=wordnet, name=name, display=prompt_names(rows)
    )


def official_cifar100(rows: list[dict]) -> LabelTree:
    return LabelTree.from_paths(
        {row["name"]: [row["coarse_name"].replace("_", " ")] for row in rows},
        name="cifar100",
        source="superclasses of CIFAR-100 (Krizhevsky 2009)",
        licence="none stated by the source, which asks for citation; names and grouping are facts",
    )


def induced_cifar100(rows: list[dict], wordnet: WordNet, clip: str) -> LabelTree:
    model = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(clip)
    prompts = [TEMPLATE.format(row["clip_name"], row["gloss"]) for row in rows]
    length = model.config.text_config.max_position_embeddings
    with torch.no_grad():
        pooled = model.text_model(
            **tokenizer(prompts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        ).pooler_output
        embeddings = model.text_projection(pooled)
    tree = induced_tree(
        [row["name"] for row in rows],
        embeddings,
        level_sizes=(25, 8),
        wordnet=wordnet,
        senses={row["name"]: row["wnid"] for row in rows},
        name="cifar100-induced",
    )
    source = f"{tree.source}; embeddings of '{TEMPLATE}' with name and WordNet gloss, small CLIP text tower"
    return replace(tree, source=source)


if __name__ == "__main__":
    main()
