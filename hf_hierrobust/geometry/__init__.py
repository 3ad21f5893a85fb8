"""Hyperbolic geometry as pure functions: the ball in polar coordinates, margins of Theorem 1, depth.

The chart is used through its module: ``from hf_hierrobust.geometry import polar``, then
``polar.pairwise_distance(...)``.
"""

from . import polar
from .depth import EdgeOrder, ImageDepth, edge_order, image_depth, level_medians, smallest_step
from .margins import (
    SimplexMargins,
    classification_margin,
    euclidean_margin,
    hyperbolic_margin,
    robust_radius,
    simplex_margins,
)
from .placement import check_room, place_levels, tangent_margin
from .polar import Polar
from .precision import full_precision

__all__ = [
    "EdgeOrder",
    "ImageDepth",
    "Polar",
    "SimplexMargins",
    "check_room",
    "classification_margin",
    "edge_order",
    "euclidean_margin",
    "full_precision",
    "hyperbolic_margin",
    "image_depth",
    "level_medians",
    "place_levels",
    "polar",
    "robust_radius",
    "simplex_margins",
    "smallest_step",
    "tangent_margin",
]
