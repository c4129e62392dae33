"""The sandbox's own interpreter: it confines itself, then runs one program after the other, each in a fork of it.

Started with nothing of the parent's but its pipes. A fork of a process that is there already costs milliseconds, where
an interpreter costs tens and `import sympy` hundreds, so packages that programs use are imported here, once. This
process runs nothing of a program's itself. It reads what the program writes, up to the limit, ends it at the deadline,
and when its parent is gone it ends too, whatever is still running.
"""

import contextlib
import errno
import gc
import importlib
import importlib.util
import os
import random  # noqa: F401 - so that a program's random numbers can be started from one seed
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from sandbox_program import CONFINED, SEEDED, Streams, be_program
from sandbox_wire import WireClosed, receive, send


REQUESTS, REPLIES = 0, 1
READ_SIZE = 1 << 16
MAX_STATUS = 1 << 13


class Guard:
    """No confinement by the kernel: limits, a session of its own, and Python's audit hook."""

    may_write = False
    kept: tuple[int, ...] = ()

    def __init__(self, settings: dict[str, Any]) -> None:
        self.folder = settings["folder"]
        has_statm = os.path.exists("/proc/self/statm")
        self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC) if has_statm else None

    def open_folder(self, size: int) -> None:
        """Nothing can be written, so the folder is as it was."""

    def close_folder(self) -> None:
        """Nothing to do."""

    def confine(self) -> None:
        """Nothing that the kernel would do."""


class Packages:
    """Finds the chosen packages, and none of those that are installed beside them."""

    def __init__(self, places: dict[str, str]) -> None:
        self.places = places

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        place = self.places.get(name)
        if path is not None or place is None:
            return None
        if place.endswith(".py"):
            return importlib.util.spec_from_file_location(name, place)
        return importlib.util.spec_from_file_location(name, f"{place}/__init__.py", submodule_search_locations=[place])


