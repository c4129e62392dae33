"""The generation benchmark runs and prints its figure; how large it is, is not tested here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import quiet_environment

from trl_math.optional import is_installed


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine")
def test_generation_prints_its_figure_last():
    script = Path(__file__).parents[1] / "benchmarks" / "generation.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick"], env=quiet_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.splitlines()[-1]
    assert re.match(
        r"generation: \d+\.\d{3}x of a bare LLM.generate \(.*; 2 rounds\); vLLM .*x transformers; exch", last
    )
