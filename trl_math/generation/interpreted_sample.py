"""One sample with programs in it: what the model has written, what was put in between, and what is still to come.

    ```python
    print(6 * 7)
    ```
    ```output
    42
    ```

A sample is drawn in parts. A part may end anywhere; what counts is the text since the last output. There, the model
hands over where it closes a ```python block: with a fence, by beginning the output itself, or by ending its turn right
after the fence (that end token is taken away, since there is more to say now).

The tokens are what a trainer needs: those that the model wrote as it wrote them, those of an output as the tokenizer
reads them, and spans that tell them apart. In an output, a special token is text like any other, and a fence is
broken, so that no program ends its own block or its sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trl_math.errors import UsageError
from trl_math.generation.backend import Request, cut_at_stop
from trl_math.generation.end_tokens import decode
from trl_math.grading.programs import FENCE, open_program
from trl_math.grading.sandbox import Outcome, Program
from trl_math.records import Completion


OUTPUT = f"{FENCE}output"
FENCE_STOPS = (f"{FENCE}\n", OUTPUT)

# What a stop string of the user must not be found in: there is always more to come.
EXAMPLE = f"{FENCE}python\nprint(1)\n{FENCE}\n{OUTPUT}\n1\n{FENCE}\n"


@dataclass(frozen=True)
class InterpretedCompletion(Completion):
    """One sample with the outputs of its programs in it. `logprobs` are 0 where an output stands."""

    outcomes: tuple[Outcome, ...] = ()  # of its programs, in order


@dataclass
class Sample:
    """A sample that grows."""

    index: int  # of its request
    request: Request
    limit: int  # tokens that it may have, outputs included
    context: str  # what stands before `ids[start:]` since the last output, the prompt at first
    start: int = 0  # where the text begins that is still to be looked through
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)
    tool_spans: list[tuple[int, int]] = field(default_factory=list)
    num_parts: int = 0
    num_unsaid: int = 0  # characters at the end of the text that are a stop string or an end token
    session: list[str] = field(default_factory=list)  # code that later programs build upon
    outcomes: list[Outcome] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def left(self) -> int:
        return self.limit - len(self.ids)

    @property
    def num_errors(self) -> int:
        return sum(not outcome.is_ok for outcome in self.outcomes)

    def append(self, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
        """Append tokens with their log-probabilities, the first so many of those that are given."""
        self.ids += ids
        self.logprobs = None if self.logprobs is None or logprobs is None else [*self.logprobs, *logprobs[: len(ids)]]


class Call(NamedTuple):
    """A program that a sample waits for."""

    sample: Sample
    program: Program
    lead: str  # what is still to be written before the output itself


@dataclass(frozen=True)
class Turns:
    """Takes in what the model writes, and writes what programs say. All that changes is in the sample."""

    tokenizer: Any
    stop: tuple[str, ...]  # the user's
    max_calls: int
    max_errors: int
    output_chars: int

    def read(self, sample: Sample, part: Completion, asked: int) -> Call | None:
        """Take in a part of up to `asked` tokens, and return the program that the model wants run, if it wants one."""
        if part.token_ids is None:
            raise UsageError(
                "An interpreter needs the token ids of what was written, which this server does not tell."
            )
        sample.num_parts += 1
        new = part.token_ids[: sample.left]
        ids = [*sample.ids[sample.start :], *new]
        text = decode(self.tokenizer, ids)
        if cut_at_stop(text, self._stops) is not None:
            return self._read_stop(sample, part, self._up_to_stop(ids))
        if part.finish_reason == "stop" and len(new) == len(part.token_ids):
            return self._read_end(sample, part, text)
        if part.finish_reason == "prompt_too_long" and not sample.ids:
            return self._end(sample, part.finish_reason)
        sample.append(new, part.logprobs)
        # Fewer than were asked for: the context ends where only a server knows.
        return self._end(sample, "length") if sample.left == 0 or len(new) < asked else None

    def answer(self, call: Call, outcome: Outcome) -> None:
        """Put a program's output behind it, if that leaves the model a token to go on with."""
        sample = call.sample
        sample.outcomes.append(outcome)
        if outcome.status in ("ok", "error"):  # what was stopped is not run again
            sample.session.append(call.program.code)
        ids = self._output_ids(f"{call.lead}{shown(outcome, self.output_chars)}{FENCE}\n")
        if len(ids) >= sample.left:
            return self._end(sample, "length")
        sample.tool_spans.append((len(sample.ids), len(sample.ids) + len(ids)))
        sample.append(ids, [0.0] * len(ids))
        sample.start, sample.context = len(sample.ids), ""
        return self._end(sample, "max_errors") if sample.num_errors >= self.max_errors else None

    def completion(self, sample: Sample) -> InterpretedCompletion:
        """Return the record of a sample that has ended."""
        text = decode(self.tokenizer, sample.ids)
        return InterpretedCompletion(
            text=text[: len(text) - sample.num_unsaid],
            token_ids=tuple(sample.ids),
            finish_reason=sample.finish_reason or "length",
            num_tokens=len(sample.ids),
            logprobs=None if sample.logprobs is None or not sample.ids else tuple(sample.logprobs),
            tool_spans=tuple(sample.tool_spans),
            outcomes=tuple(sample.outcomes),
        )

    @property
    def _stops(self) -> tuple[str, ...]:
        return (*FENCE_STOPS, *self.stop)

    def _read_stop(self, sample: Sample, part: Completion, ids: list[int]) -> Call | None:
        """Take in text that ends with a stop string; `ids` are the tokens since the last output that have it."""
        text = decode(self.tokenizer, ids)
        head = cut_at_stop(text, self._stops) or ""
        rest = text[len(head) :]
        self._take(sample, ids, part)
        if not rest.startswith(FENCE_STOPS):
            return self._end(sample, "stop", num_unsaid=len(rest))
        if rest.startswith(OUTPUT) and head.rstrip().endswith(FENCE):  # it has closed the block in a way of its own
            head = head.rstrip().removesuffix(FENCE)
        code = _open_program(sample, head)
        if code is not None:
            is_last = len(sample.outcomes) == self.max_calls
            return self._end(sample, "max_calls") if is_last else Call(sample, _program(sample, code), _lead(rest))
        # The fence belongs to something else.
        sample.context += text
        sample.start = len(sample.ids)
        return self._end(sample, "length") if sample.left == 0 else None

    def _read_end(self, sample: Sample, part: Completion, text: str) -> Call | None:
        """Take in text at whose end the model ended its turn."""
        written = part.token_ids or ()
        ids = [*sample.ids[sample.start :], *written]
        num_unsaid = len(decode(self.tokenizer, written)) - len(part.text)
        said = text[: len(text) - num_unsaid].rstrip()
        code = _open_program(sample, said.removesuffix(FENCE)) if said.endswith(FENCE) else None
        if code is None or len(sample.outcomes) == self.max_calls:
            self._take(sample, ids, part)
            return self._end(sample, "stop", num_unsaid=num_unsaid)
        self._take(sample, self._up_to_fence(ids), part)
        return Call(sample, _program(sample, code), f"\n{OUTPUT}\n")

    @staticmethod
    def _take(sample: Sample, ids: Sequence[int], part: Completion) -> None:
        """Append what is new in `ids`, the tokens since the last output."""
        sample.append(ids[len(sample.ids) - sample.start :], part.logprobs)

    @staticmethod
    def _end(sample: Sample, reason: str, *, num_unsaid: int = 0) -> None:
        sample.finish_reason, sample.num_unsaid = reason, num_unsaid

    def _up_to_stop(self, ids: list[int]) -> list[int]:
        """Return the tokens up to the one that completed the first stop string."""
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            if cut_at_stop(decode(self.tokenizer, ids[:middle]), self._stops) is None:
                low = middle + 1
            else:
                high = middle
        return ids[:low]

    def _up_to_fence(self, ids: list[int]) -> list[int]:
        """Return the tokens without those behind the fence that the text ends with: an end token, a line break."""
        while len(ids) > 1 and decode(self.tokenizer, ids[:-1]).rstrip().endswith(FENCE):
            ids = ids[:-1]
        return ids

    def _output_ids(self, text: str) -> list[int]:
        """Return the tokens of a text that stands behind another.

        At the beginning of a text, tokenizers of Llama 2's kind write a space of their own; behind a line break they
        do not. Others may join the two, and have no such space.
        """
        line_break, behind = self._ids("\n"), self._ids(f"\n{text}")
        return behind[len(line_break) :] if behind[: len(line_break)] == line_break else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def check_stop(stop: Sequence[str]) -> None:
    """Raise if a stop string would end samples where an interpreter is to begin."""
    bad = next((text for text in stop if FENCE in text or text in EXAMPLE), None)
    if bad is not None:
        raise UsageError(
            f"Samples that end at {bad!r} have no room for programs and their output: with an interpreter, choose "
            "another prompt style (tool, chat_tool, cot, chat_cot) or other stop strings."
        )


def shown(outcome: Outcome, num_chars: int) -> str:
    """Return what the model is shown of an outcome: lines, or nothing."""
    lines = [outcome.stdout.strip("\n")]
    if not outcome.is_ok:
        said = outcome.stderr.strip().splitlines()
        lines.append(said[-1] if said and outcome.status in ("error", "refused") else f"Error: {outcome.reason}")
    text = "\n".join(line for line in lines if line).replace(FENCE, "'''")
    if len(text) > num_chars:
        text = f"...{text[-num_chars:]}"
    return f"{text}\n" if text else ""


def _open_program(sample: Sample, text: str) -> str | None:
    """Return the code of the block in which the sample's text ends, one that the prompt may have opened."""
    code = open_program(sample.context + text)
    # A prompt that ends within a line (`Answer:`) would hide that the text begins with a fence.
    return open_program(text) if code is None else code


def _program(sample: Sample, code: str) -> Program:
    return Program(code, before=tuple(sample.session), show_value=True)


def _lead(rest: str) -> str:
    """Return what is missing before the output, where the model closed its block with `rest`."""
    if rest.startswith(OUTPUT):
        return "" if rest.endswith("\n") else "\n"
    return f"{OUTPUT}\n"
