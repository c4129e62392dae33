"""Kill `trl-math generate` fifty times at random moments and start it again; writes what became of its samples.

Everything is imported once and each start is a fork, so that fifty starts take seconds. The engine is the scripted
one, slowed down: what is killed here is what stands around an engine.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import torch

import trl_math.generation.engines as engines
from trl_math.cli.main import main
from trl_math.generation.scripted import ScriptedBackend, boxed_digit


NUM_KILLS, NUM_PROBLEMS, NUM_SAMPLES = 50, 12, 600
FOLDER = Path("run")


def long_answer(request):
    """Lines of some kilobytes take longer to write than short ones."""
    return boxed_digit(request) + " because it is so" * (request.seed % 400)


def slow_engine(arguments, checkpoint, seed):
    return ScriptedBackend(checkpoint.tokenizer, long_answer, delay=0.001, reverse=True)


def start():
    """Start the command in a process of its own and return its id."""
    pid = os.fork()
    if pid:
        return pid
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os._exit(generate(FOLDER, NUM_SAMPLES))


def generate(folder, num_samples):
    words = ["generate", "--model", "embedded:tiny", "--data", "problems.jsonl", "--backend", "scripted"]
    return main([*words, "--num-samples", str(num_samples), "--output", str(folder), "--max-tokens", "9000"])


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def num_lines():
    file = FOLDER / "completions.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def kill(generator):
    """Start the command, kill it at a random moment, and return how many samples were there then."""
    pid = start()
    time.sleep(generator.uniform(0, 0.8))
    os.kill(pid, signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    return num_lines()


def outcome(counts_after_kills):
    text = (FOLDER / "completions.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    keys = Counter((row["problem_id"], row["sample_index"]) for row in rows)
    return {
        "after_kills": counts_after_kills,
        "num_rows": len(rows),
        "is_each_once": set(keys.values()) == {1} and len(keys) == NUM_PROBLEMS * NUM_SAMPLES,
        "ends_whole": text.endswith("\n"),
        "samplers": sorted({row["sampler"] for row in rows}),
        "sampler": json.loads((FOLDER / "run.json").read_text())["sampler"],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    engines._MAKERS["scripted"] = slow_engine
    problems = [{"problem": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(NUM_PROBLEMS)]
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    assert generate("warm", 1) == 0  # imports what a start imports
    generator = random.Random(int(sys.argv[1]))
    counts = [kill(generator) for _ in range(NUM_KILLS)]
    assert exit_code(start()) == 0
    Path("found.json").write_text(json.dumps(outcome(counts)))
