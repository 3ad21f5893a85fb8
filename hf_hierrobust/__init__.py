"""Adversarially robust CLIP fine-tuning for the Hugging Face stack."""

import lazy_loader

__version__ = "0.1.0"

# The public names stand in one place, __init__.pyi; a room is imported when one of its names is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, "__version__"]
