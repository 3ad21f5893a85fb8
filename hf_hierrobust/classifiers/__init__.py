"""What is attacked: networks; zero-shot classifiers by cosine or distance, rolled up or joined over a tree.

Freezing, `Classifier` and the roll-up need torch only; the zero-shot classifiers load the Hugging Face stack
when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
