"""The sample browser's data: problems with a few of their samples each, rendered, packed and within a budget.

All samples of a benchmark are too many for a page. Of each problem a few are chosen (`read_samples.choose`), and
problems are taken until the budget is spent, those that tell most first: where runs differ, then those solved
sometimes, never, always. What was left out is said in the page.

Problems are packed in blocks, deflated and in base64; the page opens a block when a reader asks for a problem in it.
"""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.evaluation import Tally
from trl_math.grading import REASONS
from trl_math.reporting.page.markup import Child, Markup, join, tag, text
from trl_math.reporting.page.plot import share
from trl_math.reporting.page.prose import answer_html, to_html
from trl_math.reporting.page.read_samples import read_rows
from trl_math.reporting.page.runs import FALLBACK, PROGRAM, TEXT, Chosen, Problem, Result, Run, groups
from trl_math.reporting.page.tables import name_of


BLOCK = 24  # problems
LONGEST = 6000  # characters of a completion that are shown
ENDING = 1500  # of them from its end, where the answer is
DIFFERENT = 0.5  # pass rates of two runs are this far apart, or one of them is 0
# In the words of a card.
OUTCOMES = {
    "ok": "program ran",
    "error": "program failed",
    "timeout": "program took too long",
    "memory": "program needed too much memory",
    "output_limit": "program printed too much",
    "refused": "program refused by the sandbox",
}
ENDINGS = {
    "length": "cut off at the token limit",
    "prompt_too_long": "the prompt leaves no room",
    "max_calls": "stopped: too many programs",
    "max_errors": "stopped: too many programs failed",
}
OF_FALLBACK = {PROGRAM: "answered by its program", TEXT: "answered by its text"}
STATES = ("mixed", "unsolved", "solved")


class Entry(NamedTuple):
    """One problem in one mode, and what the runs made of it."""

    place: int  # in the benchmark's own order
    title: str  # of the benchmark
    problem_id: str
    problem: Problem
    found: list[tuple[Result, Tally]]

    @property
    def rates(self) -> list[float]:
        return [one.num_correct / one.num_samples for _, one in self.found]

    @property
    def state(self) -> str:
        """Return whether all samples of all runs are right, none, or some."""
        return "solved" if min(self.rates) == 1 else "unsolved" if max(self.rates) == 0 else "mixed"

    @property
    def differs(self) -> bool:
        """Whether the runs disagree on it."""
        low, high = min(self.rates), max(self.rates)
        return len(self.found) > 1 and (high - low >= DIFFERENT or (low == 0 < high))


class Packed(NamedTuple):
    """What the page holds."""

    listing: str
    blocks: list[str]
    num_shown: int
    num_problems: int
    num_samples: int  # shown
    num_all_samples: int


def entries(runs: Sequence[Run]) -> list[Entry]:
    """Return every problem that was asked, benchmark by benchmark, with the runs that have it."""
    found: list[Entry] = []
    for group in groups(runs, with_rows=False):
        together: dict[str, Entry] = {}
        for result in group.results:
            for one in result.samples.tallies if result.samples else ():
                problem = result.problems.get(one.problem_id, Problem("", ""))
                fresh = Entry(len(together), group.title, one.problem_id, problem, [])
                together.setdefault(result.key_of(one.problem_id), fresh).found.append((result, one))
        found += together.values()
    return found


def _interest(entry: Entry) -> tuple[bool, int]:
    return not entry.differs, STATES.index(entry.state)


def pack(runs: Sequence[Run], budget: int) -> Packed:
    """Pack problems, the most telling first, into at most `budget` characters."""
    every = entries(runs)
    ordered = sorted(every, key=_interest)
    blocks: list[str] = []
    shown: list[dict[str, Any]] = []
    num_samples = spent = 0
    for start in range(0, len(ordered), BLOCK):
        rendered = [_rendered(entry) for entry in ordered[start : start + BLOCK]]
        rows = [
            _listed(entry, runs) | {"at": [len(blocks), place]}
            for place, entry in enumerate(ordered[start : start + BLOCK])
        ]
        block, listed = _packed([html for html, _ in rendered]), len(_packed(rows))
        if spent + len(block) + listed > budget:
            break
        blocks.append(block)
        shown += rows
        spent += len(block) + listed
        num_samples += sum(count for _, count in rendered)
    titles = list(dict.fromkeys(entry.title for entry in every))
    shown.sort(key=lambda row: (titles.index(row["title"]), row["place"]))
    return Packed(
        listing=_packed({"runs": [run.name for run in runs], "problems": shown}),
        blocks=blocks,
        num_shown=len(shown),
        num_problems=len(every),
        num_samples=num_samples,
        num_all_samples=sum(one.num_samples for entry in every for _, one in entry.found),
    )


def _packed(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(written.encode("utf-8", "replace"), 9)).decode("ascii")


