"""The embedded default: a rendered image set and the tiny CLIP pretrained on it."""
