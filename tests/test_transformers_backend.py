"""Sampling with transformers: what a sample is, that it depends on nothing else, and what the model keeps."""

import itertools
import logging
import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.fsdp import fully_shard
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, set_seed
from transformers.integrations import HfDeepSpeedConfig

from trl_math.errors import UsageError
from trl_math.generation import Request
from trl_math.generation import model_logprobs as model_logprobs_module
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.models import save_tiny, tiny_model, tiny_tokenizer
from trl_math.optional import is_installed
from trl_math.records import Sampling


TOKENIZER = tiny_tokenizer()
PROMPTS = ["12*34=", "a", "The sum of two primes", "9", "x" * 40, "1+1=", "Is it?", "\n\n"]
GREEDY = Sampling(temperature=0, max_tokens=12)
WARM = Sampling(max_tokens=12)


def ids_of(text):
    return TOKENIZER(text).input_ids


REQUESTS = [Request(ids_of(prompt), seed=index) for index, prompt in enumerate(PROMPTS)]


def draw(model, requests, sampling, batch_size=32, tokenizer=TOKENIZER):
    """Return the completions in the order of the requests."""
    found = dict(TransformersBackend(model, tokenizer, batch_size=batch_size).stream(requests, sampling))
    return [found[index] for index in range(len(requests))]


def tokens(completions):
    return [completion.token_ids for completion in completions]


def reciter(text):
    """Return a model that goes on with the character after the last one in `text`: each stands there once."""
    model = tiny_model(TOKENIZER)
    ids = [*ids_of(text), TOKENIZER.eos_token_id]
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        embeddings = torch.nn.functional.normalize(model.model.embed_tokens.weight, dim=-1)
        for this, following in itertools.pairwise(ids):
            model.lm_head.weight[following] = 20 * embeddings[this]
    return model


@pytest.mark.parametrize("sampling", [GREEDY, WARM, Sampling(temperature=0, max_tokens=12, repetition_penalty=1.3)])
def test_a_sample_does_not_depend_on_its_batch(sampling):
    model = tiny_model()
    together = draw(model, REQUESTS, sampling, batch_size=8)
    assert together == draw(model, REQUESTS, sampling, batch_size=1) == draw(model, REQUESTS, sampling, batch_size=3)
    assert together == draw(model, REQUESTS[::-1], sampling)[::-1]
    assert len({completion.token_ids for completion in together}) > 1


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_samples_are_those_of_generate(penalty):
    model = tiny_model()
    ours = draw(model, REQUESTS, Sampling(temperature=0, max_tokens=12, repetition_penalty=penalty))
    for request, completion in zip(REQUESTS, ours, strict=True):
        ids = torch.tensor([request.prompt_ids])
        config = GenerationConfig(max_new_tokens=12, do_sample=False, repetition_penalty=penalty)
        theirs = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        assert list(completion.token_ids) == theirs[0, len(request.prompt_ids) :].tolist()


def test_samples_follow_their_seeds():
    model = tiny_model()
    same, other = [Request(ids_of("2+2="), seed) for seed in (3, 4)]
    first, second, third = draw(model, [same, other, same], WARM)
    assert first == third != second
    backend = TransformersBackend(model, TOKENIZER)
    rows = [ids_of("2+2="), ids_of("2+3=")]
    samples = backend.generate(rows, Sampling(num_samples=4, max_tokens=12))
    assert len({completion.token_ids for row in samples for completion in row}) == 8
    assert samples == backend.generate(rows, Sampling(num_samples=4, max_tokens=12))
    assert samples != backend.generate(rows, Sampling(num_samples=4, max_tokens=12, seed=1))


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
def test_nothing_comes_from_the_generation_config_but_end_tokens(sampling):
    model = tiny_model()
    expected = draw(model, REQUESTS, sampling)
    theirs = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_k=1,
        top_p=0.5,
        min_p=0.9,
        typical_p=0.5,
        repetition_penalty=1.5,
        no_repeat_ngram_size=2,
        max_length=20,
        min_new_tokens=12,
        suppress_tokens=list(range(3, 100)),
        forced_eos_token_id=TOKENIZER.eos_token_id,
        stop_strings=["1"],
        num_return_sequences=2,
        eos_token_id=TOKENIZER.eos_token_id,
    )
    model.generation_config = theirs
    assert draw(model, REQUESTS, sampling) == expected
    assert model.generation_config is theirs and theirs.top_k == 1


