r"""LaTeX to MathML, which browsers draw by themselves: no fonts to fetch, no script to run.

latex2mathml does the conversion. Only elements and attributes that draw are taken over from what it makes, so that
whatever a model wrote stays what it is: text. What it cannot convert is reported as None, and shown as its source; a
formula that lost a part would be worse than none.
"""

import html
import importlib
import re
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element

from trl_math.optional import is_installed
from trl_math.reporting.page.markup import Markup, join, tag


CONVERTER = "latex2mathml"
LONGEST = 4000  # characters of a formula
REMEMBERED = 20_000
_ELEMENTS = """
    math mrow mi mn mo mtext mspace ms mfrac msqrt mroot mstyle mpadded mphantom msub msup msubsup munder mover
    munderover mmultiscripts mprescripts none mtable mtr mtd menclose
"""
_ATTRIBUTES = """
    display mathvariant stretchy fence form separator accent accentunder linethickness columnalign displaystyle
    scriptlevel width height depth voffset lspace rspace minsize maxsize movablelimits symmetric
"""
ELEMENTS, ATTRIBUTES = frozenset(_ELEMENTS.split()), frozenset(_ATTRIBUTES.split())
# How many children an element must have to mean what it should; latex2mathml leaves one out where the source does.
CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
# Environments that it does not know, and what they are laid out like.
ENVIRONMENTS = {
    "aligned": "split",
    "alignat": "split",
    "alignat*": "split",
    "alignedat": "split",
    "align": "split",
    "align*": "split",
    "eqnarray": "split",
    "eqnarray*": "split",
    "dcases": "cases",
    "rcases": "cases",
    "gather": "matrix",
    "gather*": "matrix",
    "gathered": "matrix",
    "multline": "matrix",
    "multline*": "matrix",
    "equation": "",
    "equation*": "",
    "tabular": "array",
}
_MATRICES = "matrix pmatrix bmatrix Bmatrix vmatrix Vmatrix"
KNOWN = {"split", "cases", "array", "smallmatrix", "substack"}
KNOWN |= {name + star for name in _MATRICES.split() for star in ("", "*")}
# Definitions can be made to expand without end; the rest is layout that says nothing here.
REFUSED = re.compile(r"\\(?:new|renew|provide)(?:command|environment)|\\[egx]?def\b|\\let\b|\\DeclareMath|\\input\b")
LAYOUT = re.compile(r"\\(?:label|require|allowbreak|nonumber|notag|centering|noindent|displaylimits)\b(?:\{[^{}]*\})?")
BEGIN = re.compile(r"\\(begin|end)\s*\{(\w+\*?)\}(\s*\{\d+\})?")


# What stands before a sign, if anything does.
SIGN_FOLLOWS = frozenset(("", *"([{=<>,;≠≤≥≈≡∈→⇒⟹±∓·÷/:"))


class _Unreadable(Exception):
    """Something in the formula has no counterpart."""


@lru_cache(maxsize=REMEMBERED)
def to_mathml(source: str, is_display: bool = False) -> Markup | None:
    """Return a formula as MathML, or None if it cannot be converted as a whole."""
    source = source.strip()
    if not source or len(source) > LONGEST or REFUSED.search(source) or not is_installed(CONVERTER):
        return None
    converter = importlib.import_module(f"{CONVERTER}.converter")
    display = "block" if is_display else "inline"
    try:
        found = converter.Converter(display=display).convert_to_element(_prepared(source))
        return _markup(found)
    except _Unreadable:
        return None
    except Exception:
        # A converter of what models write meets everything, and says so with exceptions of many kinds.
        return None


def _prepared(source: str) -> str:
    def environment(match: re.Match[str]) -> str:
        edge, name, columns = match[1], match[2], match[3] or ""
        other = ENVIRONMENTS.get(name, name)
        if other and other not in KNOWN:
            raise _Unreadable(name)
        kept = "" if name.startswith("align") else columns  # the number of columns of alignat
        return f"\\{edge}{{{other}}}{kept}" if other else ""

    return LAYOUT.sub("", BEGIN.sub(environment, source))


def _markup(element: Element) -> Markup:
    name = element.tag
    words = html.unescape(element.text or "")  # latex2mathml writes characters as references
    if name not in ELEMENTS or words.startswith("\\") or words == "&" or (element.tail or "").strip():
        raise _Unreadable(name)
    if name in CHILDREN and len(element) != CHILDREN[name]:
        raise _Unreadable(name)
    attributes = {key: value for key, value in element.attrib.items() if key in ATTRIBUTES}
    children: list[Any] = [words]
    before = ""
    for child in element:
        if child.tag == "mo" and _is_sign(child) and before in SIGN_FOLLOWS:
            child.set("form", "prefix")  # a minus after a bracket or a relation is a sign: no space after it
        before = html.unescape(child.text or "") if child.tag == "mo" else child.tag
        children.append(_markup(child))
    if name == "menclose":  # browsers have dropped it
        is_box = "box" in element.get("notation", "")
        return tag("mrow", *children, cls="boxed" if is_box else "struck")
    return tag(name, join(children), **attributes)


def _is_sign(operator: Element) -> bool:
    return html.unescape(operator.text or "") in ("+", "-", "\N{MINUS SIGN}")
