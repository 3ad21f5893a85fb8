import io
import pickle
import traceback

import datasets as hf
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from hf_hierrobust.data import (
    EmptyDatasetError,
    LabelRangeError,
    MixedSizesError,
    PixelCollator,
    PixelDataset,
    PixelStream,
    UnreadableImageError,
    decode_image,
)


def noise(width=9, height=7, mode="RGB", seed=0) -> Image.Image:
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


def encoded(image: Image.Image, kind="PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def make(cells, labels=None, **extra) -> hf.Dataset:
    labels = list(range(len(cells))) if labels is None else labels
    features = {
        "image": hf.Image(),
        "label": hf.Value("int64"),
        **{name: hf.Value("int64") for name in extra},
    }
    rows = {"image": [{"bytes": cell, "path": None} for cell in cells], "label": labels, **extra}
    return hf.Dataset.from_dict(rows, features=hf.Features(features))


@pytest.fixture
def pngs():
    return make([encoded(noise(seed=i)) for i in range(5)])


@pytest.fixture
def processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})


def test_native_pixels_are_the_image_over_255(pngs):
    items = [PixelDataset(pngs)[i] for i in range(5)]
    batch = PixelCollator()(items)
    assert batch["pixels"].shape == (5, 3, 7, 9) and batch["pixels"].dtype == torch.float32
    assert batch["pixels"].is_contiguous() and batch["labels"].tolist() == [0, 1, 2, 3, 4]
    expected = np.stack([np.asarray(noise(seed=i)) for i in range(5)]).transpose(0, 3, 1, 2)
    assert torch.equal((batch["pixels"] * 255).round().to(torch.uint8), torch.from_numpy(expected))
    assert batch["pixels"].min() >= 0 and batch["pixels"].max() <= 1


@pytest.mark.parametrize("preload", [False, True])
def test_model_pixels_equal_the_processor_without_normalisation(pngs, processor, preload):
    data = PixelDataset(pngs, preload=preload)
    pixels = PixelCollator(processor, "model")([data[i] for i in range(5)])["pixels"]
    images = [noise(seed=i) for i in range(5)]
    assert torch.equal(
        pixels, processor(images=images, do_normalize=False, return_tensors="pt")["pixel_values"]
    )
    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    stock = processor(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close((pixels - mean) / std, stock, atol=2e-6, rtol=0)


def test_both_resolutions_agree_on_images_of_the_model_size(processor):
    items = [{"image": noise(8, 8, seed=i), "label": 0} for i in range(3)]
    torch.testing.assert_close(
        PixelCollator()(items)["pixels"],
        PixelCollator(processor, "model")(items)["pixels"],
        atol=1e-6,
        rtol=0,
    )


def test_a_processor_that_holds_an_image_processor_and_siglip():
    siglip = SiglipImageProcessorPil(size={"height": 8, "width": 8})
    holder = type("Holder", (), {"image_processor": siglip})()
    pixels = PixelCollator(holder, "model")([{"image": noise(), "label": 0}])["pixels"]
    assert torch.equal(
        pixels, siglip(images=noise(), do_normalize=False, return_tensors="pt")["pixel_values"]
    )


def test_a_torchvision_processor_is_replaced_by_its_pil_twin(processor):
    settings = {"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 8}, "resample": 2}
    fast = type("CLIPImageProcessorFast", (CLIPImageProcessorPil,), {})(**settings)
    twin = PixelCollator(fast, "model").image_processor
    assert (
        type(twin) is CLIPImageProcessorPil and twin.to_dict() == CLIPImageProcessorPil(**settings).to_dict()
    )
    assert PixelCollator(processor, "model").image_processor is processor


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
    ],
)
def test_other_colour_modes_become_rgb_as_in_the_stock_pipeline(mode, kind, processor):
    cell = encoded(noise(mode=mode), kind)
    item = PixelDataset(make([cell]))[0]
    assert item["image"].mode == "RGB"
    expected = np.asarray(Image.open(io.BytesIO(cell)).convert("RGB"))
    assert np.array_equal(np.asarray(item["image"]), expected)
    pixels = PixelCollator(processor, "model")([item])["pixels"]
    stock = processor(images=Image.open(io.BytesIO(cell)), do_normalize=False, return_tensors="pt")
    assert torch.equal(pixels, stock["pixel_values"])


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    noise(9, 7).save(buffer, "JPEG", exif=exif)
    assert PixelDataset(make([buffer.getvalue()]))[0]["image"].size == (7, 9)


