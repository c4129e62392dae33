"""A random state of one's own: an engine in the trainer's process must not draw from the trainer's."""

import random
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch


class RandomState:
    """Inside `with`, random numbers of Python, NumPy and torch come from this state; the process's is left alone.

    random_state = RandomState()
    with random_state:
        engine.step()
    """

    def __init__(self) -> None:
        self._inside = _states()
        self._outside: Any = None

    def seed(self, seed: int) -> None:
        """Begin this state anew."""
        with self:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)

    def __enter__(self) -> Self:
        self._outside = _states()
        _install(self._inside)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._inside = _states()
        _install(self._outside)


def _states() -> tuple[Any, Any, torch.Tensor, torch.Tensor | None]:
    on_gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), on_gpu


def _install(states: tuple[Any, Any, torch.Tensor, torch.Tensor | None]) -> None:
    python, numpy, cpu, gpu = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu)
