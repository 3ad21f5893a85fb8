"""A resumed run reads the images of the uninterrupted one: streams in later passes, augmented images."""

from __future__ import annotations

import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_data import CLASSES, make_images
from tiny_runs import furthest, make_trainer, weights

from hf_hierrobust.data import PixelStream
from hf_hierrobust.training.item_draws import drawing, drawn
from hf_hierrobust.training.settings import data_facts

OPTIONS = {"per_device_train_batch_size": 4, "save_strategy": "steps", "learning_rate": 0.1}


def stream():
    """Four batches a pass, in another order each."""
    return PixelStream(make_images(16).to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=8))


class Augmented(torch.utils.data.Dataset):
    """Images that draw from every global generator, and with ``own`` from one of the data set's."""

    classes = list(CLASSES)

    def __init__(self, own=False):
        self.images = make_images(16)
        self.targets = self.images["label"]
        self.own = np.random.default_rng(0) if own else None

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        image = self.images[row]["image"]
        draws = [torch.rand(()).item(), np.random.rand(), random.random()]
        if self.own is not None:
            draws.append(self.own.random())
        for way, draw in enumerate(draws):
            image = image.transpose(way) if draw < 0.5 else image
        return image, self.targets[row]


@pytest.mark.parametrize(
    "data, options",
    [
        (stream, {"max_steps": 7, "save_steps": 5}),
        (stream, {"max_steps": 7, "save_steps": 4}),
        (stream, {"max_steps": 5, "save_steps": 3, "gradient_accumulation_steps": 3}),
        (Augmented, {"max_steps": 7, "save_steps": 5}),
        (Augmented, {"max_steps": 7, "save_steps": 5, "lora_r": 2, "lora_dropout": 0.3}),
    ],
    ids=["second pass", "end of the first pass", "accumulated", "augmented", "augmented beside dropout"],
)
def test_a_resumed_run_reads_what_the_uninterrupted_one_does(data, options, tiny_clip_dir, tmp_path):
    straight = make_trainer(tiny_clip_dir, tmp_path / "a", train=data(), **OPTIONS | options)
    straight.train()
    name = f"checkpoint-{options['save_steps']}"
    shutil.copytree(tmp_path / "a" / name, tmp_path / "b" / name)
    resumed = make_trainer(tiny_clip_dir, tmp_path / "b", train=data(), **OPTIONS | options)
    resumed.train(resume_from_checkpoint=True)
    assert furthest(weights(straight.model), weights(resumed.model)) == 0
    assert (resumed.state.epoch, resumed.state.global_step) == (straight.state.epoch, options["max_steps"])


def pixels(images, epoch):
    images.set_epoch(epoch)
    return [np.asarray(images[row][0]) for row in range(len(images))]


def test_images_are_drawn_anew_in_each_pass_and_leave_the_generators_alone():
    images = drawn(Augmented(), seed=1)
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first, second = pixels(images, 0), pixels(images, 1)
    assert any((a != b).any() for a, b in zip(first, second))
    assert all((a == b).all() for a, b in zip(first, pixels(images, 0)))
    assert torch.equal(state[0], torch.get_rng_state()) and random.getstate() == state[2]
    assert (state[1] == np.random.get_state()[1]).all()
    assert drawn(SimpleNamespace(), 1).epoch == 0  # a data set need not know its pass


def test_a_stream_draws_by_place():
    class Noise(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from (torch.rand(2) for _ in range(3))

    noise = drawn(Noise(), seed=1)
    first = list(noise)
    assert all(torch.equal(a, b) for a, b in zip(first, noise, strict=True))
    assert not torch.equal(first[0], first[1])


def test_workers_read_the_same_images():
    images = drawn(Augmented(), seed=1)
    images.set_epoch(2)
    loader = torch.utils.data.DataLoader(
        images, batch_size=None, num_workers=2, collate_fn=lambda item: np.asarray(item[0])
    )
    assert all((a == b).all() for a, b in zip(loader, pixels(images, 2), strict=True))


def test_images_with_a_generator_of_their_own_are_named_at_a_resume(tiny_clip_dir, tmp_path, caplog):
    options = OPTIONS | {"max_steps": 2, "save_steps": 1}
    make_trainer(tiny_clip_dir, tmp_path, train=Augmented(own=True), **options).train()
    shutil.rmtree(tmp_path / "checkpoint-2")
    caplog.clear()
    make_trainer(tiny_clip_dir, tmp_path, train=Augmented(own=True), **options).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-1")
    )
    assert "training images read differently each time" in caplog.text


def test_augmented_images_are_known_by_their_pixels(tiny_clip_dir, tmp_path):
    facts = [
        data_facts(make_trainer(tiny_clip_dir, tmp_path, train=images).train_dataset)
        for images in (Augmented(), Augmented(), Augmented(own=True))
    ]
    assert facts[0] == facts[1] and "pixels" in facts[0] and "pixels" not in facts[2]
    with drawing(0):
        inside = torch.rand(())
    with drawing(0):
        assert torch.equal(inside, torch.rand(()))
