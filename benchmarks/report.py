"""What the report of two large runs costs: `python benchmarks/report.py`.

Two evaluations of the same 5,000 problems with 64 samples each, 640,000 graded samples with LaTeX, are made up by the
generators that the tests use. Then `trl-math report` makes their page in a process of its own, with every setting at
its default. Measured of that process: wall and processor time, peak memory (of its largest process, in case there are
workers) and the size of the HTML. `--quick` takes 40 problems with 8 samples. The last line is the figure.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from report_runs import SHAPES, write_evaluation  # noqa: E402 - from the tests' folder


RUNS = ("cross-entropy", "coverage-n64")
BENCHMARK = "math-made"


class Cost(NamedTuple):
    """Of one report."""

    wall: float
    cpu: float
    peak: int  # bytes
    size: int  # bytes


def make_runs(folder: Path, num_problems: int, num_samples: int) -> None:
    """Write two runs over the same problems."""
    for name in RUNS:
        write_evaluation(folder / name, SHAPES[name], {BENCHMARK: num_problems}, num_samples)


def cost_of_report(runs: list[Path], page: Path) -> Cost:
    """Make the report in a process of its own, and return what that took."""
    command = [sys.executable, "-m", "trl_math.cli.main", "report", *map(str, runs), "--output", str(page)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"trl-math report ended with status {process.returncode}.")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, page.stat().st_size)


def main() -> None:
    num_problems, num_samples = (40, 8) if "--quick" in sys.argv else (5000, 64)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        # In a process of its own: Linux counts what this one holds as the peak of those that it starts.
        maker = multiprocessing.get_context("spawn").Process(
            target=make_runs, args=(folder, num_problems, num_samples)
        )
        maker.start()
        maker.join()
        runs = [folder / name for name in RUNS]
        written = sum(path.stat().st_size for run in runs for path in run.iterdir())
        print(f"{written / 1e6:,.0f} MB of runs made in {time.perf_counter() - start:.0f} s", flush=True)
        cost = cost_of_report(runs, folder / "report.html")
    print(
        f"report: 2 runs x {num_problems:,} problems x {num_samples} samples, {cost.wall:.1f} s, {cost.cpu:.1f} s of "
        f"processor time, {cost.peak / 1e6:,.0f} MB at its peak, {cost.size / 1e6:.2f} MB of HTML"
    )


if __name__ == "__main__":
    main()
