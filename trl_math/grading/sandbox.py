"""Model-written Python, run so that it can neither hang, nor harm, nor see what is not its business.

    outcome = run_program("print(6 * 7)")             # Outcome(status="ok", stdout="42\\n", ...)
    outcomes = run_programs(codes, workers=8)         # in order; status_counts(outcomes) counts them
    with Sandbox(limits=Limits(seconds=5)) as sandbox:  # many calls, no new start for each
        outcomes = sandbox.run(codes)

What happens to a program is data and never an exception: `ok`; `error` (it raised, or ended with a status other than
0); `timeout`; `memory`; `output_limit`; `refused` (it failed because of something that
the sandbox does not allow: another process or thread, the network, a file outside). A refusal that a program catches
is listed in `refusals`.

A program gets one process with one thread, Python's library, the `packages` that are named and installed, an empty
folder that goes with it, and nothing else. There are three ways to see to that, the best one first:

`namespaces`   a file system, network and process table of its own, without privileges, behind a filter of system calls
               (seccomp). Linux 5.12 or newer, where user namespaces are allowed, or for root.
`landlock`     Landlock (Linux 5.13 or newer) and the same filter: what most containers allow. Files outside can be
               neither read nor written, but that they exist can be found out; the working folder cannot be written.
`guard`        limits and Python's audit hook, which stop accidents and not intent. All that there is on macOS.

The first of the upper two that works is taken. Whether one works is found out by attacking it (`sandbox_layers`), once
in a process, and where neither does, a `UsageError` says so before anything is run: the minimum is that the kernel
refuses what `sandbox_probe.ATTACKS` lists. `guard` is used only where a caller asks for it by name.

Not covered: bugs of the kernel, and what can be learned from timing. On a machine that has too much to do, programs
get less done before their deadline.
"""

import dataclasses
import functools
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from trl_math.errors import TrlMathError, UsageError, pick
from trl_math.grading import sandbox_probe as probe
from trl_math.grading.sandbox_paths import package_places
from trl_math.grading.sandbox_process import CannotConfine, SandboxDied, SandboxProcess


STATUSES = ("ok", "error", "timeout", "memory", "output_limit", "refused")
# What mathematical programs import. Names of what they import in turn belong here too.
PACKAGES = ("sympy", "mpmath", "numpy", "scipy")

# An import at the beginning of a line. What is named there is imported before the program, outside of its deadline.
_IMPORT = re.compile(r"^[ \t]*+(?:import|from)[ \t]++(\w++)", re.MULTILINE)


@dataclass(frozen=True)
class Limits:
    """What a program may take up. Bytes, where no unit is said."""

    seconds: float = 10.0  # wall-clock, which is more than the processor time of one thread
    memory: int = 1 << 30  # beyond what Python itself takes up
    output: int = 1 << 16  # each of stdout and stderr
    files: int = 1 << 24  # all files of the working folder together

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "output"):
            if not getattr(self, name) > 0:
                raise UsageError(f"A program's limit of {name} must be above 0, got {getattr(self, name)!r}.")
        if self.files < 0:
            raise UsageError(f"A program's limit of files must be at least 0, got {self.files!r}.")


