"""What happens in the process of one program: its streams, its limits, its confinement, and the program itself.

A program is one process with one thread. Random numbers start from the same seed each time, where the module that
makes them was there before the program, so that a program that is run again says the same again.
"""

import ast
import atexit
import builtins
import errno
import io
import math
import os
import resource
import signal
import sys
import types
from typing import Any, NamedTuple, NoReturn

import sandbox_guard


CONFINED = b"confined\n"
NAME = "<program>"
REFUSALS = (errno.EPERM, errno.EACCES, errno.EROFS)
SEEDED = ("random", "numpy.random", "sympy.core.random")
ANSWERS = ("answer", "ans")
MAX_OPEN = 64
MAX_NOTES = 8
OURS = (__file__, sandbox_guard.__file__)


class Streams(NamedTuple):
    """Descriptors: what the program reads and writes, and where it is told how it went."""

    stdin: int
    stdout: int
    stderr: int
    status: int


def be_program(
    confinement: Any, settings: dict[str, Any], request: dict[str, Any], streams: Streams, size: int
) -> NoReturn:
    """Turn this process, a fresh fork that has taken up `size` bytes, into the program."""
    code = 1
    try:
        os.setsid()
        _take(streams, kept=confinement.kept)
        os.chdir(confinement.folder)
        _limit(request["limits"], size)
        confinement.confine()
        reporter = Reporter(streams.status)
        os.write(streams.status, CONFINED)
        sandbox_guard.install_guard(
            settings["readable"],
            confinement.folder,
            settings["devices"],
            is_alone=settings["mode"] == "guard",
            may_write=confinement.may_write,
            note=reporter.refused,
        )
    except BaseException as error:
        os.write(streams.status, f"not confined: {error}\n".encode()[:1000])
        os._exit(code)
    try:
        code = _run(request, confinement.folder, reporter)
    finally:
        os._exit(code)


def _take(streams: Streams, kept: tuple[int, ...]) -> None:
    """Take the streams for the standard ones, and close everything else but the status and what is to be kept."""
    for standard, fd in enumerate(streams[:3]):
        os.dup2(fd, standard)
    first = 3
    for fd in sorted((streams.status, *kept)):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 4096)


def _limit(limits: dict[str, Any], size: int) -> None:
    wanted = {
        # One thread has no more of it than the wall clock, by which the server goes: this is for when it cannot.
        "RLIMIT_CPU": math.ceil(limits["seconds"]) + 1,
        "RLIMIT_AS": size + limits["memory"] if size else None,
        "RLIMIT_FSIZE": limits["files"],
        "RLIMIT_NOFILE": MAX_OPEN,
        "RLIMIT_NPROC": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    for name, value in wanted.items():
        if value is not None and hasattr(resource, name):
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (value, value))


class Reporter:
    """Tells the server how the program went, in a few short lines."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.seen: set[str] = set()
        self.is_over = False

    def refused(self, what: str) -> None:
        """Tell that the program was refused something."""
        if not self.is_over:
            self._tell(f"refused {what}")

    def raised(self, error: BaseException) -> None:
        """Tell what ended the program. Its traceback is still to be printed, which looks for files in vain."""
        self.is_over = True
        self._tell(_kind(error))

    def _tell(self, line: str) -> None:
        if line not in self.seen and len(self.seen) < MAX_NOTES:
            self.seen.add(line)
            try:
                os.write(self.status, line.replace("\n", " ").encode(errors="replace")[:300] + b"\n")
            except OSError:
                return  # the program closed it


class _Counted(io.FileIO):
    """A file that knows whether anything was written to it."""

    written = 0

    def write(self, data: Any) -> int:
        self.written += len(data)
        return super().write(data) or 0


def _run(request: dict[str, Any], folder: str, reporter: Reporter) -> int:
    """Run the program as Python runs a file. Return the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    output = _Counted(1, "w", closefd=False)
    # A line at a time, so that what was said before a deadline is not lost.
    stream = io.TextIOWrapper(
        io.BufferedWriter(output), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", errors="replace")
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    sys.stdout = stream
    sys.argv = ["program.py"]
    os.environ.update(HOME=folder, TMPDIR=folder)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    module.__dict__["__builtins__"] = builtins
    for name in SEEDED:
        if name in sys.modules:
            sys.modules[name].seed(0)
    _run_silently(request["before"], module.__dict__)
    sys.stdout = stream
    try:
        last = _execute(request["code"], module.__dict__, wants_value=request["show_value"])
        sys.stdout.flush()
        if request["show_value"] and not output.written:
            _show(module.__dict__, last)
        code = 0
    except SystemExit as error:
        code = _exit_status(error.code)
    except BaseException as error:
        reporter.raised(error)
        _print_error(error)
        code = 1
    atexit._run_exitfuncs()
    stream.flush()
    return code


def _run_silently(blocks: list[str], names: dict[str, Any]) -> None:
    """Run what was run before, for what it leaves behind. A block that fails leaves what it did until then."""
    if not blocks:
        return
    with open(os.devnull, "w") as sys.stdout:
        for block in blocks:
            try:
                _execute(block, names, wants_value=False)
            except BaseException:
                continue


def _execute(code: str, names: dict[str, Any], *, wants_value: bool) -> Any:
    """Run code, and return the value of its last line if that is an expression and its value is wanted."""
    if not wants_value:
        exec(compile(code, NAME, "exec", dont_inherit=True), names)
        return None
    tree: Any = compile(code, NAME, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, NAME, "exec", dont_inherit=True), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), NAME, "eval", dont_inherit=True), names)


def _show(names: dict[str, Any], last: Any) -> None:
    """Print what a program that printed nothing meant: `answer` or `ans`, its last line, or `solution()`."""
    values = [names[name] for name in ANSWERS if names.get(name) is not None and not callable(names[name])]
    solution = names.get("solution")
    if not values and last is not None:
        values = [last]
    if not values and isinstance(solution, types.FunctionType) and _takes_nothing(solution):
        values = [solution()]
    if values and values[0] is not None:
        sys.stdout.write(f"{values[0]!s}\n")


def _takes_nothing(function: types.FunctionType) -> bool:
    needed = function.__code__.co_argcount - len(function.__defaults__ or ())
    return needed <= 0 and function.__code__.co_kwonlyargcount == len(function.__kwdefaults__ or ())


def _exit_status(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code!s}\n")
    return 1


def _kind(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "raised memory"
    # Python tells in words alone that the system refused a thread.
    if number in REFUSALS or (isinstance(error, RuntimeError) and error.args == ("can't start new thread",)):
        return "raised refused"
    try:
        said = str(error)[:200]
    except BaseException:  # the exception is the program's own
        said = ""
    return f"raised {type(error).__name__}{': ' if said else ''}{said}"


def _print_error(error: BaseException) -> None:
    """Print the traceback without our own lines."""
    error.__traceback__ = _without_ours(error.__traceback__)
    sys.__excepthook__(type(error), error, error.__traceback__)


def _without_ours(trace: types.TracebackType | None) -> types.TracebackType | None:
    theirs = []
    while trace is not None:
        if trace.tb_frame.f_globals.get("__file__") not in OURS:
            theirs.append(trace)
        trace = trace.tb_next
    rest = None
    for entry in reversed(theirs):
        rest = types.TracebackType(rest, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return rest
