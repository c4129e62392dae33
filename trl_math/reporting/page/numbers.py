"""The numbers themselves: the main table, pass@k and maj@k over k, and the frontier that runs reach together."""

from collections.abc import Sequence

from trl_math.reporting.page.curves import (
    Curve,
    Stretch,
    best_runs,
    curves_figure,
    frontier_figure,
    majority_curve,
    pass_curve,
)
from trl_math.reporting.page.drawing import Figure
from trl_math.reporting.page.markup import Child, Markup, tag
from trl_math.reporting.page.runs import Group, Result, Run, groups
from trl_math.reporting.page.tables import (
    DASH,
    Section,
    estimate,
    name_of,
    panel,
    panels,
    run_legend,
    table,
)


LAST_METRICS = ("unanswered", "truncated")


def main_table(runs: Sequence[Run]) -> Section | None:
    """Return every number of every run, a table for each benchmark."""
    found = groups(runs, with_samples=False)
    if not found:
        return None
    levels = {one["confidence"] for group in found for r in group.results for one in r.stored["metrics"].values()}
    said = " and ".join(f"{100 * level:g} %" for level in sorted(levels))
    lead = f"Percent, means over problems with their {said} intervals; n is the number of problems."
    bold = " The highest of a column is bold, whether or not that is certain: comparisons are further down."
    body: list[Child] = [tag("p", lead + (bold if len(runs) > 1 else ""))]
    for group in found:
        body += [tag("h3", group.title), _table(group)]
    return Section("numbers", "Numbers", body)


def _metric_order(name: str) -> tuple[int, str, int]:
    kind, _, k = name.partition("@")
    place = 0 if name == "accuracy" else 2 + LAST_METRICS.index(name) if name in LAST_METRICS else 1
    return place, "" if kind == "pass" else kind, int(k) if k.isdigit() else 0


def _table(group: Group) -> Markup:
    names = sorted({name for one in group.results for name in one.stored["metrics"]}, key=_metric_order)
    best = {name: _best(group.results, name) for name in names}
    rows: list[list[Child]] = []
    for one in group.results:
        metrics = one.stored["metrics"]
        n = metrics["accuracy"]["n"] if "accuracy" in metrics else one.stored.get("num_problems", 0)
        cells = [estimate(metrics.get(name), is_best=one.run.index in best[name], n=n) for name in names]
        rows.append([name_of(one.run), *cells, str(n), _samples(one)])
    return table(["run", *names, "n", "samples each"], rows, f"Numbers of {group.title}")


def _best(results: Sequence[Result], name: str) -> list[int]:
    """Return which runs have the highest value."""
    values = {one.run.index: one.stored["metrics"][name]["value"] for one in results if name in one.stored["metrics"]}
    if len(values) < 2 or name in LAST_METRICS:
        return []
    return [index for index, value in values.items() if value == max(values.values())]


def _samples(one: Result) -> str:
    fewest, most = one.stored.get("samples_per_problem") or (None, None)
    return DASH if fewest is None else str(fewest) if fewest == most else f"{fewest} {DASH} {most}"


def curves(runs: Sequence[Run], *, with_majority: bool = False) -> Section | None:
    """Return pass@k, and maj@k if it was asked for, of every benchmark."""
    shown: list[Child] = []
    figures: list[Figure] = []
    single = []
    for group in groups(runs):
        drawable = [one for one in group.results if one.samples is not None and one.samples.fewest > 1]
        single += [f"{one.run.name} on {group.benchmark}" for one in group.results if one not in drawable]
        for metric, curve in (("pass@k", pass_curve), ("maj@k", majority_curve)):
            if drawable and (metric == "pass@k" or with_majority):
                found = [curve(one) for one in drawable]
                figures.append(curves_figure(group, found, metric))
                shown.append(panel(figures[-1], curve_table(found, metric)))
    if not shown:
        return None
    lead = (
        "The chance that at least one of k samples is right, estimated without bias for every k up to the number of "
    )
    lead += "samples of the problem with the fewest; bands are intervals over problems."
    if with_majority:
        lead += " maj@k is the chance that the most frequent answer of k samples is right."
    left = tag("p", f"No curve, because there is one sample a problem: {', '.join(single)}.", cls="note")
    body: list[Child] = [tag("p", lead), run_legend(_runs(groups(runs))), panels(shown), left if single else None]
    return Section("curves", "pass@k" if not with_majority else "pass@k and maj@k", body, figures)


def _runs(found: Sequence[Group]) -> list[Run]:
    return list({one.run.index: one.run for group in found for one in group.results}.values())


def curve_table(found: Sequence[Curve], metric: str) -> Markup:
    """Return the numbers of curves at powers of two and at their ends."""
    ks = sorted({k for curve in found for k in curve.ks if k & (k - 1) == 0 or k == curve.ks[-1]})
    rows: list[list[Child]] = []
    for k in ks:
        at = [dict(zip(curve.ks, curve.estimates, strict=True)).get(k) for curve in found]
        rows.append([str(k), *(estimate(one._asdict() if one else None) for one in at)])
    n = found[0].estimates[0].n
    return table(["k", *(name_of(curve.run) for curve in found)], rows, f"{metric} in percent, n = {n}")


def frontier(runs: Sequence[Run]) -> Section | None:
    """Return which run is the best at each k, where several ran on the same problems."""
    shown: list[Child] = []
    figures: list[Figure] = []
    compared: list[Group] = []
    for group in groups(runs):
        found = [pass_curve(one) for one in group.results if one.samples is not None and one.samples.fewest > 1]
        if len(found) > 1:
            stretches = best_runs(found)
            figures.append(frontier_figure(group, found, stretches))
            shown.append(panel(figures[-1], note=_said(stretches), title=group.title))
            compared.append(group)
    if not shown:
        return None
    lead = (
        "What the runs reach together: at each k the best of them. A model trained for N samples is meant to be the "
        "best near k = N; the strip below an axis shows which run is. Read it with the intervals above."
    )
    return Section(
        "frontier", "Coverage frontier", [tag("p", lead), run_legend(_runs(compared)), panels(shown)], figures
    )


def _said(stretches: Sequence[Stretch]) -> str:
    parts = [
        f"{one.run.name} at k = {one.first}"
        if one.first == one.last
        else f"{one.run.name} for k = {one.first} to {one.last}"
        for one in stretches
    ]
    return f"Best: {', '.join(parts)}."
