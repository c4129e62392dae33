"""Sampling whose random numbers belong to the sample: `generate` of transformers, row by row reproducible.

`generate` draws a whole batch from the process's random state, so that a sample depends on what else is in the batch
and on everything drawn before. Here each row has its own numbers, made from its request's seed, and picks its token
where its number falls in the cumulated probabilities. So a sample is the same in any batch, in any order and after an
interruption (up to the rounding of the logits), and the process's random state is neither read nor moved.

`generate` is told to be greedy: it takes the largest of scores in which only the picked token is finite.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from trl_math.errors import UsageError
from trl_math.generation.backend import NOT_FINITE, cut_at_stop
from trl_math.generation.end_tokens import decode
from trl_math.records import Sampling


# Probabilities are counted in units of 2^-40. Sums of integers have no rounding, so that they are the same on every
# device and in every order, and CUDA allows them in deterministic mode.
UNITS = 2**40


class RowSampler(LogitsProcessor):
    """Leaves one token a row: the one where the row's next random number falls."""

    def __init__(self, seeds: Sequence[int], num_tokens: int, prompt_width: int) -> None:
        self.numbers = torch.stack([_numbers(seed, num_tokens) for seed in seeds])
        self.prompt_width = prompt_width

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        cumulated = (scores.float().softmax(dim=-1) * UNITS).long().cumsum(dim=-1)
        total = cumulated[:, -1:].cpu()
        if (total < UNITS // 2).any():
            raise UsageError(NOT_FINITE)
        numbers = self.numbers[:, input_ids.shape[1] - self.prompt_width, None]
        # The first token whose sum is above the row's share of the total: never one of probability zero.
        shares = (numbers * total).long().to(scores.device)
        picked = torch.searchsorted(cumulated, shares, right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, picked, 0.0)


class FiniteLogits(LogitsProcessor):
    """Raises where a broken model would answer with its first token for ever."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if scores.isnan().any():
            raise UsageError(NOT_FINITE)
        return scores


def _numbers(seed: int, count: int) -> torch.Tensor:
    """Return numbers from 0 to below 1: coarse enough that their share of a total is below it after rounding."""
    return torch.randint(UNITS, (count,), generator=torch.Generator().manual_seed(seed)).double() / UNITS


def sampling_processors(
    sampling: Sampling, seeds: Sequence[int], num_tokens: int, prompt_width: int
) -> LogitsProcessorList:
    """Return what turns logits into one picked token, in vLLM's order (transformers' own has min_p at the end).

    The repetition penalty comes before these and is `generate`'s, which knows where the padding is.
    """
    if sampling.is_greedy:
        return LogitsProcessorList([FiniteLogits()])
    steps: list[tuple[bool, LogitsProcessor]] = [
        (sampling.temperature != 1, TemperatureLogitsWarper(float(sampling.temperature))),
        (sampling.min_p > 0, MinPLogitsWarper(float(sampling.min_p))),
        (sampling.top_k > 0, TopKLogitsWarper(max(sampling.top_k, 1))),
        (sampling.top_p < 1, TopPLogitsWarper(float(sampling.top_p))),
        (True, RowSampler(seeds, num_tokens, prompt_width)),
    ]
    return LogitsProcessorList([step for is_on, step in steps if is_on])


class RowEnds(StoppingCriteria):
    """Ends a row at its own number of tokens, and when its last tokens show a stop string.

    transformers' `stop_strings` are not used: they match across the end of the prompt (a stop string of two newlines
    after a prompt that ends in one would end a sample whose text has none), and read the whole vocabulary for each
    batch. Looking at the text itself needs no such care, and nothing depends on it but time: what a sample's text is
    and where it ends is decided once it is whole (`finished_tokens`).
    """

    def __init__(self, tokenizer: object, stop: Sequence[str], limits: Sequence[int], prompt_width: int) -> None:
        self.tokenizer = tokenizer
        self.stop = tuple(stop)
        self.limits = torch.tensor(limits)
        self.prompt_width = prompt_width
        self.done = [False] * len(limits)
        # A token writes at least a byte; two more, since some tokenizers write the first token without its space.
        self.num_last = max((len(word.encode()) for word in self.stop), default=0) + 2

    def __call__(self, input_ids: torch.LongTensor, scores: object, **kwargs: object) -> torch.BoolTensor:
        self.limits = self.limits.to(input_ids.device)
        completions = input_ids[:, self.prompt_width :]
        done = completions.shape[1] >= self.limits
        if self.stop:
            last = completions[:, -self.num_last :].tolist()
            self.done = [was or self._stops(ids) for was, ids in zip(self.done, last, strict=True)]
            done = done | torch.tensor(self.done, device=done.device)
        return done

    def _stops(self, ids: list[int]) -> bool:
        return cut_at_stop(decode(self.tokenizer, ids), self.stop) is not None


def finished_tokens(
    tokenizer: object, ids: Sequence[int], limit: int, end_ids: Sequence[int], stop: Sequence[str]
) -> tuple[list[int], str, bool]:
    """Return (tokens, text, whether it ended by itself) of a row of `generate`, padding and excess cut off.

    The tokens end with the first end token, or the one that completed a stop string; the text ends before either.
    """
    kept = list(ids[:limit])
    end = next((position for position, token in enumerate(kept) if token in end_ids), None)
    kept = kept if end is None else kept[: end + 1]
    text = decode(tokenizer, kept, end_ids)
    if cut_at_stop(text, stop) is None:
        return kept, text, end is not None
    low, high = 1, len(kept)
    while low < high:
        middle = (low + high) // 2
        if cut_at_stop(decode(tokenizer, kept[:middle], end_ids), stop) is None:
            low = middle + 1
        else:
            high = middle
    kept = kept[:low]
    return kept, cut_at_stop(decode(tokenizer, kept, end_ids), stop) or "", True
