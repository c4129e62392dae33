"""Rows to train on, of the rationales that a teacher wrote; see `rationales` for which.

    rows.jsonl                  the problem's columns, prompt and completion, and which sample it is
    rationales.json             what it was made of and how, what it came to, what it cost, a hash of the rows
    yield.json, .svg, .png      what the first 1, 2, 4, ..., D samples come to
    samples/                    the samples and their verdicts, if they were drawn for it

A row says nothing that depends on how many samples there are, except for its weight if it has one: the rows of D = 4
are among those of D = 8. How often a problem was solved is told by `trl-math difficulty` on the same samples.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trl_math.data.columns import PROBLEMS, RATIONALES, UNFINISHED
from trl_math.data.graded_samples import GradedSamples
from trl_math.data.made_file import MadeFile, named_file
from trl_math.data.prompts import Prompt, PromptStyle
from trl_math.data.rationale_text import rationale_of
from trl_math.data.rationales import Chosen, Row, Rules, choose, has_ended, inverse_counts, reasoning_has_ended
from trl_math.errors import DataError
from trl_math.records import FINISHED


class Styles(NamedTuple):
    """How samples were asked, if that is known, and how rows are written where that is another way."""

    asked: PromptStyle | None
    of_rows: PromptStyle | None

    @property
    def writes_answer(self) -> bool:
        """Whether rows have the gold answer behind the rationale, in the place of what the teacher answered."""
        return self.of_rows is not None and "answer" in self.of_rows.columns

    @property
    def answer_prefix(self) -> str | None:
        """What the style that was asked in puts before an answer, if it has something of its own."""
        return getattr(self.asked, "answer_prefix", None)


def rationales_file(output: str) -> MadeFile:
    """Return the file that an output names: a folder's, or the file itself."""
    path = named_file(output, "rows.jsonl")
    manifest = path.with_name("rationales.json") if path.name == "rows.jsonl" else path.with_suffix(".json")
    return MadeFile(path, manifest, "rationales")


class RationaleRows:
    """The rationales of some problems, chosen when this is made, written when they are asked for."""

    def __init__(
        self, problems: Sequence[Row], samples: GradedSamples, rules: Rules, styles: Styles, weights: str = "uniform"
    ) -> None:
        self._problems = {problem["problem_id"]: problem for problem in problems}
        self._samples = samples
        self._rules = rules
        self._styles = styles
        self.chosen: dict[str, Chosen] = {}
        self.unjudged: list[str] = []  # their gold answers cannot be read
        self.wrong: list[dict[str, Any]] = []  # the first samples that are not right, to be shown
        self.num_refused = 0  # samples, by a server or its model
        self.num_drawn = 0  # of the D samples that a problem may have: those up to the last one that any has
        self.reasons: Counter[str] = Counter()  # why samples are right or wrong
        self._choose()
        counts = {name: len(one.kept) for name, one in self.chosen.items()}
        self._weights = inverse_counts(counts) if weights == "inverse_count" else None

    @property
    def num_rows(self) -> int:
        return sum(len(one.kept) for one in self.chosen.values())

    @property
    def dropped(self) -> Counter[str]:
        """How many samples do not serve, by reason."""
        return sum((one.dropped for one in self.chosen.values()), Counter())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows, problems in the order of their ids, rationales in that of their numbers."""
        for found in self._samples:
            chosen = self.chosen.get(found.problem_id)
            if chosen is None or not chosen.kept:
                continue
            by_index = {row["sample_index"]: row for row in found.samples}
            yield from (self._row(self._problems[found.problem_id], by_index[index]) for index in chosen.kept)

    def text_of(self, row: Row) -> str:
        """Return the text of a row's rationale: the reasoning alone where the gold answer is put behind it."""
        text = row["completion"]
        return rationale_of(text, self._styles.answer_prefix) if self._styles.writes_answer else text.strip()

    def _choose(self) -> None:
        # Where the gold answer stands behind the reasoning, it is the reasoning that must have an end.
        ended = reasoning_has_ended if self._styles.writes_answer else has_ended
        for found in self._samples:
            name = found.problem_id
            if name not in self._problems:
                continue
            if name in self.chosen:
                raise DataError(f"Problem {name!r} has samples of two prompts: give samples of one way of asking.")
            if all(row["correct"] is None for row in found.samples):
                self.unjudged.append(name)
                continue
            self.chosen[name] = choose(found.samples, self._rules, self.text_of, ended)
            self._note([row for row in found.samples if row["sample_index"] < self._rules.num_rationales])

    def _note(self, samples: Sequence[Row]) -> None:
        for row in samples:
            self.num_drawn = max(self.num_drawn, row["sample_index"] + 1)
            self.reasons[row.get("reason") or "unknown"] += 1
            self.num_refused += row.get("finish_reason") == "refused"
        wrong = next((row for row in samples if not row["correct"]), None)
        if wrong is not None and len(self.wrong) < 5:
            self.wrong.append({**wrong, "answer": self._problems[wrong["problem_id"]]["answer"]})

    def _row(self, problem: Row, sample: Row) -> dict[str, Any]:
        prompt, completion = self._texts(problem, sample)
        row = {
            **{column: problem[column] for column in PROBLEMS.columns if column in problem},
            "prompt": prompt,
            "completion": completion,
            "sample_index": sample["sample_index"],
            "sampler": sample.get("sampler"),
            "num_tokens": sample.get("num_tokens"),
        }
        if self._rules.keep_wrong:
            row["correct"] = sample["correct"]
        if self._rules.keep_unfinished and not self._styles.writes_answer:  # else the row has an end: the gold answer
            row[UNFINISHED] = sample.get("finish_reason") not in FINISHED
        if self._weights is not None:
            row["weight"] = self._weights[sample["problem_id"]]
        return {column: row[column] for column in RATIONALES.columns if column in row}

    def _texts(self, problem: Row, sample: Row) -> tuple[Prompt, Prompt]:
        """Return prompt and completion of a row: texts, or both messages."""
        style = self._styles.of_rows
        if style is not None:
            solved = {**problem, "solution": self.text_of(sample)}
            return style.prompt(solved), style.completion(solved)
        prompt = sample["prompt"] if self._styles.asked is None else self._styles.asked.prompt(problem)
        text = sample["completion"]
        return prompt, text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
