"""Published completions, problems and OpenAI's files: read, written again, and refused by their broken record."""

import copy
import json
import random
from pathlib import Path

import pytest

from trl_math.cli.main import main
from trl_math.data import json_stream
from trl_math.data.json_stream import JsonStream
from trl_math.data.problems import to_problems
from trl_math.data.prompts import PROMPT_STYLES
from trl_math.data.reasoning_teacher import sampled
from trl_math.data.shots import choose_shots
from trl_math.data.sources import load_source
from trl_math.errors import DataError
from trl_math.evaluation.summary import format_rates
from trl_math.generation.sample_files import read_rows


TWO_STAGES = {
    "reasoning_prompt": "Q: How many?\nA: Let's think step by step.",
    "reasoning_completion": "48 + 24 = 72.",
    "reasoning_finish_reason": "stop",
    "prompt": "Q: How many?\nA: Let's think step by step.48 + 24 = 72.\nTherefore, the answer is",
    "completion": " 72.",
}
METADATA = {
    "base_model": "text-davinci-002",
    "dataset_key": "multiarith",
    "completion_key": "zs_cot_t70",
    "finetune_key": None,
    "train_key": None,
    "epoch": None,
    "prediction_template": "zs_cot",
    "temperature": 0.7,
    "max_tokens": 128,
    "a key of tomorrow": {"deep": [1, None, "ü \U0001f600"]},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def record(problem=0, index=0, **more):
    return {
        "sample_index": problem,
        "completion_index": index,
        "question": f"How many are {problem}?",
        "answer": "72",
        **TWO_STAGES,
        "finish_reason": "stop",
        **more,
    }


def document():
    return {
        "version": 3,
        "metadata": METADATA,
        "data": {
            "7": [record(7, 1, logprobs=[-0.5, -1e-300], big=2**70), record(7, 0, completion=" 71.")],
            "0": [record(0, index, note="ä\u2028") for index in range(3)],
            "5": [],
            "12": [record(12, 0, completion=None, finish_reason=None)],
        },
        "more": [True],
    }


def write(value, name="completions.json", **options):
    Path(name).write_text(value if isinstance(value, str) else json.dumps(value, **options), encoding="utf-8")
    return name


def run(*words):
    return main(["convert", *words])


def test_completions_come_back_as_they_were():
    original = document()
    assert run(write(original, indent=4), "--to", "samples", "--output", "samples") == 0
    assert run("samples", "--to", "completion_dataset", "--output", "back.json") == 0
    back = json.loads(Path("back.json").read_text())
    assert back == original
    assert list(back["data"]) == list(original["data"])
    assert [list(one) for one in back["data"]["7"]] == [list(one) for one in original["data"]["7"]]
    # And again, from what was written.
    assert run("back.json", "--to", "samples", "--output", "again") == 0
    for name in ("completions.jsonl", "records.jsonl", "problems.jsonl"):
        assert Path("again", name).read_bytes() == Path("samples", name).read_bytes()


def test_any_document_comes_back(tmp_path, monkeypatch):
    """Whatever the window of the reader is: records, escapes and numbers are cut anywhere."""
    draw = random.Random(0)
    words = ['"', "\\", "\n", "é", "\u2028", "{", "[", "]", "}", ",", ":", "1e5", "\U0001f600", " "]

    def value(depth=0):
        kinds = [None, True, draw.randrange(-(10**18), 10**18), draw.random() * 10 ** draw.randrange(-20, 20)]
        kinds += ["".join(draw.choices(words, k=draw.randrange(8)))]
        if depth < 3:
            kinds += [[value(depth + 1) for _ in range(draw.randrange(4))]]
            kinds += [{"".join(draw.choices(words, k=3)): value(depth + 1) for _ in range(draw.randrange(4))}]
        return draw.choice(kinds)

    for number in range(12):
        monkeypatch.setattr(json_stream, "CHUNK", draw.choice([1, 2, 7, 64, 1 << 20]))
        data = {
            str(problem): [
                record(problem, index, completion="".join(draw.choices(words, k=5)), unknown=value())
                for index in draw.sample(range(9), draw.randrange(4))
            ]
            for problem in draw.sample(range(50), 4)
        }
        data["60"] = [record(60)]
        original = {"metadata": {**METADATA, "unknown": value()}, "data": data, "unknown": value()}
        write(original, indent=draw.choice([None, 1]), ensure_ascii=draw.random() < 0.5)
        assert run("completions.json", "--to", "samples", "--output", f"s{number}") == 0
        assert run(f"s{number}", "--to", "completion_dataset", "--output", f"back{number}.json") == 0
        assert json.loads(Path(f"back{number}.json").read_text()) == original


def test_an_import_is_a_folder_of_samples(capsys):
    assert run(write(document()), "--to", "samples", "--output", "samples") == 0
    said = capsys.readouterr().out
    assert "5 samples of 3 problems" in said and "1 record has no completion yet" in said
    rows = [row for _, _, row in read_rows("samples")]
    assert [(row["problem_id"], row["sample_index"]) for row in rows][:2] == [("multiarith/7", 1), ("multiarith/7", 0)]
    # The space that the published prompts lost behind "step by step." is there.
    assert rows[0]["prompt"] + rows[0]["completion"] == (
        "Q: How many?\nA: Let's think step by step. 48 + 24 = 72.\nTherefore, the answer is 72."
    )
    assert main(["grade", "samples", "--data", "samples/problems.jsonl", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "4 of 5 are right (80.0%)" in said and "format: 100.0%" in said and "complete: 100.0%" in said
    # The problems of a file of completions can be read from itself.
    assert main(["grade", "samples", "--data", "completions.json", "--workers", "1"]) == 0
    assert "5 graded samples, 0 of them new" in capsys.readouterr().out
    assert run("completions.json", "--to", "samples", "--output", "samples") == 0
    assert "already: nothing to do" in capsys.readouterr().out
    write({**document(), "version": 4})
    assert run("completions.json", "--to", "samples", "--output", "samples") == 2
    assert "was not made of this file" in capsys.readouterr().err


def test_two_stages_are_one_sample():
    assert sampled(record()).prompt == TWO_STAGES["reasoning_prompt"]
    unstripped = TWO_STAGES["prompt"].replace("step.48", "step. 48")
    assert sampled(record(prompt=unstripped)) == sampled(record())
    assert sampled(record(completion="72.")) == sampled(record())
    assert sampled(record(prompt="another prompt")) == sampled(record())
    # What stands before the reasoning was asked first, if the record does not say it, or says it with a space more.
    assert sampled(record(reasoning_prompt=None)) == sampled(record())
    spaced = {"reasoning_prompt": f"{TWO_STAGES['reasoning_prompt']}\n"}
    assert sampled(record(**spaced)) == sampled(record())
    # A rationale that ran out of tokens has not ended, though its answer has.
    assert sampled(record(reasoning_finish_reason="length")).finish_reason == "length"
    one = {"prompt": "Q ###", "completion": " 5 --> 5", "finish_reason": "length"}
    assert sampled(one) == ("Q ###", " 5 --> 5", "length")


def test_stages_that_do_not_fit_each_other_are_named_and_lose_nothing(capsys):
    """The prompt of the first stage alone, or another one: the reasoning stays, and which record it is is said."""
    alone = record(0, 1, prompt=TWO_STAGES["reasoning_prompt"])
    assert sampled(alone) == sampled(record())
    other = record(0, 2, prompt="another prompt", reasoning_prompt=None)
    assert sampled(other).prompt == "another prompt" and "48 + 24 = 72.\nTherefore" in sampled(other).completion
    value = {"metadata": METADATA, "data": {"0": [record(0, 0), alone, other]}}
    assert run(write(value), "--to", "samples", "--output", "samples") == 0
    said = capsys.readouterr().out
    assert "2 records of two stages have a prompt that is not reasoning_prompt and reasoning_completion" in said
    assert "(completion 1 of problem '0' for one)" in said
    assert run("samples", "--to", "completion_dataset", "--output", "back.json") == 0
    assert json.loads(Path("back.json").read_text()) == value


def broken(change):
    value = copy.deepcopy(document())
    change(value["data"])
    return value


@pytest.mark.parametrize(
    "value, message",
    [
        (broken(lambda d: d["0"].__setitem__(1, "x")), "completion 1 of problem '0': it is str, and no object"),
        (broken(lambda d: d["0"][2].pop("answer")), "completion 2 of problem '0': it has no answer"),
        (
            broken(lambda d: d["0"][2].update(completion=5)),
            "completion 2 of problem '0': completion is int, and no text",
        ),
        (broken(lambda d: d["0"][1].update(completion_index=0)), "problem '0': completion_index 0 is there twice"),
        (broken(lambda d: d["0"][1].update(completion_index="1")), "completion_index is '1', and no whole number"),
        (broken(lambda d: d["7"][0].update(sample_index=8)), "sample_index is 8, and it stands under '7'"),
        (broken(lambda d: d.update({"7": {}})), "problem '7': expected a list, and it is dict"),
        (broken(lambda d: d.update({"7": 5})), "problem '7': expected a list, and it is int"),
        (
            broken(lambda d: d["0"][1].update(question="\ud800?")),
            "completion 1 of problem '0': question has half of a surrogate pair",
        ),
        (broken(lambda d: d["0"][1].update(answer="\udfff")), "completion 1 of problem '0': answer has half of a"),
        ({"metadata": {}, "data": [1]}, "dataset cannot become samples; it can become problems"),
        ({"metadata": {}, "data": [1]}, "data is a list"),
        ('{"metadata": {}, "data": {"0": [], "0": []}}', "problem '0' is there twice"),
        ('{"metadata": {}, "data": {"0": []}} x', "more text follows"),
        ('{"metadata": {}, "data": {"0": [{"a": 1}, ', "completion 0 of problem '0': it has no sample_index"),
        (json.dumps(document())[:1200], "the file ends in it"),
        ('{"metadata": {}, "data": {}}', "has no completions"),
        ('{"metadata": [], "data": {"0": []}}', "metadata is no object"),
    ],
)
def test_a_broken_file_is_named_by_its_record(value, message, capsys):
    assert run(write(value), "--to", "samples", "--output", "samples") == 2
    assert message in capsys.readouterr().err
    assert not Path("samples").exists() and not list(Path().glob(".*part*"))


def test_a_file_that_is_said_to_be_of_another_kind_is_refused(capsys):
    write({"metadata": {}, "data": [1]}, "list.json")
    assert run("list.json", "--from", "completion_dataset", "--to", "samples", "--output", "samples") == 2
    assert "data: expected an object, and it is list" in capsys.readouterr().err
    assert run("list.json", "--to", "problems", "--output", "problems.jsonl") == 2
    assert "problem 0 is int, and no object" in capsys.readouterr().err
    write(
        {"metadata": {}, "data": [{"question": "?", "answer": "1"}, {"question": "\ud800", "answer": "1"}]}, "s.json"
    )
    assert run("s.json", "--to", "problems", "--output", "problems.jsonl") == 2
    assert "problem 1: question has half of a surrogate pair" in capsys.readouterr().err


def test_a_file_that_is_cut_says_where(tmp_path, capsys):
    text = json.dumps(document())
    place = text.index('"completion_index": 1, "question": "How many are 0')
    assert run(write(text[:place]), "--to", "samples", "--output", "samples") == 2
    assert "completion 1 of problem '0': not valid JSON" in capsys.readouterr().err
    Path("completions.json").write_bytes(text.encode()[:place] + b"\xff\xfe" + text.encode()[place:])
    assert run("completions.json", "--to", "samples", "--output", "samples") == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_value_that_never_ends_is_not_read_to_the_end(monkeypatch, tmp_path):
    monkeypatch.setattr(json_stream, "LONGEST_VALUE", 1000)
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    Path("long.json").write_text('{"a": "' + "x" * 50_000)
    with JsonStream(Path("long.json")) as stream, pytest.raises(DataError, match="'a': not valid JSON"):
        for name in stream.members("the file"):
            stream.value(repr(name))
    assert stream._num_dropped + len(stream._text) < 5000


DATASET = {
    "metadata": {"dataset_key": "multiarith", "more": 1},
    "data": [
        {"sample_index": 0, "question": "How many?", "answer": "8.0", "rationale": "4 + 4 = 8", "iIndex": 4},
        {"sample_index": 3, "question": "And then?", "answer": "5", "odd": [{"x": 1e999}, {"x": "y"}]},
    ],
    "note": "kept",
}


def test_a_data_set_of_problems_is_a_source_and_comes_back(capsys):
    write(DATASET, "multiarith.json")
    problems = to_problems(load_source("multiarith.json"), "multiarith.json")
    assert problems["problem_id"] == ["multiarith/0", "multiarith/3"]
    assert problems["answer"] == ["8.0", "5"] and problems["solution"] == ["4 + 4 = 8", None]
    assert run("multiarith.json", "--to", "problems", "--output", "multiarith.jsonl") == 0
    assert to_problems(load_source("multiarith.jsonl"), "multiarith.jsonl")["problem_id"] == problems["problem_id"]
    assert run("multiarith.jsonl", "--to", "dataset", "--output", "back.json") == 0
    assert json.loads(Path("back.json").read_text()) == DATASET == json.loads(Path("multiarith.json").read_text())
    before = Path("multiarith.jsonl").read_bytes()
    assert run("multiarith.json", "--to", "problems", "--output", "multiarith.jsonl") == 2
    assert "output multiarith.jsonl exists" in capsys.readouterr().err
    assert Path("multiarith.jsonl").read_bytes() == before


def test_problems_of_ours_become_a_data_set():
    rows = [{"problem_id": f"p/{n}", "problem": f"{n}?", "answer": str(n), "solution": f"It is {n}"} for n in (4, 2)]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("own.jsonl", "--to", "dataset", "--output", "own.json") == 0
    value = json.loads(Path("own.json").read_text())
    assert value["metadata"] == {"dataset_key": "own"}
    assert value["data"][0] == {"sample_index": 4, "question": "4?", "answer": "4", "rationale": "It is 4"}
    write({"metadata": {}, "data": [{"question": "?"}]}, "bad.json")
    with pytest.raises(DataError, match="problem 0 has no answer"):
        load_source("bad.json")


def lines(name):
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "3", "weight": 0},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "2", "weight": 1},
    ]
}


