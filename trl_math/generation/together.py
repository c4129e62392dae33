"""Processes that must agree: every one gets every one's value, and a failure of one is raised on all.

A process that stops while the others go on to the next collective call leaves them waiting until a timeout, often half
an hour later and with a message about the network.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from trl_math.errors import TrlMathError


def place() -> tuple[int, int]:
    """Return this process's rank, and how many processes there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def gather(value: Any) -> list[Any]:
    """Return the value of every process, by rank."""
    _, world = place()
    if world == 1:
        return [value]
    values: list[Any] = [None] * world
    dist.all_gather_object(values, value)
    return values


@contextmanager
def everyone_or_nobody(doing: str) -> Iterator[None]:
    """Raise on every process what was raised on one of them. A collective call inside must be made whatever fails."""
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    said = gather(None if error is None else " ".join(str(error).split()) or repr(error))
    if error is not None:
        raise error
    failures = [f"process {rank}: {text}" for rank, text in enumerate(said) if text is not None]
    if failures:
        raise TrlMathError(f"{doing} failed on {'; '.join(failures)}")
