"""A file of graded samples that grows: whole lines, one writer, each sample once.

A grade costs milliseconds, but a program may cost seconds, and there may be a million samples; so grading goes on
where it stopped. Grades are comparable only if the same grader made them from the same gold answers: what they depend
on is written down beside the file (`made_with`), and grades that were made with something else are made anew.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from trl_math.errors import DataError, RunFolderError, StoreError
from trl_math.files import cut_torn_line, json_line, write_json


class GradedFile:
    """Graded samples, open for one writer; use it as a context.

    Args:
        path: The JSONL file.
        key: The columns that tell samples apart.
        made_with: What the grades depend on, part by part: a part that is new is added, one that differs from what
            is written down makes all grades void.
    """

    def __init__(self, path: Path, key: Sequence[str], made_with: Mapping[str, Any]) -> None:
        self.path = path
        self.key = tuple(key)
        self.made_with = json.loads(json.dumps(made_with))
        self.is_renewed = False
        self._present: set[tuple[Any, ...]] = set()
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

    def __len__(self) -> int:
        return len(self._present)

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        return self._key_of(row) in self._present

    def extend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, each whole; on a full disk none of a row stays."""
        size = os.fstat(self._file).st_size
        for row in rows:
            line = json_line(row)
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
            except BaseException as error:
                os.ftruncate(self._file, size)
                if isinstance(error, OSError):
                    raise StoreError(
                        f"Cannot write to {self.path}: {error.strerror}. What it has is whole; make room, and the "
                        "same command goes on."
                    ) from error
                raise
            size += len(line)
            self._present.add(self._key_of(row))

    def _open(self) -> None:
        notes = self.path.with_name(f"{self.path.stem}.made_with.json")
        before = _read_notes(notes)
        self.is_renewed = any(before.get(part, value) != value for part, value in self.made_with.items())
        if self.path.exists() and not notes.exists():
            raise RunFolderError(
                f"{self.path} is there and was not made by this command ({notes.name} is missing): remove it, or "
                "choose another output."
            )
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if self.is_renewed:
                os.ftruncate(self._file, 0)
                before = {}
            write_json(notes, before | self.made_with)
            cut_torn_line(self._file)
            self._present = {self._key_of(row) for row in read_graded(self.path)}
        except BaseException:
            os.close(self._file)
            raise

    def _key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[column] for column in self.key)


def read_graded(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of graded samples. A torn last line is one that is being written."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not a line of JSON: {error}.") from None
            missing = [name for name in ("problem_id", "sample_index", "correct", "extracted") if name not in row]
            if missing:
                raise DataError(f"{path}:{number}: not a graded sample: there is no {', '.join(missing)}.")
            yield row


def _read_notes(path: Path) -> dict[str, Any]:
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        notes = None
    if not isinstance(notes, dict):
        raise RunFolderError(f"{path} cannot be read as ours: remove it and what it belongs to, or choose another.")
    return notes
