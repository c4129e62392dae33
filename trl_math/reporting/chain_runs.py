"""Rounds of training on chains of thought: a run as it lies on disk, and the numbers that are read off it.

Held-out problems are the same for all seeds, so a gain is paired by seed and by problem (`evaluation/compare_seeds`).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trl_math.errors import RunFolderError
from trl_math.evaluation.compare_seeds import Gain, arm_gain
from trl_math.evaluation.pass_at_k import pass_at_k
from trl_math.files import write_whole
from trl_math.reporting.graded_runs import signed


TABLE_ATTEMPTS = (1, 8, 64)
MAIN_ATTEMPTS = 64


@dataclass(frozen=True)
class ChainRun:
    """How many samples of each held-out problem were right. E evaluations, P held-out problems."""

    arm: str
    seed: int
    epochs: list[int]  # (E,), 0 is the base
    num_samples: int  # of each problem, each time
    num_correct: list[list[int]]  # (E, P)
    rounds: list[dict[str, Any]]  # steps of each round, and what screening found
    settings: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def pass_at(self, attempts: int) -> np.ndarray:
        """Return pass@`attempts` of each problem at each evaluation, (E, P), without bias."""
        return pass_at_k(self.num_samples, np.array(self.num_correct), attempts)

    def save(self, path: Path) -> None:
        """Write the run, whole or not at all."""
        write_whole(path, json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> "ChainRun":
        """Read a run that `save` wrote."""
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            raise RunFolderError(f"{path} is not a finished run of this experiment: remove it to repeat it.") from None


def by_arm(runs: Sequence[ChainRun]) -> dict[str, list[ChainRun]]:
    """Group runs by arm, in the order in which these first appear, each group by seed; raise if seeds differ."""
    groups: dict[str, list[ChainRun]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    groups = {arm: sorted(group, key=lambda run: run.seed) for arm, group in groups.items()}
    seeds = {arm: [run.seed for run in group] for arm, group in groups.items()}
    if len({tuple(some) for some in seeds.values()}) > 1:
        raise RunFolderError(f"Arms have different seeds: {seeds}. Run those that are missing.")
    return groups


def curves(bases: Sequence[ChainRun], group: Sequence[ChainRun], attempts: int) -> tuple[list[int], np.ndarray]:
    """Return epochs, from the base's 0, and pass@`attempts` in percent of each seed at each, (S, E)."""
    start = {run.seed: 100 * run.pass_at(attempts)[-1].mean() for run in bases}
    values = [[start[run.seed], *(100 * run.pass_at(attempts).mean(axis=1))] for run in group]
    return [0, *group[0].epochs], np.array(values)


def gain(runs: Sequence[ChainRun], arm: str, control: str, attempts: int) -> Gain:
    """Return what an arm has more of pass@`attempts` than the control at the end."""
    groups = by_arm(runs)
    values, than = (np.stack([run.pass_at(attempts)[-1] for run in groups[name]]) for name in (arm, control))
    return arm_gain(values, than)


def table(bases: Sequence[ChainRun], runs: Sequence[ChainRun], control: str) -> str:
    """Return a Markdown table: a row for the base and each arm, and gains over the control."""
    columns = [f"pass@{k}" for k in TABLE_ATTEMPTS]
    heads = ["arm", *columns, *(f"{name}, gain" for name in columns), "optimiser steps", "samples for screening"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for arm, group in {"base": sorted(bases, key=lambda run: run.seed), **by_arm(runs)}.items():
        values = [100 * np.array([run.pass_at(k)[-1].mean() for run in group]) for k in TABLE_ATTEMPTS]
        is_compared = arm not in ("base", control)
        gains = [signed(gain(runs, arm, control, k)) if is_compared else "" for k in TABLE_ATTEMPTS]
        steps, samples = (spread([total(run, name) for run in group]) for name in ("steps", "samples"))
        lines.append(f"| {' | '.join([arm, *map(_percent, values), *gains, steps, samples])} |")
    return "\n".join(lines)


def total(run: ChainRun, name: str) -> int:
    """Return the sum of a number over the rounds."""
    return sum(said.get(name, 0) for said in run.rounds)


def spread(values: Sequence[int]) -> str:
    """Return one number, or the smallest and the largest."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}..{high:,}"


def _percent(values: np.ndarray) -> str:
    return f"{values[0]:.1f}" if len(values) == 1 else f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
