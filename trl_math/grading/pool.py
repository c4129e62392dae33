"""Worker processes that compare answers, each under a deadline that holds: a process that misses it is killed.

Plain child processes and pipes, so that it works wherever Python does: off the main thread, in a daemonic process, in
a forked data loader (which starts its own), under pytest-xdist. Nothing is pickled. One comparison is under way in
each process, so that a kill costs one comparison.
"""

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trl_math
from trl_math.errors import MissingPackageError, TrlMathError
from trl_math.grading.results import Outcome


# Loading SymPy takes a second; on a machine under heavy load, many.
START_SECONDS = 120.0
_MAIN = "from trl_math.grading.worker import main; main()"
_CLOSE_SECONDS = 2.0

Pair = tuple[str, str]  # a gold answer, and the answer to compare with it


class _Worker:
    """One process, and what it is doing: `since` is when that began."""

    def __init__(self, memory_mb: int) -> None:
        # The same modules as here, whatever made `sys.path` what it is.
        path = [*(entry for entry in sys.path if entry), str(Path(trl_math.__file__).parents[1])]
        start = f"import sys; sys.path[:] = {path!r}; {_MAIN}"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", start, str(memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout
        self.requests, self.replies = self.process.stdin, self.process.stdout
        self.child: int | None = None  # the process that compares; None while there is none
        self.task: int | None = None
        self.request = 0  # the number of the last request; a reply to another comes too late
        self.since = time.monotonic()
        self.received = b""

    def send(self, task: int, pair: Pair, deadline: float) -> bool:
        """Hand over a comparison; False if the process is gone."""
        self.task, self.since, self.request = task, time.monotonic(), self.request + 1
        request = {"id": self.request, "gold": pair[0], "answer": pair[1], "deadline": deadline}
        try:
            os.write(self.requests.fileno(), json.dumps(request).encode() + b"\n")
        except OSError:
            return False
        return True

    def messages(self) -> Iterator[dict[str, Any] | None]:
        """Yield what the process has said; None at the end of its output."""
        try:
            piece = os.read(self.replies.fileno(), 65536)
        except OSError:
            piece = b""
        if not piece:
            yield None
            return
        *lines, self.received = (self.received + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def kill_child(self) -> None:
        """Kill the process that compares; another takes its place and says so."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGKILL)
        self.child, self.task, self.since = None, None, time.monotonic()

    def close(self, *, at_once: bool) -> None:
        """End the process and what it started."""
        for pipe in (self.requests, self.replies):
            with contextlib.suppress(OSError):
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.process.wait(0 if at_once else _CLOSE_SECONDS) == 0:
                return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def forget(self) -> None:
        """Let go of a process that belongs to the parent of a fork."""
        for pipe in (self.requests, self.replies):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.returncode = 0  # or its finaliser would wait for it


class Pool:
    """Up to `num_workers` processes, started when there is something to compare and kept until `close`."""

    def __init__(self, num_workers: int, memory_mb: int) -> None:
        self.num_workers = num_workers
        self.memory_mb = memory_mb
        self.workers: list[_Worker] = []
        self.num_deaths = 0  # of processes that nobody here has killed
        self.lock = threading.RLock()
        _POOLS.add(self)

    def compare(self, pairs: Sequence[Pair], deadline: float) -> list[Outcome]:
        """Return the outcome of each comparison, none of which takes more than `deadline` seconds."""
        if not pairs:
            return []
        with self.lock:
            try:
                return _Run(self, pairs, deadline).outcomes()
            except BaseException:  # also Ctrl-C: what is under way has no one to go to
                self.close(at_once=True)
                raise

    def start(self) -> _Worker:
        worker = _Worker(self.memory_mb)
        self.workers.append(worker)
        return worker

    def discard(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.close(at_once=True)

    def close(self, *, at_once: bool = False) -> None:
        """End all processes. The pool can be used again; it then starts new ones."""
        with self.lock:
            workers, self.workers = self.workers, []
            for worker in workers:
                worker.close(at_once=at_once)

    def forget(self) -> None:
        """After a fork: the processes are the parent's, and the lock may be held by a thread that is not here."""
        self.lock = threading.RLock()
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.forget()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close(at_once=True)


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool.forget()


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close(at_once=True)


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_close_all)


