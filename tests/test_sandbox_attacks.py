"""What a program might do to its machine, on purpose or not: each is contained, named, and leaves nothing."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from trl_math.grading import sandbox as sandbox_module
from trl_math.grading import sandbox_process
from trl_math.grading.sandbox import Limits, Program, Sandbox, run_program


# What is refused is refused at once, however busy the machine is; what is to run into its deadline has a short one.
LIMITS = Limits(seconds=30.0, memory=1 << 28, output=20_000, files=1 << 20)
SHORT = 0.5


def mode_or_skip(mode):
    """Return the mode as a parameter, skipped with the reason where this machine does not have it."""
    layers, failure = sandbox_module._probed(mode)
    is_missing = bool(sandbox_module.probe.missing(layers))
    return pytest.param(mode, marks=pytest.mark.skipif(is_missing, reason=f"{mode}: {failure}"))


MODES = [mode_or_skip(mode) for mode in ("namespaces", "landlock")]
C = "import ctypes\nlibc = ctypes.CDLL(None)\n"


def marked_processes(mark):
    """Return every process on the machine that was started with this mark, or descends from one that was."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def wait_until_clean(mark, seconds=60.0):
    """Return the marked processes that are still there: the kernel takes a moment to end a namespace."""
    deadline = time.monotonic() + seconds
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def our_mounts():
    """Return the mounts where the sandbox makes some, in its own namespace; others may make theirs elsewhere."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(("/proc", "/.program"))]


@pytest.fixture(autouse=True)
def clean_machine(monkeypatch, tmp_path_factory):
    """After every attack: no process, no temporary file, no mount."""
    mark = f"MARK-{uuid.uuid4().hex}"
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(sandbox_process, "ENVIRONMENT", sandbox_process.ENVIRONMENT | {"MARK": mark})
    mounts = our_mounts()
    yield mark
    assert wait_until_clean(mark) == []
    assert list(folder.iterdir()) == []
    assert our_mounts() == mounts


@pytest.fixture(params=MODES)
def attack(request):
    """Run a program in each mode that works here."""

    def run(code, **limits):
        values = {name: getattr(LIMITS, name) for name in ("seconds", "memory", "output", "files")}
        return run_program(textwrap.dedent(code), limits=Limits(**values | limits), mode=request.param)

    run.mode = request.param
    return run


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret.txt"
    file.write_text("the gold answer")
    return file


def test_fork_is_refused_before_it_can_be_a_bomb(attack):
    """First one, by Python and by C: only where that fails is the bomb below safe to try."""
    outcome = attack("import os\nos.fork()")
    assert (outcome.status, outcome.refusals) == ("refused", ("os.fork",))
    assert attack(C + "print(libc.fork(), libc.vfork())").stdout == "-1 -1\n"


def test_fork_bombs(attack):
    assert attack("import os\nwhile True:\n    os.fork()").status == "refused"
    stubborn = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    outcome = attack(stubborn, seconds=1)
    assert (outcome.status, outcome.refusals) == ("timeout", ("os.fork",))
    assert attack(C + "while True:\n    libc.fork()", seconds=SHORT).status == "timeout"


def test_other_programs_and_threads(attack):
    for code in (
        "import os; os.system('true')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import os; os.posix_spawn('/bin/sh', ['sh'], {})",
        "import threading; threading.Thread(target=print).start()",
    ):
        assert attack(code).status == "refused", code
    thread = "import _posixsubprocess\ncreate = libc.pthread_create\nn = ctypes.c_ulong()\n"
    call = "print(create(ctypes.byref(n), None, libc.getpid, None))"
    assert attack(C + thread + call).stdout in ("1\n", "11\n")  # not permitted, or no resources
    assert attack(C + "print(libc.execv(b'/bin/sh', (ctypes.c_char_p * 2)(b'sh', None)))").stdout == "-1\n"


def test_memory_bombs(attack):
    for code in (
        "x = []\nwhile True:\n    x.append(bytearray(10**7))",
        "x = [0] * 10**12",
        "import mmap\nmmap.mmap(-1, 1 << 40)",
        "x = 'a'\nwhile True:\n    x += x",
    ):
        assert attack(code).status == "memory", code


def test_memory_outside_of_the_address_space(attack):
    """Memory that no process has mapped counts for no process: it must not be had."""
    code = C + "print(libc.syscall(319, b'x', 0), libc.shmget(0, 1 << 20, 0o1600), libc.shm_open(b'/x', 66, 384))"
    assert attack(code).stdout == "-1 -1 -1\n"


@pytest.mark.parametrize("where", ["sys.stdout", "sys.stderr", "os"])
def test_infinite_output(attack, where):
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    write = "os.write(1, b'x' * 100)" if where == "os" else f"print('x' * 100, file={where})"
    outcome = attack(f"import os, sys\nwhile True:\n    {write}")
    assert outcome.status == "output_limit"
    assert max(len(outcome.stdout), len(outcome.stderr)) == 20_000
    grown = (int(Path("/proc/self/statm").read_text().split()[1]) - resident) * os.sysconf("SC_PAGE_SIZE")
    assert grown < 20 << 20


def test_one_huge_line(attack):
    assert attack("print('x' * 10**7)").status == "output_limit"


def test_power_that_holds_the_interpreter(attack):
    assert attack("10**10**8", seconds=SHORT).status == "timeout"


def test_signals_cannot_be_blocked(attack):
    code = """
        import signal, time
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            try:
                time.sleep(9)
            except BaseException:
                pass
    """
    assert attack(code, seconds=SHORT).status == "timeout"
    assert attack("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", seconds=SHORT).status == "timeout"
    assert attack("import os\nos.closerange(0, 100)\nwhile True:\n    pass", seconds=SHORT).status == "timeout"


def test_signals_to_others(attack, clean_machine):
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        for target in (victim.pid, os.getpid()):
            assert attack(f"import os\nos.kill({target}, 9)").status == "refused"
            assert attack(C + f"print(libc.kill({target}, 9), libc.killpg({target}, 9))").stdout == "-1 -1\n"
        # A signal to everyone is tried with number 0, which does nothing where it is allowed.
        assert attack(C + "import os\nprint(libc.kill(-1, 0), libc.kill(os.getppid(), 0))").stdout == "-1 -1\n"
        assert attack(C + f"import os\nprint(libc.fcntl(0, 8, {victim.pid}))").stdout == "-1\n"  # F_SETOWN
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_network(attack):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert attack(f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)").status == "refused"
        assert attack("import socket\nsocket.getaddrinfo('example.org', 80)").status == "refused"
        address = f"b'\\x02\\x00' + ({port}).to_bytes(2, 'big') + bytes([127, 0, 0, 1]) + bytes(8)"
        code = C + f"fd = libc.socket(2, 1, 0)\nprint(fd, libc.connect(fd, {address}, 16))"
        assert attack(code).stdout == "-1 -1\n"
        assert attack(C + "print([libc.socket(family, 1, 0) for family in (1, 2, 10, 16)])").stdout == f"{[-1] * 4}\n"
        assert attack(C + "print(libc.syscall(425, 8, ctypes.create_string_buffer(200)))").stdout == "-1\n"  # io_uring
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def test_environment(attack, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert "secret" not in attack("import os\nprint(dict(os.environ))").stdout
    for process in ("self", "1", os.getpid()):
        assert attack(f"print(open('/proc/{process}/environ').read())").status == "refused"
        code = C + f"print(libc.open(b'/proc/{process}/environ', 0), libc.open(b'/proc/{process}/mem', 2))"
        assert attack(code).stdout == "-1 -1\n"


def test_reading_outside(attack, secret):
    path = str(secret)
    for code in (
        f"print(open({path!r}).read())",
        f"import os\nprint(os.listdir({str(secret.parent)!r}))",
        f"import importlib.machinery\nprint(importlib.machinery.SourceFileLoader('x', {path!r}).get_data({path!r}))",
        "print(open('/etc/passwd').read())",
        f"print(open({sandbox_module.__file__!r}).read())",
        f"import os\nprint(os.listdir({str(Path.home())!r}))",
    ):
        outcome = attack(code)
        assert outcome.status == "refused" and outcome.stdout == "", code
    for target in (path, "/etc/passwd", sandbox_module.__file__, "/dev/mem", "/dev/sda", "/dev/kmsg"):
        assert attack(C + f"print(libc.open({target.encode()!r}, 0))").stdout == "-1\n", target
    linked = f"libc.symlink({path.encode()!r}, b'link'); libc.link({path.encode()!r}, b'hard')\n"
    assert attack(C + linked + "print(libc.open(b'link', 0), libc.open(b'hard', 0))").stdout == "-1 -1\n"


def test_other_packages_are_not_there(attack):
    assert attack("import pytest").reason.startswith("ModuleNotFoundError")
    assert attack("import trl_math").reason.startswith("ModuleNotFoundError")
    assert attack(
        f"import sys\nsys.path.append({str(Path(pytest.__file__).parent.parent)!r})\nimport pytest"
    ).status in (
        "error",
        "refused",
    )


def test_writing_outside(attack, tmp_path, secret):
    target = tmp_path / "written"
    for path in (target, secret, "/tmp/x-written", os.__file__, "/x-written"):
        assert attack(f"open({str(path)!r}, 'a').write('x')").status == "refused"
        assert attack(C + f"print(libc.open({str(path).encode()!r}, 66, 0o600))").stdout == "-1\n"
    for code in (
        f"import os\nos.remove({str(secret)!r})",
        f"import os\nos.mkdir({str(target)!r})",
        f"import os\nos.chmod({str(secret)!r}, 0)",
        f"import os\nos.rename({str(secret)!r}, {str(target)!r})",
        f"import shutil\nshutil.rmtree({str(tmp_path)!r})",
    ):
        assert attack(code).status in ("refused", "error"), code
    path = str(secret).encode()
    calls = f"libc.unlink({path!r}), libc.chmod({path!r}, 0), libc.truncate({path!r}, 0), libc.rmdir({path!r})"
    assert attack(C + f"print({calls})").stdout == "(-1, -1, -1, -1)\n".replace("(", "").replace(")", "").replace(
        ",", ""
    )
    assert not target.exists() and secret.read_text() == "the gold answer"


def test_the_disk_cannot_be_filled(attack):
    code = """
        for number in range(10**6):
            with open(str(number), "wb") as file:
                file.write(bytes(1000))
    """
    outcome = attack(code)
    assert outcome.status == ("error" if attack.mode == "namespaces" else "refused")
    assert attack("open('big', 'wb').truncate(1 << 40)").status in ("error", "refused")


def test_daemons(attack, clean_machine):
    daemon = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    time.sleep(1)
            os._exit(0)
        print("left one behind")
    """
    outcome = attack(daemon)
    assert (outcome.status, outcome.stdout) == ("refused", "")
    by_c = C + "import os\nif libc.fork() == 0:\n    libc.setsid()\n    libc.fork() or libc.sleep(60)\nprint('ended')"
    assert attack(by_c).status == "ok"
    assert wait_until_clean(clean_machine) == []


