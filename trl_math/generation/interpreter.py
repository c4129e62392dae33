"""A Python interpreter inside of a solution: the model writes a block of code, the program's output is put behind it,
and the model goes on. What becomes of one sample is said in `interpreted_sample`.

It is a backend around another, so that stores, commands and engines need not know of it. Up to `num_live` samples are
under way. In a round each of them gets up to `part_tokens` more tokens from the engine, while the programs of those
that have handed over run in the sandbox; a sample that has ended is handed out at once, and another takes its place.
Rounds, since an engine is told all of its requests when a call of `stream` begins; of parts, since otherwise one long
solution would hold up all others, and one program all of its round. A part costs an engine that keeps prefixes a few
tokens' work. A sample that goes on stands before those that begin, so that it ends before they do.

A program sees what earlier blocks of its sample left behind: those are run again, silently, before it and within its
seconds, which needs no process that lives as long as the sample, and is the same thing for programs that do the same
each time; the sandbox gives them the same random numbers. Blocks that were stopped (time, memory, output) are not run
again.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

from trl_math.errors import UsageError
from trl_math.generation.backend import Backend, Request, check_prompts, request_seed
from trl_math.generation.end_tokens import decode
from trl_math.generation.interpreted_sample import FENCE_STOPS, Call, Sample, Turns, check_stop
from trl_math.grading.sandbox import PACKAGES, STATUSES, Limits, Outcome, Sandbox
from trl_math.records import Completion, Sampling


NUM_LIVE = 1024
PART_TOKENS = 512


@dataclass(frozen=True)
class Interpreter:
    """What a sample's programs may do, and what is shown of their output.

    A sample ends with the program that is its `max_errors`th to fail, and before one that would be its
    `max_calls + 1`st. `output_chars`: how much of an output, its end, is shown.
    """

    max_calls: int = 4
    max_errors: int = 2
    limits: Limits = dataclasses.field(default_factory=Limits)
    packages: tuple[str, ...] = PACKAGES
    output_chars: int = 1000

    def __post_init__(self) -> None:
        for name in ("max_calls", "max_errors", "output_chars"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}.")

    def settings(self) -> dict[str, Any]:
        """Return what is written beside samples: those that were drawn otherwise are not comparable."""
        limits = {f"program_{name}": value for name, value in dataclasses.asdict(self.limits).items()}
        return {
            "interpreter": True,
            "max_calls": self.max_calls,
            "max_errors": self.max_errors,
            **limits,
            "program_packages": list(self.packages),
            "output_chars": self.output_chars,
        }


class InterpreterBackend(Backend):
    """Draws from another backend, and runs the programs that it writes. `max_tokens` counts their outputs too."""

    def __init__(
        self,
        backend: Backend,
        tokenizer: Any,
        interpreter: Interpreter | None = None,
        *,
        workers: int | None = None,
        num_live: int = NUM_LIVE,
        part_tokens: int = PART_TOKENS,
    ) -> None:
        if num_live < 1 or part_tokens < 1:
            raise UsageError(f"num_live and part_tokens must be at least 1, got {num_live} and {part_tokens}.")
        self.backend = backend
        self.tokenizer = tokenizer
        self.interpreter = interpreter or Interpreter()
        self.context_length = backend.context_length
        self.statuses: Counter[str] = Counter()  # of all programs so far
        self._num_live = num_live
        self._part_tokens = part_tokens
        self._sandbox = Sandbox(limits=self.interpreter.limits, packages=self.interpreter.packages, workers=workers)

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index, sample) as samples end."""
        check_prompts([request.prompt_ids for request in requests])
        check_stop(sampling.stop)
        if sampling.choices:
            raise UsageError("One of several choices is no program: leave choices out, or the interpreter.")
        return self._stream(requests, sampling)

    def facts(self) -> dict[str, Any]:
        """Return what should be written beside the samples."""
        packages = package_versions(self.interpreter.packages)
        return {**self.backend.facts(), "interpreter": {"sandbox": self._sandbox.mode, "packages": packages}}

    def troubles(self) -> dict[str, int]:
        return self.backend.troubles()

    def close(self) -> None:
        """End the sandbox, and let go of the model."""
        self.close_sandbox()
        self.backend.close()

    def close_sandbox(self) -> None:
        """End the sandbox's processes, and leave the backend to whoever made it."""
        self._sandbox.close()

    def summary(self) -> str:
        """Return how programs went, in a line."""
        counts = ", ".join(f"{self.statuses[status]:,} {status}" for status in STATUSES if self.statuses[status])
        return f"Ran {self.statuses.total():,} programs{': ' if counts else ''}{counts}."

    def _stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        rules = self.interpreter
        turns = Turns(self.tokenizer, sampling.stop, rules.max_calls, rules.max_errors, rules.output_chars)
        waiting = (self._begin(index, request, sampling) for index, request in enumerate(requests))
        live = list(islice(waiting, self._num_live))
        pool = ThreadPoolExecutor(self._sandbox.workers, thread_name_prefix="interpreter")
        try:
            while live:
                asked = min(self._part_tokens, max(sample.left for sample in live))
                calls: dict[Future[Outcome], Call] = {}
                for sample, part in self._parts(live, sampling, asked):
                    call = turns.read(sample, part, asked)
                    if call is not None:
                        calls[pool.submit(self._run, call)] = call
                    elif sample.finish_reason is not None:
                        yield sample.index, turns.completion(sample)
                for future in as_completed(calls):
                    call, outcome = calls[future], future.result()
                    self.statuses[outcome.status] += 1
                    turns.answer(call, outcome)
                    if call.sample.finish_reason is not None:
                        yield call.sample.index, turns.completion(call.sample)
                live = [sample for sample in live if sample.finish_reason is None]
                live += islice(waiting, self._num_live - len(live))
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, index: int, request: Request, sampling: Sampling) -> Sample:
        limit = self.max_tokens(request.prompt_ids, sampling)
        return Sample(index, request, limit, context=decode(self.tokenizer, request.prompt_ids))

    def _parts(self, live: Sequence[Sample], sampling: Sampling, asked: int) -> Iterator[tuple[Sample, Completion]]:
        """Yield (sample, its next part) as parts finish. One may have more tokens than its sample has left."""
        settings = dataclasses.replace(sampling, stop=(*FENCE_STOPS, *sampling.stop), max_tokens=asked)
        for index, part in self.backend.stream([_next_request(sample) for sample in live], settings):
            yield live[index], part

    def _run(self, call: Call) -> Outcome:
        return self._sandbox.run([call.program])[0]


def package_versions(names: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of packages that programs may import; None for what is not installed."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _next_request(sample: Sample) -> Request:
    """Return the request for a sample's next part. The first is what plain generation would ask."""
    prompt_ids, seed, prompt = sample.request
    if sample.num_parts == 0:
        return sample.request
    return Request([*prompt_ids, *sample.ids], request_seed(seed, "part", sample.num_parts), prompt)
