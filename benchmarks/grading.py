r"""How much faster grading is than a plain loop over math-verify: `python benchmarks/grading.py`.

The loop is what one writes first: `verify(parse(gold), parse(solution))`, on written solutions of MATH. Ours is
`Grader.grade_all` with one worker process. Both run on one core, to which the process and its worker are bound, on the
same rows in turns, a few hundred at a time, the one that goes first changing; every row is seen once by each, so
neither lives from what it remembers. The worker is running before the clock starts, as SymPy is loaded before it for
the loop. The figure is the median of the ratios.

Two sets of rows, which share none: half of the solutions with their own answers; and the other half, in which the
answers of every other row are exchanged, so that half of them are wrong. All verdicts on both are then made again by
the slow path alone (no shortcut without SymPy), and the number that differs is part of the figure.

Rows come from MATH's test set: a .jsonl file with `solution`, by default ../shared/data/math/test.jsonl; without it,
or with --quick, from a few dozen solutions below.
"""

import argparse
import json
import logging
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from math_verify import parse, verify

from trl_math.grading import Grader, last_boxed
from trl_math.grading.cascade import Cascade
from trl_math.grading.locate import find


MATH = Path(__file__).resolve().parents[2] / "shared" / "data" / "math" / "test.jsonl"
CHUNK = 250

Row = tuple[str, str]  # a solution, and a gold answer

# For a smoke run: answers of the kinds that MATH has.
_ANSWERS = r"""
42 -7 \frac{3}{4} 2\sqrt{5} 12\pi 0.25 \frac{\sqrt{3}}{2} 1,\!234 (3,-1) [0,5) x^2+3x+2 1101_2 50\% 2,3,5 75^\circ
\begin{pmatrix}1\\-2\end{pmatrix} \text{Tuesday} (-\infty,2)\cup(5,\infty) x=4 -\frac{11}{6} 3+4i \$18.90
"""
ANSWERS = _ANSWERS.split()
STEPS = "First, $x^2 - 5x + 6 = 0$ gives $x = 2$ or $x = 3$. Then $\\frac{1}{2} \\cdot 6 = 3$, so there are 3 ways. "


def read_rows(path: Path | None) -> list[Row]:
    """Return solutions with the answers in their boxes."""
    if path is None:
        return [
            (f"{STEPS * (1 + index % 3)}The answer is $\\boxed{{{gold}}}$.", gold)
            for index, gold in enumerate(ANSWERS)
        ]
    solutions = [json.loads(line)["solution"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [(solution, gold) for solution in solutions if (gold := last_boxed(solution))]


def half_exchanged(rows: list[Row]) -> list[Row]:
    """Return the rows with the answers of every other one exchanged among them."""
    mixed = list(rows)
    chosen = range(0, len(rows), 2)
    golds = [rows[index][1] for index in chosen]
    random.Random(0).shuffle(golds)
    for index, gold in zip(chosen, golds, strict=True):
        mixed[index] = (rows[index][0], gold)
    return mixed


def plain_loop(rows: list[Row]) -> None:
    for solution, gold in rows:
        verify(parse(f"${gold}$"), parse(solution))


def seconds(grade: Callable[[list[Row]], object], rows: list[Row]) -> float:
    started = time.perf_counter()
    grade(rows)
    return time.perf_counter() - started


def ratios(rows: list[Row], grader: Grader, chunk: int) -> tuple[list[float], float, float]:
    """Return the loop's time over ours for each chunk of rows, and the rows per second of both."""
    ours = theirs = 0.0
    found = []
    for number, start in enumerate(range(0, len(rows) - chunk + 1, chunk)):
        part = rows[start : start + chunk]
        if number % 2:
            mine, other = seconds(grader.grade_all, part), seconds(plain_loop, part)
        else:
            other, mine = seconds(plain_loop, part), seconds(grader.grade_all, part)
        ours, theirs = ours + mine, theirs + other
        found.append(other / mine)
    graded = len(found) * chunk
    return found, graded / ours, graded / theirs


def num_differences(rows: list[Row], grader: Grader) -> int:
    """Return how many verdicts differ from those of the slow path alone, and print them."""
    slow = Cascade(is_fast=False)
    differences = 0
    for (solution, gold), grade in zip(rows, grader.grade_all(rows).grades, strict=True):
        answer = find(solution, "math").text
        outcome = slow.outcome(gold, answer) if answer is not None else None
        if outcome is not None and outcome.correct != grade.correct:
            differences += 1
            print(f"differs: gold {gold!r}, answer {answer!r}: {grade.reason}, slow path {outcome.reason}")
    return differences


def bind_to_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main(arguments: list[str] | None = None) -> None:
    """Measure both sets of rows and print the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few dozen rows: a smoke run")
    parser.add_argument("--rows", type=Path, default=MATH if MATH.exists() else None, help="a .jsonl file of MATH")
    args = parser.parse_args(arguments)
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    path = None if args.quick else args.rows
    own = read_rows(path)
    sets = {"correct": own[0::2], "half exchanged": half_exchanged(own[1::2])}
    chunk = min(CHUNK, len(own) // 4)
    figures, differences = [], 0
    with Grader(workers=1) as grader:
        # Load and warm up what both sides need: SymPy, its parser, the worker.
        warm = read_rows(None)
        plain_loop(warm)
        grader.compare([("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}")])
        for name, rows in sets.items():
            found, ours, theirs = ratios(rows, grader, chunk)
            speeds = f"ours {ours:8.0f} rows/s   plain loop {theirs:6.0f} rows/s"
            print(f"{name:15} {speeds}   {len(found)} x {chunk} rows")
            figures.append(f"{statistics.median(found):.1f}x ({min(found):.1f}..{max(found):.1f}) {name}")
            differences += num_differences(rows, grader)
    print(
        f"grading: {', '.join(figures)}, {differences} verdicts differ from the slow path; {len(own)} rows, one core, "
        f"one worker; {platform.processor() or platform.machine()}"
    )


if __name__ == "__main__":
    bind_to_one_core()
    main()
