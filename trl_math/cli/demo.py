"""`trl-math demo`: the coverage effect from nothing, then a real model that learns from its own answers."""

import sys
import time
from pathlib import Path

from trl_math.errors import UsageError


HELP = """\
usage: trl-math demo [--output FOLDER]

First trains a small Llama from scratch on two-digit multiplication twice, with cross-entropy and with coverage for 64
attempts: the table and the figure go to FOLDER (default: runs/demo). Then SmolLM2-135M is asked its times tables,
trained for a round on pairs of its own right and wrong answers, and asked again: the page is in FOLDER/times-tables.
Minutes on two CPU cores. Interrupted, the same command goes on; finished, it shows the results again.
"""

# Cross-entropy, and coverage for as many attempts as the figure looks at.
LOSSES = (1, 64)


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(HELP.rstrip())
        return 0
    folder = _output(argv)
    started = time.monotonic()
    picture = _coverage(folder)
    status = _loop(folder / "times-tables")
    if status == 0:
        print(f"{time.monotonic() - started:.0f} s. The picture: {picture.resolve()}")
    return status


def _coverage(folder: Path) -> Path:
    """Show what limiting confidence does; return where the picture is."""
    from trl_math.demo.task import Settings
    from trl_math.demo.workers import run_table
    from trl_math.reporting import coverage_effect, draw, table

    print("1. Two models learn to multiply: one with cross-entropy, one with coverage for 64 attempts.", flush=True)
    runs = run_table(LOSSES, [0], folder / "runs", Settings(), workers=2, report=_say)
    effect = coverage_effect(runs)
    text = table(runs)
    (folder / "table.md").write_text(text + "\n")
    picture, *_ = draw(runs, folder / "figure")
    print(f"\n{text}\n")
    print(
        f"After {effect.epoch} epochs 64 attempts solve {effect.gain:+.1f} points more held-out problems with "
        f"coverage; cross-entropy has lost {effect.fall:.1f} points since its best epoch.\n"
    )
    return picture


def _loop(folder: Path) -> int:
    """Show a round of learning from own answers; return the exit status."""
    from trl_math.demo.rounds import find_report, run_round

    print("2. SmolLM2-135M learns its times tables from its own right and wrong answers.", flush=True)
    status = run_round(folder)
    if status == 0 and (page := find_report(folder)):
        print(f"\nThe page of both evaluations: {page.resolve()}")
    return status


def _output(argv: list[str]) -> Path:
    if not argv:
        return Path("runs/demo")
    if len(argv) == 2 and argv[0] == "--output":
        return Path(argv[1])
    raise UsageError(f"trl-math demo knows --output FOLDER only, got {' '.join(argv)}.")


def _say(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
