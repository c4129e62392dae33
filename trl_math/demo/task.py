"""Two-digit multiplication as a task: problems, a split, and the sizes of an experiment. No torch needed."""

import random
from dataclasses import dataclass
from typing import NamedTuple


BASE = "base"  # the run whose weights the arms of an experiment go on from


class Problem(NamedTuple):
    """Two factors."""

    left: int
    right: int

    @property
    def prompt(self) -> str:
        return f"{self.left}*{self.right}="

    @property
    def answer(self) -> str:
        return str(self.left * self.right)


@dataclass(frozen=True)
class Training:
    """A small Llama and how it is trained: what the settings of all experiments on characters have."""

    num_layers: int = 4
    hidden_size: int = 128
    learning_rate: float = 1e-3
    batch_size: int = 64


@dataclass(frozen=True)
class Settings(Training):
    """What a run depends on besides its loss and its seed. Runs with different settings do not belong in one table."""

    epochs: int = 60
    evaluate_every: int = 4  # epochs
    num_train: int = 3000
    num_held_out: int = 1000


def split_problems(seed: int, num_train: int, num_held_out: int) -> tuple[list[Problem], list[Problem]]:
    """Return training and held-out problems that share no pair of factors, in whichever order."""
    generator = random.Random(seed)
    pairs = [(small, large) for small in range(10, 100) for large in range(small, 100)]
    generator.shuffle(pairs)
    held_out = [Problem(*generator.sample(pair, 2)) for pair in pairs[:num_held_out]]
    train = [Problem(*order) for pair in pairs[num_held_out:] for order in sorted({pair, pair[::-1]})]
    generator.shuffle(train)
    assert len(held_out) == num_held_out and len(train) >= num_train, "there are 4,095 pairs of two-digit factors"
    return train[:num_train], held_out
