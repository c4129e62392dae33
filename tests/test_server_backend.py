"""Sampling from servers: what is sent, what answers mean, what is refused, and what is not shown."""

import contextlib
import threading

import pytest
from scripted_server import CHAT, MODEL, REQUESTS, ScriptedServer, answer, draw, error, free_port, once, texts_of
from scripted_server import quick as quick

from trl_math.errors import UsageError
from trl_math.generation import Request
from trl_math.generation.backend import too_long
from trl_math.generation.server import ServerBackend
from trl_math.generation.server_discovery import full_url, without_secrets
from trl_math.models import tiny_tokenizer
from trl_math.records import Sampling


HOSTED = {"id": "m", "object": "model", "owned_by": "someone"}
SGLANG = MODEL | {"owned_by": "sglang"}


# What is sent.

WARM = Sampling(
    temperature=0.7, top_p=0.9, top_k=20, min_p=0.1, repetition_penalty=1.2, max_tokens=10, stop=("\n", "Q:"), seed=3
)
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_setting_is_sent(engine):
    with ScriptedServer(models=[MODEL | {"owned_by": engine}]) as server:
        backend = ServerBackend(server.url, "m", concurrency=1)
        draw(backend, REQUESTS[:1], WARM)
        draw(backend, REQUESTS[1:2], Sampling(max_tokens=200, temperature=0, logprobs=False))
    common = {"model": "m", "n": 1, "stream": False, "return_token_ids": True}
    assert server.bodies[0] == common | {
        "prompt": [0, 5, 6],
        "max_tokens": 10,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "stop": ["\n", "Q:"],
        "seed": 100,
    }
    assert server.bodies[1] == common | NEUTRAL | {
        "prompt": [1, 5, 6],
        "max_tokens": 97,  # what the context leaves
        "temperature": 0.0,
        "top_p": 1.0,
        "stop": None,
        "seed": 101,
    }
    assert set(server.paths) == {"/v1/completions"}


def test_other_servers_get_only_what_they_must(caplog):
    asked = [Request([1, 2], prompt="a text"), Request([3, 4], prompt=[{"role": "user", "content": "?"}])]
    with ScriptedServer(models=[HOSTED]) as server:
        backend = ServerBackend(server.url, "m", request_seeds=False, concurrency=1)
        draw(backend, asked)
        assert not caplog.records
        draw(backend, asked[:1], Sampling(top_k=5))
    assert server.bodies[0] == {
        "model": "m",
        "n": 1,
        "stream": False,
        "prompt": "a text",
        "max_tokens": 10,
        "temperature": 1.0,
        "top_p": 1.0,
        "stop": None,
    }
    assert server.bodies[1]["prompt"] == [3, 4]
    assert server.bodies[2]["top_k"] == 5 and "min_p" not in server.bodies[2]
    assert "if it does not know top_k" in caplog.text
    assert backend.context_length is None


def test_a_setting_that_a_server_refuses_is_an_error():
    def script(number, body):
        return error(400, "Unrecognized request argument: min_p") if "min_p" in body else answer(body)

    with ScriptedServer(script, models=[HOSTED]) as server:
        backend = ServerBackend(server.url, "m")
        draw(backend)
        with pytest.raises(UsageError, match=r"refuses the request \(400\): Unrecognized request argument: min_p"):
            draw(backend, REQUESTS, Sampling(min_p=0.1))


def test_chat_sends_messages():
    with ScriptedServer() as server:
        backend = ServerBackend(server.url.removesuffix("/v1"), "m", endpoint="chat", concurrency=1)
        samples = draw(backend, CHAT)
        assert [sample.text for sample in samples] == texts_of(CHAT)
        assert server.bodies[0]["messages"] == CHAT[0].prompt
        assert "prompt" not in server.bodies[0]
        assert set(server.paths) == {"/v1/chat/completions"}
        with pytest.raises(UsageError, match="use endpoint completions for plain prompts"):
            backend.stream([Request([1], prompt="plain")], Sampling())
    with pytest.raises(UsageError, match=r"Unknown endpoint 'chats'\. Did you mean 'chat'"):
        ServerBackend(server.url, "m", endpoint="chats")


