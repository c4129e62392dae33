"""Training in several processes, started by accelerate, with engines that follow it: writes what the engines said.

The parent reads the model that was saved and asks `transformers.generate` for the same.
"""

import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

import torch.distributed as dist
from helpers import make_trainer
from peft import LoraConfig
from transformers import AutoTokenizer

from trl_math.generation.live import EngineLayout, LiveEngines
from trl_math.models import resolve_model
from trl_math.records import Sampling


def main() -> None:
    request = json.loads(sys.argv[1])
    folder = resolve_model(request["model"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if request["exchange"] is not None:
        config = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        request["settings"]["peft_config"] = config
    settings = {"model_init_kwargs": {"dtype": "float32"}, **request["settings"]}
    trainer = make_trainer(request["output_dir"], model=folder, processing_class=tokenizer, **settings)
    trainer.train()
    rank = dist.get_rank()
    engines = LiveEngines(
        folder,
        tokenizer,
        layout=EngineLayout(**request["layout"]),
        dtype="float32",
        max_model_len=256,
        max_num_seqs=8,
        max_lora_rank=8 if request["exchange"] == "adapter" else None,
    )
    parity = engines.follow(trainer.model, request["exchange"] or "merged")
    # Processes bring different numbers of prompts: one brings none.
    texts = request["prompts"] if rank == 0 else []
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    completions = engines.generate(prompts, Sampling(temperature=0.0, max_tokens=request["max_tokens"]))
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, [len(completions), parity.holds])
    trainer.save_model(request["output_dir"])
    if rank == 0:
        result = {
            "tokens": [list(samples[0].token_ids) for samples in completions],
            "everyone": everyone,
            "distributed": str(trainer.accelerator.distributed_type),
            "cut_up": any(hasattr(p, "ds_id") for p in trainer.model.parameters()),
        }
        Path(request["output_dir"], "result.json").write_text(json.dumps(result))
    engines.close()
    trainer.end()


if __name__ == "__main__":
    main()
