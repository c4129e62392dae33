"""Programs in the sandbox: what an outcome says, sessions, stdin, batches, packages, and what the machine offers."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from trl_math.errors import UsageError
from trl_math.grading import sandbox as sandbox_module
from trl_math.grading import sandbox_probe
from trl_math.grading.sandbox import (
    STATUSES,
    Limits,
    Program,
    Sandbox,
    run_program,
    run_programs,
    sandbox_layers,
    status_counts,
)


try:
    sandbox_module.usable_mode(None)
except UsageError as error:
    pytest.skip(str(error), allow_module_level=True)

LIMITS = Limits(seconds=30.0, memory=1 << 28)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(limits=LIMITS, workers=1) as sandbox:
        yield sandbox


def run(sandbox, code, **settings):
    return sandbox.run([Program(code, **settings)])[0]


def test_outcomes(sandbox):
    outcome = run(sandbox, "import sys\nprint(6 * 7)\nprint('note', file=sys.stderr)")
    assert (outcome.status, outcome.stdout, outcome.stderr, outcome.reason) == ("ok", "42\n", "note\n", "")
    assert outcome.is_ok and outcome.seconds > 0
    outcome = run(sandbox, "print(1)\n1 / 0")
    assert (outcome.status, outcome.stdout) == ("error", "1\n")
    assert outcome.reason == "ZeroDivisionError: division by zero"
    assert outcome.stderr == (
        'Traceback (most recent call last):\n  File "<program>", line 2, in <module>\n'
        "ZeroDivisionError: division by zero\n"
    )


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("", "ok", ""),
        ("raise SystemExit", "ok", ""),
        ("import sys; sys.exit(3)", "error", "exit status 3"),
        ("import sys; sys.exit('bye')", "error", "exit status 1"),
        ("import os; os._exit(4)", "error", "exit status 4"),
        ("import os; os.abort()", "error", "ended by SIGABRT"),
        ("x = (", "error", "SyntaxError"),
        ("\0", "error", "SyntaxError"),
        ("\ud800", "error", "UnicodeEncodeError"),
        ("(" * 10_000, "error", "SyntaxError"),
        ("def f(n):\n    return f(n + 1)\nf(0)", "error", "RecursionError"),
        ("input()", "error", "EOFError"),
        ("class E(Exception):\n    def __str__(self):\n        1 / 0\nraise E", "error", "E"),
    ],
)
def test_ends(sandbox, code, status, reason):
    outcome = run(sandbox, code)
    assert outcome.status == status
    assert outcome.reason.startswith(reason)


def test_a_program_is_a_main_module(sandbox):
    code = """
import dataclasses, pickle
@dataclasses.dataclass
class Point:
    x: int
if __name__ == "__main__":
    print(pickle.loads(pickle.dumps(Point(3))))
