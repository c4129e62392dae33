"""Training batches of live examples only: screen by a forward pass, queue the survivors, refill from the data set.

With coverage, an example that N attempts already solve has F(N, p) near 0 and is dead weight in a batch. Before each
optimiser step the next global batch of candidates is scored under the current weights; those above the threshold join
a first-in-first-out queue, and a step is taken whenever the queue holds a whole global batch.

Paper: https://huggingface.co/papers/2502.07154 (section on the filtering threshold). Differences from the published
code: the queue and the position in the data survive a checkpoint; no index is repeated or lost where an epoch ends on
a batch boundary; screening runs in micro-batches; F is screened in evaluation mode (no dropout).

With `unscreened_steps` it is not F that is scored but whether a problem's pass rate is below the gate, which holds
from that step on; with live screening pass rates are estimated, of more candidates at a time. Either way, what waits
in the queue is looked at again before each step.

Accounting. A *pass* is one shuffled walk over the data set; every example is screened exactly once in each. What the
Trainer calls an epoch is one pass (or as many as it takes to fill one batch). Survivors left in the queue at its end
start the next one. All processes hold the same queue and screen different slices of the same candidates.
"""

import logging
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback


logger = logging.getLogger(__name__)


@dataclass
class RefillState:
    """Everything needed to go on exactly where a run stopped; plain JSON in a checkpoint."""

    passes: int = 0  # walks over the data set that are finished
    cursor: int = 0  # candidates already screened in the current walk
    epoch: int = 0  # what the Trainer calls the epoch
    epoch_steps: int = 0  # optimiser steps taken in it
    live_in_pass: int = 0  # survivors of the current walk
    num_rows: int = 0  # of the data set that the row numbers are of
    queue: list[int] = field(default_factory=list)  # rows that survived and wait
    num_screened: int = 0
    num_discarded: int = 0

    def resume(self, global_batch: int) -> int:
        """Return the Trainer's epoch to go on with: after the last step of a walk, and so of its epoch, the next."""
        if self.cursor == 0 and self.passes > 0 and len(self.queue) < global_batch:
            self.epoch, self.epoch_steps, self.live_in_pass = self.epoch + 1, 0, 0
        return self.epoch


class StepShape(NamedTuple):
    """How one optimiser step is cut up."""

    micro_batch: int
    num_accumulation: int
    num_processes: int
    rank: int

    @property
    def global_batch(self) -> int:
        """Examples in one optimiser step."""
        return self.micro_batch * self.num_accumulation * self.num_processes

    def mine(self, rows: list[int]) -> Iterator[list[int]]:
        """Yield this process's micro-batches of a global batch."""
        for start in range(0, self.global_batch, self.micro_batch * self.num_processes):
            first = start + self.rank * self.micro_batch
            yield rows[first : first + self.micro_batch]


def warn_of_end() -> None:
    """Say that the data set has nothing more to train on."""
    logger.warning("No example passes the screening: there is nothing more to train on.")