def test_preload_gives_the_same_items(pngs):
    lazy, eager = PixelDataset(pngs), PixelDataset(pngs, preload=True)
    assert eager.pixels.dtype == torch.uint8 and eager.pixels.shape == (5, 3, 7, 9)
    for indices in ([0, 1], [4, 2]):
        first, second = (PixelCollator()([data[i] for i in indices]) for data in (lazy, eager))
        assert torch.equal(first["pixels"], second["pixels"]) and torch.equal(
            first["labels"], second["labels"]
        )


def test_images_given_as_bytes_path_and_pil(tmp_path):
    noise().save(tmp_path / "a.png")
    for value in (
        encoded(noise()),
        str(tmp_path / "a.png"),
        noise(),
        {"bytes": None, "path": str(tmp_path / "a.png")},
    ):
        assert np.array_equal(
            np.asarray(decode_image({"image": value}, "it", follow=True)), np.asarray(noise())
        )


@pytest.mark.parametrize("cell", [b"no image", encoded(noise(40, 40))[:300], b""])
def test_unreadable_image_names_source_and_row(cell):
    dataset = make([encoded(noise()), cell, encoded(noise())])
    data = PixelDataset(dataset, source="photos")
    assert data[2]["label"] == 2
    with pytest.raises(UnreadableImageError, match="row 1 of photos is not a readable image"):
        data[1]
    with pytest.raises(UnreadableImageError, match="row 1 of photos"):
        PixelDataset(dataset, source="photos", preload=True)
    with pytest.raises(UnreadableImageError, match=r"example 1 \(in reading order\) of web"):
        list(PixelStream(dataset.to_iterable_dataset(), source="web"))


def test_rows_of_the_source_survive_a_selection():
    dataset = make([encoded(noise()), b"bad"], row=[17, 23])
    assert PixelDataset(dataset)[0]["row"] == 17
    with pytest.raises(UnreadableImageError, match="row 23"):
        PixelDataset(dataset.select([1]))[0]


def test_missing_file_and_wide_images_are_named(tmp_path):
    gone = str(tmp_path / "gone.png")
    with pytest.raises(UnreadableImageError, match=r"row 3 of dataset \(.*gone\.png\)"):
        decode_image({"image": {"bytes": None, "path": gone}}, "row 3 of dataset", follow=True)
    wide = Image.fromarray(np.full((4, 4), 4000, dtype=np.uint16))
    with pytest.raises(UnreadableImageError, match=r"row 5 .*'I;16' has more than 8 bits"):
        decode_image({"image": encoded(wide)}, "row 5")


def test_mixed_sizes_name_both_sizes_and_the_remedy(processor):
    items = [{"image": noise(9, 7), "label": 0, "row": 4}, {"image": noise(5, 6), "label": 0, "row": 8}]
    with pytest.raises(MixedSizesError, match=r"row 4 is 9x7 and row 8 is 5x6; resize .* or give a proc"):
        PixelCollator()(items)
    with pytest.raises(MixedSizesError, match=r"is 5x6; use threat_space='model' \(space='model'"):
        PixelCollator(processor)(items)
    assert PixelCollator(processor, "model")(items)["pixels"].shape == (2, 3, 8, 8)
    dataset = make([encoded(noise(9, 7)), encoded(noise(5, 6))])
    with pytest.raises(MixedSizesError, match=r"row 0 of dataset is 9x7 and row 1 is 5x6; use preload=False"):
        PixelDataset(dataset, preload=True)


def test_kind11_a_negative_label_never_picks_the_last_class():
    with pytest.raises(LabelRangeError, match=r"row 9 has label -1, which is no class"):
        PixelCollator()([{"image": noise(), "label": -1, "row": 9}])