def test_privileges(attack):
    calls = "libc.unshare(0x10000000), libc.setuid(0), libc.ptrace(16, 1, 0, 0), libc.chroot(b'.'), libc.setsid()"
    assert attack(C + f"print({calls})").stdout == "-1 -1 -1 -1 -1\n"
    assert attack(C + "print(libc.prctl(22, 0, 0), libc.personality(-1), libc.reboot(0))").stdout == "-1 -1 -1\n"


def test_a_message_on_the_status_pipe_tells_of_the_program_alone(attack):
    outcome = attack("import os\nfor fd in range(3, 64):\n    try:\n        os.write(fd, b'not confined: x\\n')\n"
                     "    except OSError:\n        pass\nprint(1)")  # fmt: skip
    assert (outcome.status, outcome.stdout) == ("ok", "1\n")


def test_one_program_leaves_nothing_to_the_next(attack):
    leave = "import sys, math\nopen('left', 'w').write('x')\nsys.modules['math'].pi = 3\nmath.pi = 3\nprint(math.pi)"
    look = "import os, math\nprint(os.listdir('.'), math.pi, 'secret' in globals())"
    with Sandbox(limits=LIMITS, workers=1, mode=attack.mode) as sandbox:
        _, outcome = sandbox.run([leave, look])
    assert outcome.stdout == "[] 3.141592653589793 False\n"


