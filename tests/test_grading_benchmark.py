"""The benchmark of grading runs and prints its figure; how large it is, is not tested here."""

import json
import re
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_prints_its_figure_last(monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import grading

    assert sys.modules.pop("grading") is grading
    grading.main(["--quick"])
    last = capsys.readouterr().out.splitlines()[-1]
    ratio = r"\d+\.\dx \(\d+\.\d\.\.\d+\.\d\)"
    figure = rf"grading: {ratio} correct, {ratio} half exchanged, 0 verdicts differ from the slow path; 22 rows, .+"
    assert re.fullmatch(figure, last)


def test_rates_are_counted(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import grading_rates

    assert sys.modules.pop("grading_rates") is grading_rates
    boxes = ["\\boxed{5}", "\\boxed{\\sqrt{8}}", "\\boxed{1} and \\boxed{2}", "\\boxed{2\\sqrt{2}}", "", "\\boxed{7}"]
    (tmp_path / "math").mkdir()
    lines = [json.dumps({"solution": f"It is ${box}$."}) for box in boxes]
    (tmp_path / "math" / "test.jsonl").write_text("\n".join(lines))
    grading_rates.main([str(tmp_path)])
    # Without a box there is no gold answer; of two boxes, the set's answer is the last; and two answers are equal.
    rates = "4 of 6 (66.67 %) | 25 of 25 (100.00 %) | 4 of 5 (80.00 %)"
    assert capsys.readouterr().out.splitlines()[-1] == f"| MATH test | {rates} |"