def test_a_server_that_wants_the_newer_name_for_max_tokens_gets_it():
    def script(number, body):
        if "max_tokens" in body:
            return error(400, "Use 'max_completion_tokens'.", code="unsupported_parameter", param="max_tokens")
        return answer(body)

    with ScriptedServer(script, models=[HOSTED]) as server:
        draw(ServerBackend(server.url, "m", endpoint="chat", concurrency=3), CHAT)
    assert server.bodies[-1]["max_completion_tokens"] == 10


def test_the_key_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    with ScriptedServer() as server:
        draw(ServerBackend(server.url, "m", api_key="given"), REQUESTS[:1])
        draw(ServerBackend(server.url, "m"), REQUESTS[:1])
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer given", "Bearer from-environment"]


# What answers mean.


def test_a_sample_has_its_tokens():
    def script(number, body):
        logprobs = {"token_logprobs": [-1.0, -0.5, -2.0]}
        return answer(body, "text", logprobs=logprobs, token_ids=[10, 11, 2], finish_reason="length")

    with ScriptedServer(script) as server:
        (sample,) = draw(ServerBackend(server.url, "m"), REQUESTS[:1], Sampling(logprobs=True))
    assert sample.text == "text" and sample.token_ids == (10, 11, 2) and sample.num_tokens == 3
    assert sample.finish_reason == "length" and sample.logprob == -3.5
    assert server.bodies[0]["logprobs"] == 0


def test_without_token_ids_the_number_is_the_servers():
    with ScriptedServer(models=[HOSTED]) as server:
        (sample,) = draw(ServerBackend(server.url, "m"), REQUESTS[:1])
    assert sample.token_ids is None and sample.num_tokens == 3 and sample.logprobs is None


def test_logprobs_of_a_chat():
    content = [{"token": "a", "logprob": -1.5}] * 3
    with ScriptedServer(lambda number, body: answer(body, logprobs={"content": content})) as server:
        sample = draw(ServerBackend(server.url, "m", endpoint="chat"), CHAT, Sampling(logprobs=True))[0]
    assert sample.logprobs == (-1.5, -1.5, -1.5)
    assert server.bodies[0]["logprobs"] is True


@pytest.mark.parametrize("told", [None, {"token_logprobs": None}, {"token_logprobs": [-1.0, None, -1.0]}])
def test_logprobs_that_are_not_told(told):
    with ScriptedServer(lambda number, body: answer(body, logprobs=told)) as server:
        backend = ServerBackend(server.url, "m")
        with pytest.raises(UsageError, match="tells no log-probabilities"):
            draw(backend, sampling=Sampling(logprobs=True))


def test_logprobs_for_another_number_of_tokens():
    with ScriptedServer(lambda number, body: answer(body, logprobs={"token_logprobs": [-1.0]})) as server:
        backend = ServerBackend(server.url, "m")
        with pytest.raises(UsageError, match="tells 1 log-probabilities for 3 tokens"):
            draw(backend, sampling=Sampling(logprobs=True))


def test_sglang_is_not_asked_for_logprobs_at_another_temperature():
    with ScriptedServer(models=[SGLANG]) as server:
        backend = ServerBackend(server.url, "m")
        with pytest.raises(UsageError, match=r"not the model's own.*got 0.6 and 1"):
            backend.stream(REQUESTS, Sampling(temperature=0.6, logprobs=True))
        backend.stream(REQUESTS, Sampling(logprobs=True))


def test_text_is_decoded_as_other_backends_do_it():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("2 é").input_ids
    choices = {
        0: {"token_ids": ids[:-1], "finish_reason": "length"},  # half a character at the end
        1: {"token_ids": [*ids, tokenizer.eos_token_id], "stop_reason": None},
        2: {"token_ids": tokenizer("yes\nno").input_ids, "stop_reason": "\n"},
        3: {"token_ids": tokenizer("yes!").input_ids, "matched_stop": tokenizer("!").input_ids[0]},
        4: {"token_ids": tokenizer("yes").input_ids, "stop_reason": "not there"},
    }
    with ScriptedServer(lambda number, body: answer(body, "theirs", **choices[body["prompt"][0]])) as server:
        samples = draw(ServerBackend(server.url, "m", tokenizer=tokenizer), REQUESTS[:5], Sampling(stop=("\n",)))
    assert [sample.text for sample in samples] == ["2 \ufffd", "2 é", "yes", "yes", "theirs"]


