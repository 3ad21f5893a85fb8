"""The hyperbolic head: from un-normalised CLIP embeddings to points of the Poincaré ball."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import initialization as init

from ..geometry import Polar, place_levels, polar, tangent_margin


class HierHead(nn.Module):
    """Tangent scales, curvature and temperature of the hyperbolic classifier (OC-2, OC-5, OC-6, OC-8).

    The tangent vectors are ``v_I = a_I f(x)`` and ``v_T = a_l g(t)`` with positive scales trained in log
    space: one for images, one for the texts of each level of a class tree. Curvature, temperature ``kappa``
    and the neighbourhood radius are buffers: they are part of the checkpoint and never trained.

    Args:
        dim: D, width of the shared embedding.
        text_levels: number of text scales; 1 is for leaves only.
        curvature: r > 0 of a ball of curvature -r.
        ball_margin: distance xi kept from the edge, as a fraction of the ball's radius.
        max_tangent_norm: clip of the tangent norm, in units of 1/sqrt(r).
        tangent_norm: median tangent norm of the leaves' texts at calibration, in units of 1/sqrt(r); the
            images' is larger by the margin. None keeps the scales 1/sqrt(D), whatever norms that gives.
        vic_factor: neighbourhood radius as a fraction of the median distance at calibration.
    """

    CONSTANTS = ("curvature", "ball_margin", "max_tangent_norm", "tangent_norm", "vic_factor")

    def __init__(
        self,
        dim: int,
        text_levels: int = 1,
        curvature: float = 1.0,
        ball_margin: float = 1e-3,
        max_tangent_norm: float = 4.0,
        tangent_norm: float | None = None,
        vic_factor: float = 0.9,
    ):
        super().__init__()
        self.dim, self._placed = dim, text_levels
        self._set(curvature, ball_margin, max_tangent_norm, tangent_norm, vic_factor)
        self.log_image_scale = nn.Parameter(torch.empty(()))
        self.log_text_scale = nn.Parameter(torch.empty(text_levels))
        self.register_buffer("curvature", torch.empty(()))
        self.register_buffer("kappa", torch.empty(()))
        self.register_buffer("vic_radius", torch.empty(()))
        self.reset()

    def reset(self) -> None:
        """Initial values; ``kappa`` and ``vic_radius`` are NaN until `calibrate` has seen data."""
        # transformers' own initialisers respect tensors already loaded from a checkpoint.
        for scale in (self.log_image_scale, self.log_text_scale):
            init.constant_(scale, -0.5 * math.log(self.dim))
        init.constant_(self.curvature, self._curvature)
        init.constant_(self.kappa, math.nan)
        init.constant_(self.vic_radius, math.nan)

    def configure(
        self,
        curvature: float,
        ball_margin: float,
        max_tangent_norm: float,
        tangent_norm: float | None = None,
        vic_factor: float = 0.9,
    ) -> None:
        """Change the constants of a head that is not calibrated yet.

        Raises:
            ValueError: a constant that is not positive, or a margin outside [0, 1).
        """
        self._set(curvature, ball_margin, max_tangent_norm, tangent_norm, vic_factor)
        with torch.no_grad():
            self.curvature.fill_(curvature)

    def _set(self, curvature, ball_margin, max_tangent_norm, tangent_norm, vic_factor) -> None:
        positive = {"curvature": curvature, "max_tangent_norm": max_tangent_norm, "vic_factor": vic_factor}
        if tangent_norm is not None:
            positive["tangent_norm"] = tangent_norm
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name}={value} must be positive")
        if not 0 <= ball_margin < 1:
            raise ValueError(f"ball_margin={ball_margin} must be in [0, 1), a fraction of the ball's radius")
        self._curvature = float(curvature)
        self.ball_margin, self.max_tangent_norm = ball_margin, max_tangent_norm
        self.tangent_norm, self.vic_factor = tangent_norm, vic_factor

    @property
    def radius(self) -> float:
        """Radius 1/sqrt(r) of the ball."""
        return 1 / math.sqrt(self._curvature)

    @property
    def constants(self) -> dict[str, float | None]:
        """What `configure` sets."""
        return {"curvature": self._curvature} | {name: getattr(self, name) for name in self.CONSTANTS[1:]}

    @property
    def text_levels(self) -> int:
        """Number of text scales."""
        return len(self.log_text_scale)

    @torch.no_grad()
    def grow(self, text_levels: int) -> None:
        """Make room for the levels of a deeper tree, which `calibrate` places; never fewer than before."""
        missing = text_levels - self.text_levels
        if missing > 0:
            scale = self.log_text_scale
            self.log_text_scale = nn.Parameter(
                torch.cat([scale, scale[-1:].expand(missing)]), requires_grad=scale.requires_grad
            )

    @property
    def calibrated(self) -> bool:
        return bool(torch.isfinite(self.kappa))

    def image_tangent(self, features: Tensor) -> Tensor:
        """Un-normalised image embeddings (B, D) to tangent vectors (B, D), fp32."""
        return self.log_image_scale.exp() * features.float()

    def text_tangent(self, features: Tensor, levels: Tensor | None = None) -> Tensor:
        """Un-normalised text embeddings (N, D) to tangent vectors (N, D), fp32.

        Args:
            levels: (N,) level of each text; None takes all for leaves. Levels above the highest trained one
                have its scale.
        """
        if levels is None:
            return self.log_text_scale[0].exp() * features.float()
        levels = levels.to(features.device).clamp(max=self.text_levels - 1)
        return self.log_text_scale.exp()[levels].unsqueeze(-1) * features.float()

    def lift(self, tangent: Tensor) -> Polar:
        """Exponential map at the origin with both clips."""
        return polar.from_tangent(
            tangent,
            self._curvature,
            max_tangent_norm=self.max_tangent_norm,
            ball_margin=self.ball_margin,
        )

    def distance(self, images: Polar, texts: Polar) -> Tensor:
        """Hyperbolic distances (B, N)."""
        return polar.pairwise_distance(images, texts, self._curvature)

    def own_distance(self, images: Polar, texts: Polar) -> Tensor:
        """Hyperbolic distance (B,) of each image to the text in the same row."""
        return polar.distance(images, texts, self._curvature)

    def ball_norm(self, points: Polar) -> Tensor:
        """Norm of the points in the ball in units of its radius, in [0, 1)."""
        return torch.tanh(math.sqrt(self._curvature) * points.radius / 2)

    def tangent_norm_of(self, points: Polar) -> Tensor:
        """Norm of the points' tangent vectors in units of 1/sqrt(r); it does not saturate."""
        return math.sqrt(self._curvature) * points.radius / 2

    def midpoints(
        self, points: Polar, nodes: Tensor, num_nodes: int, reduce: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Polar, Tensor]:
        """Einstein midpoints of the nodes that are present, m of them, and their ids (m,).

        Args:
            points, nodes: B points and the node (B,) of each, in [0, num_nodes).
            reduce: applied to the additive state (S, Z) of all nodes, e.g. a sum over processes.
        """
        S, Z = polar.midpoint_sums(points, nodes, num_nodes, self._curvature)
        if reduce is not None:
            S, Z = reduce(S), reduce(Z)
        present = Z.nonzero()[:, 0]  # each point adds at least 1 to its node's Z
        dtype = points.radius.dtype
        return polar.midpoint_from_sums(S[present], Z[present], self._curvature, dtype), present

    def logits(self, images: Polar, texts: Polar) -> Tensor:
        """Classifier scores ``-kappa d_r`` (B, N).

        Raises:
            RuntimeError: the head has never been calibrated, so ``kappa`` has no value.
        """
        if not self.calibrated:
            raise RuntimeError(
                "the hyperbolic head is not calibrated: train with objective='hier_robust', load a "
                "checkpoint with its hier_head.safetensors, or call model.hier_head.calibrate(...)"
            )
        return -self.kappa * self.distance(images, texts)

    @torch.no_grad()
    def calibrate(
        self,
        image_features: Tensor,
        text_features: Tensor,
        labels: Tensor,
        logit_scale: float,
        levels: Tensor | None = None,
        edges: Sequence[tuple[Tensor, Tensor]] = (),
        margin: float = 0.0,
        margin_norm: str = "tangent",
    ) -> None:
        """Set the scales, ``kappa`` and the neighbourhood radius from one clean batch.

        The leaves' texts get the median norm ``tangent_norm``, the images a median larger by the margin, the
        levels above are placed by `place_levels`. ``kappa`` makes the slope of ``-kappa d_r`` in the cosine
        equal the slope ``logit_scale`` of CLIP's own logits at the medians of images and leaves (OC-8); the
        radius is ``vic_factor`` times the median distance of images to their own label (OC-15). A head that
        is calibrated keeps all this and places the levels that `grow` added.

        Args:
            image_features, text_features: (B, D) and (N, D), un-normalised, of the same model.
            labels: (B,) row of each image's leaf text.
            logit_scale: CLIP's multiplier, about 100.
            levels: (N,) level of each text; None takes all for leaves.
            edges: see `place_levels`.
            margin: by which norms of neighbouring levels differ, in units of 1/sqrt(r).
            margin_norm: see `tangent_margin`.

        Raises:
            ValueError: see `place_levels`; or the images' embeddings have no median norm above zero.
        """
        if levels is None:
            levels = torch.zeros(len(text_features), dtype=torch.long)
        levels = levels.to(text_features.device)
        norms, leaves = text_features.double().norm(dim=1), levels == 0
        images = float(image_features.double().norm(dim=1).median())
        if not 0 < images < math.inf:
            raise ValueError(
                f"the median norm of the images' embeddings is {images:g}: do the model's weights hold NaN, "
                "or zeros?"
            )
        kept = self.log_text_scale.exp()[: self._placed] if self.calibrated else None
        middle = float(norms[leaves].median())
        if kept is not None:
            leaf_norm = float(kept[0]) * middle
        elif self.tangent_norm is None:
            leaf_norm = middle / math.sqrt(self.dim)
        else:
            leaf_norm = self.tangent_norm * self.radius
        margin = self.radius * tangent_margin(margin, leaf_norm / self.radius, margin_norm)
        self.grow(int(levels.max()) + 1)
        placed = place_levels(norms, levels, edges, leaf_norm, margin, kept)
        self.log_text_scale[: len(placed)] = placed.log().to(self.log_text_scale)
        self._placed = max(self._placed, len(placed))
        if kept is not None:
            return
        if self.tangent_norm is not None:
            self.log_image_scale.fill_(math.log((leaf_norm + margin) / images))
        self._match(image_features, text_features[leaves], labels, logit_scale)

    def _match(
        self, image_features: Tensor, leaf_features: Tensor, labels: Tensor, logit_scale: float
    ) -> None:
        images = self.lift(self.image_tangent(image_features).double())
        texts = self.lift(self.text_tangent(leaf_features).double())
        root = math.sqrt(self._curvature)
        a = float(self.ball_norm(images).median()) / root
        b = float(self.ball_norm(texts).median()) / root
        c = float((images.direction @ texts.direction.T).median())
        self.kappa.fill_(matched_kappa(a, b, c, self._curvature, logit_scale))
        own = Polar(texts.direction[labels], texts.radius[labels])
        self.vic_radius.fill_(self.vic_factor * float(self.own_distance(images, own).median()))


def matched_kappa(a: float, b: float, cosine: float, curvature: float, logit_scale: float) -> float:
    """Temperature at which ``-kappa d_r`` has slope ``logit_scale`` in the cosine (OC-8).

    Args:
        a, b: norms of the image and the text point in the ball.
        cosine: cosine between them.
    """
    q = a * a + b * b - 2 * a * b * cosine
    edge = (1 - curvature * a * a) * (1 - curvature * b * b)
    return logit_scale * math.sqrt(q) * math.sqrt(edge + curvature * q) / (2 * a * b)
