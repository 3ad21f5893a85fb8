"""Training objectives, one method a file; `OBJECTIVES` finds them by name."""

from .advflyp import AdvFLYP
from .agft import AGFT
from .base import NEEDS, OBJECTIVES, Objective, Reference, Targets, TextNodes, View
from .clean import Clean
from .composite import Composite
from .fare import FARE
from .hier_agft import HierAGFT
from .hier_mmcoa import HierMMCoA
from .hier_robust import HierRobust
from .hierarchical import TreeObjective
from .mmcoa import MMCoA
from .plain import Plain
from .pmg_aft import PMGAFT
from .tecoa import TeCoA
from .tga_zsr import TGAZSR, CompTGA

__all__ = [
    "AGFT",
    "FARE",
    "NEEDS",
    "OBJECTIVES",
    "PMGAFT",
    "TGAZSR",
    "AdvFLYP",
    "Clean",
    "CompTGA",
    "Composite",
    "HierAGFT",
    "HierMMCoA",
    "HierRobust",
    "MMCoA",
    "Objective",
    "Plain",
    "Reference",
    "Targets",
    "TeCoA",
    "TextNodes",
    "TreeObjective",
    "View",
]
