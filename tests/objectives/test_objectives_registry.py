"""What every registered objective promises, whichever it is."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import torch
from tiny_data import CLASSES, make_images
from tiny_runs import furthest, group_of, inner_loss_of, make_trainer, perturb, views_of, weights
from whole_batch import set_up

from hf_hierrobust.adapters.trainable import GROUPS
from hf_hierrobust.attacks import TRAINING_ATTACKS, Perturbation
from hf_hierrobust.data import PixelCollator, PixelDataset
from hf_hierrobust.hierarchy import Forest, LabelTree
from hf_hierrobust.objectives import OBJECTIVES, AdvFLYP, Composite, HierAGFT, HierRobust, Objective, TeCoA
from hf_hierrobust.registry import Registry

NAMES = OBJECTIVES.names()


def test_the_registry_finds_the_papers_methods():
    papers = {"advflyp", "agft", "comp_tga", "fare", "hier_robust", "mmcoa", "pmg_aft", "tecoa", "tga_zsr"}
    assert papers | {"clean", "plain", "composite", "hier_agft", "hier_mmcoa"} == set(NAMES)
    with pytest.raises(KeyError, match=r"hier_robust.*did you mean 'hier_robust'"):
        OBJECTIVES.get("hier_robus")


def test_two_objectives_of_one_name_are_refused():
    registry = Registry("objective", "hf_hierrobust.objectives")
    registry.register(type("A", (), {"name": "same"}))
    with pytest.raises(ValueError, match="'same' is registered twice"):
        registry.register(type("B", (), {"name": "same"}))


@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_complete(name):
    cls = OBJECTIVES.get(name)
    assert issubclass(cls, Objective) and cls.name == name and cls.title and cls.__doc__
    assert set(cls.trains) <= set(GROUPS) and cls.trains
    assert cls.default_attack == "none" or cls.default_attack in TRAINING_ATTACKS.names()
    assert not cls.paper_id or re.fullmatch(r"\d{4}\.\d{4,5}", cls.paper_id)
    assert bool(cls.paper_id) == bool(cls.citation), "a paper comes with its citation"
    assert all(f.kw_only for f in fields(cls) if f.init)
    assert cls().options().keys() == {f.name for f in fields(cls) if f.init}


@pytest.fixture(scope="module")
def fixed_batch():
    return PixelDataset(make_images(8, seed=3))


def disturb(trainer) -> None:
    """Move the trained weights off the original's, where an objective that holds on to it has its optimum."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)


def entropy_of_targets(trainer, dataset) -> float:
    """Below this no loss of AGFT can fall: its targets are soft."""
    if trainer.objective.name != "agft":
        return 0.0
    objective = trainer.objective
    _, targets = views_of(trainer, *batch_of(dataset))
    target = (objective.gamma * objective.scale * objective.leaf_logits(targets.reference)).softmax(-1)
    return float(torch.special.entr(target).sum(-1).mean())


@pytest.fixture(scope="module", params=NAMES)
def trained(request, tiny_clip_dir, tiny_tree, fixed_batch, tmp_path_factory):
    """A trainer after 12 steps on one fixed batch, and the weights it started from."""
    torch.manual_seed(0)
    trainer = make_trainer(
        tiny_clip_dir,
        tmp_path_factory.mktemp(request.param),
        objective=request.param,
        tree=Forest((tiny_tree,)),
        train=fixed_batch,
        eps="2/255",
        max_steps=12,
        optim="adamw_torch",
        learning_rate=1e-3,
        weight_decay=0.0,
    )
    disturb(trainer)
    before = weights(trainer.model)
    trainer.train()
    return trainer, before