@dataclass(frozen=True)
class Program:
    """What is to be run. `before`: code of the same session that ran earlier, run again without its output.

    `show_value`: a program that prints nothing has its value printed: `answer` or `ans`, else the value of its last
    line, else what `solution()` returns.
    """

    code: str
    stdin: str = ""
    before: tuple[str, ...] = ()
    show_value: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a program."""

    status: str
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    reason: str = ""  # of any status but ok, in a few words
    refusals: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


class Sandbox:
    """Runs programs, `workers` at a time, in interpreters that stay between calls. Use it in a `with`."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        packages: Sequence[str] = PACKAGES,
        workers: int | None = None,
        mode: str | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"workers must be at least 1, got {workers}.")
        self.limits = limits or Limits()
        self.mode = usable_mode(mode)
        self.workers = workers or _num_processors()
        self._places = package_places(packages)
        self._idle: list[SandboxProcess] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, programs: Iterable[str | Program]) -> list[Outcome]:
        """Return the outcomes of these programs, in their order."""
        todo = [Program(program) if isinstance(program, str) else program for program in programs]
        workers = min(self.workers, len(todo))
        if workers <= 1:
            return [self._run_one(program) for program in todo]
        pool = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        try:
            return list(pool.map(self._run_one, todo))
        finally:
            pool.shutdown(cancel_futures=True)

    def close(self) -> None:
        """End the interpreters."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _run_one(self, program: Program) -> Outcome:
        request = {
            "code": program.code,
            "stdin": program.stdin,
            "before": list(program.before),
            "show_value": program.show_value,
            "limits": dataclasses.asdict(self.limits),
        }
        imported = set(_IMPORT.findall("\n".join((*program.before, program.code))))
        died = None
        for _ in range(2):
            process = self._borrow()
            try:
                reply = process.run(request, imported & self._places.keys())
            except SandboxDied as error:
                process.close()
                died = error
                continue
            except BaseException:
                process.close()
                raise
            with self._lock:
                self._idle.append(process)
            return Outcome(**reply | {"refusals": tuple(reply["refusals"])})
        # It may be the program's doing, which must not end a batch.
        return Outcome("error", reason=f"the sandbox died with it, twice: {died}")

    def _borrow(self) -> SandboxProcess:
        with self._lock:
            if self._owner != os.getpid():  # a fork, which must not talk to its parent's interpreters
                self._owner, self._idle = os.getpid(), []
            if self._idle:
                return self._idle.pop()
        return SandboxProcess(self.mode, self._places)


def run_program(
    code: str,
    *,
    limits: Limits | None = None,
    stdin: str = "",
    packages: Sequence[str] = PACKAGES,
    show_value: bool = False,
    mode: str | None = None,
) -> Outcome:
    """Run one program."""
    with Sandbox(limits=limits, packages=packages, workers=1, mode=mode) as sandbox:
        return sandbox.run([Program(code, stdin, show_value=show_value)])[0]


def run_programs(
    programs: Iterable[str | Program],
    *,
    limits: Limits | None = None,
    packages: Sequence[str] = PACKAGES,
    workers: int | None = None,
    mode: str | None = None,
) -> list[Outcome]:
    """Run programs in parallel and return their outcomes in order. `workers`: as many as there are processors."""
    with Sandbox(limits=limits, packages=packages, workers=workers, mode=mode) as sandbox:
        return sandbox.run(programs)


def status_counts(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Return how many outcomes there are of each status, those with none included."""
    counts = Counter(outcome.status for outcome in outcomes)
    return Counter({status: counts[status] for status in STATUSES})


def sandbox_layers(mode: str | None = None) -> list[probe.Layer]:
    """Return the protections of a mode (the best that works here), and whether each is at work on this machine."""
    return list(_probed(usable_mode(mode))[0])


@functools.cache
def _probed(mode: str) -> tuple[list[probe.Layer], str]:
    """Return what a probe found in this mode, and what went wrong if it did not get that far."""
    try:
        process = SandboxProcess(mode, {})
    except TrlMathError as error:
        return probe.read_probe(mode, ""), str(error)
    limits = Limits(seconds=probe.PROBE_SECONDS, memory=probe.PROBE_MEMORY)
    request = {"code": probe.PROBE, "stdin": probe.probe_input(), "before": [], "show_value": False}
    try:
        reply: dict[str, Any] = process.run(request | {"limits": dataclasses.asdict(limits)}, set())
    except TrlMathError as error:
        return probe.read_probe(mode, ""), str(error)
    finally:
        process.close()
    found = probe.read_probe(mode, reply["stdout"])
    return found, f"the kernel does not prevent: {', '.join(probe.missing(found))}"


def usable_mode(wanted: str | None = None) -> str:
    """Return the mode to use; raise if there is none that the minimum allows, or the wanted one does not work."""
    if wanted == "guard":
        return wanted
    modes = (
        [pick("sandbox mode", wanted, probe.MODES)] if wanted else [mode for mode in probe.MODES if mode != "guard"]
    )
    failures = []
    for mode in modes:
        found, failure = _probed(mode)
        if not probe.missing(found):
            return mode
        failures.append(f"{mode}: {failure}")
    raise UsageError(
        f"Programs cannot be confined on this machine ({'; '.join(failures)}). Allow user namespaces, or use Linux "
        "5.13 or newer with Landlock; or, in Python and if you trust the programs, ask for mode 'guard', which stops "
        "accidents only."
    )


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = [
    "PACKAGES",
    "STATUSES",
    "CannotConfine",
    "Limits",
    "Outcome",
    "Program",
    "Sandbox",
    "run_program",
    "run_programs",
    "sandbox_layers",
    "status_counts",
    "usable_mode",
]
