"""The files of samples in a folder: how they are called, which problems each has, and how they are read."""

import json
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from trl_math.data.columns import COMPLETIONS
from trl_math.errors import DataError, UsageError


logger = logging.getLogger(__name__)

# Whatever else lies in the folder, an export for one, is not read.
FILE_NAME = re.compile(r"completions(?:-(\d{5,})-of-(\d{5,}))?\.jsonl")


class Shard(NamedTuple):
    """Part `index` of `number`, counted from 0."""

    index: int = 0
    number: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/8`."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or not int(match[1]) < int(match[2]):
            raise UsageError(
                f"shard must be INDEX/NUMBER with the index counted from 0 (0/4, 1/4, 2/4, 3/4), got {text!r}."
            )
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_file(cls, name: str) -> "Shard | None":
        """Return the shard that writes a file of this name; None if it is no file of samples."""
        match = FILE_NAME.fullmatch(name)
        return match and (cls(int(match[1]), int(match[2])) if match[1] else cls())

    def overlaps(self, other: "Shard") -> bool:
        """Whether some problem is in both: i modulo n and j modulo m meet if they agree modulo gcd(n, m)."""
        return (self.index - other.index) % math.gcd(self.number, other.number) == 0

    @property
    def file_name(self) -> str:
        return "completions.jsonl" if self.number == 1 else f"completions-{self.index:05}-of-{self.number:05}.jsonl"

    def __str__(self) -> str:
        return f"{self.index}/{self.number}"


def read_rows(folder: str | Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield (file, line number, sample) of a folder, file by file, while others may be writing.

    A last line without its end is one that is being written, or was when its process was killed: it is no sample.
    """
    for file in completion_files(folder):
        for number, row in _rows_of(file):
            yield file, number, row


def unique_rows(folder: str | Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Yield what `read_rows` yields, each sample once.

    Writers that had different problems may both have drawn a sample: the first counts. That a writer wrote one twice
    is an error.
    """
    seen: dict[str, set[int]] = {}
    num_twice = 0
    for file in completion_files(folder):
        here: dict[str, set[int]] = {}
        for number, row in _rows_of(file):
            problem_id, index = row["problem_id"], row["sample_index"]
            if index in here.setdefault(problem_id, set()):
                raise DataError(f"{file}:{number}: sample {index} of {problem_id!r} is there twice.")
            here[problem_id].add(index)
            if index in seen.get(problem_id, ()):
                num_twice += 1
            else:
                yield file, number, row
        for problem_id, indices in here.items():
            seen.setdefault(problem_id, set()).update(indices)
    if num_twice:
        logger.warning("%d samples in %s are in more than one file: the first of each counts.", num_twice, folder)


def num_rows(folder: str | Path) -> int:
    """Return how many samples are in a folder, by their lines."""
    count = 0
    for file in completion_files(folder):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                count += block.count(b"\n")
    return count


def completion_files(folder: str | Path) -> list[Path]:
    """Return the files of samples in a folder."""
    return sorted(path for path in Path(folder).glob("completions*.jsonl") if FILE_NAME.fullmatch(path.name))


def _rows_of(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return  # its end may come while we read, and would look like a line
            yield number, _parse(line, file, number)


def _parse(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{file}:{number}: not a line of JSON: {error}.") from None
    missing = [column for column in COMPLETIONS.required if not isinstance(row, dict) or column not in row]
    if missing:
        raise DataError(f"{file}:{number}: not a sample: there is no {', '.join(missing)}.")
    return row
