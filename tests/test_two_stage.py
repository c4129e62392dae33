"""Two stages of prompting around a backend, and the meter around both: every engine, spaces, ends, costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import CHAT, ScriptedServer, answer, error, quick  # noqa: F401

from trl_math.errors import BudgetError, UsageError
from trl_math.generation import Request, ServerBackend
from trl_math.generation.backend import Backend, Usage, most_prompt_tokens
from trl_math.generation.cost import MeteredBackend, Price, Spent, money, spent_on
from trl_math.generation.scripted import ScriptedBackend
from trl_math.generation.tokenise import prompt_token_ids
from trl_math.generation.two_stage import ANSWER_REQUEST, ANSWER_TURN, TwoStageBackend, both_stages, join
from trl_math.models.tiny import tiny_tokenizer
from trl_math.records import Completion, Sampling


PROMPT = "Q: What is 5 + 3?\nA: Let's think step by step."


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def requests_for(tokenizer, prompts):
    return [Request(prompt_token_ids(tokenizer, prompt), 100 + index, prompt) for index, prompt in enumerate(prompts)]


def drawn(backend, requests, sampling=None):
    found = dict(backend.stream(requests, sampling or Sampling(max_tokens=40)))
    assert sorted(found) == list(range(len(requests)))
    return [found[index] for index in range(len(requests))]


def scripted(tokenizer, reasoning=" 5 + 3 = 8. ", said=" 8.\nQ: another", **settings):
    """A backend that reasons first and answers what ends in the request for the answer."""

    def script(request):
        is_second = ANSWER_REQUEST in tokenizer.decode(list(request.prompt_ids))
        return said if is_second else reasoning

    return ScriptedBackend(tokenizer, script, **settings)


# ---- the stages ----


def test_a_sample_is_reasoning_request_and_answer(tokenizer):
    seen = []
    inner = scripted(tokenizer)
    script = inner.script
    inner.script = lambda request: seen.append(request) or script(request)
    [sample] = drawn(TwoStageBackend(inner, tokenizer), requests_for(tokenizer, [PROMPT]))
    assert sample.text == " 5 + 3 = 8.\nTherefore, the answer is 8."
    assert (sample.finish_reason, sample.reasoning_finish_reason) == ("stop", "stop")
    assert sample.token_ids is None and sample.logprobs is None
    first, second = seen
    assert tokenizer.decode(list(second.prompt_ids)) == f"{PROMPT} 5 + 3 = 8.\n{ANSWER_REQUEST}"
    assert second.prompt_ids == prompt_token_ids(tokenizer, second.prompt), "as one text, and not piece by piece"
    assert first.seed != second.seed
    assert sample.num_prompt_tokens == len(first.prompt_ids) + len(second.prompt_ids)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" 5 + 3 = 8. ", " 8.\nQ: another")]
    assert sample.num_tokens == sum(len(own) + 1 for own in ids)


@pytest.mark.parametrize("spaces", ["", " ", "\n", " \n\n "])
@given(
    reasoning=st.sampled_from(["5 + 3 = 8.", " so it is", "\nlines\nof text", ""]), said=st.sampled_from(["8", "8."])
)
def test_there_is_one_space_whatever_was_drawn(spaces, reasoning, said):
    assert join(reasoning + spaces, spaces + said + spaces) == f"{reasoning.rstrip()}\nTherefore, the answer is {said}"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("Therefore, the answer is 8.", "8."),
        ('"Therefore, the answer is 8."', "8."),
        ("The final answer is: **8**", "**8**"),
        ("8\n\nThis is because", "8"),
        ("\n\n 8", "8"),
        ("", ""),
        ("the answering machine", "the answering machine"),
    ],
)
def test_what_a_chat_repeats_is_said_once(said, line):
    assert join("r", said) == f"r\nTherefore, the answer is {line}".rstrip()


def test_greedy_answers_to_reasoning_that_is_drawn(tokenizer):
    asked = []

    class Spy(ScriptedBackend):
        def stream(self, requests, sampling):
            asked.append(sampling)
            return super().stream(requests, sampling)

    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=5, max_tokens=40, num_samples=3, stop=("Q:",), seed=4)
    backend = TwoStageBackend(Spy(tokenizer), tokenizer, answer_tokens=5)
    drawn(backend, requests_for(tokenizer, [PROMPT]), sampling)
    first, second = asked
    assert first == sampling
    assert (second.temperature, second.top_p, second.top_k, second.max_tokens) == (0.0, 1.0, 0, 5)
    assert second.stop == ("Q:",) and second.seed == 4
    warm = TwoStageBackend(Spy(tokenizer), tokenizer, answer_temperature=0.5)
    drawn(warm, requests_for(tokenizer, [PROMPT]), sampling)
    assert (asked[-1].temperature, asked[-1].top_p) == (0.5, 0.9)


def test_groups_lose_no_more_than_a_group(tokenizer):
    """What is under way when a process dies is one group's reasoning; and each sample comes once."""
    calls = []

    class Spy(ScriptedBackend):
        def stream(self, requests, sampling):
            calls.append(len(requests))
            return super().stream(requests, sampling)

    backend = TwoStageBackend(Spy(tokenizer, reverse=True), tokenizer, group_size=3)
    drawn(backend, requests_for(tokenizer, [f"{PROMPT} {index}" for index in range(8)]))
    assert calls == [3, 3, 3, 3, 2, 2]
    with pytest.raises(UsageError, match="must be at least 1"):
        TwoStageBackend(backend, tokenizer, group_size=0)
    with pytest.raises(UsageError, match="leave logprobs out"):
        backend.stream([], Sampling(logprobs=True))


