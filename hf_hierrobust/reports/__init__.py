"""From records to tables, figures and text."""

from .ball import plot_ball
from .bars import plot_before_after
from .curves import plot_curves
from .depth import plot_depth
from .depth_table import depth_table
from .examples import plot_examples
from .masking import masking_sentence
from .tables import attack_label, records_table
from .transfer import plot_transfer

__all__ = [
    "attack_label",
    "depth_table",
    "masking_sentence",
    "plot_ball",
    "plot_before_after",
    "plot_curves",
    "plot_depth",
    "plot_examples",
    "plot_transfer",
    "records_table",
]
