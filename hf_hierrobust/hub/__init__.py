"""Publishing a run: its model card and the upload to the Hub."""

from .card import CardFacts, TreeFacts, render_card, write_card
from .push import check_folder, push_checkpoint, push_folder

__all__ = [
    "CardFacts",
    "TreeFacts",
    "check_folder",
    "push_checkpoint",
    "push_folder",
    "render_card",
    "write_card",
]
