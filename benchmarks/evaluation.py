"""What `trl-math evaluate` costs beyond drawing the samples: 100 problems x 8 samples of the 135M model, real vLLM.

One process runs the command. Drawing is what `trl-math generate` would do as well: engine, samples, store. The rest is
what evaluation adds: grading, voting, intervals, files, table. Their quotient is the last line.

    python benchmarks/evaluation.py            # some minutes on two cores
    python benchmarks/evaluation.py --quick    # 5 problems x 2, scripted: only that it runs
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trl_math.cli.main import main as trl_math
from trl_math.evaluation import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args(argv).quick
    seconds: dict[str, float] = {}
    plain = {name: getattr(run, name) for name in ("draw", "conclude")}

    def timed(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return plain[name](*args, **kwargs)
            finally:
                seconds[name] = time.perf_counter() - start

        return call

    for name in plain:
        setattr(run, name, timed(name))
    size = ["--max-problems", "5", "--num-samples", "2"] if quick else ["--max-problems", "100", "--num-samples", "8"]
    engine = ["embedded:tiny", "--backend", "scripted"] if quick else ["embedded:smollm2-135m-instruct"]
    with tempfile.TemporaryDirectory() as folder:
        words = ["evaluate", "--model", *engine, "--benchmarks", "arithmetic", *size, "--max-tokens", "128"]
        start = time.perf_counter()
        try:
            status = trl_math([*words, "--temperature", "1", "--output", str(Path(folder, "run"))])
        finally:
            for name, function in plain.items():
                setattr(run, name, function)
        total = time.perf_counter() - start
    assert status == 0
    print(f"total {total:.1f} s: drawing {seconds['draw']:.1f} s, grading and counting {seconds['conclude']:.2f} s")
    print(f"evaluation adds {100 * seconds['conclude'] / seconds['draw']:.2f} % to drawing")


if __name__ == "__main__":
    main()
