"""The way to confine a program where namespaces are not to be had, as in most containers: Landlock and seccomp.

Neither takes privileges, and both bind the process for good. Landlock leaves Python's library, the system's shared
objects and the chosen packages readable, and nothing else, not even the working folder, can be written: without a file
system of its own a program could fill the disk with any number of files. What the two do not cover is said by
`sandbox_layers`: the names and sizes of files outside can be asked for, though nothing in them.
"""

import ctypes
import os
import signal
from typing import Any

from sandbox_calls import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    drop_privileges,
    prctl,
    syscall,
)
from sandbox_seccomp import install_filter


CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every machine
VERSION = 1
PATH_BENEATH = 1
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
# Kinds of access to files that a version of Landlock knows: 13 in the first, then moving, truncating, device control.
NUM_KINDS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


class Landlock:
    """Confinement by Landlock, without privileges and behind a filter of system calls."""

    may_write = False

    def __init__(self, settings: dict[str, Any]) -> None:
        self.folder = settings["folder"]
        self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        prctl("reaping", PR_SET_CHILD_SUBREAPER, 1)
        # No program may read this process's memory, although it belongs to the same user.
        prctl("dumpable", PR_SET_DUMPABLE, 0)
        self._rules = _ruleset()
        self.kept = (self._rules,)
        for path in settings["readable"]:
            self._allow(path, settings["hidden"])
        for path in settings["devices"]:
            _add_rule(self._rules, path, READ_FILE | WRITE_FILE)
        _add_rule(self._rules, self.folder, READ_DIR)

    def open_folder(self, size: int) -> None:
        """Nothing can be written, so the folder is as it was."""

    def close_folder(self) -> None:
        """The program could start no process, so there is nothing to look for."""

    def confine(self) -> None:
        """Give up, in the program's process, what a program may not do."""
        prctl("death signal", PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl("no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
        syscall("landlock", RESTRICT_SELF, self._rules, 0)
        os.close(self._rules)
        drop_privileges()
        install_filter(may_write=False)

    def _allow(self, path: str, hidden: list[str]) -> None:
        inside = [place for place in hidden if place.startswith(path + "/")]
        if not inside:
            _add_rule(self._rules, path, READ_FILE | READ_DIR)
            return
        # A rule holds for everything below, so the folder is opened entry by entry, all but the hidden ones.
        _add_rule(self._rules, path, READ_DIR)
        for name in os.listdir(path):
            if f"{path}/{name}" not in inside:
                _add_rule(self._rules, f"{path}/{name}", READ_FILE | READ_DIR)


def _ruleset() -> int:
    version = syscall("landlock", CREATE_RULESET, 0, 0, VERSION)
    kinds = (1 << NUM_KINDS.get(version, 16)) - 1
    network, scopes = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    fields = 1 if version < 4 else 2 if version < 6 else 3
    rules = (ctypes.c_uint64 * 3)(kinds, network, scopes)
    return syscall("landlock", CREATE_RULESET, ctypes.byref(rules), 8 * fields, 0)


class _Rule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("access", ctypes.c_uint64), ("folder", ctypes.c_int32))


def _add_rule(rules: int, path: str, access: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _Rule(access if os.path.isdir(path) else access & ~READ_DIR, fd)
        syscall("landlock rule", ADD_RULE, rules, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)
