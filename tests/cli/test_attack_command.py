"""``attack``: one image in, files only in the output folder, and the truth about 8 bits."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from tiny_data import CLASSES, make_images
from transformers import AutoProcessor

from hf_hierrobust.classifiers import level_classifiers
from hf_hierrobust.cli.main import main
from hf_hierrobust.data import ClassSet
from hf_hierrobust.data.decoding import to_uint8
from hf_hierrobust.hierarchy import LabelTree
from hf_hierrobust.modeling import PixelPipeline, load_robust_model
from hf_hierrobust.runs.attack_files import verdict, write_attack
from hf_hierrobust.runs.attack_image import attack_image


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "cat.png"
    make_images(1, size=40)[0]["image"].save(path)
    return path


def arguments(photo, model, data_dir, out, *more):
    return [
        "attack",
        str(photo),
        "--model",
        model,
        "--tree",
        str(data_dir / "tiny.json"),
        "-o",
        str(out),
        *more,
    ]


def test_what_is_written_is_what_the_model_judges(
    photo, tiny_clip_dir, data_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    main(arguments(photo, tiny_clip_dir, data_dir, "out", "--eps", "16/255"))
    said = capsys.readouterr().out
    assert {p.relative_to(tmp_path).parts[0] for p in tmp_path.rglob("*")} == {"out"}
    facts = json.loads((tmp_path / "out/attack.json").read_text())
    assert facts["fooled"] and "The attack succeeds" in said and "<- changed" in said
    assert [one["level_name"] for one in facts["clean"]] == ["superclass", "leaf"]

    levels = to_uint8(Image.open(tmp_path / "out/adversarial.png").convert("RGB"))
    clean = to_uint8(Image.open(photo).convert("RGB"))
    assert levels.shape == clean.shape and (levels.int() - clean.int()).abs().max() <= 16
    # The path as an oracle computes it: the file, through the checkpoint's own classifiers.
    model, processor = load_robust_model(tiny_clip_dir), AutoProcessor.from_pretrained(tiny_clip_dir)
    tree = LabelTree.from_json(data_dir / "tiny.json")
    found = level_classifiers(
        model.eval(),
        PixelPipeline(processor.image_processor),
        processor.tokenizer,
        ClassSet.from_names(CLASSES),
        tree,
    )
    for one in found:
        if one.name == "cosine":
            with torch.no_grad():
                sure, node = one.classifier(levels[None] / 255).softmax(1)[0].max(0)
            written = next(p for p in facts["attacked"] if p["level"] == one.level)
            assert written["name"] == tree.display_names(one.level)[node]
            assert written["confidence"] == pytest.approx(float(sure), abs=1e-5)
    assert facts["attacked"][-1]["name"] != facts["true"]


def test_rounding_that_undoes_the_attack_is_said(photo, tiny_clip_dir, tmp_path):
    """Below half a grey level no other 8-bit image is in the budget."""
    found = attack_image(tiny_clip_dir, photo, labels=list(CLASSES), eps=0.4 / 255, num_steps=3)
    assert torch.equal(found.rounded.levels, (found.pixels * 255).round().to(torch.uint8))
    broken = found.__class__(**{**vars(found), "clean_correct": True, "exact_fooled": True})
    assert "rounding to 8 bits undoes it" in verdict(broken)
    write_attack(found, tmp_path / "out")
    facts = json.loads((tmp_path / "out/attack.json").read_text())
    assert not facts["fooled"] and facts["change"]["linf"] < 1e-6 and len(facts["clean"]) == 1


def test_a_class_that_the_clean_image_is_not_taken_for(photo, tiny_clip_dir):
    taken = attack_image(tiny_clip_dir, photo, labels=list(CLASSES), num_steps=1).true
    other = next(name for name in CLASSES if name != taken)
    found = attack_image(tiny_clip_dir, photo, labels=list(CLASSES), true=other, num_steps=1)
    assert not found.clean_correct and not found.succeeded and not found.clean[-1].right
    assert "misclassified already" in verdict(found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--eps", "4"], "did you mean 4/255"),
        (["--attack", "pdg"], "attack='pdg' is unknown: did you mean 'pgd'"),
        (["--tru", "cat"], "--tru' is nothing that this command takes: did you mean --true"),
        (["--true", "catt"], "true='catt' is none of the classes"),
        (["--level", "5"], "level=5 is not in the tree"),
        (["--classifier", "hyperbolic"], "no calibrated hyperbolic head"),
        (["--eps", "1/255", "--eps", "2/255"], "--eps is given twice"),
        (["--labels", "cat"], "class set 'cat' is not built in"),
    ],
)
def test_one_sentence_and_no_file(change, says, photo, tiny_clip_dir, data_dir, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments(photo, tiny_clip_dir, data_dir, tmp_path / "out", *change))
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert caught.value.code == 2 and says in said and said.startswith("hf-hierrobust attack: error: ")
    assert not (tmp_path / "out").exists()


def test_an_animation_is_no_image(tiny_clip_dir, data_dir, tmp_path, capsys):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(SystemExit):
        main(arguments(tmp_path / "two.gif", tiny_clip_dir, data_dir, tmp_path / "out"))
    assert "'two.gif' is animated, of 2 frames: save one of them" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_image_no_classes_and_results_that_are_there(photo, tiny_clip_dir, data_dir, tmp_path, capsys):
    text = tmp_path / "text.png"
    text.write_text("no image")
    out = tmp_path / "out"
    out.mkdir()
    (out / "attack.json").write_text("{}")
    for argv, says in (
        (arguments(tmp_path / "none.png", tiny_clip_dir, data_dir, "x"), "is not a file"),
        (arguments(text, tiny_clip_dir, data_dir, tmp_path / "y"), "not a readable image"),
        (["attack", str(photo), "--model", tiny_clip_dir], "no classes"),
        (arguments(photo, tiny_clip_dir, data_dir, out), "already holds attack.json: --overwrite"),
    ):
        with pytest.raises(SystemExit):
            main(argv)
        assert says in capsys.readouterr().err
    assert (out / "attack.json").read_text() == "{}" and not (tmp_path / "y").exists()
