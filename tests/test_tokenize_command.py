"""`trl-math tokenize`: the tokens and masks that sft trains on, and training on them from the disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from helpers import history, make_trainer, products, same_weights, trained

from trl_math import MathSFTConfig
from trl_math.cli.main import main
from trl_math.cli.tokenize import run as run_tokenize
from trl_math.data.load import DataArguments, digest, load_rows
from trl_math.data.sources import load_source
from trl_math.data.token_files import TokenFile
from trl_math.data.token_rows import load_token_rows, origin_of
from trl_math.errors import DataError, RunFolderError, UsageError
from trl_math.models.tiny import tiny_tokenizer
from trl_math.pipeline.plan import make_plan
from trl_math.pipeline.recipe import read_experiment
from trl_math.trainers.rows import ready_rows
from trl_math.trainers.tokenised import original_row


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with the tokenizer of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def tokenize(*words):
    return run_tokenize([str(word) for word in words])


def write(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def problems(number=12):
    return [{"problem": f"What is {n} + 3?", "answer": n + 3, "solution": f"{n} + 3 = {n + 3}"} for n in range(number)]


def chats(number=6):
    return [
        {
            "messages": [
                {"role": "user", "content": f"Add {n} and 1."},
                {"role": "assistant", "content": f"It is {n + 1}."},
            ]
        }
        for n in range(number)
    ]


def config(**settings):
    return MathSFTConfig(output_dir="run", use_cpu=True, bf16=False, report_to="none", **settings)


def as_trained(rows, **settings):
    """Return ids and labels as the trainer of TRL gets them, truncated."""
    made = make_trainer("run", rows, **settings).train_dataset
    return [row["input_ids"] for row in made], [row["labels"] for row in made]


# ---- The same as sft ----


@pytest.mark.parametrize("layout", ["ragged", "padded"])
@pytest.mark.parametrize(
    ("rows", "words", "settings"),
    [
        (list(products(24)), (), {}),
        (list(products(24)), ("--loss", "all"), {"completion_only_loss": False}),
        ([{"text": f"{n} and more" + "!" * n} for n in range(9)], (), {}),
        (chats(), (), {}),
        (chats(), ("--loss", "solution"), {"assistant_only_loss": True}),
        (
            list(products(24)),
            ("--max_length", 9, "--max_truncated_fraction", 1),
            {"max_length": 9, "max_truncated_fraction": 1.0},
        ),
        (list(products(24)), ("--max_length", 11, "--drop_truncated"), {"max_length": 11, "drop_truncated": True}),
    ],
    ids=["pairs", "pairs, loss on all", "texts", "messages", "messages, answers only", "cut", "dropped"],
)
def test_tokens_and_masks_are_those_of_training(tiny, rows, words, settings, layout):
    if "assistant_only_loss" in settings:
        pytest.importorskip("jinja2")
    write("rows.jsonl", rows)
    assert tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "x.tok", "--layout", layout, *words) == 0
    made = load_token_rows("x.tok")
    assert (list(made["input_ids"]), list(made["labels"])) == as_trained(Dataset.from_list(rows), **settings)


def test_problems_in_a_style_are_those_of_training(tiny):
    write("problems.jsonl", problems())
    assert (
        tokenize("--data", "problems.jsonl", "--model", tiny, "--prompt_style", "chat_cot", "--output", "x.tok") == 0
    )
    rows, _ = load_rows(DataArguments(dataset_name="problems.jsonl", prompt_style="chat_cot"), 0, evaluates=False)
    made = load_token_rows("x.tok")
    assert (list(made["input_ids"]), list(made["labels"])) == as_trained(rows)


def test_more_rows_than_are_tokenised_at_once(tiny, monkeypatch):
    write("rows.jsonl", list(products(24)))
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "whole.tok")
    monkeypatch.setattr("trl_math.trainers.tokenised.NUM_ROWS", 7)
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "pieces.tok")
    for suffix in (".tok", ".msk", ".idx"):
        assert Path(f"whole{suffix}").read_bytes() == Path(f"pieces{suffix}").read_bytes()


@pytest.mark.parametrize("layout", ["ragged", "padded"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"packing": True, "max_length": 64, "per_device_train_batch_size": 1}, {"shuffle_dataset": True}],
    ids=["plain", "packed", "shuffled"],
)
def test_training_on_a_token_file_is_training_on_its_rows(tiny, tmp_path, layout, settings):
    """Losses, gradients and weights are the same bits."""
    write("rows.jsonl", list(products(24)))
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "x.tok", "--layout", layout)
    from_rows = trained(tmp_path / "a", products(24), **settings)
    from_file = trained(tmp_path / "b", load_token_rows("x.tok"), **settings)
    assert history(from_file) == history(from_rows)
    assert same_weights(from_file, from_rows)


def test_loss_on_everything_is_asked_for_in_training(tiny):
    """`completion_only_loss: false` takes no heed of the mask."""
    write("rows.jsonl", list(products(24)))
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "x.tok")
    rows = load_token_rows("x.tok").shuffle(seed=3)
    made = ready_rows(rows, tiny_tokenizer(), config(completion_only_loss=False), None, "train")
    assert made["labels"] == made["input_ids"] == rows["input_ids"]
    assert rows["labels"] != rows["input_ids"]


# ---- Whose tokens ----


def other_tokenizer(folder, number=0):
    """A tokenizer with so many more words than the tiny one, and the same pieces else."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<word {n}>" for n in range(number)])
    tokenizer.save_pretrained(folder)
    return tokenizer


