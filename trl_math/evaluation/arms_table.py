"""What a comparison of arms found, as tables in Markdown: a row an arm, points of percent."""

from collections.abc import Mapping, Sequence
from typing import Any

from trl_math.evaluation.table import percent


Found = Mapping[str, Any]  # what `compare_arms` returns of one benchmark and mode
NONE = "-"


def arms_tables(found: Found, metrics: Sequence[str]) -> str:
    """Return the tables of one benchmark and mode: arms and gains by metric, by level, and hard against easy."""
    parts = [_title(found)]
    for name in metrics:
        parts.append(_gains_table(found, name))
    if len(found["levels"]) > 1:
        parts.append(_levels_table(found, metrics[0]))
    if found["split"] is not None:
        parts.append(_hard_table(found, metrics[0]))
    return "\n\n".join(parts)


def shown_metrics(found: Found) -> list[str]:
    """Return the metrics that tables show: the first, which is the accuracy, and the largest pass@k and maj@k."""
    names = [*next(iter(found["arms"].values()))]
    largest = [
        max(
            (name for name in names if name.startswith(kind)),
            key=lambda name: int(name.partition("@")[2]),
            default=None,
        )
        for kind in ("pass@", "maj@", "coverage@")
    ]
    return list(dict.fromkeys([names[0], *(name for name in largest if name is not None)]))


def budget_table(trainings: Mapping[str, Sequence[Mapping[str, Any]]], controls: Mapping[str, str]) -> str:
    """Return how long each arm was trained, and how its control's tokens differ."""
    rows = [["arm", "steps", "tokens", "control's tokens"]]
    for arm, runs in trainings.items():
        own, other = (_mean_tokens(trainings.get(name, ())) for name in (arm, controls.get(arm, "")))
        gap = f"{other / own - 1:+.1%}" if own and other else NONE
        steps = sorted({run["steps"] for run in runs if run["steps"] is not None})
        said = NONE if not steps else f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,}-{steps[-1]:,}"
        rows.append([arm, said, f"{own:,.0f}" if own else NONE, gap])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table, the first one being the head; columns of numbers stand to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = [f":{'-' * (width + 1)}" if not column else f"{'-' * (width + 1)}:" for column, width in enumerate(widths)]
    lines = [
        "| " + " | ".join(f"{cell:<{width}}" if not column else f"{cell:>{width}}" for column, (cell, width) in
                          enumerate(zip(row, widths, strict=True))) + " |"
        for row in rows
    ]  # fmt: skip
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def _title(found: Found) -> str:
    left_out = f"; {found['num_left_out']:,} that not all runs have left out" if found["num_left_out"] else ""
    return f"{found['benchmark']} ({found['mode']}): {found['num_problems']:,} problems{left_out}"


def _gains_table(found: Found, metric: str) -> str:
    gains = {gain["arm"]: gain for gain in found["gains"]}
    rows = [["arm", metric, "seeds", "control", "gain (problems)", "gain (seeds)", "gain (both)", "p"]]
    for arm, metrics in found["arms"].items():
        level = metrics[metric]
        mean, low, high = (percent(level["problems"][end]) for end in ("value", "low", "high"))
        row = [arm, f"{mean} ({low}-{high})", _seeds(level["by_seed"])]
        if arm in gains:
            gain = gains[arm]["metrics"][metric]
            intervals = [_signed(gain[name]) for name in ("problems", "seeds", "both")]
            row += [gains[arm]["control"], *intervals, f"{gain['p_value']['value']:.2g}"]
        rows.append(row + [NONE] * (len(rows[0]) - len(row)))
    return markdown(rows)


def _levels_table(found: Found, metric: str) -> str:
    levels = [*found["levels"]]
    rows = [[f"gain in {metric}", *(f"{name} (n={found['levels'][name]:,})" for name in levels)]]
    for gain in found["gains"]:
        rows.append([gain["arm"], *(_signed(gain["metrics"][metric]["levels"][name]["problems"]) for name in levels)])
    return markdown(rows)


def _hard_table(found: Found, metric: str) -> str:
    split = found["split"]
    names = [f"{side} (n={split[f'num_{side}']:,})" for side in ("hard", "easy")]
    rows = [[f"gain in {metric}", *names, "hard minus easy", "over seeds"]]
    for gain in found["gains"]:
        one = gain["metrics"][metric]
        sides = [_signed(one[side]["problems"]) for side in ("hard", "easy", "shift")]
        rows.append([gain["arm"], *sides, _signed(one["shift"]["seeds"])])
    said = f"Hard: {', '.join(split['hard'])}; easy: {', '.join(split['easy'])} (by {split['by']})."
    return f"{markdown(rows)}\n\n{said}"


def _signed(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return NONE
    value, low, high = (f"{round(100 * estimate[end], 1) + 0.0:+.1f}" for end in ("value", "low", "high"))  # no -0.0
    return f"{value} ({low} to {high})"


def _seeds(by_seed: Sequence[float]) -> str:
    """Return how many seeds there are, and the lowest and highest of them."""
    if len(by_seed) == 1:
        return "1"
    return f"{len(by_seed)}: {percent(min(by_seed))}-{percent(max(by_seed))}"


def _mean_tokens(runs: Sequence[Mapping[str, Any]]) -> float | None:
    tokens = [run["tokens"] for run in runs if run["tokens"] is not None]
    return sum(tokens) / len(tokens) if runs and len(tokens) == len(runs) else None