def _listed(entry: Entry, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the list shows of a problem, and what filters and search read."""
    scores = {result.run.index: [one.num_correct, one.num_samples] for result, one in entry.found}
    return {
        "place": entry.place,
        "title": entry.title,
        "id": entry.problem_id,
        "words": entry.problem.statement[:2000],
        "answer": entry.problem.answer,
        "level": entry.problem.level or "",
        "subject": entry.problem.subject or "",
        "state": entry.state,
        "differs": entry.differs,
        "scores": [scores.get(run.index) for run in runs],
    }


def _rendered(entry: Entry) -> tuple[Markup, int]:
    """Return a problem with its chosen samples as HTML, and how many these are."""
    chosen = [(result, one, _samples(result, entry.problem_id)) for result, one in entry.found]
    problem = entry.problem
    if not problem.statement:  # a graded folder without its problems
        prompts = [row.get("prompt") for _, _, samples in chosen for _, row in samples]
        problem = problem._replace(statement=_prompt(prompts[0]) if prompts else "")
    facts = [problem.subject, f"level {problem.level}" if problem.level else None]
    head = tag(
        "header",
        tag("h3", entry.problem_id),
        tag("p", " · ".join([entry.title, *(fact for fact in facts if fact)]), cls="note"),
        tag("div", to_html(problem.statement), cls="prose"),
        _choices(problem),
        tag("p", "Gold answer: ", tag("span", _gold(problem), cls="answer")),
    )
    parts = [_run_part(result, one, samples, problem.kind) for result, one, samples in chosen]
    return join([head, *parts]), sum(len(samples) for *_, samples in chosen)


def _gold(problem: Problem) -> Markup:
    return answer_html(problem.answer, problem.kind) if problem.answer else text("not known")


def _choices(problem: Problem) -> Markup | None:
    items = [tag("li", to_html(choice)) for choice in problem.choices]
    return tag("ol", *items, type="A") if items else None


def _samples(result: Result, problem_id: str) -> list[tuple[Chosen, Mapping[str, Any]]]:
    assert result.samples is not None
    assert result.run.samples_file is not None
    chosen = result.samples.chosen[problem_id]
    return list(zip(chosen, read_rows(result.run.samples_file, [one.offset for one in chosen]), strict=True))


def _prompt(prompt: Any) -> str:
    """Return the question of a prompt: a text, or the last message of a conversation."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], dict):
        return str(prompt[-1].get("content") or "")
    return str(prompt or "")


def _run_part(result: Result, one: Tally, samples: Sequence[tuple[Chosen, Mapping[str, Any]]], kind: str) -> Markup:
    left = one.num_samples - len(samples)
    said = f"{one.num_correct} of {one.num_samples} right" + (f"; {left} not shown" if left else "")
    cards = [_card(chosen, row, kind, result.mode) for chosen, row in samples]
    sides = [
        [card for card, (chosen, _) in zip(cards, samples, strict=True) if bool(chosen.correct) is side]
        for side in (True, False)
    ]
    columns = [tag("div", *side, cls="side") for side in sides if side]
    head = tag("h4", name_of(result.run), tag("span", said, cls="note"))
    return tag("section", head, tag("div", *columns, cls="sides"), cls="attempts")


def _card(chosen: Chosen, row: Mapping[str, Any], kind: str, mode: str) -> Markup:
    verdict = "right" if chosen.correct else "wrong"
    answer = row.get("extracted")
    said: Child = tag("span", answer_html(str(answer), kind), cls="answer") if answer is not None else "no answer"
    agreed = f"{share(chosen.share, 0)} % say this" if chosen.share is not None and answer is not None else None
    reason, outcome = (str(row.get(name) or "") for name in ("reason", "outcome"))
    own = str(row.get("mode") or mode)  # of fallback, one of the two others
    facts = [
        OF_FALLBACK.get(own) if mode == FALLBACK else None,
        OUTCOMES.get(outcome, f"program: {outcome}") if outcome else None,
        agreed,
        f"{row['num_tokens']:,} tokens" if row["num_tokens"] is not None else None,
        ENDINGS.get(str(row.get("finish_reason"))),
        f"sample {row['sample_index']}",
    ]
    head = tag(
        "header",
        tag("span", verdict, cls=f"badge {verdict}"),
        said,
        tag("span", " · ".join(fact for fact in facts if fact), cls="note", title=REASONS.get(reason, reason) or None),
    )
    return tag(
        "article", head, tag("div", *_completion(str(row.get("completion") or ""), own), cls="prose"), cls="card"
    )


def _completion(words: str, mode: str) -> Iterator[Child]:
    is_code = mode == PROGRAM  # with tools, code stands in fences
    if len(words) <= LONGEST:
        yield to_html(words, is_code=is_code) if words.strip() else tag("p", "(empty)", cls="note")
        return
    yield to_html(words[: LONGEST - ENDING], is_code=is_code)
    yield tag("p", f"… {len(words) - LONGEST:,} characters left out …", cls="note")
    yield to_html(words[-ENDING:], is_code=is_code)
