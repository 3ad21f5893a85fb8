"""Faults of the trainer, by kind: stale evaluations, facts of the card, captions, launchers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from tiny_data import make_images
from tiny_runs import furthest, make_trainer, train, weights

from hf_hierrobust.data import PixelDataset
from hf_hierrobust.modeling import TextEncoder, encode_prompts
from hf_hierrobust.training import RobustTrainingArguments
from hf_hierrobust.training.card import card_facts
from hf_hierrobust.training.launch import batch_in_words, missing_processes


class TestPredictions:
    def test_kind08_predict_works_before_any_evaluation_and_on_the_current_weights(
        self, tiny_clip_dir, tmp_path
    ):
        """The text tower trains under mmcoa: its states from before the training would be stale."""
        data = PixelDataset(make_images(12, seed=3))
        options = {"evaluation": data, "robust_eval_steps": 1}
        trainer = make_trainer(tiny_clip_dir, tmp_path, objective="mmcoa", **options)
        first = trainer.predict(data)
        assert first.predictions.shape == (12, 2) and "test_leaf_robust_accuracy" in first.metrics
        trainer.train()
        trainer.predict(data)
        states = encode_prompts(
            trainer.model, trainer.processing_class.tokenizer, trainer.step.views.text.prompts
        )
        classifier = trainer.evaluator._jobs[0].classifier
        torch.testing.assert_close(classifier.text_states, states)

    def test_kind08_predict_and_evaluate_say_the_same(self, tiny_clip_dir, tmp_path):
        data = PixelDataset(make_images(12, seed=3))
        options = {"evaluation": data, "robust_eval_steps": 1}
        trainer = train(tiny_clip_dir, tmp_path, objective="mmcoa", **options)
        predicted, evaluated = trainer.predict(data), trainer.evaluate(data)
        for kind in ("clean", "robust"):
            name = f"leaf_{kind}_accuracy"
            assert predicted.metrics[f"test_{name}"] == evaluated[f"eval_{name}"]
        assert predicted.predictions[:, 0].mean() == pytest.approx(evaluated["eval_leaf_clean_accuracy"])


class TestFacts:
    def out_of_memory_above(self, trainer, most: int) -> list[int]:
        """The trainer fails as a full accelerator does on larger batches; sizes of those that ran."""
        compute, ran = trainer.compute_loss, []

        def limited(model, inputs, *args, **kwargs):
            if len(inputs["labels"]) > most:
                raise RuntimeError("CUDA out of memory.")
            ran.append(len(inputs["labels"]))
            return compute(model, inputs, *args, **kwargs)

        trainer.compute_loss = limited
        return ran

    def test_kind09_the_card_states_the_batch_that_ran(self, tiny_clip_dir, tmp_path):
        trainer = make_trainer(tiny_clip_dir, tmp_path, auto_find_batch_size=True)
        ran = self.out_of_memory_above(trainer, 4)
        trainer.train()
        facts = card_facts(trainer.args, trainer.facts())
        assert facts.hyperparameters["batch_size"] == max(ran) <= 4

    def test_kind09_a_found_batch_draws_the_random_starts_of_a_chosen_one(self, tiny_clip_dir, tmp_path):
        """The failed tries count no step: the run can be repeated from its card."""
        found = make_trainer(tiny_clip_dir, tmp_path / "found", auto_find_batch_size=True)
        ran = self.out_of_memory_above(found, 4)
        found.train()
        chosen = train(tiny_clip_dir, tmp_path / "chosen", per_device_train_batch_size=max(ran))
        assert furthest(weights(found.model), weights(chosen.model)) == 0

    @pytest.mark.parametrize(("asked", "stated"), [("bf16", "bf16"), ("no", "fp32")])
    def test_kind09_the_card_states_accelerates_precision(
        self, asked, stated, tiny_clip_dir, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
        options = {"bf16": "auto"} if asked == "bf16" else {}
        trainer = make_trainer(tiny_clip_dir, tmp_path, **options)
        assert card_facts(trainer.args, trainer.facts()).hyperparameters["precision"] == stated
        assert (trainer.evaluator.search is torch.bfloat16) == (stated == "bf16")

    def test_kind09_fp16_by_accelerate_is_refused_like_the_flag(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
        with pytest.raises(ValueError, match="mixed_precision=fp16"):
            RobustTrainingArguments(str(tmp_path))

    def test_kind09_accumulation_and_batch_are_said_at_the_start(
        self, tiny_clip_dir, tmp_path, caplog, capsys
    ):
        trainer = make_trainer(
            tiny_clip_dir, tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=3
        )
        assert batch_in_words(trainer.args) == "12 images a step (4 x 3 accumulated)"
        assert "12 images a step (4 x 3 accumulated)" in caplog.text + capsys.readouterr().err


class TestBestModel:
    OPTIONS = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}

    def make(self, clip_dir, tmp_path, **options):
        given = {"evaluation": PixelDataset(make_images(8, seed=3)), "robust_eval_steps": 1}
        return make_trainer(clip_dir, tmp_path, **given | self.OPTIONS | options)

    def test_kind14_load_best_model_at_end_alone_goes_by_robust_accuracy(self, tiny_clip_dir, tmp_path):
        trainer = self.make(tiny_clip_dir, tmp_path, load_best_model_at_end=True)
        assert trainer.args.metric_for_best_model == "leaf_robust_accuracy" and trainer.args.greater_is_better
        trainer.train()
        assert trainer.state.best_model_checkpoint is not None

    def test_kind14_the_metric_follows_what_is_measured(self, tiny_clip_dir, tmp_path):
        options = {"load_best_model_at_end": True}
        sets = {name: PixelDataset(make_images(8, seed=3)) for name in ("first", "second")}
        trainer = self.make(tiny_clip_dir, tmp_path, evaluation=sets, **options)
        assert trainer.args.metric_for_best_model == "first_leaf_robust_accuracy"
        options |= {"objective": "clean", "robust_eval_steps": 10}
        assert (
            self.make(tiny_clip_dir, tmp_path, **options).args.metric_for_best_model == "leaf_clean_accuracy"
        )
        options = {"metric_for_best_model": "leaf_accuracy"}
        with pytest.raises(ValueError, match=r"metric_for_best_model='leaf_accuracy'.*leaf_robust_accuracy"):
            self.make(tiny_clip_dir, tmp_path, **options)

    def test_kind14_remove_unused_columns_is_refused(self, tmp_path):
        with pytest.raises(
            ValueError, match="remove_unused_columns=True cannot be used: it drops the images"
        ):
            RobustTrainingArguments(str(tmp_path), remove_unused_columns=True)


LONG = {
    "chinese": "一只猫坐在橡树下看着一朵玫瑰花" * 4,
    "address": "https://example.org/" + "images/cats/" * 20 + "cat.jpg",
    "emoji": "🐱" * 60,
    "one letter": "a" * 400,
}


class TestCaptions:
    def captioned(self, texts) -> PixelDataset:
        images = make_images(len(texts))
        return PixelDataset(images.add_column("caption", list(texts)))

    @pytest.mark.parametrize("name", LONG)
    def test_kind14_text_without_blanks_is_cut_by_tokens(self, name, tiny_clip_dir):
        from transformers import AutoTokenizer

        from hf_hierrobust.modeling import load_robust_model

        encoder = TextEncoder(load_robust_model(tiny_clip_dir), AutoTokenizer.from_pretrained(tiny_clip_dir))
        (found,) = encoder.fit([LONG[name]])
        assert found and LONG[name].startswith(found)
        lengths = [len(ids) for ids in encoder.tokenize([found, LONG[name][: len(found) + 1]])]
        assert lengths[0] <= encoder.context < lengths[1], "as much as fits"
        short = "a photo of a cat"
        assert encoder.fit([short]) == [short]

    @pytest.mark.parametrize("objective", ["advflyp", "mmcoa"])
    def test_kind14_such_captions_train_and_are_counted_once(
        self, objective, tiny_clip_dir, tmp_path, caplog, capsys
    ):
        texts = [*LONG.values(), *["a cat"] * 12]
        train(tiny_clip_dir, tmp_path, objective=objective, train=self.captioned(texts))
        said = caplog.text + capsys.readouterr().err
        words = "4 of 16 captions are longer than the"
        assert words in said and caplog.text.count(words) <= 1

    def test_kind14_a_stream_of_them_trains_too(self, tiny_clip_dir, tmp_path):
        from hf_hierrobust.data import PixelStream

        images = make_images(16).add_column("caption", [LONG["chinese"]] * 16)
        train(tiny_clip_dir, tmp_path, objective="advflyp", train=PixelStream(images.to_iterable_dataset()))


class TestLaunchers:
    """accelerate starts one process on CPUs, whatever it was asked for."""

    ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "no"}

    def test_kind27_missing_processes_are_named(self):
        alone = self.ACCELERATE | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
        assert "asked for several processes, but one is running" in missing_processes(1, alone)
        assert "WORLD_SIZE=4" in missing_processes(1, {"WORLD_SIZE": "4"})
        assert "the others each train alone" in missing_processes(1, {"OMPI_COMM_WORLD_SIZE": "2"})

    @pytest.mark.parametrize(
        ("running", "environment"),
        [
            (1, {}),
            (1, ACCELERATE),
            (1, {"MASTER_ADDR": "127.0.0.1"}),  # of a notebook, or a former group
            (2, ACCELERATE | {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}),
            (1, ACCELERATE | {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "1"}),
        ],
    )
    def test_kind27_who_got_what_was_asked_for_hears_nothing(self, running, environment):
        assert missing_processes(running, environment) is None

    @pytest.mark.slow
    def test_kind27_accelerate_launch_with_two_processes_on_a_cpu(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "from hf_hierrobust.training.launch import missing_processes\nprint(missing_processes(1))\n"
        )
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
        environment = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "RANK")}
        done = subprocess.run(
            [*launch, str(script)], env=environment, capture_output=True, text=True, timeout=200
        )
        assert "asked for several processes, but one is running" in done.stdout, done.stderr[-2000:]
