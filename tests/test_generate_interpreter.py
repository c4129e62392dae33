"""`trl-math generate --interpreter true`: what lands in the folder, what resuming does, and what is refused."""

import json
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from trl_math.cli.main import main
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.doctor.programs import check_sandbox
from trl_math.errors import UsageError
from trl_math.generation import engines, to_dataset
from trl_math.generation.export import export
from trl_math.generation.sample_files import read_rows
from trl_math.generation.scripted import ScriptedBackend
from trl_math.generation.store import CompletionStore
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.grading import sandbox
from trl_math.models import tiny_model, tiny_tokenizer
from trl_math.records import FINISH_REASONS


try:
    sandbox.usable_mode()
except UsageError as error:
    pytest.skip(str(error), allow_module_level=True)

PROBLEMS = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(5)]


@pytest.fixture(autouse=True)
def _problems(_working_folder):
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))


def generate(*words, **settings):
    """Run the command in this process; `max_calls=3` is `--max-calls 3`."""
    given = {"model": "embedded:tiny", "data": "problems.jsonl", "backend": "scripted", "prompt_style": "tool"}
    flags = {**given, "output": "run", **settings}
    named = [(f"--{name.replace('_', '-')}", str(value)) for name, value in flags.items()]
    return main(["generate", *(word for flag in named for word in flag), *words])


def rows(folder="run"):
    return sorted((row for _, _, row in read_rows(folder)), key=lambda row: (row["problem_id"], row["sample_index"]))


@pytest.fixture
def solver(monkeypatch):
    """Programs for the first three problems, one that fails twice for the fourth, and no end of them for the fifth."""
    tokenizer = tiny_tokenizer()

    def write(request):
        _, _, text = tokenizer.decode(list(request.prompt_ids)).rpartition("What is ")
        number, num_outputs = int(text[0]), text.count("```output")
        if number == 3:
            return "```python\n1 / 0\n```\n"
        if number == 4 or num_outputs == 0:
            return f" I compute.\n```python\nprint({number} + {number})\n```\n"
        return f"It is \\boxed{{{2 * number}}}."

    def make(arguments, checkpoint, seed):
        return ScriptedBackend(checkpoint.tokenizer, write, context_length=arguments.max_model_len)

    monkeypatch.setitem(engines._MAKERS, "scripted", make)


def test_what_lands_in_the_folder(solver, capsys):
    assert generate(interpreter=True, max_calls=3, num_samples=2) == 0
    said = capsys.readouterr().out
    assert "Ran 16 programs: 12 ok, 4 error." in said  # 3 x 1 + 2 that fail + 3, of each sample
    assert "2 wanted more programs run than max_calls" in said
    assert "2 ended when max_errors of their programs had failed" in said
    found = rows()
    assert [row["finish_reason"] for row in found[::2]] == ["stop", "stop", "stop", "max_errors", "max_calls"]
    assert {row["finish_reason"] for row in found} <= set(FINISH_REASONS)
    assert found[4]["completion"] == (
        " I compute.\n```python\nprint(2 + 2)\n```\n```output\n4\n```\nIt is \\boxed{4}."
    )
    decode = tiny_tokenizer().decode
    for row, num_programs in zip(found[::2], [1, 1, 1, 2, 3], strict=True):
        outputs = [decode(row["completion_ids"][start:end]) for start, end in row["tool_spans"]]
        assert len(outputs) == num_programs == row["completion"].count("```output")
        assert all(text.startswith("```output\n") and text.endswith("\n```\n") for text in outputs)
    run = json.loads(Path("run/run.json").read_text())
    assert {name: run["settings"][name] for name in ("interpreter", "max_calls", "max_errors", "program_seconds")} == {
        "interpreter": True,
        "max_calls": 3,
        "max_errors": 2,
        "program_seconds": 10.0,
    }
    assert run["sessions"][0]["interpreter"]["sandbox"] == sandbox.usable_mode()


def test_samples_with_and_without_do_not_mix(solver, capsys):
    assert generate(interpreter=True) == 0
    assert generate(interpreter=True) == 0
    assert "nothing to do" in capsys.readouterr().out
    for other in ({}, {"interpreter": True, "max_calls": 3}, {"interpreter": True, "max_errors": 1}):
        assert generate(num_samples=2, **other) == 2
        assert "run holds samples of other settings" in capsys.readouterr().err


def test_a_prompt_that_does_not_fit_is_a_row_among_the_others(solver):
    long = {"problem": "x" * 500, "answer": "1"}
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [long, *PROBLEMS[:2]]))
    assert generate(interpreter=True, max_model_len=400) == 0
    assert [row["finish_reason"] for row in rows()] == ["prompt_too_long", "stop", "stop"]
    export("run", "samples.jsonl")
    exported = [json.loads(line) for line in Path("samples.jsonl").read_text().splitlines()]
    assert to_dataset("run")["tool_spans"][:] == [row["tool_spans"] for row in exported]
    assert [row.get("tool_spans") for row in rows()] == [row["tool_spans"] for row in exported]
    assert exported[0]["tool_spans"] is None and len(exported[1]["tool_spans"]) == 1


