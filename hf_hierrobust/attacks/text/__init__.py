"""Attacks on words and token embeddings, and on images and texts together."""
