"""Several servers as one: who draws which request next, and what happens when one of them fails.

A request goes to the server with the fewest requests in flight, and comes back to the pool if that server fails. A
server that fails rests, twice as long each time; then it is asked whether it is there, and only when it answers does
it get work again. A request is with one server at a time, so it has one sample however often it is tried.

A server that listens no more may hold its connections and never say another word on them: vLLM does so when it is told
to stop while it draws. So a server that is silent is asked too, and if nobody listens there, its requests are taken
back when another process has taken its place, or after a while.

Two things end this: all servers are away for longer than patience; or one request, which may be what makes servers
fail, has been tried for longer than patience, whatever the others got.
"""

import asyncio
import contextlib
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from trl_math.errors import ServerError


T = TypeVar("T")
A = TypeVar("A")

logger = logging.getLogger(__name__)

FIRST_REST = 0.5  # seconds
LONGEST_REST = 10.0
# A request is not given up before it has been tried so often, however little patience there is.
MIN_ATTEMPTS = 5
# How often a consumer that has fallen behind is looked at, in seconds.
BEHIND = 0.05
# After how many seconds without a sample a server is asked whether it is there.
HEARTBEAT = 10.0
# For how many seconds a server that no longer listens may go without a sample before its requests are taken back.
GRACE = 30.0
_KEPT = "What has been drawn is kept: the same command goes on with the rest."


class TryAgain(Exception):
    """A server did not do what it can do: the request may succeed later, or elsewhere."""

    def __init__(self, message: str, *, rest: float = 0.0, is_busy: bool = False, is_gone: bool = False) -> None:
        super().__init__(message.rstrip("."))
        self.rest = rest  # seconds for which the server asks to be left alone
        # There is too much to do, which is no fault of this request's, and which a server that answers may still say.
        self.is_busy = is_busy
        self.is_gone = is_gone  # nobody listens there


@dataclass
class Member(Generic[T]):
    """A server and how it is doing."""

    server: T
    name: str
    is_away: bool = False  # it failed, and gets no work until it has been asked
    is_asked: bool = False  # just now
    ask_at: float = 0.0  # if it is away, the end of its rest
    sampled_at: float = 0.0
    failures: int = 0  # in a row
    failed_at: float = float("-inf")
    failing_since: float | None = None  # since when there was no sign that it can do its work
    gone_since: float | None = None
    last_failure: TryAgain | None = None
    # What is under way there, so that it can be taken back.
    attempts: set[asyncio.Timeout] = field(default_factory=set)

    @property
    def in_flight(self) -> int:
        return len(self.attempts)

    def fail(self, now: float, rest: float, failure: TryAgain) -> None:
        """Note a failure; it rests from now on."""
        self.is_away = True
        self.ask_at = now + rest
        self.failures += 1
        self.failed_at = now
        self.failing_since = now if self.failing_since is None else self.failing_since
        if failure.is_gone and self.gone_since is None:
            self.gone_since = now
        self.last_failure = failure
        if self.gone_since is not None and now - max(self.gone_since, self.sampled_at) > GRACE:
            self.take_back(now)

    def succeed(self, now: float) -> None:
        """Note a sample; if it is away, it stays so until it has been asked."""
        self.failures = 0
        self.failing_since = None
        self.sampled_at = now
        if not self.is_away:
            self.ask_at = now + HEARTBEAT

    def come_back(self, now: float) -> None:
        """Note that it answers, so that it gets work."""
        self.is_away = False
        self.ask_at = now + HEARTBEAT
        if self.gone_since is not None:  # so it is another process that answers
            self.gone_since = None
            self.take_back(now)
        if self.last_failure is not None and not self.last_failure.is_busy:
            self.failing_since = None

    def take_back(self, now: float) -> None:
        """End what is under way there."""
        for attempt in self.attempts:
            if not attempt.expired():
                attempt.reschedule(now)


@dataclass(order=True)
class _Ticket(Generic[T]):
    ready_at: float
    index: int
    request: T = field(compare=False)
    failures: int = field(default=0, compare=False)
    first_failed_at: float = field(default=0.0, compare=False)
    failed_with: Any = field(default=None, compare=False)