def test_a_sample_that_somebody_else_cut_is_not_called_finished(caplog):
    with ScriptedServer(lambda number, body: answer(body, finish_reason="content_filter")) as server:
        assert {sample.finish_reason for sample in draw(ServerBackend(server.url, "m"))} == {"length"}
    assert caplog.text.count("ended samples with 'content_filter'") == 1


def test_reasoning_that_is_kept_apart_is_warned_of(caplog):
    def script(number, body):
        return answer(body, message={"content": None, "reasoning_content": "Hm."})

    with ScriptedServer(script) as server:
        assert {sample.text for sample in draw(ServerBackend(server.url, "m", endpoint="chat"), CHAT)} == {""}
    assert caplog.text.count("keeps the reasoning apart") == 1


# Prompts that do not fit.

VLLM_SAYS = (
    "This model's maximum context length is 100 tokens. However, you requested {} output tokens and your prompt "
    "contains at least {} input tokens."
)


@pytest.mark.parametrize("refusal", [{"message": VLLM_SAYS}, {"message": "No.", "code": "context_length_exceeded"}])
def test_a_prompt_that_is_too_long_is_no_error(refusal):
    def script(number, body):
        return (400, {"error": refusal}, {}) if body["prompt"][0] == 3 else answer(body)

    with ScriptedServer(script, models=[HOSTED]) as server:
        samples = draw(ServerBackend(server.url, "m"))
    assert samples[3] == too_long()
    assert [s.text for s in samples[:3] + samples[4:]] == texts_of(REQUESTS[:3] + REQUESTS[4:])


def test_a_chat_is_cut_at_the_end_of_the_context():
    """With the server's template only the server can count the prompt: 40 tokens here, and too many for the third."""

    def script(number, body):
        num_tokens = 40 if "2?" not in str(body) else 100
        if num_tokens + body["max_tokens"] > 100:
            return error(400, VLLM_SAYS.format(body["max_tokens"], 101 - body["max_tokens"]))
        return answer(body, f"at most {body['max_tokens']}") | {"usage": {"prompt_tokens": 40, "completion_tokens": 1}}

    with ScriptedServer(script) as server:
        samples = draw(ServerBackend(server.url, "m", endpoint="chat"), CHAT, Sampling(max_tokens=90))
    assert [sample.text for sample in samples] == ["at most 60", "at most 60", ""]
    assert samples[2].finish_reason == "prompt_too_long"


# Refusals.


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (error(400, "top_p is\nnot right"), r"refuses the request \(400\): top_p is not right$"),
        (error(422, "no such field"), r"refuses the request \(422\): no such field"),
        ((400, {"object": "error", "message": "flat"}, {}), r"\(400\): flat"),
        ((400, "<html>no</html>", {}), r"\(400\): <html>no</html>"),
        (error(401, "who?"), r"does not accept the API key \(401 who\?\): set OPENAI_API_KEY"),
        (error(403, "no"), "set OPENAI_API_KEY"),
        (error(404, "no such path"), "completions does not answer for 'm'.*choose another endpoint"),
        (error(429, "pay first", code="insufficient_quota"), r"\(429\): pay first"),
        ((301, {}, {"Location": "elsewhere"}), r"\(301\)"),
    ],
)
def test_what_is_refused_is_not_tried_again(refusal, message):
    with ScriptedServer(lambda number, body: refusal) as server:
        with pytest.raises(UsageError, match=message) as e:
            draw(ServerBackend(server.url, "m", concurrency=1))
        assert len(server.bodies) == 1 and server.url in str(e.value)


def test_another_model_than_asked_for():
    models = [MODEL, MODEL | {"id": "Qwen/Qwen3-8B"}]
    message = r"Did you mean 'Qwen/Qwen3-8B'\? It serves: m, Qwen/Qwen3-8B\.$"
    with ScriptedServer(models=models) as server, pytest.raises(UsageError, match=message):
        ServerBackend(server.url, "Qwen/Qwen3-8b")


