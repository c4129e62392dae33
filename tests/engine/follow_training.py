"""A real engine of vLLM beside real training of the 135M model, in a process of its own: prints what it found as JSON.

Greedy tokens of the engine are compared with `transformers.generate` of the model that it follows, in float32.
"""

import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_math.errors import ParityError
from trl_math.generation.live import LiveEngines
from trl_math.generation.parity import compare
from trl_math.models import resolve_model
from trl_math.records import Sampling


FOLDER = resolve_model("embedded:smollm2-135m-instruct")
TOKENIZER = AutoTokenizer.from_pretrained(FOLDER)
TEXTS = ("What is 17 + 25?", "The capital of France is", "Let x be a number such that 2x = 10.")
PROMPTS = [TOKENIZER(text)["input_ids"] for text in TEXTS]
GREEDY = Sampling(temperature=0.0, max_tokens=16)


def greedy(model):
    """Return what `generate` of transformers says, one prompt at a time."""
    model.eval()
    tokens = []
    for ids in PROMPTS:
        output = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=16, do_sample=False
        )
        tokens.append(output[0, len(ids) :].tolist())
    return tokens


def said(engines):
    return [list(samples[0].token_ids) for samples in engines.generate(PROMPTS, GREEDY)]


def train(model, steps=3, learning_rate=2e-4):
    """Take real optimiser steps on products."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    model.train()
    for step in range(steps):
        texts = [f"{a} * {step + 2} = {a * (step + 2)}" for a in range(2, 6)]
        batch = TOKENIZER(texts, return_tensors="pt", padding=True)
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def full(results):
    engines = LiveEngines(FOLDER, TOKENIZER, dtype="float32", max_model_len=256, max_lora_rank=8, max_num_seqs=16)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    results["before"] = [said(engines), greedy(model)]
    train(model)
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    parity = engines.follow(model)
    samples = engines.generate(PROMPTS, Sampling(num_samples=3, max_tokens=8, logprobs=True))
    results["random_state_is_training's"] = torch.rand(3).tolist() == expected
    results["after"] = [said(engines), greedy(model)]
    results["parity"] = [parity.mean_difference, parity.largest_difference, parity.largest_gap]
    flat = [(ids, sample) for ids, row in zip(PROMPTS, samples, strict=True) for sample in row]
    sampled = compare(model, [ids for ids, _ in flat], [sample for _, sample in flat])
    results["sampled_logprob_difference"] = sampled.largest_difference
    results["sampled_ids_end_or_fill"] = all(
        s.num_tokens == len(s.token_ids) == len(s.logprobs) and (s.finish_reason == "stop" or s.num_tokens == 8)
        for _, s in flat
    )
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight.mul_(1.5)
    found = {}
    for action in ("fail", "warn"):
        try:
            found[action] = engines._probe(model, action).holds
        except ParityError as error:
            found[action] = str(error)
    results["stale_engine"] = found
    return engines, model


def lora(results, engines, model):
    config = LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    base = {name: p.detach().clone() for name, p in tuned.named_parameters() if "lora_" not in name}
    train(tuned, learning_rate=2e-3)
    for _ in range(3):
        engines.follow(tuned)
    results["lora_merged"] = [said(engines), greedy(tuned)]
    results["base_untouched"] = all(torch.equal(p, base[n]) for n, p in tuned.named_parameters() if n in base)
    # The same engine, whose base weights were exchanged, now through adapters; and back.
    pairs = []
    for exchange in ("adapter", "adapter", "merged"):
        engines.follow(tuned, exchange)
        pairs.append([said(engines), greedy(tuned)])
        train(tuned, steps=2, learning_rate=2e-3)
    results["lora_adapter"] = pairs


def main():
    torch.manual_seed(0)
    results = {}
    engines, model = full(results)
    lora(results, engines, model)
    engines.close()
    Path(sys.argv[1]).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
