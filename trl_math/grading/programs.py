"""Program of thought: the program in a completion, and the answer that it prints.

Which program: the last closed ```python block; if there is none, one that was opened and never closed (the completion
was cut off); else the last closed block without a language; else the whole text, for prompts that ask for code alone.
What stands before a fence that closes and that nothing opened is a block too: the prompt opened it.

What it answers: the last line of its output that is not empty. A program that prints nothing answers what its makers'
conventions say: the variable `answer` or `ans` (program of thought), the value of its last line (notebooks), what its
`solution()` returns (PAL), in this order. The sandbox finds that out while the program runs, since no text of a model
is read by Python's compiler outside of it. Only a program that ended well answers anything.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from trl_math.grading.sandbox import PACKAGES, Limits, Outcome, Program, Sandbox


FENCE = "```"
PYTHON = ("python", "python3", "py")

# A fence with a language, alone on its line, opens a block (and ends one that is open). One without, at the end of a
# line, closes a block; models write it behind code at times. Possessive, so that no text takes more than linear time.
_FENCE = re.compile(r"^[ \t]*+```[ \t]*+(?P<language>[\w+-]++)[^\n`]*+$|(?P<bare>^[ \t]*+)?```[ \t]*+$", re.MULTILINE)

NO_PROGRAM = Outcome("error", reason="there is no program in the completion")


class Block(NamedTuple):
    """A fenced block."""

    language: str
    code: str
    is_closed: bool


class ProgramAnswer(NamedTuple):
    """What a completion's program answers, and what became of it."""

    answer: str | None
    outcome: Outcome


def extract_program(completion: str) -> str | None:
    """Return the program of a completion, or None if it has none."""
    blocks = code_blocks(completion)
    python = [block for block in blocks if block.language in PYTHON]
    closed = [block.code for block in python if block.is_closed]
    if python:
        return _tidy((closed or [python[-1].code])[-1])
    bare = [block.code for block in blocks if block.is_closed and not block.language]
    # One space before it belongs to the prompt rather than to the program, as it does in style `alpaca`.
    is_spaced = completion.startswith(" ") and not completion.startswith("  ")
    return _tidy(bare[-1] if bare else completion[1:] if is_spaced else completion)


def code_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a text, in order."""
    fences = list(_FENCE.finditer(text))
    blocks: list[Block] = []
    opening: re.Match | None = None
    for place, fence in enumerate(fences):
        if opening is not None:
            blocks.append(_block(opening, text[opening.end() + 1 : fence.start()], is_closed=True))
            opening = fence if fence["language"] else None
        elif fence["language"] or (fence["bare"] is not None and not _closes_prompts_block(fences, place)):
            opening = fence
        elif fence["bare"] is not None:
            blocks.append(Block(PYTHON[0], text[: fence.start()], True))
    if opening is not None:
        blocks.append(_block(opening, text[opening.end() + 1 :], is_closed=False))
    return blocks


def open_program(text: str) -> str | None:
    """Return the code of the Python block in which a text ends, or None if it does not end in one."""
    blocks = code_blocks(text)
    if not blocks or blocks[-1].is_closed or blocks[-1].language not in PYTHON:
        return None
    return textwrap.dedent(blocks[-1].code)


def answer_of(outcome: Outcome) -> str | None:
    """Return the last line that a program printed, if it ended well."""
    lines = [line.strip() for line in outcome.stdout.splitlines() if line.strip()]
    return lines[-1] if outcome.is_ok and lines else None


def program_answer(
    completion: str, *, limits: Limits | None = None, packages: Sequence[str] = PACKAGES
) -> ProgramAnswer:
    """Run the program of one completion."""
    return program_answers([completion], limits=limits, packages=packages, workers=1)[0]


def program_answers(
    completions: Iterable[str],
    *,
    limits: Limits | None = None,
    packages: Sequence[str] = PACKAGES,
    workers: int | None = None,
) -> list[ProgramAnswer]:
    """Run the programs of many completions in parallel. The answers come in the completions' order."""
    with Sandbox(limits=limits, packages=packages, workers=workers) as sandbox:
        return answers_in(sandbox, completions)


def answers_in(sandbox: Sandbox, completions: Iterable[str]) -> list[ProgramAnswer]:
    """Run the programs of many completions in a sandbox that is open."""
    codes = [extract_program(completion) for completion in completions]
    outcomes = iter(sandbox.run([Program(code, show_value=True) for code in codes if code is not None]))
    results = [NO_PROGRAM if code is None else next(outcomes) for code in codes]
    return [ProgramAnswer(answer_of(outcome), outcome) for outcome in results]


def _block(opening: re.Match, code: str, *, is_closed: bool) -> Block:
    return Block((opening["language"] or "").lower(), code, is_closed)


def _closes_prompts_block(fences: list[re.Match], place: int) -> bool:
    """Whether a bare fence is the text's first and has no partner: another bare one, to close what it would open."""
    return place == 0 and (len(fences) == 1 or bool(fences[1]["language"]))


def _tidy(code: str) -> str | None:
    """Return code without the indentation that its block stands in, or None if there is none."""
    code = textwrap.dedent(code).strip("\n")
    return code if code.strip() else None
