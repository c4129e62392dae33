"""How far to trust the numbers: confidence and calibration, what grading met, and how long samples are."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trl_math.grading import REASONS
from trl_math.reporting.page.drawing import Figure, Key
from trl_math.reporting.page.figures import confidence_figure, lengths_figure
from trl_math.reporting.page.markup import Child, Markup, tag
from trl_math.reporting.page.runs import Group, Result, Run, groups
from trl_math.reporting.page.tables import (
    DASH,
    Section,
    estimate,
    legend,
    name_of,
    panel,
    panels,
    run_legend,
    share,
    signed,
    table,
)


def confidence(runs: Sequence[Run]) -> Section | None:
    """Return majority confidence and calibration, a panel for each run on each benchmark."""
    body: list[Child] = []
    figures: list[Figure] = []
    for group in groups(runs):
        found = [one for one in group.results if one.samples is not None and one.samples.fewest > 1]
        drawn = []
        for one in found:
            figures.append(confidence_figure(one, one.stored.get("calibration"), group.slug))
            drawn.append(panel(figures[-1], _bins(one), _calibration_note(one), title=one.run.name))
        if drawn:
            body += [tag("h3", group.title), panels(drawn)]
    if not body:
        return None
    lead = (
        "A problem's confidence is the share of its samples that agree with its most frequent answer. Above: how many "
        "problems have which confidence. Below: how often that answer is right; the dashed line is honest confidence."
    )
    keys = legend([Key("majority answer right", "right", "square"), Key("wrong", "wrong", "square")])
    return Section("confidence", "Confidence and calibration", [tag("p", lead), keys, *body], figures)


def _calibration_note(one: Result) -> Child:
    found = one.stored.get("calibration")
    if not found:
        return None
    error, over = found["error"], found["overconfidence"]
    return [
        tag("b", f"ECE {share(error['value'])}"),
        f" ({share(error['low'])} to {share(error['high'])}), bias removed; plug-in {share(found['plug_in'])}, "
        f"which would be {share(found['plug_in_if_calibrated'])} if calibrated. Overconfidence "
        f"{signed(over['value'])} ({signed(over['low'])} to {signed(over['high'])}) points. n = {error['n']}; "
        f"{found['binning']}.",
    ]


def _bins(one: Result) -> Markup | None:
    found = one.stored.get("calibration")
    if not found:
        return None
    rows: list[list[Child]] = [
        [
            f"{share(b['low'], 0)} {DASH} {share(b['high'], 0)}",
            share(b["confidence"]),
            estimate(b["accuracy"]),
            str(b["accuracy"]["n"]),
        ]
        for b in found["bins"]
    ]
    return table(["confidence, %", "mean", "right, %", "n"], rows, f"Calibration of {one.run.name}")


def grading(runs: Sequence[Run]) -> Section | None:
    """Return what grading met, and the lengths of samples."""
    found = groups(runs, with_samples=False)
    if not found:
        return None
    lead = (
        "Unanswered and truncated samples count as wrong. Unmarked: no box, hashes or phrase marks the answer. "
        "Timeouts: comparisons that were killed. Unreadable: problems left out because of their gold answer."
    )
    body: list[Child] = [tag("p", lead)]
    for group in found:
        body += [tag("h3", group.title), _grading_table(group), _reasons(group)]
    figures = [lengths_figure(group) for group in groups(runs)]
    note = "Point: median; thick: middle half; thin: 5th to 95th percentile."
    if figures:
        shown = [panel(figure, title=group.title) for group, figure in zip(groups(runs), figures, strict=True)]
        every = list({one.run.index: one.run for group in groups(runs) for one in group.results}.values())
        body += [tag("h3", "Tokens a sample"), tag("p", note, cls="note"), run_legend(every), panels(shown)]
    return Section("grading", "Grading and lengths", body, figures)


def _grading_table(group: Group) -> Markup:
    rows: list[list[Child]] = []
    for one in group.results:
        met, metrics = one.stored.get("grading") or {}, one.stored["metrics"]
        total = sum((met.get("reasons") or {}).values()) or one.stored.get("num_samples") or 0
        counts = [_count(met.get(name), total) for name in ("num_unmarked", "num_timeouts")]
        unreadable = str(one.stored.get("num_unreadable", 0))
        rates = [estimate(metrics.get(name)) for name in ("unanswered", "truncated")]
        rows.append([name_of(one.run), f"{total:,}", *rates, *counts, unreadable])
    heads = ["run", "samples", "unanswered, %", "truncated, %", "unmarked", "timeouts", "unreadable"]
    return table(heads, rows, f"Grading of {group.title}")


def _count(value: int | None, total: int) -> Child:
    if value is None:
        return DASH
    return [f"{value:,}", tag("span", f"{share(value / total)} %", cls="ci") if total and value else None]


def _reasons(group: Group) -> Markup | None:
    """Return why samples were graded as they were, and what became of programs."""
    rows: list[list[Child]] = []
    for kind, meanings in (("reasons", REASONS), ("outcomes", {})):
        counts = [Counter((one.stored.get("grading") or {}).get(kind) or {}) for one in group.results]
        totals = sum(counts, Counter[str]())
        rows += [
            [_reason(name, meanings), *(_count(one[name], sum(one.values())) for one in counts)]
            for name, _ in totals.most_common()
        ]
    if not rows:
        return None
    inner = table(["why", *(name_of(one.run) for one in group.results)], rows, f"Reasons, {group.title}")
    return tag("details", tag("summary", "Why samples were graded as they were"), inner)


def _reason(name: str, meanings: dict[str, Any]) -> Child:
    return [tag("b", name), f": {meanings[name]}" if name in meanings else None]
