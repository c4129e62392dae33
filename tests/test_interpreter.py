"""The interpreter loop: what a sample becomes, token for token, with a model that says what it is told to say."""

import dataclasses
import threading

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer, LlamaForCausalLM

from trl_math.errors import UsageError
from trl_math.generation.backend import Backend, Request, cut_at_stop, request_seed, too_long
from trl_math.generation.interpreted_sample import InterpretedCompletion, Turns, shown
from trl_math.generation.interpreter import Interpreter, InterpreterBackend
from trl_math.generation.transformers_backend import TransformersBackend
from trl_math.grading.sandbox import Limits, Outcome, usable_mode
from trl_math.models import resolve_model, tiny_model, tiny_tokenizer
from trl_math.records import Completion, Sampling


try:
    usable_mode()
except UsageError as error:
    pytest.skip(str(error), allow_module_level=True)

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.eos_token_id
LIMITS = Limits(seconds=30.0)
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


def interpreted(backend, *, workers=1, num_live=1024, part_tokens=512, **rules):
    rules = Interpreter(**{"limits": LIMITS, **rules})
    return InterpreterBackend(backend, TOKENIZER, rules, workers=workers, num_live=num_live, part_tokens=part_tokens)


def run(backend, prompt=QUESTION, sampling=None, **settings):
    sampling = sampling or Sampling(max_tokens=500, logprobs=True)
    source = interpreted(backend, **settings)
    try:
        [[sample]] = source.generate([ids_of(prompt)], sampling)
    finally:
        source.close()
    assert isinstance(sample, InterpretedCompletion) and isinstance(sample, Completion)
    assert len(sample.token_ids) == sample.num_tokens <= sampling.max_tokens
    assert len(sample.tool_spans) <= len(sample.outcomes)
    return sample


def is_models(sample):
    """Return for each token whether the model wrote it."""
    inside = {place for start, end in sample.tool_spans for place in range(start, end)}
    return [place not in inside for place in range(sample.num_tokens)]


def written(sample):
    """Return what the model wrote, by the spans."""
    return TOKENIZER.decode([id for id, own in zip(sample.token_ids, is_models(sample), strict=True) if own])


def test_a_sample_token_for_token():
    sample = run(script(SOLUTION[0], SOLUTION[2]))
    assert sample.text == "".join(SOLUTION)
    parts = [ids_of(SOLUTION[0]), ids_of(SOLUTION[1]), [*ids_of(SOLUTION[2]), END]]
    assert list(sample.token_ids) == [id for part in parts for id in part]
    start, end = len(parts[0]), len(parts[0]) + len(parts[1])
    assert sample.tool_spans == ((start, end),)
    assert TOKENIZER.decode(sample.token_ids[start:end]) == SOLUTION[1]
    assert list(sample.logprobs) == [-1.0 if own else 0.0 for own in is_models(sample)]
    assert sample.logprob == -len(parts[0]) - len(parts[2])
    assert (sample.finish_reason, [outcome.status for outcome in sample.outcomes]) == ("stop", ["ok"])


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
    for sample in interpreted(backend).generate([ids_of(QUESTION)], Sampling(num_samples=2, max_tokens=200))[0]:
        assert sample.text == "".join(SOLUTION)
        assert [*ids_of(QUESTION), *sample.token_ids] == model.document
        assert written(sample) == SOLUTION[0] + SOLUTION[2] + TOKENIZER.eos_token


def statuses(sample):
    return [outcome.status for outcome in sample.outcomes]


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
    sample = run(script("```python\nprint(6 * 7)\n```"), max_calls=1)
    assert sample.text == "```python\nprint(6 * 7)\n```\n```output\n42\n```\n```python\nprint(6 * 7)\n```"
    assert (sample.finish_reason, len(sample.outcomes)) == ("stop", 1)


def test_blocks_in_other_languages_and_the_prompts_own():
    said = "```\nplain\n```\n```bash\nls\n```\nDone."
    sample = run(Writer(lambda text: said[len(text) - len(QUESTION) :]))
    assert (sample.text, sample.outcomes, sample.tool_spans) == (said, (), ())
    sample = run(script("print(6 * 7)\n```\n", "Done."), prompt=QUESTION + "```python\n")
    assert sample.text == "print(6 * 7)\n```\n```output\n42\n```\nDone."
    sample = run(script("```python\nprint(6 * 7)\n```\n", "Done."), prompt=QUESTION + "Answer:")
    assert sample.text == "```python\nprint(6 * 7)\n```\n```output\n42\n```\nDone."
    assert run(script("```python\n```\n", "Done."), prompt=QUESTION + "Answer:").text.endswith("```output\n```\nDone.")
    assert run(script("Done."), prompt="```python\nprint(1)\n```\nThen?").outcomes == ()