class RefillLoader:
    """What `Trainer` iterates in place of a DataLoader: yields this process's micro-batches of live examples.

    Args:
        dataset: The tokenised training set.
        shape: How one optimiser step is cut up.
        score: Takes row numbers (the same on all processes) and returns one F for each, under the current weights.
        collate: Takes row numbers and returns a micro-batch.
        threshold: Rows with F at or below it are discarded.
        max_passes: Walks over the data set before training ends; infinite where `max_steps` decides.
        look_again: As `score`, for rows that wait in the queue, before every step; None: they stay as they are.
        chunk: Candidates that are scored together; by default those of one step.
        on_dead: Called when a whole walk found nothing to train on, which ends training.
    """

    def __init__(
        self,
        dataset: Sized,
        shape: StepShape,
        score: Callable[[list[int]], list[float]],
        collate: Callable[[list[int]], Any],
        threshold: float,
        seed: int,
        max_passes: float,
        look_again: Callable[[list[int]], list[float]] | None = None,
        chunk: int | None = None,
        on_dead: Callable[[], None] = warn_of_end,
    ) -> None:
        self.dataset, self.shape, self.threshold, self.seed = dataset, shape, threshold, seed
        self._score, self.collate, self._max_passes = score, collate, max_passes
        self._look_again, self._chunk, self._on_dead = look_again, chunk or shape.global_batch, on_dead
        self.rows: list[int] = []  # of the current step
        self._is_dead = False  # a whole walk without a single live example: the next would be no other
        self.is_empty_epoch = True
        self.state = RefillState(num_rows=len(dataset))

    def __len__(self) -> int:
        """Return the most micro-batches an epoch can have: survivors carried over add less than one step."""
        return -(-len(self.dataset) // self.shape.global_batch) * self.shape.num_accumulation

    def set_epoch(self, epoch: int) -> None:
        """Take note of the Trainer's epoch. A new one begins a walk, though nobody asked for more than the last step.

        (Trainer asks no further where an epoch has as many steps as it can have.)
        """
        if epoch != self.state.epoch:
            self.state.epoch, self.state.epoch_steps, self.state.live_in_pass = epoch, 0, 0

    @property
    def progress(self) -> float:
        """Walks over the data set so far, as a fraction: the honest epoch number."""
        return self.state.passes + self.state.cursor / len(self.dataset)

    @property
    def is_finished(self) -> bool:
        """Whether all the passes that were asked for are done, or nothing is left to train on."""
        return self._is_dead or self.progress >= self._max_passes

    def __iter__(self) -> Iterator[Any]:
        """Yield one epoch: a pass, or several if one does not fill a single batch; none if nothing is alive."""
        self.is_empty_epoch = True
        yield from self._take_steps()  # where a run stopped after the pass was screened and before it was trained on
        while not self.is_finished and (self.state.epoch_steps == 0 or self.state.cursor > 0):
            for _ in self._screen_pass():
                yield from self._take_steps()
            self._is_dead, self.state.live_in_pass = self.state.live_in_pass == 0, 0
        self.state.epoch_steps = self.state.live_in_pass = 0
        if self._is_dead:
            self._on_dead()

    def _take_steps(self) -> Iterator[Any]:
        """Yield the micro-batches of all the steps that the queue is full enough for."""
        while self._is_step_ready():
            size = self.shape.global_batch
            self.state.epoch_steps += 1
            self.is_empty_epoch = False
            self.rows, self.state.queue = self.state.queue[:size], self.state.queue[size:]
            yield from map(self.collate, self.shape.mine(self.rows))

    def _is_step_ready(self) -> bool:
        """Discard what waits and is no longer live, where that can be told; return whether enough is left."""
        waiting = self.state.queue
        if self._look_again is not None and len(waiting) >= self.shape.global_batch:
            self.state.queue = self._live(waiting, self._look_again(waiting))
            self.state.num_discarded += len(waiting) - len(self.state.queue)
        return len(self.state.queue) >= self.shape.global_batch

    def _live(self, rows: list[int], weights: list[float]) -> list[int]:
        return [row for row, weight in zip(rows, weights, strict=True) if weight > self.threshold]

    def _screen_pass(self) -> Iterator[None]:
        """Screen what is left of the current pass, some candidates at a time; yield after each."""
        generator = torch.Generator().manual_seed(self.seed + self.state.passes)
        order = torch.randperm(len(self.dataset), generator=generator).tolist()
        number = self.state.passes
        while self.state.passes == number and not self.is_finished:
            candidates = order[self.state.cursor : self.state.cursor + self._chunk]
            live = self._live(candidates, self._score(candidates))
            self.state.queue += live
            self.state.live_in_pass += len(live)
            self.state.num_screened += len(candidates)
            self.state.num_discarded += len(candidates) - len(live)
            self.state.cursor += len(candidates)
            if self.state.cursor == len(order):  # counted before the step, so that its checkpoint says so
                self.state.passes, self.state.cursor = number + 1, 0
            yield


class RefillCallback(TrainerCallback):
    """Keeps the epoch number of a trainer honest, and ends training when the passes are done."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = self._trainer._refill.progress

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.epoch = self._trainer._refill.progress
        if self._trainer._refill.is_empty_epoch:
            # Trainer takes an epoch without a step for the end of the data. It is one, or the rest of a pass that was
            # resumed and had too few live examples for another step.
            control.should_training_stop = False
        control.should_training_stop |= self._trainer._refill.is_finished
