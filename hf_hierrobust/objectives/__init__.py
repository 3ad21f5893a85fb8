"""Training objectives, one method a file; `OBJECTIVES` finds them by name."""

from .base import OBJECTIVES, Objective, TextNodes, View
from .clean import Clean
from .hier_robust import HierRobust
from .tecoa import TeCoA

__all__ = ["OBJECTIVES", "Clean", "HierRobust", "Objective", "TeCoA", "TextNodes", "View"]