def test_a_server_that_restarts_with_another_model():
    with ScriptedServer(once(error(404, "The model `m` does not exist."))) as server:
        backend = ServerBackend(server.url, "m", concurrency=1)
        server.models = [MODEL | {"id": "other"}]
        with pytest.raises(UsageError, match=r"does not serve 'm'\. It serves: other\.$"):
            draw(backend)


def test_a_server_that_does_not_list_its_models(caplog):
    with ScriptedServer(models=404) as server:
        draw(ServerBackend(server.url, "m"))
    assert "does not list its models" in caplog.text


def test_a_server_that_is_not_there_or_refuses_the_key():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UsageError, match=f"{url}/v1 cannot be reached .*is the server running"):
        ServerBackend(url, "m")
    with ScriptedServer(models=401) as server, pytest.raises(UsageError, match="set OPENAI_API_KEY"):
        ServerBackend(server.url, "m")
    with ScriptedServer(models=503) as server, pytest.raises(UsageError, match="it answers 503"):
        ServerBackend(server.url, "m")


def test_a_server_that_is_starting_is_waited_for():
    port = free_port()
    with contextlib.ExitStack() as stack:
        threading.Timer(0.2, lambda: stack.enter_context(ScriptedServer(port=port))).start()
        draw(ServerBackend(f"http://127.0.0.1:{port}", "m", startup_patience=20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"urls": []}, "at least one address"),
        ({"urls": "localhost:8000"}, "'localhost:8000' is no server address: give http://host:port/v1"),
        ({"urls": "http://h/v1?key=secret"}, "'http://h/v1' is no server address"),
        ({"urls": ["http://h:1", "http://h:1/v1/"]}, "http://h:1/v1 is given twice"),
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"patience": -1}, "patience must be 0"),
    ],
)
def test_settings_that_make_no_sense(arguments, message):
    with pytest.raises(UsageError, match=message):
        ServerBackend(**({"urls": "http://127.0.0.1:1", "model": "m"} | arguments))


def test_addresses():
    for given, full in {
        "http://h:8000": "http://h:8000/v1",
        "http://h:8000/": "http://h:8000/v1",
        "http://h:8000/v1/": "http://h:8000/v1",
        "https://api.x.com/openai": "https://api.x.com/openai/v1",
        "https://api.x.com/v1beta/openai/": "https://api.x.com/v1beta/openai",
    }.items():
        assert full_url(given) == full


# Secrets and facts.


def test_secrets_are_not_shown(caplog):
    def script(number, body):
        return error(400 if number else 500, "Incorrect API key provided: sk-secret for pass%word")

    with ScriptedServer(script) as server:
        url = server.url.replace("//", "//me:pass%25word@")
        backend = ServerBackend(url, "m", api_key="sk-secret", concurrency=1)
        assert backend.facts()["servers"][0]["url"] == without_secrets(url) == server.url.replace("//", "//***@")
        with pytest.raises(UsageError, match="provided:") as e:
            draw(backend)
    with pytest.raises(UsageError, match="cannot be reached") as unreachable:
        ServerBackend(f"http://me:pass%25word@127.0.0.1:{free_port()}", "m", api_key="sk-secret")
    shown = f"{e.value} {unreachable.value} {caplog.text} {backend.facts()}"
    assert "Leaving it alone" in shown
    for secret in ("sk-secret", "pass%25word", "pass%word"):
        assert secret not in shown


def test_facts():
    adapter = {"id": "lora", "owned_by": "vllm", "max_model_len": None, "parent": "m"}
    with ScriptedServer(models=[MODEL, adapter]) as server, ScriptedServer(models=[HOSTED | {"id": "lora"}]) as hosted:
        backend = ServerBackend([server.url, hosted.url], "lora", context_length=4096)
        assert backend.context_length == 100 and not backend.fits([0] * 100)
        assert backend.facts() == {
            "engine": "server",
            "endpoint": "completions",
            "request_seeds": True,
            "servers": [
                {"url": server.url, "engine": "vllm", "version": "0.30.0"},
                {"url": hosted.url, "engine": "someone", "version": None},
            ],
        }
        assert ServerBackend(hosted.url, "lora", context_length=4096).context_length == 4096