class ServerPool(Generic[T, A]):
    """Sends requests to servers until each has its answer.

    `draw(server, request)` returns the answer, or raises `TryAgain`; anything else that it raises ends the run.
    `greet(server)` raises `TryAgain` unless a server that failed answers again. For one call of `run`.
    """

    def __init__(
        self,
        servers: Sequence[tuple[str, Any]],
        draw: Callable[[Any, T], Awaitable[A]],
        greet: Callable[[Any], Awaitable[None]],
        *,
        concurrency: int,
        patience: float,
    ) -> None:
        self.members = [Member(server, name) for name, server in servers]
        self._draw = draw
        self._greet = greet
        self._concurrency = concurrency
        self._patience = patience
        self._failed: list[_Ticket[T]] = []  # a heap: what can be tried again first
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._random = random.Random()  # not the process's, which training and sampling draw from

    async def run(
        self, requests: Iterable[T], deliver: Callable[[int, A], None], has_room: Callable[[], bool] = lambda: True
    ) -> None:
        """Call `deliver(index, answer)` once for each request. While not `has_room()`, no further one is sent."""
        fresh = (_Ticket(0.0, index, request) for index, request in enumerate(requests))
        try:
            while True:
                self._changed.clear()
                self._raise_if_over()
                self._ask_who_is_due()
                is_behind = not has_room()
                is_exhausted = not is_behind and self._send(fresh, deliver)
                if is_exhausted and not self._failed and not self._is_drawing:
                    return
                await self._wait(self._now() + BEHIND if is_behind else float("inf"))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self, fresh: Iterator[_Ticket[T]], deliver: Callable[[int, A], None]) -> bool:
        """Send as much as there are places for; return whether there was no request left to send."""
        while places := [m for m in self.members if not m.is_away and m.in_flight < self._concurrency]:
            is_due = self._failed and self._failed[0].ready_at <= self._now()
            ticket = heapq.heappop(self._failed) if is_due else next(fresh, None)
            if ticket is None:
                return True
            # Rather not where it has just failed.
            member = min(places, key=lambda place: (place is ticket.failed_with, place.in_flight))
            if not member.attempts:
                member.ask_at = self._now() + HEARTBEAT
            attempt = asyncio.timeout(None)
            member.attempts.add(attempt)
            self._start(self._try(member, ticket, attempt, deliver))
        return False

    async def _try(
        self, member: Member, ticket: _Ticket[T], attempt: asyncio.Timeout, deliver: Callable[[int, A], None]
    ) -> None:
        started_at = self._now()
        try:
            answer = await self._within(attempt, self._draw(member.server, ticket.request))
        except TryAgain as failure:
            self._note_failure(member, started_at, failure)
            self._take_back(ticket, member, failure)
        else:
            member.succeed(self._now())
            deliver(ticket.index, answer)
        finally:
            member.attempts.discard(attempt)

    @staticmethod
    async def _within(attempt: asyncio.Timeout, work: Awaitable[A]) -> A:
        try:
            async with attempt:
                return await work
        except TimeoutError:
            raise TryAgain("went away while it drew") from None

    def _note_failure(self, member: Member, started_at: float, failure: TryAgain) -> None:
        """Let a server rest. Requests that were under way when it failed say nothing new by failing too."""
        now = self._now()
        if started_at < member.failed_at:
            member.ask_at = max(member.ask_at, now + failure.rest)
            return
        self._rest(member, failure)

    def _rest(self, member: Member, failure: TryAgain) -> None:
        rest = max(failure.rest, self._backoff(member.failures))
        if not member.is_away:
            logger.warning("%s: %s. Leaving it alone for %.1f s.", member.name, failure, rest)
        member.fail(self._now(), rest, failure)

    def _take_back(self, ticket: _Ticket[T], member: Member, failure: TryAgain) -> None:
        """Put a request back; raise if it has been tried long enough."""
        now = self._now()
        ticket.ready_at = now
        ticket.failed_with = member
        if not failure.is_busy:
            ticket.first_failed_at = now if ticket.failures == 0 else ticket.first_failed_at
            ticket.failures += 1
            elapsed = now - ticket.first_failed_at
            if ticket.failures >= MIN_ATTEMPTS and elapsed > self._patience:
                raise ServerError(
                    f"A request failed {ticket.failures} times in {elapsed:.0f} s, at last with {member.name}: "
                    f"{failure}. Patience was for {self._patience:g} s. {_KEPT}"
                )
            # Another server gets it at once; after that it may be the request that is the trouble.
            ticket.ready_at += self._backoff(ticket.failures - 2) if ticket.failures > 1 else 0.0
        heapq.heappush(self._failed, ticket)

    def _ask_who_is_due(self) -> None:
        for member in self._to_ask():
            if member.ask_at <= self._now():
                member.is_asked = True
                self._start(self._ask(member))

    def _to_ask(self) -> list[Member]:
        """Return the servers that rest or are silent."""
        return [member for member in self.members if (member.is_away or member.attempts) and not member.is_asked]

    async def _ask(self, member: Member) -> None:
        try:
            await self._greet(member.server)
        except TryAgain as failure:
            self._rest(member, failure)
        else:
            if member.is_away:
                logger.info("%s is back.", member.name)
            member.come_back(self._now())
        finally:
            member.is_asked = False

    def _raise_if_over(self) -> None:
        if self._error is not None:
            raise self._error
        if self._now() < self._deadline():
            return
        last = max(self.members, key=lambda member: member.failing_since or 0.0)
        others = f", and so have the other {len(self.members) - 1} servers" if len(self.members) > 1 else ""
        raise ServerError(
            f"{last.name} has failed for {self._now() - (last.failing_since or 0.0):.0f} s{others}: "
            f"{last.last_failure}. Patience was for {self._patience:g} s. {_KEPT}"
        )

    def _deadline(self) -> float:
        """Return when to give up: never while a server is there or a request under way."""
        since = [
            member.failing_since for member in self.members if member.is_away and member.failing_since is not None
        ]
        return (
            max(since) + self._patience if len(since) == len(self.members) and not self._is_drawing else float("inf")
        )

    @property
    def _is_drawing(self) -> bool:
        return any(member.in_flight for member in self.members)

    async def _wait(self, until: float) -> None:
        """Wait until something ends or is due, or until `until`."""
        due = [member.ask_at for member in self._to_ask()]
        if self._failed and self._failed[0].ready_at > self._now():
            due.append(self._failed[0].ready_at)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min([*due, self._deadline(), until])):
                await self._changed.wait()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and task.exception() is not None and self._error is None:
            self._error = task.exception()  # type: ignore[assignment]

    def _backoff(self, failures: int) -> float:
        """Return how long to rest after so many failures before this one: some jitter keeps servers from marching."""
        return min(LONGEST_REST, FIRST_REST * 2.0 ** min(failures, 30)) * self._random.uniform(0.5, 1.0)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
