"""The interpreter loop: what a sample becomes, token for token, with a model that says what it is told to say."""

import pytest
from transformers import LlamaForCausalLM

from trl_math.errors import UsageError
from trl_math.generation.backend import Backend, cut_at_stop, request_seed
from trl_math.generation.interpreter import InterpretedCompletion, generate_with_interpreter, shown
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.grading import sandbox as sandbox_module
from trl_math.grading.sandbox import Limits, Outcome
from trl_math.models import tiny_model, tiny_tokenizer
from trl_math.records import Completion, Sampling


# Attacks on the machine it runs on: `make slow`, until the room it belongs to is whole.
pytestmark = pytest.mark.slow


try:
    sandbox_module._usable_mode(None)
except UsageError as error:
    pytest.skip(str(error), allow_module_level=True)

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.eos_token_id
LIMITS = Limits(seconds=1.0)
QUESTION = "What is 6 * 7?\n"
SOLUTION = (
    "I compute it.\n```python\nprint(6 * 7)\n```\n",
    "```output\n42\n```\n",
    "It is \\boxed{42}.",
)


def ids_of(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


class Writer(Backend):
    """Goes on with `write(text so far)`, and ends as every backend does: tokens with, text without the stop string."""

    def __init__(self, write, *, context_length=None, step=1):
        self.write = write
        self.context_length = context_length
        self.step = step  # characters that come at once, as if they were one token
        self.rounds = []

    def stream(self, requests, sampling):
        self.rounds.append((requests, sampling))
        for index, request in reversed(list(enumerate(requests))):
            yield index, self._sample(request, sampling)

    def _sample(self, request, sampling):
        said = self.write(TOKENIZER.decode(list(request.prompt_ids)))
        limit = self.max_tokens(request.prompt_ids, sampling)
        text = next(
            (said[:end] for end in range(self.step, len(said), self.step) if cut_at_stop(said[:end], sampling.stop)
             is not None),
            said,
        )  # fmt: skip
        before = cut_at_stop(text, sampling.stop)
        ids = [*ids_of(text), *([END] if before is None else [])]
        if len(ids) > limit:
            return Completion(TOKENIZER.decode(ids[:limit]), tuple(ids[:limit]), "length", limit, (-1.0,) * limit)
        logprobs = (-1.0,) * len(ids) if sampling.logprobs else None
        return Completion(text if before is None else before, tuple(ids), "stop", len(ids), logprobs)


def script(*parts):
    """Return a writer that says these parts, one after each output."""
    return Writer(lambda text: parts[min(text.count("```output"), len(parts) - 1)])


def run(backend, prompt=QUESTION, **settings):
    sampling = settings.pop("sampling", Sampling(max_tokens=500, logprobs=True))
    [[sample]] = generate_with_interpreter(backend, TOKENIZER, [ids_of(prompt)], sampling, limits=LIMITS, **settings)
    assert len(sample.token_ids) == len(sample.mask) == sample.num_tokens
    return sample


def written(sample):
    """Return what the model wrote, by the mask."""
    return TOKENIZER.decode([id for id, is_models in zip(sample.token_ids, sample.mask, strict=True) if is_models])


def test_a_sample_token_for_token():
    sample = run(script(SOLUTION[0], SOLUTION[2]))
    assert sample.text == "".join(SOLUTION)
    parts = [ids_of(SOLUTION[0]), ids_of(SOLUTION[1]), [*ids_of(SOLUTION[2]), END]]
    assert list(sample.token_ids) == [id for part in parts for id in part]
    assert list(sample.mask) == [is_models for part, is_models in zip(parts, (1, 0, 1), strict=True) for _ in part]
    assert list(sample.logprobs) == [-1.0 if is_models else 0.0 for is_models in sample.mask]
    assert (sample.finish_reason, sample.num_calls, sample.num_errors) == ("stop", 1, 0)
    assert sample.logprob == -sum(sample.mask)
    assert isinstance(sample, InterpretedCompletion) and isinstance(sample, Completion)


class Forced(LlamaForCausalLM):
    """A model that goes on with a text wherever in it it is, up to the end token."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        place = kwargs["past_key_values"].get_seq_length()  # no row is padded: all have the same tokens so far
        output.logits[:, -1] = -100.0
        output.logits[:, -1, self.document[min(place, len(self.document) - 1)]] = 100.0
        return output


def test_with_a_model_in_transformers():
    """What reaches the model after an output are the tokens of the whole text: it never loses its place in it."""
    model = tiny_model(TOKENIZER)
    model.__class__ = Forced
    model.document = [*ids_of(QUESTION + "".join(SOLUTION)), END]
    backend = TransformersBackend(model, TOKENIZER)
    samples = generate_with_interpreter(
        backend, TOKENIZER, [ids_of(QUESTION)], Sampling(num_samples=2, max_tokens=200), limits=LIMITS
    )[0]
    for sample in samples:
        assert sample.text == "".join(SOLUTION)
        assert [*ids_of(QUESTION), *sample.token_ids] == model.document
        assert written(sample) == SOLUTION[0] + SOLUTION[2] + TOKENIZER.eos_token


def test_blocks_share_a_session():
    sample = run(script("```python\nx = 20\nprint('a')\n```\n", "```python\nx += 1\nprint(x)\n```\n", "Done."))
    assert [outcome.stdout for outcome in sample.outcomes] == ["a\n", "21\n"]
    assert sample.text.endswith("```output\n21\n```\nDone.")


@pytest.mark.parametrize("step", [1, 3, 7, 50])
def test_a_fence_inside_of_a_token(step):
    """The token that has the fence may have more; it is kept as it was drawn, and the output comes after it."""
    backend = script("```python\nprint(6 * 7)\n```\n\nAnd so", "Done.")
    backend.step = step
    sample = run(backend)
    assert sample.outcomes[0].stdout == "42\n"
    assert "```output\n42\n```\nDone." in sample.text
    assert written(sample).startswith("```python\nprint(6 * 7)\n```\n")


def test_the_model_may_begin_the_output_itself():
    sample = run(script("```python\nprint(6 * 7)\n```output\n41\n```\n", "Done."))
    assert sample.text == "```python\nprint(6 * 7)\n```output\n42\n```\nDone."
    assert written(sample) == "```python\nprint(6 * 7)\n```outputDone." + TOKENIZER.eos_token


def test_a_turn_that_ends_with_the_block_goes_on():
    sample = run(script("```python\nprint(6 * 7)\n```", "Done."))
    assert sample.text == "```python\nprint(6 * 7)\n```\n```output\n42\n```\nDone."
    assert sample.token_ids.count(END) == 1
    sample = run(script("```python\nprint(6 * 7)\n```"), max_calls=0)
    assert (sample.text, sample.finish_reason) == ("```python\nprint(6 * 7)\n```", "stop")


def test_blocks_in_other_languages_and_the_prompts_own():
    said = "```\nplain\n```\n```bash\nls\n```\nDone."
    sample = run(Writer(lambda text: said[len(text) - len(QUESTION) :]))
    assert (sample.text, sample.num_calls) == (said, 0)
    assert all(sample.mask)
    sample = run(script("print(6 * 7)\n```\n", "Done."), prompt=QUESTION + "```python\n")
    assert sample.text == "print(6 * 7)\n```\n```output\n42\n```\nDone."
    assert run(script("Done."), prompt="```python\nprint(1)\n```\nThen?").num_calls == 0


def test_errors_are_shown_and_then_end_it():
    wrong = "```python\n1 / 0\n```\n"
    sample = run(script(wrong, "```python\nprint(2)\n```\n", "Done."))
    assert "```output\nZeroDivisionError: division by zero\n```\n" in sample.text
    assert (sample.finish_reason, sample.num_calls, sample.num_errors) == ("stop", 2, 1)
    sample = run(script(wrong, wrong, "Never said."))
    assert (sample.finish_reason, sample.num_calls, sample.num_errors) == ("max_errors", 2, 2)
    assert "Never" not in sample.text
    sample = run(script("```python\nwhile True:\n    pass\n```\n", "```python\nprint(3)\n```\n", "Done."))
    assert [outcome.status for outcome in sample.outcomes] == ["timeout", "ok"]
    assert "```output\nError: ran longer than 1 seconds\n```\n" in sample.text


def test_too_many_calls():
    sample = run(script("```python\nprint(1)\n```\n"), max_calls=2)
    assert (sample.finish_reason, sample.num_calls) == ("max_calls", 2)
    assert sample.text.endswith("```output\n1\n```\n```python\nprint(1)\n```\n")


def test_the_budget_counts_outputs_and_is_never_exceeded():
    whole = run(script(SOLUTION[0], SOLUTION[2])).token_ids
    written, answered = (len(ids_of("".join(SOLUTION[:end]))) for end in (1, 2))
    for limit in (1, written - 1, written, written + 1, answered, answered + 1, len(whole) - 1, len(whole)):
        sample = run(script(SOLUTION[0], SOLUTION[2]), sampling=Sampling(max_tokens=limit))
        # An output that leaves no room behind it is left out.
        length = written if written < limit <= answered else limit
        assert sample.token_ids == whole[:length]
        assert sample.finish_reason == ("stop" if length == len(whole) else "length")


def test_the_context_is_the_other_limit():
    assert run(Writer(lambda text: "x", context_length=5)).finish_reason == "prompt_too_long"
    backend = script(SOLUTION[0], SOLUTION[2])
    backend.context_length = len(ids_of(QUESTION + "".join(SOLUTION[:2]))) + 4
    sample = run(backend)
    assert (sample.finish_reason, sample.text) == ("length", "".join(SOLUTION[:2]) + "It i")


def test_an_output_cannot_end_its_block_or_the_sample():
    sample = run(script("```python\nprint('```', '<|im' + '_end|>')\n```\n", "Done."))
    assert "```output\n''' <|im_end|>\n```\nDone." in sample.text
    assert sample.token_ids.count(END) == 1
    long = run(script("```python\nprint('a' * 500, 'b')\n```\n", "Done."), output_chars=5)
    assert "```output\n...aaa b\n```\n" in long.text
    assert "```output\n```\nDone." in run(script("```python\nx = 1\n```\n", "Done.")).text


def test_rounds_go_to_the_backend_together():
    """Samples of different lengths wait in one call, and a first part is what plain generation would draw."""
    backend = script(SOLUTION[0], SOLUTION[2])
    sampling = Sampling(num_samples=2, max_tokens=500, seed=3, stop=("\n\nQuestion:", "\n```"))
    prompts = [ids_of(QUESTION), ids_of("And " + QUESTION), []]
    with pytest.raises(UsageError, match="Prompt 2 has no tokens"):
        generate_with_interpreter(backend, TOKENIZER, prompts, sampling)
    rows = generate_with_interpreter(backend, TOKENIZER, prompts[:2], sampling, limits=LIMITS)
    assert [len(row) for row in rows] == [2, 2]
    assert all(sample.text == "".join(SOLUTION) for row in rows for sample in row)
    assert [len(requests) for requests, _ in backend.rounds] == [4, 4]
    (first, sampled), (second, _) = backend.rounds
    assert [request.seed for request in first[:2]] == [request_seed(3, "0", number) for number in range(2)]
    assert not {request.seed for request in first} & {request.seed for request in second}
    assert sampled.stop == ("```\n", "```output", "\n\nQuestion:")


def test_a_stop_string_ends_the_sample():
    sample = run(script(SOLUTION[0], "It is 42.\n\nQuestion: next"), sampling=Sampling(stop=("\n\nQuestion:",)))
    assert sample.text.endswith("```\nIt is 42.") and sample.finish_reason == "stop"
    assert TOKENIZER.decode(sample.token_ids).endswith("It is 42.\n\nQuestion:")


def test_bad_settings():
    for settings in ({"max_calls": -1}, {"max_errors": 0}, {"output_chars": 0}):
        with pytest.raises(UsageError, match="max_calls must be at least 0"):
            run(script("x"), **settings)

    class Silent(Writer):
        def _sample(self, request, sampling):
            return Completion("x", None, "stop", 1)

    with pytest.raises(UsageError, match="needs the token ids"):
        run(Silent(str))


def test_what_a_model_is_shown():
    assert shown(Outcome("ok", "1\n2\n"), 100) == "1\n2\n"
    assert shown(Outcome("error", "1\n", "Traceback\n  x\nNameError: a", reason="NameError: a"), 100) == (
        "1\nNameError: a\n"
    )
    assert shown(Outcome("error", reason="exit status 3"), 100) == "Error: exit status 3\n"
    assert shown(Outcome("memory", "", "noise", reason="needed more"), 100) == "Error: needed more\n"
