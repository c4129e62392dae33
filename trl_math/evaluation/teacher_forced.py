"""Coverage without sampling: the probability that the model gives to each problem's answer, by teacher forcing.

    coverage@k = 1 - (1 - p)^k       p: of the whole answer in the prompt style's words, its end token included

For direct answers, which one spelling says. It is what the coverage loss trains, and a lower bound of pass@k where
other spellings or endings are right as well. One forward pass a problem, for every k at once.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from trl_math.data.prompts import PromptStyle
from trl_math.errors import DataError, UsageError
from trl_math.evaluation.coverage import coverage_at_k
from trl_math.evaluation.intervals import mean_estimate
from trl_math.evaluation.summary import by_group
from trl_math.generation.backend import NOT_FINITE
from trl_math.generation.checkpoint import Checkpoint
from trl_math.generation.engines import EngineArguments, make_backend
from trl_math.generation.tokenise import training_token_ids


Row = Mapping[str, Any]


def answer_tokens(
    problems: Sequence[Row], style: PromptStyle, checkpoint: Checkpoint
) -> list[tuple[list[int], list[int]]]:
    """Return the tokens of each problem's prompt and answer, up to the token at which a sample would end."""
    missing = [row["problem_id"] for row in problems if not row["answer"]]
    if missing:
        raise DataError(f"{len(missing)} problems have no answer, {missing[0]!r} for one: leave them out.")
    prompts = [style.prompt(row) for row in problems]
    pairs = training_token_ids(checkpoint.tokenizer, prompts, [style.completion(row) for row in problems])
    return [(prompt, _up_to_end(answer, checkpoint.end_ids)) for prompt, answer in pairs]


@contextmanager
def opened(engine: EngineArguments, checkpoint: Checkpoint) -> Iterator[Any]:
    """Load the model, for as long as the context lasts."""
    backend = make_backend(dataclasses.replace(engine, backend="transformers"), checkpoint, seed=0)
    try:
        yield backend.model.eval()  # type: ignore[attr-defined]
    finally:
        backend.close()


def answer_rows(
    problems: Sequence[Row], style: PromptStyle, model: Any, checkpoint: Checkpoint
) -> list[dict[str, Any]]:
    """Return a row for each problem: the log-probability of its answer."""
    from trl_math.generation.model_logprobs import completion_logprobs  # noqa: PLC0415 - heavy

    tokens = answer_tokens(problems, style, checkpoint)
    order = sorted(range(len(tokens)), key=lambda index: sum(map(len, tokens[index])))  # little padding
    found = completion_logprobs(model, [tokens[index] for index in order], checkpoint.tokenizer.pad_token_id or 0)
    logps = dict(zip(order, (float(np.sum(values, dtype=float)) for values in found), strict=True))
    if not np.isfinite(list(logps.values())).all():
        raise UsageError(NOT_FINITE)
    return [
        {"problem_id": row["problem_id"], "logp": logps[index], "num_tokens": len(tokens[index][1])}
        for index, row in enumerate(problems)
    ]


def coverage_numbers(
    rows: Sequence[Row], problems: Mapping[str, Row], ks: Sequence[int], confidence: float
) -> dict[str, Any]:
    """Return what is told of a benchmark, in the form of `results.numbers`."""
    values = coverage_at_k([row["logp"] for row in rows], list(ks))
    metrics = {f"coverage@{k}": values[:, place] for place, k in enumerate(ks)}
    asked = [problems[row["problem_id"]] for row in rows]
    groups = {
        table: {
            name: {metric: estimate._asdict() for metric, estimate in estimates.items()}
            for name, estimates in by_group([row.get(column) for row in asked], metrics, confidence).items()
        }
        for table, column in (("levels", "level"), ("subjects", "subject"))
    }
    return {
        "metrics": {name: mean_estimate(column, confidence)._asdict() for name, column in metrics.items()},
        **groups,
        "num_problems": len(rows),
        "num_samples": 0,
        "samples_per_problem": [0, 0],
        "num_unreadable": 0,
        "majority_error": {},
        "calibration": None,
        "grading": {"reasons": {}, "places": {}, "num_unmarked": 0, "num_timeouts": 0},
    }


def _up_to_end(ids: list[int], end_ids: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(ids) if token in end_ids), len(ids) - 1)
    return ids[: end + 1]
