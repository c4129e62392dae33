"""One large JSON document, read from its beginning to its end with little memory: a value at a time.

Python's own decoder does the work, on a window of the text that grows where a value goes beyond it. Who reads walks
through the outer objects and lists (`members`, `items`) and takes the inner values whole (`value`).
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from trl_math.errors import DataError


CHUNK = 1 << 20  # characters
# A value that is still not whole after so much text is taken for broken, not for long.
LONGEST_VALUE = 1 << 26
_SPACE = re.compile(r"[ \t\r\n]+")


class JsonStream:
    """A JSON file, open for reading; use it as a context. Messages name the file and `where` in it.

    `is_strict`: what is not UTF-8 is an error.
    """

    def __init__(self, path: Path, *, is_strict: bool = True) -> None:
        self.path = path
        self._errors = "strict" if is_strict else "replace"
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0  # what stands before has been read
        self._num_dropped = 0  # characters before the window
        self._is_whole = False  # the window reaches the end of the file

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open(encoding="utf-8-sig", errors=self._errors)
        except OSError as error:
            raise DataError(f"Cannot read {self.path}: {error.strerror or error}.") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def members(self, where: str) -> Iterator[str]:
        """Yield the keys of the object that begins here; each value is to be read before the next key is asked for."""
        self._open("{", "an object", where)
        yield from self._elements("}", where, self._key)

    def items(self, where: str) -> Iterator[int]:
        """Yield the places of the list that begins here; each item is to be read before the next is asked for."""
        self._open("[", "a list", where)
        for place, _ in enumerate(self._elements("]", where, lambda where: where)):
            yield place

    def value(self, where: str) -> Any:
        """Return the value that begins here, whole."""
        self._skip_space()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._is_whole or len(self._text) - self._at > LONGEST_VALUE:
                    self._fail(where, error.msg, error.pos)
            except RecursionError:
                self._fail(where, "it is nested too deeply", self._at)
            else:
                if end < len(self._text) or self._is_whole:  # `12` may be the beginning of `123`
                    self._at = end
                    return value
            self._read_on(where)

    def starts(self, character: str) -> bool:
        """Whether the next value begins with this character."""
        self._skip_space()
        return self._text.startswith(character, self._at)

    def end(self) -> None:
        """Raise if something follows."""
        self._skip_space()
        if self._at < len(self._text):
            self._fail("its end", "more text follows", self._at)

    def _open(self, character: str, what: str, where: str) -> None:
        """Begin an object or a list; raise if the value that is here is something else."""
        if not self.starts(character):
            found = type(self.value(where)).__name__
            raise DataError(f"{self.path}: {where}: expected {what}, and it is {found}.")
        self._at += 1

    def _elements(self, closing: str, where: str, begin: Any) -> Iterator[Any]:
        if self.starts(closing):
            self._at += 1
            return
        while True:
            yield begin(where)
            if self.starts(closing):
                self._at += 1
                return
            self._take(",", where)

    def _key(self, where: str) -> str:
        if not self.starts('"'):
            self._fail(where, "expected a name in double quotes", self._at)
        key = self.value(where)
        self._take(":", where)
        return str(key)

    def _take(self, character: str, where: str) -> None:
        if not self.starts(character):
            self._fail(where, f"expected {character!r}", self._at)
        self._at += 1

    def _skip_space(self) -> None:
        while True:
            if space := _SPACE.match(self._text, self._at):
                self._at = space.end()
            if self._at < len(self._text) or self._is_whole:
                return
            self._read_on("its text")

    def _read_on(self, where: str) -> None:
        """Take more text into the window: as much as it has, so that a long value is tried a few times only."""
        rest = self._text[self._at :]
        try:
            more = self._file.read(max(CHUNK, len(rest)))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: {where}: not UTF-8 ({error.reason}).") from None
        self._num_dropped += self._at
        self._text, self._at = rest + more, 0
        self._is_whole = not more

    def _fail(self, where: str, what: str, position: int) -> NoReturn:
        is_cut = self._is_whole and (position >= len(self._text) or what.startswith("Unterminated"))
        raise DataError(
            f"{self.path}: {where}: not valid JSON ({what.rstrip('.')}, character "
            f"{self._num_dropped + position:,}{': the file ends in it' if is_cut else ''})."
        )
