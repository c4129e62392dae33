r"""From a tree back to LaTeX that leaves nothing open: every product with `\cdot`, every part in brackets."""

from trl_math.grading.expression import Node


def latex(node: Node, symbols: dict[str, str]) -> str:
    """Return an expression as LaTeX, its variables named as `symbols` says."""
    kind, *children = node
    if kind == "num":
        return _number(children[0])
    if kind == "var":
        return symbols[children[0]]
    if kind == "const":
        return {"pi": "\\pi", "e": "e", "i": "I", "infty": "\\infty"}[children[0]]
    if kind == "fn":
        return f"\\{children[0]}({latex(children[1], symbols)})"
    parts = [latex(child, symbols) for child in children]
    if kind in _JOINED:
        return _JOINED[kind].join(f"({part})" for part in parts)
    return _FORMS[kind].format(*parts)


_JOINED = {"add": "+", "mul": "\\cdot"}
_FORMS = {
    "neg": "-({0})",
    "div": "\\frac{{{0}}}{{{1}}}",
    "pow": "({0})^{{{1}}}",
    "root": "\\sqrt[{0}]{{{1}}}",
    "fact": "({0})!",
    "abs": "|{0}|",
    "deg": "({0})\\cdot\\frac{{\\pi}}{{180}}",
    "binom": "\\binom{{{0}}}{{{1}}}",
    "log": "\\frac{{\\ln({1})}}{{\\ln({0})}}",
}


def _number(text: str) -> str:
    if "(" in text:
        # 0.1(6) is (16 - 1) / 90
        whole, _, period = text.rstrip(")").partition("(")
        digits, places = whole.replace(".", ""), len(whole.partition(".")[2])
        return f"\\frac{{{int(digits + period) - int(digits or 0)}}}{{{'9' * len(period) + '0' * places}}}"
    mantissa, _, exponent = text.lower().partition("e")
    mantissa = "0" + mantissa if mantissa.startswith(".") else mantissa
    return f"({mantissa})\\cdot(10)^{{{int(exponent)}}}" if exponent else mantissa