def test_errors_are_shown_and_then_end_it():
    wrong = "```python\n1 / 0\n```\n"
    sample = run(script(wrong, "```python\nprint(2)\n```\n", "Done."))
    assert "```output\nZeroDivisionError: division by zero\n```\n" in sample.text
    assert (sample.finish_reason, statuses(sample)) == ("stop", ["error", "ok"])
    sample = run(script(wrong, wrong, "Never said."))
    assert (sample.finish_reason, statuses(sample)) == ("max_errors", ["error", "error"])
    assert "Never" not in sample.text
    endless = script("```python\nwhile True:\n    pass\n```\n", "```python\nprint(3)\n```\n", "Done.")
    sample = run(endless, limits=Limits(seconds=1))
    assert statuses(sample) == ["timeout", "ok"]
    assert "```output\nError: ran longer than 1 seconds\n```\n" in sample.text


def test_too_many_calls():
    sample = run(script("```python\nprint(1)\n```\n"), max_calls=2)
    assert (sample.finish_reason, len(sample.outcomes)) == ("max_calls", 2)
    assert sample.text.endswith("```output\n1\n```\n```python\nprint(1)\n```\n")


def test_the_budget_counts_outputs_and_is_never_exceeded():
    source = interpreted(script(SOLUTION[0], SOLUTION[2]))
    [[whole]] = source.generate([ids_of(QUESTION)], Sampling())
    written, answered = (len(ids_of("".join(SOLUTION[:end]))) for end in (1, 2))
    for limit in (1, written - 1, written, written + 1, answered, answered + 1, whole.num_tokens - 1):
        [[sample]] = source.generate([ids_of(QUESTION)], Sampling(max_tokens=limit))
        # An output that leaves no room behind it is left out.
        length = written if written < limit <= answered else limit
        assert (sample.token_ids, sample.finish_reason) == (whole.token_ids[:length], "length")
    source.close()


def test_the_context_is_the_other_limit():
    source = interpreted(Writer(lambda text: "x", context_length=5))
    assert source.generate([ids_of(QUESTION)], Sampling())[0][0].finish_reason == "prompt_too_long"
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
    sampling = Sampling(num_samples=2, max_tokens=500, seed=3, stop=("\n\nQuestion:",))
    prompts = [ids_of(QUESTION), ids_of("And " + QUESTION)]
    source = interpreted(backend)
    with pytest.raises(UsageError, match="Prompt 1 has no tokens"):
        source.stream([Request(prompts[0]), Request([])], sampling)
    rows = source.generate(prompts, sampling)
    assert [len(row) for row in rows] == [2, 2]
    assert all(sample.text == "".join(SOLUTION) for row in rows for sample in row)
    assert [len(requests) for requests, _ in backend.rounds] == [4, 4]
    (first, sampled), (second, _) = backend.rounds
    assert [request.seed for request in first[:2]] == [request_seed(3, "0", number) for number in range(2)]
    assert len({request.seed for request in first + second}) == 8
    assert sampled.stop == ("```\n", "```output", "\n\nQuestion:")
    assert source.summary() == "Ran 4 programs: 4 ok."
    source.close()


@pytest.mark.parametrize("part_tokens", [1, 2, 3, 7, 40])
def test_parts_make_no_difference(part_tokens):
    """Wherever a part ends, within a fence, a word or a stop string, the sample is the same."""
    said = "".join(SOLUTION) + "\n\nQuestion: next"
    backend = Writer(lambda text: said[len(text) - len(QUESTION) :])
    sampling = Sampling(max_tokens=500, logprobs=True, stop=("\n\nQuestion:",))
    source = interpreted(backend, part_tokens=part_tokens)
    [[whole]] = source.generate([ids_of(QUESTION)], sampling)
    assert whole.text == "".join(SOLUTION) and whole.finish_reason == "stop"
    assert whole.token_ids == run(backend, sampling=sampling).token_ids
    assert max(sampling.max_tokens for _, sampling in backend.rounds[:2]) == part_tokens
    for limit in range(1, whole.num_tokens + 1, 3):
        [[part]] = source.generate([ids_of(QUESTION)], dataclasses.replace(sampling, max_tokens=limit))
        assert part.token_ids == whole.token_ids[: part.num_tokens]
        assert part.finish_reason == ("stop" if part.num_tokens == whole.num_tokens else "length")
        assert part.num_tokens == limit or part.num_tokens == whole.tool_spans[0][0]
    source.close()


