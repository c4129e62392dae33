"""Tables, numbers with their intervals, and figures with their numbers, as HTML."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.reporting.page.drawing import Figure, Key, Mark, mark_svg
from trl_math.reporting.page.figures import key_of
from trl_math.reporting.page.markup import Child, Markup, tag
from trl_math.reporting.page.plot import share
from trl_math.reporting.page.runs import Run


DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    body: Sequence[Child]
    figures: Sequence[Figure] = ()  # to be saved beside the page


def table(columns: Sequence[Child], rows: Sequence[Sequence[Child]], label: str, *, words: int = 1) -> Markup:
    """Return a table that scrolls by itself where it is too wide. The first `words` columns are text."""
    heads = [tag("th", head, scope="col", cls="w" if place < words else None) for place, head in enumerate(columns)]
    body = [
        tag(
            "tr",
            *(
                tag("th", cell, scope="row", cls="w")
                if place == 0
                else tag("td", cell, cls="w" if place < words else None)
                for place, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    inner = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body))
    return tag("div", inner, cls="scroll", tabindex=0, role="region", aria_label=label)


def estimate(one: Mapping[str, Any] | None, *, is_best: bool = False, n: int | None = None) -> Child:
    """Return a number in percent with its interval, and its n where that is not the row's."""
    if one is None:
        return tag("span", DASH, cls="none")
    value = tag("b" if is_best else "span", share(one["value"]), cls="v")
    ends = tag("span", f" {DASH} ".join(share(one[end], of=one["value"]) for end in ("low", "high")), cls="ci")
    other = tag("span", f"n = {one['n']}", cls="ci") if n is not None and one["n"] != n else None
    return [value, ends, other]


def signed(value: float, of: float | None = None) -> str:
    """Return a difference in points."""
    words = share(abs(value), of=of)
    return f"{MINUS if value < 0 else '+'}{words}".replace("-", MINUS)


def difference(one: Mapping[str, Any]) -> Child:
    """Return a difference in points with its interval."""
    ends = tag("span", " to ".join(signed(one[end], one["value"]) for end in ("low", "high")), cls="ci")
    return [tag("span", signed(one["value"]), cls="v"), ends]


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def name_of(run: Run) -> Markup:
    """Return a run's name with what marks it in figures."""
    return tag("span", swatch(key_of(run)), run.name, cls="run")


def swatch(key: Key) -> Markup:
    dot = Mark("dot", [(7, 7)], key.colour, 4.6, shape=key.shape)
    return tag("svg", mark_svg(dot, key.colour), viewBox="0 0 14 14", cls="key", aria_hidden="true")


def legend(keys: Sequence[Key]) -> Markup:
    return tag("ul", *(tag("li", swatch(key), key.name) for key in keys), cls="legend")


def run_legend(runs: Sequence[Run]) -> Markup | None:
    return legend([key_of(run) for run in runs]) if len(runs) > 1 else None


def panel(figure: Figure, numbers: Child = None, note: Child = None, title: str = "") -> Markup:
    """Return a figure for the page, its numbers folded away below it."""
    folded = tag("details", tag("summary", "Numbers"), numbers) if numbers else None
    caption = tag("figcaption", title or figure.title)
    return tag("figure", caption, figure.inline(), tag("p", note, cls="note") if note else None, folded)


def panels(figures: Sequence[Child]) -> Markup:
    return tag("div", *figures, cls="panels")
