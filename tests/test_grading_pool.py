"""Nothing hangs: deadlines that hold, bounded memory, processes that come back, and no process left behind."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trl_math.errors import TrlMathError
from trl_math.grading import Grader, grade, grade_all, pool
from trl_math.grading.results import Outcome


# Comparisons that only a worker can make, and one that it never ends.
SLOW = ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}")
ENDLESS = ("\\frac{n(n+1)}{2}", "\\sum_{k=1}^{10^{10}} k!^{k!}")

ADVERSARIAL = {
    "a tower": "5^(5^(5^(5^5)))",  # Math-Verify#65
    "a tower in LaTeX": "5^{5^{5^{5^5}}}",
    "nested factorials": "((((5!)!)!)!)!",
    "a megabyte of digits": "7" * 1_000_000,
    "ten thousand braces": "{" * 10_000 + "1" + "}" * 10_000,
    "braces that never close": "{" * 10_000,
    "nested fractions": "\\frac{1}{" * 300 + "2" + "}" * 300,
    "nested roots": "\\sqrt{" * 300 + "2" + "}" * 300,
    "powers without brackets": "x^" * 900 + "x",
    "a large power": "10^{10^{9}}",
    "a quotient of factorials": "\\frac{(10^6)!}{(10^6-1)!}",
    "minus signs": "-" * 1900 + "1",
    "brackets": "(" * 900 + "1" + ")" * 900,
    "a long list": "1," * 900,
    "a long sum": "+".join(["x"] * 900),
    "spaces": "1" + " " * 1_000_000 + "2",
    "words": "\\text{" + "and " * 450 + "}",
    "minus signs in exponents": "5^-" * 600 + "1",
    "names": "\\alpha" * 100 + "1=5",
}
REGULAR = {
    "dollars": "$" * 200_000,
    "boxes": "\\boxed{" * 50_000,
    "formulas": "\\[" * 100_000,
    "answers": "the answer is " * 50_000,
    "hashes": "####" * 100_000,
    "commas": "1," * 300_000,
    "slashes": "the answer is 1" + "/1" * 300_000,
    "letters": "answer " + "a" * 1_000_000,
    "asterisks": "answer " + "*" * 1_000_000,
}


REST_OF_KINDS = ("number", "choice", "text")


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1, deadline=2) as found:
        yield found


def children() -> set[int]:
    """Return the processes that this one has started and not ended."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(is_so, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.05)
    return is_so()


def processes(grader: Grader) -> list[int]:
    return [pid for worker in grader.pool.workers for pid in (worker.process.pid, worker.child) if pid]


# ---- Deadlines ----


@pytest.mark.timeout(120)
def test_adversarial_answers_among_a_thousand_normal_ones() -> None:
    """Every normal row is graded as if the others were not there, and no process grows."""
    normal = [(f"So it is $\\boxed{{{number}}}$.", str(number + number % 2)) for number in range(950)]
    normal += [(f"\\boxed{{\\frac{{\\sqrt{{{n}}}}}{{{n}}}}}", f"\\frac{{1}}{{\\sqrt{{{n}}}}}") for n in range(2, 52)]
    expected = [number % 2 == 0 for number in range(950)] + [True] * 50
    hard = [(f"\\boxed{{{text}}}", "\\frac{n(n+1)}{2}") for text in ADVERSARIAL.values()]
    hard += [(text, "\\frac{n(n+1)}{2}") for text in REGULAR.values()]
    hard += [(f"\\boxed{{{ENDLESS[1]}}}", ENDLESS[0])] * 3
    rows = list(normal)
    for place, row in enumerate(hard):
        rows.insert(place * 37 % len(rows), row)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Grader(workers=2, deadline=2) as grader:
        grader.compare([SLOW])  # loading SymPy is no part of the batch
        grades, report = grader.grade_all(rows)
    verdicts = {row: found.correct for row, found in zip(rows, grades, strict=True)}
    assert [verdicts[row] for row in normal] == expected
    assert not any(verdicts[row] for row in hard)
    assert report.num_timeouts == 3 and report.reasons["too_complex"] >= 8  # the three are one comparison
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["math", *(pytest.param(kind, marks=pytest.mark.slow) for kind in REST_OF_KINDS)])
def test_adversarial_texts_do_not_hang_in_any_kind(kind: str) -> None:
    gold = {"choice": "C", "text": "yes"}.get(kind, "987654")
    for text in (*ADVERSARIAL.values(), *REGULAR.values()):
        for completion in (text, f"\\boxed{{{text}}}", f"The answer is {text}"):
            found = grade(completion, gold, kind, choices=["1", "2", "3"] if kind == "choice" else None, deadline=2)
            assert found.correct is False, (text[:40], found.reason)


