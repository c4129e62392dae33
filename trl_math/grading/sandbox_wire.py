"""Messages between the sandbox's two sides: JSON with its length before it. Both sides import this file."""

import json
import os
import select
import time
from typing import Any


HEADER = 8
MAX_BYTES = 1 << 28


class WireClosed(Exception):
    """The other side is gone."""


class WireTimeout(Exception):
    """The other side did not answer in time."""


def send(fd: int, message: dict[str, Any]) -> None:
    """Write one message, however long it takes the other side to read it."""
    # ASCII, so that lone surrogates, which models write at times, come through as they are.
    data = json.dumps(message).encode("ascii")
    rest = memoryview(len(data).to_bytes(HEADER, "big") + data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BrokenPipeError as error:
        raise WireClosed from error


def receive(fd: int, seconds: float | None = None) -> dict[str, Any]:
    """Read one message; raise after that many seconds without the whole of it."""
    deadline = None if seconds is None else time.monotonic() + seconds
    length = int.from_bytes(_read(fd, HEADER, deadline), "big")
    if length > MAX_BYTES:
        raise WireClosed
    return json.loads(_read(fd, length, deadline))


def _read(fd: int, length: int, deadline: float | None) -> bytes:
    data = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) < length:
        if deadline is not None and not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise WireTimeout
        chunk = os.read(fd, min(length - len(data), 1 << 16))
        if not chunk:
            raise WireClosed
        data += chunk
    return bytes(data)
