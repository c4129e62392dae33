"""The loss of a batch of pairs: the configured objectives, margins, anchors and weights on summed log-probabilities.

Shapes: B pairs; a collated batch has 2B rows, the chosen answers first, of T + 1 tokens and so T targets.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from trl_math.losses import PREFERENCE_OBJECTIVES, coverage_nll, coverage_weight, displacement, reduce_sum
from trl_math.trainers.pair_collator import LOSS_WEIGHT, PAIR_BETA, PAIR_MARGIN, PASS_RATE


# TRL's names -> our function, and whether it is always of log-probabilities per token.
LOSS_TYPES: dict[str, tuple[Callable[..., torch.Tensor], bool]] = {
    **{name: (function, name == "ipo") for name, function in PREFERENCE_OBJECTIVES.items()},
    "sigmoid_norm": (PREFERENCE_OBJECTIVES["sigmoid"], True),
}
# TRL's cross-entropy on chosen answers: a mean over tokens, not over pairs.
TOKEN_ANCHOR = "sft"
# TRL's other types look at the two answers apart, or at the whole batch: they are available where the loss is TRL's.
TRL_ONLY = ("nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down")
ANCHORS = ("none", "nll", "coverage", "coverage_pass_rate")


@dataclass(frozen=True)
class PairBatch:
    """What the policy, the reference and the rows say of B pairs; (B,) each."""

    chosen_logps: torch.Tensor
    rejected_logps: torch.Tensor
    ref_chosen_logps: torch.Tensor
    ref_rejected_logps: torch.Tensor
    chosen_tokens: torch.Tensor  # trained ones
    rejected_tokens: torch.Tensor
    weights: torch.Tensor
    betas: torch.Tensor
    margins: torch.Tensor
    pass_rates: torch.Tensor | None

    @cached_property
    def chosen_ratios(self) -> torch.Tensor:
        """How much likelier than under the reference the chosen answers are, in nats."""
        return self.chosen_logps - self.ref_chosen_logps

    @cached_property
    def rejected_ratios(self) -> torch.Tensor:
        """The same of the rejected answers."""
        return self.rejected_logps - self.ref_rejected_logps

    def delta(self, *, per_token: bool, displacement_penalty: float = 0.0) -> torch.Tensor:
        """Return how far the policy has moved the answers apart, less the penalty for chosen ones that fell."""
        chosen, rejected = self.chosen_ratios, self.rejected_ratios
        if per_token:
            chosen, rejected = chosen / self.chosen_tokens.clamp(min=1), rejected / self.rejected_tokens.clamp(min=1)
        if displacement_penalty:
            return chosen - rejected - displacement_penalty * displacement(chosen)
        return chosen - rejected


def make_batch(
    log_probs: torch.Tensor,
    ref_logps: tuple[torch.Tensor, torch.Tensor],
    completion_mask: torch.Tensor,
    columns: dict[str, torch.Tensor],
    config: Any,
) -> PairBatch:
    """Sum what a forward pass said of each target, (2B, T), and put the rows' own numbers beside it.

    `columns` are the carried ones that the rows have; the others are at their configured values.
    """
    chosen_logps, rejected_logps = log_probs.float().sum(dim=1).chunk(2)
    chosen_tokens, rejected_tokens = completion_mask[:, 1:].sum(dim=1).to(chosen_logps).chunk(2)
    defaults = {LOSS_WEIGHT: 1.0, PAIR_BETA: config.beta, PAIR_MARGIN: config.margin}
    own = {name: columns.get(name, torch.full_like(chosen_logps, value)) for name, value in defaults.items()}
    return PairBatch(
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        ref_chosen_logps=ref_logps[0].to(chosen_logps),
        ref_rejected_logps=ref_logps[1].to(chosen_logps),
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        weights=own[LOSS_WEIGHT],
        betas=own[PAIR_BETA],
        margins=own[PAIR_MARGIN],
        pass_rates=columns.get(PASS_RATE),
    )


def weighted_types(config: Any) -> list[tuple[str, float]]:
    """Return the configured loss types with their weights."""
    return list(zip(config.loss_type, config.loss_weights or [1.0] * len(config.loss_type), strict=True))


def preference_losses(config: Any, pairs: PairBatch) -> torch.Tensor:
    """Return the weighted sum of the configured objectives for each pair, (B,); TRL's `sft` is not one of these."""
    losses = torch.zeros_like(pairs.chosen_logps)
    for name, weight in weighted_types(config):
        if name == TOKEN_ANCHOR:
            continue
        function, is_per_token = LOSS_TYPES[name]
        delta = pairs.delta(
            per_token=is_per_token or config.length_normalised, displacement_penalty=config.displacement_penalty
        )
        # Its hyper-parameters are fields of TRL's configuration: label_smoothing, discopop_tau.
        keywords = inspect.signature(function).parameters.values()
        params = {each.name: getattr(config, each.name) for each in keywords if each.kind is each.KEYWORD_ONLY}
        losses = losses + weight * function(delta, pairs.betas, pairs.margins, **params)
    return losses


def anchor_losses(config: Any, pairs: PairBatch) -> torch.Tensor:
    """Return the anchor on each chosen answer, (B,), per token of its own: long answers count no more than short ones.

    `nll`: the answer's cross-entropy, as in Iterative RPO (https://huggingface.co/papers/2404.19733).
    `coverage`: the coverage loss of the answer's own probability, whose pull ends once N attempts find this answer.
    `coverage_pass_rate`: cross-entropy times F(N, p) of the problem's pass rate, whose pull is weak on problems that N
    attempts solve anyway.
    """
    lengths = pairs.chosen_tokens.clamp(min=1)
    if config.anchor == "coverage":
        return coverage_nll(pairs.chosen_logps, config.anchor_attempts) / lengths
    losses = -pairs.chosen_logps / lengths
    if config.anchor == "coverage_pass_rate":
        assert pairs.pass_rates is not None
        losses = losses * coverage_weight(pairs.pass_rates.log(), config.anchor_attempts)
    return losses


def batch_loss(config: Any, pairs: PairBatch, num_pairs: Any, num_tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of a micro-batch and the (unweighted) anchors of its pairs.

    The denominators are means over the optimiser step of what a micro-batch holds: its pairs, and for TRL's `sft` the
    trained tokens of their chosen answers. Averaged over micro-batches and processes this is then the step's mean.
    """
    losses, anchors = preference_losses(config, pairs), torch.zeros_like(pairs.chosen_logps)
    if config.anchor != "none":
        anchors = anchor_losses(config, pairs)
        losses = losses + config.anchor_weight * anchors
    loss = reduce_sum(pairs.weights * losses, num_pairs)
    token_weight = sum(weight for name, weight in weighted_types(config) if name == TOKEN_ANCHOR)
    if token_weight:
        loss = loss - token_weight * reduce_sum(pairs.weights * pairs.chosen_logps, num_tokens)
    return loss, anchors