def test_images_without_labels(pngs):
    data = PixelDataset(pngs.remove_columns("label"))
    assert not data.labelled and PixelDataset(pngs).labelled
    assert (data.labels == -1).all() and "label" not in data[0]
    collate = PixelCollator()
    assert collate([data[0], data[1]])["labels"].tolist() == [-1, -1]
    stream = list(PixelStream(pngs.remove_columns("label").to_iterable_dataset()))
    assert "label" not in stream[0] and collate(stream[:2])["labels"].tolist() == [-1, -1]


def test_bad_arguments(pngs):
    with pytest.raises(ValueError, match="'native' or 'model', got 'big'"):
        PixelCollator(None, "big")
    with pytest.raises(TypeError, match="needs the image_processor"):
        PixelCollator(None, "model")
    with pytest.raises(ValueError, match=r"rescale_factor is 0\.0078"):
        PixelCollator(CLIPImageProcessorPil(rescale_factor=1 / 127.5), "model")
    with pytest.raises(TypeError, match="got ndarray"):
        PixelCollator()([{"image": np.zeros((4, 4, 3)), "label": 0}])
    with pytest.raises(TypeError, match=r"must be uint8 \(3, H, W\), got torch.float32"):
        PixelCollator()([{"image": torch.zeros(3, 4, 4), "label": 0}])
    with pytest.raises(TypeError, match="PixelStream"):
        PixelDataset(pngs.to_iterable_dataset())
    with pytest.raises(ValueError, match=r"has no column 'image' but .*load_images"):
        PixelDataset(pngs.rename_column("image", "img"))
    with pytest.raises(EmptyDatasetError, match="no rows"):
        PixelDataset(pngs.select([]))


def test_stream_gives_the_items_of_the_dataset(pngs):
    collate = PixelCollator()
    stream = list(PixelStream(pngs.to_iterable_dataset()))
    data = PixelDataset(pngs)
    expected = [data[i] for i in range(5)]
    assert [(item["label"], item["row"]) for item in stream] == [(i["label"], i["row"]) for i in expected]
    assert torch.equal(collate(stream)["pixels"], collate(expected)["pixels"])
    unlabelled = make([encoded(noise())] * 2, labels=[0, None], row=[5, 6])
    with pytest.raises(LabelRangeError, match="row 6 of stream has no label"):
        list(PixelStream(unlabelled.to_iterable_dataset()))


def test_stream_reshuffles_each_epoch():
    dataset = make([encoded(noise(2, 2))] * 20)
    stream = PixelStream(dataset.to_iterable_dataset().shuffle(seed=0, buffer_size=20))
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append([item["label"] for item in stream])
    assert orders[0] == orders[2] != orders[1] and sorted(orders[1]) == list(range(20))


def test_workers_give_the_same_batches_and_the_same_errors(pngs, processor):
    collate = pickle.loads(pickle.dumps(PixelCollator(processor, "model")))
    loaders = [DataLoader(PixelDataset(pngs), 2, num_workers=n, collate_fn=collate) for n in (0, 1)]
    for first, second in zip(*loaders):
        assert torch.equal(first["pixels"], second["pixels"]) and torch.equal(
            first["labels"], second["labels"]
        )
    broken = DataLoader(PixelDataset(make([b"bad"])), num_workers=1, collate_fn=collate)
    with pytest.raises(UnreadableImageError, match="row 0 of dataset") as error:
        next(iter(broken))
    # ends the worker now: one that waits for the garbage collector takes 5 s to stop
    traceback.clear_frames(error.tb)


def test_real_images_load(shared_dir, tmp_path, processor):
    path = shared_dir / "data" / "tinyimagenet" / "test.parquet"
    rows = hf.load_dataset("parquet", data_files=str(path), split="train", streaming=True).take(64)
    batch = PixelCollator()(list(PixelStream(rows)))
    assert batch["pixels"].shape == (64, 3, 64, 64)
    assert 0.3 < batch["pixels"].mean() < 0.6 and batch["labels"].unique().numel() == 64
