"""The benchmark of importing completions runs, gets back what it wrote and prints its figure, whatever that is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import quiet_environment


@pytest.mark.slow
def test_convert_prints_its_figure_last():
    script = Path(__file__).parents[1] / "benchmarks" / "convert.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick"], env=quiet_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figure = r"convert: 1,280 completions \(2 MB\) imported in [\d.]+ s \([\d.]+ s of processor\) and \d+ MB; lossless"
    assert re.fullmatch(figure, done.stdout.splitlines()[-1])
