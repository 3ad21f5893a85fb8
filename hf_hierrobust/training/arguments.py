"""Training arguments: `transformers.TrainingArguments` plus the objective, the attack and the evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace

import torch
from transformers import TrainingArguments, logging

from ..attacks import (
    TEXT_ATTACKS,
    TRAINING_ATTACKS,
    TextAttack,
    TrainingAttack,
    UniversalHierarchicalAttack,
)
from ..data import ImageStream, ImageView, threat_space_for
from ..data.class_sets import DEFAULT_TEMPLATE
from ..hierarchy import available_trees
from ..naming import check_template
from ..objectives import OBJECTIVES, Objective
from ..options import check_counts, json_mapping
from ..precision import accelerate_choice, resolve_bf16, this_device_type
from ..threat import ThreatModel, parse_eps
from .argument_checks import check_training_numbers
from .refusals import default_of, refuse_fields, refuse_optimizer_options, selects
from .tracking import check_trackers

BEST_METRIC = "leaf_robust_accuracy"
"""What the best checkpoint is chosen by if nothing is named; clean accuracy where nothing is attacked."""
logger = logging.get_logger(__name__)


@dataclass
class RobustTrainingArguments(TrainingArguments):
    """Everything of `TrainingArguments`, with the defaults robust fine-tuning needs, and the fields below.

    Objective, attacks, adapters, threat model and evaluation; each field's ``help`` describes it. Budgets and
    step sizes are in pixel scale [0, 1] and accept fractions: ``--eps 4/255``.

    Raises:
        ValueError: values that are wrong or do not fit together, unknown options of objective and attacks.
        KeyError: unknown names of objectives and attacks.
    """

    objective: str = field(
        default="hier_robust",
        metadata={"help": f"The training objective: {', '.join(OBJECTIVES.names())}."},
    )
    objective_args: dict | str | None = field(
        default=None, metadata={"help": 'Options of the objective, as JSON: \'{"hnsa": "upper"}\'.'}
    )
    attack: str | None = field(
        default=None,
        metadata={
            "help": f"Training attack: {', '.join(TRAINING_ATTACKS.names())} or none; by default the "
            "objective's own."
        },
    )
    attack_args: dict | str | None = field(
        default=None, metadata={"help": "Further options of the attack, as JSON: '{\"text_eps\": 0.0002}'."}
    )
    text_attack: str | None = field(
        default=None,
        metadata={
            "help": f"Attack on captions: {', '.join(TEXT_ATTACKS.names())}; by default the objective's own."
        },
    )
    text_attack_args: dict | str | None = field(
        default=None, metadata={"help": "Options of the text attack, as JSON: '{\"num_candidates\": 10}'."}
    )
    tree: str | None = field(
        default=None,
        metadata={
            "help": f"Class trees, comma-separated: built-in names ({', '.join(available_trees())}), JSON "
            "files, 'wordnet', 'induced', 'generated:<model>'."
        },
    )
    lora_r: int | None = field(
        default=None, metadata={"help": "Train LoRA adapters of this rank in place of the towers' weights."}
    )
    lora_alpha: float | None = field(default=None, metadata={"help": "LoRA scale; by default twice lora_r."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the adapters' input."})
    lora_towers: str | None = field(
        default=None,
        metadata={"help": "'vision', 'text' or 'vision,text'; by default what the objective trains."},
    )
    visual_prompt_tokens: int = field(
        default=0, metadata={"help": "Train this many prompt tokens in place of the image tower."}
    )
    visual_prompt_border: int = field(
        default=0, metadata={"help": "Train a border of this many pixels in place of the image tower."}
    )
    norm: str = field(default="linf", metadata={"help": "Norm of the threat model: linf or l2."})
    eps: str = field(default="1/255", metadata={"help": "Perturbation budget in pixel scale, e.g. 4/255."})
    step_size: str | None = field(
        default=None,
        metadata={
            "help": "Training attack step in pixel scale; by default eps, as in most papers (FARE: 1/255)."
        },
    )
    num_steps: int | None = field(
        default=None,
        metadata={"help": "Training attack steps; by default 2, universal 3, FARE and MMCoA 10."},
    )
    threat_space: str = field(
        default="auto",
        metadata={
            "help": "Resolution of the perturbation: 'native' images, the 'model' input, or 'auto': native "
            "where the images of each set have one size."
        },
    )
    template: str = field(
        default=DEFAULT_TEMPLATE, metadata={"help": "Prompt template of classes and superclasses."}
    )
    robust_eval_samples: int = field(
        default=512, metadata={"help": "Images of the evaluation set to attack at each evaluation."}
    )
    robust_eval_steps: int = field(
        default=10, metadata={"help": "PGD steps of the evaluation during training (step size eps/4)."}
    )
    calibration_samples: int = field(
        default=256, metadata={"help": "Clean training images from which the hyperbolic head is calibrated."}
    )
    scale_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the hyperbolic head's scales, which have no weight decay; by default "
            "three times learning_rate, and learning_rate itself under SGD."
        },
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start anew although output_dir holds another run."}
    )
    resume_with_changes: bool = field(
        default=False,
        metadata={"help": "Resume although settings that decide the weights differ; the card says so."},
    )
    # Changed defaults of TrainingArguments
    bf16: str = field(
        default="auto",
        metadata={
            "help": "Train under bf16 autocast: auto (where the machine has bf16 instructions), true, false.",
            "nargs": "?",
            "const": "true",
        },
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off: it drops labels."})
    label_names: list[str] | None = field(default_factory=lambda: ["labels"])
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})

    def __post_init__(self):
        # Our own checks come first: a wrong budget should not wait for a device to be found.
        refuse_fields(self)
        space = "native" if self.threat_space == "auto" else self.threat_space
        self.threat = ThreatModel(self.norm, self.eps, space)
        if self.step_size is not None:
            parse_eps(self.step_size, "step_size", self.norm)
        check_template("template", self.template)
        check_counts(self, "robust_eval_samples", "robust_eval_steps", "calibration_samples")
        check_training_numbers(self)
        for name in ("lora_towers", "tree"):
            if isinstance(getattr(self, name), (list, tuple)):  # the natural form in YAML
                setattr(self, name, ",".join(map(str, getattr(self, name))))
        self.objective_args = json_mapping(self.objective_args, "objective_args")
        self.attack_args = json_mapping(self.attack_args, "attack_args")
        self.text_attack_args = json_mapping(self.text_attack_args, "text_attack_args")
        if str(self.resume_from_checkpoint).lower() in ("true", "false"):
            self.resume_from_checkpoint = str(self.resume_from_checkpoint).lower() == "true"
        OBJECTIVES.get(self.objective)
        if self.attack is not None and self.attack != "none":
            TRAINING_ATTACKS.get(self.attack)
        if self.text_attack is not None:
            TEXT_ATTACKS.get(self.text_attack)
        if self.lora_r is None and (self.lora_alpha is not None or self.lora_dropout or self.lora_towers):
            raise ValueError("lora_alpha, lora_dropout and lora_towers need lora_r, the adapters' rank")
        if self.metric_for_best_model is None and selects(self):
            self.metric_for_best_model = BEST_METRIC
        if not torch.accelerator.is_available():
            # Without this, torchrun on a CPU machine silently trains one full copy per process.
            self.use_cpu = True
        self.bf16 = resolve_bf16(
            accelerate_choice(self.bf16), device_type="cpu" if self.use_cpu else this_device_type()
        )
        super().__post_init__()
        check_trackers(self.report_to)
        self.mixed_precision = "bf16" if self.bf16 else "no"  # else accelerate's configuration would win
        refuse_optimizer_options(self)
        if self.accelerator_config.split_batches:
            raise ValueError(
                "accelerator_config: split_batches=True makes per_device_train_batch_size the batch of all "
                "processes: leave it out, and give the batch of one"
            )
        if self.n_gpu > 1:
            raise ValueError(
                "several GPUs without a launcher would fall back to DataParallel, which attacks cannot use: "
                "start with `accelerate launch --multi_gpu` or set CUDA_VISIBLE_DEVICES to one GPU"
            )

    def settle_space(self, *sets: ImageView | ImageStream | dict[str, ImageView] | None) -> None:
        """Where the threat space is ``auto``, choose the one that the images' sizes allow, and say so."""
        if self.threat_space == "auto":
            flat = [one for data in sets for one in (data.values() if isinstance(data, dict) else (data,))]
            self.threat_space, reason = threat_space_for(*flat)
            self.threat = replace(self.threat, space=self.threat_space)
            if self.threat_space == "model":
                logger.warning(reason)

    def changed(self, *names: str) -> list[str]:
        """Those of these fields that differ from their defaults."""
        defaults = {field.name: default_of(field) for field in fields(self)}
        return [name for name in names if getattr(self, name) not in (defaults[name], {})]

    def refuse_beside(self, instance: str, *names: str) -> None:
        """An instance handed to the trainer has its own options.

        Raises:
            ValueError: one of these fields is set and would have no effect.
        """
        if set_ := self.changed(*names):
            raise ValueError(
                f"{set_[0]}={getattr(self, set_[0])!r} has no effect beside the {instance} instance that the "
                "trainer was given: set it there, or leave the instance out"
            )

    def build_objective(self) -> Objective:
        """Instance of the named objective with ``objective_args``."""
        return _build(OBJECTIVES.get(self.objective), self.objective_args, "objective_args")

    def build_attack(self, objective: Objective) -> TrainingAttack | None:
        """Instance of the training attack, by default the objective's own; None trains on clean images."""
        name = self.attack or objective.default_attack
        if name == "none":
            if unused := self.changed("attack_args", "num_steps", "step_size"):
                raise ValueError(
                    f"{unused[0]}={getattr(self, unused[0])!r} has no effect: {self.objective!r} trains on "
                    "clean images unless an attack is named"
                )
            return None
        for given in ("num_steps", "step_size"):
            if getattr(self, given) is not None and given in self.attack_args:
                raise ValueError(f"attack_args and {given} both set {given}: give it once")
        own = name == objective.default_attack
        options = asdict(self.threat)
        if self.step_size is not None:
            options["step_size"] = parse_eps(self.step_size, "step_size", self.norm)
        elif own and objective.default_step_size is not None and self.norm == "linf":
            options["step_size"] = min(objective.default_step_size, self.threat.eps)
        if self.num_steps is not None:
            options["num_steps"] = self.num_steps
        elif own and objective.default_attack_steps is not None:
            options["num_steps"] = objective.default_attack_steps
        cls = TRAINING_ATTACKS.get(name)
        if issubclass(cls, UniversalHierarchicalAttack) and not objective.reads_text_delta:
            options["text_eps"] = 0.0  # records and cards state what is attacked
        if taken := sorted({"eps", "norm", "space"} & self.attack_args.keys()):
            raise ValueError(
                f"attack_args: {', '.join(taken)} is set by the arguments norm, eps and threat_space; "
                "leave it out"
            )
        return _build(cls, options | self.attack_args, "attack_args")

    def build_text_attack(self, default: str) -> TextAttack:
        """Instance of the attack on captions; ``default``, the objective's own, when none was named."""
        return build_text_attack(self.text_attack or default, self.text_attack_args)


def build_text_attack(name: str, options: dict | str | None, prefix: str = "") -> TextAttack:
    """Instance of a named text attack; ``prefix`` of the argument for messages."""
    argument = f"{prefix}text_attack_args"
    return _build(TEXT_ATTACKS.get(name), json_mapping(options, argument), argument)


def _build(cls, options: dict, argument: str):
    try:
        return cls(**options)
    except TypeError as error:
        known = [f.name for f in fields(cls) if f.init]
        raise ValueError(f"{argument}: {error}; {cls.name!r} takes {', '.join(known)}") from None
