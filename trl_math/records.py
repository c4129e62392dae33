"""The records that cross rooms: how to sample, and what came out."""

import dataclasses
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trl_math.errors import UsageError


# Why a sample ended. `stop`: an end token or a stop string. `length`: it ran out of tokens. `prompt_too_long`: the
# prompt leaves no room in the model's context, so there is no sample. `max_calls`, `max_errors`: with an interpreter,
# it wanted one program too many run, or too many of them failed. `refused`: a server's filter, or its model, would not
# answer; the text is what was said instead, if anything.
FINISH_REASONS = ("stop", "length", "prompt_too_long", "max_calls", "max_errors", "refused")

# A sample that ended by itself; a row that does not say how it ended has ended.
FINISHED = ("stop", None)


@dataclass(frozen=True)
class Sampling:
    """How to sample. Every backend is told every field, so that no default of a model or a server gets in.

    The log-probabilities of `logprobs` are the model's own, at temperature 1 and before any truncation, whatever the
    samples were drawn with: a probability of success is estimated from samples of temperature 1, `top_p` 1 and
    `top_k` 0, or not at all.

    With `choices` a sample is one of these texts, and its log-probabilities are those given that it becomes one: they
    sum to the choice's share of all choices. A server that knows no such thing answers what it likes.
    """

    num_samples: int = 1
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0
    top_k: int = 0  # 0 is off
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 2048
    stop: tuple[str, ...] = ()  # the text ends before the first of these
    seed: int = 0
    logprobs: bool = False
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        object.__setattr__(self, "choices", tuple(self.choices))
        for name in ("temperature", "top_p", "min_p", "repetition_penalty"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 and 1.0 are one setting, and hash alike
        checks = {
            "num_samples": (self.num_samples >= 1, "at least 1"),
            "temperature": (0 <= self.temperature <= 100, "0 (greedy) or above"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k >= 0, "0 (off) or above"),
            "min_p": (0 <= self.min_p < 1, "from 0 to below 1"),
            "repetition_penalty": (0 < self.repetition_penalty <= 100, "above 0 (1 is off)"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "stop": ("" not in self.stop, "texts of at least one character"),
        }
        for name, (is_right, allowed) in checks.items():
            if not is_right:
                raise UsageError(f"{name} must be {allowed}, got {getattr(self, name)!r}.")
        if self.is_greedy and self.num_samples > 1:
            raise UsageError(
                f"At temperature 0 all {self.num_samples} samples would be the same: ask for num_samples 1, or give a "
                "temperature above 0."
            )
        if self.choices:
            self._check_choices()

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    def settings(self) -> dict[str, Any]:
        """Return the fields as they are written beside samples; without choices, as before there were any."""
        written = dataclasses.asdict(self) | {"stop": list(self.stop), "choices": list(self.choices)}
        if not self.choices:
            del written["choices"]
        return written

    def _check_choices(self) -> None:
        """Raise unless the choices can be told apart at once, and nothing else decides what is drawn."""
        ordered = sorted(self.choices)
        begins = any(later.startswith(one) for one, later in pairwise(ordered))
        if len(self.choices) < 2 or "" in self.choices or begins:
            raise UsageError(
                f"choices must be two texts or more, of which none begins with another, got {list(self.choices)}."
            )
        for name in ("stop", "top_p", "top_k", "min_p", "repetition_penalty"):
            if getattr(self, name) != getattr(Sampling, name):
                raise UsageError(f"choices are drawn by their own probabilities: leave {name} out.")


@dataclass(frozen=True)
class Completion:
    """One sample. The text ends before the end token or stop string; the token ids have them."""

    text: str
    token_ids: tuple[int, ...] | None  # None if a server does not tell them
    finish_reason: str
    num_tokens: int
    logprobs: tuple[float, ...] | None = None  # one for each token
    # [start, end) of the tokens that an interpreter put in, which no training may count; None without an interpreter.
    tool_spans: tuple[tuple[int, int], ...] | None = None
    # Of a sample of two stages: why its reasoning ended; `finish_reason` is that of its answer.
    reasoning_finish_reason: str | None = None
    # Tokens that the engine read for it, where it tells them; of two stages, both times.
    num_prompt_tokens: int | None = dataclasses.field(default=None, compare=False)

    @property
    def logprob(self) -> float | None:
        """The log-probability of the whole sample, if it was asked for."""
        return None if self.logprobs is None else sum(self.logprobs)