def test_a_sample_ends_with_an_end_token_of_the_tokenizer_or_of_the_model():
    model = reciter("abcdef")
    request = Request(ids_of("a"))
    (whole,) = draw(model, [request], GREEDY)
    assert whole.text == "bcdef" and whole.finish_reason == "stop"
    assert whole.token_ids == (*ids_of("bcdef"), TOKENIZER.eos_token_id) and whole.num_tokens == 6
    model.generation_config.eos_token_id = [TOKENIZER.eos_token_id, *ids_of("d")]
    # The row that goes on past the others is not cut, and they are not padded.
    short, long, cut = draw(model, [Request(ids_of("b")), Request(ids_of("!d")), Request(ids_of("a"))], GREEDY)
    assert (short.text, long.text, cut.text) == ("c", "ef", "bc")
    assert [row.finish_reason for row in (short, long, cut)] == ["stop"] * 3
    assert tokens([short, long, cut]) == [(*ids_of("cd"),), (*ids_of("ef"), TOKENIZER.eos_token_id), (*ids_of("bcd"),)]


def test_a_sample_without_an_end_has_its_length():
    (completion,) = draw(reciter("abcdef"), [Request(ids_of("a"))], Sampling(temperature=0, max_tokens=3))
    assert (completion.text, completion.finish_reason, completion.num_tokens) == ("bcd", "length", 3)


def test_a_tokenizer_may_have_neither_end_nor_padding():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.pad_token = None
    model = reciter("abcdefghij")
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    sampling = Sampling(temperature=0, max_tokens=4, stop=("de",))
    rows = draw(model, [Request(ids_of("a")), Request(ids_of("xxe"))], sampling, tokenizer=tokenizer)
    assert [(row.text, row.finish_reason) for row in rows] == [("bc", "stop"), ("fghi", "length")]


def test_stop_strings():
    model = reciter("abcdefghij")
    requests = [Request(ids_of(prompt)) for prompt in ("a", "xd", "c", "h")]
    rows = draw(model, requests, Sampling(temperature=0, max_tokens=7, stop=("fg", "de", "gh")))
    assert [row.text for row in rows] == ["bc", "e", "", "ij"]
    assert [row.token_ids for row in rows[:3]] == [tuple(ids_of(text)) for text in ("bcde", "efg", "de")]
    assert [row.finish_reason for row in rows] == ["stop"] * 4
    # "de" ends the prompt "xd" and what follows it, but not what was sampled.
    assert rows[1].num_tokens == 3


def test_a_stop_string_ends_the_batch():
    model = reciter("abcdefghij")
    widths = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    draw(model, [Request(ids_of("a")), Request(ids_of("xb"))], Sampling(temperature=0, max_tokens=100, stop="cd"))
    assert widths == [2, 1, 1]


def test_the_longest_prompts_come_first():
    order = [index for index, _ in TransformersBackend(tiny_model(), TOKENIZER, batch_size=2).stream(REQUESTS, GREEDY)]
    lengths = [len(PROMPTS[index]) for index in order]
    assert sorted(order) == list(range(len(PROMPTS))) and lengths == sorted(lengths, reverse=True)


