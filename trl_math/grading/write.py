"""From a typed answer back to a normalised text, from which `read` makes the same answer."""

from trl_math.grading.typed import Answer, Clock, Group, Matrix, Relation, Scalar, Words


_SIGNS = {"=": "=", "<": "<", ">": ">", "<=": "\\le ", ">=": "\\ge ", "!=": "\\ne ", "equiv": "\\equiv "}
_SEPARATORS = {"union": "\\cup ", "ratio": ":", "sequence": " "}


def write(answer: Answer | str) -> str:
    """Return an answer as normalised LaTeX."""
    if isinstance(answer, str):
        return answer
    if isinstance(answer, Scalar):
        base = f"_{{{answer.base}}}" if answer.base else ""
        unit = f"\\text{{{answer.unit}}}" if answer.unit else ""
        return answer.text + base + ("%" if answer.is_percent else "") + unit
    if isinstance(answer, Words):
        return f"\\text{{{answer.text}}}"
    if isinstance(answer, Clock):
        time = ":".join(f"{part:02}" for part in answer.parts)
        return f"{time}\\text{{{answer.half}.m.}}" if answer.half else time
    if isinstance(answer, Matrix):
        environment = "vmatrix" if answer.is_determinant else "pmatrix"
        rows = "\\\\".join("&".join(write(item) for item in row) for row in answer.rows)
        return f"\\begin{{{environment}}}{rows}\\end{{{environment}}}"
    if isinstance(answer, Relation):
        signs = [_SIGNS[operator] for operator in answer.operators] + [""]
        return "".join(write(side) + sign for side, sign in zip(answer.sides, signs, strict=True))
    return _group(answer)


def _group(answer: Group) -> str:
    # A semicolon, since a comma may group digits.
    inner = _SEPARATORS.get(answer.kind, ";").join(write(item) for item in answer.items)
    if answer.kind == "set":
        return f"\\{{{inner}\\}}"
    return answer.brackets[0] + inner + answer.brackets[1] if answer.kind == "tuple" else inner
