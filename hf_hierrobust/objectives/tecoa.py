"""TeCoA: text-guided contrastive adversarial training (2212.07016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import OBJECTIVES
from .clean import Clean


@OBJECTIVES.register
@dataclass(kw_only=True)
class TeCoA(Clean):
    """The same cross-entropy over clean class prompts, on adversarial images; the image tower trains."""

    name: ClassVar[str] = "tecoa"
    title: ClassVar[str] = "Understanding Zero-Shot Adversarial Robustness for Large-Scale Models"
    paper_id: ClassVar[str] = "2212.07016"
    default_attack: ClassVar[str] = "pgd"
    citation: ClassVar[str] = """@inproceedings{mao2023understanding,
  title={Understanding Zero-Shot Adversarial Robustness for Large-Scale Models},
  author={Mao, Chengzhi and Geng, Scott and Yang, Junfeng and Wang, Xin and Vondrick, Carl},
  booktitle={International Conference on Learning Representations},
  year={2023}
}"""
