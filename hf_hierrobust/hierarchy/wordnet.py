"""Class trees cut out of WordNet 3.0 (OC-3)."""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from ..files import read_json
from .checks import TreeError, nearest, normalise
from .tree import LabelTree

__all__ = ["WordNet", "wordnet_tree"]

LICENCE = "WordNet 3.0 licence: free use, modification and redistribution with Princeton University's notice"
DEBIAN_DIRECTORY = Path("/usr/share/wordnet")
ENVIRONMENT_VARIABLE = "HF_HIERROBUST_WORDNET"
_WNID = re.compile(r"n\d{8}")


class DepthError(TreeError):
    """WordNet does not divide these classes into so many levels."""


class WordNet:
    """The nouns of WordNet 3.0 as a spanning tree: one parent per synset (OC-3).

    A noun synset is named by its wnid, ``n`` and its eight-digit offset, as in ImageNet.

    Args:
        path: directory with the database files (``data.noun``, ``index.noun``, ... as installed by Debian's
            ``wordnet-base``; read by nltk) or a parquet file with the columns wnid, lemmas, hypernyms and
            instance_hypernyms. Default: the environment variable HF_HIERROBUST_WORDNET, then
            /usr/share/wordnet. The parquet form has no sense ranks: ambiguous names must be given as wnids.

    Raises:
        FileNotFoundError: neither is there; the message gives the command that installs it.
        ImportError: a directory is given and nltk is not installed.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        path = Path(path or os.environ.get(ENVIRONMENT_VARIABLE) or DEBIAN_DIRECTORY)
        self.ranked = path.suffix != ".parquet"
        if not (path / "data.noun" if self.ranked else path).is_file():
            raise FileNotFoundError(
                f"no WordNet at {path}: install it with `apt-get install wordnet-base` and `pip install "
                f"'hf_hierrobust[wordnet]'`, or set {ENVIRONMENT_VARIABLE} to a directory with data.noun and "
                "index.noun, or to a parquet file with columns wnid, lemmas, hypernyms, instance_hypernyms"
            )
        self._nouns = _DatabaseNouns(path) if self.ranked else _ParquetNouns(path)
        self._paths: dict[str, tuple[str, ...]] = {}

    def lemmas(self, wnid: str) -> list[str]:
        """Names of a synset, most usual first, with blanks for underscores."""
        return self._nouns.entry(wnid)[0]

    def synonyms(self, word: str) -> list[str]:
        """Names that share a synset with a word, sense by sense, the word itself among them.

        Database files know all parts of speech, the parquet form nouns only.
        """
        return [name for names in self._nouns.synonyms(normalise(word)) for name in names]

    def definition(self, wnid: str) -> str:
        """The synset's gloss; empty where the file has none (the parquet form)."""
        return self._nouns.definition(wnid)

    def path(self, wnid: str) -> tuple[str, ...]:
        """wnids from ``entity`` down to the synset: its shortest hypernym path, ties to the smaller wnids."""
        if wnid not in self._paths:
            above = [self.path(parent) for parent in self._nouns.entry(wnid)[1]]
            self._paths[wnid] = (*min(above, key=lambda path: (len(path), path), default=()), wnid)
        return self._paths[wnid]

    def common_ancestor(self, wnids: Sequence[str]) -> str:
        """Deepest synset on the paths of all ``wnids``."""
        together = itertools.takewhile(lambda nodes: len(set(nodes)) == 1, zip(*map(self.path, wnids)))
        return list(together)[-1][0]

    def senses(self, name: str) -> list[str]:
        """wnids of the noun senses of a class name that are kinds, not individuals; a wnid stands for itself.

        Raises:
            TreeError: no such noun, with the nearest ones.
        """
        if _WNID.fullmatch(name):
            self._nouns.entry(name)
            return [name]
        form = normalise(name)
        senses = [wnid for wnid in self._nouns.senses(form) if self._nouns.is_kind(wnid)]
        if not senses and form.endswith(
            " tree"
        ):  # WordNet lists "maple" and "pine" where people say "pine tree"
            senses = [wnid for wnid in self._nouns.senses(form[:-5]) if self._nouns.is_kind(wnid)]
        if not senses:
            raise TreeError(f"class {name!r} is no WordNet noun{nearest(name, self._nouns.names())}")
        return senses

    def find(self, name: str) -> str:
        """wnid of a class name (or of a wnid): its first noun sense that is a kind, not an individual.

        Raises:
            TreeError: no such noun (with the nearest ones), or several senses and no ranks to choose by.
        """
        senses = self.senses(name)
        if len(senses) > 1 and not self.ranked:
            raise TreeError(
                f"class {name!r} has the noun senses {senses} and this WordNet file does not rank them: give "
                f"a class-set file with wnids, or senses={{{name!r}: ...}}"
            )
        return senses[0]


