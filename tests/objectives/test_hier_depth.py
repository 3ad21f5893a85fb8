"""Depth: superclasses nearer the centre than their classes, by the start, by the loss, after training."""

from __future__ import annotations

import math

import pytest
import torch
from hier_batch import CLASSES, DIM, KINDS, forest_of, make_batch, view_of
from tiny_data import CLASSES as TINY_CLASSES
from tiny_runs import make_trainer

from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.modeling import RobustCLIPModel
from hf_hierrobust.modeling.hier_head import HierHead
from hf_hierrobust.objectives import Composite, HierRobust, Targets, TextNodes
from hf_hierrobust.objectives.hierarchical import text_edges


def norms_of(model, states, levels) -> torch.Tensor:
    with torch.no_grad():
        return model.hier_head.text_tangent(model.project_text(states), levels).norm(dim=1)


def out_of_order(norms, forest, nodes) -> int:
    return sum(
        int((norms[parent] >= norms[child]).sum())
        for tree, rows in zip(forest, nodes.rows)
        for child, parent in text_edges(tree, rows)
    )


def trained(clip_dir, folder, tree, steps, **options):
    objective = HierRobust(**options)
    cheap = {"num_steps": 1, "per_device_train_batch_size": 4, "max_steps": steps, "learning_rate": 0.05}
    trainer = make_trainer(clip_dir, folder, tree=tree, objective=objective, **cheap)
    trainer.train()
    norms = norms_of(trainer.model, trainer.step.views.text.states, trainer.objective.text_levels)
    return trainer, norms


@pytest.fixture(scope="module")
def deep_tree():
    first, second, third, *others = TINY_CLASSES
    paths = {first: ["pair", "most"], second: ["pair", "most"], third: [third, "most"]}
    return LabelTree.from_paths(paths | {name: ["rest", "rest"] for name in others}, name="deep")


def test_levels_start_in_order_and_stay_so(tiny_clip_dir, tmp_path, deep_tree):
    trainer, norms = trained(tiny_clip_dir, tmp_path, deep_tree, steps=2)
    assert out_of_order(norms, trainer.forest, trainer.objective.nodes) == 0
    assert trainer.model.hier_head.text_levels == 3