def large_tokenizer(folder, number):
    """A tokenizer of so many words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<end>": 0, **{f"w{n}": n for n in range(1, number)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<end>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_a_vocabulary_of_150_000():
    """Ids above 65,535 come through whole, and 16 bits are refused before anything is written."""
    tokenizer = large_tokenizer("large", 150_000)
    write("rows.jsonl", [{"prompt": "w1 w149999", "completion": " w65535 w65536 <end>"}])
    for asked in (("--dtype", "uint16"), ("--layout", "padded", "--original")):
        with pytest.raises(UsageError, match="has 150,000, whose ids would wrap around"):
            tokenize("--data", "rows.jsonl", "--model", "large", "--output", "x.tok", *asked)
    assert not Path("x.tok").exists()
    for layout in ("ragged", "padded"):
        tokenize("--data", "rows.jsonl", "--model", "large", "--output", f"{layout}.tok", "--layout", layout)
        rows = load_token_rows(f"{layout}.tok")
        assert rows["input_ids"][0] == [1, 149_999, 65_535, 65_536, 0]
        assert rows["labels"][0] == [-100, -100, 65_535, 65_536, 0]
        assert TokenFile.open(layout).facts["largest_id"] == 149_999
        assert ready_rows(rows, tokenizer, config(), None, "train") is rows


def test_tokens_of_another_tokenizer_are_refused(tiny):
    other = other_tokenizer("other", 3)
    write("rows.jsonl", list(products(4)))
    tokenize("--data", "rows.jsonl", "--model", "other", "--output", "x.tok")
    rows = load_token_rows("x.tok")
    with pytest.raises(DataError, match=r"were made by other \(262 ids, .*\), and the model's tokenizer"):
        make_trainer("run", rows)
    assert len(ready_rows(rows, other, config(), None, "train")) == 4


def as_original(name):
    """Leave what the original would have written: no manifest."""
    Path(f"{name}.tok.json").unlink()


def test_files_of_the_original_are_checked_as_far_as_they_can_be(tiny, caplog):
    write("rows.jsonl", [{"prompt": "1+1=", "completion": "2<word 2>"}])
    large, other = large_tokenizer("large", 65_536), other_tokenizer("other", 3)
    tokenize("--data", "rows.jsonl", "--model", "other", "--output", "x.tok", "--layout", "padded", "--original")
    as_original("x")
    rows = load_token_rows("x.tok")
    assert len(ready_rows(rows, other, config(), None, "train")) == 1
    assert "No manifest says which tokenizer made" in caplog.text
    with pytest.raises(DataError, match=r"has the id 261, and the model's tokenizer .* only 259"):
        ready_rows(rows, tiny_tokenizer(), config(), None, "train")
    with pytest.raises(DataError, match="wrapped around and cannot be recovered"):
        ready_rows(rows, large, config(), None, "train")


# ---- The original's way ----


def test_the_originals_rows(tiny):
    """Prompt, solution and EOS token, with a loss on all, and the first token of a solution is there."""
    rows = [{"prompt": "def f():", "canonical_solution": " return 1"}, {"prompt": "", "canonical_solution": "x"}]
    write("code.jsonl", rows)
    words = ("--data", "code.jsonl", "--model", tiny, "--prompt_style", "original")
    tokenize(*words, "--output", "x", "--layout", "padded", "--original", "--max_length", 20)
    tokenizer, made = tiny_tokenizer(), load_token_rows("x.tok")
    whole = [row["prompt"] + row["canonical_solution"] for row in rows]
    assert list(made["input_ids"]) == [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in whole]
    assert list(made["labels"]) == list(made["input_ids"])
    assert np.load("x.tok").shape == (2, 20) and np.load("x.tok").dtype == np.uint16
    assert np.load("x.msk").tolist()[1] == [1, 1, *[2] * 18] and np.load("x.idx").tolist() == [0, 1, 2]
    tokenize(*words, "--output", "y", "--loss", "solution")
    assert load_token_rows("y.tok")["labels"][0][:8] == [-100] * 8
    write("texts.jsonl", [{"text": "all of it"}])
    tokenize("--data", "texts.jsonl", "--model", tiny, "--prompt_style", "original", "--output", "z")
    assert load_token_rows("z")["input_ids"] == [[*tokenizer("all of it")["input_ids"], tokenizer.eos_token_id]]


def test_a_bos_token_stands_once_in_the_originals_rows():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, bos)]
    )
    plain = tiny_tokenizer()
    row = original_row({"prompt": "ab", "canonical_solution": "cd"}, tokenizer, False)
    assert row["input_ids"] == [bos, *plain("abcd")["input_ids"], eos] == row["labels"]
    assert original_row({"text": "cd"}, tokenizer, False)["input_ids"] == [bos, *plain("cd")["input_ids"], eos]


def test_there_and_back_with_the_command(tiny):
    """Files of the original, joined, ragged and padded again, are the same bytes."""
    write("rows.jsonl", list(products(9)))
    words = ("--data", "rows.jsonl", "--model", tiny, "--max_length", 32, "--layout", "padded", "--original")
    tokenize(*words, "--output", "x.tok")
    as_original("x")
    tokenize("--data", "x.tok", "--output", "ragged.tok")
    tokenize("--data", "ragged.tok", "--output", "y.tok", "--layout", "padded", "--original", "--max_length", 32)
    tokenize("--data", "x.tok", "--output", "z.tok", "--layout", "padded", "--original")
    for suffix in (".tok", ".msk", ".idx"):
        assert Path(f"x{suffix}").read_bytes() == Path(f"y{suffix}").read_bytes() == Path(f"z{suffix}").read_bytes()
    tokenize("--data", "x.tok", "y.tok", "--output", "two.tok", "--layout", "padded")
    assert np.array_equal(np.load("two.tok"), np.concatenate([np.load("x.tok")] * 2))
    assert TokenFile.open("two.tok").tokenizer is None


def test_joined_files_keep_their_tokenizer(tiny):
    other_tokenizer("other", 3)
    write("a.jsonl", list(products(5)))
    write("b.jsonl", list(products(9)))
    for name, model in (("a", tiny), ("b", tiny), ("c", "other")):
        tokenize("--data", "b.jsonl" if name == "c" else f"{name}.jsonl", "--model", model, "--output", name)
    tokenize("--data", "a.tok", "b.tok", "--output", "both")
    tokenize("--data", "a.jsonl", "b.jsonl", "--model", tiny, "--output", "together")
    assert Path("both.tok").read_bytes() == Path("together.tok").read_bytes()
    assert TokenFile.open("both").tokenizer == TokenFile.open("a").tokenizer
    with pytest.raises(DataError, match="a and c have the tokens of two tokenizers"):
        tokenize("--data", "a.tok", "c.tok", "--output", "wrong")


# ---- Asked twice, asked wrongly ----


def test_the_same_request_is_done_once(tiny, capsys):
    write("rows.jsonl", list(products(5)))
    words = ("--data", "rows.jsonl", "--model", tiny, "--output", "x.tok")
    assert tokenize(*words, "--dry-run") == 0 and not Path("x.tok").exists()
    tokenize(*words)
    before = Path("x.tok").stat().st_mtime_ns
    capsys.readouterr()
    assert tokenize(*words) == 0 and "nothing to do" in capsys.readouterr().out
    assert Path("x.tok").stat().st_mtime_ns == before
    with pytest.raises(RunFolderError, match="made of something else"):
        tokenize(*words, "--loss", "all")
    write("rows.jsonl", list(products(6)))
    with pytest.raises(RunFolderError, match="rows '5 rows"):
        tokenize(*words)


ROWS = ("--data", "rows.jsonl", "--model", "TINY", "--output", "x.tok")
MISTAKES = {
    "no data": (("--model", "TINY"), "Which data"),
    "no tokenizer": (("--data", "rows.jsonl"), "Whose tokens"),
    "no such tokenizer": (("--data", "rows.jsonl", "--model", "/nowhere"), "/nowhere"),
    "too long": ((*ROWS, "--max_length", 9), "longer than max_length 9"),
    "nothing left": ((*ROWS, "--max_length", 1, "--drop_truncated"), "nothing is left"),
    "padded to what": ((*ROWS, "--layout", "padded", "--max_length", 0), "give one above 0"),
    "negative": ((*ROWS, "--max_length", -3), "at least 1"),
    "layout": ((*ROWS, "--layout", "flat"), "Unknown layout 'flat'"),
    "loss": ((*ROWS, "--loss", "none"), "Unknown loss 'none'"),
    "dtype": ((*ROWS, "--dtype", "int8"), "Unknown dtype 'int8'"),
    "ragged original": ((*ROWS, "--original"), "original files are padded"),
    "style": ((*ROWS, "--prompt_style", "orignal"), "Unknown prompt style"),
    "columns of the original": ((*ROWS, "--prompt_style", "original"), "Found: completion, prompt"),
    "texts without solution": (("--data", "texts.jsonl", *ROWS[2:], "--loss", "solution"), "rows with prompts"),
    "weights": (("--data", "weights.jsonl", *ROWS[2:]), "no place for"),
    "empty": (("--data", "empty.jsonl", *ROWS[2:]), "has no rows"),
    "half empty": (("--data", "holes.jsonl", *ROWS[2:]), "have no completion"),
    "tokens and rows": (("--data", "y.tok", "rows.jsonl", "--output", "x.tok"), "both token files and rows"),
    "tokens for a model": (("--data", "y.tok", "--model", "TINY", "--output", "x.tok"), "model is about rows"),
    "tokens cut": (("--data", "y.tok", "--max_length", 3, "--output", "x.tok"), "leave it out"),
    "tokens that do not fit": (
        ("--data", "y.tok", "--layout", "padded", "--max_length", 3, "--output", "x.tok"),
        "raise max_length",
    ),
    "onto itself": (("--data", "y.tok", "--output", "y.tok"), "one of the files that are read"),
    "smoke": ((*ROWS, "--smoke"), "no smoke form"),
    "unknown setting": ((*ROWS, "--packing"), "Unknown key 'packing'"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_said_in_a_line_and_leave_nothing(tiny, capsys, words, message):
    write("rows.jsonl", list(products(12)))
    write("texts.jsonl", [{"text": "one"}])
    write("weights.jsonl", [{"prompt": "a", "completion": "b", "weight": n} for n in (1.0, 2.0)])
    write("holes.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}])
    Path("empty.jsonl").write_text("")
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "y.tok")
    capsys.readouterr()
    assert main(["tokenize", *(tiny if word == "TINY" else str(word) for word in words)]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not Path("x.tok").exists()


# ---- In training ----


def test_sft_trains_on_a_token_file(tiny, capsys):
    """The command itself: the plan with its steps, a run, and the run found again."""
    from trl_math.models.tiny import tiny_model

    tiny_model().save_pretrained("model")
    tiny_tokenizer().save_pretrained("model")
    write("rows.jsonl", list(products(24)))
    tokenize("--data", "rows.jsonl", "--model", "model", "--output", "data/x.tok")
    words = ["sft", "--dataset_name", "data/x.tok", "--model_name_or_path", "model", "--output_dir", "out"]
    words += ["--use_cpu", "--bf16", "no", "--report_to", "none", "--per_device_train_batch_size", "2"]
    words += ["--gradient_accumulation_steps", "3", "--num_train_epochs", "2", "--save_strategy", "no"]
    capsys.readouterr()
    assert main([*words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "282 tokens of model" in said and "155 of them in the loss" in said
    assert "optimiser steps: 8" in said  # 24 rows x 2 epochs / (2 rows x 3 micro-batches x 1 process)
    assert main(words) == 0
    assert json.loads(Path("out/run.json").read_text())["steps"] == 8
    assert main(words) == 0 and "is finished" in capsys.readouterr().out
    write("rows.jsonl", list(products(23)))
    for part in Path("data").iterdir():
        part.unlink()
    tokenize("--data", "rows.jsonl", "--model", "model", "--output", "data/x.tok")
    assert main(words) == 2 and "belongs to another configuration" in capsys.readouterr().err


def test_settings_that_a_token_file_cannot_follow(tiny):
    write("rows.jsonl", list(products(6)))
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "x.tok", "--loss", "all")
    rows = load_token_rows("x.tok")
    with pytest.raises(UsageError, match="excludes no token"):
        ready_rows(rows, tiny_tokenizer(), config(completion_only_loss=True), None, "train")
    with pytest.raises(UsageError, match="assistant_only_loss is decided where rows are tokenised"):
        ready_rows(rows, tiny_tokenizer(), config(assistant_only_loss=True), None, "train")
    with pytest.raises(UsageError, match="leave prompt_style out"):
        load_rows(DataArguments(dataset_name="x.tok", prompt_style="cot"), 0, evaluates=False)
    with pytest.raises(UsageError, match=r"trl-math tokenize --data x\.tok rows\.jsonl"):
        load_rows(DataArguments(dataset_name=["x.tok", "rows.jsonl"]), 0, evaluates=False)


def test_a_manifest_is_no_data_set(tiny):
    """A folder with rows and with the token file that was made of them is still these rows."""
    Path("data").mkdir()
    write("data/train.jsonl", list(products(6)))
    tokenize("--data", "data/train.jsonl", "--model", tiny, "--output", "data/train.tok")
    assert len(load_source("data")) == 6 and load_source("data").column_names == ["prompt", "completion"]
    assert load_source("data/train.tok").column_names == ["input_ids", "labels"]


def test_a_selection_trains_as_its_rows(tiny, tmp_path):
    write("rows.jsonl", list(products(24)))
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "x.tok")
    chosen = {"dataset_name": "x.tok", "max_train_rows": 8}
    rows, _ = load_rows(DataArguments(**chosen), 5, evaluates=False)
    texts, _ = load_rows(DataArguments(**{**chosen, "dataset_name": "rows.jsonl"}), 5, evaluates=False)
    assert (list(rows["input_ids"]), list(rows["labels"])) == as_trained(texts)
    assert digest(rows) != digest(load_token_rows("x.tok")) and origin_of(rows).num_rows == 24
    assert history(trained(tmp_path / "a", rows)) == history(trained(tmp_path / "b", texts))


# ---- As a stage ----


def test_a_stage_between_rows_and_training(tmp_path):
    """It takes the rows before it and the model of its point, and sft trains on what it makes."""
    train = {"max_steps": 2, "use_cpu": True, "bf16": False, "report_to": "none"}
    recipe = {
        "model": "embedded:smollm2-135m-instruct",
        "data": "embedded:times_tables",
        "before": [{"split": {}}, {"tokenize": {"prompt_style": "plain"}}, {"sft": train}],
    }
    split, made, sft = make_plan(read_experiment({**recipe, "output": "runs/e"})).stages
    assert made.settings["data"] == str(split.output) and made.settings["model"] == recipe["model"]
    assert sft.settings["dataset_name"] == str(made.output) and str(made.output).endswith(".tok")


def test_packed_rows_of_a_token_file_lie_on_the_disk(tiny, tmp_path):
    write("rows.jsonl", list(products(24)))
    tokenize("--data", "rows.jsonl", "--model", tiny, "--output", "x.tok")
    packed = make_trainer("run", load_token_rows("x.tok"), packing=True, max_length=64).train_dataset
    assert [Path(file["filename"]).parent for file in packed.cache_files] == [tmp_path / "cache" / "trl_math_tokens"]
    assert sum(map(len, packed["input_ids"])) == TokenFile.open("x.tok").facts["num_tokens"]
    again = make_trainer("run", load_token_rows("x.tok"), packing=True, max_length=32).train_dataset
    assert max(map(len, again["input_ids"])) <= 32