def main() -> None:
    """Confine this process, say so, and serve until the parent hangs up."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # whoever else fills the memory: it is a program that goes, and not a training run
    with contextlib.suppress(WireClosed):
        settings = receive(REQUESTS)
        with _working_folder(settings):
            _serve_all(settings)
    os._exit(0)


@contextlib.contextmanager
def _working_folder(settings: dict[str, Any]) -> Iterator[None]:
    """A folder for programs to stand in, where the mode has no file system of its own to make one in.

    It is made here and not by the parent, so that it goes whenever the parent is gone, at the start too.
    """
    if settings["temporary"] is None:
        yield
        return
    settings["folder"] = tempfile.mkdtemp(prefix="trl-math-program-", dir=settings["temporary"])
    try:
        yield
    finally:
        shutil.rmtree(settings["folder"], ignore_errors=True)


def _serve_all(settings: dict[str, Any]) -> None:
    try:
        confinement = _confinement(settings)
    except OSError as error:
        send(REPLIES, {"failed": str(error)})
        return
    sys.path.pop()  # the folder of this file
    sys.dont_write_bytecode = True
    sys.meta_path.append(Packages(settings["packages"]))
    send(REPLIES, {"ready": True, "folder": settings.get("folder")})
    while True:
        request = receive(REQUESTS)
        _import(request["preload"])
        send(REPLIES, _serve(confinement, settings, request))


def _confinement(settings: dict[str, Any]) -> Any:
    if settings["mode"] == "namespaces":
        from sandbox_namespaces import Namespaces  # noqa: PLC0415 - Linux alone has what it needs

        return Namespaces(settings)
    if settings["mode"] == "landlock":
        from sandbox_landlock import Landlock  # noqa: PLC0415

        return Landlock(settings)
    return Guard(settings)


def _import(names: list[str]) -> None:
    for name in names:
        try:
            for module in (name, *(seeded for seeded in SEEDED if seeded.startswith(f"{name}."))):
                importlib.import_module(module)
        except Exception:  # the program will meet the same error, and its outcome says so
            continue
    if names:
        gc.collect()
        gc.freeze()  # a collection in a fork would touch, and so copy, every object there is


def _serve(confinement: Any, settings: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    limits = request["limits"]
    confinement.open_folder(limits["files"])
    try:
        return Watch(limits).run(confinement, settings, request)
    finally:
        confinement.close_folder()


class Watch:
    """One program, from its fork to its end."""

    def __init__(self, limits: dict[str, Any]) -> None:
        self.limits = limits
        self.limit_by_name = {"stdout": limits["output"], "stderr": limits["output"], "status": MAX_STATUS}
        self.data = {name: bytearray() for name in self.limit_by_name}
        self.ended_for: str | None = None

    def run(self, confinement: Any, settings: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        """Fork, watch, and return what is to be told."""
        pipes = {name: os.pipe() for name in self.limit_by_name}
        stdin = _stdin(request["stdin"])
        size = _size(confinement.statm)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            be_program(confinement, settings, request, Streams(stdin, *(write for _, write in pipes.values())), size)
        for _, write in pipes.values():
            os.close(write)
        os.close(stdin)
        self.readers = {read: name for name, (read, _) in pipes.items()}
        for read in self.readers:
            os.set_blocking(read, False)
        wait_status, usage = self._watch(pid, start + self.limits["seconds"])
        for read in list(self.readers):
            self._drain(read)
        seconds = time.monotonic() - start
        for read, _ in pipes.values():
            os.close(read)
        return self._reply(wait_status, usage, seconds)

    def _watch(self, pid: int, deadline: float) -> tuple[int, Any]:
        poll = select.poll()
        poll.register(REQUESTS, 0)  # says when the parent hangs up
        for read in self.readers:
            poll.register(read, select.POLLIN)
        handle = _process_handle(pid)
        if handle is not None:
            poll.register(handle, select.POLLIN)
        longest = 1.0 if handle is not None else 0.005
        try:
            while True:
                found, wait_status, usage = os.wait4(pid, os.WNOHANG)
                if found:
                    return wait_status, usage
                left = deadline - time.monotonic()
                if left <= 0:
                    self._end(pid, "timeout")
                for fd, _ in poll.poll(max(0.001, min(left, longest)) * 1000):
                    if fd == REQUESTS:
                        self._end(pid, "error")
                        os.waitpid(pid, 0)
                        raise WireClosed
                    if fd != handle and not self._drain(fd):
                        poll.unregister(fd)
                        del self.readers[fd]
                if any(len(self.data[name]) > limit for name, limit in self.limit_by_name.items()):
                    self._end(pid, "output_limit")
        finally:
            if handle is not None:
                os.close(handle)

    def _end(self, pid: int, why: str) -> None:
        self.ended_for = self.ended_for or why
        os.kill(pid, signal.SIGKILL)

    def _drain(self, fd: int) -> bool:
        """Read what there is, one byte above the limit at most. Return whether more may come."""
        name = self.readers[fd]
        data = self.data[name]
        try:
            while (room := self.limit_by_name[name] + 1 - len(data)) > 0:
                chunk = os.read(fd, min(room, READ_SIZE))
                if not chunk:
                    return False
                data += chunk
        except OSError as error:
            return error.errno == errno.EAGAIN
        return True

    def _reply(self, wait_status: int, usage: Any, seconds: float) -> dict[str, Any]:
        # The program could write lines of its own to the status pipe. They come after the first, and tell of it alone.
        first, _, rest = bytes(self.data["status"]).partition(b"\n")
        if first + b"\n" != CONFINED:
            return {"not_confined": first.decode(errors="replace") or "the process ended before it was confined"}
        lines = rest.decode(errors="replace").splitlines()
        raised = next((line.removeprefix("raised ") for line in lines if line.startswith("raised ")), None)
        refusals = [line.removeprefix("refused ") for line in lines if line.startswith("refused ")]
        status, reason = self._status(wait_status, usage, raised)
        limit = self.limits["output"]
        return {
            "status": status,
            "reason": reason,
            "stdout": bytes(self.data["stdout"][:limit]).decode(errors="replace"),
            "stderr": bytes(self.data["stderr"][:limit]).decode(errors="replace"),
            "seconds": seconds,
            "refusals": refusals,
        }

    def _status(self, wait_status: int, usage: Any, raised: str | None) -> tuple[str, str]:
        code = os.waitstatus_to_exitcode(wait_status)
        seconds, memory = self.limits["seconds"], self.limits["memory"]
        used = usage.ru_utime + usage.ru_stime
        outputs = [len(self.data[name]) > self.limits["output"] for name in ("stdout", "stderr")]
        if self.ended_for == "output_limit" or any(outputs):
            return "output_limit", f"wrote more than {self.limits['output']} bytes"
        if self.ended_for == "timeout" or (code in (-signal.SIGKILL, -signal.SIGXCPU) and used >= seconds):
            return "timeout", f"ran longer than {seconds:g} seconds"
        if raised == "memory":
            return "memory", f"needed more than {memory} bytes of memory"
        if code == -signal.SIGKILL and usage.ru_maxrss * 1024 > memory // 2:
            return "memory", "the machine ran out of memory"
        if code == -signal.SIGSYS or (raised == "refused" and code):
            return "refused", "did what the sandbox does not allow"
        if code < 0:
            return "error", f"ended by {signal.Signals(-code).name}"
        return ("ok", "") if code == 0 else ("error", raised or f"exit status {code}")


def _process_handle(pid: int) -> int | None:
    """Return a descriptor that wakes us when the process ends, where the system has such."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _stdin(text: str) -> int:
    """Return a descriptor from which the text can be read."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY)
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("stdin")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    rest = memoryview(text.encode(errors="replace"))
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _size(statm: int | None) -> int:
    """Return how many bytes this process, and so a fork of it, has taken up; 0 if that cannot be known."""
    if statm is None:
        return 0
    return int(os.pread(statm, 100, 0).split()[0]) * os.sysconf("SC_PAGE_SIZE")
