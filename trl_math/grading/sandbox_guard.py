"""Says no in Python's own words before the kernel does: an audit hook. Runs beside the program.

Where the kernel confines the program, this gives its attempts a name (`the sandbox refuses os.fork` and not a missing
file or an error number), so that the outcome can be told apart from a mistake. Where the kernel cannot (mode "guard"),
it is all there is between a program and the machine, and a program that means harm gets past it.
"""

import errno
import os
import sys
from collections.abc import Callable
from typing import Any


STARTS = ("socket.", "os.exec", "os.spawn", "os.posix_spawn", "winreg.")
REFUSED = {
    "os.fork",
    "os.forkpty",
    "os.system",
    "os.killpg",
    "os.startfile",
    "pty.spawn",
    "subprocess.Popen",
    "_thread.start_new_thread",
    "_thread.start_joinable_thread",
}
# Without the kernel's help, the ways around Python are closed as far as Python knows them.
AROUND_PYTHON = {"ctypes.dlsym", "ctypes.dlsym/handle", "ctypes.call_function", "ctypes.cdata", "ctypes.string_at"}
READS = {"os.listdir", "os.scandir", "os.chdir"}
WRITES = {
    "os.chflags",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.removexattr",
    "os.rename",
    "os.rmdir",
    "os.setxattr",
    "os.symlink",
    "os.truncate",
    "os.utime",
}
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install_guard(
    readable: list[str],
    folder: str,
    devices: list[str],
    *,
    is_alone: bool,
    may_write: bool,
    note: Callable[[str], None],
) -> None:
    """Refuse what a program has no use for, and tell `note` what was refused. There is no way to take it off."""
    roots = tuple(path.rstrip("/") for path in (*readable, folder))
    inside = tuple(root + "/" for root in roots)
    process, refused = os.getpid(), (REFUSED | AROUND_PYTHON if is_alone else REFUSED)

    def can_read(path: str) -> bool:
        return path in roots or path in devices or path.startswith(inside)

    def can_write(path: str) -> bool:
        return path in devices or (may_write and (path == folder or path.startswith(folder + "/")))

    def allows(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & WRITE_FLAGS) or any(letter in (mode or "") for letter in "wax+")
            return not isinstance(path, str | bytes | os.PathLike) or (can_write if writes else can_read)(_full(path))
        if event in READS or event in WRITES:
            allowed = can_read if event in READS else can_write
            return all(allowed(_full(path)) for path in arguments if isinstance(path, str | bytes | os.PathLike))
        if event == "os.kill":
            return arguments[0] in (0, process)
        if event == "ctypes.dlopen":
            return not is_alone or arguments[0] is None
        return event not in refused and not event.startswith(STARTS)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not allows(event, arguments):
            what = f"{event} {_full(arguments[0])}" if event == "open" else event
            note(what)
            raise PermissionError(errno.EPERM, f"the sandbox refuses {what}")

    sys.addaudithook(hook)


def _full(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))
