"""The configured objective: which loss function, with which parameters, on which unit (token, step, sequence).

An objective turns what one forward pass knows of the target tokens into per-token losses (or, for whole answers,
per-segment losses) and leaves the denominator to `losses.reduce`.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from trl_math.losses import (
    SEQUENCE_OBJECTIVES,
    TOKEN_OBJECTIVES,
    coverage_nll,
    cross_entropy_weight,
    reduce_sum,
)
from trl_math.losses.parameters import keyword_parameters
from trl_math.trainers.segments import Segments


OBJECTIVES: dict[str, Callable[..., torch.Tensor]] = {**TOKEN_OBJECTIVES, **SEQUENCE_OBJECTIVES}


@dataclass(frozen=True)
class TokenObjective:
    """A loss of single tokens."""

    function: Callable[..., torch.Tensor]
    reads: tuple[str, ...]  # what it reads of a forward pass, in the function's argument order
    temperature: float | None  # of `tempered_logps`, if it reads them

    def loss(
        self,
        fields: dict[str, torch.Tensor],
        mask: torch.Tensor,
        num_tokens: Any,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the (weighted) sum over the tokens that `mask` (B, T) marks, over `num_tokens`."""
        losses = self.function(*(fields[name] for name in self.reads))  # (B, T)
        if weights is not None:
            losses = losses * weights
        return reduce_sum(torch.where(mask, losses, torch.zeros_like(losses)), num_tokens)


@dataclass(frozen=True)
class SegmentObjective:
    """A loss of whole answers or steps, through the summed log-probability of each."""

    function: Callable[..., torch.Tensor]
    reduction: str

    def loss(
        self,
        log_probs: torch.Tensor,
        segments: Segments,
        num_tokens: Any,
        num_segments: Any,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss of a micro-batch, whose denominators count over the whole optimiser step.

        `sum`: the loss itself, per trained token, so that at N = 1 it is TRL's. `mean`: every segment's cross-entropy
        per token, times the loss's slope (F for coverage), per segment. `weights` (B, T) are those of the rows.
        """
        row_weights = 1.0 if weights is None else segments.shared(weights).to(segments.logps)  # (S,)
        if self.reduction == "sum":
            losses = self.function(segments.logps) * row_weights  # (S,)
            loss = reduce_sum(torch.where(segments.is_real, losses, torch.zeros_like(losses)), num_tokens)
        else:
            slopes = cross_entropy_weight(self.function, segments.logps) * row_weights
            per_token = segments.spread(slopes / segments.num_tokens.clamp(min=1))
            loss = reduce_sum(-log_probs * per_token, num_segments)
        return loss.to(log_probs.dtype)


def build_objective(
    config: Any, segments: Segments | None = None, factors: torch.Tensor | None = None
) -> TokenObjective | SegmentObjective:
    """Return the objective of a `MathSFTConfig`, for a batch of `segments` if N depends on them.

    `factors` (S,): F of the segments where it comes from pass rates, which makes the loss cross-entropy times F.
    """
    if factors is not None:
        return SegmentObjective(lambda logps: -factors * logps, config.coverage_reduction)
    if config.objective == "coverage":
        return SegmentObjective(coverage_of(config, segments), config.coverage_reduction)
    function = partial(OBJECTIVES[config.objective], **(config.objective_params or {}))
    if config.objective in SEQUENCE_OBJECTIVES:
        return SegmentObjective(function, "sum")
    reads = tuple(
        parameter.name
        for parameter in inspect.signature(OBJECTIVES[config.objective]).parameters.values()
        if parameter.kind is not parameter.KEYWORD_ONLY
    )
    defaults = {
        name: parameter.default for name, parameter in keyword_parameters(OBJECTIVES[config.objective]).items()
    }
    temperature = {**defaults, **(config.objective_params or {})}.get("temperature")
    return TokenObjective(function, reads, temperature)


def coverage_of(config: Any, segments: Segments | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the coverage loss with its N filled in: one N, or an equal share of it for each segment of a sequence."""
    return partial(coverage_nll, num_attempts=attempts_of(config, segments))


def attempts_of(config: Any, segments: Segments | None) -> Any:
    """Return N of each segment: the configured one, or its share where a sequence's segments divide it."""
    if config.coverage_allocation == "uniform" and segments is not None:
        return config.num_attempts / segments.siblings()
    return config.num_attempts


def is_cross_entropy(config: Any) -> bool:
    """Whether the configured objective is plain cross-entropy, so that TRL's own loss is used as it is."""
    is_coverage_of_one = (
        config.objective == "coverage"
        and config.num_attempts == 1
        and config.coverage_reduction == "sum"
        and config.coverage_allocation == "each"
    )
    return config.objective == "cross_entropy" or is_coverage_of_one
