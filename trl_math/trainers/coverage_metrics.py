"""What the logs say of coverage: sums over a micro-batch's segments, gathered over processes, then averaged."""

import torch

from trl_math.losses import coverage_nll_and_weight
from trl_math.trainers.segments import Segments


# An example counts as live above this F when no screening threshold is set (the published code's default threshold).
LIVE_WEIGHT = 0.1
NAMES = ("coverage/loss", "coverage/probability", "coverage/weight", "coverage/live_fraction")


@torch.no_grad()
def coverage_sums(segments: Segments, num_attempts: float | torch.Tensor, live_weight: float) -> torch.Tensor:
    """Return the sums over segments of the true coverage loss, p, F and being live, and their number, (5,)."""
    logps = segments.logps.detach()
    nll, weights = coverage_nll_and_weight(logps, num_attempts)
    is_live = (weights > live_weight).to(weights)
    values = torch.stack([nll, logps.exp(), weights, is_live, torch.ones_like(logps)])
    return torch.where(segments.is_real, values, torch.zeros_like(values)).sum(dim=1)


@torch.no_grad()
def pass_rate_sums(segments: Segments, weights: torch.Tensor, live_weight: float) -> torch.Tensor:
    """Return the sums over segments of F at their pass rates and of being live, and their number, (3,).

    `coverage_sums` without what needs the probability of an answer: that of one written solution says nothing of it.
    """
    values = torch.stack([weights, (weights > live_weight).to(weights), torch.ones_like(weights)])
    return torch.where(segments.is_real, values, torch.zeros_like(values)).sum(dim=1)


def coverage_means(sums: torch.Tensor) -> dict[str, float]:
    """Return the logged values from sums of all processes, (processes, 5 or 3); empty if there was no segment."""
    *totals, count = sums.sum(dim=0).tolist()
    names = NAMES[-len(totals) :]
    return {name: total / count for name, total in zip(names, totals, strict=True)} if count else {}
