"""The weights that engines take over: names and values of the checkpoint, and a model that keeps every bit."""

import copy
import math

import pytest
import torch
from peft import LoHaConfig, LoraConfig, OFTConfig, PromptTuningConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from trl_math.errors import ParityError, UsageError
from trl_math.generation.live import EngineLayout
from trl_math.generation.parity import Parity, act_on, compare, probe
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.generation.weights import checkpoint_name, is_cut_up, named_weights
from trl_math.models import tiny_model, tiny_tokenizer
from trl_math.records import Completion


ALL_LINEAR = {"target_modules": "all-linear"}
# What an adapter can be, as PEFT's settings.
ADAPTERS = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "all linear layers": ALL_LINEAR,
    "one layer of two": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    "rank-stabilised": {**ALL_LINEAR, "use_rslora": True},
    "ranks by layer": {**ALL_LINEAR, "rank_pattern": {"q_proj": 2, "down_proj": 7}, "alpha_pattern": {"q_proj": 3}},
    "modules to save": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "input_layernorm"]},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head", "k_proj"]},
    "trained biases": {**ALL_LINEAR, "bias": "all"},
}


def tuned(model=None, *, seed=1, dtype=torch.float32, **settings):
    """The tiny model with an adapter that is not zero, and modules to save that were trained."""
    torch.manual_seed(seed)
    model = get_peft_model(
        model or tiny_model(dtype=dtype), LoraConfig(r=4, lora_alpha=16, init_lora_weights=False, **settings)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def base_bits(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" not in name}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def sent(model):
    """What an engine would be sent; every name once."""
    pairs = list(named_weights(model))
    assert len({name for name, _ in pairs}) == len(pairs)
    assert not any(tensor.requires_grad for _, tensor in pairs)
    return dict(pairs)


def merged_by_peft(model):
    return copy.deepcopy(model).merge_and_unload().state_dict()


# Names


@pytest.mark.parametrize("is_tied", [False, True])
def test_names_and_values_are_those_of_the_checkpoint(tmp_path, is_tied):
    """A tied head comes under its own name as well: an engine that packs it needs to be told of it."""
    model = tiny_model(tie_word_embeddings=is_tied)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if is_tied:
        assert "lm_head.weight" not in saved
        saved["lm_head.weight"] = saved["model.embed_tokens.weight"]
    assert same(sent(model), saved)


def test_names_of_wrapped_models_are_those_of_the_model_inside():
    model = tuned(modules_to_save=["lm_head"], **ALL_LINEAR)
    expected = sorted(sent(tiny_model()))
    assert sorted(sent(model)) == expected
    assert sorted(sent(torch.compile(tiny_model()))) == expected
    assert sorted(sent(torch.compile(model))) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("module.model.norm.weight", "model.norm.weight"),
        ("base_model.model.model.norm.weight", "model.norm.weight"),
        ("module.base_model.model.lm_head.weight", "lm_head.weight"),
        (
            "base_model.model.model.layers.1.self_attn.q_proj.base_layer.weight",
            "model.layers.1.self_attn.q_proj.weight",
        ),
        ("base_model.model.model.layers.1.self_attn.q_proj.base_layer.bias", "model.layers.1.self_attn.q_proj.bias"),
        ("base_model.model.lm_head.modules_to_save.default.weight", "lm_head.weight"),
        ("base_model.model.lm_head.modules_to_save.default.base_layer.weight", "lm_head.weight"),
        ("model.layers.0._checkpoint_wrapped_module.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("_orig_mod.model.norm.weight", "model.norm.weight"),
        ("_orig_mod.base_model.model.model.norm.weight", "model.norm.weight"),
        ("_orig_mod.module.base_model.model.model.norm.weight", "model.norm.weight"),
        ("module._orig_mod.base_model.model.model.norm.weight", "model.norm.weight"),
    ],
)
def test_names_lose_what_wrappers_add(name, expected):
    assert checkpoint_name(name) == expected


def test_buffers_that_are_saved_are_sent():
    model = tiny_model()
    model.model.register_buffer("scale", torch.tensor([2.0]))
    model.model.register_buffer("scratch", torch.tensor([3.0]), persistent=False)
    found = sent(model)
    assert torch.equal(found["model.scale"], torch.tensor([2.0])) and "model.scratch" not in found


def test_what_is_sent_is_the_receiver_s_to_keep():
    """Copies: neither side sees what the other does afterwards."""
    model = tiny_model()
    before = base_bits(model)
    for name, tensor in named_weights(model):
        tensor.zero_()
        assert torch.equal(model.get_parameter(name), before[name])
    assert not is_cut_up(model)


# LoRA


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_are_merged_as_peft_merges_them(name):
    model = tuned(**ADAPTERS[name])
    before = base_bits(model)
    found, expected = sent(model), merged_by_peft(model)
    assert found.keys() == expected.keys()
    for key in found:
        torch.testing.assert_close(found[key], expected[key], atol=1e-6, rtol=0)
    assert any(not torch.equal(found[key], weight) for key, weight in tiny_model().state_dict().items())
    assert same(base_bits(model), before), "the base keeps its bits"


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_is_sent_says_what_the_model_says(name):
    """The model with its adapter, and a plain model with the weights that were sent, have the same logits."""
    model = tuned(**ADAPTERS[name]).eval()
    plain = tiny_model().eval()
    plain.load_state_dict(sent(model))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ADAPTERS if name != "trained biases"])