class Opening(LlamaForCausalLM):
    """A tiny model that begins every text with a program, and goes on as its weights and the dice want."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        if (cache := kwargs.get("past_key_values")) is None:
            return output  # it is asked for log-probabilities
        place = cache.get_seq_length() - self.num_prompt_tokens  # all prompts have as many
        if place < len(self.opening):
            output.logits[:, -1] = -100.0
            output.logits[:, -1, self.opening[place]] = 100.0
        return output


@pytest.fixture
def gambler(monkeypatch):
    """Puts that model where the transformers backend takes its own."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    model.__class__ = Opening
    model.opening = tokenizer("```python\nprint(6 * 7)\n```\n", add_special_tokens=False)["input_ids"]

    def make(arguments, checkpoint, seed):
        return TransformersBackend(model, checkpoint.tokenizer, batch_size=arguments.batch_size)

    def learn(number):
        model.num_prompt_tokens = number

    monkeypatch.setitem(engines._MAKERS, "transformers", make)
    return learn


def test_an_interrupted_run_goes_on_token_for_token(gambler, monkeypatch, capsys):
    """With a real model and real dice: samples are those of a run in one go, whatever was in flight when it ended."""
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS[:3]))
    settings = {"backend": "transformers", "interpreter": True, "num_samples": 2, "max_tokens": 80, "logprobs": True}
    prompt = PROMPT_STYLES["tool"].prompt(PROBLEMS[0])
    gambler(len(tiny_tokenizer()(prompt)["input_ids"]))
    assert generate(**settings, output="whole") == 0
    append, written = CompletionStore.append, []

    def interrupted(store, row):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(row)
        append(store, row)

    with monkeypatch.context() as patch:
        patch.setattr(CompletionStore, "append", interrupted)
        assert generate(**settings, batch_size=2) == 130
    assert len(rows()) == 2
    assert generate(**settings, batch_size=3) == 0
    assert "Ran 4 programs: 4 ok." in capsys.readouterr().out
    names = ("problem_id", "sample_index", "completion", "completion_ids", "tool_spans", "finish_reason", "sampler")
    assert [[row[name] for name in names] for row in rows()] == [
        [row[name] for name in names] for row in rows("whole")
    ]
    assert len({row["completion"] for row in rows()}) == 6
    for row in rows():
        [(start, end)] = row["tool_spans"]
        assert tiny_tokenizer().decode(row["completion_ids"][start:end]) == "```output\n42\n```\n"
        assert row["token_logprobs"][start:end] == [0.0] * (end - start)
        assert all(logprob < 0 for logprob in row["token_logprobs"][end:])
        assert row["logprob"] == pytest.approx(sum(row["token_logprobs"]))


def test_a_model_that_writes_no_programs_writes_what_it_writes_without():
    settings = {"backend": "transformers", "num_samples": 2, "max_tokens": 30, "logprobs": True}
    assert generate(**settings, output="plain") == 0
    assert generate(**settings, interpreter=True) == 0
    names = ("completion_ids", "token_logprobs", "finish_reason", "completion")
    assert [[row[name] for name in names] for row in rows()] == [
        [row[name] for name in names] for row in rows("plain")
    ]
    assert all(row["tool_spans"] == [] for row in rows()) and all("tool_spans" not in row for row in rows("plain"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_calls": 2}, "max_calls is for programs inside of samples"),
        ({"max_errors": 1}, "max_errors is for programs inside of samples"),
        ({"program_seconds": 5}, "program_seconds is for programs inside of samples"),
        ({"interpreter": True, "max_calls": 0}, "max_calls must be at least 1, got 0"),
        ({"interpreter": True, "max_errors": 0}, "max_errors must be at least 1, got 0"),
        ({"interpreter": True, "program_seconds": 0}, "limit of seconds must be above 0"),
        ({"interpreter": True, "prompt_style": "direct"}, "have no room for programs"),
        ({"interpreter": True, "prompt_style": "program"}, "have no room for programs"),
        ({"interpreter": True, "stop": "```"}, "have no room for programs"),
        (
            {"interpreter": True, "backend": "server", "server_urls": "http://x/v1", "endpoint": "chat"},
            "interpreter needs token ids",
        ),
    ],
)
def test_settings_that_make_no_sense(settings, message, capsys):
    assert generate(**settings) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1] and "Traceback" not in "".join(error)
    assert not Path("run").exists()


def test_a_dry_run_says_what_will_be_run_and_where(capsys):
    assert generate("--dry-run", interpreter=True, program_seconds=5) == 0
    said = capsys.readouterr().out
    assert "up to 4 in a sample, which ends when 2 of them have failed" in said
    assert "each may take 5 s and 1,024 MiB, and import sympy" in said
    assert f"sandbox {sandbox.usable_mode()}: " in said
    assert not Path("run").exists()
    assert generate("--dry-run") == 0
    assert "sandbox" not in capsys.readouterr().out


def test_where_programs_cannot_be_confined_none_is_run(monkeypatch, capsys):
    """It is said before an engine starts, by a dry run and by the doctor."""
    monkeypatch.setattr(sandbox, "_probed", lambda mode: (sandbox.probe.read_probe(mode, ""), "not here"))
    assert generate("--dry-run", interpreter=True) == 0
    assert "Programs cannot be confined on this machine" in capsys.readouterr().out.partition("missing on this")[2]
    assert generate(interpreter=True) == 2
    captured = capsys.readouterr()
    assert "trl-math: Programs cannot be confined" in captured.err and "engine was ready" not in captured.out
    assert rows() == []
    assert [finding.status for finding in check_sandbox({"interpreter": True}, None)] == ["fail"]
    assert [finding.status for finding in check_sandbox({}, None)] == ["info"]


def test_the_doctor_names_what_confines_programs():
    [finding] = check_sandbox({"interpreter": True}, None)
    assert finding.status in ("ok", "info") and finding.detail.startswith(f"{sandbox.usable_mode()}: ")
