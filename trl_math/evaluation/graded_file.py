"""A file of graded samples that grows: whole lines, one writer, each sample once, no verdict on another text.

A grade costs milliseconds, but a program may cost seconds, and there may be a million samples; so grading goes on
where it stopped. A grade holds for one completion, one gold answer and one grader: each row carries a hash of these
(`graded_by`), and a row whose hash is no longer that of its sample is dropped and graded anew.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from trl_math.errors import DataError, RunFolderError, StoreError
from trl_math.files import append_line, cut_torn_line, json_line


STAMP = "graded_by"
REQUIRED = ("problem_id", "sample_index", "correct", "extracted")

Row = Mapping[str, Any]


class GradedFile:
    """Graded samples, open for one writer; use it as a context. `key`: the columns that tell samples apart."""

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self.path = path
        self.key = tuple(key)
        self._stamps: dict[tuple[Any, ...], str] = {}
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        self._file = -1

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(f"Another process is writing {self.path}: wait for it.") from None
        except OSError as error:
            raise StoreError(f"Cannot write {self.path}: {error.strerror or error}.") from error
        try:
            self._open()
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise StoreError(f"Cannot write {self.path}: {error.strerror or error}.") from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            os.close(self._file)
        finally:
            self._lock.release()

    def __contains__(self, row: Row) -> bool:
        """Whether this sample has a grade that holds."""
        return self._stamps.get(self.key_of(row)) == row[STAMP]

    def key_of(self, row: Row) -> tuple[Any, ...]:
        """Return what tells a sample from the others."""
        return tuple(row[column] for column in self.key)

    def stamps(self, scope: Row) -> dict[tuple[Any, ...], str]:
        """Return the hash of each sample that has a grade, of those with these values in their key."""
        places = [(self.key.index(name), value) for name, value in scope.items()]
        return {key: stamp for key, stamp in self._stamps.items() if all(key[at] == value for at, value in places)}

    def drop(self, keys: Collection[tuple[Any, ...]]) -> int:
        """Remove the grades of these samples, by one replacement of the file; return how many those were."""
        if keys:
            temporary = self.path.with_name(f"{self.path.name}.part")
            kept = (row for row in read_graded(self.path) if self.key_of(row) not in keys)
            try:
                with temporary.open("wb") as lines:
                    lines.writelines(map(json_line, kept))
                temporary.replace(self.path)
            except OSError as error:
                raise StoreError(f"Cannot write {self.path}: {error.strerror}. It is as it was.") from error
            finally:
                temporary.unlink(missing_ok=True)
            os.close(self._file)
            self._open()
        return len(keys)

    def extend(self, rows: Sequence[Row]) -> None:
        """Append rows, each whole; on a full disk none of a row stays."""
        size = os.fstat(self._file).st_size
        for row in rows:
            try:
                size = append_line(self._file, json_line(row), size)
            except OSError as error:
                raise StoreError(
                    f"Cannot write to {self.path}: {error.strerror}. What it has is whole; make room, and the same "
                    "command goes on."
                ) from error
            self._stamps[self.key_of(row)] = row[STAMP]

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            cut_torn_line(self._file)
            self._stamps = {self.key_of(row): row[STAMP] for row in read_graded(self.path, (*self.key, STAMP))}
        except BaseException:
            os.close(self._file)
            raise


def read_graded(path: Path, needed: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of graded samples. A torn last line is one that is being written."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not a line of JSON: {error}.") from None
            missing = [name for name in (*REQUIRED, *needed) if not isinstance(row, dict) or name not in row]
            if missing:
                raise DataError(f"{path}:{number}: no graded sample of ours: there is no {', '.join(missing)}.")
            yield row
