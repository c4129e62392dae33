"""Rows of encoder-decoders: one end token, both sides counted, steps numbered; what cannot work is one line."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from helpers import history, make_trainer, products, same_weights, settings
from safetensors.torch import load_file
from seq2seq_helpers import HEAD, make_seq2seq, make_theirs, save_own_head
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from trl_math import MathSeq2SeqConfig, MathSeq2SeqTrainer, MathSFTTrainer
from trl_math.cli.main import main
from trl_math.errors import DataError, UsageError
from trl_math.models import tiny_model, tiny_t5, tiny_t5_tokenizer, tiny_tokenizer
from trl_math.trainers.seq2seq_config import REFUSED
from trl_math.trainers.seq2seq_rows import ready_rows


TOKENIZER = tiny_t5_tokenizer()


def config(**changes):
    return MathSeq2SeqConfig(**settings("out", **changes))


def ready(rows, **changes):
    return ready_rows(Dataset.from_list(rows), TOKENIZER, config(**changes), "train", is_training=True)


def test_each_side_has_one_end_token():
    """Also where the completion brings its text along; the decoder's side has the start token's place first."""
    rows = ready([{"prompt": "2=", "completion": " 2"}, {"prompt": "2=", "completion": " 2</s>"}])
    for row in rows:
        assert row["encoder_ids"] == TOKENIZER("2=")["input_ids"]
        assert row["labels"] == [-100, *TOKENIZER(" 2")["input_ids"]]
        assert row["labels"].count(TOKENIZER.eos_token_id) == row["encoder_ids"].count(TOKENIZER.eos_token_id) == 1


def test_max_length_is_of_each_side(caplog):
    """A row is too long if either side is; too many are refused, a few are cut, or left out if asked."""
    fits = {"prompt": "123456789", "completion": "123456789"}
    rows = [fits, {**fits, "prompt": "1234567890"}, {**fits, "completion": "1234567890"}]
    assert len(ready(rows[:1], max_length=10)) == 1
    with pytest.raises(DataError, match=r"2 of 3 rows \(66.7%\) .* \(1 prompts, the longest of 11 tokens, and 1 "):
        ready(rows, max_length=10)
    with caplog.at_level(logging.WARNING):
        kept = ready(rows, max_length=10, drop_truncated=True)
        assert len(kept) == 1
        cut = ready(rows, max_length=10, max_truncated_fraction=1.0)
    assert [len(row["encoder_ids"]) for row in cut] == [10] * 3
    assert [len(row["labels"]) for row in cut] == [11] * 3
    assert "are left out" in caplog.text and "lose their end" in caplog.text
    with pytest.raises(DataError, match="nothing is left of it"):
        ready(rows[1:], max_length=5, drop_truncated=True)


def test_steps_are_numbered_as_for_decoders():
    """0 on the start token, then each step's number, the end token with the last."""
    rows = ready(
        [{"prompt": "p", "completion": "ab. c.", "steps": ["ab. ", "c."]}],
        objective="coverage",
        num_attempts=4,
        coverage_level="step",
    )
    assert rows[0]["step_ids"] == [0, 1, 1, 1, 1, 2, 2, 2]


