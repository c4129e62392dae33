"""`trl-math compare` of arms: what is read of evaluations, the tables, the file, the figure, and what is refused."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import SHAPES, write_evaluation

from trl_math.cli.main import main
from trl_math.evaluation.arms_table import markdown
from trl_math.evaluation.compare_runs import compare_runs, read_run
from trl_math.reporting.study_figure import draw_study, look_of


NUM_PROBLEMS, NUM_SAMPLES = 20, 4
AB = {"a": ["plain-0"], "b": ["plain-1"]}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = value if isinstance(value, list) else None
    path.write_text("".join(json.dumps(row) + "\n" for row in lines) if lines is not None else json.dumps(value))


def evaluation(folder, rates, has_levels=True, benchmark="sums", problems=range(NUM_PROBLEMS), **settings):
    """Write an evaluation in which problem i was solved `rates[i]` times of four."""
    rows, samples = [], []
    for problem, rate in zip(problems, rates, strict=True):
        one = {"benchmark": benchmark, "problem_id": f"p{problem}", "problem": f"{problem}+1?", "answer": "1"}
        rows.append({**one, "level": f"Level {1 + problem * 4 // NUM_PROBLEMS}"} if has_levels else one)
        for index in range(NUM_SAMPLES):
            right = bool(index < rate)
            told = {"mode": "cot", "sample_index": index, "correct": right, "extracted": "1" if right else "2"}
            more = {"reason": "", "finish_reason": "stop", "num_tokens": 3, "sampler": "s"}
            samples.append({"benchmark": benchmark, "problem_id": f"p{problem}", **told, **more})
    metrics = {name: {"value": 0, "low": 0, "high": 0} for name in ("accuracy", "unanswered", "truncated", "pass@4")}
    result = {"benchmark": benchmark, "mode": "cot", "metrics": metrics, "settings": settings}
    write(Path(folder, "summary.json"), {"results": [result]})
    write(Path(folder, "problems.jsonl"), rows)
    write(Path(folder, "samples.jsonl"), samples)
    return str(folder)


def drawn(seed, hard=0.0, easy=0.0):
    """How often each problem was solved, later ones less often; the arm is better on hard or easy ones by so much."""
    rng = np.random.default_rng(seed)
    chance = np.linspace(0.9, 0.15, NUM_PROBLEMS) + np.where(np.arange(NUM_PROBLEMS) < NUM_PROBLEMS / 2, easy, hard)
    return rng.binomial(NUM_SAMPLES, np.clip(chance, 0, 1))


@pytest.fixture
def arms():
    """Three seeds of a control and of an arm that is better on hard problems."""
    made = {"plain": {}, "hard-up": {"hard": 0.3, "easy": -0.1}}
    return {
        name: [evaluation(f"{name}-{seed}", drawn(10 * index + seed, **how), seed=seed) for seed in range(3)]
        for index, (name, how) in enumerate(made.items())
    }


def compare(*words):
    return main(["compare", *words])


def flags(**settings):
    return [f"--{name}={json.dumps(value) if isinstance(value, dict) else value}" for name, value in settings.items()]


def rates(folder):
    counts = {}
    for line in Path(folder, "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        counts.setdefault(row["problem_id"], []).append(row["correct"])
    return np.array([np.mean(values) for values in counts.values()])


def test_gains_are_those_of_brute_force(arms, capsys):
    words = ["--first", *arms["plain"], "--second", *arms["hard-up"], "--output=study.json", "--figure=false"]
    assert compare(*words) == 0
    study = json.loads(Path("study.json").read_text())
    [found] = study["compared"]
    [gain] = found["gains"]
    assert (gain["arm"], gain["control"]) == ("second", "first")
    differences = np.array([rates(b) - rates(a) for a, b in zip(arms["plain"], arms["hard-up"], strict=True)])
    accuracy = gain["metrics"]["accuracy"]
    assert accuracy["problems"]["value"] == pytest.approx(differences.mean())
    assert accuracy["by_seed"] == pytest.approx(differences.mean(axis=1))
    assert accuracy["levels"]["Level 4"]["problems"]["value"] == pytest.approx(differences[:, 15:].mean())
    assert found["split"] == {
        "by": "levels", "easy": ["Level 1", "Level 2"], "hard": ["Level 3", "Level 4"], "num_easy": 10, "num_hard": 10,
    }  # fmt: skip
    shift = differences[:, 10:].mean(axis=1) - differences[:, :10].mean(axis=1)
    assert accuracy["shift"]["by_seed"] == pytest.approx(shift) and accuracy["shift"]["problems"]["low"] > 0
    level = found["arms"]["second"]["accuracy"]["levels"]["Level 1"]["problems"]["value"]
    assert level == pytest.approx(np.mean([rates(folder)[:5].mean() for folder in arms["hard-up"]]))
    out = capsys.readouterr().out
    assert "sums (cot): 20 problems" in out and "Level 1 (n=5) |" in out
    assert f"| {100 * shift.mean():+.1f} (" in out and "pass@4" in out
    assert "not the same settings" not in out, "seeds are meant to differ"


def test_one_seed_is_told_as_two_runs_are_and_its_luck_is_said_to_be_unknown(arms, capsys):
    assert compare("--first", arms["plain"][0], "--second", arms["hard-up"][0], "--output=one.json") == 0
    [found] = json.loads(Path("one.json").read_text())["compared"]
    [plain] = compare_runs(read_run(arms["plain"][0]), read_run(arms["hard-up"][0]))
    for name, wanted in plain.metrics.items():
        gain = found["gains"][0]["metrics"][name]
        assert gain["problems"] == wanted.difference._asdict()
        assert gain["seeds"] is None and gain["both"] is None
    assert "One seed: how much of a gain is the luck of one run is not known." in capsys.readouterr().out


def test_hard_problems_are_those_that_another_model_solves_less_often(capsys):
    plain, other, judge = (evaluation(name, drawn(seed), has_levels=False) for seed, name in enumerate("abj"))
    assert compare("--first", plain, "--second", other) == 0
    assert "not known which problems are hard" in capsys.readouterr().out
    assert compare("--first", plain, "--second", other, f"--difficulty_from={judge}", "--output=s.json") == 0
    [found] = json.loads(Path("s.json").read_text())["compared"]
    solved = rates(judge)
    assert found["split"]["by"] == "pass rates of j"
    number = found["split"]["num_hard"]
    assert number + found["split"]["num_easy"] == 20 and sorted(solved)[number - 1] < sorted(solved)[number]


def test_every_arm_has_its_control_and_its_budget(arms, capsys):
    for index, (name, folders) in enumerate({**arms, "more": [], "more-control": []}.items()):
        for seed in range(3):
            if not folders[seed:]:
                evaluation(f"{name}-{seed}", drawn(50 + 10 * index + seed), seed=seed)
            write(Path(f"train/{name}-{seed}/run.json"), {"steps": 10})
            history = [{"num_tokens": 40.0}, {"num_tokens": 100.0 + 10 * index}, {"train_loss": 1.0}]
            write(Path(f"train/{name}-{seed}/trainer_state.json"), {"log_history": history})
    names = ("plain", "hard-up", "more", "more-control")
    runs = {name: [f"{name}-{seed}" for seed in range(3)] for name in names}
    settings = {
        "arms": runs,
        "controls": {"hard-up": "plain", "more": "more-control"},
        "trainings": {name: [f"train/{run}" for run in some] for name, some in runs.items()},
    }
    assert compare(*flags(**settings, output="study.json", metrics="accuracy")) == 0
    study = json.loads(Path("study.json").read_text())
    assert [(gain["arm"], gain["control"]) for gain in study["compared"][0]["gains"]] == [
        *settings["controls"].items()
    ]
    assert study["trainings"]["more"][0] == {"steps": 10, "tokens": 120}
    out = capsys.readouterr().out
    assert "| more         |    10 |    120 |            +8.3% |" in out
    assert "2 gains in each metric" in out and "pass@4" not in out
    assert Path("study.png").exists() and Path("study.svg").exists()


def test_settings_in_which_runs_differ_are_said(arms, capsys):
    other = [evaluation(f"t-{seed}", drawn(seed), temperature=0.5, seed=seed) for seed in range(3)]
    assert compare("--first", *arms["plain"], "--second", *other) == 0
    assert "not the same settings: temperature is None, 0.5" in capsys.readouterr().out


def test_runs_over_other_problems_are_refused_or_cut(arms, capsys):
    fewer = evaluation("fewer", drawn(0)[:12], problems=range(12))
    assert compare("--first", arms["plain"][0], "--second", fewer) == 2
    assert "plain-0 has 8 that not all have (such as p12, p13, p14)" in capsys.readouterr().err
    assert compare("--first", arms["plain"][0], "--second", fewer, "--intersect") == 0
    assert "sums (cot): 12 problems; 8 that not all runs have left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([2, 1, 0], "of seeds second has 2, 1, 0 and first has 0, 1, 2: give both in the same order"),
        ([0, 1, 7], "of seeds second has 0, 1, 7 and first has 0, 1, 2: evaluate both with the same seeds"),
        ([None, 1, 0], None),
    ],
)
def test_seeds_stand_in_the_same_order(arms, order, message, capsys):
    second = [
        evaluation(f"s-{place}", drawn(place), **({} if seed is None else {"seed": seed}))
        for place, seed in enumerate(order)
    ]
    assert compare("--first", *arms["plain"], "--second", *second) == (2 if message else 0)
    assert message is None or message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trainer_state.json", '{"log_history": 3}'),
        ("trainer_state.json", '{"log_history": [3]}'),
        ("trainer_state.json", '{"log_history": [{"num_tokens": "many"}]}'),
        ("trainer_state.json", '{"log_history": [{"num_tokens": NaN}]}'),
        ("trainer_state.json", '{"log_history": [{"num_tokens": true}]}'),
        ("trainer_state.json", '{"log_hist'),
        ("trainer_state.json", "[]"),
        ("run.json", '{"steps": "ten"}'),
    ],
)
def test_damaged_trainings_are_named(arms, name, text, capsys):
    write(Path("t/run.json"), {"steps": 10})
    write(Path("t/trainer_state.json"), {"log_history": []})
    Path("t", name).write_text(text)
    assert compare(*flags(arms=arms, trainings={"plain": ["t"]})) == 2
    error = capsys.readouterr().err
    assert f"t/{name} is damaged" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--first", "plain-0"], "first and second go together"),
        (
            ["--first", "plain-0", "plain-1", "--second", "hard-up-0"],
            "seed by seed: second has 1 evaluations, first has 2",
        ),
        (["--first", "plain-0", "--second", "plain-0"], "plain-0 is given twice"),
        (["--first", "plain-0", "./plain-0", "--second", "hard-up-0", "hard-up-1"], "./plain-0 is given twice"),
        (
            ["--first", "plain-0", "--second", "hard-up-0", "--difficulty_from", "x/../plain-0"],
            "difficulty_from is x/../plain-0, which is compared",
        ),
        (["--first", "plain-0", "--second", "nowhere"], "nowhere is no finished evaluation"),
        (["--first", "plain-0", "--second", "hard-up-0", "--metrics", "pass@9"], "plain-0 has no pass@9."),
        (["--first", "plain-0", "--second", "hard-up-0", "--output", "x.txt"], "output must be a .json file"),
        (["--first", "plain-0", "--second", "hard-up-0", "--confidence", "1"], "confidence must be between 0 and 1"),
        (["plain-0", "plain-1", "--control", "a"], "leave plain-0 plain-1 out"),
        (["--control", "a"], "Which arms?"),
        (flags(arms={"a": ["plain-0"]}), "at least two arms, got 1"),
        (flags(arms={"a": ["plain-0"], "b": []}), "The arm b has no evaluation"),
        (flags(arms={"a": ["plain-0"], "b": ["plain-1"]}, control="c"), "Unknown arm 'c'"),
        (flags(arms={"a": ["plain-0"], "b": ["plain-1"]}, controls={"a": "a"}), "cannot be its own control"),
        (flags(arms={"a": ["plain-0"], "b": ["plain-1"]}, controls={"a": "b"}, control="b"), "give one of the two"),
        (flags(arms={"a": ["plain-0"], "b": ["plain-1"]}, trainings={"a": ["x"]}), "There is no x/run.json to read"),
        (flags(arms={"a": 3, "b": ["plain-1"]}), "arms: a must be list"),
        (flags(arms=AB, trainings={"aa": ["x"]}), "Unknown arm in trainings 'aa'. Did you mean 'a'? Known: a, b."),
        (flags(arms=AB, parameters={"c": {"b": 1}}), "Unknown arm in parameters 'c'"),
        (flags(arms=AB, parameters={"a": 3}), "parameters: a must be dict, got 3"),
        (flags(arms=AB, parameters={"a": {"b": "x"}}), "parameters: a: b must be float, got 'x'"),
        (flags(arms=AB, controls={"c": "b"}), "Unknown arm 'c'"),
        (["plain-0", "plain-1", "--confidence", "1"], "confidence must be between 0 and 1"),
        (["plain-0", "plain-1", "--metrics", "pass@0"], "Unknown metric 'pass@0'. Did you mean 'pass@K'?"),
        (["plain-0", "plain-1", "--metrics", "[]"], "metrics is empty"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_mistakes_are_named(arms, words, message, capsys):
    assert compare(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# ---- The figure ----


def study_of(names, parameters, controls):
    return {"arms": {name: {"runs": ["x"]} for name in names}, "parameters": parameters, "controls": controls}


def test_two_numbers_make_a_grid_of_bars():
    names = [f"b{b}-w{w}" for b in (0, 1) for w in (0.5, 1, 2)]
    parameters = {f"b{b}-w{w}": {"base": b, "factor": w, "levels": 5} for b in (0, 1) for w in (0.5, 1, 2)}
    controls = {name: f"{name}-control" for name in names}
    look = look_of(study_of([*names, *controls.values()], parameters, controls))
    assert (look.groups, look.axis) == (["0.5", "1", "2"], "factor")
    assert [name for name, _ in look.colours] == ["base 0", "base 1"]
    assert {name: place.group for name, place in look.places.items()} == dict(
        zip(names, [0, 1, 2, 0, 1, 2], strict=True)
    )
    shifts = {look.places[name].shift for name in names}
    assert len(shifts) == 2 and sum(shifts) == pytest.approx(0)
    one = look_of(study_of(names, {name: {"factor": index} for index, name in enumerate(names)}, {names[0]: names[1]}))
    assert one.axis is None and one.groups == [names[0], *names[2:]], "one number is no grid, a control no bar"


def test_the_same_study_gives_the_same_files(arms):
    assert compare("--first", *arms["plain"], "--second", *arms["hard-up"], "--output=study.json") == 0
    study = json.loads(Path("study.json").read_text())
    first = Path("study.svg").read_bytes()
    assert b"<svg" in first and Path("study.png").read_bytes().startswith(b"\x89PNG")
    png, svg = draw_study(study, Path("again/study.png"))
    assert svg.read_bytes() == first and png.exists()


def test_the_report_shows_the_arms_and_their_figure(capsys):
    shapes = (SHAPES["cross-entropy"], SHAPES["coverage-n4"])
    made = (write_evaluation(Path(name), shape, {"math500": 24}, 4) for name, shape in zip("ab", shapes, strict=True))
    runs = [str(folder) for folder in made]
    assert compare("--first", runs[0], "--second", runs[1], "--output=study.json") == 0
    assert main(["report", *runs, "--output=page.html", "--study=study.json"]) == 0
    page = Path("page.html").read_text()
    svg = base64.b64encode(Path("study.svg").read_bytes()).decode()
    assert f'src="data:image/svg+xml;base64,{svg}"' in page and "math500 (cot), accuracy: 24 problems" in page
    Path("study.svg").unlink()
    assert main(["report", *runs, "--output=bare.html", "--study=study.json"]) == 0
    assert "image/svg+xml" not in Path("bare.html").read_text()
    write(Path("other.json"), {"compared": [{"arms": 3}]})
    assert main(["report", *runs, "--output=x.html", "--study=other.json"]) == 2
    assert "other.json is not what `trl-math compare` writes of arms" in capsys.readouterr().err


def test_tables_are_markdown():
    lines = markdown([["arm", "n"], ["a", "10"], ["longer", "5"]]).splitlines()
    assert lines == ["| arm    |  n |", "|:-------|---:|", "| a      | 10 |", "| longer |  5 |"]
