"""Training arguments: `transformers.TrainingArguments` plus the objective, the attack and the evaluation."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields

import torch
from transformers import TrainingArguments

from ..attacks import ATTACKS, TEXT_ATTACKS, Attack, TextAttack
from ..data.class_sets import DEFAULT_TEMPLATE
from ..hierarchy import available_trees
from ..naming import check_template
from ..objectives import OBJECTIVES, Objective
from ..options import check_counts, json_mapping
from ..precision import accelerate_choice, resolve_bf16, this_device_type
from ..threat import ThreatModel, parse_eps


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
            "help": f"Training attack: {', '.join(ATTACKS.names())} or none; by default the objective's own."
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
        default="native",
        metadata={"help": "Resolution of the perturbation: 'native' images or the 'model' input."},
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
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Start anew although output_dir holds another run."}
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
        self.threat = ThreatModel(self.norm, self.eps, self.threat_space)
        if self.step_size is not None:
            parse_eps(self.step_size, "step_size", self.norm)
        check_template("template", self.template)
        check_counts(self, "robust_eval_samples", "robust_eval_steps", "calibration_samples")
        for name in ("lora_towers", "tree"):
            if isinstance(getattr(self, name), (list, tuple)):  # the natural form in YAML
                setattr(self, name, ",".join(map(str, getattr(self, name))))
        if self.fp16:
            raise ValueError(
                "fp16=True: attack gradients underflow in half precision and no loss scale covers them; "
                "use bf16, or leave both off"
            )
        self.objective_args = json_mapping(self.objective_args, "objective_args")
        self.attack_args = json_mapping(self.attack_args, "attack_args")
        self.text_attack_args = json_mapping(self.text_attack_args, "text_attack_args")
        if str(self.resume_from_checkpoint).lower() in ("true", "false"):
            self.resume_from_checkpoint = str(self.resume_from_checkpoint).lower() == "true"
        OBJECTIVES.get(self.objective)
        if self.attack is not None and self.attack != "none":
            ATTACKS.get(self.attack)
        if self.text_attack is not None:
            TEXT_ATTACKS.get(self.text_attack)
        if self.lora_r is None and (self.lora_alpha is not None or self.lora_dropout or self.lora_towers):
            raise ValueError("lora_alpha, lora_dropout and lora_towers need lora_r, the adapters' rank")
        if self.hub_token is not None:
            raise ValueError("hub_token is written to disk in clear with the arguments: use HF_TOKEN instead")
        if not torch.accelerator.is_available():
            # Without this, torchrun on a CPU machine silently trains one full copy per process.
            self.use_cpu = True
        self.bf16 = resolve_bf16(
            accelerate_choice(self.bf16), device_type="cpu" if self.use_cpu else this_device_type()
        )
        super().__post_init__()
        self.mixed_precision = "bf16" if self.bf16 else "no"  # else accelerate's configuration would win
        if self.n_gpu > 1:
            raise ValueError(
                "several GPUs without a launcher would fall back to DataParallel, which attacks cannot use: "
                "start with `accelerate launch --multi_gpu` or set CUDA_VISIBLE_DEVICES to one GPU"
            )

    def changed(self, *names: str) -> list[str]:
        """Those of these fields that differ from their defaults."""
        defaults = {f.name: f.default_factory() if f.default is MISSING else f.default for f in fields(self)}
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

    def build_attack(self, objective: Objective) -> Attack | None:
        """Instance of the training attack, by default the objective's own; None trains on clean images."""
        name = self.attack or objective.default_attack
        if name == "none":
            return None
        own = name == objective.default_attack
        options = {"threat": self.threat, "step_size": self.threat.eps}
        if self.step_size is not None:
            options["step_size"] = parse_eps(self.step_size, "step_size", self.norm)
        elif own and objective.default_step_size is not None and self.norm == "linf":
            options["step_size"] = min(objective.default_step_size, self.threat.eps)
        if self.num_steps is not None:
            options["num_steps"] = self.num_steps
        elif own and objective.default_attack_steps is not None:
            options["num_steps"] = objective.default_attack_steps
        elif name == "pgd":
            options["num_steps"] = 2  # PGD's own default is for evaluation
        cls = ATTACKS.get(name)
        if taken := sorted({"threat", "eps", "norm"} & self.attack_args.keys()):
            raise ValueError(
                f"attack_args: {', '.join(taken)} is set by the arguments norm, eps and threat_space; "
                "leave it out"
            )
        if unused := sorted(cls.evaluation_only & self.attack_args.keys()):
            raise ValueError(
                f"attack_args: {', '.join(unused)} has no effect in training, which maximises the "
                "objective's inner loss once; leave it out"
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
