r"""What models write, as HTML: formulas as MathML, code as code, bold as bold, and everything else as the text it is.

A dollar is a delimiter as in Pandoc: the opening one has no space after it, the closing one no space before it and no
digit after it. So `$5 and $7` is money, and `$5$ and $7$` is mathematics.
"""

import re
from collections.abc import Iterator

from trl_math.reporting.page.latex import to_mathml
from trl_math.reporting.page.markup import Markup, join, tag, text


ENVIRONMENT = r"align|align\*|aligned|gather|gather\*|gathered|equation|equation\*|eqnarray|eqnarray\*|cases"
MATH = re.compile(
    r"""
      (?<!\\)\$\$(?P<dollars>(?:\\.|[^$\\])+?)\$\$
    | \\\[(?P<brackets>(?:(?!\\\[).)+?)\\\]
    | \\\((?P<parentheses>(?:(?!\\\().)+?)\\\)
    | (?<![\\$])\$(?![\s$])(?P<dollar>(?:\\.|[^$\\\n]|\n(?!\s*\n))+?)(?<![\s\\])\$(?![\d$])
    | (?P<environment>\\begin\{(?P<name>"""
    + ENVIRONMENT
    + r""")\}(?:(?!\\begin\{(?P=name)\}).)+?\\end\{(?P=name)\})
    | (?P<boxed>\\boxed\s*\{(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*\})
    """,
    re.VERBOSE | re.DOTALL,
)
DISPLAYED = ("dollars", "brackets", "environment")
FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(?P<code>.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
LIGHT = re.compile(r"`(?P<code>[^`\n]+)`|\*\*(?P<bold>[^*\n]+)\*\*|^#{1,6}[ \t]+(?P<title>[^\n]+)$", re.MULTILINE)


def to_html(words: str, *, is_code: bool = False) -> Markup:
    """Return a text as HTML that keeps its line breaks (with `white-space: pre-wrap`)."""
    words = words.replace("\r\n", "\n").strip("\n")
    if is_code and "```" not in words:
        return tag("pre", tag("code", words))
    return join(_blocks(words))


def _blocks(words: str) -> Iterator[Markup]:
    end = 0
    for fence in FENCE.finditer(words):
        yield _with_math(words[end : fence.start()].strip("\n"))
        yield tag("pre", tag("code", fence["code"].rstrip("\n")))
        end = fence.end()
    yield _with_math(words[end:].strip("\n") if end else words)


def _with_math(words: str) -> Markup:
    # Bold may reach over a formula, so formulas are set aside as characters that no text has.
    formulas: list[Markup] = []

    def set_aside(match: re.Match[str]) -> str:
        kind = next(name for name, found in match.groupdict().items() if found is not None and name != "name")
        formulas.append(_formula(match[0], match[kind], kind in DISPLAYED))
        return f"\ue000{len(formulas) - 1}\ue001"

    marked = MATH.sub(set_aside, words.replace("\ue000", "\ufffd").replace("\ue001", "\ufffd"))
    html = _light(re.sub(r"\\([$%#&_])", r"\1", marked))
    restored = re.sub("\ue000(\\d+)\ue001", lambda match: formulas[int(match[1])], html)
    # A displayed formula stands on lines of its own already.
    return Markup(re.sub(r"\s*\n\s*(<math display=\"block\")|(</math>)[ \t]*\n", r"\1\2", restored))


def _light(marked: str) -> Markup:
    parts: list[Markup] = []
    end = 0
    for match in LIGHT.finditer(marked):
        parts.append(text(marked[end : match.start()]))
        name = "code" if match["code"] else "strong"
        parts.append(tag(name, match["code"] or match["bold"] or match["title"]))
        end = match.end()
    return join([*parts, text(marked[end:])])


def _formula(whole: str, source: str, is_display: bool) -> Markup:
    found = to_mathml(source, is_display)
    return found if found is not None else tag("code", whole, cls="source")


def answer_html(answer: str, kind: str = "math") -> Markup:
    """Return an answer, which stands without delimiters: mathematics if it looks like it, else text."""
    bare = answer.strip().strip("$")
    looks_like_math = kind in ("math", "number") and re.search(r"[\\^_{}=<>+*/()-]|^[\d.,\s]+$|^[a-zA-Z]$", bare)
    if looks_like_math and not re.search(r"[a-zA-Z]{4,}\s+[a-zA-Z]{2,}", bare) and "$" not in bare:
        found = to_mathml(bare)
        if found is not None:
            return found
    return to_html(answer) if "$" in answer or "\\(" in answer else text(answer)
