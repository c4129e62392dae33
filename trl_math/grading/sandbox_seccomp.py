"""The system calls that a program may make: those that computing needs, and no other. Runs beside the program.

One list for each machine, and everything else is refused: new processes and threads, other programs, sockets, signals
to others, whatever configures the kernel. It takes no privileges to install and cannot be taken off. Calls that are
newer than this list "do not exist", which libraries are prepared for; older ones are "not permitted".
"""

import ctypes
import os
import struct
import sys

from sandbox_calls import MACHINE, prctl


# Name, number on x86-64, number on 64-bit Arm (`-`: has none).
READING = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, close 3 57, close_range 436 436,
lseek 8 62, fstat 5 80, stat 4 -, lstat 6 -, newfstatat 262 79, statx 332 291, fstatfs 138 44, statfs 137 43,
access 21 -, faccessat 269 48, faccessat2 439 439, open 2 -, openat 257 56, readlink 89 -, readlinkat 267 78,
getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, dup 32 23, dup2 33 -, dup3 292 24,
pipe 22 -, pipe2 293 59, flock 73 32, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
fsync 74 82, fdatasync 75 83, fadvise64 221 223, sendfile 40 71, copy_file_range 326 285, brk 12 214, mmap 9 222,
munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, msync 26 227, membarrier 324 283,
futex 202 98, set_robust_list 273 99, get_robust_list 274 100, set_tid_address 218 96, gettid 186 178, rseq 334 293,
sched_yield 24 124, sched_getaffinity 204 123, exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95,
restart_syscall 219 128, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigsuspend 130 133, rt_sigtimedwait 128 137, sigaltstack 131 132, pause 34 -, alarm 37 -, getitimer 36 102,
setitimer 38 103, time 201 -, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114,
clock_nanosleep 230 115, nanosleep 35 101, times 100 153, getpid 39 172, getppid 110 173, getuid 102 174,
geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148, getresgid 120 150,
getpgrp 111 -, getpgid 121 155, getsid 124 156, getrlimit 97 163, getrusage 98 165, sysinfo 99 179, uname 63 160,
getcpu 309 168, getpriority 140 141, umask 95 166, arch_prctl 158 -, getrandom 318 278
"""
# Only where the working folder is all that can be changed.
WRITING = """
creat 85 -, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38,
renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, truncate 76 45, ftruncate 77 46,
fallocate 285 47, chmod 90 -, fchmod 91 52, fchmodat 268 53, utimensat 280 88, utime 132 -, utimes 235 -
"""
# The process itself (a zero, or its own number) must be the first argument.
ON_ITSELF = "kill 62 129, tgkill 234 131, prlimit64 302 261"
# The second argument is a command. Copies, flags and locks, but not whom a file sends signals to; what a text file
# asks of its descriptor, but nothing that changes a device.
FCNTL, FCNTL_COMMANDS = "fcntl 72 25", (0, 1, 2, 3, 4, 5, 6, 7, 1030)
IOCTL, IOCTL_COMMANDS = "ioctl 16 29", (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)

MACHINES = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}  # column, the kernel's word for it
FIRST_UNKNOWN = 424  # from here on, both machines count alike

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38
LOAD, IF_EQUAL, IF_ABOVE, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT, SECOND_ARGUMENT = 0, 4, 16, 24  # offsets in what the filter sees


def numbers(table: str) -> list[int]:
    """Return this machine's numbers of the system calls in a table."""
    column = MACHINES[MACHINE][0]
    found = [entry.split()[column] for entry in table.split(",")]
    return [int(number) for number in found if number != "-"]


def filter_program(*, may_write: bool, process: int) -> bytes:
    """Return the filter for the process of that number, in the kernel's instructions."""
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (IF_EQUAL, 1, 0, MACHINES[MACHINE][1]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    for number in numbers(READING) + (numbers(WRITING) if may_write else []):
        steps += [(IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    steps += _only(ON_ITSELF, FIRST_ARGUMENT, (0, process))
    steps += _only(FCNTL, SECOND_ARGUMENT, FCNTL_COMMANDS) + _only(IOCTL, SECOND_ARGUMENT, IOCTL_COMMANDS)
    steps += [(IF_ABOVE, 0, 1, FIRST_UNKNOWN), (RETURN, 0, 0, ERRNO | ENOSYS), (RETURN, 0, 0, ERRNO | EPERM)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _only(table: str, argument: int, values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Allow these system calls if the argument is one of the values. The kernel reads its lower half alone."""
    steps = []
    for number in numbers(table):
        steps += [(IF_EQUAL, 0, len(values) + 3, number), (LOAD, 0, 0, argument)]
        steps += [(IF_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
        steps += [(RETURN, 0, 0, ERRNO | EPERM), (RETURN, 0, 0, ALLOW)]
    return steps


def install_filter(*, may_write: bool) -> None:
    """Allow this process nothing else from here on."""
    if MACHINE not in MACHINES or sys.byteorder != "little" or sys.maxsize < 2**32:
        raise OSError(ENOSYS, f"no list of system calls for {MACHINE}")
    program = filter_program(may_write=may_write, process=os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are.
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    prctl("seccomp", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))
