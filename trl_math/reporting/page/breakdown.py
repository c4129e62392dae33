"""Where runs differ: by level and subject, and in pairs, problem by problem."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from trl_math.evaluation import Comparison, compare, coverage_at_k, pass_at_k
from trl_math.reporting.page.curves import k_of
from trl_math.reporting.page.drawing import WIDTH, Figure, Key
from trl_math.reporting.page.figures import Interval, dot_figure, key_of
from trl_math.reporting.page.markup import Child, Markup, tag
from trl_math.reporting.page.plot import SMALL, round_limits, share_limits
from trl_math.reporting.page.runs import COVERAGE, Group, Result, Run, groups
from trl_math.reporting.page.tables import (
    MINUS,
    Section,
    difference,
    estimate,
    name_of,
    p_value,
    panel,
    panels,
    run_legend,
    table,
)


MOST_PAIRED = 5  # runs of which all pairs are compared; of more, each with the first
HEADS = ("second run minus first", "metric", "difference", "p", "better", "worse", "equal", "n")
GROUPINGS = (("levels", "level"), ("subjects", "subject"))


def by_group(runs: Sequence[Run]) -> Section | None:
    """Return results per level and per subject."""
    shown: list[Child] = []
    figures: list[Figure] = []
    seen: list[Run] = []
    for group in groups(runs, with_rows=False):
        for grouping, noun in GROUPINGS:
            results = [one for one in group.results if one.stored.get(grouping)]
            for metric in _metrics(results, grouping):
                figures.append(_group_figure(group, results, grouping, noun, metric))
                shown.append(panel(figures[-1], _group_table(results, grouping, noun, metric)))
            seen += [one.run for one in results if one.run not in seen]
    if not shown:
        return None
    lead = "Each row is a level or a subject; lines are intervals, and fewer problems make them longer."
    body = [tag("p", lead), run_legend(seen), panels(shown)]
    return Section("groups", "Levels and subjects", body, figures)


def _metrics(results: Sequence[Result], grouping: str) -> list[str]:
    """Return accuracy and the pass@k of the largest k that all results have, or coverage@k of the ends."""
    tables = [metrics for one in results for metrics in one.stored[grouping].values()]
    shared = set.intersection(*(set(metrics) for metrics in tables)) if tables else set()
    over_k = [name for name in shared if name.startswith(("pass@", "coverage@")) and k_of(name)]
    over_k.sort(key=lambda name: k_of(name) or 0)
    first = [name for name in ("accuracy", "coverage@1") if name in shared]
    return list(dict.fromkeys([*first, *over_k[-1:]]))


def _names(results: Sequence[Result], grouping: str) -> list[str]:
    return list({name: None for one in results for name in one.stored[grouping]})


def _group_figure(group: Group, results: Sequence[Result], grouping: str, noun: str, metric: str) -> Figure:
    figure = Figure(
        f"{grouping}--{metric.replace('@', '-')}--{group.slug}",
        f"{metric} by {noun}, {group.subject}",
        f"{metric} with intervals for each {noun}.",
        WIDTH,
        0,
        [key_of(one.run) for one in results],
    )
    rows = []
    highest = 0.0
    for name in _names(results, grouping):
        found = [(key_of(one.run), one.stored[grouping].get(name, {}).get(metric)) for one in results]
        points = [(key, Interval(e["value"], e["low"], e["high"])) for key, e in found if e]
        label = f"level {name}" if noun == "level" and name.isdigit() else name
        rows.append((label, points))
        highest = max([highest, *(one.high for _, one in points)])
    return dot_figure(figure, rows, (0.0, 1.0) if highest > SMALL else share_limits(0.0, highest), metric)


def _group_table(results: Sequence[Result], grouping: str, noun: str, metric: str) -> Markup:
    rows: list[list[Child]] = []
    for name in _names(results, grouping):
        cells = [one.stored[grouping].get(name, {}).get(metric) for one in results]
        n = next(cell["n"] for cell in cells if cell)
        rows.append([name, str(n), *(estimate(cell, n=n) for cell in cells)])
    return table([noun, "n", *(name_of(one.run) for one in results)], rows, f"{metric} by {noun}")


def comparisons(runs: Sequence[Run]) -> Section | None:
    """Return every pair of runs over the same problems in the same mode, compared problem by problem."""
    body: list[Child] = []
    figures: list[Figure] = []
    apart: list[str] = []
    for group in _by_benchmark(runs):
        rows: dict[str, list[list[Child]]] = {}
        points: dict[str, list[tuple[str, Comparison]]] = {}
        for first, second in _pairs(group.results):
            found = _compared(first, second)
            if not found:
                apart.append(f"{first.run.name} and {second.run.name} on {group.title}")
            for metric, one in found:
                rows.setdefault(metric, []).append(_row(first, second, metric, one))
                points.setdefault(metric, []).append((f"{second.run.name}\n{MINUS} {first.run.name}", one))
        if rows:
            drawn = [_forest(group, metric, found) for metric, found in points.items()]
            ordered = [row for part in rows.values() for row in part]
            label = f"Comparisons, {group.title}"
            body += [
                tag("h3", group.title),
                panels([panel(one, title=f"{metric}, difference") for metric, one in zip(points, drawn, strict=True)]),
                table(HEADS, ordered, label, words=2),
            ]
            figures += drawn
        if len(group.results) > MOST_PAIRED:
            body.append(tag("p", f"With {len(group.results)} runs, each is compared with the first.", cls="note"))
    if not body and not apart:
        return None
    lead = (
        "Differences in points, second run minus first, on the problems that both have; intervals and p-values are "
        "paired by problem, and p is not adjusted for the number of comparisons."
    )
    if apart:
        body.append(tag("p", f"No problem in common, so not compared: {'; '.join(apart)}.", cls="note"))
    return Section("compare", "Comparisons", [tag("p", lead), *body], figures)


def _by_benchmark(runs: Sequence[Run]) -> list[Group]:
    """Return results of the same benchmark and mode together, whatever problems they have."""
    found = groups(runs, with_rows=False)
    return [group._replace(results=[one for one in group.results if one.keys]) for group in found]


def _pairs(results: Sequence[Result]) -> list[tuple[Result, Result]]:
    if len(results) <= MOST_PAIRED:
        return list(combinations(results, 2))
    return [(results[0], other) for other in results[1:]]


def _compared(first: Result, second: Result) -> list[tuple[str, Comparison]]:
    """Compare pass@k or coverage@k at k = 1 and the largest k that both have; empty if no problem is in both."""
    if not first.keys & second.keys:
        return []
    found = []
    for at in sorted({1, _largest_k(first, second)}):
        one = compare(_values(first, at), _values(second, at), intersect=True, confidence=first.level)
        name = f"coverage@{at}" if first.mode == COVERAGE else "accuracy" if at == 1 else f"pass@{at}"
        found.append((name, one))
    return found


def _largest_k(first: Result, second: Result) -> int:
    """Return the largest k that both have: of samples, or of the coverage that both summaries tell."""
    if first.samples is not None and second.samples is not None:
        return min(first.samples.fewest, second.samples.fewest)
    shared = first.metrics.keys() & second.metrics.keys()
    return max((k for k in map(k_of, shared) if k), default=1)


def _values(result: Result, k: int) -> Mapping[str, float]:
    """Return pass@k or coverage@k of each problem by what identifies it."""
    if result.logps is not None:
        covered = coverage_at_k(list(result.logps.values()), k).tolist()
        return dict(zip(map(result.key_of, result.logps), covered, strict=True))
    assert result.samples is not None
    tallies = result.samples.tallies
    values = pass_at_k([one.num_samples for one in tallies], [one.num_correct for one in tallies], k)
    return dict(zip((result.key_of(one.problem_id) for one in tallies), values.tolist(), strict=True))


def _row(first: Result, second: Result, metric: str, one: Comparison) -> list[Child]:
    only = one.num_only_first + one.num_only_second
    n = [str(one.difference.n), tag("span", f"{only} in one run only", cls="ci") if only else None]
    title = [name_of(second.run), f" {MINUS} ", name_of(first.run)]
    p = tag("span", p_value(one.p_value.value), title=one.p_value.test)
    counts = [str(count) for count in (one.num_better, one.num_worse, one.num_equal)]
    return [title, metric, difference(one.difference._asdict()), p, *counts, n]


def _forest(group: Group, metric: str, found: Sequence[tuple[str, Comparison]]) -> Figure:
    figure = Figure(
        f"compare--{metric.replace('@', '-')}--{group.slug}",
        f"{metric}: second run minus first, {group.subject}",
        f"Paired differences in {metric} with intervals.",
        WIDTH,
        0,
    )
    key = Key("difference", "ink", "square")
    rows = [(name, [(key, Interval(*one.difference[:3]))]) for name, one in found]
    lows, highs = ([getattr(one.difference, end) for _, one in found] for end in ("low", "high"))
    limits = round_limits(min(-0.02, *lows), max(0.02, *highs))
    return dot_figure(figure, rows, limits, "points", zero=0.0)