def test_switched_off_adapters_leave_the_base(name):
    """Modules to save as well: what PEFT would compute with is what is sent."""
    model = tuned(**ADAPTERS[name])
    with model.disable_adapter():
        assert same(sent(model), dict(tiny_model().state_dict()))
    assert not same(sent(model), dict(tiny_model().state_dict()))


def test_a_merged_layer_is_not_merged_again():
    model = tuned(**ALL_LINEAR)
    expected = merged_by_peft(model)
    model.merge_adapter()
    assert same(sent(model), expected)
    model.unmerge_adapter()
    assert all(torch.allclose(tensor, expected[name], atol=1e-6) for name, tensor in sent(model).items())


def test_several_adapters_at_once():
    """Those that are active count, together; with modules to save, the module of the active one."""
    model = tuned(**ALL_LINEAR)
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["q_proj"]))
    for active in (["default"], ["other"], ["default", "other"]):
        model.base_model.set_adapter(active)
        found, expected = sent(model), merged_by_peft(model)
        assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found), active


def test_modules_to_save_of_several_adapters():
    model = tuned(target_modules=["q_proj"], modules_to_save=["lm_head"])
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["other"].weight.add_(1.0)
    for active in ("default", "other"):
        model.set_adapter(active)
        expected = model.base_model.model.lm_head.modules_to_save[active].weight
        assert torch.equal(sent(model)["lm_head.weight"], expected)


def test_layers_that_hold_their_weights_the_other_way_round():
    """GPT-2's Conv1D: the change has to be turned with them."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    model = tuned(model, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    found, expected = sent(model), merged_by_peft(model)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("adapter_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_weights_are_rounded_once(adapter_dtype):
    """Base and change are added in float32: the result is the nearest bfloat16, at every exchange."""
    model = tuned(dtype=torch.bfloat16, **ALL_LINEAR)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(adapter_dtype)
    before = base_bits(model)
    found = sent(model)
    for _ in range(20):
        again = sent(model)
    assert same(found, again) and same(base_bits(model), before)
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    change = layer.get_delta_weight("default").float()
    expected = (layer.base_layer.weight.float() + change).bfloat16()
    assert torch.equal(found["model.layers.0.self_attn.q_proj.weight"], expected)
    assert not torch.equal(expected, layer.base_layer.weight)


def lora(**settings):
    return LoraConfig(r=2, **{"target_modules": ["q_proj"], **settings})


@pytest.mark.parametrize(
    "config",
    [
        lora(use_dora=True),
        lora(target_modules=["q_proj"], trainable_token_indices=[3, 4]),
        lora(lora_bias=True, init_lora_weights=True),
        lora(target_modules=[], target_parameters=["mlp.down_proj.weight"]),
        OFTConfig(target_modules=["q_proj"], r=8, oft_block_size=0),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ],
    ids=["dora", "tokens", "lora_bias", "parameters", "oft", "prompts"],
)
def test_adapters_that_cannot_be_merged_are_refused(config):
    """Sent without their change, the engine would sample from another model."""
    model = get_peft_model(tiny_model(attention_bias=True), config)
    with pytest.raises(UsageError, match="cannot be merged into a copy"):
        list(named_weights(model))


def test_adapters_of_other_kinds_that_add_to_weights():
    """LoHa's change is a sum too; whatever is not refused is right."""
    torch.manual_seed(0)
    model = get_peft_model(tiny_model(), LoHaConfig(target_modules=["q_proj"], r=2, init_weights=False))
    try:
        found = sent(model)
    except UsageError as error:
        assert "cannot be merged" in str(error)
    else:
        expected = merged_by_peft(model)
        assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in found)


# Engines on processes


