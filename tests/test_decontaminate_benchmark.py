"""The benchmark of string detectors runs and prints its figure; how large it is, is not tested here."""

import json
import re
import sys
from pathlib import Path


def test_it_prints_its_figure_last(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import decontaminate

    assert sys.modules.pop("decontaminate") is decontaminate
    for side, problems in {"test": ("What is 2 + 3?", "Find x."), "train": ("Find y.", "what is $2+3$")}.items():
        rows = [{"unique_id": f"{side}/{i}", "problem": text, "answer": "5"} for i, text in enumerate(problems)]
        (tmp_path / f"{side}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    decontaminate.main(["--quick", "--data", str(tmp_path), "--list", str(tmp_path / "found.jsonl")])
    lines = capsys.readouterr().out.splitlines()
    figure = (
        r"decontaminate: MATH 2 x 2 in \d+\.\d s \(promised 10\), 8-grams flag 50\.0% of its rows as published, "
        r"1 rows here; 5,000 x 200 in \d+\.\d s \(promised 120\), \d\.\d\d GB \(promised 4\)"
    )
    assert re.fullmatch(figure, lines[-1])
    planted = [line for line in lines if "planted" in line]
    assert "copy 34 of 34, inside 33 of 33, renumbered 0 of 33; others 0" in planted[0]
    assert "copy 34 of 34, inside 0 of 33, renumbered 0 of 33; others 0" in planted[1]
    (found,) = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert (found["test"], found["train"], found["score"]) == ("test/0", "train/1", 1.0)
