"""Which part of the work, and of the machine, belongs to this process when several sample side by side.

Processes come about in two ways: `data_parallel_size` starts them from here, and `accelerate launch` (or torchrun)
started them before. Either way a process has one engine, on devices of its own.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from trl_math.errors import UsageError


# How a process that was started from here knows its part.
PART_VARIABLE = "TRL_MATH_ENGINE"
# And who started it: the process that it ends with.
PARENT_VARIABLE = "TRL_MATH_PARENT"
# Seconds in which a process that is told to end may end its engine. SLURM kills everything after 30.
END_SECONDS = 20
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class Part(NamedTuple):
    """This process among those that share the work."""

    index: int = 0
    number: int = 1
    is_child: bool = False  # started from here, its devices chosen already


def own_part() -> Part:
    """Return which part of the work is this process's."""
    if text := os.environ.get(PART_VARIABLE):
        index, number = map(int, text.split("/"))
        return Part(index, number, is_child=True)
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal()) or (int(world) > 1 and not int(rank) < int(world)):
        raise UsageError(f"RANK is {rank!r} and WORLD_SIZE {world!r}, as no launcher sets them: unset both.")
    # A rank without a world is left over from something else.
    return Part(int(rank), int(world)) if int(world) > 1 else Part()


def take_own_devices(part: Part) -> None:
    """Leave this process of a launch one GPU, or its share of the processor; before anything asks for devices.

    A process that was started from here has its devices, and is made to end with its parent.
    """
    if part.is_child and (parent := os.environ.pop(PARENT_VARIABLE, None)):
        _end_with_parent(int(parent))
    if part.number > 1 and not part.is_child:
        index, number = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        os.environ.update(devices_of(index, number, 1))
        if threads := os.environ.get("OMP_NUM_THREADS"):
            import torch  # noqa: PLC0415 - heavy

            torch.set_num_threads(int(threads))  # it may have been imported before the variable was set


def run_parts(argv: Sequence[str], number: int, gpus_each: int) -> int:
    """Run this command in `number` processes, each with its part; return the exit status: the first that is not 0.

    One that fails does not stop the others: what they write stays, and the same command does the rest. When this
    process is told to end, they end with it.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with _told_to_end():
            for index in range(number):
                part = {PART_VARIABLE: f"{index}/{number}", PARENT_VARIABLE: str(os.getpid())}
                words = [sys.executable, "-m", "trl_math.cli.main", *argv]
                environment = {**os.environ, **devices_of(index, number, gpus_each), **part}
                processes.append(subprocess.Popen(words, env=environment))
            statuses = [process.wait() for process in processes]
    except _ToldToEnd as told:
        name = signal.Signals(told.number).name
        sys.stderr.write(f"trl-math: ended by {name}. The same command goes on where it stopped.\n")
        return 128 + told.number
    finally:
        _end(processes)
    for index, status in enumerate(statuses):
        if status < 0:
            name = signal.Signals(-status).name
            sys.stderr.write(f"trl-math: the process of part {index}/{number} was ended by {name}.\n")
    return next((abs(status) for status in statuses if status), 0)


class _ToldToEnd(BaseException):
    """SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """Raise `_ToldToEnd` at SIGTERM and SIGHUP, which would end this process and leave the others alone."""

    def end(number: int, frame: Any) -> None:
        raise _ToldToEnd(number)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python hears signals in the main thread only
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    heard = [number for number, handler in before.items() if handler != signal.SIG_IGN]  # nohup's stays ignored
    try:
        for number in heard:
            signal.signal(number, end)
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End those that still run: ask them to, and kill those that do not in time."""
    for process in processes:
        if process.poll() is None:
            process.terminate()  # SIGINT would be ignored, or be a traceback, by one that has hardly begun
    deadline = time.monotonic() + END_SECONDS + 5
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent(parent: int) -> None:
    """End this process, and its engine, when it is told to or when its parent is gone, however that ended."""

    def end(number: int, frame: Any) -> None:
        # Only once: a launcher, a terminal and the parent may all tell it, which must not disturb the engine's end.
        for other in heard:
            signal.signal(other, signal.SIG_IGN)
        signal.alarm(END_SECONDS)  # whatever hangs then, the system ends it
        raise KeyboardInterrupt

    # A shell that starts a command with & lets it ignore SIGINT; these processes hear it from their parent.
    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    for number in heard:
        signal.signal(number, end)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before we asked
        raise KeyboardInterrupt


def devices_of(index: int, number: int, gpus_each: int) -> dict[str, str]:
    """Return the environment that gives process `index` of `number` on this machine its devices and no others."""
    gpus = visible_gpus()
    if not gpus:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
        mine = cores[index::number] if number <= len(cores) else [cores[index % len(cores)]]
        # vLLM binds its threads to cores, by default all engines to the same.
        return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, mine)), "OMP_NUM_THREADS": str(len(mine))}
    if number * gpus_each > len(gpus):
        raise UsageError(
            f"{number} engines of {gpus_each} GPUs need {number * gpus_each}; {len(gpus)} are visible: lower "
            "data_parallel_size or tensor_parallel_size."
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[index * gpus_each : (index + 1) * gpus_each])}


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    if (text := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in text.split(",") if name.strip()]
        return names[: names.index("-1")] if "-1" in names else names  # CUDA stops at the first that is none
    import torch  # noqa: PLC0415 - heavy

    return [str(index) for index in range(torch.cuda.device_count())]
