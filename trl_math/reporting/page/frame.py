"""What every page is: one HTML file with its style and script, sections with links to them, and figures beside it.

The content security policy forbids the page all that is not in it.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trl_math.files import write_whole
from trl_math.reporting.page.drawing import COLOURS, Figure
from trl_math.reporting.page.markup import Child, Markup, tag, writable
from trl_math.reporting.page.tables import Section


HERE = Path(__file__).parent
LIST = "figures.txt"  # in the folder of figures: what a later report may replace


def html_page(
    title: str,
    sections: Sequence[Section],
    footer: str,
    *,
    links: Sequence[tuple[str, str]] = (),
    last: Child = None,
    style: str = "",
) -> str:
    """Return a page as HTML.

    Args:
        title: What it is called.
        sections: Its parts, in order.
        footer: Said at its end.
        links: More of them (id, title), to what `last` has.
        last: What stands behind the sections.
        style: Rules of its own, behind those of all pages.
    """
    style, script = _style() + style, (HERE / "page.js").read_text(encoding="utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src '{_digest(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    to = [*((section.id, section.title) for section in sections), *links]
    nav = tag("nav", tag("ul", *(tag("li", tag("a", name, href=f"#{id}")) for id, name in to)), aria_label="Sections")
    toggle = tag("button", "Theme: auto", id="theme", type="button", hidden=True)
    header = tag("header", tag("div", tag("h1", title), toggle, cls="top"), nav, cls="page")
    parts = [tag("section", tag("h2", one.title), *one.body, id=one.id) for one in sections]
    body = tag(
        "body",
        tag("a", "Skip the links", href="#main", cls="skip"),
        header,
        tag("main", *parts, last, id="main"),
        tag("footer", footer),
        tag("script", Markup(script)),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def save_figures(folder: Path, figures: Sequence[Figure]) -> int:
    """Write the figures' files, and take away those of the page that was there before; return how many figures."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = _named_apart(figures)
    listed = folder / LIST
    for line in listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ():
        name = line.partition("\t")[0]
        if Path(name).name == name and Path(name).suffix in (".svg", ".png"):
            (folder / name).unlink(missing_ok=True)
    titles = [" ".join(writable(figure.title).split()) for figure in figures]
    lines = [f"{name}\t{title}" for figure, title in zip(figures, titles, strict=True) for name in figure.save(folder)]
    write_whole(listed, "\n".join([*lines, ""]))
    return len(figures)


def _named_apart(figures: Sequence[Figure]) -> list[Figure]:
    """Return figures whose files have different names, on file systems that ignore case too."""
    seen: Counter[str] = Counter()
    named = []
    for figure in figures:
        seen[figure.name.lower()] += 1
        count = seen[figure.name.lower()]
        named.append(figure if count == 1 else replace(figure, name=f"{figure.name}--{count}"))
    return named


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _style() -> str:
    names = "\n".join(f"  --{role}: light-dark({light}, {dark});" for role, (light, dark) in COLOURS.items())
    roles = [
        f".{role} {{ fill: var(--{role}) }} .l.{role} {{ fill: none; stroke: var(--{role}) }}" for role in COLOURS
    ]
    return f":root {{\n{names}\n}}\n" + "\n".join(roles) + "\n" + (HERE / "page.css").read_text(encoding="utf-8")