def steps_on_a_fixed_batch(reduction: str, steps: int = 20) -> float:
    """Fraction of edges in order after a few SGD steps on the text projection and the images.

    24 classes in 8 kinds in 2 groups; at the start every parent lies 5 % farther out than its children, under
    one scale for all levels, so that only the loss can put them in order.
    """
    paths = {f"c{i}": [f"k{i // 3}", f"g{i // 12}"] for i in range(24)}
    objective = HierRobust(level_scales=False, edge_reduction=reduction)
    objective.setup(tuple(paths), Forest((LabelTree.from_paths(paths, name="t"),)))
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(len(objective.nodes.names), 16, generator=generator, dtype=torch.float64)
    states = 0.5 * torch.nn.functional.normalize(states, dim=1) * (1 + 0.05 * objective.nodes.levels[:, None])
    labels = torch.arange(24).repeat(2)
    noise = torch.randn(48, 16, generator=generator, dtype=torch.float64)
    images = (states[labels] + 0.05 * noise).requires_grad_()
    projection = torch.eye(16, dtype=torch.float64, requires_grad=True)
    head = HierHead(16)
    head.kappa.fill_(95.0)
    head.vic_radius.fill_(1.0)
    optimizer = torch.optim.SGD([projection, images], lr=5e-4, momentum=0.9)
    for _ in range(steps):
        texts = states @ projection
        loss = sum(objective.loss([view_of(images, texts, head)], Targets(labels)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    norms = (states @ projection).norm(dim=1)
    edges = sum(len(child) for child, _ in text_edges(objective.forest.trees[0], objective.nodes.rows[0]))
    return 1 - out_of_order(norms, objective.forest, objective.nodes) / edges


def test_the_sum_over_edges_puts_them_in_order_where_the_mean_does_not():
    assert steps_on_a_fixed_batch("sum") == 1
    assert steps_on_a_fixed_batch("mean") < 0.9


def test_calibration_places_images_and_levels_by_the_margin():
    objective = HierRobust(tangent_norm=0.6, gap_margin=0.05)
    objective.setup(CLASSES, forest_of([KINDS]))
    images, texts, labels, _ = make_batch(objective.nodes.names, dtype=torch.float32)
    images, texts = images.detach(), torch.nn.functional.normalize(texts.detach(), dim=1)
    head = HierHead(DIM)
    objective.calibrate(view_of(images, texts, head), labels)
    levels = objective.nodes.levels
    norms = head.text_tangent(texts, levels).norm(dim=1)
    assert float(norms[levels == 0].median()) == pytest.approx(0.6, rel=1e-5)
    assert float(head.image_tangent(images).norm(dim=1).median()) == pytest.approx(0.65, rel=1e-5)
    medians = [float(norms[levels == level].median()) for level in range(3)]
    assert medians[0] - medians[1] >= 0.05 - 1e-6 and medians[1] - medians[2] >= 0.05 - 1e-6


@pytest.mark.parametrize("leaf_norm", [None, 0.6, 1.5])
def test_calibration_places_levels_by_a_margin_of_ball_norms(leaf_norm):
    objective = HierRobust(tangent_norm=leaf_norm, gap_margin=0.04, gap_norm="ball")
    objective.setup(CLASSES, forest_of([KINDS]))
    images, texts, labels, _ = make_batch(objective.nodes.names, dtype=torch.float32)
    images, texts = images.detach(), 5 * torch.nn.functional.normalize(texts.detach(), dim=1)
    head = HierHead(DIM)
    objective.calibrate(view_of(images, texts, head), labels)
    levels = objective.nodes.levels
    norms = head.text_tangent(texts, levels).norm(dim=1).tanh()
    medians = [float(norms[levels == level].median()) for level in range(3)]
    assert medians[0] - medians[1] >= 0.04 - 1e-6 and medians[1] - medians[2] >= 0.04 - 1e-6


def test_padded_nodes_have_the_level_at_which_they_first_stand():
    nodes = TextNodes.of_forest(CLASSES, forest_of([KINDS]))
    levels = dict(zip(nodes.names, nodes.levels.tolist()))
    assert levels["oak"] == 0 and levels["rock"] == 0 and levels["pet"] == 1 and levels["plant"] == 2
    tree = forest_of([KINDS]).trees[0]
    own = dict(zip(tree.levels[2], tree.own_levels(2).tolist()))
    assert own == {"animal": 2, "plant": 2, "rock": 0}


def test_a_text_without_a_level_is_a_leaf_and_one_too_deep_has_the_top_scale():
    head = HierHead(DIM, text_levels=3)
    with torch.no_grad():
        head.log_text_scale.copy_(torch.tensor([4.0, 3.0, 2.0]).log())
    x = torch.eye(DIM)[:4]
    assert torch.allclose(head.text_tangent(x).norm(dim=1), torch.full((4,), 4.0))
    found = head.text_tangent(x, torch.tensor([0, 1, 2, 5])).norm(dim=1)
    assert torch.allclose(found, torch.tensor([4.0, 3.0, 2.0, 2.0]))


def test_scales_survive_a_checkpoint_and_a_deeper_tree_adds_its_own(tiny_clip_dir, tmp_path, deep_tree):
    flat = LabelTree.from_paths({leaf: path[-1:] for leaf, path in _paths(deep_tree)}, name="flat")
    trainer, _ = trained(tiny_clip_dir, tmp_path / "a", flat, steps=1)
    trainer.save_model()
    loaded = RobustCLIPModel.from_pretrained(tmp_path / "a")
    assert torch.equal(loaded.hier_head.log_text_scale, trainer.model.hier_head.log_text_scale)
    again = make_trainer(tmp_path / "a", tmp_path / "b", tree=deep_tree, objective=HierRobust())
    kept = again.model.hier_head.log_text_scale.detach().clone()
    again.calibrate()
    head = again.model.hier_head
    assert torch.equal(head.log_text_scale[:2], kept[:2]) and head.text_levels == 3
    assert torch.equal(head.kappa, loaded.hier_head.kappa)
    norms = norms_of(again.model, again.step.views.text.states, again.objective.text_levels)
    levels = again.objective.text_levels
    assert float(norms[levels == 2].median()) <= float(norms[levels == 1].median()) - 0.02 + 1e-5


def test_one_scale_for_all_levels_is_refused_where_the_head_has_one_a_level(
    tiny_clip_dir, tmp_path, deep_tree
):
    trainer, _ = trained(tiny_clip_dir, tmp_path / "a", deep_tree, steps=1)
    trainer.save_model()
    for objective in (
        HierRobust(level_scales=False),
        Composite(members={"hier_robust": {"level_scales": False}, "fare": {}}),
    ):
        with pytest.raises(ValueError, match=r"level_scales=False .* head has 3, one a level"):
            make_trainer(tmp_path / "a", tmp_path / "b", tree=deep_tree, objective=objective)


def test_a_level_made_of_classes_only_trains(tiny_clip_dir, tmp_path):
    """Padded classes stand there, and have the scale of classes."""
    first, second, third, last = TINY_CLASSES
    paths = {first: [first, "animal"], second: [first, "animal"]} | {c: [c, "plant"] for c in (third, last)}
    trainer, norms = trained(tiny_clip_dir, tmp_path, LabelTree.from_paths(paths, name="t"), steps=1)
    head, depths = trainer.model.hier_head, trainer.objective.text_levels
    assert head.text_levels == 3 and bool(head.log_text_scale.isfinite().all())
    assert float(norms[depths == 2].max()) < float(norms[depths == 0].median())


def test_levels_that_cannot_be_placed_are_refused_with_tree_and_level(tiny_clip_dir, tmp_path, deep_tree):
    trainer = make_trainer(tiny_clip_dir, tmp_path, tree=deep_tree, objective=HierRobust())
    with torch.no_grad():
        trainer.model.text_projection.weight.zero_()
    with pytest.raises(ValueError, match="tree 'deep': level 0 cannot be placed"):
        trainer.calibrate()


def _paths(tree):
    return tree.to_json()["paths"].items()


def test_ball_norms_as_printed():
    """With ``gap_norm="ball"`` the hinge acts on tanh(|v|)."""
    found = {}
    for kind in ("tangent", "ball"):
        objective = HierRobust(gap_norm=kind, intra_gap="none", gap_margin=0.0)
        objective.setup(("a", "b"), Forest((LabelTree.from_paths({"a": ["c"], "b": ["c"]}, name="t"),)))
        texts = torch.zeros(3, DIM, dtype=torch.float64)
        texts[0, 0], texts[1, 1], texts[2, 2] = 0.5, 0.6, 0.9
        head = HierHead(DIM)
        head.kappa.fill_(1.0)
        head.vic_radius.fill_(1.0)
        view = view_of(texts[:2].clone(), texts, head)
        found[kind] = float(objective.loss([view], Targets(torch.tensor([0, 1])))["label_gap"])
    assert found["tangent"] == pytest.approx(0.4 + 0.3)
    assert found["ball"] == pytest.approx(2 * math.tanh(0.9) - math.tanh(0.5) - math.tanh(0.6))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_medians_of_levels_are_held_apart_where_edges_in_order_do_not(reduction):
    """Two of five leaves have a parent, well below both; the other three lie as near the centre as it."""
    names = ("a", "b", "x", "y", "z")
    paths = {"a": ["c"], "b": ["c"]} | {name: [name] for name in names[2:]}
    objective = HierRobust(edge_reduction=reduction, intra_gap="none", gap_margin=0.1)
    objective.setup(names, Forest((LabelTree.from_paths(paths, name="t"),)))
    norms = dict(zip(names, (0.9, 0.8, 0.52, 0.5, 0.51))) | {"c": 0.48}
    texts = torch.zeros(6, DIM, dtype=torch.float64)
    for row, name in enumerate(objective.nodes.names):
        texts[row, row] = norms[name]
    texts.requires_grad_()
    head = HierHead(DIM)
    head.kappa.fill_(1.0)
    head.vic_radius.fill_(1.0)
    view = view_of(texts[:2].detach().clone(), texts, head)
    terms = objective.loss([view], Targets(torch.tensor([0, 1])))
    assert float(terms["label_gap"]) == 0
    edges = 2 if reduction == "sum" else 1
    assert float(terms["level_gap"]) == pytest.approx(edges * (0.48 - 0.52 + 0.1))
    terms["level_gap"].backward()
    slopes = {name: float(texts.grad[row, row]) for row, name in enumerate(objective.nodes.names)}
    assert slopes == pytest.approx(dict.fromkeys(names, 0.0) | {"x": -edges, "c": edges})
    plain = HierRobust(edge_reduction=reduction, intra_gap="none", gap_margin=0.1, level_gap=False)
    plain.setup(names, objective.forest)
    assert "level_gap" not in plain.loss([view], Targets(torch.tensor([0, 1])))