def test_a_sample_that_has_ended_is_handed_out_before_others_begin():
    """Of three samples with two places, the third begins when one has ended; that one is there by then."""
    backend = script(SOLUTION[0], SOLUTION[2])
    source = interpreted(backend, num_live=2)
    requests = [Request(ids_of(QUESTION), seed) for seed in range(3)]
    stream = source.stream(requests, Sampling(max_tokens=500))
    assert next(stream)[0] in (0, 1) and next(stream)[0] in (0, 1)
    assert [[request.seed for request in requests] for requests, _ in backend.rounds[:1]] == [[0, 1]]
    assert len(backend.rounds) == 2
    assert [(index, sample.text) for index, sample in stream] == [(2, "".join(SOLUTION))]
    source.close()


def test_who_stops_listening_leaves_nothing_running():
    backend = script("```python\nwhile True:\n    pass\n```\n", "Done.")
    source = interpreted(backend, limits=Limits(seconds=1))
    stream = source.stream([Request(ids_of(QUESTION)), Request(ids_of("x"))], Sampling(max_tokens=500))
    assert next(stream)[1].outcomes[0].status == "timeout"
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("interpreter")]
    source.close()


def test_a_stop_string_ends_the_sample():
    sample = run(script(SOLUTION[0], "It is 42.\n\nQuestion: next"), sampling=Sampling(stop=("\n\nQuestion:",)))
    assert sample.text.endswith("```\nIt is 42.") and sample.finish_reason == "stop"
    assert TOKENIZER.decode(sample.token_ids).endswith("It is 42.\n\nQuestion:")


@pytest.mark.parametrize("stop", ["\n", "\n```", "```", ")", "```python"])
def test_a_stop_string_that_would_end_programs_is_refused(stop):
    with pytest.raises(UsageError, match="have no room for programs"):
        run(script("x"), sampling=Sampling(stop=(stop,)))


def test_where_only_a_server_knows_the_end_of_the_context():
    """It cuts a part short, or says that there is no room, whatever was asked for."""

    class Short(Writer):
        room = 30

        def _sample(self, request, sampling):
            room = self.room - len(request.prompt_ids)
            return super()._sample(request, dataclasses.replace(sampling, max_tokens=room)) if room > 0 else too_long()

    said = "A long way to go, and then some more of it."
    backend = Short(lambda text: said[len(text) - len(QUESTION) :])
    sample = run(backend)
    assert (sample.text, sample.finish_reason) == (said[: 30 - len(QUESTION)], "length")
    sample = run(backend, part_tokens=30 - len(QUESTION))
    assert (sample.text, sample.finish_reason) == (said[: 30 - len(QUESTION)], "length")
    backend.room = 1
    sample = run(backend)
    assert (sample.text, sample.finish_reason, sample.logprob) == ("", "prompt_too_long", None)


def test_tokenizers_that_write_a_space_at_the_beginning_of_a_text():
    """As Llama 2's do: an output is tokenised as what stands behind something."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("embedded:tiny"))
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    assert tokenizer.decode(tokenizer("a", add_special_tokens=False)["input_ids"]) == " a"
    turns = Turns(tokenizer, (), 1, 1, 100)
    assert tokenizer.decode(turns._output_ids("```output\n42\n```\n")) == "```output\n42\n```\n"


def test_bad_settings():
    for name in ("max_calls", "max_errors", "output_chars"):
        with pytest.raises(UsageError, match=f"{name} must be at least 1, got 0"):
            Interpreter(**{name: 0})
    with pytest.raises(UsageError, match="num_live and part_tokens"):
        InterpreterBackend(script("x"), TOKENIZER, part_tokens=0)

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
