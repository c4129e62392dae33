"""On a GPU: an engine that sleeps beside a trainer, takes over its weights and says what the model says."""

import pytest
import torch

from trl_math.optional import is_installed


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed"),
]


def test_engine_and_trainer_share_a_gpu():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trl_math.generation import LiveEngines
    from trl_math.models import resolve_model
    from trl_math.records import Sampling

    folder = resolve_model("embedded:smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).cuda()
    free_before, _ = torch.cuda.mem_get_info()
    engines = LiveEngines(folder, tokenizer, dtype="bfloat16", max_model_len=512, gpu_memory_utilization=0.3)
    free_asleep, total = torch.cuda.mem_get_info()
    assert free_before - free_asleep < 0.1 * total, "an engine that sleeps gives its memory back"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * parameter.std() * torch.randn_like(parameter))
    assert engines.follow(model).holds
    samples = engines.generate([tokenizer("What is 17 + 25?")["input_ids"]], Sampling(num_samples=4, max_tokens=16))
    assert len(samples[0]) == 4
    engines.close()
