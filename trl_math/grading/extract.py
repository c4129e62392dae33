r"""Where the final answer stands in a text: in a LaTeX box (MATH and its kin) or after four hashes (GSM8K).

Both read model output, so both take linear time on any text, and neither raises.
"""

import re


# One scan over what matters for matching: a box (`\boxed`, `\fbox`, also with the backslash doubled, as some JSON
# writers do), an escaped character (so that `\{` is no brace), a brace.
_TOKEN = re.compile(r"(?P<box>\\\\?(?:boxed|fbox)(?![A-Za-z])\s*)|\\.|(?P<brace>[{}])", re.DOTALL)

# `\boxed 5$`: TeX would box one token; MATH means everything up to the end of the formula. The bounds keep it linear.
_UNBRACED = re.compile(r"[^\s${}][^$\n]{0,200}?(?=\s*\$)|[^\s${}]{1,200}")


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last closed `\boxed{..}` or `\fbox{..}` of `text`, or None.

    "Last" is the one that begins last. A box that is never closed (a truncated answer) and one with nothing in it (an
    instruction that was repeated) are passed over. `\boxed 5`, as in two solutions of MATH, counts too.
    """
    best_start, best = -1, None
    open_braces: list[tuple[int, bool]] = []  # where the content begins, and whether a box opened it
    box_end = -1
    for token in _TOKEN.finditer(text):
        found = None
        if token["box"]:
            box_end = token.end()
            if not text.startswith("{", box_end) and (unbraced := _UNBRACED.match(text, box_end)):
                found = (box_end, unbraced[0])
        elif token["brace"] == "{":
            open_braces.append((token.end(), token.start() == box_end))
        elif token["brace"] == "}" and open_braces:
            start, is_box = open_braces.pop()
            if is_box and start > best_start:
                found = (start, text[start : token.start()])
        if found and found[0] > best_start and found[1].strip():
            best_start, best = found[0], found[1].strip()
    return best


def after_hashes(text: str) -> str | None:
    """Return the rest of the line after the last `####` of `text`, or None. Commas in a number stay as they are."""
    _, hashes, rest = text.rpartition("####")
    line = rest.strip().split("\n", 1)[0].strip()
    return line if hashes and line else None