def test_loss_descends_on_a_fixed_batch(trained, fixed_batch):
    trainer, _ = trained
    floor = entropy_of_targets(trainer, fixed_batch)
    losses = [entry["loss"] - floor for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 12
    assert 0 <= losses[-1] < 0.95 * losses[0]


def test_named_terms_add_up_to_the_loss(trained):
    trainer, _ = trained
    plain = {"loss", "grad_norm", "learning_rate", "epoch", "step"}
    for entry in trainer.state.log_history:
        if "loss" in entry:
            terms = {k: v for k, v in entry.items() if k not in plain}
            assert terms and sum(terms.values()) == pytest.approx(entry["loss"], abs=1e-3)


def test_only_the_promised_groups_train(trained):
    trainer, before = trained
    after, moved = weights(trainer.model), set()
    buffers = {name for name, _ in trainer.model.named_buffers()}
    for name, old in before.items():
        if name in buffers or (group_of(name) == "hier_head" and "hier_head" not in trainer.trained):
            continue  # set by calibration
        if not torch.equal(old, after[name]):
            moved.add(group_of(name))
    assert moved == set(trainer.objective.trained_groups)
    assert {group_of(n) for n, p in trainer.model.named_parameters() if p.requires_grad} == moved
    assert set(trainer.trained) == moved and all(count > 0 for count in trainer.trained.values())


def batch_of(dataset):
    batch = PixelCollator()([dataset[i] for i in range(len(dataset))])
    return batch["pixels"], batch["labels"]


def test_the_training_attack_raises_the_inner_loss(trained, fixed_batch):
    """It must beat clean images and noise of the same size, and leave the model as it was."""
    trainer, _ = trained
    if trainer.attack is None:
        pytest.skip("trains on clean images")
    pixels, labels = batch_of(fixed_batch)
    trainer.model.train()
    before = weights(trainer.model)
    eps = 2 / 255
    (attacked, *_) = perturb(trainer, pixels, labels)

    @torch.no_grad()
    def inner(perturbation):
        return float(inner_loss_of(trainer, pixels, labels, perturbation).sum())

    noise = [(pixels + eps * torch.randn_like(pixels).sign()).clamp(0, 1) for _ in range(5)]
    assert inner(attacked) > max(inner(attacked._replace(pixels=x)) for x in (pixels, *noise))
    if attacked.text_delta is not None:
        assert attacked.text_delta.any()
        assert inner(attacked) > inner(attacked._replace(text_delta=None))
    assert float((attacked.pixels - pixels).abs().max()) <= eps + 1e-6
    assert attacked.pixels.min() >= 0 and attacked.pixels.max() <= 1
    assert furthest(before, weights(trainer.model)) == 0 and trainer.model.training
    assert all(p.grad is None for p in trainer.model.parameters())


def test_terms_are_finite_scalars_with_gradients(trained, fixed_batch):
    trainer, _ = trained
    pixels, labels = batch_of(fixed_batch)
    views, targets = views_of(trainer, pixels, labels)
    terms = trainer.objective.loss(views, targets)
    for name, value in terms.items():
        assert isinstance(name, str) and value.ndim == 0 and torch.isfinite(value)
        assert value.dtype == torch.float32
    inner = inner_loss_of(trainer, pixels, labels)
    for loss in (sum(terms.values()), inner.sum()):
        params = [p for p in trainer.model.parameters() if p.requires_grad]
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        assert all(torch.isfinite(g).all() for g in grads if g is not None)
        assert max(float(g.abs().max()) for g in grads if g is not None) > 0


# ---- accumulation and precision ----

JOINED = {"advflyp", "composite", "hier_mmcoa", "hier_robust", "mmcoa"}
"""They join the images of a batch, where halves are another loss; the others' are means over images."""


@pytest.mark.parametrize("name", sorted(set(NAMES) - JOINED))
def test_two_halves_have_the_gradient_of_the_whole_batch(
    name, tiny_clip_dir, tiny_tree, tmp_path, fixed_batch
):
    trainer = make_trainer(tiny_clip_dir, tmp_path, objective=name, tree=Forest((tiny_tree,)))
    disturb(trainer)
    pixels, labels = batch_of(fixed_batch)
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(2))
    attacked = (pixels + 0.02 * noise.sign()).clamp(0, 1)
    params = [p for p in trainer.model.parameters() if p.requires_grad]

    def gradient(rows):
        perturbation = Perturbation(attacked[rows])
        terms = trainer.objective.loss(*views_of(trainer, pixels[rows], labels[rows], [perturbation]))
        grads = torch.autograd.grad(sum(terms.values()), params, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    whole, halves = gradient(slice(8)), (gradient(slice(4)) + gradient(slice(4, 8))) / 2
    assert float((gradient(slice(4)) - whole).norm() / whole.norm()) > 1e-2, "the halves are alike"
    assert float((halves - whole).norm() / whole.norm()) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_trains_under_accumulation_and_bf16(name, tiny_clip_dir, tiny_tree, tmp_path):
    runs = {}
    for bf16 in (False, True):
        trainer = make_trainer(
            tiny_clip_dir,
            tmp_path / str(bf16),
            objective=name,
            tree=Forest((tiny_tree,)),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            max_steps=1,
            bf16=bf16,
        )
        disturb(trainer)
        before = weights(trainer.model)
        trainer.train()
        assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
        assert furthest(before, weights(trainer.model)) > 0
        runs[bf16] = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert runs[False].keys() == runs[True].keys()
    assert runs[True]["loss"] == pytest.approx(runs[False]["loss"], rel=0.05)
    assert runs[True]["loss"] != runs[False]["loss"] or name == "clean", "bf16 was not used"


# ---- HierRobust without its extras is TeCoA ----


def test_a_flat_cosine_hier_robust_is_tecoa(tiny_clip_dir, tmp_path, fixed_batch):
    """Same loss, same gradient, same inner loss when the tree has only leaves and every extra is off."""
    flat = LabelTree.from_paths({c: [] for c in CLASSES}, name="flat")
    hier = HierRobust(score="cosine", lambda_vic=0, lambda_gap=0)
    hier.setup(CLASSES, Forest((flat,)))
    tecoa = TeCoA()
    tecoa.setup(CLASSES)
    trainer = make_trainer(tiny_clip_dir, tmp_path)
    pixels, labels = batch_of(fixed_batch)
    grads, losses = [], []
    for objective in (hier, tecoa):
        views, targets = views_of(trainer, pixels, labels)
        terms = objective.loss(views, targets)
        assert len(terms) == 1
        losses.append(terms.popitem()[1])
        grads.append(torch.autograd.grad(losses[-1], trainer.model.visual_projection.weight)[0])
        torch.testing.assert_close(objective.inner_loss(views[0], targets).mean(), losses[-1])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_tecoa_is_cross_entropy_of_clips_own_logits(tiny_clip_dir, tmp_path, fixed_batch):
    """Against stock CLIPModel with its tokenizer and processor, not against our helpers."""
    from transformers import AutoProcessor, CLIPModel

    trainer = make_trainer(tiny_clip_dir, tmp_path)
    pixels, labels = batch_of(fixed_batch)
    with torch.no_grad():
        loss = trainer.objective.loss(*views_of(trainer, pixels, labels))["ce"]
        processor = AutoProcessor.from_pretrained(tiny_clip_dir)
        images = [fixed_batch[i]["image"] for i in range(len(fixed_batch))]
        text = [f"This is a photo of a {c}." for c in CLASSES]
        inputs = processor(text=text, images=images, return_tensors="pt", padding=True)
        logits = CLIPModel.from_pretrained(tiny_clip_dir)(**inputs).logits_per_image
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("train_text_projection", [True, False])
def test_hier_robust_can_freeze_the_text_projection(train_text_projection):
    groups = HierRobust(train_text_projection=train_text_projection).trained_groups
    assert ("text_projection" in groups) == train_text_projection and "vision" in groups


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_that_uses_no_labels_does_not_read_them(name):
    objective, batch = set_up(OBJECTIVES.get(name)())
    assert objective.uses_labels == (name not in ("fare", "agft", "advflyp"))
    if objective.uses_labels:
        return
    blind = torch.full_like(batch.labels, -1)
    for of, targets in (
        (lambda t: sum(objective.loss([batch.view()], t).values()), batch.targets()),
        (lambda t: objective.inner_loss(batch.view(), t), batch.attack_targets()),
    ):
        assert torch.equal(of(targets._replace(labels=blind)), of(targets))


def test_options_and_members_decide():
    assert AdvFLYP(positives="class").uses_labels
    assert not Composite(members={"fare": {}, "agft": {}}).uses_labels
    assert Composite(members={"fare": {}, "tecoa": {}}).uses_labels
    assert HierAGFT(label_weight=0.0).uses_labels
