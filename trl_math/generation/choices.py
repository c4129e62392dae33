"""One of some texts as a sample: each is scored behind the prompt by its exact log-probability, and one is drawn.

So nothing can be answered but a choice, and how sure the model is of it is known exactly, without sampling. A choice
that is drawn is whole: there is no end token behind it, whose probability would say something else.
"""

import math
import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from trl_math.errors import UsageError
from trl_math.generation.backend import NOT_FINITE
from trl_math.records import Completion, Sampling


def choice_ids(tokenizer: Any, choices: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each choice, as they stand behind a prompt."""
    return [list(tokenizer(choice, add_special_tokens=False)["input_ids"]) for choice in choices]


def check_choices(tokenizer: Any, sampling: Sampling) -> None:
    """Raise if a choice has more tokens than a sample may have, or the tokenizer cannot write it."""
    for choice, ids in zip(sampling.choices, choice_ids(tokenizer, sampling.choices), strict=True):
        if not 0 < len(ids) <= sampling.max_tokens:
            raise UsageError(
                f"The choice {choice!r} has {len(ids)} tokens, and max_tokens is {sampling.max_tokens}: raise it, or "
                "choose another text."
            )


def draw_choice(
    sampling: Sampling, options: Sequence[Sequence[int]], logprobs: Sequence[Sequence[float]], seed: int
) -> Completion:
    """Return the choice that is drawn. `logprobs`: of the tokens of each option, behind the prompt."""
    totals = [sum(one) for one in logprobs]
    if any(map(math.isnan, totals)) or not math.isfinite(max(totals)):
        raise UsageError(NOT_FINITE)
    places = range(len(totals))
    if sampling.is_greedy:
        picked = max(places, key=totals.__getitem__)
    else:
        weights = [math.exp((total - max(totals)) / sampling.temperature) for total in totals]
        picked = random.Random(seed).choices(places, weights)[0]
    ids = tuple(options[picked])
    among = among_choices(options, totals, picked) if sampling.logprobs else None
    return Completion(sampling.choices[picked], ids, "stop", len(ids), among)


def among_choices(options: Sequence[Sequence[int]], totals: Sequence[float], picked: int) -> tuple[float, ...]:
    """Return the log-probability of each token of an option, given that what is drawn becomes one of the options."""
    ids = list(options[picked])
    shares = [
        _log_sum(total for other, total in zip(options, totals, strict=True) if list(other[:length]) == ids[:length])
        for length in range(len(ids))
    ]
    shares.append(totals[picked])
    return tuple(min(after - before, 0.0) for before, after in pairwise(shares))


def _log_sum(values: Iterable[float]) -> float:
    """Return the logarithm of a sum of exponentials."""
    numbers = list(values)
    most = max(numbers)
    return most + math.log(sum(math.exp(number - most) for number in numbers)) if math.isfinite(most) else most
