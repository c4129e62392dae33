"""A model as judge: both orders, answers that are none, what is unknown, what is kept and what it costs."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine.kill_judge import PAIRS as MANY
from engine.kill_judge import judge as number_judge
from helpers import quiet_environment
from scripted_server import HANG, ScriptedServer, answer, error, quick
from test_cli import wait_for

from trl_math.contamination.judge import Budget, Judge, JudgeDetector
from trl_math.contamination.judge_prompts import KINDS, Wording
from trl_math.contamination.matches import Detector, Match
from trl_math.contamination.outcomes import (
    Answer,
    Rules,
    decide,
    is_unknown,
    item_bounds,
    read_answer,
    share_bounds,
)
from trl_math.errors import RunFolderError, UsageError
from trl_math.generation.cost import Price
from trl_math.generation.engines import EngineArguments
from trl_math.generation.scripted import ScriptedBackend
from trl_math.records import Completion


__all__ = ["quick"]  # a fixture for every test here

CHOICES = (" Yes", " No")
SAME = ("Tom has 3 apples and buys 4. How many has he?", "Ann owns 3 pears. She gets 4 more. How many does she own?")
OTHER = ("Tom has 3 apples and buys 4. How many has he?", "What is the area of a circle of radius 2?")
SCRIPT = Path(__file__).parent / "engine" / "kill_judge.py"


class Opinions(ScriptedBackend):
    """Says what `script` returns for the two texts: an answer, one with its probability, or a whole sample."""

    def __init__(self, tokenizer, script, **settings):
        super().__init__(tokenizer, **settings)
        self.opinion, self.num_asked = script, 0

    def _completion(self, request, sampling):
        self.num_asked += 1
        first, second = (
            part.partition("\n>>>")[0].strip() for part in request.prompt[0]["content"].split("<<<\n")[1:]
        )
        said = self.opinion(first, second)
        if isinstance(said, Completion):
            return said
        text, share = said if isinstance(said, tuple) else (said, 1.0)
        return Completion(text, (1,), "stop", 1, (math.log(share),))


class Heard(Judge):
    """A scripted judge of the tiny model, with what it said and how often it was asked."""

    def __init__(self, folder, script=lambda first, second: " Yes", **settings):
        self.lines, self.backends = [], []
        super().__init__(
            EngineArguments(model="embedded:tiny", backend="scripted"),
            folder,
            say=self.lines.append,
            around=lambda backend: self._put(Opinions(backend.tokenizer, script)),
            **settings,
        )

    def _put(self, backend):
        self.backends.append(backend)
        return backend

    @property
    def num_asked(self):
        return sum(backend.num_asked for backend in self.backends)


class Proposed:
    """Proposes all pairs."""

    name, threshold = "all", 0.0

    def find(self, test, train):
        return [Match(one, other, 0.5, {"by": "hand"}) for one in range(len(test)) for other in range(len(train))]


def share(number):
    return Answer(number, "said")


@pytest.mark.parametrize(
    ("shares", "outcome", "score"),
    [
        ((0.9, 0.8), "yes", 0.85),
        ((0.1, 0.3), "no", 0.2),
        ((0.51, 0.99), "yes", 0.75),  # far apart, and of one opinion
        ((0.6, 0.45), "yes", 0.525),  # of two opinions, and close
        ((0.55, 0.35), "no", 0.45),
        ((0.9, 0.2), "unknown", 0.55),
        ((0.1, 0.95), "unknown", 0.525),
    ],
)
def test_two_orders_make_an_outcome(shares, outcome, score):
    verdict = decide((share(shares[0]), share(shares[1])), Rules(0.5, 0.25))
    assert (verdict.outcome, verdict.score) == (outcome, pytest.approx(score))
    assert (verdict.reason == "orders_disagree") == (outcome == "unknown")


def test_threshold_and_margin_move_outcomes():
    both = (share(0.7), share(0.45))
    assert decide(both, Rules(0.5, 0.3)).outcome == "yes"
    assert decide(both, Rules(0.5, 0.2)).outcome == "unknown"
    assert decide(both, Rules(0.8, 0.0)).outcome == "no"
    assert decide(both, Rules(0.4, 0.0)).outcome == "yes"


def test_an_order_without_an_answer_is_unknown_however_sure_the_other_is():
    verdict = decide((share(0.0), Answer(None, None, "refused")), Rules())
    assert (verdict.outcome, verdict.score, verdict.reason) == ("unknown", None, "refused")


@pytest.mark.parametrize(
    ("text", "reason", "logprob", "expected"),
    [
        (" Yes", "stop", math.log(0.8), 0.8),
        (" No", "stop", math.log(0.8), 0.2),
        ("YES.", "stop", None, 1.0),
        ("no", "length", None, 0.0),
        (" Yes", "stop", 1e-9, 1.0),  # a rounding above 0
    ],
)
def test_answers_are_read(text, reason, logprob, expected):
    assert read_answer(text, reason, logprob, CHOICES).share == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "reason", "why"),
    [
        ("Yes and no", "stop", "other_answer"),
        ("Not the same", "stop", "other_answer"),
        ("", "stop", "other_answer"),
        ("Yesterday", "length", "other_answer"),
        ("", "prompt_too_long", "prompt_too_long"),
        ("I cannot help with that", "refused", "refused"),
        ("Yes", "refused", "refused"),
    ],
)
def test_what_is_no_answer_is_never_a_no(text, reason, why):
    found = read_answer(text, reason, -0.1, CHOICES)
    assert (found.share, found.reason) == (None, why)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_chat", [False, True])
def test_texts_are_asked_as_they_are(kind, is_chat):
    """Braces, marks of our own and line breaks in texts change nothing else of the question."""
    wording = Wording(kind, is_chat)
    texts = ("f = {first} and {second} {0}", "<<<\n{kind} %s\\n")
    asked = wording.prompt(*texts)
    text = asked[0]["content"] if is_chat else asked
    assert text.index(texts[0]) < text.index(texts[1]) and text.startswith(KINDS[kind])
    assert text.count(texts[0]) == text.count(texts[1]) == 1
    assert text.endswith("Answer with Yes or No." if is_chat else "Answer:")


def test_a_question_is_named_by_its_texts_their_order_and_the_wording():
    wording = Wording("math", is_chat=False)
    keys = {
        wording.key("a", "b"),
        wording.key("b", "a"),
        wording.key("a b", ""),
        Wording("code", is_chat=False).key("a", "b"),
        Wording("math", is_chat=True).key("a", "b"),
    }
    assert len(keys) == 5
    assert wording.key("a", "b") == Wording("math", is_chat=False).key("a", "b")


def test_a_real_model_judges_in_both_orders(tmp_path):
    engine = EngineArguments(model="embedded:tiny", backend="transformers")
    verdicts = Judge(engine, tmp_path, say=lambda text: None).verdicts([SAME, OTHER, SAME[::-1]])
    for verdict in verdicts:
        assert verdict.score == pytest.approx(sum(answer.share for answer in verdict.answers) / 2)
        assert all(answer.said in ("Yes", "No") and 0 < answer.share < 1 for answer in verdict.answers)
    # The other way round, the answers are the same, the other way round.
    assert verdicts[2].answers == verdicts[0].answers[::-1]
    rows = [json.loads(line) for line in next(tmp_path.glob("*/completions.jsonl")).read_text().splitlines()]
    assert len(rows) == 4


@pytest.mark.slow
def test_smollm_says_how_sure_it_is(tmp_path):
    """Its chat template is used; a copy is more alike to it than another subject."""
    engine = EngineArguments(model="embedded:smollm2-135m-instruct", backend="transformers", dtype="float32")
    judge = Judge(engine, tmp_path, "knowledge", say=lambda text: None)
    assert judge.wording.is_chat and judge.sampling.choices == ("Yes", "No")
    (copy,) = judge.verdicts([("What is the capital of France?", "What is the capital of France?")])
    assert copy.answers[0] == copy.answers[1] and 0 < copy.score < 1


def test_what_was_asked_is_not_asked_again(tmp_path):
    first = Heard(tmp_path)
    first.verdicts([SAME, OTHER])
    assert first.num_asked == 4
    second = Heard(tmp_path)
    # Other rows, other order, one new pair: two new questions.
    verdicts = second.verdicts([OTHER[::-1], SAME, ("one", "two"), SAME])
    assert second.num_asked == 2
    assert [verdict.outcome for verdict in verdicts] == ["yes"] * 4
    third = Heard(tmp_path)
    third.verdicts([SAME])
    assert third.num_asked == 0 and not third.backends


def test_a_text_that_equals_another_is_asked_about_once(tmp_path):
    judge = Heard(tmp_path)
    judge.verdicts([("same", "same")])
    assert judge.num_asked == 1


def test_other_wordings_and_models_have_answers_of_their_own(tmp_path):
    Heard(tmp_path).verdicts([SAME])
    other = Heard(tmp_path, lambda first, second: " No", kind="code")
    assert other.verdicts([SAME])[0].outcome == "no"
    assert len(list(tmp_path.iterdir())) == 2


def test_orders_that_disagree_are_unknown(tmp_path):
    judge = Heard(tmp_path, lambda first, second: " Yes" if first == SAME[0] else " No")
    (verdict,) = judge.verdicts([SAME])
    assert (verdict.outcome, verdict.reason, verdict.score) == ("unknown", "orders_disagree", 0.5)
    assert any("1 yes in one order, no in the other" in line for line in judge.lines)


def test_other_answers_are_unknown_and_kept_to_be_read(tmp_path):
    judge = Heard(tmp_path, lambda first, second: "They are alike." if "circle" in second else (" No", 0.9))
    verdicts = judge.verdicts([SAME, OTHER])
    assert [verdict.outcome for verdict in verdicts] == ["no", "unknown"]
    assert verdicts[1].evidence()["said"] == ["They are alike.", "No"]
    assert "judge: 0 yes, 1 no, 1 unknown of 2 pairs." in judge.lines


def test_refusals_are_unknown(tmp_path):
    judge = Heard(tmp_path, lambda first, second: Completion("", None, "refused", 0))
    assert judge.verdicts([SAME])[0].reason == "refused"


def test_a_pair_of_a_megabyte_is_unknown_and_the_others_are_judged(tmp_path):
    engine = EngineArguments(model="embedded:tiny", backend="transformers")
    long = "A very long problem. " * 50_000
    verdicts = Judge(engine, tmp_path, say=lambda text: None).verdicts([(long, SAME[0]), SAME])
    assert (verdicts[0].outcome, verdicts[0].reason) == ("unknown", "prompt_too_long")
    assert verdicts[1].outcome in ("yes", "no")


def chat_judge(server, folder, **settings):
    engine = EngineArguments(
        model="m", backend="server", endpoint="chat", server_urls=[server.url], patience=0.3, timeout=0.3
    )
    lines = []
    return Judge(engine, folder, say=lines.append, logprobs=False, **settings), lines


def test_a_server_that_ignores_the_choices_is_found_out(tmp_path):
    with ScriptedServer(lambda number, body: answer(body, "Both ask for a sum.")) as server:
        judge, _ = chat_judge(server, tmp_path)
        verdicts = judge.verdicts([SAME])
    assert (verdicts[0].outcome, verdicts[0].reason) == ("unknown", "other_answer")


def test_a_server_that_filters_a_pair(tmp_path):
    def script(number, body):
        if "circle" in body["messages"][0]["content"]:
            return error(400, "no", code="content_filter")
        return answer(body, "Yes")

    with ScriptedServer(script) as server:
        judge, _ = chat_judge(server, tmp_path)
        verdicts = judge.verdicts([SAME, OTHER])
    assert [(verdict.outcome, verdict.reason) for verdict in verdicts] == [("yes", None), ("unknown", "refused")]


def test_a_server_that_never_answers_leaves_pairs_unknown_and_is_asked_again(tmp_path):
    with ScriptedServer(lambda number, body: HANG) as server:
        judge, lines = chat_judge(server, tmp_path)
        verdicts = judge.verdicts([SAME, OTHER])
    assert [verdict.reason for verdict in verdicts] == ["not_answered"] * 2
    assert any("the same command asks for it again" in line for line in lines)
    with ScriptedServer(lambda number, body: answer(body, "No")) as server:
        judge, _ = chat_judge(server, tmp_path)
        assert [verdict.outcome for verdict in judge.verdicts([SAME, OTHER])] == ["no", "no"]


def test_a_budget_ends_it_before_it_is_passed(tmp_path):
    judge = Heard(tmp_path, budget=Budget(Price(1e6, 1e6)))
    lengths = [len(question.ids) for question in judge.plan([SAME, OTHER]).prompts]
    assert f"cost: at most {sum(lengths) + 8 * 4:,.2f}" in judge.outlook([SAME, OTHER])
    # Room for two questions at most: the last pair is not asked.
    small = Heard(tmp_path / "small", budget=Budget(Price(1e6, 1e6), max_cost=sum(lengths[:2]) + 2 * 8))
    verdicts = small.verdicts([SAME, OTHER])
    assert small.num_asked == 2
    assert [verdict.reason for verdict in verdicts] == [None, "not_answered"]
    assert small.spent(small.plan([SAME, OTHER])).usage == (sum(lengths[:2]), 2)
    assert any("max_cost" in line for line in small.lines)
    # With more, the same command goes on.
    larger = Heard(tmp_path / "small", budget=Budget(Price(1e6, 1e6), max_cost=10 * sum(lengths)))
    assert [verdict.outcome for verdict in larger.verdicts([SAME, OTHER])] == ["yes", "yes"]
    assert larger.num_asked == 2


def test_a_judge_that_is_killed_goes_on(tmp_path):
    """A real process and a real kill: no question twice, and the outcomes of a run that was not killed."""
    command = [sys.executable, str(SCRIPT), str(tmp_path / "judge"), "0.05"]
    process = subprocess.Popen(command, env=quiet_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    count = lambda: sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("judge/*/completions.jsonl"))  # noqa: E731
    wait_for(lambda: count() > 20, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = count()
    assert 20 < before < 2 * len(MANY)
    outcomes = [verdict.outcome for verdict in number_judge(tmp_path / "judge").verdicts(MANY)]
    assert outcomes == ["yes", "no"] * (len(MANY) // 2)
    rows = [json.loads(line) for line in next(tmp_path.glob("judge/*/completions.jsonl")).read_text().splitlines()]
    assert len(rows) == 2 * len(MANY) == len({row["problem_id"] for row in rows})


def test_a_judge_is_a_detector_of_what_another_proposes(tmp_path):
    def opinion(first, second):
        if "unclear" in first + second:
            return "Perhaps"
        return (" Yes", 0.75) if first[0] == second[0] else " No"

    detector = JudgeDetector(Heard(tmp_path, opinion), Proposed())
    assert isinstance(detector, Detector)
    test, train = ["apple", "berry", "unclear"], ["beet", "avocado", "cherry"]
    matches = detector.find(test, train)
    assert [(match.test, match.train, is_unknown(match)) for match in matches] == [
        (0, 1, False),
        (1, 0, False),
        (2, 0, True),
        (2, 1, True),
        (2, 2, True),
    ]
    assert all(match.score >= detector.threshold for match in matches)
    assert matches[0].score == pytest.approx(0.75)
    assert matches[0].evidence["candidate"] == {"detector": "all", "score": 0.5, "by": "hand"}
    bounds = item_bounds(matches, len(test))
    assert (bounds.low.value, bounds.high.value) == (pytest.approx(2 / 3), 1.0)
    scores = detector.score_pairs(["apple", "apple", "unclear"], ["avocado", "beet", "x"])
    assert scores[:2] == [pytest.approx(0.75), 0.0] and math.isnan(scores[2])


def test_no_candidates_start_no_engine(tmp_path):
    judge = Heard(tmp_path)
    assert JudgeDetector(judge, Proposed()).find([], ["a"]) == [] and not judge.backends


def test_what_is_unknown_widens_the_share_and_is_never_clean():
    bounds = share_bounds(3, 2, 10)
    assert (bounds.low.value, bounds.high.value) == (0.3, 0.5)
    assert bounds.low.low < 0.3 and bounds.high.high > 0.5
    assert "of which 2 are unknown" in str(bounds)
    # An item with one yes is contaminated, whatever else is unknown of it.
    unknown = {"outcome": "unknown"}
    matches = [Match(0, 0, 0.9, {"outcome": "yes"}), Match(0, 1, 0.5, unknown), Match(1, 1, 0.5, unknown)]
    assert item_bounds(matches, 4)[2:] == (1, 1, 4)
    assert item_bounds([Match(3, 0, 1.0, {})], 4)[2:] == (1, 0, 4)  # of a detector that always knows


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "maths"}, "Did you mean 'math'"),
        ({"rules": Rules(threshold=1.0)}, "threshold must be between 0 and 1"),
        ({"rules": Rules(margin=-0.1)}, "margin must be from 0"),
    ],
)
def test_bad_settings_are_refused_in_a_line(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        Heard(tmp_path, **settings)


def test_a_judge_without_a_model_or_candidates(tmp_path):
    with pytest.raises(UsageError, match="Which model judges"):
        Judge(EngineArguments(), tmp_path)
    with pytest.raises(UsageError, match="another detector that proposes"):
        JudgeDetector(Heard(tmp_path)).find(["a"], ["b"])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    judge = Heard(tmp_path)
    judge.folder.mkdir(parents=True)
    (judge.folder / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="not empty"):
        judge.verdicts([SAME])
