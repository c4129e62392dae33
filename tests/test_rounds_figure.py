"""The figure of rounds, from the files that `trl-math run` leaves."""

import json

import pytest

from trl_math.errors import DataError
from trl_math.reporting.groups_figure import draw_groups
from trl_math.reporting.rounds import Point, read_rounds
from trl_math.reporting.rounds_figure import draw_rounds


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def estimate(value):
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def experiment(folder, rates):
    """Write an experiment whose evaluations have these accuracies."""
    stages = []
    for number, rate in enumerate(rates):
        if number:
            training = {"log_history": [{"step": 2, "drift/chosen_per_token": -0.01 * number}, {"step": 4, "loss": 1}]}
            write(folder / f"round-{number}/pairs/pairs.json", {"num_pairs": 10 * number})
            write(folder / f"round-{number}/dpo/trainer_state.json", training)
            for command in ("pairs", "dpo"):
                output = str(folder / f"round-{number}/{command}")
                stages.append({"words": [command], "label": f"round-{number}/{command}", "output": output})
        metrics = {"accuracy": estimate(rate), "pass@2": estimate(rate + 0.1), "pass@16": estimate(rate + 0.3)}
        result = {"benchmark": "b", "num_problems": 48, "samples_per_problem": [32, 32], "metrics": metrics}
        write(folder / f"e{number}/summary.json", {"results": [result]})
        stages.append({"words": ["evaluate"], "label": f"evaluate {number}", "output": str(folder / f"e{number}")})
    write(folder / "run.json", {"command": "run", "recipe": {}, "stages": stages})
    return folder


def test_rounds_are_read_in_order_and_drawn(tmp_path):
    rounds = [read_rounds(experiment(tmp_path / name, rates), name) for name, rates in
              (("right", (0.2, 0.3, 0.5)), ("wrong", (0.2, 0.25, 0.22)))]  # fmt: skip
    assert [one.metrics["accuracy"].value for one in rounds[0].evaluations] == [0.2, 0.3, 0.5]
    found = {k: point.value for k, point in rounds[0].evaluations[0].pass_at().items()}
    assert found == pytest.approx({1: 0.2, 2: 0.3, 16: 0.5})
    assert rounds[0].num_pairs == [10, 20] and rounds[0].drift == [[(2, -0.01)], [(2, -0.02)]]
    png, svg = draw_rounds(rounds, tmp_path / "figure" / "rounds.png")
    first = svg.read_bytes()
    assert png.read_bytes().startswith(b"\x89PNG") and b"<svg" in first
    assert draw_rounds(rounds, tmp_path / "again")[1].read_bytes() == first


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match="holds no experiment of `trl-math run`"):
        read_rounds(tmp_path, "none")
    folder = experiment(tmp_path / "half", (0.2, 0.3))
    (folder / "e1" / "summary.json").unlink()
    with pytest.raises(DataError, match="the experiment is not finished"):
        read_rounds(folder, "half")


def test_groups_are_drawn(tmp_path):
    """Every share has its place, its interval and its number; the same shares give the same file."""
    shares = {
        name: [Point(value, value - 0.05, value + 0.05) for value in values]
        for name, values in (("untrained", (0.12, 0.08)), ("right", (0.66, 0.51)), ("wrong", (0.4, 0.3)))
    }
    png, svg = draw_groups("pass@1", ["words", "program"], shares, tmp_path / "figure" / "groups.png", "a caption")
    assert png.read_bytes().startswith(b"\x89PNG")
    texts = svg.read_text()
    assert all(f"<!-- {text} -->" in texts for text in ("untrained", "wrong", "words", "66", "51", "a caption"))
    again = draw_groups("pass@1", ["words", "program"], shares, tmp_path / "again.png", "a caption")[1]
    assert again.read_text() == texts