def learned_positions(**overrides):
    config = GPT2Config(vocab_size=len(TOKENIZER), n_embd=32, n_layer=1, n_head=2, n_positions=32, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(config)


@pytest.mark.parametrize("model", [tiny_model(max_position_embeddings=32), learned_positions()], ids=["rope", "table"])
@pytest.mark.parametrize("temperature", [0, 1])
def test_each_row_ends_where_the_context_does(model, temperature):
    requests = [Request(ids_of("x" * length), length + 100) for length in (20, 31, 3, 25, 25)]
    sampling = Sampling(temperature=temperature, max_tokens=16, logprobs=True)
    rows = draw(model, requests, sampling)
    assert [row.num_tokens for row in rows] == [12, 1, 16, 7, 7]
    assert [row.finish_reason for row in rows] == ["length"] * 5
    assert tokens(rows) == tokens(draw(model, requests, sampling, batch_size=1))
    backend = TransformersBackend(model, TOKENIZER)
    assert backend.context_length == 32
    assert backend.generate([ids_of("x" * 32)], Sampling(max_tokens=4))[0][0].finish_reason == "prompt_too_long"


def reference_logprobs(model, request, completion):
    """Every token by itself, from its own prefix."""
    ids = [*request.prompt_ids]
    logprobs = []
    for token in completion.token_ids:
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        logprobs.append(float(torch.log_softmax(logits.double(), dim=-1)[token]))
        ids.append(token)
    return logprobs


@pytest.mark.parametrize("max_logits", [1, 259 * 60, 2**27])
@torch.no_grad()
def test_logprobs_are_the_models_own(max_logits, monkeypatch):
    monkeypatch.setattr(model_logprobs_module, "MAX_LOGITS", max_logits)
    monkeypatch.setattr(model_logprobs_module, "NUM_POSITIONS", 5)
    model = tiny_model()
    tempered = Sampling(
        temperature=1.7, top_k=200, top_p=0.99, repetition_penalty=1.2, max_tokens=12, logprobs=True, stop="a"
    )
    for sampling in (tempered, Sampling(temperature=0, max_tokens=12, logprobs=True)):
        for request, completion in zip(REQUESTS, draw(model, REQUESTS, sampling), strict=True):
            assert len(completion.logprobs) == completion.num_tokens
            assert completion.logprobs == pytest.approx(reference_logprobs(model, request, completion), abs=1e-5)
    assert draw(model, REQUESTS[:1], WARM)[0].logprobs is None


def test_the_process_keeps_its_random_state():
    set_seed(11)
    expected = (torch.rand(1), np.random.rand(), random.random())
    set_seed(11)
    draw(tiny_model(), REQUESTS, WARM)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    first = draw(tiny_model(), REQUESTS, WARM)
    set_seed(12)
    assert draw(tiny_model(), REQUESTS, WARM) == first


def training_state(model):
    return (
        {name: module.training for name, module in model.named_modules()},
        model.generation_config,
        model.config.use_cache,
        torch.is_grad_enabled(),
        {name: weight.requires_grad for name, weight in model.named_parameters()},
    )


def test_a_model_in_training_samples_with_a_cache_and_trains_on():
    model = tiny_model(attention_dropout=0.5)
    model.config.use_cache = False
    model.gradient_checkpointing_enable()
    model.train()
    model.model.norm.eval()
    before = training_state(model)
    widths = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    ids = torch.tensor([ids_of("12*34=408")])
    stream = TransformersBackend(model, TOKENIZER, batch_size=4).stream(REQUESTS, WARM)
    completions = dict([next(stream)])
    # Between two batches as well.
    assert training_state(model) == before
    assert widths == [40] + [1] * 11
    model(input_ids=ids, labels=ids).loss.backward()
    completions |= dict(stream)
    assert training_state(model) == before
    model(input_ids=ids, labels=ids).loss.backward()
    # And without its dropout.
    model.eval()
    assert [completions[index] for index in range(len(REQUESTS))] == draw(model, REQUESTS, WARM)


def test_a_failure_leaves_the_model_as_it_was():
    model = tiny_model().train()
    with torch.no_grad():
        model.lm_head.weight[3, 0] = torch.nan
    before = training_state(model)
    with pytest.raises(UsageError, match=r"not finite.*float16"):
        draw(model, REQUESTS, WARM)
    assert training_state(model) == before


def test_a_partitioned_model_is_refused_at_once():
    backend = TransformersBackend(tiny_model(), TOKENIZER)
    backend.model.lm_head.weight.ds_id = 0  # DeepSpeed's mark
    with pytest.raises(UsageError, match=r"ZeRO-3.*vllm"):
        backend.stream(REQUESTS, WARM)


@pytest.mark.skipif(not is_installed("deepspeed"), reason="needs the extra 'deepspeed'")
def test_a_process_under_zero_3_is_refused():
    live = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    with pytest.raises(UsageError, match=r"ZeRO-3.*vllm"):
        draw(tiny_model(), REQUESTS, WARM)
    del live


def test_a_model_under_fsdp_is_refused():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model = fully_shard(tiny_model(), mesh=distributed.init_device_mesh("cpu", (1,)))
        with pytest.raises(UsageError, match=r"FSDP.*vllm"):
            draw(model, REQUESTS, WARM)
    finally:
        distributed.destroy_process_group()


class SmallMemory(LlamaForCausalLM):
    """Has room for two rows."""

    def forward(self, input_ids=None, **kwargs):
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(input_ids=input_ids, **kwargs)


def test_out_of_memory_halves_the_batch_and_changes_no_sample(caplog):
    model = tiny_model()
    small = SmallMemory(model.config)
    small.load_state_dict(model.state_dict())
    small.generation_config = model.generation_config
    backend = TransformersBackend(small, TOKENIZER, batch_size=6)
    with caplog.at_level(logging.WARNING):
        found = dict(backend.stream(REQUESTS, WARM))
    assert [found[index] for index in range(len(REQUESTS))] == draw(model, REQUESTS, WARM)
    assert backend.facts()["batch_size"] == 1
    said = [record.getMessage() for record in caplog.records if "memory" in record.getMessage()]
    assert said == ["Out of memory with 6 samples at once: going on with 3.", said[-1]] and "with 1." in said[-1]


def test_one_sample_that_does_not_fit_is_an_error(monkeypatch):
    def forward(self, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(SmallMemory, "forward", forward)
    with pytest.raises(UsageError, match=r"1 prompt tokens and up to 12 new ones.*max_tokens"):
        draw(SmallMemory(tiny_model().config), [Request(ids_of("1"))], WARM)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A folder with a LoRA adapter that says something, and a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("adapter")
    model = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "trained"
    tokenizer.save_pretrained(folder)
    return folder


def test_an_adapter_is_applied_and_not_merged(adapter):
    base = TransformersBackend.load("embedded:tiny", device="cpu")
    tuned = TransformersBackend.load("embedded:tiny", adapter=adapter, device="cpu", dtype=torch.float32)
    sampling = Sampling(max_tokens=12, logprobs=True)
    ours = dict(tuned.stream(REQUESTS, sampling))
    assert ours != dict(base.stream(REQUESTS, sampling))
    assert base.tokenizer.chat_template != tuned.tokenizer.chat_template == "trained"
    # PEFT's own way to merge, as the reference.
    with torch.no_grad():
        for index, completion in ours.items():
            reference = reference_logprobs(tuned.model, REQUESTS[index], completion)
            assert completion.logprobs == pytest.approx(reference, abs=1e-5)
    tuned.model.base_model.model.generation_config.top_k = 1
    assert dict(tuned.stream(REQUESTS, sampling)) == ours
    assert tuned.model.base_model.model.generation_config.top_k == 1
    merged = TransformersBackend(tuned.model.merge_and_unload(), TOKENIZER)
    assert tokens(dict(merged.stream(REQUESTS, sampling)).values()) == tokens(ours.values())


def test_what_is_loaded_and_what_is_written_down(tmp_path):
    backend = TransformersBackend.load(
        str(save_tiny(tmp_path / "model")), dtype="bfloat16", device="cpu", batch_size=5
    )
    facts = backend.facts()
    assert facts.pop("version").count(".") == 2
    assert facts == {"engine": "transformers", "dtype": "bfloat16", "device": "cpu", "batch_size": 5}
    assert backend.context_length == 2048
    assert len(backend.generate([ids_of("1")], Sampling(num_samples=2, max_tokens=3))[0]) == 2
    backend.close()


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(UsageError, match="'no/model' cannot be loaded"):
        TransformersBackend.load("no/model")
    with pytest.raises(UsageError, match=r"no LoRA adapter.*adapter_config\.json"):
        TransformersBackend.load("embedded:tiny", adapter=tmp_path)
    with pytest.raises(UsageError, match="batch_size must be at least 1, got 0"):
        TransformersBackend(tiny_model(), TOKENIZER, batch_size=0)
    with pytest.raises(UsageError, match="Prompt 0 has no tokens"):
        draw(tiny_model(), [Request([])], WARM)