def test_adversarial_gold_answers_do_not_hang() -> None:
    for text in ADVERSARIAL.values():
        assert grade("\\boxed{5}", text, deadline=2).correct is not True
        assert grade(f"\\boxed{{{text}}}", text, deadline=2).reason in ("exact", "gold_unreadable", "unfinished")


def test_a_process_that_misses_its_deadline_is_killed_and_replaced(grader: Grader) -> None:
    assert grader.compare([SLOW]) == [Outcome(True, "math_verify")]
    (worker,) = grader.pool.workers
    first = worker.child
    found = grader.compare([SLOW, ENDLESS, ("\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt{3}}")])
    assert found == [Outcome(True, "math_verify"), Outcome(False, "timeout"), Outcome(True, "math_verify")]
    # The child was replaced, by the process that has SymPy loaded already.
    assert grader.pool.workers == [worker] and worker.child != first
    assert wait_until(lambda: not is_alive(first))


def test_timeouts_are_counted_and_tried_again(grader: Grader) -> None:
    rows = [(f"\\boxed{{{ENDLESS[1]}}}", ENDLESS[0]), ("\\boxed{5}", "5")]
    for _ in range(2):
        grades, report = grader.grade_all(rows)
        assert [(found.correct, found.reason) for found in grades] == [(False, "timeout"), (True, "exact")]
        assert (report.num_timeouts, report.num_slow, report.num_remembered) == (1, 1, 0)


def test_the_same_comparison_is_made_once(grader: Grader) -> None:
    rows = [("\\boxed{\\frac{\\sqrt{7}}{7}}", "\\frac{1}{\\sqrt{7}}")] * 50
    assert grader.grade_all(rows).report.num_slow == 1
    grades, report = grader.grade_all(rows)
    assert all(found.correct for found in grades) and (report.num_slow, report.num_remembered) == (0, 50)


class Greedy:
    """Stands in for the judges: takes as much memory as the answer says."""

    def outcome(self, gold: str, answer: str) -> tuple[bool, str]:
        held = bytearray(int(answer))
        return len(held) > 0, "exact"


def serve_greedily() -> None:
    from trl_math.grading import worker

    worker._judge = Greedy
    worker.main()


def test_memory_is_bounded(monkeypatch) -> None:
    """A comparison that needs more than it may use is lost, and the next one is made."""
    main = f"sys.path.append({str(Path(__file__).parent)!r}); import test_grading_pool as t; t.serve_greedily()"
    monkeypatch.setattr(pool, "_MAIN", main)
    with Grader(workers=1, memory_mb=1024) as grader:
        found = grader.pool.compare([("", "1000"), ("", str(2**31)), ("", "2000")], 20)
        assert [outcome.reason for outcome in found] == ["exact", "memory", "exact"]
        assert max(peak_mb(pid) for pid in processes(grader)) < 1024
        assert grader.pool.num_deaths == 1


def test_a_comparison_has_little_memory() -> None:
    with Grader(workers=1) as grader:
        grader.compare([SLOW])
        assert max(peak_mb(pid) for pid in processes(grader)) < 200


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


# ---- Processes that die ----


def test_a_process_that_is_killed_from_outside_costs_nothing(grader: Grader) -> None:
    grader.compare([SLOW])
    (worker,) = grader.pool.workers
    timer = threading.Timer(0.5, os.kill, (worker.child, signal.SIGKILL))
    timer.start()
    found = grader.compare([ENDLESS, ("\\sqrt{12}", "2\\sqrt{3}")])
    # It may have been innocent: it is tried once more.
    assert found == [Outcome(False, "timeout"), Outcome(True, "math_verify")]
    assert grader.pool.num_deaths == 1
    # Also if the parent of that process goes, or both, while nothing is under way.
    for number, victims in enumerate(([worker.process.pid], processes(grader)), start=5):
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        assert grader.compare([(f"\\sqrt{{{4 * number}}}", f"2\\sqrt{{{number}}}")]) == [Outcome(True, "math_verify")]


