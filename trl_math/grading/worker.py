"""The process that compares with SymPy: requests come in as lines of JSON, outcomes go out.

It loads SymPy once and forks a child that does the work. The pool kills the child that misses its deadline, and a new
one is there in milliseconds. Request: `{"id", "gold", "answer", "deadline"}`. Reply: `{"id", "correct", "reason"}`,
and `{"ready": pid, "died": reason}` whenever a child starts.

Limits hold also if the parent is gone: memory by RLIMIT_AS, time by RLIMIT_CPU, whose signal ends the process inside
the C library, where no Python handler runs. When the parent's end of the pipe closes, both processes end.
"""

import json
import os
import resource
import signal
import sys
from typing import Any


_OUT_OF_MEMORY = 3
# Seconds of processor time beyond the deadline, which the parent's clock keeps.
_GRACE = 5


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    requests, replies = os.dup(0), os.dup(1)
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)  # no library may write between the lines
    _limit(resource.RLIMIT_CORE, 0)
    try:
        judge = _judge()
    except ImportError as error:
        _write(replies, {"failed": str(error)})
        return
    _limit(resource.RLIMIT_AS, int(sys.argv[1]) * 2**20)
    died = None
    while True:
        child = os.fork()
        if child == 0:
            os._exit(_serve(requests, replies, judge, died))
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            return
        died = _cause(status)


def _cause(status: int) -> str:
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _OUT_OF_MEMORY:
        return "memory"
    return "timeout" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU else "worker_died"


def _limit(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _judge() -> Any:
    from trl_math.grading.cascade import Cascade  # noqa: PLC0415  # SymPy, which only this process loads

    judge = Cascade()
    # The parser learns its grammar from what it reads; what it learns now, no child has to.
    for gold, answer in (
        ("x^2-\\frac{1}{2}", "(x+\\frac{1}{\\sqrt{2}})(x-\\frac{1}{\\sqrt{2}})"),
        ("\\sqrt{2}", "2^{0.5}"),
    ):
        judge.outcome(gold, answer)
    return judge


def _serve(requests: int, replies: int, judge: Any, died: str | None) -> int:
    _write(replies, {"ready": os.getpid(), "died": died})
    try:
        while line := _line(requests):
            request = json.loads(line)
            used = resource.getrusage(resource.RUSAGE_SELF)
            seconds = used.ru_utime + used.ru_stime + request["deadline"] + _GRACE
            _limit(resource.RLIMIT_CPU, int(seconds) + 1)
            correct, reason = judge.outcome(request["gold"], request["answer"])
            _write(replies, {"id": request["id"], "correct": correct, "reason": reason})
    except MemoryError:
        return _OUT_OF_MEMORY
    except BrokenPipeError:
        pass
    return 0


def _line(requests: int) -> bytes:
    """Return the next request. There is never more than one under way."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(requests, 65536)
        if not piece:
            return b""
        line += piece
    return line


def _write(replies: int, message: dict[str, Any]) -> None:
    os.write(replies, json.dumps(message).encode() + b"\n")
