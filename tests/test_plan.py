"""The plan's arithmetic equals what transformers, PEFT, DeepSpeed and autograd really do."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from trl_math.errors import UsageError
from trl_math.launch import launch_plan
from trl_math.plan import (
    ModelShape,
    describe,
    effective_batch,
    estimate_memory,
    num_update_steps,
    plan_memory,
)


LLAMA_8B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=128256,
)
QWEN_MATH_1_5B = Qwen2Config(
    hidden_size=1536,
    intermediate_size=8960,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    vocab_size=151936,
    tie_word_embeddings=True,
)
QWEN_3_600M = Qwen3Config(
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=151936,
    tie_word_embeddings=True,
)
CONFIGS = [LLAMA_8B, QWEN_MATH_1_5B, QWEN_3_600M, MistralConfig(), GemmaConfig(), Gemma2Config(), Gemma3TextConfig()]


def config_json(config) -> dict:
    """What a checkpoint's config.json holds: fields at the class's default may be left out."""
    return json.loads(config.to_json_string(use_diff=True))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_parameter_count_equals_the_real_model(config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert ModelShape.from_config(config_json(config)).parameters == sum(p.numel() for p in model.parameters())


def test_biases_are_counted():
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
    )
    config.attention_bias = config.mlp_bias = True
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert ModelShape.from_config(config_json(config)).parameters == sum(p.numel() for p in model.parameters())


def test_lora_count_equals_peft():
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(QWEN_3_600M)
        model = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert ModelShape.from_config(config_json(QWEN_3_600M)).lora_parameters(8) == trained


def saved_bytes_of_a_layer(config, dtype: torch.dtype, tokens: int) -> float:
    """Bytes a token that autograd keeps for one more layer, measured."""

    def run(layers: int) -> int:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = ["full_attention"] * layers
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        storages = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32),
        ):
            model.model(input_ids=torch.zeros((2, tokens // 2), dtype=torch.long), use_cache=False)
        return sum(storage.nbytes() for storage in storages.values())

    return (run(3) - run(2)) / tokens


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, Qwen3Config, GemmaConfig, Gemma3TextConfig])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_activations_are_what_autograd_keeps(kind, dtype):
    config = kind(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        vocab_size=64,
    )
    tokens = 256
    measured = saved_bytes_of_a_layer(config, dtype, tokens)
    shape = ModelShape.from_config(config_json(config))
    size = dtype.itemsize
    casts = 2 * shape.layer_matrices / tokens if size == 4 else 0
    assert measured == pytest.approx(shape.layer_activations(size) + casts, rel=0.12)


def test_states_under_zero_equal_deepspeed_estimates():
    zero2 = pytest.importorskip("deepspeed.runtime.zero.stage_1_and_2")
    zero3 = pytest.importorskip("deepspeed.runtime.zero.stage3")
    config = config_json(LLAMA_8B)
    parameters = ModelShape.from_config(config).parameters

    ours = estimate_memory(config, zero_stage=2, num_processes=8)
    _, theirs = zero2.estimate_zero2_model_states_mem_needs(parameters, 8, 1, cpu_offload=False)
    assert ours.weights + ours.gradients + ours.optimizer == pytest.approx(theirs, abs=8)

    # At stage 3 DeepSpeed leaves out the float32 gradients of the step, of which it makes at most 1e9 at a time.
    ours = estimate_memory(config, zero_stage=3, num_processes=8)
    _, theirs, largest = zero3.estimate_zero3_model_states_mem_needs(
        parameters, 1, 8, 1, cpu_offload=False, cpu_offload_params=False
    )
    states = ours.weights + ours.gradients + ours.optimizer
    assert theirs - largest < states <= theirs - largest + 4e9

    offloaded = estimate_memory(config, zero_stage=2, num_processes=8, offload_optimizer=True)
    _, theirs = zero2.estimate_zero2_model_states_mem_needs(parameters, 8, 1, cpu_offload=True)
    assert offloaded.weights + offloaded.gradients + offloaded.optimizer == theirs


def test_states_of_one_process_are_those_of_the_optimizer():
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=50
    )
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.zeros((1, 4), dtype=torch.long)).logits.sum().backward()
        optimizer.step()
        moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
        estimate = estimate_memory(config_json(config), dtype=str(dtype).removeprefix("torch."))
        assert estimate.weights == sum(p.nbytes for p in model.parameters())
        assert estimate.gradients == sum(p.grad.nbytes for p in model.parameters())
        assert estimate.optimizer == sum(moment.nbytes for moment in moments)
        assert estimate.buffers == 0


def test_memory_falls_with_what_saves_memory():
    config = config_json(LLAMA_8B)

    def total(**settings) -> int:
        return estimate_memory(config, **settings).total

    full = total(dtype="bfloat16", num_processes=8)
    assert total(dtype="float32", num_processes=8) > full
    stages = [total(zero_stage=stage, num_processes=8) for stage in (1, 2, 3)]
    assert stages == sorted(stages, reverse=True)
    assert total(dtype="bfloat16", gradient_checkpointing=False) > total(dtype="bfloat16")
    assert total(dtype="bfloat16", optimizer="adamw_bnb_8bit") < total(dtype="bfloat16")
    assert total(dtype="bfloat16", optimizer="sgd") < total(dtype="bfloat16", optimizer="adamw_bnb_8bit")
    lora = total(dtype="bfloat16", use_peft=True)
    assert total(dtype="bfloat16", use_peft=True, quantised=4) < lora < total(dtype="bfloat16")
    assert total(dtype="bfloat16", max_length=4096) > total(dtype="bfloat16", max_length=2048)


def test_known_sizes_are_plausible():
    # Full fine-tuning of 8 billion parameters with ZeRO-2 on eight 80 GB GPUs is common practice; on one it is not.
    config = config_json(LLAMA_8B)
    fits = estimate_memory(config, max_length=8192, per_device_batch=1, zero_stage=2, num_processes=8)
    alone = estimate_memory(config, max_length=8192, per_device_batch=1, zero_stage=2, num_processes=1)
    assert fits.total < 60e9 and alone.total > 80e9
    # QLoRA of the same model is done on one 24 GB GPU.
    assert estimate_memory(config, dtype="bfloat16", use_peft=True, quantised=4, per_device_batch=4).total < 24e9


def test_models_that_cannot_be_sized_are_refused():
    with pytest.raises(UsageError, match="gpt2 is not: its config has no hidden_size"):
        ModelShape.from_config({"model_type": "gpt2", "n_embd": 768})
    experts = {**config_json(LLAMA_8B), "model_type": "mixtral", "num_local_experts": 8}
    with pytest.raises(UsageError, match="num_local_experts"):
        ModelShape.from_config(experts)
    with pytest.raises(UsageError, match="Unknown dtype 'bf16'"):
        estimate_memory(config_json(LLAMA_8B), dtype="bf16")


@pytest.mark.parametrize("rows", [1, 7, 64, 100])
@pytest.mark.parametrize(("per_device", "accumulation"), [(1, 1), (2, 4), (3, 5)])
@pytest.mark.parametrize("epochs", [1, 2.5])
@pytest.mark.parametrize("drop_last", [False, True])
def test_steps_equal_those_of_the_trainer(rows, per_device, accumulation, epochs, drop_last):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=epochs,
        dataloader_drop_last=drop_last,
        use_cpu=True,
        report_to="none",
    )
    trainer = Trainer(torch.nn.Linear(1, 1), arguments, train_dataset=[{"x": 0}] * rows)
    steps = num_update_steps(rows, per_device, accumulation, 1, epochs, drop_last=drop_last)
    if steps == 0:
        with pytest.raises(ValueError, match="max_steps must be set"):
            trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())
    else:
        assert trainer.set_initial_training_values(arguments, trainer.get_train_dataloader())[-1] == steps


@pytest.mark.parametrize(("rows", "processes"), [(64, 2), (65, 2), (100, 3), (7, 4)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_micro_batches_of_several_processes_equal_those_of_accelerate(rows, processes, drop_last):
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    sampler = BatchSampler(SequentialSampler(range(rows)), 4, drop_last)
    shard = BatchSamplerShard(sampler, processes, 0)
    assert num_update_steps(rows, 4, 1, processes, drop_last=drop_last) == len(shard)


def test_effective_batch_and_max_steps():
    assert effective_batch(4, 4, 8) == 128
    assert num_update_steps(12_000, 4, 4, 8, epochs=4) == 376
    assert num_update_steps(12_000, 4, 4, 8, epochs=4, max_steps=10) == 10


def test_plan_of_a_recipe_reads_its_keys():
    config = config_json(LLAMA_8B)
    recipe = {"dtype": "bfloat16", "max_length": 2048, "per_device_train_batch_size": 4, "optim": "adamw_torch"}
    launch = launch_plan("zero2")
    settings = {"dtype": "bfloat16", "max_length": 2048, "per_device_batch": 4, "zero_stage": 2, "num_processes": 8}
    assert plan_memory(recipe, config, launch) == estimate_memory(config, **settings)
    without = plan_memory({**recipe, "gradient_checkpointing": False}, config, launch)
    assert without == estimate_memory(config, **settings, gradient_checkpointing=False)
    fsdp = plan_memory(recipe, config, launch_plan("fsdp2", num_processes=4))
    assert fsdp == estimate_memory(config, **{**settings, "zero_stage": 3, "num_processes": 4})
    alone = plan_memory({"dtype": "bfloat16"}, config, None)
    assert alone == estimate_memory(config, dtype="bfloat16")
    adapters = plan_memory({**recipe, "use_peft": True, "lora_r": 4, "load_in_4bit": True}, config, launch)
    assert adapters == estimate_memory(config, **settings, use_peft=True, lora_r=4, quantised=4)


def test_description_adds_up():
    estimate = estimate_memory(config_json(QWEN_MATH_1_5B), dtype="bfloat16")
    lines = describe(estimate)
    assert lines[0].split() == ["parameters", "1.544", "billion,", "trained", "100.00%"]
    values = [float(line.split()[-2]) for line in lines[1:]]
    assert sum(values[:-1]) == pytest.approx(values[-1], abs=0.05)
    assert len({line.index("GiB") for line in lines[1:]}) == 1


def test_importing_the_plan_imports_no_torch():
    code = "import sys, trl_math.plan; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
