"""``tree: wordnet`` of a run whose class names are ambiguous nouns."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest
from tiny_data import CLASSES, make_images

from hf_hierrobust import RobustCLIPTrainer, RobustTrainingArguments

SYNSETS = {
    "n00000001": (["entity"], [], []),
    "n00000002": (["animal"], ["n00000001"], []),
    "n00000003": (["plant"], ["n00000001"], []),
    "n00000004": (["wine"], ["n00000001"], []),
    "n00000010": (["cat"], ["n00000002"], []),
    "n00000011": (["dog"], ["n00000002"], []),
    "n00000012": (["oak"], ["n00000003"], []),
    "n00000013": (["rose"], ["n00000003"], []),
    "n00000014": (["rose"], ["n00000004"], []),
}


@pytest.fixture
def trainer_of(tiny_clip_dir, tmp_path, monkeypatch):
    columns = list(zip(*((wnid, *row) for wnid, row in SYNSETS.items())))
    types = [pyarrow.string()] + [pyarrow.list_(pyarrow.string())] * 3
    arrays = [pyarrow.array(column, type) for column, type in zip(columns, types)]
    table = dict(zip(["wnid", "lemmas", "hypernyms", "instance_hypernyms"], arrays))
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "nouns.parquet")
    monkeypatch.setenv("HF_HIERROBUST_WORDNET", str(tmp_path / "nouns.parquet"))

    def make(**options) -> RobustCLIPTrainer:
        args = RobustTrainingArguments(str(tmp_path / "out"), tree="wordnet", max_steps=1, report_to="none")
        return RobustCLIPTrainer(tiny_clip_dir, args, train_dataset=make_images(8), **options)

    return make


def test_kind31_the_models_own_embeddings_choose_and_the_choice_is_said(trainer_of, caplog):
    with caplog.at_level("WARNING"):
        trainer = trainer_of()
    (message,) = [m for m in caplog.messages if "tree 'wordnet'" in m]
    assert "'rose' is taken for n0000001" in message and "a class-set file with wnids" in message
    assert trainer.forest.leaves == CLASSES


@pytest.mark.parametrize(("rose", "above"), [("n00000013", "plant"), ("n00000014", "wine")])
def test_kind31_wnids_of_a_class_set_file_decide(rose, above, trainer_of, tmp_path, caplog):
    wnids = ["n00000010", "n00000011", "n00000012", rose]
    (tmp_path / "classes.json").write_text(json.dumps({"class_names": CLASSES, "wnids": wnids}))
    trainer = trainer_of(class_set=str(tmp_path / "classes.json"))
    (tree,) = trainer.forest.trees
    assert tree.superclass("rose", 1) == above
    assert not [m for m in caplog.messages if "tree 'wordnet'" in m]
