r"""How often grading is right on problem sets with known answers: `python benchmarks/grading_rates.py ../shared/data`.

Three shares a set. Written solutions against their own answers (where the set has solutions). Each answer, said in
five ways ("\boxed{..}", "The answer is ..", "#### ..", "**..**", alone), against itself. And the answers exchanged
among the problems, which must be wrong unless the two answers are written alike.

The argument is a folder with the sets as their authors publish them: see `SETS`. Sets that are missing are left out.
"""

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any

from trl_math.data import load_source, to_problems
from trl_math.grading import Grader, last_boxed


SETS = {
    "MATH train": ("math/train.jsonl", "train"),
    "MATH test": ("math/test.jsonl", "test"),
    "GSM8K train": ("gsm8k", "train"),
    "GSM8K test": ("gsm8k", "test"),
    "SVAMP": ("svamp/SVAMP.json", "train"),
    "AQuA dev": ("aqua/dev.jsonl", "dev"),
    "AQuA test": ("aqua/test.jsonl", "test"),
    "NumGLUE": ("numglue/test.jsonl", "test"),
    "SimulEq": ("simuleq/test.jsonl", "test"),
    "DeepMind": ("deepmind/test.jsonl", "test"),
    "AMC 2023": ("amc23/test.jsonl", "test"),
    "AIME 2024": ("aime/aime24.jsonl", "aime24"),
}
STATEMENTS = ("We get $\\boxed{%s}$.", "So we add.\nThe answer is %s.", "7 - 3 = 4\n#### %s", "**%s**", "%s")

Row = dict[str, Any]


def read_problems(folder: Path, name: str) -> list[Row]:
    """Return the problems of a set, with `answer` and, where there is one, `solution`."""
    file, split = SETS[name]
    if file.startswith("math"):
        solutions = [json.loads(line)["solution"] for line in (folder / file).read_text("utf-8").splitlines()]
        return [{"solution": text, "answer": last_boxed(text), "answer_kind": "math"} for text in solutions]
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars
        return list(to_problems(load_source(str(folder / file), split), name))


def share(grader: Grader, rows: list[Row], verdict: bool) -> str:
    """Return how many of the rows have a verdict, as text."""
    if not rows:
        return "-"
    found = sum(grade.correct is verdict for grade in grader.grade_all(rows).grades)
    return f"{found:,} of {len(rows):,} ({100 * found / len(rows):.2f} %)"


def exchanged(problems: list[Row]) -> list[Row]:
    """Return each answer in a box with that of another problem of its kind, where they are written differently."""
    pairs = []
    for kind in {row["answer_kind"] for row in problems}:
        alike = [row for row in problems if row["answer_kind"] == kind and row["answer"]]
        pairs += [(row, alike[(index - 7) % len(alike)]["answer"]) for index, row in enumerate(alike)]
    return [
        row | {"completion": STATEMENTS[0] % row["answer"], "answer": gold}
        for row, gold in pairs
        if gold != row["answer"]
    ]


def main(arguments: list[str] | None = None) -> None:
    """Print one line a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with the problem sets")
    folder = parser.parse_args(arguments).folder
    print("| set | own solutions right | statements right | exchanged answers wrong |\n|---|---|---|---|")
    with Grader(workers=1) as grader:
        for name, (file, _) in SETS.items():
            if not (folder / file).exists():
                continue
            problems = read_problems(folder, name)
            solved = [row | {"completion": row["solution"]} for row in problems if row.get("solution")]
            said = [
                row | {"completion": how % row["answer"]} for row in problems if row["answer"] for how in STATEMENTS
            ]
            shares = share(grader, solved, True), share(grader, said, True), share(grader, exchanged(problems), False)
            print(f"| {name} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
