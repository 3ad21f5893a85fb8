from __future__ import annotations

import itertools

import pytest
import torch

from hf_hierrobust.hierarchy import TreeError, induced_tree

NAMES = ["cat", "dog", "wolf", "maple_tree", "oak_tree", "bus", "tram"]
GROUPS = [0, 0, 0, 1, 1, 2, 2]


def embeddings() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 8) + 3 * torch.ones(8)  # a large common part, as CLIP's text embeddings have
    return centres[GROUPS] + 0.05 * torch.randn(len(NAMES), 8, generator=generator)


def test_planted_clusters_come_back_nested():
    tree = induced_tree(NAMES, embeddings(), level_sizes=(3, 2))
    groups = tree.ancestors(1).tolist()
    assert len({(a, b) for a, b in zip(groups, GROUPS)}) == 3
    assert tree.sizes == (7, 3, 2)
    assert tree.display_names(0)[3] == "maple tree"
    assert all(text.endswith(" or similar") for text in tree.display_names(1))


def test_clusters_that_do_not_change_are_padding():
    tree = induced_tree(NAMES, embeddings(), level_sizes=(4, 3))
    assert tree.self_loops(0).any() or tree.self_loops(1).any()
    assert tree.self_loops(1).sum() == 2


def test_scale_of_the_embeddings_does_not_matter():
    assert induced_tree(NAMES, embeddings()[:, :6] * 7, level_sizes=(3,)).sizes == (7, 3)
    assert induced_tree(NAMES, embeddings() * 7, level_sizes=(3, 2)) == induced_tree(
        NAMES, embeddings(), level_sizes=(3, 2)
    )


def test_repeated_names_get_keys_of_their_own():
    names = ["crane", "dog", "crane", "maple_tree", "Maple Tree", "crane (2)"]
    places = torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0], [-1, -0.1]])
    tree = induced_tree(names, places, level_sizes=(3, 2))
    assert tree.leaves == ("crane", "dog", "crane (2)'", "maple_tree", "Maple Tree (4)", "crane (2)")
    assert tree.ancestors(1).tolist() in ([a, a, b, b, c, c] for a, b, c in itertools.permutations(range(3)))
    assert tree.align(names) == tree


def test_clusters_of_the_same_names_are_told_apart():
    names = ["crane", "dog", "crane", "dog"]
    places = torch.tensor([[1.0, 0.0], [1, 0.1], [-1, 0], [-1, 0.1]])
    tree = induced_tree(names, places, level_sizes=(2,))
    assert len(set(tree.levels[1])) == 2 and tree.ancestors(1)[[0, 2]].unique().numel() == 2
    assert tree.align(names) == tree


class ToyWordNet:
    paths = {
        "cat": "entity animal cat",
        "dog": "entity animal canine dog",
        "wolf": "entity animal canine wolf",
        "maple_tree": "entity plant tree maple",
        "oak_tree": "entity plant tree oak",
        "bus": "entity vehicle bus",
        "tram": "entity plant tree tram",
    }

    def find(self, name):
        return self.paths[name].split()[-1]

    def path(self, wnid):
        return next(
            tuple(p.split()[: p.split().index(wnid) + 1]) for p in self.paths.values() if wnid in p.split()
        )

    def lemmas(self, wnid):
        return [wnid]

    def common_ancestor(self, wnids):
        return [nodes[0] for nodes in zip(*map(self.path, wnids)) if len(set(nodes)) == 1][-1]


def test_common_ancestor_names_a_cluster_only_where_it_fits():
    tree = induced_tree(NAMES, embeddings(), level_sizes=(3,), wordnet=ToyWordNet(), min_depth=1)
    assert tree.superclass("wolf", 1) == "animal"
    assert tree.superclass("oak_tree", 1) == "tree"  # also above "tram", but mostly this cluster's
    assert tree.superclass("bus", 1).endswith("or similar")  # bus and tram meet at the root only
    general = induced_tree(NAMES, embeddings(), level_sizes=(3,), wordnet=ToyWordNet(), min_depth=2)
    assert general.superclass("wolf", 1).endswith("or similar")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_embeddings": torch.ones(3, 4)}, r"must be \(7, D\), got \(3, 4\)"),
        ({"text_embeddings": torch.cat([embeddings()[:6], torch.zeros(1, 8)])}, r"\['tram'\] are zero"),
        ({"level_sizes": (2, 3)}, "fall strictly"),
        ({"level_sizes": (7,)}, "fall strictly"),
        ({"level_sizes": (1,)}, "fall strictly"),
        ({"linkage": "ward"}, "linkage='ward'"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"text_embeddings": embeddings(), "level_sizes": (3, 2)} | change
    with pytest.raises(TreeError, match=message):
        induced_tree(NAMES, **arguments)
