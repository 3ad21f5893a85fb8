"""Hyperbolic geometry as pure functions: the Poincaré ball, its polar chart and the margins of Theorem 1.

The two charts share their function names, so they are used through their modules:
``from hf_hierrobust.geometry import polar``, then ``polar.pairwise_distance(...)``.
"""

from . import poincare, polar
from .margins import (
    SimplexMargins,
    classification_margin,
    euclidean_margin,
    hyperbolic_margin,
    robust_radius,
    simplex_margins,
)
from .placement import place_levels
from .polar import Polar
from .precision import full_precision

__all__ = [
    "Polar",
    "SimplexMargins",
    "classification_margin",
    "euclidean_margin",
    "full_precision",
    "hyperbolic_margin",
    "place_levels",
    "poincare",
    "polar",
    "robust_radius",
    "simplex_margins",
]
