"""Graded samples on the disk, read a problem at a time: of a file of many gigabytes, only places are kept in memory.

The first reading notes for each prompt of each problem where its lines begin, and what samples have in common; later
ones read the lines of one prompt together, wherever they lie. Nothing depends on the order of lines or files: problems
come in the order of their ids, and `digest` is of the set of lines.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from trl_math.data.columns import listing
from trl_math.data.pairs import ProblemSamples, order_key, prompt_key
from trl_math.data.prompts import Prompt
from trl_math.errors import DataError


NEEDED = ("problem_id", "sample_index", "prompt", "completion", "correct")
NUM_PROBES = 50

Place = tuple[int, int]  # file, offset of the line


class GradedSamples:
    """The samples of some files, by problem and prompt. Iterating gives `ProblemSamples`, again and again."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self.num_rows = [0] * len(self.files)
        self.num_judged = 0
        self.num_without_ids = 0
        self.first_text: str | None = None
        self.num_without_end = 0  # rows that do not say how they ended
        self.samplers: Counter[str | None] = Counter()
        self.prompts: dict[str, Prompt] = {}  # by their keys
        self.probes: list[tuple[str, list[int]]] = []  # texts and tokens of some samples
        self.prompt_ids: Mapping[str, Sequence[int]] | None = None  # by the keys of prompts; set by who can tell
        self.answers: Mapping[str, str] = {}  # by problem
        self._places: dict[tuple[str, str], list[Place]] = {}
        self._sum = 0
        self.cut_files: list[Path] = []  # whose last line is half a row, which is left out
        for number, file in enumerate(self.files):
            self._read(number, file)

    @property
    def num_samples(self) -> int:
        return sum(self.num_rows)

    @property
    def digest(self) -> str:
        """A hash of the lines, whatever their order: two runs that were stopped elsewhere write the same ones."""
        return hashlib.sha256(f"{self.num_samples} {self._sum}".encode()).hexdigest()

    @property
    def num_problems(self) -> int:
        """How many there are, one with several prompts counted once."""
        return len({problem_id for problem_id, _ in self._places})

    def __iter__(self) -> Iterator[ProblemSamples]:
        streams = [file.open("rb") for file in self.files]
        try:
            for problem_id, key in sorted(self._places, key=lambda place: order_key(*place)):
                rows = [self._row_at(streams, place) for place in self._places[problem_id, key]]
                self._check_once(rows)
                ids = None if self.prompt_ids is None else self.prompt_ids[key]
                yield ProblemSamples(problem_id, self.prompts[key], ids, self.answers.get(problem_id), rows)
        finally:
            for stream in streams:
                stream.close()

    def _read(self, number: int, file: Path) -> None:
        offset = 0
        with file.open("rb") as lines:
            for count, line in enumerate(lines, start=1):
                if not line.endswith(b"\n") and not _is_whole(line):
                    self.cut_files.append(file)
                    return  # it is being written, or was when its process was killed
                if line.strip():
                    self._note(line, (number, offset), f"{file}:{count}")
                offset += len(line)

    def _note(self, line: bytes, place: Place, where: str) -> None:
        row = _parse(line, where)
        key = prompt_key(row["prompt"])
        self.prompts.setdefault(key, row["prompt"])
        self._places.setdefault((row["problem_id"], key), []).append(place)
        self._sum += int.from_bytes(hashlib.sha256(line).digest())
        self.num_rows[place[0]] += 1
        self.num_judged += row["correct"] is not None
        self.samplers[row.get("sampler")] += 1
        self.num_without_end += row.get("finish_reason") is None
        self.first_text = self.first_text or row["completion"]
        ids = row.get("completion_ids")
        self.num_without_ids += ids is None
        if ids and len(self.probes) < NUM_PROBES:
            self.probes.append((row["completion"], ids))

    def _row_at(self, streams: Sequence[BinaryIO], place: Place) -> dict[str, Any]:
        number, offset = place
        streams[number].seek(offset)
        return _parse(streams[number].readline(), f"{self.files[number]}, byte {offset}")

    def _check_once(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise if a sample is there twice, which would count it twice in the pass rate."""
        counts = Counter((row["problem_id"], row["sample_index"], row.get("sampler")) for row in rows)
        [((problem_id, index, _), count)] = counts.most_common(1)
        if count > 1:
            raise DataError(
                f"Sample {index} of {problem_id!r} is there twice: {listing(map(str, self.files))} have samples in "
                "common. Give each sample once; further samples of the same problems need another seed."
            )


def _is_whole(line: bytes) -> bool:
    """Whether a last line without a line break is a row all the same, as editors and other programs leave it."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not a line of JSON: {error}.") from None
    missing = [name for name in NEEDED if not isinstance(row, dict) or name not in row]
    if missing == ["correct"]:
        raise DataError(f"{where}: this sample is not graded. Run `trl-math grade` first, and give what it writes.")
    if missing:
        raise DataError(f"{where}: no graded sample of ours: there is no {', '.join(missing)}.")
    if not isinstance(row["prompt"], str | list) or not isinstance(row["completion"], str):
        raise DataError(f"{where}: prompt must be a text or messages, and completion a text.")
    return {**row, "problem_id": str(row["problem_id"])}
