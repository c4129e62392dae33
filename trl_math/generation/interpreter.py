"""A Python interpreter inside of a solution: the model writes a block of code, the program's output is put behind it,
and the model goes on.

    ```python
    print(6 * 7)
    ```
    ```output
    42
    ```

A sample is drawn in parts. A part ends where the model closes a ```python block: with a fence, by beginning the output
itself, or by ending its turn right after the fence (that end token is taken away, since there is more to say now). All
samples that wait for the model go to the backend together, then all programs run in the sandbox together.
A program sees what earlier blocks of its sample left behind: those are run again, silently, before it, which needs no
process that lives as long as the sample, and is the same thing for programs that do the same each time; the sandbox
gives them the same random numbers. Blocks that were stopped (time, memory, output) are not run again.

The tokens are what a trainer needs: those that the model wrote as it wrote them, those of the output as the tokenizer
reads them, and a mask that tells them apart. In an output, a special token is text like any other, and a fence is
broken, so that no program ends its own block or its sample.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trl_math.errors import UsageError
from trl_math.generation.backend import Backend, Request, check_prompts, request_seed, too_long
from trl_math.generation.end_tokens import decode
from trl_math.grading.programs import open_program
from trl_math.grading.sandbox import PACKAGES, Limits, Outcome, Program, Sandbox
from trl_math.records import Completion, Sampling


FENCE = "```"
OUTPUT = "```output"
STOPS = (f"{FENCE}\n", OUTPUT)

# Why a sample ended, beside `records.FINISH_REASONS`: its programs failed too often, or it wanted one too many.
MAX_ERRORS, MAX_CALLS = "max_errors", "max_calls"


@dataclass(frozen=True)
class InterpretedCompletion(Completion):
    """One sample with the outputs of its programs in it. `logprobs` are 0 where an output stands."""

    mask: tuple[bool, ...] = ()  # one for each token: whether the model wrote it
    outcomes: tuple[Outcome, ...] = ()  # of its programs, in order

    @property
    def num_calls(self) -> int:
        return len(self.outcomes)

    @property
    def num_errors(self) -> int:
        return sum(not outcome.is_ok for outcome in self.outcomes)


def generate_with_interpreter(
    backend: Backend,
    tokenizer: Any,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    max_calls: int = 4,
    max_errors: int = 2,
    limits: Limits | None = None,
    packages: Sequence[str] = PACKAGES,
    workers: int | None = None,
    output_chars: int = 1000,
) -> list[list[InterpretedCompletion]]:
    """Return `num_samples` completions for each prompt, in order.

    `max_tokens` counts a sample's tokens, outputs included. Of `sampling.stop`, strings with a fence in them are left
    out, since fences are this function's business. A sample ends with the program that is its `max_errors`th to fail,
    and before one that would be its `max_calls + 1`st. `output_chars`: how much of an output, its end, is shown.
    """
    if max_calls < 0 or max_errors < 1 or output_chars < 1:
        raise UsageError(
            "max_calls must be at least 0, max_errors and output_chars at least 1, got "
            f"{max_calls}, {max_errors} and {output_chars}."
        )
    check_prompts(prompt_ids)
    loop = Loop(backend, tokenizer, sampling, max_calls, max_errors, output_chars)
    samples = [
        [Sample(tuple(ids), str(index), number, decode(tokenizer, ids)) for number in range(sampling.num_samples)]
        for index, ids in enumerate(prompt_ids)
    ]
    with Sandbox(limits=limits, packages=packages, workers=workers) as sandbox:
        loop.run([sample for row in samples for sample in row], sandbox)
    return [[loop.completion(sample) for sample in row] for row in samples]


@dataclass
class Sample:
    """A sample that grows."""

    prompt_ids: tuple[int, ...]
    name: str
    number: int
    context: str  # what stands since the last output, the prompt at first: where a block may have been opened
    ids: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    num_parts: int = 0
    num_unsaid: int = 0  # characters at the end of the text that are a stop string or an end token
    session: list[str] = field(default_factory=list)  # code that later programs build upon
    outcomes: list[Outcome] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, ids: Sequence[int], logprobs: Sequence[float] | None, *, by_model: bool) -> None:
        """Append tokens."""
        self.ids += ids
        self.mask += [by_model] * len(ids)
        self.logprobs += logprobs if logprobs is not None else [0.0] * len(ids)


@dataclass
class Call:
    """A program that a sample waits for."""

    sample: Sample
    code: str
    lead: str  # what is still to be written before the output itself


@dataclass
class Loop:
    """The rounds of a batch of samples."""

    backend: Backend
    tokenizer: Any
    sampling: Sampling
    max_calls: int
    max_errors: int
    output_chars: int

    def run(self, samples: Sequence[Sample], sandbox: Sandbox) -> None:
        """Draw and run until every sample has ended."""
        for sample in samples:
            if not self.backend.fits(sample.prompt_ids):
                sample.finish_reason = "prompt_too_long"
        while waiting := [sample for sample in samples if sample.finish_reason is None]:
            calls = [call for call in map(self._part, waiting, self._draw(waiting)) if call is not None]
            programs = [Program(call.code, before=tuple(call.sample.session), show_value=True) for call in calls]
            for call, outcome in zip(calls, sandbox.run(programs), strict=True):
                self._answer(call, outcome)

    def completion(self, sample: Sample) -> InterpretedCompletion:
        """Return the record of a sample that has ended."""
        if sample.finish_reason == "prompt_too_long":
            return InterpretedCompletion(**vars(too_long()))
        text = decode(self.tokenizer, sample.ids)
        return InterpretedCompletion(
            text=text[: len(text) - sample.num_unsaid],
            token_ids=tuple(sample.ids),
            finish_reason=sample.finish_reason or "length",
            num_tokens=len(sample.ids),
            logprobs=tuple(sample.logprobs) if self.sampling.logprobs else None,
            mask=tuple(sample.mask),
            outcomes=tuple(sample.outcomes),
        )

    def _draw(self, waiting: Sequence[Sample]) -> list[Completion]:
        """Return the next part of each sample. Each may be as long as the longest; what is too much is cut off."""
        stops = tuple(stop for stop in self.sampling.stop if FENCE not in stop)
        left = max(self._left(sample) for sample in waiting)
        sampling = dataclasses.replace(self.sampling, stop=(*STOPS, *stops), max_tokens=left)
        requests = []
        for sample in waiting:
            # The first part is what `Backend.generate` would draw.
            name = f"{sample.name} part {sample.num_parts}" if sample.num_parts else sample.name
            seed = request_seed(sampling.seed, name, sample.number)
            requests.append(Request([*sample.prompt_ids, *sample.ids], seed))
        found = dict(self.backend.stream(requests, sampling))
        return [found[index] for index in range(len(requests))]

    def _part(self, sample: Sample, completion: Completion) -> Call | None:
        """Take in what the model wrote, and return the program that it wants run, if it wants one."""
        if completion.token_ids is None:
            raise UsageError(
                "An interpreter needs the token ids of what was written, which this server does not tell."
            )
        sample.num_parts += 1
        ids, logprobs = list(completion.token_ids), completion.logprobs
        left = self._left(sample)
        written = decode(self.tokenizer, ids)
        if completion.finish_reason != "stop" or len(ids) > left:
            return self._end(sample, ids[:left], logprobs, "length")
        text, rest = completion.text, written[len(completion.text) :]
        if rest.startswith(STOPS):
            head, lead = text, _lead(rest)
        elif text.rstrip().endswith(FENCE):
            head, lead = text.rstrip().removesuffix(FENCE), f"\n{OUTPUT}\n"
        else:
            return self._end(sample, ids, logprobs, "stop", num_unsaid=len(rest))
        code = open_program(sample.context + head)
        is_last = len(sample.outcomes) == self.max_calls
        if rest.startswith(STOPS):
            if code is not None and is_last:
                return self._end(sample, ids, logprobs, MAX_CALLS)
        elif code is None or is_last:
            return self._end(sample, ids, logprobs, "stop", num_unsaid=len(rest))
        else:
            ids = self._up_to_fence(ids)
        sample.add(ids, logprobs and logprobs[: len(ids)], by_model=True)
        if code is None:  # the fence belongs to something else
            sample.context += written
            self._check_room(sample)
            return None
        return Call(sample, code, lead)

    def _answer(self, call: Call, outcome: Outcome) -> None:
        """Put a program's output behind it."""
        sample = call.sample
        sample.outcomes.append(outcome)
        if outcome.status in ("ok", "error"):
            sample.session.append(call.code)
        text = f"{call.lead}{shown(outcome, self.output_chars)}{FENCE}\n"
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if len(ids) >= self._left(sample):
            sample.finish_reason = "length"
            return
        sample.add(ids, None, by_model=False)
        sample.context = ""
        if sum(not outcome.is_ok for outcome in sample.outcomes) >= self.max_errors:
            sample.finish_reason = MAX_ERRORS
        self._check_room(sample)

    def _end(
        self,
        sample: Sample,
        ids: Sequence[int],
        logprobs: Sequence[float] | None,
        reason: str,
        *,
        num_unsaid: int = 0,
    ) -> None:
        sample.add(ids, logprobs and logprobs[: len(ids)], by_model=True)
        sample.num_unsaid = num_unsaid
        sample.finish_reason = reason

    def _left(self, sample: Sample) -> int:
        """Return how many more tokens the sample may have."""
        return self.backend.max_tokens(sample.prompt_ids, self.sampling) - len(sample.ids)

    def _check_room(self, sample: Sample) -> None:
        if self._left(sample) < 1:
            sample.finish_reason = sample.finish_reason or "length"

    def _up_to_fence(self, ids: list[int]) -> list[int]:
        """Return the tokens without those behind the fence that the text ends with: an end token, a line break."""
        while len(ids) > 1 and decode(self.tokenizer, ids[:-1]).rstrip().endswith(FENCE):
            ids = ids[:-1]
        return ids


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


def _lead(rest: str) -> str:
    """Return what is missing before the output, where the model closed its block with `rest`."""
    if rest.startswith(OUTPUT):
        return "" if rest.endswith("\n") else "\n"
    return f"{OUTPUT}\n"
