"""Sums of graded difficulty as a task: problems, a split, arms and the sizes of the experiment. No torch needed.

`47+6=53`, `47+6+8=61`, `47+6+8+5=66`, ...: a number with two digits, and one to four with one digit, summed up
without a written step. Every level has as many rows. Held-out problems are apart from the training problems, in
whichever order of the digits.
"""

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

from trl_math.demo.task import Training


LEVELS = ("2 terms", "3 terms", "4 terms", "5 terms")
CHARACTERS = "0123456789+="
NUM_POSITIONS = 20
MAX_ANSWER_TOKENS = 4  # 99+9+9+9+9=135 and the end token
UNIFORM, HARD, SDAT, EASY = "uniform", "hard", "levels", "easy"
# Arm -> a schedule on the pass rate p, and its parameters.
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    UNIFORM: ("uniform", {}),
    HARD: ("linear", {}),  # 1 - p
    SDAT: ("levels", {"base": 1.0, "factor": 1.0}),  # 1 + d, d from 1 to 5: the published (b, w) = (1, 1)
    EASY: ("levels", {"base": 1.0, "factor": -1.0, "rule": "err_rate"}),  # p, the mirror of `hard`
}


class Problem(NamedTuple):
    """A number with two digits, and what is added to it."""

    first: int
    digits: tuple[int, ...]

    @property
    def prompt(self) -> str:
        return "+".join(map(str, (self.first, *self.digits))) + "="

    @property
    def answer(self) -> str:
        return str(self.first + sum(self.digits))


@dataclass(frozen=True)
class GradedSettings(Training):
    """What a run depends on besides its arm and its seed."""

    num_layers: int = 3
    hidden_size: int = 64
    learning_rate: float = 2e-3
    num_train: int = 600  # of each level; of the first there are 810 in all
    num_held_out: int = 200  # of each level
    base_steps: int = 1200
    steps: int = 300
    arm_learning_rate: float = 5e-4
    warmup_steps: int = 30  # of an arm: its optimiser is new
    evaluate_every: int = 300  # steps
    num_samples: int = 16  # of each training problem, for its pass rate


def split_problems(seed: int, settings: GradedSettings) -> tuple[list[Problem], list[Problem]]:
    """Return training and held-out problems, as many of each level and level by level.

    Held-out problems are the same for all seeds, which makes arms comparable problem by problem.
    """
    same, own = random.Random("held out"), random.Random(seed)
    training, held_out = [], []
    for level in range(len(LEVELS)):
        kept = _distinct(same, level, settings.num_held_out, apart_from=set())
        held_out += kept
        training += _distinct(own, level, settings.num_train, apart_from={_unordered(problem) for problem in kept})
    return training, held_out


def level_of(problem: Problem) -> int:
    """Return the place of a problem's level in `LEVELS`."""
    return len(problem.digits) - 1


def _distinct(generator: random.Random, level: int, number: int, apart_from: set[Problem]) -> list[Problem]:
    """Return different problems of a level, none of which is one of `apart_from` in another order."""
    found: dict[Problem, None] = {}
    while len(found) < number:
        digits = tuple(generator.randint(1, 9) for _ in range(level + 1))
        problem = Problem(generator.randint(10, 99), digits)
        if _unordered(problem) not in apart_from:
            found[problem] = None
    return list(found)


def _unordered(problem: Problem) -> Problem:
    return Problem(problem.first, tuple(sorted(problem.digits)))
