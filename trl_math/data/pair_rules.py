"""Which right responses are set against which wrong ones: the rules by name.

A rule is a function of a problem's right and wrong responses, in their order, and a `Draw`. It returns pairs so that
the first few are the ones to keep where fewer are wanted. Rules know nothing of prompts, limits and files, and every
random number comes from the draw: the same responses and seed give the same pairs.

    all                        every right response with every wrong one
    random                     so many different pairs of these, drawn at random (Iterative RPO)
    max_min                    the first right with the first wrong response: one pair (Online-DPO-R1)
    balanced                   right and wrong ones drawn without replacement until one side is used up
    fixed                      exactly so many pairs, or none; with replacement if that is asked for
    short_correct_long_wrong   the shortest right with the longest wrong one
    length_matched             those that are closest in length
    first_divergence           those that say the same for longest; what they share is to become part of the prompt
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Response:
    """One sample of a problem, in the form that pairs are made of."""

    text: str
    ids: tuple[int, ...] | None  # as sampled; None for samples of which only the text is known
    num_tokens: int | None  # None if they were not counted
    index: int
    tool_spans: tuple[tuple[int, int], ...] = ()  # [start, end) of the tokens that a program's output takes
    token_logprobs: tuple[float, ...] | None = None
    logprob: float | None = None
    finish_reason: str | None = None
    answer: str | None = None
    sampler: str | None = None

    @property
    def units(self) -> Sequence[int] | str:
        """What two responses are compared by: tokens, else characters."""
        return self.text if self.ids is None else self.ids

    @property
    def length(self) -> int:
        """Tokens; characters, where tokens were not counted."""
        return len(self.text) if self.num_tokens is None else self.num_tokens

    @property
    def num_trained(self) -> int | None:
        """Tokens that the model wrote itself; None if tokens are not known."""
        return None if self.ids is None else len(self.ids) - sum(end - start for start, end in self.tool_spans)


class Pair(NamedTuple):
    """What is to be preferred, and to what."""

    chosen: Response
    rejected: Response


class Draw(NamedTuple):
    """How many pairs a rule is to make of a problem, and with what chance."""

    num: int | None  # None: the rule's own number
    with_replacement: bool
    random: random.Random


Responses = Sequence[Response]
Rule = Callable[[Responses, Responses, Draw], list[Pair]]


def all_pairs(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return every pair, in random order, so that a cap does not favour the first responses."""
    return _drawn(right, wrong, len(right) * len(wrong), draw.random)


def random_pairs(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return `num` different pairs, or all if there are fewer; a response may be in several."""
    every = len(right) * len(wrong)
    return _drawn(right, wrong, every if draw.num is None else min(draw.num, every), draw.random)


def max_min(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return the best against the worst: grades are right or wrong, and of equals the first counts."""
    return [Pair(right[0], wrong[0])]


def balanced(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return as many pairs as the smaller side has responses, each response in one pair at most."""
    return _without_replacement(right, wrong, min(len(right), len(wrong)), draw.random)


def fixed(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return exactly `num` pairs; none if a side has fewer responses, unless they may be drawn again."""
    num = draw.num or 1
    if draw.with_replacement:
        sides = [draw.random.choices(side, k=num) for side in (right, wrong)]
        return [Pair(*pair) for pair in zip(*sides, strict=True)]
    return _without_replacement(right, wrong, num, draw.random) if num <= min(len(right), len(wrong)) else []


def short_correct_long_wrong(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return the shortest right with the longest wrong response, the second with the second, and so on."""
    shortest = sorted(right, key=lambda response: response.length)
    longest = sorted(wrong, key=lambda response: -response.length)
    return [Pair(*pair) for pair in zip(shortest, longest, strict=False)][: draw.num or 1]


def length_matched(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return the pairs with the smallest difference in length, each response in one pair at most."""
    return _best_first(right, wrong, lambda pair: abs(pair.chosen.length - pair.rejected.length))[: draw.num or 1]


def first_divergence(right: Responses, wrong: Responses, draw: Draw) -> list[Pair]:
    """Return the pairs with the longest common beginning, each response in one pair at most."""
    return _best_first(right, wrong, lambda pair: -num_shared(*pair))[: draw.num or 1]


PAIR_RULES: dict[str, Rule] = {
    "all": all_pairs,
    "random": random_pairs,
    "max_min": max_min,
    "balanced": balanced,
    "fixed": fixed,
    "short_correct_long_wrong": short_correct_long_wrong,
    "length_matched": length_matched,
    "first_divergence": first_divergence,
}

# Rules that must be told how many pairs to make of a problem, and rules that may be (they make one otherwise).
NEED_NUMBER = ("random", "fixed")
TAKE_NUMBER = (*NEED_NUMBER, "short_correct_long_wrong", "length_matched", "first_divergence")


def num_shared(first: Response, second: Response) -> int:
    """Return how many tokens (characters, where tokens are not known) two responses begin with together."""
    together = zip(first.units, second.units, strict=False)
    shorter = min(len(first.units), len(second.units))
    return next((place for place, (one, other) in enumerate(together) if one != other), shorter)


def _drawn(right: Responses, wrong: Responses, num: int, chance: random.Random) -> list[Pair]:
    places = chance.sample(range(len(right) * len(wrong)), num)
    return [Pair(right[place // len(wrong)], wrong[place % len(wrong)]) for place in places]


def _without_replacement(right: Responses, wrong: Responses, num: int, chance: random.Random) -> list[Pair]:
    return [Pair(*pair) for pair in zip(chance.sample(right, num), chance.sample(wrong, num), strict=True)]


def _best_first(right: Responses, wrong: Responses, cost: Callable[[Pair], int]) -> list[Pair]:
    """Return pairs by rising cost, each of responses that no pair before it has; of equals the first counts."""
    every = [Pair(one, other) for one in right for other in wrong]
    return list(_disjoint(sorted(every, key=cost)))


def _disjoint(pairs: Iterable[Pair]) -> Iterable[Pair]:
    used: set[int] = set()  # by identity: two responses may be equal where duplicates are kept
    for pair in pairs:
        if id(pair.chosen) not in used and id(pair.rejected) not in used:
            used |= {id(pair.chosen), id(pair.rejected)}
            yield pair