class _DatabaseNouns:
    """Nouns of a WordNet database directory, through nltk."""

    def __init__(self, directory: Path) -> None:
        try:
            import nltk
            from nltk.corpus.reader.wordnet import WordNetCorpusReader
        except ImportError as error:
            raise ImportError(
                "reading WordNet's database files needs nltk: pip install 'hf_hierrobust[wordnet]'"
            ) from error

        class Reader(WordNetCorpusReader):
            def open(self, file):
                # Debian ships no lexnames; nltk wants its 45 lines, though only .lexname() uses them
                if file == "lexnames" and not (directory / file).exists():
                    return io.StringIO("\n".join(f"{index} unnamed 1" for index in range(45)))
                return super().open(file)

            def map_wn(self, version="wordnet"):
                return None  # a map to other WordNet versions would need nltk's own download

        if str(directory) not in nltk.data.path:  # nltk refuses directories that are not registered
            nltk.data.path.append(str(directory))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The multilingual functions")
            self.reader = Reader(str(directory), None)

    def _synset(self, wnid: str):
        try:
            return self.reader.synset_from_pos_and_offset("n", int(wnid[1:]))
        except Exception as error:  # nltk raises a different type for each kind of wrong offset
            raise TreeError(f"WordNet has no noun synset {wnid!r}") from error

    def entry(self, wnid: str) -> tuple[list[str], list[str]]:
        synset = self._synset(wnid)
        above = synset.hypernyms() or synset.instance_hypernyms()
        return [_text(name) for name in synset.lemma_names()], [f"n{node.offset():08d}" for node in above]

    def definition(self, wnid: str) -> str:
        return self._synset(wnid).definition()

    def is_kind(self, wnid: str) -> bool:
        return not self._synset(wnid).instance_hypernyms()

    def senses(self, form: str) -> list[str]:
        return [f"n{synset.offset():08d}" for synset in self.reader.synsets(form.replace(" ", "_"), "n")]

    def names(self) -> list[str]:
        return [_text(name) for name in self.reader.all_lemma_names("n")]

    def synonyms(self, form: str) -> list[list[str]]:
        synsets = self.reader.synsets(form.replace(" ", "_"))
        return [[_text(name) for name in synset.lemma_names()] for synset in synsets]


