"""Training batches of pairs that the model itself made a few steps ago: sample, grade, pair, train, and again.

A *refresh* asks the next problems of a seeded order under the current weights, until the buffer holds the pairs of a
*span*: the optimiser steps up to the next refresh. The span is `every` steps, or a whole pass over the problems. Every
step of it is full, and the buffer is the same on all processes: each trains its slice.

Accounting. A refresh ends at the latest when every problem was asked, unless that did not fill a single step. Where
the pairs suffice for fewer steps than `every` the span is that much shorter, and says so. Pairs that are left over
wait for the next span if they are no older than `max_staleness` steps by then, and are dropped otherwise.

What a problem's samples are drawn with follows from the seed and the place in the order, never from a state that an
interruption would lose, so that a resumed run samples what the uninterrupted one would have sampled.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from trl_math.errors import DataError, RunFolderError
from trl_math.generation.backend import request_seed
from trl_math.trainers.live_drift import TOKEN_LOGPS
from trl_math.trainers.refill import StepShape


logger = logging.getLogger(__name__)

Pair = dict[str, Any]

# The step whose weights a pair was sampled from; a column of every row in the buffer.
SAMPLED_AT = "sampled_at_step"


@dataclass
class LiveState:
    """Everything needed to go on exactly where a run stopped; plain JSON in a checkpoint."""

    data: str = ""  # digest of the problems that the order is of
    passes: int = 0  # walks over the problems that are finished
    cursor: int = 0  # problems already asked in the current walk
    steps_left: int = 0  # of the current span
    num_refreshes: int = 0
    num_problems: int = 0  # asked in all
    num_samples: int = 0
    num_pairs: int = 0  # made in all
    num_dropped: int = 0  # of those, too old before their turn came
    buffer: list[Pair] = field(default_factory=list)  # pairs that wait, in the order in which they are trained on


class Sampled(NamedTuple):
    """What came of asking some problems once, on all processes together."""

    pairs: list[Pair]
    num_samples: int
    num_truncated: int  # samples that ran out of tokens
    pass_rates: dict[str, float]  # of the problems whose samples could be judged
    dropped: Counter[str]  # what gave no pair, by reason


class PairSource(Protocol):
    """Makes pairs of problems under the current weights. Every method is for all processes to call together."""

    def follow(self) -> None:
        """Take over the weights as they are now."""

    def sample(self, problems: Sequence[int], seed: int) -> Sampled:
        """Ask these problems, and return the same pairs on every process."""

    def schedule(self, pairs: list[Pair]) -> list[Pair]:
        """Return the pairs of a span with their weights, betas and margins."""


class Refresh(NamedTuple):
    """What a refresh found; what is logged of it."""

    step: int
    sampled: Sampled  # of all problems asked
    num_problems: int
    num_steps: int
    num_dropped: int  # pairs left over from before that were too old
    seconds: float


class LivePairLoader:
    """What `Trainer` iterates in place of a DataLoader: a stream of this process's micro-batches.

    It ends only where no problem gives a pair any more.

    Args:
        source: Makes pairs.
        num_problems: How many problems there are.
        shape: How one optimiser step is cut up.
        collate: Takes pairs and returns a micro-batch.
        step: Returns the number of optimiser steps taken so far.
        every: Steps of a span; None: as many as a pass over the problems gives pairs for.
        chunk: Problems that are asked at once.
        max_staleness: Steps that a left-over pair may be old to be carried over.
        on_refresh: Called with what each refresh found.
    """

    def __init__(
        self,
        source: PairSource,
        num_problems: int,
        shape: StepShape,
        collate: Callable[[list[Pair]], Any],
        step: Callable[[], int],
        *,
        every: int | None,
        chunk: int,
        max_staleness: int,
        seed: int,
        data: str = "",
        on_refresh: Callable[[Refresh], None] = lambda refresh: None,
    ) -> None:
        self.source, self.num_problems, self.shape = source, num_problems, shape
        self._collate, self._step, self._on_refresh = collate, step, on_refresh
        self.every, self.chunk, self.max_staleness, self.seed = every, chunk, max_staleness, seed
        self.state = LiveState(data=data)
        self.ages: list[int] = []  # of the pairs of the current step, in steps
        self.is_finished = False  # no problem gives a pair any more

    @property
    def progress(self) -> float:
        """Walks over the problems so far, as a fraction: the honest epoch number."""
        return self.state.passes + self.state.cursor / self.num_problems

    def restore(self, state: LiveState, where: str) -> None:
        """Go on from the state that a checkpoint holds."""
        if state.data != self.state.data:
            raise RunFolderError(
                f"{where} was written with other live_data ({state.data}; now {self.state.data}): give the same "
                "problems, or start a new run."
            )
        self.state = state

    def __iter__(self) -> Iterator[Any]:
        """Yield micro-batches until no more pairs can be made; a span begins when the step before it was taken."""
        while not self.is_finished:
            if self.state.steps_left == 0 and not self._refresh():
                return
            size = self.shape.global_batch
            pairs, self.state.buffer = self.state.buffer[:size], self.state.buffer[size:]
            self.state.steps_left -= 1
            step = self._step()
            self.ages = [step - pair[SAMPLED_AT] for pair in pairs]
            yield from map(self._collate, self.shape.mine(pairs))

    def _refresh(self) -> bool:
        """Fill the buffer with the pairs of a span; return whether there are any."""
        step, state, started = self._step(), self.state, time.monotonic()
        waiting = [pair for pair in state.buffer if step - pair[SAMPLED_AT] <= self.max_staleness]
        num_dropped = len(state.buffer) - len(waiting)
        self.source.follow()
        sampled, num_asked = self._sample_enough(len(waiting), step)
        pairs = waiting + sampled.pairs
        if len(pairs) < self.shape.global_batch:
            return self._finish(no_pairs(self.num_problems, sampled, step))
        num_steps = len(pairs) // self.shape.global_batch
        if self.every is not None:
            if num_steps < self.every:
                logger.warning(
                    "All %d problems gave pairs for %d steps instead of live_every: %d; the next refresh comes that "
                    "much earlier.",
                    self.num_problems,
                    num_steps,
                    self.every,
                )
            num_steps = min(num_steps, self.every)
        size = num_steps * self.shape.global_batch
        span = self.source.schedule(pairs[:size])
        # Pairs of one problem lie beside each other, and would be trained on in one step.
        random.Random(request_seed(self.seed, "span", state.num_refreshes)).shuffle(span)
        state.buffer, state.steps_left = span + pairs[size:], num_steps
        # What is compared with the trainer's first step, and would make checkpoints large.
        for pair in state.buffer[self.shape.global_batch :]:
            for name in TOKEN_LOGPS:
                pair.pop(name, None)
        state.num_refreshes += 1
        state.num_problems += num_asked
        state.num_samples += sampled.num_samples
        state.num_pairs += len(sampled.pairs)
        state.num_dropped += num_dropped
        self._on_refresh(Refresh(step, sampled, num_asked, num_steps, num_dropped, time.monotonic() - started))
        return True

    def _finish(self, reason: str) -> bool:
        """Raise if there was never a pair; else end the stream, so that what was trained is not lost."""
        if self.state.num_refreshes == 0:
            raise DataError(reason)
        logger.warning("Training ends here. %s", reason)
        self.is_finished = True
        return False

    def _sample_enough(self, num_waiting: int, step: int) -> tuple[Sampled, int]:
        """Ask problems until the span is full or all were asked; then on until a step is full or no pair comes."""
        size = self.shape.global_batch
        found, num_asked = Sampled([], 0, 0, {}, Counter()), 0
        asked: set[int] = set()  # since all of them were asked last, when there were so many pairs:
        num_before = 0
        while self.every is None or num_waiting + len(found.pairs) < self.every * size:
            if len(asked) == self.num_problems:
                if num_waiting + len(found.pairs) >= size or len(found.pairs) == num_before:
                    break
                asked, num_before = set(), len(found.pairs)
            problems, new = self._sample_next()
            for pair in new.pairs:
                pair[SAMPLED_AT] = step
            found = _together(found, new)
            asked.update(problems)
            num_asked += len(problems)
        return found, num_asked

    def _sample_next(self) -> tuple[list[int], Sampled]:
        """Ask the next problems of the current walk, and return them and what came."""
        state = self.state
        order = list(range(self.num_problems))
        random.Random(request_seed(self.seed, "order", state.passes)).shuffle(order)
        problems = order[state.cursor : state.cursor + self.chunk]
        sampled = self.source.sample(problems, request_seed(self.seed, f"samples {state.passes}", state.cursor))
        state.cursor += len(problems)
        if state.cursor == self.num_problems:
            state.passes, state.cursor = state.passes + 1, 0
        return problems, sampled


def _together(one: Sampled, other: Sampled) -> Sampled:
    return Sampled(
        one.pairs + other.pairs,
        one.num_samples + other.num_samples,
        one.num_truncated + other.num_truncated,
        one.pass_rates | other.pass_rates,
        one.dropped + other.dropped,
    )


def no_pairs(num_problems: int, sampled: Sampled, step: int) -> str:
    """Return why no pair came of the problems: how often each was solved, and what was left out."""
    rates = list(sampled.pass_rates.values())
    bins = Counter(min(int(rate * 10), 9) for rate in rates if 0 < rate < 1)
    shown = [f"never: {rates.count(0.0)}"]
    shown += [f"{low / 10:g} to {(low + 1) / 10:g}: {bins[low]}" for low in sorted(bins)]
    shown += [f"always: {rates.count(1.0)}"]
    reasons = ", ".join(f"{reason}: {number}" for reason, number in sampled.dropped.most_common())
    return (
        f"No pair can be built of the {num_problems} problems of live_data at step {step}. Problems by pass rate: "
        f"{', '.join(shown)}.{f' Left out: {reasons}.' if reasons else ''} A pair needs a right and a wrong sample of "
        "one problem: choose easier or harder problems, or raise live_num_samples, live_max_tokens or the temperature."
    )
