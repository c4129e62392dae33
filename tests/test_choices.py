"""Samples that are one of some texts: what is drawn, how likely it is among them, and who cannot keep to them."""

import itertools
import logging
import math
from collections import Counter

import pytest
import torch
from scripted_server import REQUESTS as SERVER_REQUESTS
from scripted_server import ScriptedServer, answer, draw, quick

from trl_math.errors import UsageError
from trl_math.generation import model_logprobs
from trl_math.generation.arguments import GenerateArguments
from trl_math.generation.backend import Request
from trl_math.generation.choices import among_choices
from trl_math.generation.interpreter import Interpreter, InterpreterBackend
from trl_math.generation.scripted import ScriptedBackend
from trl_math.generation.server import ServerBackend
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.generation.two_stage import TwoStageBackend
from trl_math.models import tiny_model, tiny_t5, tiny_t5_tokenizer, tiny_tokenizer
from trl_math.records import Sampling


__all__ = ["quick"]  # a fixture for every test here

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(seed=1).eval()
CHOICES = ("Yes", "No", "Yellow", "12")  # of several tokens; two begin alike
PROMPTS = ["1+1=", "Is it?", "The same, said again and again:", "x"]
REQUESTS = [Request(TOKENIZER(prompt)["input_ids"], seed) for seed, prompt in enumerate(PROMPTS)]


def sampling(**settings):
    return Sampling(**{"temperature": 0.0, "max_tokens": 8, "logprobs": True, "choices": CHOICES, **settings})


def drawn(asked=None, requests=REQUESTS, model=MODEL, tokenizer=TOKENIZER, **settings):
    backend = TransformersBackend(model, tokenizer, **settings)
    return [sample for _, sample in sorted(backend.stream(requests, asked or sampling()), key=lambda one: one[0])]