"""
    assert run(sandbox, code).stdout == "Point(x=3)\n"


def test_text_in_other_scripts(sandbox):
    assert run(sandbox, "print('π ≈ 3', '\\ud800')").stdout == "π ≈ 3 \\ud800\n"
    assert run(sandbox, "import os\nos.write(1, b'\\xff')").stdout == "�"


def test_stdin(sandbox):
    assert run(sandbox, "print(sum(map(int, input().split())))", stdin="1 2 3\n").stdout == "6\n"
    long = "x" * 300_000
    assert run(sandbox, "import sys\nprint(len(sys.stdin.read()))", stdin=long).stdout == "300000\n"


def test_before_is_a_session(sandbox):
    before = ("x = 1\nprint('silent')", "x += 1\n1 / 0\nx = 9", "def twice(n): return 2 * n", "raise SystemExit")
    outcome = run(sandbox, "print(twice(x))", before=before)
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", "4\n", "")


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("ans = 5", "5"),
        ("answer = 'x'\nans = 5", "x"),
        ("3 + 4", "7"),
        ("def solution():\n    return 8", "8"),
        ("def solution(n=8):\n    return n", "8"),
        ("def solution(n):\n    return n", ""),
        ("def solution():\n    return 8\nsolution()", "8"),
        ("ans = 5\nprint(6)", "6"),
        ("print(6)\n7", "6"),
        ("x = 5", ""),
        ("None", ""),
        ("import math\nmath.pi", "3.141592653589793"),
        ("for i in range(3):\n    i", ""),
    ],
)
def test_the_value_of_a_program_that_prints_nothing(sandbox, code, shown):
    assert run(sandbox, code, show_value=True).stdout.strip() == shown


def test_a_value_is_not_shown_unasked(sandbox):
    assert run(sandbox, "ans = 5\n7").stdout == ""


def test_what_was_printed_before_the_deadline_is_kept(sandbox):
    outcome = run_program("print('so far')\nwhile True:\n    pass", limits=Limits(seconds=1))
    assert (outcome.status, outcome.stdout) == ("timeout", "so far\n")
    assert outcome.reason == "ran longer than 1 seconds"


def test_a_refusal_that_is_caught_is_told(sandbox):
    outcome = run(sandbox, "import os\ntry:\n    os.fork()\nexcept OSError:\n    print('alone')")
    assert (outcome.status, outcome.stdout, outcome.refusals) == ("ok", "alone\n", ("os.fork",))


def test_the_working_folder_is_empty_and_can_be_used(sandbox):
    code = "import os, tempfile\nprint(os.listdir('.'))\nopen('a', 'w').write('x')\nprint(open('a').read())"
    outcome = run(sandbox, code)
    if sandbox.mode == "namespaces":
        assert outcome.stdout == "[]\nx\n"
        assert run(sandbox, "import tempfile\nwith tempfile.TemporaryFile() as f:\n    f.write(b'x')").refusals == ()
    else:
        assert (outcome.status, outcome.stdout) == ("refused", "[]\n")


def test_packages():
    with Sandbox(limits=Limits(seconds=60), workers=1) as sandbox:
        code = "from sympy import *\nx = symbols('x')\nprint(solve(x**2 - 2, x))"
        first, second = sandbox.run([code, code])
        assert first.stdout == second.stdout == "[-sqrt(2), sqrt(2)]\n"
        numpy = "import numpy as np\nprint(np.linalg.det(np.eye(3)), np.random.rand())"
        first, second = sandbox.run([numpy, numpy])
        assert first.stdout == second.stdout and first.stdout.startswith("1.0 ")
    assert run_program("import sympy", packages=()).reason == "ModuleNotFoundError: No module named 'sympy'"
    with pytest.raises(UsageError, match="top-level names"):
        run_program("1", packages=["sympy.core"])


def test_the_same_program_says_the_same():
    code = "import random\nprint(random.random(), list({'a', 'b', 'c', 'd'}))"
    assert len({run_program(code).stdout for _ in range(2)}) == 1


def test_a_batch_keeps_its_order_and_is_counted():
    codes = [f"print({n})" if n % 5 else "1 / 0" for n in range(40)]
    codes[7] = "while True:\n    pass"
    outcomes = run_programs(codes, workers=3, limits=Limits(seconds=2))
    assert [outcome.stdout.strip() for outcome in outcomes] == [str(n) if n % 5 and n != 7 else "" for n in range(40)]
    assert status_counts(outcomes) == Counter(ok=31, error=8, timeout=1)
    assert list(status_counts([])) == list(STATUSES)
    assert run_programs([]) == []


def test_off_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(run_program("print(1)").stdout))
    thread.start()
    thread.join()
    assert found == ["1\n"]


def test_in_a_fork_of_a_process_that_has_a_sandbox(sandbox):
    assert run(sandbox, "print(1)").stdout == "1\n"
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(run(sandbox, "print(2)").stdout))
    child.start()
    child.join(30)
    assert queue.get() == "2\n"
    assert run(sandbox, "print(3)").stdout == "3\n"


def test_bad_limits():
    for name in ("seconds", "memory", "output"):
        with pytest.raises(UsageError, match=f"limit of {name} must be above 0"):
            Limits(**{name: 0})
    with pytest.raises(UsageError, match="limit of files"):
        Limits(files=-1)
    with pytest.raises(UsageError, match="workers must be at least 1"):
        Sandbox(workers=0)
    with pytest.raises(UsageError, match=r"Unknown sandbox mode 'landlok'\. Did you mean 'landlock'"):
        Sandbox(mode="landlok")


def test_layers_are_what_attacks_found():
    layers = sandbox_layers()
    assert not sandbox_probe.missing(layers)
    assert {layer.name for layer in layers if layer.is_required} >= {"processes", "network", "reading", "writing"}
    # Python's own guard does not count: the same attacks, with nothing else in their way.
    weak = sandbox_layers("guard")
    assert {"processes", "network", "reading", "writing"} <= set(sandbox_probe.missing(weak))


def test_where_nothing_confines_nothing_is_run(monkeypatch):
    monkeypatch.setattr(sandbox_module, "_probed", lambda mode: (sandbox_probe.read_probe(mode, ""), "not here"))
    with pytest.raises(UsageError, match=r"cannot be confined.*namespaces: not here; landlock: not here.*'guard'"):
        run_program("print(1)")
    assert run_program("print(1)", mode="guard").stdout == "1\n"


def test_the_guard_alone_stops_accidents(tmp_path):
    target = tmp_path / "file"
    target.write_text("x")
    codes = [
        "import os\nos.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        "import socket\nsocket.socket()",
        f"print(open({str(target)!r}).read())",
        f"open({str(target)!r}, 'w')",
        f"import os\nos.remove({str(target)!r})",
        "import ctypes\nctypes.CDLL('libc.so.6')",
        "import ctypes\nctypes.CDLL(None).getpid()",
    ]
    outcomes = run_programs([*codes, "10**10**8", "x = [0] * 10**12"], mode="guard", limits=Limits(seconds=2))
    assert [outcome.status for outcome in outcomes] == ["refused"] * 8 + ["timeout", "memory"]
    assert target.read_text() == "x"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_lists_of_system_calls_agree(monkeypatch, machine):
    """No number twice, every machine with the calls of the other but for those that it has by another name."""
    monkeypatch.syspath_prepend(str(Path(sandbox_module.__file__).parent))  # as the sandbox's interpreter sees it
    import sandbox_seccomp

    monkeypatch.setattr(sandbox_seccomp, "MACHINE", machine)
    tables = (sandbox_seccomp.READING, sandbox_seccomp.WRITING, sandbox_seccomp.ON_ITSELF)
    numbers = [number for table in tables for number in sandbox_seccomp.numbers(table)]
    assert len(numbers) == len(set(numbers))
    assert len(sandbox_seccomp.filter_program(may_write=True, process=1)) % 8 == 0


def test_nothing_heavy_is_imported():
    """The parent's side is quick to import: workers do it."""
    code = (
        "import sys, trl_math.grading.programs;"
        "assert not {'torch', 'transformers', 'numpy', 'sympy', 'math_verify', 'multiprocessing'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
