"""The point of a hyperplane that is nearest to an image within [0, 1], in linf and l2, without sorting."""

from __future__ import annotations

import torch
from torch import Tensor

from ...threat import Norm


def to_hyperplane(points: Tensor, normal: Tensor, height: Tensor, norm: Norm) -> Tensor:
    """Smallest move ``d`` with ``normal . d = -height`` that keeps ``points + d`` in [0, 1].

    Coordinate i moves by ``min(s u_i, room_i)`` against the sign of ``height normal_i``, with ``u = 1`` in
    linf and ``u = |normal|`` in l2. What that gains, ``g(s) = sum_i |normal_i| min(s u_i, room_i)``, is
    concave and piecewise linear: Newton's method from s = 0 rises to the root of ``g(s) = |height|`` and ends
    after a few passes, where the official projection sorts all coordinates.

    Args:
        points, normal: (B, D), points in [0, 1].
        height: (B,), ``normal . point - offset``: positive on the side that the normal points to.

    Returns:
        (B, D). Where no point of [0, 1] lies on the hyperplane, the move to the nearest corner there is.
    """
    weight = normal.abs()
    down = (normal > 0) == (height >= 0)[:, None]
    room = torch.where(down, points, 1 - points)
    unit = torch.ones_like(weight) if norm == "linf" else weight
    need, pull = height.abs(), weight * unit
    slope, gained = pull.sum(1), torch.zeros_like(height)
    scale = torch.zeros_like(height)
    for _ in range(points.shape[1]):
        step = torch.where(slope > 0, (need - gained) / slope, 0.0).clamp(min=0)
        # A root between the same two breakpoints is exact: the next pass would move by a rounding.
        if not (step > 1e-6 * scale).any():
            break
        scale = scale + step
        reach = scale[:, None] * unit
        free = reach < room
        gained = (weight * torch.where(free, reach, room)).sum(1)
        slope = (pull * free).sum(1)
    move = torch.minimum(scale[:, None] * unit, room)
    # Without any coordinate left to move the hyperplane is out of reach: as far as it goes.
    move = torch.where((slope > 0)[:, None] | (gained >= need)[:, None], move, room)
    return torch.where(down, -move, move) * (weight > 0)
