"""Which protections are at work on this machine: found out by attacking them, not by assuming them.

A probe is run where programs are run, and tries what they must not do, through C and thus past Python's own guard, so
that only what the kernel refuses counts. It does no harm where it succeeds.
"""

import json
import os
from typing import NamedTuple


# The best first.
MODES = {
    "namespaces": "a file system, network and process table of its own, and a filter of system calls",
    "landlock": "Landlock and a filter of system calls; the working folder cannot be written",
    "guard": "limits and Python's audit hook, which stop accidents only",
}
PROBE_SECONDS = 20.0
PROBE_MEMORY = 1 << 28

# What the minimum asks for: that none of this can be done.
ATTACKS = {
    "processes": "start another process or thread, or another program",
    "network": "open a socket of any kind",
    "signals": "send a signal to another process",
    "reading": "read a file outside of Python's library and the chosen packages",
    "writing": "write a file outside of its working folder",
    "privileges": "gain privileges or change namespaces",
    "memory": "take up more memory than the limit",
}
# True in every mode, since the server sees to it and not the kernel.
ALWAYS = {
    "time": "run longer than its deadline (SIGKILL, which cannot be blocked)",
    "output": "write more than the limit",
    "environment": "see an environment variable of yours",
}
IN_ADDITION = {
    "network_namespace": "reach a network even through a socket",
    "process_namespace": "leave a process behind even if it could start one",
    "file_system": "find out whether a file exists outside",
    "disk": "fill a disk with many files",
}

PROBE = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
facts = json.loads(input())

def fails(function, *arguments):
    ctypes.set_errno(0)
    return function(*arguments) == -1

def fork_fails():
    process = libc.fork()
    if process == 0:
        libc._exit(0)
    if process > 0:
        libc.waitpid(process, None, 0)
    return process == -1

def open_fails(path, flags):
    file = libc.open(path.encode(), flags)
    if file >= 0:
        libc.close(file)
    return file == -1

def memory_fails():
    try:
        bytearray(facts["memory"] + facts["memory"] // 2)
    except MemoryError:
        return True
    return False

found = {
    "processes": fork_fails() and fails(libc.execv, b"", None) and ctypes.get_errno() == 1,
    "network": all(fails(libc.socket, family, kind, 0) for family in (1, 2, 10) for kind in (1, 2)),
    "signals": fails(libc.kill, os.getppid(), 0) and fails(libc.kill, 1, 0),
    "reading": all(open_fails(path, os.O_RDONLY) for path in facts["outside"]),
    "writing": all(open_fails(path, os.O_WRONLY) for path in facts["inside"] + facts["outside"]),
    "privileges": fails(libc.unshare, 0x10000000) and fails(libc.setuid, 12345) and fails(libc.mount, *[None] * 5),
    "memory": memory_fails(),
    "file_system": not any(os.access(path, os.F_OK) for path in facts["outside"]),
    "process_namespace": os.getppid() == 1,
}
print(json.dumps(found))
"""


class Layer(NamedTuple):
    """One protection. `prevents`: what a program cannot do where it is active."""

    name: str
    prevents: str
    is_active: bool
    is_required: bool


def probe_input() -> str:
    """Return what the probe is told: what to try, all of which exists."""
    outside = [__file__, "/etc/passwd", "/etc/hostname", f"/proc/{os.getpid()}/environ"]
    facts = {"outside": [path for path in outside if os.path.exists(path)], "inside": [os.__file__]}
    return json.dumps(facts | {"memory": PROBE_MEMORY})


def read_probe(mode: str, stdout: str) -> list[Layer]:
    """Return the layers that the probe's answer tells of; none of the kernel's if there is no answer."""
    try:
        found = json.loads(stdout)
    except ValueError:
        found = {}
    found["network_namespace"] = mode == "namespaces"
    found["disk"] = mode != "guard" and found.get("writing", False)
    layers = [Layer(name, prevents, bool(found.get(name)), True) for name, prevents in ATTACKS.items()]
    layers += [Layer(name, prevents, True, True) for name, prevents in ALWAYS.items()]
    return layers + [Layer(name, prevents, bool(found.get(name)), False) for name, prevents in IN_ADDITION.items()]


def missing(layers: list[Layer]) -> list[str]:
    """Return the names of required layers that are not there."""
    return [layer.name for layer in layers if layer.is_required and not layer.is_active]
