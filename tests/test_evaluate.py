"""`trl-math evaluate`, `compare` and `grade` as a user meets them: the numbers, a second run, a kill, and mistakes."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import quiet_environment
from test_generate import fails, works, write_problems

from trl_math.cli.main import main
from trl_math.errors import UsageError
from trl_math.evaluation.graded_file import read_graded
from trl_math.evaluation.results import with_fallback
from trl_math.generation import engines
from trl_math.generation.scripted import ScriptedBackend
from trl_math.grading.sandbox import Sandbox


class Done:
    """What became of a command."""

    def __init__(self, status, captured):
        self.status, self.out, self.err = status, captured.out, captured.err


def digits(number, start=0, **more):
    """Problems whose answers are digits: the scripted backend guesses digits."""
    return [
        {
            "problem_id": f"digit/{i}",
            "problem": f"What is the last digit of {i * 7}?",
            "answer": str(i * 7 % 10),
            **more,
        }
        for i in range(start, start + number)
    ]


@pytest.fixture(autouse=True)
def _problems(_working_folder, monkeypatch):
    for name in ("TRL_MATH_SMOKE_FOLDER", "RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    write_problems(digits(30))


@pytest.fixture
def command(capsys):
    def run(*words):
        capsys.readouterr()
        return Done(main([str(word) for word in words]), capsys.readouterr())

    return run


@pytest.fixture
def evaluate(command):
    """Runs the command in this process; `num_samples=3` is `--num-samples 3`, and None leaves a setting out."""

    def run(*words, **settings):
        given = {"model": "embedded:tiny", "benchmarks": "problems.jsonl", "backend": "scripted", "output": "run"}
        given |= {"num_samples": 8} | settings
        flags = []
        for name, value in given.items():
            if value is not None:
                flags += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
        return command("evaluate", *flags, *words)

    return run


def summary(folder="run"):
    return json.loads(Path(folder, "summary.json").read_text())


def samples(folder="run"):
    return list(read_graded(Path(folder, "samples.jsonl")))


# The numbers


def test_the_numbers_are_those_of_the_samples(evaluate):
    done = works(evaluate())
    [result] = summary()["results"]
    rows = samples()
    assert len(rows) == 30 * 8 and {row["benchmark"] for row in rows} == {"problems"}
    gold = {row["problem_id"]: row["answer"] for row in digits(30)}
    right = {id: [row for row in rows if row["problem_id"] == id] for id in gold}
    for row in rows:
        assert row["extracted"] == row["completion"].partition("{")[2].partition("}")[0]
        assert row["correct"] == (row["extracted"] == gold[row["problem_id"]])
    counts = np.array([sum(row["correct"] for row in right[id]) for id in gold])
    assert 0 < counts.sum() < 60
    assert result["metrics"]["accuracy"]["value"] == pytest.approx(counts.mean() / 8)
    for k in (2, 4, 8):
        by_hand = [
            np.mean([any(row["correct"] for row in some) for some in itertools.combinations(right[id], k)])
            for id in gold
        ]
        assert result["metrics"][f"pass@{k}"]["value"] == pytest.approx(np.mean(by_hand))
    assert result["metrics"]["accuracy"]["n"] == 30 and result["samples_per_problem"] == [8, 8]
    assert result["settings"]["seed"] == 0 and result["settings"]["template_hash"]
    assert {"trl-math", "math-verify", "transformers"} <= result["versions"].keys()
    assert result["calibration"]["error"]["n"] == 30
    assert result["grading"]["reasons"] == {"different": 240 - counts.sum(), "exact": counts.sum()}
    assert f"{100 * counts.mean() / 8:.1f} (" in done.out and "30 x 8" in done.out


def test_one_sample_is_greedy_and_several_are_not(evaluate):
    works(evaluate(num_samples=None))
    [result] = summary()["results"]
    assert result["settings"]["temperature"] == 0 and result["calibration"] is None
    assert set(result["metrics"]) == {"accuracy", "unanswered", "truncated"}
    works(evaluate(num_samples=2, output="two"))
    assert summary("two")["results"][0]["settings"]["temperature"] == 1


def test_levels_and_subjects(evaluate):
    rows = [*digits(6, level="Level 1", subject="even"), *digits(6, 6, level="Level 2", subject="odd")]
    write_problems(rows)
    works(evaluate())
    [result] = summary()["results"]
    assert set(result["levels"]) == {"1", "2"} and set(result["subjects"]) == {"even", "odd"}
    assert result["levels"]["1"]["accuracy"]["n"] == 6
    problems = [json.loads(line) for line in Path("run/problems.jsonl").read_text().splitlines()]
    assert [row["level"] for row in problems] == ["1"] * 6 + ["2"] * 6
    assert {row["benchmark"] for row in problems} == {"problems"}


def test_a_gold_answer_that_cannot_be_read_is_left_out_and_said(evaluate):
    write_problems([*digits(5), {"problem_id": "bad", "problem": "What?", "answer": "\\frac{1}{"}])
    done = works(evaluate())
    [result] = summary()["results"]
    assert (result["num_problems"], result["num_unreadable"]) == (5, 1)
    assert "1 problems were left out" in done.out


def test_several_benchmarks_share_an_engine_and_a_folder(evaluate):
    write_problems(digits(4), "more.jsonl")
    done = works(evaluate(benchmarks=["problems.jsonl", "more.jsonl", "arithmetic"], max_problems=3))
    assert done.out.count("The engine was ready") == 1
    assert [result["benchmark"] for result in summary()["results"]] == ["problems", "more", "arithmetic"]
    assert all(result["num_problems"] == 3 for result in summary()["results"])
    # Another benchmark later joins them.
    write_problems(digits(2), "late.jsonl")
    works(evaluate(benchmarks="late.jsonl"))
    assert [result["benchmark"] for result in summary()["results"]] == ["problems", "more", "arithmetic", "late"]
    assert len(samples()) == (9 + 2) * 8


# Again, and after a kill


def test_the_same_command_again_has_nothing_to_do(evaluate):
    works(evaluate())
    before = Path("run/samples.jsonl").read_bytes(), summary()["results"]
    again = works(evaluate())
    assert "nothing to do" in again.out and "0 samples graded" in again.out
    assert (Path("run/samples.jsonl").read_bytes(), summary()["results"]) == before


def test_more_samples_join_those_that_are_there(evaluate):
    works(evaluate(num_samples=4))
    works(evaluate(num_samples=8))
    assert len(samples()) == 240 and summary()["results"][0]["samples_per_problem"] == [8, 8]
    works(evaluate(num_samples=8, output="at-once"))
    assert summary()["results"][0]["metrics"] == summary("at-once")["results"][0]["metrics"]


def test_a_torn_line_and_lost_grades_are_made_again(evaluate):
    works(evaluate())
    wanted = summary()["results"]
    file = Path("run/samples.jsonl")
    file.write_bytes(file.read_bytes()[:-5000])
    works(evaluate())
    assert summary()["results"] == wanted
    keys = [(row["problem_id"], row["sample_index"]) for row in samples()]
    assert len(set(keys)) == len(keys) == 240


def test_other_answers_void_all_grades(evaluate):
    works(evaluate())
    rows = digits(30)
    rows[0]["answer"], rows[1]["answer"] = "99", "98"
    write_problems(rows)
    done = works(evaluate())
    assert "16 samples graded, 16 grades no longer held" in done.out
    assert not any(row["correct"] for row in samples() if row["problem_id"] in ("digit/0", "digit/1"))
    assert len(samples()) == 240


def test_killed_at_any_moment_it_goes_on(evaluate):
    settings = {"backend": "transformers", "batch_size": 4, "num_samples": 4, "max_tokens": 24, "max_problems": 12}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    words += ["--model", "embedded:tiny", "--benchmarks", "problems.jsonl", "--output", "killed"]
    command = [sys.executable, "-m", "trl_math.cli.main", "evaluate", *words]
    process = subprocess.Popen(command, env=quiet_environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None and count_lines("killed/problems/completions.jsonl") < 8:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = count_lines("killed/problems/completions.jsonl")
    assert 8 <= there < 48
    again = works(evaluate(output="killed", **settings))
    assert f"{48 - there} samples to draw" in again.out
    works(evaluate(output="whole", **settings))
    keep = ("problem_id", "sample_index", "completion", "correct")
    rows = [sorted(tuple(row[name] for name in keep) for row in samples(folder)) for folder in ("killed", "whole")]
    assert rows[0] == rows[1] and len(rows[0]) == 48
    assert summary("killed")["results"][0]["metrics"] == summary("whole")["results"][0]["metrics"]


def count_lines(path):
    return Path(path).read_bytes().count(b"\n") if Path(path).exists() else 0


@pytest.mark.slow
def test_several_engines_draw_what_one_draws(evaluate):
    works(evaluate(output="one", backend="transformers", max_tokens=8, num_samples=2, max_problems=6))
    words = ["evaluate", "--model", "embedded:tiny", "--benchmarks", "problems.jsonl", "--max-problems", "6"]
    words += ["--backend", "transformers", "--num-samples", "2", "--max-tokens", "8", "--output", "two"]
    command = [sys.executable, "-m", "trl_math.cli.main", *words, "--data-parallel-size", "2"]
    subprocess.run(command, env=quiet_environment(), check=True, stdout=subprocess.DEVNULL)
    assert len(list(Path("two/problems").glob("completions-*.jsonl"))) == 2
    rows = [
        {(row["problem_id"], row["sample_index"]): row["completion"] for row in samples(f)} for f in ("one", "two")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 12


def test_grades_are_of_the_samples_that_are_there(evaluate):
    """Samples that were drawn anew, with another seed, are graded anew."""
    works(evaluate())
    shutil.rmtree("run/problems")
    works(evaluate("--seed", "7"))
    works(evaluate("--seed", "7", output="fresh"))
    assert summary()["results"][0]["metrics"] == summary("fresh")["results"][0]["metrics"]
    drawn = {(row["problem_id"], row["sample_index"]): row["completion"] for row in samples("fresh")}
    assert {(row["problem_id"], row["sample_index"]): row["completion"] for row in samples()} == drawn


def test_grades_of_other_benchmarks_stay(evaluate, command):
    works(evaluate(benchmarks=["arithmetic", "word_problems"], max_problems=4, num_samples=2))
    kept = [row for row in samples() if row["benchmark"] == "word_problems"]
    works(evaluate(benchmarks="arithmetic", max_problems=6, num_samples=2, grading_deadline=9))
    assert [row for row in samples() if row["benchmark"] == "word_problems"] == kept
    works(command("compare", "run", "run"))
    result = {one["benchmark"]: one for one in summary()["results"]}
    assert result["arithmetic"]["graded_with"]["deadline"] == 9
    assert result["word_problems"]["graded_with"]["deadline"] == 5


def test_one_process_at_a_time(evaluate):
    from filelock import FileLock

    works(evaluate())
    with FileLock("run/.run.lock"):
        fails(evaluate(), "Another process is evaluating in run")


def test_a_rank_without_a_world_is_left_over(evaluate, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    works(evaluate())
    assert summary()["results"][0]["num_problems"] == 30
    monkeypatch.setenv("RANK", "x")
    fails(evaluate(), "RANK is 'x'")


def test_a_benchmark_without_readable_answers_does_not_cost_the_others(evaluate):
    write_problems([{"problem_id": "x", "problem": "What?", "answer": "\\frac{1"}], "bad.jsonl")
    done = works(evaluate(benchmarks=["problems.jsonl", "bad.jsonl"]))
    good, bad = summary()["results"]
    assert good["num_problems"] == 30 and (bad["num_problems"], bad["num_unreadable"]) == (0, 1)
    assert bad["metrics"] == {} and "1 problems were left out" in done.out


def test_files_that_are_not_ours_are_noticed_before_anything_is_drawn(evaluate):
    works(evaluate())
    Path("run/summary.json").write_text("{}")
    done = evaluate(num_samples=9)
    fails(done, "is not as `trl-math evaluate` writes it")
    assert "to draw" not in done.out


def test_a_name_stands_for_one_set_of_problems(evaluate):
    works(evaluate(max_problems=2))
    Path("other").mkdir()
    write_problems([{"problem_id": "other/1", "problem": "1+1?", "answer": "2"}], "other/problems.jsonl")
    fails(evaluate(benchmarks="other/problems.jsonl"), "under the name problems")


def test_the_letter_and_the_text_of_an_option_vote_together():
    from trl_math.evaluation import tally
    from trl_math.grading import cluster

    problem = {"answer_kind": "choice", "choices": ["red", "Blue"]}
    rows = [
        {"problem_id": "p", "sample_index": index, "extracted": text, "correct": text != "A", "finish_reason": "stop"}
        for index, text in enumerate(["B", "blue", "A", "B"])
    ]
    [one], _ = tally(rows, {"p": problem}, cluster)
    assert one.votes[0] == one.votes[1] == one.votes[3] != one.votes[2] and one.correct_classes == {one.votes[0]}


# Programs


def has_sandbox():
    try:
        Sandbox().close()
    except UsageError:
        return False
    return True


def program_or_text(request):
    """In program mode: every third is right, every third fails, every third prints something else."""
    text = str(request.prompt)
    if "Python program" not in text:
        return "The answer is \\boxed{5}."
    return ["```python\nprint(2 + 3)\n```", "```python\nprint(1 / 0)\n```", "```python\nprint(7)\n```"][
        request.seed % 3
    ]


@pytest.mark.skipif(not has_sandbox(), reason="no layer of the sandbox works here")
@pytest.mark.parametrize(
    ("more", "styles"),
    [((), ["chat_program", "chat_cot"]), (("--prompt_style", "alpaca"), ["alpaca_program", "alpaca"])],
    ids=["auto", "alpaca"],
)
def test_programs_and_the_fallback(evaluate, monkeypatch, more, styles):
    script = lambda arguments, checkpoint, seed: ScriptedBackend(checkpoint.tokenizer, program_or_text)  # noqa: E731
    monkeypatch.setitem(engines._MAKERS, "scripted", script)
    write_problems(
        [{"problem_id": f"p{i}", "problem": f"What is 2 + 3, number {i}?", "answer": "5"} for i in range(6)]
    )
    works(evaluate("--mode", "fallback", *more, num_samples=3))
    found = {result["mode"]: result for result in summary()["results"]}
    assert list(found) == ["program", "cot", "fallback"]
    rows = [row for row in samples() if row["mode"] == "program"]
    kinds = {"2 + 3": ("ok", True), "1 / 0": ("error", False), "print(7)": ("ok", False)}
    for row in rows:
        [kind] = [kind for text, kind in kinds.items() if text in row["completion"]]
        assert (row["outcome"], row["correct"]) == kind
    right, failed = (sum(kind in row["completion"] for row in rows) for kind in ("2 + 3", "1 / 0"))
    assert found["program"]["metrics"]["accuracy"]["value"] == pytest.approx(right / 18)
    assert found["cot"]["metrics"]["accuracy"]["value"] == 1
    assert found["fallback"]["metrics"]["accuracy"]["value"] == pytest.approx((right + failed) / 18)
    assert found["program"]["grading"]["outcomes"]["error"] == failed
    assert found["program"]["settings"]["prompt_style"] == styles[0]
    assert found["fallback"]["settings"]["prompt_style"] == styles


def test_the_fallback_takes_the_sample_of_the_same_number():
    def row(index, **more):
        return {"problem_id": "p", "sample_index": index, "sampler": "s", "extracted": "1", **more}

    programs = [
        row(0, outcome="ok", correct=True),
        row(1, outcome="error", correct=False, extracted=None),
        row(2, outcome="ok", correct=False, extracted=None),
        row(3, outcome="ok", correct=False),
    ]
    texts = [row(index, correct=index != 2, sampler="t") for index in range(3)]
    chosen = with_fallback(programs, texts)
    assert [one["correct"] for one in chosen] == [True, True, False]  # the fourth has no text beside it
    assert {one["sampler"] for one in chosen} == {"s|t"}


# Mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"benchmarks": "gms8k"}, "Did you mean 'gsm8k'?"),
        ({"benchmarks": None}, "Which benchmarks?"),
        ({"model": None}, "Which model?"),
        ({"ks": ["4", "9"]}, "k of pass@k and maj@k must be from 1 to num_samples (8), got 9"),
        ({"ks": "0"}, "must be from 1"),
        ({"mode": "pot"}, "Unknown mode 'pot'"),
        ({"mode": "fallback", "prompt_style": "direct"}, "one of cot, chat_cot, alpaca, got direct"),
        ({"mode": "fallback", "prompt_style": "alpaca_program"}, "leave prompt_style out"),
        ({"prompt_style": "chat_program"}, "what mode cot reads"),
        ({"prompt_style": "chat_kot"}, "Did you mean 'chat_cot'?"),
        ({"confidence": "95"}, "confidence must be between 0 and 1"),
        ({"grading_deadline": "0"}, "grading_deadline must be from 0.01"),
        ({"benchmarks": ["problems.jsonl", "problems.jsonl"]}, "given twice"),
        ({"num_shots": "2"}, "problems"),
        ({"num_sampels": "2"}, "Did you mean 'num_samples'?"),
        ({"output": "problems.jsonl"}, "is a file"),
        ({"benchmarks": "missing.jsonl"}, "missing.jsonl"),
        ({"num_samples": "0"}, "num_samples must be at least 1"),
        ({"grading_workers": "0"}, "grading_workers must be from 1"),
        ({"program_seconds": "5"}, "is for modes that run programs"),
    ],
)
def test_mistakes_are_one_line(evaluate, settings, message):
    fails(evaluate(**settings), message)
    assert not Path("run").exists()


def test_a_file_in_another_format_says_what_is_expected(evaluate):
    write_problems([{"text": "What?", "label": "4"}])
    done = evaluate()
    fails(done, "Expected a problem")
    assert "text, label" in done.err


def test_two_files_of_one_name_are_refused(evaluate):
    Path("other").mkdir()
    shutil.copy("problems.jsonl", "other/problems.jsonl")
    fails(evaluate(benchmarks=["problems.jsonl", "other/problems.jsonl"]), "Two benchmarks would be called problems")


def test_a_folder_is_of_one_model_and_one_way_of_sampling(evaluate, tmp_path):
    works(evaluate(backend="transformers", max_tokens=4, max_problems=2, num_samples=2))
    fails(
        evaluate(backend="transformers", max_tokens=4, max_problems=2, temperature=0.5), "temperature 1.0 there, 0.5"
    )
    fails(evaluate(model="embedded:smollm2-135m-instruct"), "holds an evaluation of another model")
    Path("notes").mkdir()
    Path("notes/readme.txt").write_text("mine")
    fails(evaluate(output="notes"), "is not empty and holds no evaluation")
    assert Path("notes/readme.txt").read_text() == "mine"


def test_a_launcher_is_refused(evaluate, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    fails(evaluate(), "start it without a launcher")


def test_a_dry_run_shows_the_prompt_and_writes_nothing(evaluate):
    done = works(evaluate("--dry-run", max_problems=3))
    assert "What is the last digit of 0?" in done.out and "3 problems x 8 samples = 24" in done.out
    assert not Path("run").exists()


# Two runs


def test_compare_pairs_problems(evaluate, command):
    works(evaluate(output="a"))
    works(evaluate("--seed", "1", output="b"))
    done = works(command("compare", "a", "b", "--output", "compared.json"))
    found = json.loads(Path("compared.json").read_text())["compared"][0]
    rates = []
    for folder in ("a", "b"):
        counts = {}
        for row in samples(folder):
            counts.setdefault(row["problem_id"], []).append(row["correct"])
        rates.append({id: np.mean(values) for id, values in counts.items()})
    gains = np.array([rates[1][id] - rates[0][id] for id in rates[0]])
    accuracy = found["metrics"]["accuracy"]
    assert accuracy["difference"]["value"] == pytest.approx(gains.mean())
    assert (accuracy["num_better"], accuracy["num_worse"]) == ((gains > 0).sum(), (gains < 0).sum())
    assert "pass@8" in done.out and "seed is 0 in the first run, 1 in the second" in done.out
    fails(command("compare", "a", "b", "--output", "compared.json"), "does not exist yet")
    fails(command("compare", "a", "b", "--metrics", "pass@16"), "Both have: accuracy")


def test_compare_refuses_what_cannot_be_paired(evaluate, command):
    works(evaluate(output="a", max_problems=20, num_samples=1))
    works(evaluate(output="b", num_samples=1))
    fails(command("compare", "a", "b"), "over different problems")
    done = works(command("compare", "a", "b", "--intersect"))
    assert "10 that only the second did" in done.out
    works(command("compare", "a", "b", "--intersect", "--output", "compared.json"))
    [found] = json.loads(Path("compared.json").read_text())["compared"]
    assert "McNemar" in found["metrics"]["accuracy"]["p_value"]["test"]
    changed = digits(30)
    changed[3]["problem"] = "Something else?"
    write_problems(changed)
    works(evaluate(output="c", num_samples=1))
    fails(command("compare", "b", "c"), "digit/3")
    write_problems(digits(5), "others.jsonl")
    works(evaluate(output="d", benchmarks="others.jsonl"))
    fails(command("compare", "b", "d"), "no benchmark in common")
    fails(command("compare", "b", "nowhere"), "is no finished evaluation")
    fails(command("compare", "b"), "Which two runs?")


# Samples that are graded alone


def test_grade_a_folder_of_samples(command):
    words = ["generate", "--model", "embedded:tiny", "--backend", "scripted", "--data", "problems.jsonl"]
    works(command(*words, "--num-samples", "4", "--output", "drawn"))
    done = works(command("grade", "drawn", "--data", "problems.jsonl"))
    rows = list(read_graded(Path("drawn/graded.jsonl")))
    assert len(rows) == 120 and "120 graded samples, 120 of them new" in done.out
    gold = {row["problem_id"]: row["answer"] for row in digits(30)}
    assert all(row["correct"] == (row["extracted"] == gold[row["problem_id"]]) for row in rows)
    works(command(*words, "--num-samples", "5", "--output", "drawn"))
    assert "150 graded samples, 30 of them new" in works(command("grade", "drawn", "--data", "problems.jsonl")).out


def test_grade_a_file_of_samples(command):
    lines = [{"problem_id": "digit/1", "completion": text} for text in ("\\boxed{7}", "\\boxed{8}", "", "7")]
    write_problems(lines, "samples.jsonl")
    works(command("grade", "samples.jsonl", "--data", "problems.jsonl", "--output", "graded.jsonl"))
    rows = list(read_graded(Path("graded.jsonl")))
    assert [(row["sample_index"], row["correct"]) for row in rows] == [(0, True), (1, False), (2, False), (3, True)]


def test_grades_of_other_samples_are_not_overwritten(command):
    write_problems([{"problem_id": "digit/1", "completion": "7"}], "one.jsonl")
    write_problems([{"problem_id": "digit/1", "completion": "8"}], "two.jsonl")
    works(command("grade", "one.jsonl", "--data", "problems.jsonl", "--output", "graded.jsonl"))
    fails(command("grade", "two.jsonl", "--data", "problems.jsonl", "--output", "graded.jsonl"), "other samples")
    rows = digits(30)
    rows[1]["answer"] = "8"
    write_problems(rows)
    again = works(command("grade", "one.jsonl", "--data", "problems.jsonl", "--output", "graded.jsonl"))
    assert "1 grade no longer held" in again.out and "0 of 1 are right" in again.out
    twice = [{"problem_id": "digit/1", "completion": "7", "sample_index": 0}] * 2
    write_problems(twice, "twice.jsonl")
    fails(command("grade", "twice.jsonl", "--data", "problems.jsonl", "--output", "new.jsonl"), "is there twice")


def test_grade_says_what_is_wrong(command):
    fails(command("grade", "--data", "problems.jsonl"), "Which samples?")
    fails(command("grade", "nowhere", "--data", "problems.jsonl"), "There is no nowhere")
    write_problems([{"id": 1, "text": "x"}], "samples.jsonl")
    words = ["grade", "samples.jsonl", "--data", "problems.jsonl"]
    fails(command(*words), "Where do the graded samples go?")
    fails(command(*words, "--output", "graded.json"), "output graded.json does not end in .jsonl")
    fails(command(*words, "--output", "samples.jsonl"), "output samples.jsonl is the file of the samples")
    fails(command(*words, "--output", "graded.jsonl"), "Expected problem_id and completion")
    write_problems([{"problem_id": "x", "completion": "7"}], "samples.jsonl")
    fails(command(*words, "--output", "graded.jsonl"), "answers one of these problems")
    fails(command("grade", "samples.jsonl", "--output", "graded.jsonl"), "Which problems")
    fails(command(*words, "--output", "graded.jsonl", "--dedline", "1"), "Did you mean 'deadline'?")
    Path("mine.jsonl").write_text('{"a": 1}\n')
    write_problems([{"problem_id": "digit/1", "completion": "7"}], "samples.jsonl")
    fails(command(*words, "--output", "mine.jsonl"), "no graded sample of ours")
    assert Path("mine.jsonl").read_text() == '{"a": 1}\n'


# Coverage without samples


def test_coverage_is_the_probability_of_the_answer(evaluate, command):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_math.data.prompts import PROMPT_STYLES
    from trl_math.models import resolve_model

    plain = {"mode": "coverage", "backend": None, "num_samples": None, "max_problems": 5}
    done = works(evaluate(prompt_style="direct", **plain))
    assert "coverage@1024" in done.out and not Path("run/samples.jsonl").exists()
    rows = [json.loads(line) for line in Path("run/coverage.jsonl").read_text().splitlines()]
    folder = resolve_model("embedded:tiny")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for problem, row in zip(digits(5), rows, strict=True):
        prompt = PROMPT_STYLES["direct"].prompt(problem)
        start = len(tokenizer(prompt)["input_ids"])
        ids = tokenizer(f"{prompt} ${problem['answer']}${tokenizer.eos_token}", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logps = model(ids).logits.log_softmax(-1)
        expected = sum(logps[0, place - 1, ids[0, place]].item() for place in range(start, ids.shape[1]))
        assert row["logp"] == pytest.approx(expected, abs=1e-3) and row["num_tokens"] == ids.shape[1] - start
    [result] = summary()["results"]
    hits = [-np.expm1(1024 * np.log1p(-np.exp(row["logp"]))) for row in rows]
    assert result["metrics"]["coverage@1024"]["value"] == pytest.approx(np.mean(hits))
    assert result["settings"]["prompt_style"] == "direct" and result["num_problems"] == 5
    works(evaluate(output="chat", **plain))
    assert summary("chat")["results"][0]["settings"]["prompt_style"] == "chat_direct"
    compared = works(command("compare", "run", "chat"))
    assert "coverage@64" in compared.out and "prompt_style is 'direct' in the first" in compared.out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": "8"}, "draws no samples: leave num_samples out"),
        ({"temperature": "1"}, "leave temperature out"),
        ({"max_tokens": "9"}, "leave max_tokens out"),
        ({"backend": "vllm"}, "one forward pass with transformers"),
        ({"data_parallel_size": "2"}, "one forward pass with transformers"),
    ],
)
def test_coverage_refuses_what_it_would_not_use(evaluate, settings, message):
    fails(evaluate(**{"mode": "coverage", "num_samples": None, "backend": None} | settings), message)


# Checkpoints


def test_an_adapter_is_evaluated_like_a_model(evaluate):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from trl_math.models import resolve_model

    base = resolve_model("embedded:tiny")
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    tuned.save_pretrained("adapter")
    common = {"backend": "transformers", "max_tokens": 8, "num_samples": 2, "max_problems": 3}
    works(evaluate(model="adapter", output="short", **common))
    works(evaluate(model="embedded:tiny", adapter="adapter", output="long", **common))
    works(evaluate(output="base", **common))
    texts = [[row["completion"] for row in samples(folder)] for folder in ("short", "long", "base")]
    assert texts[0] == texts[1] != texts[2]
    assert summary("short")["model"].startswith("adapter (LoRA on ")
    file = Path("adapter/adapter_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None}))
    fails(evaluate(model="adapter", output="new", **common), "does not say which model it belongs to")


def test_the_benchmark_prints_its_figure_last(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import evaluation

    assert sys.modules.pop("evaluation") is evaluation
    evaluation.main(["--quick"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("evaluation adds ")
