"""PGD on the token embeddings of captions or class prompts: a text attack that no choice of words limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ...classifiers.freezing import frozen
from ...options import check_choice, check_counts, check_flag, check_numbers
from ..base import NanError
from .base import check_texts
from .encoder import TextEncoder, TokenBatch
from .scores import LabelFreeScore, TextScore


class EmbeddingAttackResult(NamedTuple):
    """Outcome of one attack on the token embeddings of N texts.

    Attributes:
        tokens: the padded ids, which still say where each text ends.
        token_embeddings: (N, T, w) perturbed input embeddings: the best iterate of each text.
        features: (N, D) projected embeddings of the texts under them, not normalised.
        clean_scores, scores: (N,) without and with the perturbation; never lower with it.
    """

    tokens: TokenBatch
    token_embeddings: Tensor
    features: Tensor
    clean_scores: Tensor
    scores: Tensor


@dataclass(kw_only=True)
class EmbeddingPGD:
    """Projected gradient ascent on the input embedding of every word token.

    The perturbed rows are no words; as in VILLA (2006.06195), what is attacked is the embedding space.

    Args:
        norm: ``"l2"``: the perturbation of each token is at most ``eps`` times the model's mean word
            embedding norm; ``"linf"``: each of its w coordinates at most that over ``sqrt(w)``, so that the
            cube lies inside the l2 ball of the same ``eps``.
        eps: in units of the mean norm of the model's whole-word embeddings.
        num_steps: gradient steps.
        step_size: in the units of ``eps``; None means ``eps / 4``.
        random_start: ``"uniform"`` in the cube, or ``"zero"``, where the label-free score has no gradient.
        special_tokens: attack the start, end and padding tokens too.
    """

    name: ClassVar[str] = "embedding"
    norm: Literal["linf", "l2"] = "l2"
    eps: float = 0.1
    num_steps: int = 10
    step_size: float | None = None
    random_start: Literal["uniform", "zero"] = "uniform"
    special_tokens: bool = False

    def __post_init__(self):
        check_choice(self, "norm", ("linf", "l2"))
        check_choice(self, "random_start", ("uniform", "zero"))
        check_numbers(self, "eps", positive=True)
        check_counts(self, "num_steps")
        check_flag(self, "special_tokens")
        if self.step_size is not None:
            check_numbers(self, "step_size", positive=True)

    def __call__(
        self,
        texts: Sequence[str],
        encoder: TextEncoder,
        *,
        score: TextScore | None = None,
        generator: torch.Generator | None = None,
    ) -> EmbeddingAttackResult:
        """Attack captions or class prompts, all in one batch.

        Args:
            texts, encoder, score: see `TextAttack.__call__`; the score must be differentiable.
            generator: source of the random start, on the encoder's device; the global generator is not
                touched when given.

        Raises:
            TypeError, ValueError: see `check_texts`; a text longer than the encoder's context.
            NanError: NaN gradients.
        """
        texts = check_texts(texts)
        with frozen(encoder):
            tokens = encoder.tokens(texts)
            clean = encoder.token_embeddings(tokens)
            attacked = self._attacked_tokens(tokens, encoder)[:, :, None]
            radius = self.eps * encoder.mean_word_norm
            with torch.no_grad():
                features = encoder.from_embeddings(tokens, clean)
            score = LabelFreeScore(features) if score is None else score
            index = torch.arange(len(texts), device=clean.device)
            clean_scores = score(features, index).detach()

            best, best_features, best_scores = clean.clone(), features.clone(), clean_scores.clone()
            delta = self._start(clean, radius, generator) * attacked
            for step in range(self.num_steps + 1):
                delta.requires_grad_()
                features = encoder.from_embeddings(tokens, clean + delta)
                scores = score(features, index)
                better = scores.detach() > best_scores
                best[better] = (clean + delta).detach()[better]
                best_features[better] = features.detach()[better]
                best_scores[better] = scores.detach()[better]
                if step == self.num_steps:
                    break
                (gradient,) = torch.autograd.grad(scores.sum(), [delta])
                if gradient.isnan().any():
                    raise NanError("the gradient of the text score is NaN: the precision overflows")
                delta = self._step(delta.detach(), gradient * attacked, radius)
        return EmbeddingAttackResult(tokens, best, best_features, clean_scores, best_scores)

    def prepare(self) -> None:
        """Nothing: the attack needs no other model."""

    def _attacked_tokens(self, tokens: TokenBatch, encoder: TextEncoder) -> Tensor:
        """(N, T) True where a token may be perturbed."""
        if self.special_tokens:
            return torch.ones_like(tokens.input_ids, dtype=torch.bool)
        special = torch.tensor(encoder.tokenizer.all_special_ids, device=tokens.input_ids.device)
        return ~torch.isin(tokens.input_ids, special)

    def _start(self, clean: Tensor, radius: float, generator: torch.Generator | None) -> Tensor:
        delta = torch.zeros_like(clean)
        if self.random_start == "uniform":
            side = radius / clean.shape[-1] ** 0.5
            delta.uniform_(-side, side, generator=generator)
        return delta

    def _step(self, delta: Tensor, gradient: Tensor, radius: float) -> Tensor:
        size = radius / 4 if self.step_size is None else radius * self.step_size / self.eps
        if self.norm == "linf":
            root = delta.shape[-1] ** 0.5
            return (delta + size / root * gradient.sign()).clamp(-radius / root, radius / root)
        # By the peak first: squares of a gradient of 1e-25 underflow.
        peak = gradient.abs().amax(-1, keepdim=True)
        gradient = gradient / torch.where(peak == 0, torch.ones_like(peak), peak)
        length = gradient.norm(dim=-1, keepdim=True)
        delta = delta + size * gradient / torch.where(length == 0, torch.ones_like(length), length)
        return delta * (radius / delta.norm(dim=-1, keepdim=True).clamp(min=1e-12)).clamp(max=1)

    def describe(self) -> dict:
        """The attack's constants, for records and cards."""
        return {"name": self.name, **asdict(self)}