def test_ends_of_both_stages(tokenizer):
    long = "x " * 60
    cut = TwoStageBackend(scripted(tokenizer, reasoning=long, said="8"), tokenizer)
    [sample] = drawn(cut, requests_for(tokenizer, [PROMPT]))
    assert (sample.reasoning_finish_reason, sample.finish_reason) == ("length", "stop")
    ramble = TwoStageBackend(scripted(tokenizer, said="y " * 60), tokenizer, answer_tokens=4)
    [sample] = drawn(ramble, requests_for(tokenizer, [PROMPT]))
    assert (sample.reasoning_finish_reason, sample.finish_reason) == ("stop", "length")
    # A line that ended is an answer that ended, whatever was written below it.
    below = TwoStageBackend(scripted(tokenizer, said="8\n" + "y " * 60), tokenizer, answer_tokens=6)
    [sample] = drawn(below, requests_for(tokenizer, [PROMPT]))
    assert sample.finish_reason == "stop" and sample.text.endswith("is 8")


def test_no_room_for_an_answer(tokenizer):
    length = len(prompt_token_ids(tokenizer, PROMPT))
    inner = scripted(tokenizer, reasoning="x " * 60, context_length=length + 20)
    [sample] = drawn(TwoStageBackend(inner, tokenizer), requests_for(tokenizer, [PROMPT]))
    assert (sample.finish_reason, sample.reasoning_finish_reason) == ("length", "length")
    assert ANSWER_REQUEST not in sample.text and sample.num_prompt_tokens == length


def test_in_a_chat_the_turn_goes_on(tokenizer):
    messages = [{"role": "user", "content": "What is 5 + 3?"}]
    seen = []
    inner = scripted(tokenizer, reasoning="5 + 3 = 8.")
    script = inner.script
    inner.script = lambda request: seen.append(request) or script(request)
    [sample] = drawn(TwoStageBackend(inner, tokenizer), requests_for(tokenizer, [messages]))
    assert sample.text == "5 + 3 = 8.\nTherefore, the answer is 8."
    before = seen[0].prompt_ids
    assert list(seen[1].prompt_ids[: len(before)]) == list(before)
    assert tokenizer.decode(list(seen[1].prompt_ids[len(before) :])) == f"5 + 3 = 8.\n{ANSWER_REQUEST}"