PARENT = """
    import sys, time
    from trl_math.grading import sandbox, sandbox_process
    mode, mark, when = sys.argv[1:]
    sandbox.usable_mode(mode)  # its processes are not to be taken for the program's
    sandbox_process.ENVIRONMENT["MARK"] = mark
    if when == "starting":  # and what starts has not been told anything yet
        sandbox_process.send = lambda *_: time.sleep(60)
    sandbox.run_program("while True: pass", limits=sandbox.Limits(seconds=60), mode=mode)
"""


@pytest.mark.parametrize("when", ["starting", "confining", "running"])
@pytest.mark.parametrize("mode", MODES)
def test_nothing_outlives_a_parent_that_is_killed(mode, when, clean_machine):
    """The parent is gone by SIGKILL, while the sandbox starts or in the middle of a program: all ends by itself."""
    environment = os.environ | {"TMPDIR": tempfile.gettempdir()}
    words = [sys.executable, "-c", textwrap.dedent(PARENT), mode, clean_machine, when]
    parent = subprocess.Popen(words, env=environment)
    # With namespaces, the sandbox is two processes: one that waits outside, one inside.
    number = 1 if when != "running" else 3 if mode == "namespaces" else 2
    deadline = time.monotonic() + 60
    while len(marked_processes(clean_machine)) < number and time.monotonic() < deadline:
        time.sleep(0.002)
    assert len(marked_processes(clean_machine)) >= number
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_until_clean(clean_machine) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_sandbox_that_dies_is_replaced(mode):
    with Sandbox(limits=LIMITS, workers=1, mode=mode) as sandbox:
        assert sandbox.run(["print(1)"])[0].stdout == "1\n"
        sandbox._idle[0]._process.kill()
        assert sandbox.run([Program("print(2)")])[0].stdout == "2\n"
