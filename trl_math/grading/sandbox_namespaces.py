"""The strongest way to confine a program: namespaces of its own. Runs in the sandbox's own interpreter.

A process without privileges may have a user namespace, and in it everything else: a file system that holds nothing but
Python's library, the system's shared objects and the chosen packages, all read-only; a network without a single
interface that is up; a process table of its own, whose first process is the sandbox's server, so that whatever might
be left behind dies with it. A program's working folder is a file system in memory of limited size, new for each.
"""

import os
import signal
import stat
from typing import Any

from sandbox_calls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_SET_PDEATHSIG,
    drop_privileges,
    mount,
    pivot_root_here,
    prctl,
    set_mount_attributes,
    unmount,
    unshare,
)
from sandbox_seccomp import install_filter


OTHERS = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS
NOBODY = 65534
WORK = "/.program"  # nothing that is bound to its own path is called that
# Where the new root is put together: a folder that every Linux has and that holds none of what is put into it.
SITE = "/proc"


class Namespaces:
    """Confinement by namespaces, without privileges and behind a filter of system calls."""

    folder = WORK
    may_write = True
    kept = ()

    def __init__(self, settings: dict[str, Any]) -> None:
        _leave()
        # Only a child is in the new process table. This process waits, and takes the child along when it is killed.
        if child := os.fork():
            _wait_for(child)
        prctl("death signal", PR_SET_PDEATHSIG, signal.SIGKILL)
        self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        _build_root(settings["readable"], settings["hidden"], settings["devices"])

    def open_folder(self, size: int) -> None:
        """Give the next program an empty working folder."""
        # A page is the least that holds anything; a size of zero would mean half of the machine's memory.
        options = f"size={max(size, 4096)},nr_inodes=1024,mode=700"
        mount("tmpfs", WORK, "tmpfs", MS_NOSUID | MS_NODEV, options)

    def close_folder(self) -> None:
        """Take the folder away, with every process that is not this one."""
        kill_all_others()
        unmount(WORK)

    def confine(self) -> None:
        """Give up, in the program's process, what a program may not do."""
        drop_privileges()
        install_filter(may_write=True)


def kill_all_others() -> None:
    """End and reap every other process of this process table, which is the first process's right."""
    try:
        while True:
            os.kill(-1, signal.SIGKILL)
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _leave() -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | OTHERS)
    except OSError:
        unshare(OTHERS)  # root may do without a user namespace, where those are switched off
        return
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _wait_for(child: int) -> None:
    os.close(0)
    os.close(1)
    os.waitpid(child, 0)
    os._exit(0)


def _build_root(readable: list[str], hidden: list[str], devices: list[str]) -> None:
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", SITE, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    read_only = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
    covers = []
    # Outer folders first: a package may lie inside a folder that is hidden inside the library.
    for path in sorted({*readable, *hidden}):
        target = SITE + path
        if path in hidden:
            mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
            covers.append(path)
        else:
            _make_place(path, target)
            mount(path, target, None, MS_BIND | MS_REC)
            set_mount_attributes(target, read_only | MOUNT_ATTR_NODEV, recursive=True)
    for path in devices:
        _make_place(path, SITE + path)
        mount(path, SITE + path, None, MS_BIND)
        set_mount_attributes(SITE + path, read_only, recursive=False)
    os.mkdir(SITE + WORK)
    os.chdir(SITE)
    pivot_root_here()
    for path in (*covers, "/"):
        set_mount_attributes(path, read_only, recursive=False)


def _make_place(path: str, target: str) -> None:
    """Make an empty folder or file for something to be bound to."""
    if stat.S_ISDIR(os.stat(path).st_mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.exists(target):
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
