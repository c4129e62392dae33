"""The page of a decontamination: what was found, how far detectors agree, and pairs side by side to judge by oneself.

It is made of `summary.json` and of the rows of `matches.jsonl`, which lie beside it, and of nothing else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trl_math import __version__
from trl_math.files import write_whole
from trl_math.reporting.contamination_evidence import evidence_line
from trl_math.reporting.contamination_figures import ALL, agreement_figure, looks_of, rates_figures, short_name
from trl_math.reporting.page.frame import HERE, html_page, save_figures
from trl_math.reporting.page.markup import Child, Markup, tag
from trl_math.reporting.page.plot import share
from trl_math.reporting.page.tables import DASH, Section, estimate, panel, panels, swatch, table
from trl_math.reporting.side_by_side import Span, side_by_side


FIGURES = "figures"
UNKNOWN = "unknown"

Found = Mapping[str, Any]


class Pair(NamedTuple):
    """A test item and a training row, with what detectors say of them."""

    row: Found  # one of its rows, for texts and ids
    scores: dict[str, float | None]  # None: not known
    evidence: dict[str, Found]

    @property
    def is_unknown(self) -> bool:
        return all(score is None for score in self.scores.values())


def write_page(summary: Found, matches: Sequence[Found], page: Path, num_examples: int) -> None:
    """Write the page, and its figures into a folder beside it."""
    pairs = pairs_of(matches)
    sections = [
        _found(summary),
        _agreement(summary),
        _examples(summary, pairs, num_examples),
        _compared(summary),
    ]
    shown = [section for section in sections if section is not None]
    figures = [figure for section in shown for figure in section.figures]
    save_figures(page.parent / FIGURES, figures)
    files = "matches.jsonl has every pair, train_rows.jsonl the rows that were taken out, summary.json all numbers"
    footer = f"Made by trl-math {__version__}. Beside this page, {files}, and {FIGURES}/ the figures as SVG and PNG."
    style = (HERE / "contamination.css").read_text(encoding="utf-8")
    write_whole(page, html_page(_title(summary), shown, footer, style=style))


def pairs_of(matches: Sequence[Found]) -> list[Pair]:
    """Return pairs in the order of their rows."""
    pairs: dict[tuple[str, str, str, int], Pair] = {}
    for row in matches:
        key = (row["benchmark"], row["test_id"], row["source"], row["train_row"])
        pair = pairs.setdefault(key, Pair(row, {}, {}))
        pair.scores[row["detector"]] = row["score"]
        pair.evidence[row["detector"]] = row["evidence"]
    return list(pairs.values())


def _title(summary: Found) -> str:
    data, against = ([short_name(one["name"]) for one in summary["sources"][side]] for side in ("data", "against"))
    return f"{_few(against)} in {_few(data)}"


def _few(names: Sequence[str]) -> str:
    names = [*names[:2], f"{len(names) - 2} others"] if len(names) > 3 else list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# ---- What was found ----


def _found(summary: Found) -> Section:
    rows = summary["train_rows"]
    num_items = sum(found["num"] for found in summary["benchmarks"].values())
    num_found = sum(found["contaminated"]["num_yes"] for found in summary["benchmarks"].values())
    num_unknown = sum(found["contaminated"]["num_unknown"] for found in summary["benchmarks"].values())
    of_rows = f"of {rows['num']:,} training rows taken out ({share(rows['num_removed'] / rows['num'])} %)"
    tiles = [
        _tile(num_found, f"of {num_items:,} test items are in what is trained on"),
        _tile(num_unknown, "test items of which the judge does not know") if num_unknown else None,
        _tile(rows["num_removed"], of_rows),
        _tile(rows["num_kept"], "clean rows are left to train on"),
    ]
    figures = rates_figures(summary)
    notes = [tag("li", tag("b", name), f" did not look: {reason}") for name, reason in summary["left_out"].items()]
    body: list[Child] = [
        tag("div", *tiles, cls="tiles"),
        tag("ul", *notes, cls="notes") if notes else None,
        tag("p", _said_of_rates(summary)),
        panels([panel(figure) for figure in figures]),
        tag("details", tag("summary", "Numbers"), _rates_table(summary)),
    ]
    return Section("found", "What was found", body, figures)


def _tile(number: int, words: str) -> Markup:
    return tag("p", tag("b", f"{number:,}"), tag("span", words), cls="tile")


def _said_of_rates(summary: Found) -> str:
    said = (
        "Items that each detector found, and all that count together. Lines are 95 % intervals of Wilson: what "
        "another draw of items of the same kind may come to."
    )
    if not all(one["counts"] for one in summary["detectors"].values()):
        said += " Detectors in grey are compared only, and take nothing out."
    if any(found["contaminated"]["num_unknown"] for found in summary["benchmarks"].values()):
        said += " What the judge does not know (?) is never clean: lines reach to where all of it is a leak."
    return said


def _rates_table(summary: Found) -> Markup:
    """Return a row for each detector, and a column for each benchmark."""
    looks = looks_of(summary)
    columns = {
        f"{short_name(name)}, % of {found['num']:,}": {ALL: found["contaminated"], **found["by_detector"]}
        for name, found in summary["benchmarks"].items()
    }
    rows: list[Sequence[Child]] = [
        [tag("span", swatch(key), key.name, cls="run"), *(_rate(found[who]) for found in columns.values())]
        for who, key in looks.items()
    ]
    return table(["found by", *columns], rows, "Items that were found")


def _rate(one: Found) -> Child:
    if not one["num_unknown"]:
        return estimate(one["low"])
    ends = f"{share(one['low']['low'])} {DASH} {share(one['high']['high'])}"
    unknown = f"{one['num_unknown']:,} unknown"
    value = f"{share(one['low']['value'])} to {share(one['high']['value'])}"
    return [tag("span", value, cls="v"), tag("span", ends, cls="ci"), tag("span", unknown, cls="ci")]


# ---- Agreement ----


def _agreement(summary: Found) -> Section | None:
    figure = agreement_figure(summary)
    if figure is None:
        return None
    rows: list[Sequence[Child]] = [
        [
            one["first"],
            one["second"],
            *(f"{one[name]:,}" for name in ("both", "only_first", "only_second", "neither")),
            DASH if one["kappa"] is None else f"{one['kappa']:.2f}".replace("-", "\N{MINUS SIGN}"),
        ]
        for one in summary["agreement"]
    ]
    lead = (
        "Each cell says how far two detectors find the same test items (Cohen's kappa: 1 always, 0 as by chance); on "
        "the edge stands how many each of them found. Detectors of strings see copies; what only an embedder sees is "
        "in other words, or a mistake: the pairs below show which."
    )
    heads = ["first", "second", "both", "only first", "only second", "neither", "kappa"]
    alone = [
        [name, *(f"{one[what]:,}" for what in ("num_test_items", "num_alone", "num_train_rows", "num_pairs"))]
        for name, one in summary["detectors"].items()
    ]
    beside = table(["detector", "test items", "no other found", "training rows", "pairs"], alone, "What each found")
    numbers = tag("details", tag("summary", "Numbers"), table(heads, rows, "Agreement of detectors", words=2))
    body = [tag("p", lead), panels([panel(figure), tag("div", beside, numbers, cls="beside")])]
    return Section("agreement", "How far detectors agree", body, [figure])


# ---- Pairs side by side ----


def _examples(summary: Found, pairs: Sequence[Pair], most: int) -> Section | None:
    if not pairs or not most:
        return None
    groups: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(tuple(name for name in summary["detectors"] if name in pair.scores), []).append(pair)
    # Found by one detector alone first: there, mistakes are.
    ordered = {names: sorted(groups[names], key=_surety) for names in sorted(groups, key=lambda names: len(names))}
    shown = _shares(ordered, most)
    num = sum(map(len, shown.values()))
    which = "All" if num == len(pairs) else f"{num:,} of"
    lead = (
        f"{which} {len(pairs):,} pairs, at even steps from those that detectors are surest of to the least sure ones. "
    )
    key = tag(
        "span",
        tag("mark", "marked"),
        " is what both texts have, ",
        tag("mark", "a number", cls="other"),
        " that is marked like this stands in one of them only.",
    )
    body: list[Child] = [tag("p", lead, key)]
    for names, some in shown.items():
        if some:
            count = (
                f"{len(some):,} of {len(ordered[names]):,}" if len(some) < len(ordered[names]) else f"{len(some):,}"
            )
            body += [
                tag("h3", _by(names), tag("span", f" {count} pairs" if count != "1" else " 1 pair", cls="note")),
                *(_card(summary, pair) for pair in some),
            ]
    return Section("pairs", "Side by side", body)


def _by(names: Sequence[str]) -> str:
    return f"Found by {names[0]} alone" if len(names) == 1 else f"Found by {', '.join(names[:-1])} and {names[-1]}"


def _surety(pair: Pair) -> tuple[float, str, str]:
    known = [score for score in pair.scores.values() if score is not None]
    return (-max(known, default=0.0), pair.row["test_id"], pair.row["train_id"])


def _shares(groups: Mapping[tuple[str, ...], Sequence[Pair]], most: int) -> dict[tuple[str, ...], list[Pair]]:
    """Return so many pairs of all groups: as many of each, as far as it has them, and of a group at even steps."""
    sizes = dict.fromkeys(groups, 0)
    while (left := most - sum(sizes.values())) > 0:
        open_ = [names for names, some in groups.items() if sizes[names] < len(some)]
        if not open_:
            break
        for names in open_[:left]:
            sizes[names] += 1
    return {names: _spread(some, sizes[names]) for names, some in groups.items()}


def _spread(some: Sequence[Pair], number: int) -> list[Pair]:
    """Return the first, the last, and others at even steps between them."""
    if number < 2:
        return list(some[:number])
    return [some[round(place * (len(some) - 1) / (number - 1))] for place in range(number)]


def _card(summary: Found, pair: Pair) -> Markup:
    row = pair.row
    looks = looks_of(summary)
    first, second = side_by_side(row["test_text"], row["train_text"])
    badges = [
        tag("span", swatch(looks[name]), name, tag("b", _score(score)), cls="found")
        for name, score in pair.scores.items()
    ]
    head = tag("header", *badges, tag("span", "unknown to the judge", cls="badge") if pair.is_unknown else None)
    sides = [
        _side("Test item", f"{short_name(row['benchmark'])} · {row['test_id']}", first),
        _side("Training row", f"{short_name(row['source'])} · {row['train_id']}", second),
    ]
    why = [
        item
        for name, evidence in pair.evidence.items()
        for item in (tag("dt", name), tag("dd", evidence_line(evidence)))
    ]
    return tag("article", head, tag("div", *sides, cls="two"), tag("dl", *why, cls="why"), cls="card pair")


def _score(score: float | None) -> str:
    return " ?" if score is None else f" {score:.2f}"


def _side(what: str, name: str, spans: Sequence[Span]) -> Markup:
    parts = [tag("mark", one.text, cls=one.kind) if one.kind else one.text for one in spans]
    return tag("div", tag("p", tag("b", what), " ", name, cls="note"), tag("div", *parts, cls="prose"))


# ---- What was compared ----


def _compared(summary: Found) -> Section:
    sides = {"data": "trained on", "against": "tested"}
    sources: list[Sequence[Child]] = [
        [short_name(one["name"]), words, *(f"{one[name]:,}" for name in ("num_rows", "num_empty", "num_ids_made"))]
        for side, words in sides.items()
        for one in summary["sources"][side]
    ]
    detectors: list[Sequence[Child]] = [
        [
            name,
            "takes rows out" if one["counts"] else "only compared",
            "any" if one["threshold"] < 1e-6 else f"{one['threshold']:.3g}",
            *(f"{one[what]:,}" for what in ("num_pairs", "num_test_items", "num_train_rows")),
            f"{one['seconds']:,.1f}",
        ]
        for name, one in summary["detectors"].items()
    ]
    part = summary["sources"]["data"][0]["part"]
    what = "what is asked" if part == "problem" else "what is asked and what is answered"
    body = [
        tag("p", f"Of every row {what} was compared. Rows without a text cannot be compared, and stay."),
        table(["source", "", "rows", "without a text", "ids made"], sources, "Sources", words=2),
        table(
            ["detector", "", "from a score of", "pairs", "test items", "training rows", "seconds"],
            detectors,
            "Detectors",
            words=2,
        ),
    ]
    return Section("compared", "What was compared", body)
