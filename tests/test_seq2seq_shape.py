"""Sizes of T5 and its kin equal the real models'; of others there is no estimate, and the plan says so."""

import json

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BartConfig, MT5Config, T5Config, UMT5Config

from trl_math.errors import UsageError
from trl_math.plan import estimate_memory, plan_memory, shape_of


FLAN_SMALL = {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"}
CONFIGS = {
    "t5-small": T5Config(),
    "flan-t5-small": T5Config(**FLAN_SMALL),
    "t5-large": T5Config(d_model=1024, d_ff=4096, num_layers=24, num_heads=16),
    "mt5": MT5Config(),
    "umt5": UMT5Config(),
    "ragged": T5Config(num_layers=2, num_decoder_layers=3),
}


def config_json(config) -> dict:
    return json.loads(config.to_json_string(use_diff=True))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_parameter_counts_equal_the_real_models(config):
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(config)
    assert shape_of(config_json(config)).parameters == sum(weight.numel() for weight in model.parameters())


def test_published_sizes():
    """Flan-T5's head is its own, as its configuration says: on the hub by one name, saved again by another."""
    assert shape_of(config_json(T5Config())).parameters == 60_506_624
    flan = {"model_type": "t5", "vocab_size": 32128, "d_kv": 64, **FLAN_SMALL}
    assert shape_of({**flan, "tie_word_embeddings": False}).parameters == 76_961_152
    assert shape_of(config_json(T5Config(**FLAN_SMALL, tie_word_embeddings=False))).parameters == 76_961_152


@pytest.mark.parametrize("name", ["t5-small", "flan-t5-small"])
def test_lora_count_equals_peft(name):
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(CONFIGS[name])
        model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="SEQ_2_SEQ_LM"))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert shape_of(config_json(CONFIGS[name])).lora_parameters(8) == trained


def test_the_estimate_adds_up():
    """Weights, gradients and Adam in float32 are 16 bytes a parameter; checkpointing needs less than none."""
    config = config_json(CONFIGS["flan-t5-small"])
    short, long = (estimate_memory(config, max_length=length) for length in (128, 512))
    assert short.weights + short.gradients + short.optimizer == 16 * short.parameters
    assert long.activations > short.activations and long.lm_head > short.lm_head
    assert estimate_memory(config, max_length=512, gradient_checkpointing=False).activations > long.activations
    assert plan_memory({"max_length": 512}, config, None) == long


def test_others_have_no_estimate():
    with pytest.raises(UsageError, match="Of encoder-decoder models only T5 and its kin can be sized; bart is not"):
        shape_of(config_json(BartConfig()))
