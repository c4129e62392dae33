"""The benchmark of the report runs and prints its figure; how large it is, is not tested here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import quiet_environment


@pytest.mark.slow
def test_report_prints_its_figure_last():
    script = Path(__file__).parents[1] / "benchmarks" / "report.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick"], env=quiet_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figure = r"report: 2 runs x 40 problems x 8 samples, [\d.]+ s, [\d.]+ s of processor time, (\d+) MB at its peak, "
    found = re.match(figure + r"[\d.]+ MB of HTML$", done.stdout.splitlines()[-1])
    assert found and int(found[1]) > 20
