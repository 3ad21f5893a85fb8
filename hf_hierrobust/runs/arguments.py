"""What a run needs beside its training arguments: model, data, trees, evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..classifiers.levels import CLASSIFIERS
from ..data import available_class_sets
from ..evaluation import AttackPlan
from ..licences import check_licence
from ..naming import check_hub_id, check_template
from ..options import check_counts, check_numbers, json_mapping
from ..precision import resolve_bf16
from ..threat import ThreatModel, parse_eps
from ..training.arguments import build_text_attack


@dataclass
class RunArguments:
    """Model, data, class tree and evaluation of one run."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "CLIP or SigLIP checkpoint (folder or Hub id); 'glyphs', the default with that data set, "
            "pretrains a tiny one."
        },
    )
    dataset_name: str | None = field(
        default=None, metadata={"help": "Hub id or folder of images; 'glyphs' renders the embedded set."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    train_file: str | None = field(
        default=None, metadata={"help": "Parquet file to train on, in place of dataset_name."}
    )
    eval_file: str | None = field(
        default=None, metadata={"help": "Parquet file to evaluate on, in place of dataset_name."}
    )
    streaming: bool = field(default=False, metadata={"help": "Read the training data as a stream."})
    shuffle_buffer: int = field(default=1000, metadata={"help": "Images a stream is shuffled among."})
    image_column: str | None = field(default=None, metadata={"help": "Column of the images."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the class labels."})
    unlabelled: bool = field(
        default=False,
        metadata={"help": "The training images have no labels: for fare, agft and advflyp, which use none."},
    )
    caption_column: str | None = field(
        default=None, metadata={"help": "Column of the training captions; by default the class prompts."}
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={
            "help": "Train on this many images: the first, or random ones where the first cover less than "
            "half of the classes."
        },
    )
    skip_train_samples: int = field(
        default=0, metadata={"help": "Leave out this many images at the beginning of the training data."}
    )
    class_set: str | None = field(
        default=None,
        metadata={
            "help": f"Class names: a built-in set ({', '.join(available_class_sets())}) or JSON file; by "
            "default the data set's own names."
        },
    )
    eval_samples: int = field(default=1000, metadata={"help": "Images of each evaluation set."})
    eval_eps: str | None = field(
        default=None, metadata={"help": "Budgets to evaluate, comma-separated; by default the training eps."}
    )
    eval_attack: str = field(
        default="pgd",
        metadata={
            "help": "Attacks of the evaluation, comma-separated; the worst case counts. 'pgd' is PGD on the "
            "cross-entropy, then on the margin of what still stands; 'pgd-ce' and 'pgd-margin' are one of "
            "the two; any registered attack by its name."
        },
    )
    eval_num_steps: int | None = field(
        default=None, metadata={"help": "Steps of these attacks; by default their own (PGD: 20)."}
    )
    eval_step_size: str | None = field(
        default=None, metadata={"help": "Their step in pixel scale; by default their own (PGD: eps/4)."}
    )
    eval_restarts: int | None = field(
        default=None, metadata={"help": "Their restarts; by default their own (PGD: 1)."}
    )
    eval_attack_args: dict | str | None = field(
        default=None, metadata={"help": "Further options of these attacks, as JSON."}
    )
    eval_text_attack: str | None = field(
        default=None,
        metadata={"help": "Also attack the class prompts: 'bert', 'gradient' or 'synonym'; leaves, cosine."},
    )
    eval_text_attack_args: dict | str | None = field(
        default=None, metadata={"help": "Options of that attack, as JSON."}
    )
    eval_classifiers: str | None = field(
        default=None,
        metadata={
            "help": f"Classifiers to evaluate, comma-separated, of {', '.join(CLASSIFIERS)}; by default all "
            "but those that join the levels of a path."
        },
    )
    eval_template: str | None = field(
        default=None,
        metadata={
            "help": "Prompt template of the evaluation, or 'own': each class set's; default: template."
        },
    )
    zero_shot: str | None = field(
        default=None,
        metadata={"help": "Further sets, name=source pairs: 'cifar10=path.parquet,tinyimagenet=…'."},
    )
    eval_batch: int = field(default=250, metadata={"help": "Images per evaluation batch."})
    bf16_search: str = field(
        default="auto",
        metadata={
            "help": "Search attacks under bf16 autocast, verdicts stay fp32: auto (where the machine has "
            "bf16 instructions), true or false.",
            "nargs": "?",
            "const": "true",
        },
    )
    eval_base: bool = field(default=True, metadata={"help": "Evaluate the base model on the same images."})
    card_license: str | None = field(
        default=None,
        metadata={"help": "Licence on the model card, by its name on the Hub: mit, apache-2.0, cc-by-4.0, …"},
    )
    card_base_model: str | None = field(
        default=None,
        metadata={"help": "Hub id of the base model on the card, where model_name_or_path is a folder."},
    )
    card_dataset: str | None = field(
        default=None, metadata={"help": "Hub id of the training data on the card, where they are files."}
    )
    figures: bool = field(default=True, metadata={"help": "Draw the figures (needs matplotlib)."})

    def __post_init__(self):
        for name in ("eval_eps", "eval_attack", "eval_classifiers", "zero_shot"):
            if isinstance(getattr(self, name), list):  # the natural form in YAML
                setattr(self, name, ",".join(map(str, getattr(self, name))))
        counts = ("eval_samples", "eval_batch", "shuffle_buffer")
        optional = ("max_train_samples", "eval_num_steps", "eval_restarts")
        check_counts(self, *counts, *(name for name in optional if getattr(self, name) is not None))
        check_numbers(self, "skip_train_samples")
        if self.eval_template not in (None, "own"):
            check_template("eval_template", self.eval_template)
        if self.card_license is not None:
            check_licence(self.card_license)
        examples = {"card_base_model": "openai/clip-vit-base-patch32", "card_dataset": "uoft-cs/cifar10"}
        for name, example in examples.items():
            if getattr(self, name) is not None:
                check_hub_id(name, getattr(self, name), example)
        if self.dataset_name is None and self.eval_file is None:
            raise ValueError(
                "no data: give dataset_name (Hub id, folder or 'glyphs'), or eval_file and train_file"
            )
        if self.dataset_name is not None and (self.train_file or self.eval_file):
            raise ValueError(
                f"dataset_name={self.dataset_name!r} and train_file or eval_file both name the data: give one"
            )
        if self.streaming and self.dataset_name == "glyphs":
            raise ValueError("streaming=True: the glyphs are rendered here, there is nothing to stream")
        if self.model_name_or_path is None:
            if self.dataset_name != "glyphs":
                raise ValueError(
                    "no model: give model_name_or_path, a CLIP or SigLIP checkpoint (folder or Hub id)"
                )
            self.model_name_or_path = "glyphs"
        self.bf16_search = resolve_bf16(self.bf16_search, "bf16_search")

    @property
    def train_source(self) -> str:
        """Where the training data come from."""
        return self.dataset_name or self.train_file

    @property
    def eval_source(self) -> str:
        """Where the evaluation data come from."""
        return self.dataset_name or self.eval_file

    @property
    def train_name(self) -> str:
        """What the training data are called."""
        return self.dataset_name or Path(self.train_file).absolute().parent.name

    @property
    def eval_name(self) -> str:
        """What the evaluation data are called."""
        return self.dataset_name or Path(self.eval_file).absolute().parent.name

    @property
    def classifiers(self) -> list[str] | None:
        """The classifiers to evaluate; None is the usual ones."""
        names = self.eval_classifiers
        return [name.strip() for name in names.split(",")] if names else None

    def prompt_template(self, training: str) -> str | None:
        """Template of the evaluation; None stands for each class set's own ones."""
        return {None: training, "own": None}.get(self.eval_template, self.eval_template)

    def plan(self, threat: ThreatModel) -> AttackPlan:
        """The evaluation's attacks, in the norm and space of the training threat."""
        budgets = [threat.eps]
        if self.eval_eps:
            budgets = [parse_eps(eps.strip(), "eval_eps", threat.norm) for eps in self.eval_eps.split(",")]
        text_attack = None
        if self.eval_text_attack:
            text_attack = build_text_attack(self.eval_text_attack, self.eval_text_attack_args, "eval_")
        return AttackPlan.of(
            self.eval_attack,
            [ThreatModel(threat.norm, eps, threat.space) for eps in budgets],
            text_attack=text_attack,
            **self._attack_options(threat),
        )

    def _attack_options(self, threat: ThreatModel) -> dict:
        options = json_mapping(self.eval_attack_args, "eval_attack_args")
        if self.eval_step_size is not None:
            parse_eps(self.eval_step_size, "eval_step_size", threat.norm)  # a message with this name
        for name in ("num_steps", "step_size", "restarts"):
            if (value := getattr(self, f"eval_{name}")) is not None:
                if name in options:
                    raise ValueError(
                        f"eval_{name}={value} and eval_attack_args both set {name}: give it once"
                    )
                options[name] = value
        return options