def test_with_the_transformers_engine():
    """A real model, in batches, for plain prompts and for a chat."""
    from trl_math.generation.transformers_backend import TransformersBackend
    from trl_math.models.tiny import tiny_model

    tokenizer = tiny_tokenizer()
    inner = TransformersBackend(tiny_model(tokenizer), tokenizer, batch_size=2)
    backend = TwoStageBackend(inner, tokenizer, answer_tokens=4, group_size=2)
    prompts = [PROMPT, "Q: 1\nA:", [{"role": "user", "content": "2?"}]]
    for sample in drawn(backend, requests_for(tokenizer, prompts), Sampling(max_tokens=6)):
        assert f"\n{ANSWER_REQUEST}" in sample.text
        assert sample.num_tokens <= 10 and sample.reasoning_finish_reason in ("stop", "length")


# ---- servers ----


def reasoner(number, body):
    """Reasons, and answers the second stage, in both endpoints."""
    turns = body.get("messages") or [{"content": str(body["prompt"])}]
    is_second = ANSWER_TURN in turns[-1]["content"] or len(turns) > 1
    return answer(body, "**8**" if is_second else "5 + 3 = 8.")


def test_a_chat_server_is_asked_in_a_further_turn():
    with ScriptedServer(reasoner) as server:
        backend = TwoStageBackend(ServerBackend(server.url, "m", endpoint="chat"), None, is_chat=True)
        samples = drawn(backend, CHAT)
    assert {sample.text for sample in samples} == {"5 + 3 = 8.\nTherefore, the answer is **8**"}
    assert {(sample.num_tokens, sample.num_prompt_tokens) for sample in samples} == {(6, 6)}, "of both, as it is told"
    second = next(body for body in server.bodies if len(body["messages"]) > 1)
    assert [turn["role"] for turn in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "5 + 3 = 8." and second["messages"][2]["content"] == ANSWER_TURN


def test_a_server_of_completions_goes_on_with_the_text(tokenizer):
    """A hosted one, that takes texts."""

    def script(number, body):
        return answer(body, " 8" if ANSWER_REQUEST in body["prompt"] else " 5 + 3 = 8.")

    with ScriptedServer(script, models=[{"id": "m", "object": "model"}]) as server:
        backend = TwoStageBackend(ServerBackend(server.url, "m"), tokenizer)
        [sample] = drawn(backend, requests_for(tokenizer, [PROMPT]))
    assert sample.text == " 5 + 3 = 8.\nTherefore, the answer is 8"
    assert server.bodies[1]["prompt"] == f"{PROMPT} 5 + 3 = 8.\n{ANSWER_REQUEST}"


def test_rate_limits_are_counted_and_tried_again():
    def script(number, body):
        if number < 2:
            return error(429, "slow down")
        return error(500, "oh") if number == 2 else answer(body)

    with ScriptedServer(script) as server:
        backend = MeteredBackend(ServerBackend(server.url, "m", endpoint="chat", concurrency=1), Price(1, 1), None)
        assert len(drawn(backend, CHAT)) == 3
    assert backend.troubles() == {"rate_limited": 2, "failed": 1}


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation"])
def test_a_refusal_is_a_sample_without_text(code, caplog):
    """One request that a filter refuses does not end the run; the others are drawn."""

    def script(number, body):
        return error(400, "not with us", code=code) if body["messages"][0]["content"] == "1?" else answer(body)

    with ScriptedServer(script) as server:
        samples = drawn(ServerBackend(server.url, "m", endpoint="chat"), CHAT)
    assert [sample.finish_reason for sample in samples] == ["stop", "refused", "stop"]
    assert samples[1] == Completion("", None, "refused", 0)
    assert "refused a request (not with us)" in caplog.text
    with ScriptedServer(script) as server:
        backend = TwoStageBackend(ServerBackend(server.url, "m", endpoint="chat"), None, is_chat=True)
        assert [sample.finish_reason for sample in drawn(backend, CHAT)] == ["stop", "refused", "stop"]


def test_a_model_that_refuses_and_a_filter_that_leaves_nothing():
    def script(number, body):
        said = answer(body, "", finish_reason="content_filter")
        if body["messages"][0]["content"] == "0?":
            said = answer(body)
            said["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I cannot."}
        return said

    with ScriptedServer(script) as server:
        samples = drawn(ServerBackend(server.url, "m", endpoint="chat"), CHAT[:2])
    assert [(sample.text, sample.finish_reason) for sample in samples] == [
        ("I cannot.", "refused"),
        ("", "refused"),
    ]


# ---- what it costs ----


class Fixed(Backend):
    """Samples of known lengths."""

    def __init__(self, lengths):
        self.lengths = lengths
        self.calls = []

    def stream(self, requests, sampling):
        self.calls.append(len(requests))
        for index, request in reversed(list(enumerate(requests))):
            number = min(self.lengths[request.seed], sampling.max_tokens)
            yield index, Completion("x", tuple(range(number)), "stop", number)


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=30),
    most=st.integers(0, 400),
    prompt=st.integers(1, 5),
)
def test_a_run_never_costs_more_than_it_may_and_stops_only_when_it_must(lengths, most, prompt):
    inner = Fixed(lengths)
    price, sampling = Price(1e6, 2e6), Sampling(max_tokens=20)
    meter = MeteredBackend(inner, price, float(most), say=lambda text: None)
    requests = [Request(range(prompt), seed=index) for index in range(len(lengths))]
    got, is_over = [], False
    try:
        got = []
        for index, completion in meter.stream(requests, sampling):
            got.append((index, completion.num_tokens))
    except BudgetError:
        is_over = True
    paid = sum(prompt + 2 * number for _, number in got)
    assert meter.cost == pytest.approx(paid) and paid <= most
    assert len({index for index, _ in got}) == len(got)
    # One more would have been too much, if it had come to the most it could.
    assert is_over == (len(got) < len(lengths))
    assert not is_over or paid + prompt + 40 > most
    assert sum(inner.calls) == len(got)


