"""What generation costs: `python benchmarks/generation.py`. Medians of interleaved rounds in one process.

1. Our pipeline (requests one by one, decoding, the store on disk) against a bare `LLM.generate` of vLLM with the same
   engine, prompts and sampling: the ratio of generated tokens per second.
2. vLLM against transformers, through the same pipeline.
3. How long the engine takes to take over all weights of a model, and what the parity probe adds.

`--model` takes another model than the embedded one, `--quick` a tiny one and two rounds. The last line is the figure.
"""

import argparse
import logging
import statistics
import tempfile
import time

import torch
from sft_step import median_interval
from transformers import AutoModelForCausalLM

from trl_math.generation.checkpoint import Checkpoint, open_checkpoint
from trl_math.generation.parity import compare, probe
from trl_math.generation.progress import Progress
from trl_math.generation.run import Prompt, fill, missing_samples
from trl_math.generation.store import CompletionStore
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.generation.vllm_engine import VLLMBackend, vllm_version
from trl_math.generation.weights import named_weights
from trl_math.records import Sampling


def make_prompts(checkpoint: Checkpoint, number: int) -> list[Prompt]:
    """Return questions of a few dozen tokens."""
    texts = [
        f"Question: A shop sells {i + 3} boxes of {2 * i + 5} pens for {i + 1} dollars a pen, and gives back a tenth "
        "of the price. How many dollars does it keep?\nAnswer:"
        for i in range(number)
    ]
    return [Prompt(f"shop/{i}", text, checkpoint.tokenizer(text)["input_ids"]) for i, text in enumerate(texts)]


def tokens_per_second(backend, prompts: list[Prompt], sampling: Sampling) -> float:
    """Fill a new store and return the rate, writing included."""
    with tempfile.TemporaryDirectory() as folder, CompletionStore(folder, {}, sampler="benchmark") as store:
        missing = missing_samples(store, prompts, sampling.num_samples)
        start = time.perf_counter()
        outcome = fill(store, backend, missing, sampling, Progress(len(missing)))
        return outcome.num_tokens / (time.perf_counter() - start)


def bare_tokens_per_second(backend: VLLMBackend, prompts: list[Prompt], sampling: Sampling) -> float:
    """Let `LLM.generate` draw the same, and return its rate."""
    from vllm import SamplingParams

    params = SamplingParams(n=sampling.num_samples, temperature=sampling.temperature, max_tokens=sampling.max_tokens)
    start = time.perf_counter()
    outputs = backend.llm.generate([{"prompt_token_ids": list(p.ids)} for p in prompts], params, use_tqdm=False)
    return sum(len(o.token_ids) for row in outputs for o in row.outputs) / (time.perf_counter() - start)


def pipeline_ratio(backend: VLLMBackend, prompts: list[Prompt], sampling: Sampling, rounds: int) -> list[float]:
    """Return ours over bare for each round; the order alternates, and the first round of each only warms up."""
    ratios = []
    for number in range(rounds + 1):
        backend.llm.reset_prefix_cache()
        measures = [tokens_per_second, bare_tokens_per_second]
        rates = {}
        for measure in measures if number % 2 else measures[::-1]:
            rates[measure] = measure(backend, prompts, sampling)
            backend.llm.reset_prefix_cache()
        ours, bare = (rates[measure] for measure in measures)
        print(
            f"  {'warm-up' if number == 0 else f'round {number}'}: ours {ours:7.0f}, bare {bare:7.0f} tokens/s",
            flush=True,
        )
        if number:
            ratios.append(ours / bare)
    return ratios


def exchange_seconds(backend: VLLMBackend, model, prompts: list[Prompt], repetitions: int) -> tuple[float, float]:
    """Return the median seconds of an exchange of weights, and of the parity probe after it."""
    exchange, probing = [], []
    ids = [prompt.ids for prompt in prompts[:3]]
    for _ in range(repetitions):
        start = time.perf_counter()
        backend.load_weights(named_weights(model))
        between = time.perf_counter()
        parity = compare(model, ids, probe(backend, ids), engine_dtype=backend.facts()["dtype"])
        exchange.append(between - start)
        probing.append(time.perf_counter() - between)
        assert parity.holds, parity
    return statistics.median(exchange), statistics.median(probing)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    if options.quick:
        options.model, options.prompts, options.samples, options.max_tokens = "embedded:tiny", 4, 2, 8
        options.rounds = 2
    logging.disable(logging.WARNING)
    checkpoint = open_checkpoint(options.model)
    prompts = make_prompts(checkpoint, options.prompts)
    sampling = Sampling(num_samples=options.samples, max_tokens=options.max_tokens)
    backend = VLLMBackend(
        checkpoint.folder,
        checkpoint.tokenizer,
        end_ids=checkpoint.end_ids,
        dtype=options.dtype,
        max_model_len=1024,
        follows_training=True,
        gpu_memory_utilization=0.5,
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{options.model} in {options.dtype}, {vllm_version()}, {device}")
    print(f"{options.prompts} prompts x {options.samples} samples of up to {options.max_tokens} tokens")
    ratio, low, high = median_interval(pipeline_ratio(backend, prompts, sampling, options.rounds))
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=getattr(torch, options.dtype))
    exchange, probing = exchange_seconds(backend, model, prompts, 2 if options.quick else 7)
    print(
        f"  exchange of {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M weights {exchange:.2f} s, "
        f"parity probe {probing:.2f} s"
    )
    slow = TransformersBackend(model.to("cuda" if torch.cuda.is_available() else "cpu"), checkpoint.tokenizer)
    rates = []
    for _ in range(1 if options.quick else 3):
        fast = tokens_per_second(backend, prompts, sampling)
        rates.append((fast, tokens_per_second(slow, prompts, sampling)))
        print(f"  vLLM {rates[-1][0]:7.0f}, transformers {rates[-1][1]:7.0f} tokens/s", flush=True)
    against = statistics.median(fast / other for fast, other in rates)
    backend.close()
    print(
        f"generation: {ratio:.3f}x of a bare LLM.generate ({low:.3f}..{high:.3f}; {options.rounds} rounds); "
        f"vLLM {against:.1f}x transformers; exchange {exchange:.2f} s, probe {probing:.2f} s; {device}"
    )


if __name__ == "__main__":
    main()
