"""Sums of two products with a written step as a task: problems, the chains that solve them, the sizes. No torch.

`7*8+6*9=` is solved by writing both products, in either order, and their sum:

    56+54=110        54+56=110

A data set has one of the two for each problem, drawn once. Whatever ends in the right number is right, so that the
probability of solving a problem is a sum over chains, which is sampled and not computed.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import NamedTuple

from trl_math.demo.task import Training


CHARACTERS = "0123456789*+="
FACTORS = range(2, 13)
NUM_POSITIONS = 24
MAX_CHAIN_TOKENS = 12  # 144+144=288 and the end token
CROSS_ENTROPY, GATED, ONE_WALK, WEIGHTED = "cross-entropy", "gated", "gated-one-walk", "weighted"
ARMS = (CROSS_ENTROPY, GATED, ONE_WALK, WEIGHTED)


class Problem(NamedTuple):
    """Two pairs of factors."""

    first: tuple[int, int]
    second: tuple[int, int]

    @property
    def prompt(self) -> str:
        return "+".join(f"{left}*{right}" for left, right in self) + "="

    @property
    def products(self) -> tuple[int, int]:
        return self.first[0] * self.first[1], self.second[0] * self.second[1]

    @property
    def answer(self) -> str:
        return str(sum(self.products))


class Exercise(NamedTuple):
    """A problem, and whether its row's chain begins with its second product."""

    problem: Problem
    is_swapped: bool

    @property
    def prompt(self) -> str:
        return self.problem.prompt

    @property
    def answer(self) -> str:
        first, second = self.problem.products[:: -1 if self.is_swapped else 1]
        return f"{first}+{second}={first + second}"


@dataclass(frozen=True)
class ChainSettings(Training):
    """What a run depends on besides its arm and its seed."""

    num_layers: int = 3
    hidden_size: int = 64
    num_train: int = 300
    num_held_out: int = 300
    rounds_learning_rate: float = 1e-3
    num_orders: int = 12  # draws of an order and a chain for each other problem, which the base learns from
    base_steps: int = 800
    rounds: int = 20
    evaluate_every: int = 4  # rounds
    screening_samples: int = 64  # at the most
    screening_confidence: float = 0.98
    evaluation_samples: int = 128
    max_pass_rate: float = 0.1
    num_attempts: int = 64


def is_right(problem: Problem, chain: str) -> bool:
    """Whether a chain ends in the right number."""
    return chain.rpartition("=")[2] == problem.answer


class Split(NamedTuple):
    """What is trained on and what is not; no two of them share a pair of products, in whichever order."""

    corpus: list[Exercise]  # of the base
    training: list[Exercise]
    held_out: list[Problem]


def split_exercises(seed: int, settings: ChainSettings) -> Split:
    """Return the exercises and problems of a seed.

    Held-out problems are the same for all seeds, which makes arms comparable problem by problem.
    """
    products = list(combinations_with_replacement(FACTORS, 2))
    pairs = list(combinations_with_replacement(products, 2))
    assert settings.num_train + settings.num_held_out < len(pairs), f"there are {len(pairs)} pairs of products"
    same, own = random.Random("held out"), random.Random(seed)
    same.shuffle(pairs)
    held_out = [_in_some_order(pair, same) for pair in pairs[: settings.num_held_out]]
    others = pairs[settings.num_held_out :]
    own.shuffle(others)
    training = [_exercise(pair, own) for pair in others[: settings.num_train]]
    corpus = {_exercise(pair, own) for pair in others[settings.num_train :] for _ in range(settings.num_orders)}
    return Split(sorted(corpus), training, held_out)


def _exercise(pair: Sequence[tuple[int, int]], generator: random.Random) -> Exercise:
    return Exercise(_in_some_order(pair, generator), generator.random() < 0.5)


def _in_some_order(pair: Sequence[tuple[int, int]], generator: random.Random) -> Problem:
    first, second = (tuple(generator.sample(product, 2)) for product in generator.sample(pair, 2))
    return Problem(first, second)