def test_characters_that_the_tokenizer_lacks_are_told(caplog):
    """T5 has no braces, so that a boxed answer could never be read: said with the first row and its characters."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "the": 3, "answer": 4, "7": 5}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    rows = Dataset.from_list([{"prompt": "the answer", "completion": text} for text in ("7", "{ 7 }")])
    told = r"1 of 2 rows \(50.0%\) of the train data set have .* \(row 1: '\{' '\}'\)"
    with pytest.raises(DataError, match=told + ".* to write <unk> .* At most 1.0% may be") as error:
        ready_rows(rows, tokenizer, config(), "train", is_training=True)
    assert "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        kept = ready_rows(rows, tokenizer, config(max_unwritable_fraction=0.5), "train", is_training=True)
    assert len(kept) == 2 and re.search(told, caplog.text)
    with pytest.raises(UsageError, match="max_unwritable_fraction is a share between 0 and 1"):
        config(max_unwritable_fraction=2)


BAD_ROWS = {
    "no prompt": ([{"text": "1+1=2"}], "needs a prompt and a completion in every row, and the train data set has no"),
    "empty completion": ([{"prompt": "1", "completion": ""}], "1 of 1 rows .* no token to train on or no prompt"),
    "conversation": (
        [
            {
                "prompt": [{"role": "user", "content": "1"}],
                "completion": [{"role": "assistant", "content": "1"}],
            }
        ],
        "has conversations, .* use a plain prompt_style",
    ),
    "none": ([{"prompt": "1", "completion": None}, {"prompt": "1", "completion": "1"}], "1 rows .* no completion"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_rows(rows, message):
    with pytest.raises(DataError, match=message) as error:
        ready(rows)
    assert "\n" not in str(error.value)


VALUES = {
    "packing": True,
    "eval_packing": True,
    "padding_free": True,
    "min_coverage_weight": 0.1,
    "unscreened_steps": 3,
    "assistant_only_loss": True,
    "chat_template_path": "x.jinja",
    "eos_token": "x",
    "pad_token": "x",
    "truncation_mode": "keep_end",
    "loss_type": "dft",
    "use_liger_kernel": True,
    "label_smoothing_factor": 0.1,
    "activation_offloading": True,
    "router_aux_loss_coef": 0.1,
    "eval_generation_gpu_memory_utilization": 0.5,
    "eval_generation_tensor_parallel_size": 2,
    "completion_only_loss": False,
    "screening": "live",
}


@pytest.mark.parametrize("name", [*REFUSED, "completion_only_loss", "screening"])
def test_what_makes_no_sense_is_refused_in_one_line(name):
    with pytest.raises(UsageError, match=f"^{name}.* is not for encoder-decoder models") as error:
        config(**{name: VALUES[name]})
    assert "\n" not in str(error.value)


def test_vllm_is_refused_and_auto_is_the_model_itself(tmp_path):
    asked = {"eval_generation_data": "x", "eval_strategy": "steps", "eval_steps": 1}
    with pytest.raises(UsageError, match="eval_generation_engine: vllm is not for encoder-decoder models"):
        config(**asked, eval_generation_engine="vllm")
    assert config(**asked).eval_generation_engine == "transformers"


def test_each_kind_has_its_trainer(tmp_path):
    """A model of the other kind is refused by either trainer, in memory or by name."""
    with pytest.raises(UsageError, match="train it with MathSFTTrainer"):
        make_seq2seq(tmp_path, model=tiny_model())
    for model in (tiny_t5(), str(save(tmp_path / "t5"))):
        with pytest.raises(UsageError, match="is an encoder-decoder model: train it with MathSeq2SeqTrainer"):
            make_trainer(tmp_path, model=model, processing_class=tiny_tokenizer())
    assert issubclass(MathSeq2SeqConfig, MathSFTTrainer.__init__.__annotations__["args"].__args__[0])


def save(folder):
    from trl_math.models import save_tiny_t5

    return save_tiny_t5(folder)


def test_a_stream_and_another_loss_are_refused(tmp_path):
    with pytest.raises(DataError, match="not on a stream"):
        make_seq2seq(tmp_path, products().to_iterable_dataset())
    with pytest.raises(UsageError, match="compute_loss_func is not for MathSeq2SeqTrainer"):
        make_seq2seq(tmp_path, compute_loss_func=lambda *args: 0)


def test_a_table_of_positions_has_an_end(tmp_path):
    from transformers import BartConfig, BartForConditionalGeneration

    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "max_position_embeddings": 8}
    model = BartForConditionalGeneration(BartConfig(vocab_size=len(TOKENIZER), **ids, **sizes, **heads))
    rows = Dataset.from_list([{"prompt": "x" * 20, "completion": "y"}] * 4)
    with pytest.raises(DataError, match="A row has 21 tokens on one side, and the model has 8 positions"):
        make_seq2seq(tmp_path, rows, model=model)
    trainer = make_seq2seq(tmp_path, rows, model=model, max_length=8, max_truncated_fraction=1.0)
    trainer.train()
    assert len(history(trainer)) == 3


def test_a_folder_is_trained_by_name_and_saved(tmp_path):
    """By name the trainer loads model and tokenizer; a configuration of SFT becomes one of ours; a card is written."""
    from trl import SFTConfig

    args = SFTConfig(**settings(tmp_path / "out", max_steps=2, save_strategy="steps", save_steps=2))
    trainer = MathSeq2SeqTrainer(str(save(tmp_path / "t5")), args, train_dataset=products())
    trainer.train()
    assert isinstance(trainer.args, MathSeq2SeqConfig)
    card = (tmp_path / "out" / "checkpoint-2" / "README.md").read_text()
    assert "objective: `cross_entropy`" in card
    saved = type(trainer.model).from_pretrained(tmp_path / "out" / "checkpoint-2")
    assert all(torch.equal(value, saved.state_dict()[name]) for name, value in trainer.model.state_dict().items())


RUN = {"max_steps": 7, "logging_steps": 1, "save_strategy": "steps", "save_steps": 3, "objective": "focal"}


def test_a_resumed_run_is_one_that_was_not_stopped(tmp_path):
    """Weights, losses and tokens, with dropout."""
    whole = make_seq2seq(tmp_path / "whole", products(20), model=tiny_t5(dropout_rate=0.1), **RUN)
    whole.train()
    again = make_seq2seq(tmp_path / "again", products(20), model=tiny_t5(seed=9, dropout_rate=0.1), **RUN)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert same_weights(whole, again)
    keys = ("loss", "grad_norm", "num_tokens", "step")
    assert history(again, *keys) == history(whole, *keys)
    assert again._total_train_tokens == whole._total_train_tokens > 0


def test_lora_trains_only_its_weights_and_is_merged(tmp_path, capsys):
    """From the command: `sft` with LoRA, whose folder is sampled as it is and as `merge` makes one model of it."""
    data = tmp_path / "rows.jsonl"
    rows = [{"problem_id": str(i), "problem": f"{i}=", "answer": str(i)} for i in range(12)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = str(save(tmp_path / "t5"))
    words = "--use_cpu --bf16 false --report_to none --prompt_style plain --max_steps 2 --use_peft true --lora_r 4"
    model = ["--model_name_or_path", base, "--dataset_name", str(data), "--output_dir", "out"]
    assert main(["sft", *model, *words.split(), "--learning_rate", "0.1"]) == 0
    assert main(["merge", "out", "--output", "merged"]) == 0
    asked = ["--prompt_style", "plain", "--max_tokens", "6", "--temperature", "0", "--data", str(data)]
    texts = []
    for name in ("out", "merged", base):
        folder = tmp_path / f"samples-{len(texts)}"
        assert main(["generate", "--model", name, "--output", str(folder), *asked]) == 0
        lines = [line for file in folder.rglob("*.jsonl") for line in file.read_text().splitlines()]
        texts.append({row["problem_id"]: row["completion"] for row in map(json.loads, lines)})
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("has_own_head", [False, True], ids=["T5", "Flan-T5"])
@pytest.mark.parametrize("lora", [False, True], ids=["whole", "merged"])
def test_the_head_stays_what_it_is(has_own_head, lora, tmp_path):
    """T5's head is its embeddings, Flan-T5's is its own: loaded, trained, saved, merged and loaded again."""
    start = (save_own_head if has_own_head else save)(tmp_path / "start")
    before = load_file(start / "model.safetensors")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"problem": f"{i}=", "answer": str(i)}) + "\n" for i in range(8)))
    words = "--use_cpu true --bf16 false --report_to none --prompt_style plain --max_steps 2 --learning_rate 0.01"
    words += " --use_peft true --lora_r 4" if lora else ""
    model = ["--model_name_or_path", str(start), "--dataset_name", str(data), "--output_dir", "out"]
    assert main(["sft", *model, *words.split()]) == 0
    assert not lora or main(["merge", "out", "--output", "merged"]) == 0
    folder = Path("merged" if lora else "out")
    saved = AutoModelForSeq2SeqLM.from_pretrained(folder)
    assert (saved.lm_head.weight is saved.shared.weight) != has_own_head
    assert saved.config.scale_decoder_outputs != has_own_head
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys() and (HEAD in after) == has_own_head
    names = [name for name in (HEAD, "shared.weight") if name in after]
    assert all(torch.equal(saved.state_dict()[name], after[name]) for name in names)
    assert all(torch.equal(after[name], before[name]) == lora for name in names), "LoRA leaves them, training does not"


def test_dpo_is_refused(tmp_path, capsys):
    words = "--model_name_or_path embedded:t5-tiny --dataset_name x.jsonl --output_dir out --use_cpu --bf16 false"
    assert main(["dpo", *words.split()]) == 2
    assert "is an encoder-decoder model, which TRL's DPO does not train" in capsys.readouterr().err


def test_upstream_takes_a_step_of_several_micro_batches_for_one_too_many(tmp_path):
    """Why the denominator is ours: transformers' loss of a T5 grows with accumulation. If this fails, say so less."""
    losses = []
    for size, steps in ((8, 1), (1, 8)):
        batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "max_steps": 1}
        theirs = make_theirs(tmp_path / str(size), **batch)
        theirs.train()
        losses.append(history(theirs)[0][0])
    assert losses[1] > 4 * losses[0]


@pytest.mark.parametrize("command", ["sft", "generate"])
def test_a_decoder_is_not_asked_in_a_style_of_encoder_decoders(command, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"problem": "2+2=", "solution": "2+2 is 4", "answer": "4"}\n')
    data = {"sft": "--dataset_name", "generate": "--data"}[command]
    model = {"sft": "--model_name_or_path", "generate": "--model"}[command]
    words = [data, str(tmp_path / "rows.jsonl"), model, "embedded:tiny", "--prompt_style", "ft_token_seq2seq"]
    words += ["--use_cpu", "true"] if command == "sft" else ["--output", "samples", "--backend", "transformers"]
    assert main([command, *words, "--dry-run"]) != 0
    assert "embedded:tiny is a decoder: use ft_token." in capsys.readouterr().err