class _ParquetNouns:
    """Nouns of a parquet table with one row per synset."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(
            path, columns=["wnid", "lemmas", "hypernyms", "instance_hypernyms"]
        )
        self.rows = {row[0]: row[1:] for row in zip(*table.to_pydict().values())}
        self.by_name: dict[str, list[str]] = {}
        for wnid, (lemmas, _, _) in self.rows.items():
            for lemma in lemmas:
                self.by_name.setdefault(normalise(lemma), []).append(wnid)

    def entry(self, wnid: str) -> tuple[list[str], list[str]]:
        if wnid not in self.rows:
            raise TreeError(f"WordNet has no noun synset {wnid!r}")
        lemmas, hypernyms, instance_hypernyms = self.rows[wnid]
        return [_text(lemma) for lemma in lemmas], hypernyms or instance_hypernyms

    def definition(self, wnid: str) -> str:
        return ""

    def is_kind(self, wnid: str) -> bool:
        return not self.rows[wnid][2]

    def senses(self, form: str) -> list[str]:
        return self.by_name.get(form, [])

    def names(self) -> list[str]:
        return list(self.by_name)

    def synonyms(self, form: str) -> list[list[str]]:
        return [self.entry(wnid)[0] for wnid in self.senses(form)]


def _text(lemma: str) -> str:
    return lemma.replace("_", " ")


def wordnet_tree(
    classes: Sequence[str],
    *,
    depth: int = 5,
    cuts: Sequence[int] | None = None,
    senses: Mapping[str, str] | None = None,
    wordnet: WordNet | None = None,
    name: str = "wordnet",
    display: Mapping[str, str] | None = None,
) -> LabelTree:
    """Tree of L = ``depth`` levels above the classes, cut out of WordNet at absolute depths (OC-3).

    Level l holds the ancestors at depth ``cuts[l-1]`` below ``entity``; a class that is no deeper repeats
    itself. Without ``cuts``, of all choices with ``K_0 > K_1 > ... > K_L >= 2`` the one is taken whose
    *effective* sizes are nearest, in squared log distance, to the geometric series from K_0 down to the
    dropped root, ``K_0^(1 - l/(L+1))`` (for 1000 classes and L = 5: 316, 100, 32, 10, 3). The effective size
    of a level is the exponential of the entropy of its class counts: WordNet's upper levels hold one giant
    node beside small ones ("physical entity" has 99 of CIFAR-100's classes), which node counts would take for
    a division.

    Args:
        classes: class names or wnids; they become the keys of the leaves.
        depth: L.
        cuts: L strictly decreasing depths instead of the search.
        senses: class name -> wnid, for names whose first noun sense is not the one meant.
        wordnet: default ``WordNet()``.
        display: prompt names of leaves; default the class name with blanks, or a wnid's first lemma. Above
            the leaves what says little to a text encoder is put plainly ("artifact": "man-made object").

    Raises:
        TreeError: unknown class, two classes of one synset, or, as `DepthError`, no cuts with strictly
            decreasing sizes.
    """
    wordnet = wordnet or WordNet()
    senses = dict(senses or {})
    unknown = sorted(set(senses) - set(classes))
    if unknown:
        raise TreeError(f"senses names {unknown}, which are not among the classes")
    owner: dict[str, str] = {}
    chains: dict[str, tuple[str, ...]] = {}
    for leaf in classes:
        wnid = wordnet.find(senses.get(leaf, leaf))
        if wnid in owner:
            raise TreeError(
                f"classes {owner[wnid]!r} and {leaf!r} are both {wnid}: give one of them another sense, by a "
                f"class-set file with wnids or senses={{{leaf!r}: ...}}"
            )
        owner[wnid] = leaf
        chains[leaf] = wordnet.path(wnid)
    cuts = tuple(cuts) if cuts is not None else _choose_cuts(list(chains.values()), depth)
    shown = {leaf: _text(leaf) for leaf in classes if "_" in leaf} | dict(display or {})
    taken = {normalise(text) for text in (*classes, *shown.values())}
    for wnid in classes:
        if _WNID.fullmatch(wnid) and wnid not in shown:
            shown[wnid] = _free_name(wordnet, wnid, taken)
    nodes = {leaf: [chain[min(cut, len(chain) - 1)] for cut in cuts] for leaf, chain in chains.items()}
    keys = dict(owner)  # a class that is also an ancestor of another class keeps its one key
    for wnid in sorted({wnid for path in nodes.values() for wnid in path} - set(owner)):
        keys[wnid] = _free_name(wordnet, wnid, taken)
    shown |= plain_names(set(keys.values()) - set(classes), taken)
    paths = {leaf: [keys[wnid] for wnid in path] for leaf, path in nodes.items()}
    source = f"WordNet 3.0, one shortest hypernym path per synset, cut at depths {', '.join(map(str, cuts))}"
    return LabelTree.from_paths(paths, name=name, display=shown, source=source, licence=LICENCE)


def plain_names(keys: Iterable[str], taken: Set[str]) -> dict[str, str]:
    """Everyday words for those of WordNet's abstract synsets that have any, unless another node is called so.

    Args:
        keys: of nodes above the leaves.
        taken: normalised names of all nodes.
    """
    plain = read_json(Path(__file__).with_name("plain_names.json"))
    return {key: plain[key] for key in sorted(keys) if key in plain and normalise(plain[key]) not in taken}


def _choose_cuts(chains: list[tuple[str, ...]], levels: int) -> tuple[int, ...]:
    options: dict[int, tuple[int, float]] = {}  # size -> shallowest cut with it, log effective size
    for cut in range(1, max(map(len, chains))):
        counts = Counter(chain[min(cut, len(chain) - 1)] for chain in chains).values()
        entropy = -sum(n / len(chains) * math.log(n / len(chains)) for n in counts)
        if 2 <= len(counts) < len(chains):
            options.setdefault(len(counts), (cut, entropy))
    if levels < 1 or len(options) < levels:
        raise DepthError(
            f"depth={levels} is not possible: between {len(chains)} classes and the root WordNet has levels "
            f"of {sorted(options, reverse=True)} nodes only"
        )
    target = [math.log(len(chains)) * (1 - level / (levels + 1)) for level in range(1, levels + 1)]
    best = min(
        itertools.combinations(sorted(options, reverse=True), levels),
        key=lambda sizes: sum((options[size][1] - goal) ** 2 for size, goal in zip(sizes, target)),
    )
    return tuple(options[size][0] for size in best)


def _free_name(wordnet: WordNet, wnid: str, taken: set[str]) -> str:
    """First lemma not in ``taken``, else the first with its parent's or its wnid; noted in ``taken``."""
    lemmas = wordnet.lemmas(wnid)
    parents = wordnet.lemmas(wordnet.path(wnid)[-2]) if len(wordnet.path(wnid)) > 1 else []
    candidates = [*lemmas, *(f"{lemmas[0]} ({parent})" for parent in parents), f"{lemmas[0]} ({wnid})"]
    name = next(text for text in candidates if normalise(text) not in taken)
    taken.add(normalise(name))
    return name
