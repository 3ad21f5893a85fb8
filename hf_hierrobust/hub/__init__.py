"""Publishing a run: its model card and the upload to the Hub."""

from .card import CardFacts, TreeFacts, render_card, write_card
from .push import UPLOAD_PATTERNS, check_folder, push_folder

__all__ = [
    "UPLOAD_PATTERNS",
    "CardFacts",
    "TreeFacts",
    "check_folder",
    "push_folder",
    "render_card",
    "write_card",
]
