"""What rounds of training have come to, read from the folder of an experiment (`trl-math run`)."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.errors import DataError


DRIFT = "drift/chosen_per_token"  # as the preference trainer logs it


class Point(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float


class Evaluation(NamedTuple):
    """What one evaluation of an experiment says of its first benchmark."""

    label: str
    folder: Path
    benchmark: str
    num_problems: int
    num_samples: int
    metrics: dict[str, Point]

    def pass_at(self) -> dict[int, Point]:
        """Return pass@k by k, pass@1 being the accuracy."""
        named = {1: self.metrics["accuracy"]}
        return named | {
            int(k): point for name, point in self.metrics.items() if (k := name.removeprefix("pass@")) != name
        }


class Rounds(NamedTuple):
    """An experiment: its evaluations in order, and the drift of right answers while it trained, by round."""

    name: str
    evaluations: list[Evaluation]
    drift: list[list[tuple[int, float]]]  # (step, nats per token) of each training
    num_pairs: list[int]


def read_rounds(folder: Path, name: str) -> Rounds:
    """Read an experiment whose evaluations are finished."""
    manifest = folder / "run.json"
    if not manifest.is_file():
        raise DataError(f"{folder} holds no experiment of `trl-math run`: there is no run.json.")
    stages = json.loads(manifest.read_text(encoding="utf-8"))["stages"]
    made: dict[str, list[tuple[str, Path]]] = {}
    for stage in stages:
        made.setdefault(stage["words"][0], []).append((stage["label"], Path(stage["output"])))
    return Rounds(
        name,
        [_evaluation(label, output) for label, output in made.get("evaluate", [])],
        [_drift(output) for _, output in made.get("dpo", [])],
        [_read(output / "pairs.json")["num_pairs"] for _, output in made.get("pairs", [])],
    )


def _evaluation(label: str, folder: Path) -> Evaluation:
    result = _read(folder / "summary.json")["results"][0]
    metrics = {name: Point(one["value"], one["low"], one["high"]) for name, one in result["metrics"].items()}
    return Evaluation(
        label, folder, result["benchmark"], result["num_problems"], max(result["samples_per_problem"]), metrics
    )


def _drift(folder: Path) -> list[tuple[int, float]]:
    history = _read(folder / "trainer_state.json")["log_history"]
    return [(log["step"], log[DRIFT]) for log in history if DRIFT in log]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"There is no {path}: the experiment is not finished. The same command goes on with it.")
    return json.loads(path.read_text(encoding="utf-8"))
