"""Perturbations that a training step trains on."""
