"""Retrieval: ranks and recalls against closed forms and a slow count, attacks, records, command."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoProcessor, CLIPModel

from hf_hierrobust.attacks import EmbeddingPGD
from hf_hierrobust.cli.main import main
from hf_hierrobust.data.captions import captioned_images
from hf_hierrobust.evaluation.retrieval import Pairs, attack_pixels, ranks, recalls
from hf_hierrobust.evaluation.retrieval_records import RetrievalRecord, load_retrieval, save_retrieval
from hf_hierrobust.runs.evaluate import evaluate
from hf_hierrobust.threat import ThreatModel

WORDS = (("a cat", "this cat"), ("a dog",), ("an oak", "oak picture"), ("a rose",))


@pytest.fixture(scope="module")
def captioned(tiny_images) -> datasets.Dataset:
    """Sixteen images with one or two captions of their class and number: some are shared."""
    rows = tiny_images.select(range(16))
    texts = [[f"{word} thing {'ab'[i // 8]}" for word in WORDS[i % 4]] for i in range(16)]
    return rows.remove_columns("label").add_column("captions", texts)


def test_ranks_of_a_matrix_written_down():
    """Scores chosen by hand: unit vectors of the plane, at angles whose cosines are told apart by eye."""
    angle = torch.deg2rad(torch.tensor([0.0, 40.0, 90.0]))
    images = torch.stack([angle.cos(), angle.sin()], dim=1)
    angle = torch.deg2rad(torch.tensor([50.0, 12.0, 45.0, 170.0]))
    texts = torch.stack([angle.cos(), angle.sin()], dim=1)
    # Captions of image 0: 50° and 12°; of image 1: 45° and, shared with image 2, 170°.
    pairs = Pairs(3, list("abcd"), torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3], [2, 3]]))
    # Image 0: 12° is nearest. Image 1 (40°): 45°. Image 2 (90°): 50°, 45°, 12° (78° off) before 170° (80°).
    assert ranks(images, texts, pairs.links).tolist() == [0, 0, 3]
    # 50°: images at 40° and 90° before its own at 0°. 12°: 0°. 45°: 40°. 170°: 90°, its own.
    assert ranks(texts, images, pairs.turned()).tolist() == [2, 0, 0, 0]
    assert recalls(torch.tensor([0, 3, 4, 5, 9, 10])) == {"1": 1 / 6, "5": 3 / 6, "10": 5 / 6}


def test_ranks_are_those_of_a_slow_count_and_ties_count_against_the_query(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(23, 8, generator=generator), dim=-1)
    captions = [[f"text {(3 * i + j) % 31}" for j in range(1 + i % 3)] for i in range(23)]
    pairs = Pairs.of(captions)
    texts = F.normalize(torch.randn(len(pairs.captions), 8, generator=generator), dim=-1)
    texts[3] = texts[0]  # two captions that the encoder cannot tell apart

    def slow(scores, own):
        out = []
        for query, row in enumerate(scores.tolist()):
            best = max(row[entry] for entry in own[query])
            out.append(sum(score >= best for entry, score in enumerate(row) if entry not in own[query]))
        return out

    by_image = [{pairs.captions.index(text) for text in row} for row in captions]
    by_text = [{i for i, row in enumerate(captions) if text in row} for text in pairs.captions]
    monkeypatch.setattr("hf_hierrobust.evaluation.retrieval.CHUNK", 5)
    scores = images @ texts.T
    assert ranks(images, texts, pairs.links).tolist() == slow(scores, by_image)
    assert ranks(texts, images, pairs.turned()).tolist() == slow((texts @ images.T), by_text)


def test_the_attack_on_a_linear_encoder_is_the_closed_form():
    """A normalised linear embedding is left out: of a linear score the best perturbation is eps sign(w)."""
    weights = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 1.0, 3.0]])

    def encode(x):  # two captions along the axes: the margin is (w1 - w0) x, the own caption the first
        return x.flatten(1) @ weights.T

    pixels, eps = torch.full((1, 3, 1, 1), 0.5), 0.1
    own = torch.tensor([[True, False]])
    found = attack_pixels(encode, pixels, torch.eye(2), own, ThreatModel("linf", eps, "native"), num_steps=12)
    margin = found[0, 1] - found[0, 0]
    gap = weights[1] - weights[0]
    assert margin.item() == pytest.approx((0.5 * gap.sum() + eps * gap.abs().sum()).item(), abs=1e-5)


def test_records_of_a_model_and_its_recalls_by_stock_transformers(captioned, tiny_clip_dir, tmp_path):
    records = evaluate(
        tiny_clip_dir, captioned, retrieval=True, eps=["1/255", "16/255"], num_steps=3,
        text_attack="embedding", dataset_name="tiny",
    )  # fmt: skip
    named = {(r.attacked, r.attack and r.attack["eps_text"]): r for r in records}
    assert list(named) == [
        ("nothing", None),
        ("text", None),
        ("image", "1/255"),
        ("joint", "1/255"),
        ("image", "16/255"),
        ("joint", "16/255"),
    ]
    # Clean recalls, counted from stock logits.
    model, processor = CLIPModel.from_pretrained(tiny_clip_dir), AutoProcessor.from_pretrained(tiny_clip_dir)
    texts = sorted({text for row in captioned["captions"] for text in row})
    inputs = processor(text=texts, images=list(captioned["image"]), padding="max_length", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits_per_image
    clean = named["nothing", None]
    assert (clean.num_images, clean.num_captions) == (16, len(texts)) == (16, 12)
    for k in (1, 5, 10):
        best = logits.topk(k, dim=1).indices.tolist()
        hits = sum(any(texts[c] in row for c in top) for top, row in zip(best, captioned["captions"]))
        assert clean.recalls["image_to_text"][str(k)] == hits / 16
        best = logits.T.topk(k, dim=1).indices.tolist()
        hits = sum(any(text in captioned["captions"][i] for i in top) for top, text in zip(best, texts))
        assert clean.recalls["text_to_image"][str(k)] == hits / 12
    for way in clean.recalls:
        for k in ("1", "5", "10"):
            weak, strong = named["image", "1/255"].recalls[way][k], named["joint", "16/255"].recalls[way][k]
            alone = [named[one].recalls[way][k] for one in (("text", None), ("image", "16/255"))]
            assert strong <= min(alone) and weak <= clean.recalls[way][k]
    assert named["joint", "16/255"].recalls["image_to_text"]["1"] < clean.recalls["image_to_text"]["1"]
    save_retrieval(tmp_path / "retrieval.json", records)
    assert load_retrieval(tmp_path / "retrieval.json") == records


def test_the_command_writes_records_and_a_table(captioned, tiny_clip_dir, tmp_path, capsys):
    captioned.to_parquet(tmp_path / "photos.parquet")
    line = ["evaluate", "--retrieval", "true", "--model_name_or_path", tiny_clip_dir]
    line += ["--eval_file", str(tmp_path / "photos.parquet"), "--output_dir", str(tmp_path / "out")]
    line += ["--eval_eps", "4/255", "--eval_num_steps", "1", "--eval_text_attack", "embedding"]
    main(line)
    assert "| image and text | 4/255 |" in capsys.readouterr().out
    records = load_retrieval(tmp_path / "out" / "retrieval.json")
    assert [r.attacked for r in records] == ["nothing", "text", "image", "joint"]
    assert records[0].dataset == "photos" and records[0].num_images == 16
    idle = {"transfer": "true", "state_dir": "run", "bf16_search": "true", "eot": "3", "template": "a {}"}
    for more, words in (
        *(([f"--{name}", value], f"{name}=") for name, value in idle.items()),
        ([], "already holds"),
    ):
        with pytest.raises(SystemExit):
            main(line + more + (["--overwrite_output_dir", "true"] if more else []))
        assert words in capsys.readouterr().err


def test_real_photos_with_captions_made_of_what_is_known_of_them(shared_dir, tmp_path):
    """Captions of kind, class and brightness; the expected recalls come from stock transformers."""
    path = str(shared_dir / "data/cifar100/test.parquet")
    photos = datasets.load_dataset("parquet", data_files=path, split="train[:12]")
    names, kinds = photos.features["label"].names, photos.features["coarse_label"].names
    rows = {"image": [], "captions": []}
    for row in photos:
        name, kind = names[row["label"]].replace("_", " "), kinds[row["coarse_label"]].replace("_", " ")
        light = "bright" if np.asarray(row["image"]).mean() > 120 else "dark"
        rows["image"].append(row["image"])
        rows["captions"].append(
            [f"a photo of a {name}, of the {kind}", f"a {light} picture with a {name} in it"]
        )
    data = datasets.Dataset.from_dict(
        rows,
        features=datasets.Features(
            {"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))}
        ),
    )
    source = shared_dir / "models" / "clip-small"
    clean, text, image, joint = evaluate(source, data, retrieval=True, eps="4/255", num_steps=4)
    texts = sorted({one for row in rows["captions"] for one in row})
    model = CLIPModel.from_pretrained(source, dtype=torch.float32)
    inputs = AutoProcessor.from_pretrained(source)(
        text=texts, images=list(data["image"]), padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(**inputs).logits_per_image
    first = [texts[c] in row for c, row in zip(logits.argmax(1).tolist(), rows["captions"])]
    assert clean.recalls["image_to_text"]["1"] == sum(first) / 12 > 0.5
    back = [texts[c] in rows["captions"][i] for c, i in enumerate(logits.argmax(0).tolist())]
    assert clean.recalls["text_to_image"]["1"] == sum(back) / len(texts) > 0.5
    for way in clean.recalls:
        assert joint.recalls[way]["1"] <= image.recalls[way]["1"] < clean.recalls[way]["1"] - 0.2
        assert text.recalls[way]["1"] < clean.recalls[way]["1"]
    assert text.text_attack["name"] == "gradient" and image.attack["space"] == "native"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_steps": 0}, "num_steps=0 must be an integer, at least 1"),
        ({"num_steps": -5}, "num_steps=-5 must be"),
        ({"num_steps": "20"}, "num_steps='20' must be"),
        ({"num_steps": True}, "num_steps=True must be"),
        ({"step_size": 0}, "step_size"),
        ({"step_size": "8"}, "step_size='8'.*8/255"),
        ({"seed": 0.5}, "seed=0.5 must be a whole number"),
        ({"seed": None}, "seed=None must be a whole number"),
        ({"batch_size": None}, "batch_size=None must be an integer"),
        ({"num_samples": 0}, "num_samples=0 must be"),
        ({"eps": []}, "eps is empty"),
        ({"eps": "4/255, 4/255"}, "the budget linf:4/255 is there twice"),
        ({"eps": "-1/255"}, "eps"),
        ({"text_attack": EmbeddingPGD(), "text_attack_args": {"num_steps": 3}}, "no text_attack that takes"),
        ({"eot": 0}, "eot=0 has no effect on retrieval"),
    ],
)
def test_wrong_options_are_found_before_anything_is_read(options, words):
    with pytest.raises(ValueError, match=words):
        evaluate("no/model", "no/data", retrieval=True, **options)


def test_any_whole_seed_is_one_of_retrieval_too(captioned, tiny_clip_dir):
    options = {"retrieval": True, "num_steps": 1, "text_attack": "embedding"}
    found = evaluate(tiny_clip_dir, captioned, num_samples=4, seed=-1, **options)
    assert {record.seed for record in found} == {-1}


def test_what_does_not_fit_is_refused(captioned, tiny_clip_dir, tiny_images, monkeypatch):
    with pytest.raises(ValueError, match="has none of the columns caption, captions"):
        evaluate(tiny_clip_dir, tiny_images, retrieval=True)
    for name, value in {"tree": "cifar100", "state_dir": "run", "bf16_search": True, "checks": True}.items():
        with pytest.raises(ValueError, match=f"{name}={value!r} has no effect on retrieval"):
            evaluate(tiny_clip_dir, captioned, retrieval=True, **{name: value})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="retrieval runs in one process, not in 2"):
        evaluate(tiny_clip_dir, captioned, retrieval=True)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="caption_column='captions' has no effect without"):
        evaluate(tiny_clip_dir, captioned, caption_column="captions")
    with pytest.raises(ValueError, match="row 1 of dataset has no caption"):
        captioned_images(
            captioned.map(lambda row, i: {"captions": [] if i == 1 else row["captions"]}, with_indices=True)
        )
    both = captioned.add_column("text", ["x"] * 16)
    with pytest.raises(ValueError, match="has several of the columns"):
        captioned_images(both)
    assert captioned_images(both, caption_column="text").captions[0] == ["x"]


GOOD = {
    "model": "m",
    "objective": "none",
    "dataset": "coco",
    "split": "test",
    "attacked": "nothing",
    "num_images": 4,
    "num_captions": 8,
    "sample_ids": {"how": "all", "count": 4, "sha256": "a", "captions_sha256": "b"},
    "recalls": {
        "image_to_text": {"1": 0.25, "5": 0.5, "10": 1.0},
        "text_to_image": {"1": 0.125, "5": 0.5, "10": 1},
    },
    "seed": 0,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recalls": GOOD["recalls"] | {"text_to_image": {"1": 0.3, "5": 0.5, "10": 1}}}, "no fraction of 8"),
        ({"recalls": GOOD["recalls"] | {"image_to_text": {"1": 0.5, "5": 0.25, "10": 1}}}, "must not fall"),
        ({"recalls": {"image_to_text": {"1": 0}}}, "must hold 1, 5 and 10"),
        ({"attacked": "image"}, "does not go with attacked='image'"),
        ({"attacked": "words"}, "must be one of"),
        ({"num_images": 5}, "must count num_images=5"),
        ({"model": "/home/me/model"}, "path of this machine"),
        ({"intervals": {"image_to_text": {}}}, "not those of the recalls"),
    ],
)
def test_a_record_refuses_what_cannot_be(changes, words):
    assert RetrievalRecord(**GOOD).intervals["image_to_text"]["10"][1] == 1
    with pytest.raises(ValueError, match=words):
        RetrievalRecord(**GOOD | changes)


def test_a_changed_file_is_refused(tmp_path):
    save_retrieval(tmp_path / "r.json", [RetrievalRecord(**GOOD)])
    document = json.loads((tmp_path / "r.json").read_text())
    document["records"][0]["recalls"]["image_to_text"]["1"] = 0.6
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"record 0: recalls\.image_to_text"):
        load_retrieval(tmp_path / "r.json")
