"""HTML that is safe by construction: text is escaped unless it was built here.

    tag("p", "1 < 2", cls="note")  ->  <p class="note">1 &lt; 2</p>

A child is either `Markup`, which goes in as it is, or anything else, which is text. What models wrote is always text.
"""

import html
import re
from collections.abc import Iterable
from typing import Any


FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
VOID = frozenset(("br", "col", "hr", "img", "input", "link", "meta", "wbr"))


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = Markup | str | int | float | None | Iterable[Any]


def writable(value: Any) -> str:
    """Return a value as text; what no file may hold (control characters, half characters) is replaced."""
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value))


def text(value: Any) -> Markup:
    """Return a value as escaped text that can be written."""
    return Markup(html.escape(writable(value), quote=True))


def join(children: Child, between: str = "") -> Markup:
    """Return children one after the other; None is left out, lists are opened."""
    if isinstance(children, Markup):
        return children
    if children is None:
        return Markup()
    if isinstance(children, str | int | float):
        return text(children)
    return Markup(between.join(part for part in (join(child) for child in children) if part))


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """Return an element. `cls` is class, `_` in a name is `-`; attributes that are None or False are left out."""
    written = []
    for key, value in attributes.items():
        key = {"cls": "class", "html_for": "for"}.get(key, key).replace("_", "-")
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{text(value)}"')
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening if name in VOID else f"{opening}{join(children)}</{name}>")