def test_processes_that_cannot_start_are_an_error_and_no_loop(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Grader(workers=2) as grader, pytest.raises(TrlMathError, match="keep ending before they compare anything"):
        grader.compare([SLOW])


def test_no_process_is_left() -> None:
    before = children()
    with Grader(workers=2, deadline=1) as grader:
        grader.compare([SLOW, ENDLESS])
        started = processes(grader)
        assert len(started) >= 2 and children() > before
    assert not any(is_alive(pid) for pid in started)
    assert children() == before  # and no zombies
    grader.close()  # twice does no harm, and a closed one starts again
    assert grader.compare([SLOW])[0].correct
    grader.close()


SCRIPT = """
import os, sys, time
from trl_math.grading import Grader, grade
from trl_math.grading.grader import shared_grader
grader = shared_grader(1)
assert grade("\\\\boxed{\\\\sqrt{8}}", "2\\\\sqrt{2}").correct
print(*[pid for w in grader.pool.workers for pid in (w.process.pid, w.child)], flush=True)
"""


ENDINGS = [pytest.param(how, marks=pytest.mark.slow) for how in ("os._exit(3)", "raise SystemExit(1)")]


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), 9)", *ENDINGS])
def test_processes_end_with_the_interpreter_however_it_ends(ending: str) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT + ending], stdout=subprocess.PIPE, text=True, timeout=120)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_control_c_ends_a_batch_at_once() -> None:
    # Shells ignore it in what they run in the background, and children inherit that.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = heed + SCRIPT + f"grade({f'{chr(92)}boxed{{{ENDLESS[1]}}}'!r}, {ENDLESS[0]!r}, deadline=300)\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in process.stdout.readline().split()]
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids))


# ---- Wherever Python runs ----


def slow_grade() -> bool | None:
    return grade("so $\\boxed{\\sqrt{32}}$", "4\\sqrt{2}").correct


def test_off_the_main_thread_and_in_several() -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(slow_grade())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 4


def report_to(queue) -> None:
    queue.put((slow_grade(), grade_all([("\\boxed{\\sqrt{50}}", "5\\sqrt{2}")], workers=1).grades[0].correct))


@pytest.mark.parametrize(
    ("method", "daemon"),
    [("fork", False), ("fork", True), pytest.param("spawn", False, marks=pytest.mark.slow), ("spawn", True)],
)
def test_in_child_processes(method: str, daemon: bool) -> None:
    """Also forked while this process has workers of its own, whose pipes the child must not touch."""
    assert slow_grade()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=report_to, args=(queue,), daemon=daemon)
    process.start()
    assert queue.get(timeout=120) == (True, True)
    process.join(30)
    assert process.exitcode == 0
    assert grade("\\boxed{\\sqrt{72}}", "6\\sqrt{2}").correct


def test_in_a_forked_data_loader() -> None:
    from torch.utils.data import DataLoader, Dataset

    class Rows(Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> bool:
            return bool(
                grade(
                    f"\\boxed{{\\frac{{\\sqrt{{{index + 2}}}}}{{{index + 2}}}}}", f"\\frac1{{\\sqrt{{{index + 2}}}}}"
                ).correct
            )

    assert slow_grade()
    loader = DataLoader(Rows(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert [bool(value) for batch in loader for value in batch] == [True] * 4


def test_forked_while_another_thread_grades() -> None:
    """The lock that the other thread holds must not be held for ever in the child."""
    thread = threading.Thread(target=lambda: grade(f"\\boxed{{{ENDLESS[1]}}}", ENDLESS[0], deadline=3))
    thread.start()
    time.sleep(1)
    child = os.fork()
    if child == 0:
        os._exit(0 if slow_grade() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join(30)
    assert slow_grade()
