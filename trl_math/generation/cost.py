"""What samples cost by the token, and a run that ends before it costs more than it may.

A request is only sent if the most that it can cost still fits, with all that are under way: so `max_cost` is never
passed, and nothing that was paid for is thrown away. As samples come to less than the most they could, further ones
are sent, until not one more fits. Prompts that neither we nor the engine count cost the most that they can, by their
bytes. What failed requests cost is known to nobody here.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trl_math.errors import BudgetError
from trl_math.generation.backend import Backend, Request, Usage
from trl_math.records import Completion, Sampling


# Seconds between two lines about what has been spent.
LINE_SECONDS = 30.0
NOTHING = Usage(0, 0)


@dataclass(frozen=True)
class Price:
    """What a million tokens cost, of prompts and of completions, in whatever currency."""

    input: float
    output: float

    def of(self, usage: Usage) -> float:
        """Return what so many tokens cost."""
        return (usage.num_prompt_tokens * self.input + usage.num_tokens * self.output) / 1e6


class Spent(NamedTuple):
    """What the samples of a folder took."""

    num_samples: int
    usage: Usage
    num_untold: int = 0  # samples whose prompts no engine counted


def spent_on(rows: Iterable[Mapping[str, Any]], prompt_tokens: Mapping[str, int]) -> Spent:
    """Return the tokens of samples: those of prompts as the engine told them, else as this problem's has at most."""
    number, asked, drawn, num_untold = 0, 0, 0, 0
    for row in rows:
        told = row.get("num_prompt_tokens")
        number += 1
        num_untold += told is None
        asked += prompt_tokens.get(row["problem_id"], 0) if told is None else told
        drawn += row["num_tokens"]
    return Spent(number, Usage(asked, drawn), num_untold)


class MeteredBackend(Backend):
    """Counts what another backend's samples cost, and ends with a `BudgetError` before it is too much.

    `spent`: what earlier sessions took. Use it around all other backends, so that it sees whole samples.
    """

    def __init__(
        self,
        backend: Backend,
        price: Price,
        max_cost: float | None,
        spent: Usage = NOTHING,
        say: Callable[[str], None] = print,
    ) -> None:
        self.backend = backend
        self.price = price
        self.max_cost = max_cost
        self.spent = spent
        self.context_length = backend.context_length
        self._say = say
        self._last_line = time.monotonic()

    @property
    def cost(self) -> float:
        """What has been spent so far."""
        return self.price.of(self.spent)

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index, sample) as they come, as long as the next one can be paid."""
        waiting = list(range(len(requests)))
        while waiting:
            number = self._num_affordable([requests[index] for index in waiting], sampling)
            now, waiting = waiting[:number], waiting[number:]
            if not now:
                raise self._spent_up(self.most(requests[waiting[0]], sampling))
            for place, completion in self.backend.stream([requests[index] for index in now], sampling):
                self._count(completion, self.most(requests[now[place]], sampling))
                yield now[place], completion

    def facts(self) -> dict[str, Any]:
        return self.backend.facts()

    def troubles(self) -> dict[str, int]:
        return self.backend.troubles()

    def close(self) -> None:
        self.backend.close()

    def most(self, request: Request, sampling: Sampling) -> Usage:
        return self.backend.most(request, sampling)

    def _num_affordable(self, requests: Sequence[Request], sampling: Sampling) -> int:
        """Return how many of these, in order, can be paid for whatever they come to."""
        if self.max_cost is None:
            return len(requests)
        cost = self.cost
        for number, request in enumerate(requests):
            cost += self.price.of(self.most(request, sampling))
            if cost > self.max_cost:
                return number
        return len(requests)

    def _count(self, completion: Completion, most: Usage) -> None:
        told = completion.num_prompt_tokens
        asked = most.num_prompt_tokens if told is None else told
        self.spent = Usage(self.spent.num_prompt_tokens + asked, self.spent.num_tokens + completion.num_tokens)
        if time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            limit = "" if self.max_cost is None else f" of {money(self.max_cost)}"
            self._say(f"Spent so far: {money(self.cost)}{limit}.")

    def _spent_up(self, most: Usage) -> BudgetError:
        return BudgetError(
            f"max_cost {money(self.max_cost or 0.0)} leaves no room for another sample: {money(self.cost)} is spent, "
            f"and one may cost up to {money(self.price.of(most))}. What has been drawn is kept: raise max_cost and "
            "the same command goes on, or make rows of what is there with --samples."
        )


def money(amount: float) -> str:
    """Return an amount with two digits behind the point, or three that count if it is small."""
    return f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.3g}"