def test_conversations_come_back_with_their_weights():
    short = {"messages": [*CHAT["messages"][:2], {"role": "assistant", "content": "2"}], "parallel_tool_calls": False}
    Path("chat.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (CHAT, short)))
    assert run("chat.jsonl", "--to", "rows", "--output", "rows.jsonl") == 0
    rows = lines("rows.jsonl")
    assert rows[0] == {"prompt": CHAT["messages"][:4], "completion": CHAT["messages"][4:]}
    assert run("rows.jsonl", "--to", "openai_chat", "--output", "back.jsonl") == 0
    assert lines("back.jsonl") == [CHAT, short]


def test_every_message_that_is_trained_on_is_a_row():
    messages = [one | {"weight": 1} if one["role"] == "assistant" else one for one in CHAT["messages"]]
    write({"messages": messages}, "chat.jsonl")
    assert run("chat.jsonl", "--to", "rows", "--output", "rows.jsonl") == 0
    assert [row["completion"][0]["content"] for row in lines("rows.jsonl")] == ["3", "2"]
    assert run("rows.jsonl", "--to", "openai_chat", "--output", "back.jsonl") == 0
    trained = [
        [m["content"] for m in one["messages"] if m.get("weight", 1) and m["role"] == "assistant"]
        for one in lines("back.jsonl")
    ]
    assert trained == [["3"], ["2"]]


@pytest.mark.parametrize(
    "messages, message",
    [
        ([], "there are no messages"),
        ([{"role": "user", "content": "a"}], "the last message is of the user"),
        ([{"role": "robot", "content": "a"}], "message 0: its role is 'robot'"),
        ([{"role": "user", "content": ["a"]}], "message 0: its content is list"),
        ([{"role": "user", "content": "a", "weight": 0}], "only the assistant's have one"),
        ([{"role": "assistant", "content": "a", "weight": 0.5}], "its weight is 0.5"),
        ([{"role": "assistant", "content": "a", "weight": 0}], "no message of the assistant is to be trained on"),
    ],
)
def test_conversations_that_cannot_be_trained_on(messages, message, capsys):
    good = json.dumps({"messages": CHAT["messages"]})
    Path("chat.jsonl").write_text(f"{good}\n{json.dumps({'messages': messages})}\n")
    assert run("chat.jsonl", "--to", "rows", "--output", "rows.jsonl") == 2
    said = capsys.readouterr().err
    assert message in said and "chat.jsonl, line 2" in said and not Path("rows.jsonl").exists()


def test_problems_in_a_style_of_fine_tune_cot_become_files_for_openai(capsys):
    write(DATASET, "multiarith.json")
    write({**DATASET, "data": DATASET["data"][:1]}, "one.json")
    command = ["one.json", "--prompt_style", "ft_cot_token", "--output", "file.jsonl", "--to"]
    assert run(*command, "openai_completion") == 0
    published = {"prompt": "How many? ###", "completion": " 4 + 4 = 8 --> 8.0 END"}
    assert lines("file.jsonl") == [published]
    assert run("file.jsonl", "--to", "rows", "--output", "rows.jsonl") == 0
    assert lines("rows.jsonl") == [{**published, "completion": " 4 + 4 = 8 --> 8.0"}]
    assert run("rows.jsonl", "--from", "rows", "--to", "openai_completion", "--output", "back.jsonl") == 0
    assert lines("back.jsonl") == [published]
    assert run("one.json", "--prompt_style", "chat_cot", "--output", "chat.jsonl", "--to", "openai_chat") == 0
    assert [one["role"] for one in lines("chat.jsonl")[0]["messages"]] == ["user", "assistant"]
    capsys.readouterr()
    assert run("one.json", "--to", "rows", "--output", "x.jsonl") == 2
    assert "Set prompt_style" in capsys.readouterr().err
    assert run("one.json", "--to", "samples", "--output", "x") == 2
    assert "dataset cannot become samples; it can become problems" in capsys.readouterr().err
    assert run("ones.json", "--to", "samples", "--output", "x") == 2
    assert "No file or folder 'ones.json'. Did you mean 'one.json'?" in capsys.readouterr().err
    assert run("file.jsonl", "--to", "rows", "--output", "x", "--data", "y") == 2
    assert "data says nothing about how openai_completion becomes rows" in capsys.readouterr().err
    for weight in (0.5, "2"):
        Path("weighted.jsonl").write_text(json.dumps({**published, "weight": weight}) + "\n")
        assert run("weighted.jsonl", "--to", "openai_chat", "--output", "x") == 2
        assert f"row 0 has weight {weight!r}" in capsys.readouterr().err


def test_prompts_and_completions_alone_are_asked_what_they_are(capsys):
    """Rows of ours may have these two columns, too: the mark tells, or the user."""
    own = {"prompt": "How many? ###", "completion": " 4 + 4 = 8 --> 8"}
    write(own, "own.jsonl")
    assert run("own.jsonl", "--to", "openai_chat", "--output", "x.jsonl") == 2
    said = capsys.readouterr().err
    assert "without ' END' at their end" in said and "set from to rows" in said and "openai_completion" in said
    assert run("own.jsonl", "--from", "rows", "--to", "openai_completion", "--output", "own_end.jsonl") == 0
    assert lines("own_end.jsonl") == [{**own, "completion": own["completion"] + " END"}]
    write({**own, "completion": " 8 ###"}, "marked.jsonl")
    assert run("marked.jsonl", "--end", " ###", "--to", "rows", "--output", "rows.jsonl") == 0
    assert lines("rows.jsonl") == [{**own, "completion": " 8"}]
    write({**own, "sample_index": 0}, "more.jsonl")
    assert run("more.jsonl", "--to", "openai_completion", "--output", "more_end.jsonl") == 0
    assert lines("more_end.jsonl") == lines("own_end.jsonl")


def test_the_first_example_of_the_docs_works_as_written():
    """From published completions to a file for OpenAI, and back: the commands of docs/formats.md, in their order."""
    text = (Path(__file__).parents[1] / "docs" / "formats.md").read_text()
    example = text.partition("# Formats")[2].partition("## ")[0]
    commands = [line.partition(" #")[0].split()[1:] for line in example.splitlines() if line.startswith("    ")]
    assert len(commands) >= 4
    write(document(), "completion_data.json")
    for command in commands:
        assert main(command) == 0
    assert json.loads(Path("back.json").read_text()) == document()
    assert {row["prompt"] for row in lines("file.jsonl")} == {"How many are 0? ###", "How many are 7? ###"}
    assert {row["completion"] for row in lines("file.jsonl")} == {" 48 + 24 = 72. --> 72 END"}
    inline = next(line for line in example.splitlines() if line.startswith("`trl-math"))
    write(DATASET, "multiarith.json")
    assert main([word.rstrip("`.") for word in inline.replace("file.jsonl", "answers.jsonl").split()][1:]) == 0
    assert lines("answers.jsonl")[0] == {"prompt": "How many? ###", "completion": " 8.0 END"}


def test_samples_that_were_drawn_here_are_written_as_published_ones():
    """Drawn, graded and evaluated in a style with a prefix, by the real commands."""
    rows = [{"problem_id": f"p/{n}", "problem": f"{n} + {n}?", "answer": str(2 * n), "solution": "."} for n in (3, 1)]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = ["generate", "--model", "embedded:tiny", "--backend", "transformers"]
    drawn += ["--data", "own.jsonl", "--prompt_style", "ft_cot_token", "--num_samples", "2", "--max_tokens", "5"]
    assert main([*drawn, "--output", "samples"]) == 0
    manifest = json.loads(Path("samples/run.json").read_text())
    assert manifest["settings"]["answer_prefix"] == "-->"
    assert main(["grade", "samples", "--data", "own.jsonl", "--workers", "1"]) == 0
    assert {row["in_format"] for row in lines("samples/graded.jsonl")} == {False}
    assert run("samples", "--to", "completion_dataset", "--output", "x.json") == 2
    assert run("samples", "--to", "completion_dataset", "--data", "own.jsonl", "--output", "out.json") == 0
    value = json.loads(Path("out.json").read_text())
    assert value["metadata"]["prediction_template"] == "ft_cot_token" and list(value["data"]) == ["1", "3"]
    assert value["data"]["3"][1]["prompt"] == "3 + 3? ###"
    assert run("out.json", "--to", "samples", "--output", "again") == 0
    again = {(row["problem_id"], row["sample_index"]): row["completion"] for _, _, row in read_rows("again")}
    before = {(row["problem_id"], row["sample_index"]): row["completion"] for _, _, row in read_rows("samples")}
    assert again == before


def test_an_evaluation_tells_rates_of_format_where_the_style_has_one():
    rows = [{"problem_id": f"p/{n}", "problem": f"{n} + {n}?", "answer": str(2 * n)} for n in range(1, 5)]
    Path("own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["evaluate", "--model", "embedded:tiny", "--backend", "transformers", "--benchmarks", "own.jsonl"]
    words += ["--num_samples", "2", "--max_tokens", "4", "--temperature", "1"]
    rates = {}
    for style in ("ft_cot_token", "ft_token"):
        assert main([*words, "--prompt_style", style, "--output", style]) == 0
        rates[style] = json.loads(Path(style, "summary.json").read_text())["results"][0]["metrics"]
    assert not {"format", "complete"} & rates["ft_token"].keys()
    told = rates["ft_cot_token"]
    assert told["format"]["value"] == 0 < told["format"]["high"] < 1
    assert told["complete"]["value"] == 1 - told["truncated"]["value"]
    assert main(["report", "ft_cot_token", "--output", "page.html"]) == 0
    assert "complete, %" in Path("page.html").read_text()


def test_rates_of_format_are_means_over_problems():
    def graded(problem, is_formatted, reason="stop"):
        return {"problem_id": problem, "extracted": "1", "correct": True, "in_format": is_formatted} | {
            "finish_reason": reason
        }

    rows = [graded("a", True), graded("a", False, "length"), graded("b", True), graded("b", True), graded("b", True)]
    rates = format_rates(rows)
    assert (rates["format"].value, rates["complete"].value, rates["format"].n) == (0.75, 0.75, 2)
    assert format_rates([{name: row[name] for name in row if name != "in_format"} for row in rows]) == {}


def test_the_eight_examples_are_shown_and_are_never_asked():
    shots = to_problems(load_source("embedded:chain_of_thought_examples"), "embedded:chain_of_thought_examples")
    style = PROMPT_STYLES["few_shot_cot"]
    prompt = style.with_shots(choose_shots(shots, 8, 0, style, ["How many?"])).prompt({"problem": "How many?"})
    assert prompt.count("The answer is") == 8 and prompt.endswith("\n\nQ: How many?\nA:")
    assert "So he gave Denny 20 - 12 = 8. The answer is 8.\n\nQ:" in prompt
    with pytest.raises(DataError, match="8 shots were asked for, and 7 of 8 rows"):
        choose_shots(shots, 8, 0, style, [shots[0]["problem"]])
