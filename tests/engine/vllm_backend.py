"""One engine of vLLM on the tiny model, asked for everything that a backend promises; writes what it found as JSON."""

import json
import sys
from itertools import islice
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trl_math.errors import UsageError
from trl_math.generation.backend import Request
from trl_math.generation.checkpoint import open_checkpoint
from trl_math.generation.end_tokens import end_token_ids, read_generation_config
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.generation.vllm_engine import VLLMBackend
from trl_math.models.tiny import tiny_model, tiny_tokenizer
from trl_math.records import Sampling


CONTEXT = 96
CHECKPOINT = open_checkpoint("embedded:tiny")
PROMPTS = [CHECKPOINT.tokenizer(f"{'What is ' * (i % 3)}{i} + {i}?")["input_ids"] for i in range(6)]
GREEDY = Sampling(temperature=0.0, max_tokens=24)


def tokens(backend, sampling):
    return [[list(s.token_ids) for s in samples] for samples in backend.generate(PROMPTS, sampling)]


def describe(backend, sampling):
    return [
        [[s.text, list(s.token_ids), s.finish_reason, s.num_tokens] for s in samples]
        for samples in backend.generate(PROMPTS, sampling)
    ]


def save_adapter(folder, model):
    torch.manual_seed(1)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(folder)
    return tuned


def main():
    out = Path(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT.folder, dtype=torch.float32)
    tuned = save_adapter(out / "adapter", tiny_model())
    other = TransformersBackend(model, CHECKPOINT.tokenizer)
    other.context_length = CONTEXT
    engine = VLLMBackend(
        CHECKPOINT.folder,
        CHECKPOINT.tokenizer,
        dtype="float32",
        max_model_len=CONTEXT,
        max_num_seqs=4,
        max_lora_rank=8,
        seed=7,
    )
    found = {"context_length": engine.context_length, "window": engine._window}
    found["greedy"] = [describe(engine, GREEDY), describe(other, GREEDY)]
    whole = engine.generate(PROMPTS[:1], GREEDY)[0][0].text
    stop = next(c for c in whole[3:] if c.isascii() and c not in whole[:3])
    stopped = Sampling(temperature=0.0, max_tokens=24, stop=(stop,))
    found["stop"] = [describe(engine, stopped), describe(other, stopped)]
    penalised = Sampling(temperature=0.0, max_tokens=24, repetition_penalty=1.5)
    found["penalty"] = [describe(engine, penalised), describe(other, penalised)]
    chosen = Sampling(temperature=0.0, max_tokens=8, logprobs=True, choices=("1", "2", "7"))
    found["choices"] = [
        [[sample.text, sample.finish_reason, sample.logprob] for [sample] in backend.generate(PROMPTS, chosen)]
        for backend in (engine, other)
    ]
    found["top_k_1"] = [tokens(engine, Sampling(top_k=1, max_tokens=24)), tokens(engine, GREEDY)]
    # At the end of the context: one that fits by a token, one that does not.
    edge = [[50] * (CONTEXT - 1), [50] * CONTEXT, [50] * (CONTEXT - 5)]
    found["edge"] = [
        [s.finish_reason, s.num_tokens] for [s] in engine.generate(edge, Sampling(temperature=0.0, max_tokens=24))
    ]
    # A consumer that stops early leaves an engine that works.
    requests = [Request(ids) for ids in PROMPTS * 5]
    first = list(islice(engine.stream(requests, Sampling(max_tokens=30)), 2))
    found["early"] = [len(first), engine.llm.llm_engine.get_num_unfinished_requests(), tokens(engine, GREEDY)]
    sampled = Sampling(num_samples=8, max_tokens=12)
    found["sampled"] = [tokens(engine, sampled), tokens(engine, sampled)]
    indices = sorted(index for index, _ in engine.stream(requests, Sampling(max_tokens=3)))
    found["indices"] = indices == list(range(len(requests)))
    narrow = Sampling(num_samples=600, max_tokens=1, min_p=0.25, top_p=0.6, temperature=0.15)
    other.batch_size = 600
    found["truncated"] = [[s.token_ids[0] for s in b.generate(PROMPTS[:1], narrow)[0]] for b in (engine, other)]
    try:
        list(engine.stream([Request(PROMPTS[0])], Sampling(temperature=0.001)))
    except UsageError as error:
        found["cold"] = str(error)
    # A tokenizer with another end token: the first that the model says.
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(engine.generate(PROMPTS[:1], GREEDY)[0][0].token_ids[1])
    told, engine.end_ids = engine.end_ids, end_token_ids(tokenizer, read_generation_config(CHECKPOINT.folder))
    found["end_ids"] = engine.end_ids
    found["other_end"] = [s.finish_reason for [s] in engine.generate(PROMPTS[:1], GREEDY)]
    engine.end_ids = told
    try:
        list(engine.stream([Request([])], GREEDY))
    except UsageError as error:
        found["empty_prompt"] = str(error)
    engine.load_adapter(out / "adapter")
    through_adapter = tokens(engine, GREEDY)
    other = TransformersBackend(tuned, CHECKPOINT.tokenizer)
    found["adapter"] = [through_adapter, tokens(other, GREEDY)]
    engine.remove_adapter()
    found["without_adapter"] = tokens(engine, GREEDY)
    # The weights of a checkpoint folder.
    changed = tiny_model(seed=3)
    changed.save_pretrained(out / "changed")
    CHECKPOINT.tokenizer.save_pretrained(out / "changed")
    engine.load_checkpoint(out / "changed")
    found["checkpoint"] = [tokens(engine, GREEDY), tokens(TransformersBackend(changed, CHECKPOINT.tokenizer), GREEDY)]
    found["facts"] = engine.facts()
    engine.close()
    (out / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
