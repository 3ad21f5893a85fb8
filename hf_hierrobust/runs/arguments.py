"""What a run needs beside its training arguments: model, data, trees, evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

# Nothing here needs torch, so that a wrong option is refused at once: what a plan is made of comes late.
from ..licences import check_licence
from ..naming import check_hub_id, check_name, check_template, source_name
from ..options import check_counts, read_switch

SEVERAL = ("eval_eps", "eval_attack", "eval_classifiers", "eval_text_orders", "targets", "zero_shot")
"""Options that take several values: comma-separated, or a list in YAML (``zero_shot`` also a mapping)."""


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
        default=None, metadata={"help": "File (parquet, CSV, JSON lines, tar) or folder to train on."}
    )
    eval_file: str | None = field(
        default=None, metadata={"help": "File (parquet, CSV, JSON lines, tar) or folder to evaluate on."}
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
        default=None,
        metadata={
            "help": "Column of the training captions, by default the class prompts; or of those of retrieval."
        },
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on this many images, stratified by class."},
    )
    holdout: float | None = field(
        default=None,
        metadata={
            "help": "Hold out this fraction (or number) of the training images, stratified by class, and "
            "evaluate on them: for sources without a test split."
        },
    )
    skip_train_samples: int = field(
        default=0, metadata={"help": "Leave out this many images at the beginning of the training data."}
    )
    class_set: str | None = field(
        default=None,
        metadata={
            "help": "Class names: a built-in set (cifar10, cifar100, caltech101, tinyimagenet, imagenet) or "
            "JSON file; by default the data set's own names."
        },
    )
    eval_name: str | None = field(
        default=None,
        metadata={"help": "What records and card call the evaluation data; by default the data set or file."},
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
            "the two; 'autoattack' is AutoAttack, 'apgd-ce+t' its first two attacks; any registered attack "
            "by its name."
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
        metadata={
            "help": "Also attack the class prompts: 'bert', 'gradient' or 'synonym' their words, 'embedding' "
            "their token embeddings; leaves, cosine."
        },
    )
    eval_text_attack_args: dict | str | None = field(
        default=None, metadata={"help": "Options of that attack, as JSON."}
    )
    eval_text_orders: str | None = field(
        default=None,
        metadata={
            "help": "Orders of attacked prompts and pixels, comma-separated: text_first (the default), "
            "independent, joint."
        },
    )
    transfer: bool = field(
        default=False,
        metadata={"help": "Judge what is crafted at each level of the tree at every other level too."},
    )
    targets: str | None = field(
        default=None,
        metadata={
            "help": "Aim at wrong classes 'within' the superclass one level up, 'outside' of it, or both, "
            "comma-separated."
        },
    )
    defence: str | None = field(
        default=None,
        metadata={"help": "Measure a test-time defence too, attacked blindly and through it: 'ttc'."},
    )
    defence_args: dict | str | None = field(
        default=None, metadata={"help": "Options of that defence, as JSON."}
    )
    eot: int = field(
        default=10, metadata={"help": "Draws that the attack through the defence averages over."}
    )
    checks: bool = field(
        default=False,
        metadata={
            "help": "Look for masked gradients by further attacks on 64 images of each set, for every "
            "classifier and budget."
        },
    )
    eval_classifiers: str | None = field(
        default=None,
        metadata={
            "help": "Classifiers to evaluate, comma-separated, of cosine, hyperbolic, rollup, "
            "rollup-hyperbolic, path, path-hyperbolic; by default all but the last two."
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
    state_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the verdicts so far, where a killed evaluation goes on; by default 'state' "
            "in output_dir (evaluate) or none (train)."
        },
    )
    eval_base: bool = field(default=True, metadata={"help": "Evaluate the base model on the same images."})
    retrieval: bool = field(
        default=False,
        metadata={
            "help": "evaluate: measure image-text retrieval on images with captions instead, under image, "
            "text and joint attack."
        },
    )
    drift_base: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint that the model was trained from: measure how far the image tower's patch "
            "tokens are from its (train: model_name_or_path)."
        },
    )
    drift_samples: int = field(
        default=32, metadata={"help": "Images that drift is measured on; train measures none with 0."}
    )
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
        if isinstance(self.zero_shot, Mapping):  # lists and mappings are the natural forms in YAML
            self.zero_shot = [f"{name}={source}" for name, source in self.zero_shot.items()]
        for name in SEVERAL:
            if isinstance(getattr(self, name), (list, tuple)):
                setattr(self, name, ",".join(map(str, getattr(self, name))))
        counts = ("eval_samples", "eval_batch", "shuffle_buffer", "eot")
        optional = ("max_train_samples", "eval_num_steps", "eval_restarts")
        check_counts(self, *counts, *(name for name in optional if getattr(self, name) is not None))
        check_counts(self, "skip_train_samples", "drift_samples", least=0)
        if self.eval_template not in (None, "own"):
            check_template("eval_template", self.eval_template)
        if self.card_license is not None:
            check_licence(self.card_license)
        examples = {"card_base_model": "openai/clip-vit-base-patch32", "card_dataset": "uoft-cs/cifar10"}
        for name, example in examples.items():
            if getattr(self, name) is not None:
                check_hub_id(name, getattr(self, name), example)
        read_switch(self.bf16_search, "bf16_search")
        self._check_sources()
        self._check_idle()
        if self.model_name_or_path is None:
            if self.dataset_name != "glyphs":
                raise ValueError(
                    "no model: give model_name_or_path, a CLIP or SigLIP checkpoint (folder or Hub id)"
                )
            self.model_name_or_path = "glyphs"
        if self.eval_name is None:
            self.eval_name = source_name(self.eval_source)
        check_name("eval_name", self.eval_name)

    def _check_sources(self) -> None:
        if self.dataset_name is None and self.eval_file is None and self.holdout is None:
            raise ValueError(
                "no data: give dataset_name (Hub id, folder or 'glyphs') or eval_file; to train on files, "
                "train_file beside eval_file or holdout"
            )
        if self.dataset_name is not None and self.train_file and (self.eval_file or self.holdout is not None):
            raise ValueError(
                f"dataset_name={self.dataset_name!r} has no effect beside train_file and "
                f"{'eval_file' if self.eval_file else 'holdout'}: give two of them"
            )
        if self.dataset_name == "glyphs" and (
            self.streaming or self.train_file or self.eval_file or self.holdout is not None
        ):
            option = next(o for o in ("streaming", "train_file", "eval_file", "holdout") if getattr(self, o))
            raise ValueError(
                f"{option}={getattr(self, option)}: dataset_name='glyphs' renders its own "
                "training and test images: leave it out"
            )
        if self.holdout is not None:
            self._check_holdout()

    def _check_idle(self) -> None:
        """Refuse options that another one leaves without effect."""
        own = "dataset_name='glyphs', which renders its images" if self.dataset_name == "glyphs" else None
        files = None if self.dataset_name else "files: it chooses a part of a Hub id"
        held = self.holdout is not None and not self.zero_shot
        named = self.classifiers and "cosine" not in self.classifiers
        drift = "eval_classifiers without 'cosine', whose records have it" if named else None
        idle = {
            **dict.fromkeys(("image_column", "label_column", "train_split"), own),
            "eval_split": own or ("holdout, which evaluates on training images" if held else None),
            "dataset_config": own or files,
            "shuffle_buffer": None if self.streaming else "streaming=False",
            "drift_base": drift if self.drift_samples else "drift_samples=0",
            "drift_samples": drift if self.drift_samples else None,
        }
        for option in fields(self):
            value = getattr(self, option.name)
            if idle.get(option.name) is not None and value != option.default:
                raise ValueError(
                    f"{option.name}={value!r} has no effect beside {idle[option.name]}: leave it out"
                )

    def _check_holdout(self) -> None:
        if not isinstance(self.holdout, (int, float)) or not self.holdout > 0:
            raise ValueError(f"holdout={self.holdout} must be a fraction below 1 or a number of images")
        for option in ("eval_file", "streaming", "unlabelled"):
            if getattr(self, option):
                raise ValueError(
                    f"holdout={self.holdout} and {option}={getattr(self, option)}: the evaluation images are "
                    "held out of labelled training images with random access; leave one of the two out"
                )

    @property
    def train_source(self) -> str | None:
        """Where the training data come from."""
        return self.train_file or self.dataset_name

    @property
    def eval_source(self) -> str:
        """Where the evaluation data come from."""
        return self.train_source if self.holdout is not None else self.eval_file or self.dataset_name

    @property
    def train_name(self) -> str:
        """What the training data are called."""
        return source_name(self.train_source)

    @property
    def searches_in_bf16(self) -> bool:
        """What ``bf16_search`` comes to on this machine."""
        from ..precision import resolve_bf16

        return resolve_bf16(self.bf16_search, "bf16_search")

    @property
    def classifiers(self) -> list[str] | None:
        """The classifiers to evaluate; None is the usual ones."""
        names = self.eval_classifiers
        return [name.strip() for name in names.split(",")] if names else None

    def prompt_template(self, training: str) -> str | None:
        """Template of the evaluation; None stands for each class set's own ones."""
        return {None: training, "own": None}.get(self.eval_template, self.eval_template)
