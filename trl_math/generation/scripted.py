"""A backend that says what it is told to: for tests of what stands around a model, and for documentation."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trl_math.generation.backend import Backend, Request, cut_at_stop
from trl_math.records import Completion, Sampling


def any_choice(request: Request, choices: Sequence[str]) -> str:
    """Return the choice that follows from the request's seed alone."""
    return choices[request.seed % len(choices)]


def boxed_digit(request: Request) -> str:
    """Return a guess between 0 and 9 that follows from the request's seed alone."""
    return f"I guess \\boxed{{{request.seed % 10}}}."


class ScriptedBackend(Backend):
    """Answers each request with `script(request)`, after `delay` seconds, newest first if `reverse` is set.

    Without a script it keeps to `Sampling.choices`; a script says what it says, as some servers do.
    """

    def __init__(
        self,
        tokenizer: Any,
        script: Callable[[Request], str] | None = None,
        *,
        context_length: int | None = None,
        delay: float = 0.0,
        reverse: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.script = script
        self.context_length = context_length
        self._delay = delay
        self._reverse = reverse

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        numbered = list(enumerate(requests))
        for index, request in reversed(numbered) if self._reverse else numbered:
            time.sleep(self._delay)
            yield index, self._completion(request, sampling)

    def facts(self) -> dict[str, Any]:
        return {"engine": "scripted"}

    def _say(self, request: Request, sampling: Sampling) -> str:
        if self.script is not None:
            return self.script(request)
        return any_choice(request, sampling.choices) if sampling.choices else boxed_digit(request)

    def _completion(self, request: Request, sampling: Sampling) -> Completion:
        text = said = self._say(request, sampling)
        end = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        before_stop = cut_at_stop(said, sampling.stop)
        if before_stop is not None:  # the tokens have what stopped it, the text has not
            stop = max((word for word in sampling.stop if said.startswith(word, len(before_stop))), key=len)
            text, said, end = before_stop, before_stop + stop, []
        ids = [*self.tokenizer(said, add_special_tokens=False)["input_ids"], *end]
        limit = self.max_tokens(request.prompt_ids, sampling)
        reason = "stop" if len(ids) <= limit else "length"
        if reason == "length":
            ids = ids[:limit]
            text = self.tokenizer.decode(ids)
        logprobs = tuple([0.0] * len(ids)) if sampling.logprobs else None
        return Completion(text, tuple(ids), reason, len(ids), logprobs)