def test_without_a_limit_everything_is_sent_at_once_and_counted():
    inner = Fixed([3, 4, 5])
    meter = MeteredBackend(inner, Price(1.0, 10.0), None, Usage(1_000_000, 0))
    assert len(list(meter.stream([Request([1, 2], seed=index) for index in range(3)], Sampling()))) == 3
    assert inner.calls == [3] and meter.spent == Usage(1_000_006, 12)
    assert meter.cost == pytest.approx(1.0 + 6e-6 + 12e-5)


def test_bounds_and_sums():
    assert most_prompt_tokens("héllo") == 6 + 64
    assert most_prompt_tokens([{"role": "user", "content": "ab"}, {"role": "user", "content": ""}]) == 2 + 2 * 64
    assert both_stages(Usage(10, 20), 5) == Usage(10 + 10 + 20 + 64, 25)
    assert both_stages(Usage(100, 200), 5, 10) == Usage(100 + 100 + 200 + 640, 250)
    rows = [
        {"problem_id": "a", "num_tokens": 3, "num_prompt_tokens": 7},
        {"problem_id": "a", "num_tokens": 4},
        {"problem_id": "b", "num_tokens": 5, "num_prompt_tokens": None},
    ]
    assert spent_on(rows, {"a": 10}) == Spent(3, Usage(17, 12), 2)
    assert [money(amount) for amount in (0, 1234.5, 0.012345, 1)] == ["0.00", "1,234.50", "0.0123", "1.00"]


def test_two_stages_never_take_more_than_is_foreseen(tokenizer):
    backend = TwoStageBackend(scripted(tokenizer, reasoning="x " * 80, said="y " * 80), tokenizer, answer_tokens=8)
    requests = requests_for(tokenizer, [PROMPT, "Q:", "x" * 50])
    sampling = Sampling(max_tokens=30)
    for request, sample in zip(requests, drawn(backend, requests, sampling), strict=True):
        most = backend.most(request, sampling)
        assert sample.num_prompt_tokens <= most.num_prompt_tokens and sample.num_tokens <= most.num_tokens
