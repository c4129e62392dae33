"""`trl-math rephrase`: what passes is unlike its original and right, the rest is counted, and kills cost nothing."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import quiet_environment
from scripted_server import ScriptedServer, answer, quick  # noqa: F401

from trl_math.cli.main import main
from trl_math.cli.rephrase import run as run_rephrase
from trl_math.contamination.rephrase_ways import REASONS, WAYS, Limits, Variant, read_reply
from trl_math.data.columns import REPHRASED
from trl_math.data.load import load_split
from trl_math.errors import BudgetError, DataError, RunFolderError, TrlMathError, UsageError
from trl_math.files import json_line


# Problem i: i eggs a day, eaten 2, of which the rest is the answer.
def problem(index):
    facts = f"Every single morning Janet's young ducks lay {index} fresh eggs in the yard and she eats 2 of them."
    text = f"{facts} What is left?"
    return {"problem_id": f"p/{index}", "problem": text, "answer": str(index - 2), "answer_kind": "number"}


def reworded(index):
    return f"Of {index} eggs that come from the birds of Nora at dawn she has 2 for herself. How many remain?"


PROBLEMS = [problem(index) for index in range(11, 17)]
CODE = {
    "task_id": "t/0",
    "prompt": 'def add(a, b):\n    """Return the sum of two numbers."""\n',
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
    "entry_point": "add",
}


def write(path, rows):
    Path(path).write_bytes(b"".join(map(json_line, rows)))


@pytest.fixture(autouse=True)
def data():
    write("problems.jsonl", PROBLEMS)
    write("code.jsonl", [CODE])


def rephrase(*words):
    return run_rephrase([str(word) for word in words])


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def rows_of(folder="out"):
    return lines_of(Path(folder, "rows.jsonl"))


def num_samples(folder="out"):
    """How many whole lines there are."""
    return sum(file.read_bytes().count(b"\n") for file in Path(folder, "samples").rglob("completions.jsonl"))


def manifest_of(folder="out"):
    return json.loads(Path(folder, "rephrase.json").read_text())


def asked_of(body):
    return body["messages"][-1]["content"]


def index_of(text):
    return int(re.search(r"\b1\d\b", text)[0])


class Model:
    """A model that rephrases as `draft(index, attempt)` says, and solves as `solve(text)` says."""

    def __init__(self, draft, solve=lambda text: str(index_of(text) - 2)):
        self.draft, self.solve, self.attempts = draft, solve, {}

    def __call__(self, number, body):
        text = asked_of(body)
        if "\n\nProblem:\n" not in text and "\n\nProgram:\n" not in text:
            return answer(body, f"\\boxed{{{self.solve(text)}}}")
        key = index_of(text) if "\n\nProblem:\n" in text else 0
        attempt = self.attempts.get(key, 0)
        self.attempts[key] = attempt + 1
        return answer(body, self.draft(key, attempt))


def with_model(model, *words, output="out", data="problems.jsonl"):
    with ScriptedServer(model) as server:
        status = rephrase(
            *("--model", "m", "--server-urls", server.url, "--endpoint", "chat", "--concurrency", 8),
            *("--grading-workers", 1, "--data", data, "--output", output, *words),
        )
        return status, server


# ---- drafts of a model ----


def test_the_first_draft_that_passes_becomes_a_row(capsys):
    """The first one is the original: too similar. The second passes for all but one, whose third does."""

    def draft(index, attempt):
        if attempt == 0:
            return problem(index)["problem"]
        return (
            "How many eggs?" if (index, attempt) == (13, 1) else f"Here is the reworded problem:\n\n{reworded(index)}"
        )

    status, server = with_model(Model(draft), "--ways", "reword")
    assert status == 0
    rows = rows_of()
    assert [row["problem_id"] for row in rows] == [f"p/{index}/reword" for index in range(11, 17)]
    for row, original in zip(rows, PROBLEMS, strict=True):
        assert row["problem"] == reworded(index_of(original["problem"]))
        assert (row["original_id"], row["answer"]) == (original["problem_id"], original["answer"])
        assert row["attempt"] == (2 if original["problem_id"] == "p/13" else 1)
        assert (row["way"], row["rephrased_by"], row["check"]) == ("reword", "m", "answer")
        assert (row["overlap"], row["agreement"]) == (0, 1)
        assert {*row} <= {*REPHRASED.columns}
    made = manifest_of()["made"]["reword"]
    assert made["rejected"] == {"too_similar": 6, "numbers_changed": 1} and made["without"] == {}
    assert {one["reason"] for one in made["shown"]} == {"too_similar", "numbers_changed"}
    # 6 + 6 + 1 drafts, four answers to each original and to each of six candidates.
    assert len(server.bodies) == 13 + 4 * 6 + 4 * 6
    assert "reword: 6 of 6 originals (6 by m)" in capsys.readouterr().out
    pairs = lines_of("out/pairs.jsonl")
    assert [pair["test"] for pair in pairs] == [one["problem"] for one in PROBLEMS]
    assert all(pair["is_contaminated"] and pair["kind"] == "paraphrase" for pair in pairs)
    # The folder is a data set, which every command reads.
    assert load_split("out", "train", None)["problem"] == [row["problem"] for row in rows]


def test_a_solver_decides_and_must_solve_the_original_itself():
    """The solver is wrong about reworded 12 and about original 14; the latter costs no drafts."""

    def solve(text):
        index = index_of(text)
        is_reworded = "Nora" in text
        return "99" if (index, is_reworded) in ((12, True), (14, False)) else str(index - 2)

    model = Model(lambda index, attempt: reworded(index), solve)
    assert with_model(model, "--ways", "reword", "--attempts", 2)[0] == 0
    assert [row["original_id"] for row in rows_of()] == ["p/11", "p/13", "p/15", "p/16"]
    made = manifest_of()["made"]["reword"]
    assert made["rejected"] == {"wrong_answer": 2, "unsolved": 1}
    assert made["without"] == {"p/12": "wrong_answer", "p/14": "unsolved"}
    assert model.attempts == {11: 1, 12: 2, 13: 1, 15: 1, 16: 1}
    shown = next(one for one in made["shown"] if one["reason"] == "wrong_answer")
    assert shown["said"] == "99, 99, 99, 99"


def test_unchecked_rows_say_so_and_ask_no_solver():
    _, server = with_model(Model(lambda index, attempt: reworded(index)), "--ways", "reword", "--check", "none")
    assert len(server.bodies) == 6
    assert {(row["check"], row["agreement"]) for row in rows_of()} == {("none", None)}


def test_a_model_renumbers_and_the_answer_is_what_solvers_agree_on():
    def draft(index, attempt):  # of 15 the numbers stay at first
        return problem(index)["problem"].replace(str(index), str(index if (index, attempt) == (15, 0) else index - 1))

    words = ("--ways", "renumber", "--renumber-by", "model")
    assert with_model(Model(draft, lambda text: str(index_of(text) - 2)), *words)[0] == 0
    for row in rows_of():
        index = int(row["original_id"][2:])
        assert row["answer"] == str(index - 3) and row["problem_id"] == f"p/{index}/renumber"
        assert row["overlap"] > 0, "it is told, and not limited: another problem may have the same words"
    assert manifest_of()["made"]["renumber"]["rejected"] == {"same_numbers": 1}


def test_solvers_that_do_not_agree_give_no_answer(capsys):
    numbers = iter(range(100, 10_000))
    model = Model(lambda index, attempt: problem(index - 1)["problem"], lambda text: str(next(numbers)))
    with pytest.raises(DataError, match="no draft of 6 originals passes"):
        with_model(model, "--ways", "renumber", "--renumber-by", "model", "--attempts", 1)
    said = capsys.readouterr().out
    assert "renumber: 0 of 6 originals" in said and "rejected: 6 no_agreement" in said
    assert said.count("    | ") == 5, "five samples are shown"
    assert not Path("out/rows.jsonl").exists()


def test_what_rules_cannot_renumber_goes_to_the_model():
    solved = {"solution": "<<12-2=10>>\n#### 10"}
    write("problems.jsonl", [problem(11), problem(12) | solved, problem(13)])
    model = Model(lambda index, attempt: problem(index + 1)["problem"])
    assert with_model(model, "--ways", "renumber")[0] == 0
    assert [row["rephrased_by"] for row in rows_of()] == ["m", "rule", "m"]
    assert model.attempts == {11: 1, 13: 1}
    assert "solution" not in rows_of()[1], "it would say the old numbers"


def test_translations_are_told_by_their_language():
    german = "An jedem Morgen legen die Enten von Janet {} frische Eier und sie isst 2 davon. Wie viele sind noch da?"

    def draft(index, attempt):
        return reworded(index) if attempt == 0 else german.format(index)

    words = ("--ways", "translate", "--languages", "de", "--attempts", 2)
    status, server = with_model(Model(draft), *words)
    assert status == 0
    assert {row["problem_id"] for row in rows_of()} == {f"p/{index}/translate-de" for index in range(11, 17)}
    assert {row["language"] for row in rows_of()} == {"de"}
    assert manifest_of()["made"]["translate-de"]["rejected"] == {"other_language": 6}
    assert any("into German" in asked_of(body) for body in server.bodies)


# ---- programs ----

RENAMED = 'def add(first, second):\n    """Give both together."""\n    total = first + second\n    return total\n'


def code_reply(program):
    return f"Sure!\n\n```python\n{program}```\n"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (RENAMED.replace("+", "-"), "fails_tests"),
        (f"{RENAMED}\nimport sys\nsys.exit(0)\n", "fails_tests"),
        (f"{RENAMED}\nimport os\nos._exit(0)\n", "fails_tests"),
        ("while True: pass\n" + RENAMED, "fails_tests"),
        ("def plus(x, y):\n    return x + y\n", "no_program"),
        (CODE["prompt"] + CODE["canonical_solution"], "too_similar"),
        ("def add(a, b:\n", "fails_tests"),
    ],
)
def test_a_program_must_pass_the_tests_of_the_original(program, reason):
    model = Model(lambda index, attempt: code_reply(program if attempt == 0 else RENAMED))
    words = ("--ways", "rename", "--attempts", 2, "--program-seconds", 2)
    assert with_model(model, *words, data="code.jsonl")[0] == 0
    [row] = rows_of()
    assert (row["problem_id"], row["check"], row["attempt"]) == ("t/0/rename", "tests", 1)
    assert row["text"].strip() == RENAMED.strip() and row["entry_point"] == "add"
    assert manifest_of()["made"]["rename"]["rejected"] == {reason: 1}


def test_an_original_that_fails_its_own_tests_is_no_measure():
    write("code.jsonl", [CODE, {**CODE, "task_id": "t/1", "canonical_solution": "    return a - b\n"}])
    assert (
        with_model(Model(lambda index, attempt: code_reply(RENAMED)), "--ways", "restructure", data="code.jsonl")[0]
        == 0
    )
    assert [row["original_id"] for row in rows_of()] == ["t/0"]
    assert manifest_of()["made"]["restructure"]["without"] == {"t/1": "original_fails"}


# ---- by rule ----


def test_rules_need_no_model(capsys):
    solved = [
        {**one, "solution": f"<<{one['problem_id'][2:]}-2={one['answer']}>>\n#### {one['answer']}"} for one in PROBLEMS
    ]
    write("problems.jsonl", solved)
    words = ("--ways", "by_rule", "renumber", "--data", "problems.jsonl", "--max-overlap", 0.5, "--output", "out")
    assert rephrase(*words) == 0
    rows = rows_of()
    assert {row["rephrased_by"] for row in rows} == {"rule"} and {row["check"] for row in rows} == {"computed"}
    renumbered = [row for row in rows if row["way"] == "renumber"]
    assert len(renumbered) == 6
    for row in renumbered:
        lay, eaten = map(int, re.findall(r"\b\d+\b", row["problem"]))
        assert row["answer"] == str(lay - eaten) and row["changed_numbers"][0][1] == str(lay)
    assert [pair["is_contaminated"] for pair in lines_of("out/pairs.jsonl")].count(False) == 6
    before = Path("out/rows.jsonl").read_bytes()
    assert rephrase(*words) == 0 and "nothing to do" in capsys.readouterr().out
    assert rephrase(*words[:-1], "again") == 0
    assert Path("again/rows.jsonl").read_bytes() == before
    with pytest.raises(RunFolderError, match="other settings"):
        rephrase(*words, "--seed", 1)


def test_problems_of_a_generator_are_drawn_anew():
    words = ("--data", "task:coin_flip?size=20", "--split", "test", "--ways", "renumber")
    assert rephrase(*words, "--output", "out") == 0
    rows = rows_of()
    assert len(rows) == 6 and len({row["problem"] for row in rows}) == 6
    originals = load_split("task:coin_flip?size=20", "test", None)["problem"]
    assert not {row["problem"] for row in rows} & {*originals}


# ---- replies ----

TEXT = {
    "problem_id": "p",
    "problem": "Ann has 3 figs and 40 pears. Which fruit is red?",
    "choices": ["a fig", "a pear"],
}


@pytest.mark.parametrize(
    ("reply", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        ("Bob owns", "length", "unfinished"),
        ("no", "refused", "refused"),
        ("", "prompt_too_long", "prompt_too_long"),
        ("There are 40 pears and three figs. Red is?\n(A) figs\n(B) pears\n\nAnswer: 3", "stop", "solved"),
        ("There are 40 pears and three figs. Red is?\n(A) figs", "stop", "options_changed"),
        ("There are 40 pears and three figs. Red is?\n(A) figs\n(C) pears", "stop", "options_changed"),
        ("There are 40 pears and three figs.\n(A) figs\n(B) pears", "stop", "asks_nothing"),
        ("There are 40 pears and four figs. Red is?\n(A) figs\n(B) pears", "stop", "numbers_changed"),
        ("There are 40 pears and three figs. Red is?\nA. the fig\nB) the pear", "stop", None),
    ],
)
def test_what_a_reply_is(reply, finish_reason, reason):
    draft = read_reply(reply, finish_reason, TEXT, Variant("reword"), Limits())
    assert draft.reason == reason
    if reason is None:
        assert (draft.text, draft.choices) == ("There are 40 pears and three figs. Red is?", ["the fig", "the pear"])


@pytest.mark.parametrize(
    "around",
    [
        "Here is the reworded problem:\n\n{}",
        "Sure! Here you go:\n{}",
        '"{}"',
        "**Problem:** {}",
        "Reworded problem: {}",
    ],
)
def test_what_models_put_around_a_problem_goes(around):
    row = {"problem_id": "p", "problem": problem(12)["problem"]}
    draft = read_reply(around.format(reworded(12)), "stop", row, Variant("reword"), Limits())
    assert draft.text == reworded(12) and draft.reason is None


def test_every_reason_has_words():
    assert all(REASONS.values()) and {"reword", "by_rule", "rename"} <= {*WAYS}


# ---- what goes wrong ----

BAD = [
    ((), "In which ways"),
    (("--ways", "rewrod"), "Did you mean 'reword'"),
    (("--ways", "reword", "reword"), "twice"),
    (("--ways", "reword"), "reword needs a model"),
    (("--ways", "translate", "--model", "m"), "go together"),
    (("--ways", "translate", "--languages", "xx", "--model", "m"), "Unknown language 'xx'"),
    (("--ways", "by_rule", "--languages", "de"), "go together"),
    (("--ways", "by_rule", "--model", "embedded:tiny"), "leave model out"),
    (("--ways", "by_rule", "--check", "none"), "check is about a model"),
    (("--ways", "by_rule", "rename"), "two runs"),
    (("--ways", "by_rule", "--attempts", 0), "attempts must be at least 1"),
    (("--ways", "by_rule", "--max-overlap", 1.5), "max_overlap must be from 0 to 1"),
    (("--ways", "by_rule", "--overlap-n", 0), "overlap_n must be at least 1"),
    (("--ways", "reword", "--model", "embedded:tiny", "--temperature", 0), "all attempts would be the same"),
    (("--ways", "reword", "--model", "embedded:tiny", "--min-agreement", 0), "min_agreement must be above 0"),
    (("--ways", "reword", "--model", "embedded:tiny", "--num-checks", 0), "num_checks must be at least 1"),
    (("--ways", "rename", "--model", "embedded:tiny", "--check", "none"), "original's tests"),
    (("--ways", "rename", "--model", "embedded:tiny"), "no prompt and no canonical_solution"),
    (("--ways", "reword", "--model", "embedded:tiny", "--max-cost", 1), "needs price_input"),
    (("--ways", "by_rule", "--num-rationales", 1), "num_rationales"),
]


@pytest.mark.parametrize(
    ("words", "message"), BAD, ids=lambda one: " ".join(map(str, one)) if isinstance(one, tuple) else ""
)
def test_what_makes_no_sense_is_refused_in_one_line(words, message):
    with pytest.raises(UsageError, match=message) as error:
        rephrase("--data", "problems.jsonl", "--output", "out", *words)
    assert "\n" not in str(error.value) and not Path("out/rows.jsonl").exists()


def test_data_that_are_no_problems():
    write("empty.jsonl", [])
    write("twice.jsonl", [CODE, CODE])
    for path, ways in (("empty.jsonl", "by_rule"), ("twice.jsonl", "rename"), ("none.jsonl", "by_rule")):
        model = ("--model", "embedded:tiny") if ways == "rename" else ()
        with pytest.raises(TrlMathError):
            rephrase("--data", path, "--ways", ways, "--output", "out", *model)
    with pytest.raises(UsageError, match="Which problems"):
        rephrase("--ways", "by_rule")


def test_money_that_is_spent_up_and_more_of_it():
    prices = (
        "--price-input",
        1e5,
        "--price-output",
        1e5,
        "--ways",
        "reword",
        "--max-tokens",
        20,
        "--solver-max-tokens",
        20,
    )
    model = Model(lambda index, attempt: reworded(index))
    with pytest.raises(BudgetError, match="max_cost") as error:
        with_model(model, *prices, "--max-cost", 40)
    assert "rows of what is there" not in str(error.value)
    there = num_samples()
    assert 0 < there < 54
    _, server = with_model(model, *prices, "--max-cost", 1000)
    assert len(server.bodies) == 54 - there, "nothing is paid twice"
    manifest = manifest_of()
    assert (manifest["num_prompt_tokens"], manifest["num_tokens"]) == (3 * 54, 3 * 54)
    assert manifest["cost"] == pytest.approx(0.1 * 6 * 54)


@pytest.mark.parametrize("moment", [3, 20, 28, "pairs", "file"])
def test_killed_at_any_moment_it_goes_on_to_the_same_rows(moment):
    """A real kill: among answers to originals, among drafts, among answers to these, and before the file is there."""

    def draft(index, attempt):
        return problem(index)["problem"] if index == 12 and attempt == 0 else reworded(index)

    words = ("--ways", "reword", "--attempts", 2)
    with_model(Model(draft), *words, output="whole")
    child = os.fork()
    if not child:
        _die_at(moment)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with_model(Model(draft), *words)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it was killed, and did not finish"
    assert not Path("out/rows.jsonl").exists()
    there = num_samples()
    model = Model(draft)
    # The scripted model counts attempts itself: it has to know which are behind it.
    drafts = Path("out/samples/drafts/reword/completions.jsonl")
    model.attempts = {12: 1} if drafts.exists() and b"p/12/reword" in drafts.read_bytes() else {}
    _, server = with_model(model, *words)
    assert there + len(server.bodies) == 7 + 24 + 24, "each sample was drawn once"
    for name in ("rows.jsonl", "pairs.jsonl"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def _die_at(moment):
    from trl_math.cli import rephrase as command
    from trl_math.contamination import rephrase_samples
    from trl_math.data import made_file

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    append, count = rephrase_samples._Heard.append, 0

    def counted(store, row):
        nonlocal count
        count += 1
        append(store, row)
        if count == moment:
            os.write(store._file, b'{"problem_id": "p/13/rew')
            die()

    rephrase_samples._Heard.append = counted
    if moment == "pairs":
        command._write_pairs = die
    if moment == "file":
        made_file.write_json = die


def test_a_dry_run_tells_what_is_asked_and_loads_nothing(capsys):
    words = ("--data", "problems.jsonl", "--ways", "reword", "renumber", "--output", "out", "--dry-run")
    prices = ("--price-input", 1, "--price-output", 2)
    assert rephrase(*words, "--model", "embedded:smollm2-135m-instruct", "--backend", "transformers", *prices) == 0
    said = capsys.readouterr().out
    assert "at most 48 drafts (4 attempts), at least 12" in said and "cost: at most" in said
    assert "renumber: 0 by rule" in said and "not 6: no_calculation" in said
    assert "| Say the problem below in entirely different words" in said
    assert not Path("out").exists()


# ---- a real model, and a stage ----


def test_a_real_model(capsys):
    """The embedded model rephrases badly: what passes is a row, and what does not is told."""
    words = ("--model", "embedded:smollm2-135m-instruct", "--backend", "transformers", "--dtype", "float32")
    try:
        rephrase(
            *words,
            *("--data", "problems.jsonl", "--max-problems", 2, "--ways", "reword", "--attempts", 1),
            *("--max-tokens", 40, "--check", "none", "--keep-numbers", "false", "--max-overlap", 1, "--output", "out"),
        )
    except DataError as error:
        assert "Nothing was rephrased" in str(error)
        assert "reword: 0 of 2 originals" in capsys.readouterr().out
        return
    made = manifest_of()["made"]["reword"]
    assert made["num_rows"] == len(rows_of()) > 0
    assert len(lines_of("out/samples/drafts/reword/completions.jsonl")) == made["num_rows"] + sum(
        made["rejected"].values()
    )


@pytest.mark.slow
def test_a_stage_of_an_experiment(capfd):
    """Rows by rule, which the next stage trains on: planned, checked and run."""
    solved = [
        {**one, "solution": f"<<{one['problem_id'][2:]}-2={one['answer']}>>\n#### {one['answer']}"} for one in PROBLEMS
    ]
    write("problems.jsonl", solved)
    sft = {"prompt_style": "direct", "use_cpu": True, "bf16": False, "report_to": "none", "max_steps": 1}
    stages = [{"rephrase": {"ways": ["renumber"]}}, {"sft": {**sft, "per_device_train_batch_size": 2}}]
    recipe = {"command": "run", "model": "embedded:tiny", "data": "problems.jsonl", "output": "exp", "round": stages}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", "--config", "recipe.yaml", "--dry-run"]) == 0
    assert "rephrase" in capfd.readouterr().out
    words = [sys.executable, "-m", "trl_math.cli.main", "run", "--config", "recipe.yaml"]
    done = subprocess.run(words, env=quiet_environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    [rows] = Path("exp").rglob("rows.jsonl")
    assert len(lines_of(rows)) == 6
