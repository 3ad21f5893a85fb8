"""What a user may hand to the trainer: any model, processor, data, classes and trees; and what is refused."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import datasets
import pytest
import torch
from tiny_data import CLASSES, PATHS, make_images
from tiny_runs import DEFAULTS, furthest, weights
from torch.utils.data import ConcatDataset, random_split
from transformers import AutoProcessor, CLIPModel, SiglipModel

from hf_hierrobust import RobustCLIPTrainer, RobustTrainingArguments
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import RobustCLIPModel, load_robust_model
from hf_hierrobust.objectives import TeCoA


def trainer_of(model, tmp_path, *, train=None, options=None, **given) -> RobustCLIPTrainer:
    """A trainer on a raw data set, one step of TeCoA unless the options say otherwise."""
    options = {**DEFAULTS, "max_steps": 1, **(options or {})}
    given = {"train_dataset": make_images(16) if train is None else train} | given
    if "objective" in given:
        del options["objective"]
    return RobustCLIPTrainer(model, RobustTrainingArguments(str(tmp_path), **options), **given)


def test_snippet_a_train_in_three_lines(tiny_clip_dir, tiny_tree, tmp_path):
    """Model by its folder; columns, classes and processor by themselves; the tree by its file."""
    tree = tmp_path / "tiny.json"
    tree.write_text(__import__("json").dumps(tiny_tree.to_json()))
    ds = make_images(16)
    args = RobustTrainingArguments(str(tmp_path / "out"), tree=str(tree), eps="1/255", max_steps=1)
    RobustCLIPTrainer(tiny_clip_dir, args, train_dataset=ds).train()


def test_snippet_d_an_objective_of_ones_own(tiny_clip_dir, tmp_path):
    @dataclass(kw_only=True)
    class Mine(TeCoA):
        name: ClassVar[str] = "mine"

        def loss(self, views, targets):
            return {"ce": self.inner_loss(views[0], targets).mean()}

    trainer = trainer_of(tiny_clip_dir, tmp_path, objective=Mine())
    trainer.train()
    assert trainer.model.config.hier_robust["objective"] == "mine"


class TestModels:
    def forms(self, folder, family, tmp_path):
        stock = {"clip": CLIPModel, "siglip": SiglipModel}[family].from_pretrained(folder)
        return {"id": folder, "ours": load_robust_model(folder), "stock": stock}

    @pytest.mark.parametrize("family", ["clip", "siglip"])
    def test_every_form_trains_the_same_weights(self, family, request, tmp_path):
        folder = request.getfixturevalue(f"tiny_{family}_dir")
        found = {}
        for name, model in self.forms(folder, family, tmp_path).items():
            trainer = trainer_of(model, tmp_path / name)
            trainer.train()
            found[name] = weights(trainer.model)
        assert furthest(found["id"], found["ours"]) == furthest(found["id"], found["stock"]) == 0

    def test_the_adapter_of_a_peft_model_trains_on(self, tiny_clip_dir, tmp_path):
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=2, target_modules=r"vision_model.*\.(q_proj|v_proj)")
        wrapped = peft.get_peft_model(CLIPModel.from_pretrained(tiny_clip_dir), config)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        trainer = trainer_of(wrapped, tmp_path)
        with torch.no_grad():
            expected = wrapped.get_base_model().eval().get_image_features(pixel_values=pixels).pooler_output
            found = trainer.model.eval().encode_image(pixels)
        torch.testing.assert_close(found, expected)
        before = weights(trainer.model)
        trainer.train()
        after = weights(trainer.model)
        moved = {key for key in after if furthest({0: after[key]}, {0: before[key]}) > 0}
        assert moved and all("lora_" in key for key in moved)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("stock", [True, False], ids=["stock", "ours"])
    def test_kind15_other_precisions_are_turned_to_fp32_with_a_line(
        self, dtype, stock, tiny_clip_dir, tmp_path, caplog, capsys
    ):
        load = CLIPModel.from_pretrained if stock else RobustCLIPModel.from_pretrained
        trainer = trainer_of(load(tiny_clip_dir, dtype=dtype), tmp_path)
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        name = str(dtype).removeprefix("torch.")
        assert f"model is in {name}: turned to float32" in caplog.text + capsys.readouterr().err
        trainer.train()

    def test_kind15_return_dict_false_is_undone(self, tiny_clip_dir, tmp_path):
        trainer_of(CLIPModel.from_pretrained(tiny_clip_dir, return_dict=False), tmp_path).train()

    def test_kind15_the_default_dtype_does_not_matter(self, tiny_clip_dir, tiny_tree, tmp_path):
        found = []
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            try:
                options = {"objective": "hier_agft"}
                trainer = trainer_of(tiny_clip_dir, tmp_path / str(dtype), options=options, tree=tiny_tree)
                trainer.train()
                found.append(weights(trainer.model))
            finally:
                torch.set_default_dtype(torch.float32)
        assert furthest(*found) == 0

    def test_kind15_what_is_no_dual_encoder_is_refused_in_one_sentence(self, tiny_clip_dir, tmp_path):
        tower = CLIPModel.from_pretrained(tiny_clip_dir).vision_model
        for model in (tower, torch.nn.Linear(2, 2)):
            with pytest.raises(TypeError, match=rf"model is a {type(model).__name__}, not a dual encoder"):
                trainer_of(model, tmp_path)

    def test_kind15_quantised_weights_are_refused(self, tiny_clip_dir, tmp_path):
        model = load_robust_model(tiny_clip_dir)
        model.visual_projection.weight = torch.nn.Parameter(
            torch.zeros(32, 32, dtype=torch.int8), requires_grad=False
        )
        with pytest.raises(ValueError, match=r"quantised weights \(torch.int8\)"):
            trainer_of(model, tmp_path)


class TestProcessors:
    def test_kind15_half_a_processor_is_refused(self, tiny_clip_dir, tmp_path):
        processor = AutoProcessor.from_pretrained(tiny_clip_dir)
        for half, lacks in (
            (processor.tokenizer, "image processor"),
            (processor.image_processor, "tokenizer"),
        ):
            words = rf"processing_class is a {type(half).__name__}, which lacks an? {lacks}: give the whole"
            with pytest.raises(TypeError, match=words):
                trainer_of(tiny_clip_dir, tmp_path, processing_class=half)

    def test_a_model_from_nowhere_needs_one(self, tiny_clip_dir, tmp_path):
        config = copy.deepcopy(CLIPModel.from_pretrained(tiny_clip_dir).config)
        config.name_or_path = ""
        with pytest.raises(ValueError, match="processing_class is missing and the model has no name_or_path"):
            trainer_of(CLIPModel(config), tmp_path)
        trainer_of(CLIPModel(config), tmp_path, processing_class=AutoProcessor.from_pretrained(tiny_clip_dir))


def other_order(count: int, seed: int = 0) -> datasets.Dataset:
    """The same kind of images, whose labels are numbered from the last class on."""
    images = make_images(count, seed)
    names = list(CLASSES[::-1])
    labels = [names.index(CLASSES[label]) for label in images["label"]]
    feature = datasets.ClassLabel(names=names)
    return images.remove_columns("label").add_column("label", labels, feature=feature)


class TestData:
    def test_kind01_labels_go_by_name_wherever_data_come_in(self, tiny_clip_dir, tmp_path):
        """At construction, by assignment, in a dict, in evaluate and predict."""
        expected = list(make_images(8)["label"])
        trainer = trainer_of(
            tiny_clip_dir,
            tmp_path,
            train=make_images(8),
            eval_dataset={"a": other_order(8), "b": make_images(8)},
        )
        assert trainer.train_dataset.labels.tolist() == expected
        assert all(view.labels.tolist() == expected for view in trainer.eval_dataset.values())
        trainer.train_dataset = other_order(8)
        assert trainer.train_dataset.labels.tolist() == expected
        first, second = trainer.evaluate(make_images(8)), trainer.evaluate(other_order(8))
        assert first["eval_leaf_clean_accuracy"] == second["eval_leaf_clean_accuracy"]
        assert trainer.predict(other_order(8)).label_ids.tolist() == expected

    @pytest.mark.parametrize("form", ["split", "concat", "stream"])
    def test_torch_collections_and_streams_go_in(self, form, tiny_clip_dir, tmp_path):
        if form == "split":
            data, _ = random_split(other_order(24), [16, 8], torch.Generator().manual_seed(0))
        elif form == "concat":
            data = ConcatDataset([make_images(8), other_order(8)])
        else:
            data = make_images(16).to_iterable_dataset()
        trainer = trainer_of(tiny_clip_dir, tmp_path, train=data, class_set=CLASSES)
        trainer.train()
        assert trainer.class_set.class_names == CLASSES

    @pytest.mark.parametrize("form", ["raw", "split", "concat", "stream"])
    def test_kind10_robust_eval_samples_counts_for_every_type(self, form, tiny_clip_dir, tmp_path):
        data = make_images(24)
        if form == "split":
            data, _ = random_split(data, [20, 4])
        elif form == "concat":
            data = ConcatDataset([make_images(12), make_images(12)])
        elif form == "stream":
            data = data.to_iterable_dataset()
        trainer = trainer_of(
            tiny_clip_dir,
            tmp_path,
            eval_dataset=data,
            options={"robust_eval_samples": 6, "robust_eval_steps": 1},
        )
        assert len(trainer.eval_dataset) == 6
        seen = []
        trainer.compute_metrics = lambda prediction: seen.append(len(prediction.label_ids)) or {}
        trainer.evaluate()
        trainer.evaluate(data)
        assert seen == [6, 6]

    def test_kind01_persistent_workers_do_not_answer_for_another_set(self, tiny_clip_dir, tmp_path):
        trainer = trainer_of(
            tiny_clip_dir,
            tmp_path,
            eval_dataset=make_images(4),
            options={
                "dataloader_num_workers": 1,
                "dataloader_persistent_workers": True,
                "robust_eval_steps": 1,
            },
        )
        own = trainer.get_eval_dataloader()
        assert (len(own.dataset), len(trainer.get_eval_dataloader(make_images(7)).dataset)) == (4, 7)
        assert trainer.get_eval_dataloader() is own
        trainer.eval_dataset = make_images(6)
        assert len(trainer.get_eval_dataloader().dataset) == 6

    def test_unlabelled_images_cannot_be_evaluated_or_predicted(self, tiny_clip_dir, tmp_path):
        trainer = trainer_of(tiny_clip_dir, tmp_path)
        for call in (trainer.evaluate, trainer.predict):
            with pytest.raises(ValueError, match=r"_dataset has no labels to measure accuracy by"):
                call(make_images(4).remove_columns("label"))


class TestClassesAndTrees:
    def test_classes_come_from_the_data_or_by_hand(self, tiny_clip_dir, tmp_path):
        assert trainer_of(tiny_clip_dir, tmp_path).class_set.class_names == CLASSES
        given = trainer_of(tiny_clip_dir, tmp_path, class_set=CLASSES[::-1])
        assert given.class_set.class_names == CLASSES[::-1]
        assert given.train_dataset.labels.tolist()[:4] == [3, 2, 1, 0]
        with pytest.raises(ValueError, match="class_set is missing"):
            trainer_of(tiny_clip_dir, tmp_path, train_dataset=None)

    @pytest.mark.parametrize("form", ["mapping", "tree", "list", "argument"])
    def test_trees_come_in_any_form(self, form, tiny_clip_dir, tmp_path):
        tree = LabelTree.from_paths(PATHS, name="tiny")
        path = tmp_path / "tiny.json"
        path.write_text(__import__("json").dumps(tree.to_json()))
        given = {"mapping": PATHS, "tree": tree, "list": [tree], "argument": None}[form]
        options = {"objective": "hier_robust"} | ({"tree": str(path)} if form == "argument" else {})
        trainer = trainer_of(tiny_clip_dir, tmp_path / "out", options=options, tree=given)
        assert trainer.forest.trees[0].sizes == (4, 2)
        if form == "mapping":
            with pytest.raises(ValueError, match=r"tree is given to the trainer and as args\.tree"):
                trainer_of(tiny_clip_dir, tmp_path / "out", options={"tree": str(path)}, tree=given)

    def test_flat_objectives_report_superclasses_too(self, tiny_clip_dir, tiny_tree, tmp_path):
        options = {"robust_eval_steps": 1}
        trainer = trainer_of(
            tiny_clip_dir, tmp_path, tree=tiny_tree, eval_dataset=make_images(8), options=options
        )
        metrics = trainer.evaluate()
        assert metrics["eval_superclass_robust_accuracy"] <= metrics["eval_superclass_clean_accuracy"]


def test_what_has_no_name_is_refused_when_handed_over(tiny_clip_dir, tmp_path):
    @dataclass(kw_only=True)
    class Nameless(TeCoA):
        name: ClassVar[str] = ""

    with pytest.raises(ValueError, match="objective Nameless has no name"):
        trainer_of(tiny_clip_dir, tmp_path, objective=Nameless())
