"""Does training see the probabilities that its pairs were sampled with? Compared in the forward pass that it makes.

Of a pair that was sampled from the weights as they are, the sampler's log-probability of every token must be the
trainer's, up to rounding (`parity`): otherwise the engine does not follow, or the tokens on their way to the loss are
no longer those that were sampled. For pairs of earlier weights the difference says how far the policy has moved since
(`drift`). No forward pass is added. (A pass of our own before the trainer's first would break ZeRO-3's backward.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trl_math.errors import ParityError
from trl_math.generation.parity import TOLERANCES


# What the sampler said of each token of an answer; a pair has them in the first step after its refresh only.
TOKEN_LOGPS = ("chosen_token_logps", "rejected_token_logps")
SUM_LOGPS = ("chosen_logprob", "rejected_logprob")
ANSWERS = ("chosen_ids", "rejected_ids")

# The key of what `sampler_said` returns in a batch.
SAMPLER = "sampler_said"


def sampler_said(pairs: Sequence[dict[str, Any]], completion_mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the sampler's log-probabilities in a collated batch: chosen answers first, then rejected.

    `sums`: (2B,) of whole answers. `tokens`: (2B, T-1) in the positions of the model's own, NaN where unknown.
    """
    tokens = torch.full((completion_mask.shape[0], completion_mask.shape[1] - 1), torch.nan)
    answers = [(pair, *names) for names in zip(ANSWERS, TOKEN_LOGPS, strict=True) for pair in pairs]
    for row, (pair, ids, name) in zip(tokens, answers, strict=True):
        if name in pair:
            start = len(pair["prompt_ids"]) - 1  # a token is foretold one position before its own
            row[start : start + len(pair[ids])] = torch.tensor(pair[name])
    tokens[completion_mask[:, 1:] == 0] = torch.nan
    return {"sums": torch.tensor([pair[name] for name in SUM_LOGPS for pair in pairs]), "tokens": tokens}


@dataclass(frozen=True)
class Drift:
    """Differences between sampler and trainer, in nats per token."""

    parity: float  # mean over tokens sampled from the present weights; NaN if there is none
    parity_max: float
    drift: float  # mean over answers, of any age


def drift_sums(log_probs: torch.Tensor, completion_mask: torch.Tensor, said: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what `Drift` is made of, summed over this process's batch. `log_probs`: (2B, T-1), as TRL makes them."""
    mask = completion_mask[:, 1:] > 0
    log_probs = log_probs.detach().float()[:, -mask.shape[1] :]
    is_known = ~said["tokens"].isnan()
    differences = (log_probs - said["tokens"]).abs()[is_known]
    answers = ((log_probs * mask).sum(1) - said["sums"]).abs() / mask.sum(1).clamp(min=1)
    largest = differences.max() if len(differences) else differences.new_zeros(())
    counts = [differences.new_tensor(float(number)) for number in (len(differences), len(answers))]
    return torch.stack([differences.sum(), counts[0], largest, answers.sum(), counts[1]])


def as_drift(sums: torch.Tensor) -> Drift:
    """Return the means of gathered sums, (number, 5)."""
    total, count, _, answers, num_answers = sums.double().sum(0).tolist()
    return Drift(
        parity=total / count if count else math.nan,
        parity_max=sums[:, 2].max().item() if count else math.nan,
        drift=answers / num_answers,
    )


def tolerance(*dtypes: torch.dtype) -> float:
    """Return the mean difference that right implementations may show, by the coarsest of these dtypes."""
    return max(TOLERANCES.get(dtype, max(TOLERANCES.values())) for dtype in dtypes)


def parity_error(found: Drift, allowed: float, step: int) -> ParityError:
    """Return what to raise where the trainer does not see what was sampled."""
    return ParityError(
        f"At step {step} the trainer's log-probabilities of samples that were drawn from its present weights differ "
        f"by {found.parity:.2g} nats a token ({found.parity_max:.2g} at most; allowed on average: {allowed:.2g}): the "
        "engine does not follow the weights. With rounding as the cause, give engine and trainer one dtype, or set "
        "live_parity: warn."
    )
