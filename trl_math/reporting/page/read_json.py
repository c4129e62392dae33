"""JSON that others wrote: objects and lines, each refused in a line if it is not what it should be."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from trl_math.errors import DataError


LARGEST_COUNT = 1 << 53


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not JSON: it is damaged, or another program's.") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, but holds a {type(value).__name__}.")
    return value


def json_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """Yield (number of the line, where it begins, its object); None for a last line that is not whole."""
    offset = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else {}
            except (ValueError, RecursionError):
                row = None
            if row is None and (line.endswith(b"\n") or file.peek(1)):
                raise DataError(f"{path}, line {number}, is not JSON: the file is damaged; write it anew.")
            if row is not None and not isinstance(row, dict):
                raise DataError(f"{path}, line {number}, is no JSON object: is this a file of rows?")
            if row != {}:
                yield number, offset, row
            offset += len(line)


def refuse(where: str, expected: str, value: Any) -> NoReturn:
    """Raise that something is not what it should be."""
    said = repr(value)
    said = said if len(said) <= 40 else said[:39] + "…"
    where = " ".join(where.split())  # names of benchmarks are in it, and the message is one line
    raise DataError(f"{where} must be {expected}, got {said}: the file is damaged, or made by something else.")


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on, and one that arithmetic with floats can bear."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST_COUNT
