"""What the logs say of the pairs beside TRL's metrics: sums over micro-batches, gathered over processes, averaged.

logps/chosen_per_token    log-probability of the chosen answers, per trained token (rejected: alike)
drift/chosen_per_token    how much that has changed against the reference: when it falls, the model unlearns
                          right answers, as DPO on mathematics is known to do
length/chosen             trained tokens of a chosen answer (rejected: alike)
pairs/pass_rate           of the problems trained on, where the rows have it
pairs/weight, pairs/beta, pairs/margin, pairs/anchor    means over pairs, where they are not one number
"""

from typing import Any, NamedTuple

import torch

from trl_math.trainers.dpo_objective import PairBatch


# Logged name -> what it is a mean of, and over what.
RATIOS = {
    "logps/chosen_per_token": ("chosen_logps", "chosen_tokens"),
    "logps/rejected_per_token": ("rejected_logps", "rejected_tokens"),
    "drift/chosen_per_token": ("chosen_drift", "chosen_tokens"),
    "drift/rejected_per_token": ("rejected_drift", "rejected_tokens"),
    "length/chosen": ("chosen_tokens", "pairs"),
    "length/rejected": ("rejected_tokens", "pairs"),
    "pairs/pass_rate": ("pass_rates", "pairs"),
    "pairs/weight": ("weights", "pairs"),
    "pairs/beta": ("betas", "pairs"),
    "pairs/margin": ("margins", "pairs"),
    "pairs/anchor": ("anchors", "pairs"),
}
# Sums of a whole log interval must not lose what a single pair adds.
WIDE = torch.float64
CHOSEN_DRIFT = "drift/chosen_per_token"


class Sums(NamedTuple):
    """Sums of one micro-batch on every process, (processes, names)."""

    names: tuple[str, ...]
    values: torch.Tensor


@torch.no_grad()
def pair_sums(pairs: PairBatch, config: Any, anchors: torch.Tensor | None) -> tuple[tuple[str, ...], torch.Tensor]:
    """Return what a micro-batch adds: names and sums, (k,); only of what is not the same number for every pair.

    `anchors` come with a loss of ours, and are None where the loss is TRL's.
    """
    values = {
        "pairs": torch.ones_like(pairs.chosen_logps),
        "chosen_tokens": pairs.chosen_tokens,
        "rejected_tokens": pairs.rejected_tokens,
        "chosen_logps": pairs.chosen_logps,
        "rejected_logps": pairs.rejected_logps,
    }
    if config.ld_alpha is None:  # with it the reference's sums leave tokens out
        values |= {"chosen_drift": pairs.chosen_ratios, "rejected_drift": pairs.rejected_ratios}
    if pairs.pass_rates is not None:
        values |= {"pass_rates": pairs.pass_rates}
    if anchors is not None:
        values |= {"weights": pairs.weights, "betas": pairs.betas, "margins": pairs.margins}
        values |= {"anchors": anchors} if config.anchor != "none" else {}
    return tuple(values), torch.stack(list(values.values())).sum(dim=1, dtype=WIDE)


def pair_means(collected: list[Sums]) -> dict[str, float]:
    """Return the logged values from the micro-batches since the last log."""
    if not collected:
        return {}
    names = collected[0].names
    totals = dict(zip(names, torch.cat([sums.values for sums in collected]).sum(dim=0).tolist(), strict=True))
    return {
        name: totals[top] / totals[bottom]
        for name, (top, bottom) in RATIOS.items()
        if top in totals and totals[bottom] > 0
    }


@torch.no_grad()
def reference_gap(pairs: PairBatch) -> torch.Tensor:
    """Return how far policy and reference are apart, in nats per token, as a mean over the answers of a batch."""
    chosen = pairs.chosen_ratios.abs() / pairs.chosen_tokens.clamp(min=1)
    rejected = pairs.rejected_ratios.abs() / pairs.rejected_tokens.clamp(min=1)
    return torch.cat([chosen, rejected]).mean()
