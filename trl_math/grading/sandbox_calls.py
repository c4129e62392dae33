"""The system calls that the sandbox needs and Python has no name for. Runs in the sandbox's own interpreter."""

import ctypes
import os


CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 4, 24, 36
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
CAPABILITY_VERSION = 0x20080522

# Number by machine, where machines differ.
CAPSET = {"x86_64": 126, "aarch64": 91}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR = 442

MACHINE = os.uname().machine
_libc = ctypes.CDLL(None, use_errno=True)


def syscall(what: str, number: int, *arguments: object) -> int:
    """Make a system call by its number; raise `OSError` with its name if it fails."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(what, _libc.syscall(ctypes.c_long(number), *wide))


def prctl(what: str, option: int, *arguments: int) -> int:
    """Call prctl, which reads five arguments."""
    values = [ctypes.c_ulong(value) for value in (*arguments, *[0] * (4 - len(arguments)))]
    return _checked(what, _libc.prctl(ctypes.c_int(option), *values))


def unshare(flags: int) -> None:
    """Leave the parent's namespaces of these kinds for new ones."""
    _checked("unshare", _libc.unshare(ctypes.c_int(flags)))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system, or bind a folder to another place."""
    arguments = (os.fsencode(source), os.fsencode(target), None if kind is None else kind.encode())
    _checked(f"mount {target}", _libc.mount(*arguments, ctypes.c_ulong(flags), options.encode()))


def unmount(target: str) -> None:
    """Take a file system away, whoever still uses it."""
    _checked(f"unmount {target}", _libc.umount2(os.fsencode(target), MNT_DETACH))


def set_mount_attributes(target: str, attributes: int, *, recursive: bool) -> None:
    """Add attributes to a mount and, if asked, to every mount below it."""
    attr = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    path, flags = ctypes.c_char_p(os.fsencode(target)), AT_RECURSIVE if recursive else 0
    syscall("mount_setattr", MOUNT_SETATTR, AT_FDCWD, path, flags, ctypes.byref(attr), ctypes.sizeof(attr))


def pivot_root_here() -> None:
    """Make the working folder, which must be a mount, the root of the file system, and let the old root go."""
    here = ctypes.c_char_p(b".")
    syscall("pivot_root", PIVOT_ROOT[MACHINE], here, here)
    unmount(".")
    os.chdir("/")


def drop_privileges() -> None:
    """Give up all capabilities for good."""
    prctl("no_new_privs", PR_SET_NO_NEW_PRIVS, 1)
    prctl("ambient capabilities", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # the kernel has no more of them, or we had no right to any
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    syscall("capset", CAPSET[MACHINE], ctypes.byref(header), ctypes.byref(nothing))


def _checked(what: str, result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result