@pytest.mark.parametrize(
    ("settings", "number", "engines"),
    [
        ({}, 8, [[i] for i in range(8)]),
        ({"tensor_parallel_size": 2}, 8, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ({"tensor_parallel_size": 4}, 8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ({"num_engines": 2}, 8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ({"num_engines": 4}, 8, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        ({"num_engines": 1}, 8, [list(range(8))]),
        ({"num_engines": 2, "tensor_parallel_size": 4}, 8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ({"num_engines": 3}, 6, [[0, 1], [2, 3], [4, 5]]),
        ({}, 1, [[0]]),
    ],
    ids=str,
)
def test_engines_are_laid_out_over_neighbours(settings, number, engines):
    assert [list(ranks) for ranks in EngineLayout(**settings).engines(number)] == engines


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"tensor_parallel_size": 3}, 8),
        ({"num_engines": 3}, 8),
        ({"num_engines": 16}, 8),
        ({"tensor_parallel_size": 16}, 8),
        ({"num_engines": 2, "tensor_parallel_size": 2}, 8),
        ({"num_engines": 0}, 8),
        ({"tensor_parallel_size": 0}, 8),
        ({"num_engines": -2}, 8),
        ({"tensor_parallel_size": -2, "num_engines": -4}, 8),
    ],
    ids=str,
)
def test_layouts_that_do_not_fit(settings, number):
    with pytest.raises(UsageError, match=rf"must be the number of processes \({number}\), got "):
        EngineLayout(**settings).engines(number)


# The probe


PROMPTS = [tiny_tokenizer()(text).input_ids for text in ("12*34=", "a", "The sum of two primes")]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def said(model):
    """The model's own greedy continuations, with its log-probabilities."""
    return probe(TransformersBackend(model, tiny_tokenizer()), PROMPTS)


def changed(completions, change):
    return [Completion(c.text, c.token_ids, c.finish_reason, c.num_tokens, change(c.logprobs)) for c in completions]


def test_the_probe_holds_for_the_model_itself(model, said):
    parity = compare(model, PROMPTS, said)
    assert parity.holds and parity.largest_difference < 1e-5 and parity.largest_gap == 0
    assert parity.num_tokens == sum(c.num_tokens for c in said) > 20
    assert parity.tolerance == 1e-3
    act_on(parity, "fail")


@pytest.mark.parametrize(
    "change",
    [
        lambda logps: tuple(p + 0.01 for p in logps),
        lambda logps: tuple(p - 0.01 for p in logps),
        lambda logps: (logps[0] - 0.02, *logps[1:]),
        lambda logps: tuple(math.nan for _ in logps),
        lambda logps: (math.nan, *logps[1:]),
        lambda logps: (-math.inf, *logps[1:]),
    ],
)
def test_the_probe_fails_where_log_probabilities_differ(model, said, change, caplog):
    parity = compare(model, PROMPTS, changed(said, change))
    assert not parity.holds
    with pytest.raises(ParityError, match="The engine does not follow the model: log-probabilities of"):
        act_on(parity, "fail")
    act_on(parity, "warn")
    assert "does not follow the model" in caplog.text


def test_the_probe_fails_where_tokens_are_not_the_model_s_choice(model):
    """Log-probabilities that are right for tokens that are wrong: an engine that samples when it should not."""
    tokens = tuple(range(10, 20))
    right = []
    for ids in PROMPTS:
        with torch.no_grad():
            logps = model(torch.tensor([[*ids, *tokens]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        told = tuple(logps.gather(-1, torch.tensor(tokens)[:, None])[:, 0].tolist())
        right.append(Completion("", tokens, "length", len(tokens), told))
    parity = compare(model, PROMPTS, right)
    assert parity.largest_difference < 1e-5 and parity.largest_gap > 0.1
    assert not parity.holds


def test_the_probe_notices_a_model_that_changed(said):
    assert not compare(tiny_model(seed=3), PROMPTS, said).holds


def test_the_tolerance_is_that_of_the_coarser_dtype(model, said):
    for dtype, tolerance in (("float32", 1e-3), ("float16", 2e-2), ("bfloat16", 5e-2)):
        assert compare(model, PROMPTS, said, engine_dtype=dtype).tolerance == tolerance
    half = tiny_model(dtype=torch.bfloat16)
    assert compare(half, PROMPTS, said).tolerance == 5e-2
    assert compare(half, PROMPTS, said).holds
    assert compare(model, PROMPTS, said, tolerance=1e-9).tolerance == 1e-9


def test_the_probe_leaves_the_model_as_it_was(model, said):
    for training in (True, False):
        model.train(training)
        compare(model, PROMPTS, said)
        assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()


def test_a_probe_needs_prompts(model):
    with pytest.raises(UsageError, match="at least one prompt"):
        probe(TransformersBackend(model, tiny_tokenizer()), [])


def test_a_verdict_says_what_it_found():
    parity = Parity(0.5, 2.0, 0.25, 16, 1e-3)
    assert str(parity) == (
        "log-probabilities of 16 tokens differ by 0.5 on average and 2 at most, and the model prefers another token "
        "by up to 0.25 nats (allowed: 0.001, and 4 times that at most)"
    )
    assert not parity.holds and Parity(1e-3, 4e-3, 4e-3, 16, 1e-3).holds and not Parity(1e-3, 5e-3, 0, 16, 1e-3).holds


def test_a_plain_module_is_sent_too():
    module = nn.Linear(2, 2)
    assert sorted(sent(module)) == ["bias", "weight"]