class _Run:
    """One list of comparisons, from the first request to the last reply."""

    def __init__(self, pool: Pool, pairs: Sequence[Pair], deadline: float) -> None:
        self.pool = pool
        self.pairs = pairs
        self.deadline = deadline
        self.results: list[Outcome | None] = [None] * len(pairs)
        self.waiting = list(range(len(pairs) - 1, -1, -1))
        self.num_starts = 0
        self.tried_twice: set[int] = set()

    def outcomes(self) -> list[Outcome]:
        with selectors.DefaultSelector() as self.selector:
            for worker in self.pool.workers:
                worker.task, worker.since = None, time.monotonic()
                self._watch(worker)
            while len(self.pool.workers) < min(self.pool.num_workers, len(self.pairs)):
                self._start()
            while self._is_under_way():
                self._assign()
                for key, _ in self.selector.select(self._patience()):
                    self._hear(key.data)
                self._enforce()
        return [result or Outcome(False, "worker_died") for result in self.results]

    def _is_under_way(self) -> bool:
        return bool(self.waiting) or any(worker.task is not None for worker in self.pool.workers)

    def _watch(self, worker: _Worker) -> None:
        self.selector.register(worker.replies, selectors.EVENT_READ, worker)

    def _start(self) -> None:
        self.num_starts += 1
        self._watch(self.pool.start())

    def _assign(self) -> None:
        for worker in list(self.pool.workers):
            if self.waiting and worker.child is not None and worker.task is None:
                task = self.waiting.pop()
                if not worker.send(task, self.pairs[task], self.deadline):
                    self._lost(worker)

    def _hear(self, worker: _Worker) -> None:
        for message in worker.messages():
            if message is None:
                self._lost(worker)
            elif "failed" in message:
                raise MissingPackageError(
                    f"Grading mathematics needs math-verify, which cannot be imported: {message['failed']}. "
                    "pip install 'math-verify[antlr4_13_2]>=0.9'."
                )
            elif "ready" in message:
                self._died(worker, message["died"] or "worker_died")
                worker.child, worker.since = message["ready"], time.monotonic()
            elif message["id"] == worker.request and worker.child is not None:
                self._settle(worker, Outcome(message["correct"], message["reason"]))

    def _settle(self, worker: _Worker, outcome: Outcome) -> None:
        if worker.task is not None:
            self.results[worker.task] = outcome
            worker.task = None

    def _died(self, worker: _Worker, reason: str) -> None:
        """Note a death. What was under way is tried once more if it may not have been the cause."""
        if worker.child is None:
            return  # it had nothing to do yet, or was killed here
        self.pool.num_deaths += 1
        task = worker.task
        if task is not None and reason == "worker_died" and task not in self.tried_twice:
            self.tried_twice.add(task)
            self.waiting.append(task)
            worker.task = None
        self._settle(worker, Outcome(False, reason))

    def _lost(self, worker: _Worker) -> None:
        """Replace a process that has ended as a whole."""
        self._died(worker, "worker_died")
        self.selector.unregister(worker.replies)
        self.pool.discard(worker)
        if self.num_starts > 2 * len(self.pairs) + 3 * self.pool.num_workers:
            raise TrlMathError(
                "The processes that grade keep ending before they compare anything. Is there memory enough for SymPy "
                f"(memory_mb is {self.pool.memory_mb})?"
            )
        if self.waiting:
            self._start()

    def _patience(self) -> float | None:
        """Return the seconds until the next process is late; None if all have time."""
        ends = [end for worker in self.pool.workers if (end := self._end(worker)) is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _end(self, worker: _Worker) -> float | None:
        """Return when a process must have answered or started; None if it has nothing to do."""
        if worker.task is not None:
            return worker.since + self.deadline
        return worker.since + START_SECONDS if worker.child is None else None

    def _enforce(self) -> None:
        for worker in list(self.pool.workers):
            end = self._end(worker)
            if end is None or time.monotonic() < end:
                continue
            if worker.task is None:
                raise TrlMathError(f"A process that grades has not started within {START_SECONDS:.0f} seconds.")
            self._settle(worker, Outcome(False, "timeout"))
            worker.kill_child()