def exact(prompt_ids, choices=CHOICES):
    """Return the log-probability of each choice behind a prompt, token by token, from full logits."""
    totals = []
    for choice in choices:
        ids = TOKENIZER(choice, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logprobs = MODEL(torch.tensor([[*prompt_ids, *ids]])).logits[0].double().log_softmax(-1)
        totals.append(sum(float(logprobs[len(prompt_ids) - 1 + place, token]) for place, token in enumerate(ids)))
    return totals


@pytest.mark.parametrize("choices", [CHOICES, ("1", "2", "7")], ids=["several tokens", "one token"])
@pytest.mark.parametrize("most_logits", [2**27, 1], ids=["at once", "one at a time"])
def test_the_likeliest_choice_and_its_share_are_exact(choices, most_logits, monkeypatch):
    monkeypatch.setattr(model_logprobs, "MAX_LOGITS", most_logits)
    for request, sample in zip(REQUESTS, drawn(sampling(choices=choices)), strict=True):
        totals = exact(request.prompt_ids, choices)
        best = max(range(len(choices)), key=totals.__getitem__)
        assert (sample.text, sample.finish_reason) == (choices[best], "stop")
        assert sample.logprob == pytest.approx(totals[best] - math.log(sum(map(math.exp, totals))), abs=1e-5)
        assert list(sample.token_ids) == TOKENIZER(sample.text, add_special_tokens=False)["input_ids"]
        assert len(sample.logprobs) == sample.num_tokens


def test_shares_of_all_choices_sum_to_one():
    options, totals = [[1], [2, 3], [2, 4, 5]], [-3.0, -1.0, -2.5]
    found = [among_choices(options, totals, place) for place in range(3)]
    assert sum(math.exp(sum(one)) for one in found) == pytest.approx(1)
    # The second and the third begin alike: so does their log-probability.
    assert found[1][0] == pytest.approx(found[2][0])
    assert math.exp(found[1][1]) == pytest.approx(1 / (1 + math.exp(-1.5)))
    assert found[2][2] == 0


def test_a_choice_is_the_same_in_any_batch_and_order():
    together, alone = drawn(), [drawn(requests=[request])[0] for request in REQUESTS]
    backwards = drawn(requests=REQUESTS[::-1], batch_size=3)[::-1]
    for one, other, third in zip(together, alone, backwards, strict=True):
        assert one.text == other.text == third.text
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5) == pytest.approx(third.logprob, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_draws_follow_the_shares_of_choices(temperature):
    """4,000 draws of one prompt: every share within five standard errors of its own."""
    number, asked = 4000, sampling(temperature=temperature, choices=("1", "2", "7"), logprobs=False)
    found = Counter(
        sample.text for sample in drawn(asked, [Request([5, 6], seed) for seed in range(number)], batch_size=500)
    )
    weights = [math.exp(total / temperature) for total in exact([5, 6], asked.choices)]
    for choice, weight in zip(asked.choices, weights, strict=True):
        share = weight / sum(weights)
        assert abs(found[choice] / number - share) < 5 * math.sqrt(share * (1 - share) / number), choice


def test_an_encoder_decoder_chooses_too():
    tokenizer = tiny_t5_tokenizer()
    model = tiny_t5(tokenizer, seed=1, initializer_factor=2.0).eval()
    requests = [Request(tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    found = drawn(sampling(choices=("1", "2")), requests, model, tokenizer)
    assert {sample.text for sample in found} <= {"1", "2"} and all(sample.logprob <= 0 for sample in found)
    assert [sample.text for sample in found] == [
        drawn(sampling(choices=("1", "2")), [request], model, tokenizer)[0].text for request in requests
    ]


def test_a_prompt_that_leaves_no_room_for_the_longest_choice():
    backend = TransformersBackend(MODEL, TOKENIZER)
    longest = max(len(TOKENIZER(choice, add_special_tokens=False)["input_ids"]) for choice in CHOICES)
    backend.context_length = 40
    requests = [Request([7] * (40 - longest)), Request([7] * (41 - longest))]
    reasons = [sample.finish_reason for _, sample in sorted(backend.stream(requests, sampling()))]
    assert reasons == ["stop", "prompt_too_long"]


def test_the_model_is_left_as_it_was():
    model = tiny_model(seed=2).train()
    drawn(model=model)
    assert model.training


@pytest.mark.parametrize(
    "choices",
    [("Yes",), ("Yes", "Yes"), ("Yes", "Yes!"), ("", "No"), ("b", "a", "ab")],
    ids=lambda choices: "|".join(choices),
)
def test_choices_that_cannot_be_told_apart_are_refused(choices):
    with pytest.raises(UsageError, match="none begins with another"):
        Sampling(choices=choices)


@pytest.mark.parametrize(
    "setting", [{"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.1}, {"repetition_penalty": 1.2}, {"stop": "x"}]
)
def test_what_choices_leave_no_room_for_is_refused(setting):
    with pytest.raises(UsageError, match=f"leave {next(iter(setting))} out"):
        Sampling(choices=("a", "b"), **setting)


def test_choices_longer_than_a_sample_are_refused():
    with pytest.raises(UsageError, match=r"'Yellow' has \d tokens, and max_tokens is 1"):
        drawn(sampling(max_tokens=1, choices=("1", "Yellow")))


def test_a_scripted_engine_keeps_to_choices_unless_it_is_told_otherwise():
    texts = {sample.text for sample in (one for _, one in ScriptedBackend(TOKENIZER).stream(REQUESTS, sampling()))}
    assert texts == set(CHOICES)
    ((_, said),) = ScriptedBackend(TOKENIZER, lambda request: "Maybe").stream(REQUESTS[:1], sampling())
    assert said.text == "Maybe"


def test_what_goes_on_behind_a_sample_takes_no_choices():
    inner = ScriptedBackend(TOKENIZER)
    with pytest.raises(UsageError, match="leave choices out"):
        TwoStageBackend(inner, TOKENIZER).stream(REQUESTS, sampling(logprobs=False))
    interpreter = InterpreterBackend(inner, TOKENIZER, Interpreter())
    try:
        with pytest.raises(UsageError, match="leave choices out"):
            interpreter.stream(REQUESTS, sampling())
    finally:
        interpreter.close_sandbox()


def test_samples_without_choices_have_the_settings_that_they_had():
    """Folders of samples are told apart by their settings: those from before there were choices go on."""
    assert (
        "choices" not in Sampling().settings() and "choices" not in GenerateArguments(data="x").sampling().settings()
    )
    assert sampling().settings()["choices"] == list(CHOICES)


VLLM = {"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 100}


@pytest.mark.parametrize(
    ("owner", "version", "sent"),
    [
        ("vllm", "0.30.0", {"structured_outputs": {"choice": ["Yes", "No (1)"]}}),
        ("vllm", "0.11.0rc1", {"structured_outputs": {"choice": ["Yes", "No (1)"]}}),
        ("vllm", "0.10.2", {"guided_choice": ["Yes", "No (1)"]}),
        ("vllm", None, {"structured_outputs": {"choice": ["Yes", "No (1)"]}}),
        ("sglang", "0.5.0", {"regex": r"(Yes|No\ \(1\))"}),
        ("openai", None, {}),
    ],
)
def test_servers_are_told_in_their_own_words(owner, version, sent, caplog):
    asked = Sampling(temperature=0.0, max_tokens=5, choices=("Yes", "No (1)"))
    with ScriptedServer(lambda number, body: answer(body, "Yes"), [{**VLLM, "owned_by": owner}]) as server:
        backend = ServerBackend(server.url, "m")
        backend.servers = [type(backend.servers[0])(one.url, one.engine, version) for one in backend.servers]
        with caplog.at_level(logging.WARNING):
            samples = draw(backend, SERVER_REQUESTS[:2], asked)
    assert {sample.text for sample in samples} == {"Yes"}
    names = ("structured_outputs", "guided_choice", "regex")
    assert all({name: body[name] for name in names if name in body} == sent for body in server.bodies)
    assert ("cannot be told to answer with one of" in caplog.text) == (not sent)


def test_an_answer_of_a_server_that_ignores_choices_is_kept_as_it_is():
    with ScriptedServer(lambda number, body: answer(body, "It depends.")) as server:
        samples = draw(ServerBackend(server.url, "m"), SERVER_REQUESTS[:1], sampling(logprobs=False))
    assert samples[0].text == "It depends."


def test_requests_without_choices_say_nothing_of_them():
    with ScriptedServer() as server:
        draw(ServerBackend(server.url, "m"), SERVER_REQUESTS[:1])
    assert not {"structured_outputs", "guided_choice", "regex"} & set(itertools.chain(*server.bodies))
