"""Does an engine sample from the model that it follows? A probe after every exchange of weights.

The engine goes on greedily from a few prompts and reports its log-probabilities; the model then reads those
completions in one forward pass. Two things must hold: the engine's log-probabilities are the model's, and every token
that the engine chose is the model's own first choice, up to a tie. The model never generates, so that the probe also
works where it cannot (ZeRO-3, where ranks that stop at different lengths wait for each other for ever).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from trl_math.errors import ParityError, UsageError
from trl_math.generation.backend import Backend
from trl_math.records import Completion, Sampling


logger = logging.getLogger(__name__)

NUM_TOKENS = 16

# Mean difference of log-probabilities that two right implementations may show, by the coarser dtype of the two.
# In bfloat16 rounding alone makes 0.01 to 0.03 on a model of 135M: what differs less than that is not seen there.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True)
class Parity:
    """What a probe found, in nats."""

    mean_difference: float  # of the log-probabilities of the engine's tokens
    largest_difference: float
    largest_gap: float  # by how much the model prefers another token to the engine's
    num_tokens: int
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether both agree. The largest may be four times what the mean may be: rounding has tails."""
        worst = max(self.largest_difference, self.largest_gap)
        return self.mean_difference <= self.tolerance and worst <= 4 * self.tolerance

    def __str__(self) -> str:
        return (
            f"log-probabilities of {self.num_tokens} tokens differ by {self.mean_difference:.2g} on average and "
            f"{self.largest_difference:.2g} at most, and the model prefers another token by up to "
            f"{self.largest_gap:.2g} nats (allowed: {self.tolerance:.2g}, and 4 times that at most)"
        )


def probe(engine: Backend, prompt_ids: Sequence[Sequence[int]]) -> list[Completion]:
    """Return the engine's greedy continuations, with log-probabilities."""
    if not prompt_ids:
        raise UsageError("A parity probe needs at least one prompt.")
    completions = engine.generate(prompt_ids, Sampling(temperature=0.0, max_tokens=NUM_TOKENS, logprobs=True))
    return [samples[0] for samples in completions]


def compare(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    tolerance: float | None = None,
    engine_dtype: str = "float32",
) -> Parity:
    """Compare what an engine said (`probe`) with what the model says. Under ZeRO-3 every rank calls this."""
    chosen, best = _read(model, prompt_ids, completions)
    told = torch.tensor([logprob for c in completions for logprob in c.logprobs or ()], device=chosen.device)
    differences = (chosen - told).abs()
    if tolerance is None:
        dtypes = (next(model.parameters()).dtype, getattr(torch, engine_dtype))
        tolerance = max(TOLERANCES.get(dtype, max(TOLERANCES.values())) for dtype in dtypes)
    return Parity(
        mean_difference=float(differences.mean()),
        largest_difference=float(differences.max()),
        largest_gap=float((best - chosen).max()),
        num_tokens=len(told),
        tolerance=tolerance,
    )


def act_on(parity: Parity, action: Literal["fail", "warn"]) -> None:
    """Raise or warn if the probe found a difference."""
    if parity.holds:
        logger.info("The engine follows the model: %s.", parity)
    elif action == "fail":
        raise ParityError(f"The engine does not follow the model: {parity}.")
    else:
        logger.warning("The engine does not follow the model: %s.", parity)


def _read(
    model: Any, prompt_ids: Sequence[Sequence[int]], completions: Sequence[Completion]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the model's log-probabilities of the completions' tokens, and those of its first choices there."""
    sequences = [[*ids, *(c.token_ids or ())] for ids, c in zip(prompt_ids, completions, strict=True)]
    width = max(map(len, sequences))
    device = next(model.parameters()).device
    # Right-padded, so that real tokens see nothing of the padding.
    input_ids = torch.tensor([[*s, *[0] * (width - len(s))] for s in sequences], device=device)
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences], device=device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    finally:
        model.train(was_training)
    chosen, best = [], []
    for row, (ids, sequence) in enumerate(zip(prompt_ids, sequences, strict=True)):
        logps = logits[row, len(ids) - 1 : len(sequence) - 1].float().log_softmax(-1)
        tokens = torch.tensor(sequence[len(ids) :], device=device)
        chosen.append(logps.gather(-1, tokens[:, None])[:, 0])
        best.append(logps.max(-1).values)
    return torch.cat(chosen), torch.cat(best)
