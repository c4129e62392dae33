"""What is known of pass rates while the model that they are of goes on learning: how many right of how many, and when.

An estimate is *fresh* while it is younger than `every` optimiser steps; without `every`, through the walk over the
data in which it was made. All of it is plain JSON in a checkpoint, so that a run that goes on asks for the same
samples that it would have asked for.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self


class Estimate(NamedTuple):
    """What the samples of one problem said."""

    num_correct: int
    num_samples: int
    step: int  # optimiser steps that its sampler had taken
    is_solved: bool  # often enough not to be trained on
    chains: list[list[int]] = []  # noqa: RUF012 - never changed; tokens of right samples, if they are trained on

    @property
    def pass_rate(self) -> float:
        """The share of right samples."""
        return self.num_correct / self.num_samples


@dataclass
class PassRateCache:
    """The latest estimate of each problem."""

    every: int | None = None  # optimiser steps after which an estimate is made again
    walk_began: int = 0  # the step at which the first problems of the current walk were looked at
    num_calls: int = 0  # of the sampler: no two draw from the same seed
    estimates: dict[str, Estimate] = field(default_factory=dict)

    def begin_walk(self, step: int) -> None:
        """Take note that a walk over the data begins."""
        self.walk_began = step

    def is_fresh(self, problem: str, step: int) -> bool:
        """Whether what is known of a problem will do at this step."""
        found = self.estimates.get(problem)
        if found is None:
            return False
        return found.step >= self.walk_began if self.every is None else step - found.step < self.every

    def fresh_counts(self, step: int) -> list[tuple[int, int]]:
        """Return right samples and all of problems whose estimates will do at this step."""
        fresh = (found for name, found in self.estimates.items() if self.is_fresh(name, step))
        return [(found.num_correct, found.num_samples) for found in fresh]

    def age(self, problem: str, step: int) -> int:
        """Return how many optimiser steps ago a problem was estimated."""
        return step - self.estimates[problem].step

    def as_json(self) -> dict[str, Any]:
        """Return everything but the settings, for a checkpoint."""
        return {
            "walk_began": self.walk_began,
            "num_calls": self.num_calls,
            "estimates": {name: list(found) for name, found in self.estimates.items()},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any], every: int | None) -> Self:
        """Return what a checkpoint holds, under the settings as they are now."""
        estimates = {name: Estimate(*found) for name, found in values["estimates"].items()}
        return cls(every, values["walk_began"], values["num_calls"], estimates)
