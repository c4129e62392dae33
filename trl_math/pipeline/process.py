"""A stage's process: started so that it cannot outlive the runner unseen, heard through its log, ended when told."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trl_math.share import END_SECONDS, PR_SET_PDEATHSIG


TOLD_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_SECONDS = 0.25


class ToldToEnd(BaseException):
    """One of `TOLD_BY` came."""

    def __init__(self, number: int) -> None:
        self.number = number


def hear_signals() -> None:
    """Let the first signal that asks this process to end raise `ToldToEnd`, wherever it is; later ones do nothing."""

    def end(number: int, frame: Any) -> None:
        for other in TOLD_BY:
            signal.signal(other, signal.SIG_IGN)
        raise ToldToEnd(number)

    for number in TOLD_BY:
        # What nohup, or a shell that starts a command with &, has it ignore stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def run_stage(words: Sequence[str], log: Path, hear: Callable[[str], None], lock: int) -> int:
    """Run one command of this program to its end and return its exit status, negative for a signal.

    What it says is appended to `log`, and `hear` is told each line. `lock` is an open file that it keeps open.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trl_math.cli.main", *words]
    runner, libc = os.getpid(), ctypes.CDLL(None)

    def begin() -> None:
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != runner:  # it was gone before we asked
                os._exit(1)

    with log.open("ab") as out, log.open("rb") as read:
        read.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            pass_fds=[lock],
            process_group=0,  # signals come through the runner, once
            preexec_fn=begin,  # safe: this process has no threads
        )
        lines = _Lines(hear)
        try:
            while process.poll() is None:
                lines.take(read.read())
                time.sleep(POLL_SECONDS)
        except BaseException as error:
            _end(process, error.number if isinstance(error, ToldToEnd) else signal.SIGTERM)
            raise
        finally:
            lines.take(read.read() + b"\n")
    if process.returncode:
        _signal_group(process, signal.SIGKILL)  # what it may have started and left behind
    return process.returncode


class _Lines:
    """Cuts what is read into lines; of one that was written over, as progress bars are, the last state counts."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear = hear
        self._rest = b""

    def take(self, read: bytes) -> None:
        *whole, self._rest = (self._rest + read).split(b"\n")
        for line in whole:
            text = line.decode(errors="replace").rstrip("\r").rpartition("\r")[2]
            if text.strip():
                self._hear(text)


def _end(process: subprocess.Popen[bytes], number: int) -> None:
    """Pass a signal on to a stage and everything that it started; kill what does not end in time."""
    _signal_group(process, number)
    try:
        process.wait(timeout=END_SECONDS + 5)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
