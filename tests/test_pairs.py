"""What does not depend on the rule: who may serve, limits, weights, the split, openings, the negative control."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from pair_samples import END, decode, encode, mixed, problem, sample

from trl_math.data.pair_candidates import shingles
from trl_math.data.pairs import PairSettings, ProblemSamples, build_pairs
from trl_math.errors import DataError, UsageError


FENCE = "```python\n"


def built(*problems: Any, **settings: Any) -> Any:
    return build_pairs(problems, PairSettings(**settings), decode=decode)


def indices(build: Any) -> set[tuple[int, int]]:
    return {(row["chosen_index"], row["rejected_index"]) for row in build.rows}


def test_who_may_serve() -> None:
    """Unjudged, unfinished and empty samples serve on no side, and each is counted under its name."""
    rows = [
        sample("a 42", True, 0),
        sample("b 42", True, 1, finish_reason="length"),
        sample("c 1", False, 2),
        sample("d 2", False, 3, finish_reason="length"),
        sample("e 3", False, 4, finish_reason="max_errors"),
        sample("f 4", None, 5),
        sample("", False, 6, finish_reason="prompt_too_long"),
    ]
    build = built(problem(rows), rule="all")
    assert indices(build) == {(0, 2)}
    assert build.dropped == {"samples: unfinished": 3, "samples: no verdict": 1, "samples: empty": 1}
    assert (build.rows[0]["pass_rate"], build.rows[0]["num_samples"]) == (2 / 6, 6)
    build = built(problem(rows), rule="all", unfinished="rejected")
    assert indices(build) == {(0, 2), (0, 3), (0, 4)}
    assert build.dropped["samples: unfinished though right"] == 1
    unfinished = next(row for row in build.rows if row["rejected_index"] == 3)
    assert unfinished["rejected_ids"] == encode("d 2") and unfinished["rejected_finish_reason"] == "length"
    assert unfinished["chosen_ids"][-1] == END


def test_a_row_that_does_not_say_how_it_ended_has_ended() -> None:
    rows = [sample("a 42", True, 0, finish_reason=None), sample("b 1", False, 1)]
    del rows[1]["finish_reason"]
    assert indices(built(problem(rows))) == {(0, 1)}


def test_one_sided_problems_have_no_pairs() -> None:
    build = built(mixed("a", 3, 0), mixed("b", 0, 3), problem([sample("x", None)], "c"), mixed("d", 1, 1))
    assert [row["problem_id"] for row in build.rows] == ["d"]
    assert build.dropped == {
        "problems: all samples right": 1,
        "problems: no sample right": 1,
        "problems: no sample has a verdict": 1,
    }


def test_a_text_that_was_judged_both_ways_serves_on_no_side() -> None:
    rows = [sample("42", True, 0), sample("42", False, 1), sample("so 42", True, 2), sample("so 1", False, 3)]
    build = built(problem(rows), rule="all")
    assert indices(build) == {(2, 3)} and build.dropped == {"samples: right and wrong at once": 2}
    build = built(problem(rows[:2]))
    assert not build.rows and build.dropped["problems: all was left out"] == 1


def test_duplicates() -> None:
    """Equal texts count once; near ones too if asked; a changed number is another text only below the threshold."""
    long = "we add the first number to the second number and then we take away three, so it is"
    rows = [sample(f"{long} 42", True, 0), sample(f"{long} 42", True, 1), sample(f"{long.upper()}  42 .", True, 2)]
    rows += [sample("no 1", False, 3), sample("no 1", False, 4), sample("no 2", False, 5)]
    assert len(built(problem(rows), rule="all", duplicates="keep").rows) == 9
    assert indices(built(problem(rows), rule="all")) == {(0, 3), (2, 3), (0, 5), (2, 5)}
    near = built(problem(rows), rule="all", duplicates="near")
    assert indices(near) == {(0, 3), (0, 5)} and near.dropped == {"samples: duplicate": 3}
    assert len(built(problem(rows), rule="all", duplicates="near", near_threshold=1.0).rows) == 4


def test_shingles() -> None:
    assert shingles("A b  c\nd e f") == {("a", "b", "c", "d", "e"), ("b", "c", "d", "e", "f")}
    assert shingles("x=1") == {("x", "=", "1")} and shingles("") == {()}


def test_band_of_pass_rates_is_inclusive() -> None:
    problems = [mixed(f"p/{right}", right, 10 - right) for right in range(11)]
    build = built(*problems, rule="max_min", min_pass_rate=0.2, max_pass_rate=0.6)
    assert [row["problem_id"] for row in build.rows] == ["p/2", "p/3", "p/4", "p/5", "p/6"]
    assert build.dropped["problems: pass rate outside of the band"] == 4


def test_cap_counts_what_it_leaves_out() -> None:
    build = built(mixed(right=4, wrong=6), rule="all", max_pairs_per_problem=5)
    assert len(build.rows) == 5 and build.dropped == {"pairs: more than max_pairs_per_problem": 19}


def test_equal_problems_weigh_the_same() -> None:
    """The weights of each problem's pairs sum to the same, with mean 1; without weighting there is no column."""
    problems = [mixed("a", 4, 6), mixed("b", 1, 9), mixed("c", 2, 2), mixed("d", 3, 3), mixed("e", 5, 1)]
    build = built(*problems, weighting="equal_problems", eval_problems=2)
    for rows in (build.rows, build.eval_rows):
        sums: Counter[str] = Counter()
        for row in rows:
            sums[row["problem_id"]] += row["weight"]
        assert max(sums.values()) == pytest.approx(min(sums.values()))
        assert sum(sums.values()) == pytest.approx(len(rows))
    assert "weight" not in built(*problems).rows[0]


@pytest.mark.parametrize("asked", [{"eval_problems": 3}, {"eval_fraction": 0.3}, {"eval_fraction": 0.01}])
def test_split_by_problem(asked: dict[str, Any]) -> None:
    """A problem is on one side, prompts and all; the split is the same in any order and without one-sided problems."""
    problems = [mixed(f"p/{number}", 2, 3) for number in range(10)]
    problems += [problem(one.samples, one.problem_id, "again:") for one in problems[:5]]
    one_sided = [mixed(f"one/{number}", 3, 0) for number in range(5)]
    build = built(*problems, *one_sided, **asked)
    train, held_out = ({row["problem_id"] for row in rows} for rows in (build.rows, build.eval_rows))
    assert not train & held_out and len(train | held_out) == 10
    assert len(held_out) == (1 if asked.get("eval_fraction") == 0.01 else 3)
    assert built(*problems[::-1], **asked)[:2] == build[:2]
    others = built(*problems, **asked, seed=1)
    assert {row["problem_id"] for row in others.eval_rows} != held_out


def test_split_must_leave_something_to_train_on() -> None:
    with pytest.raises(UsageError, match="2 problems were to be held out, and 2 have pairs"):
        built(mixed("a"), mixed("b"), eval_problems=2)


def test_limits() -> None:
    """Prompts and samples over a limit are left out and counted; the limits themselves are allowed."""
    rows = [sample("a 42", True, 0), sample("no 1", False, 1), sample("well 12", False, 2)]
    build = built(problem(rows), rule="all", max_tokens=5)
    assert indices(build) == {(0, 1)} and build.dropped == {"samples: longer than max_tokens": 1}
    build = built(problem(rows), rule="all", max_length=7)
    assert indices(build) == {(0, 1)} and build.dropped == {"samples: longer than max_length": 1}
    build = built(problem(rows), problem(rows, "q", "long:"), rule="all", max_prompt_tokens=2)
    assert {row["problem_id"] for row in build.rows} == {"p"}
    assert build.dropped == {"problems: prompt longer than max_prompt_tokens": 1}


def test_prompts_never_mix() -> None:
    """Samples of one problem under two prompts are paired within each."""
    one = problem([sample("a 42", True, 0), sample("b 1", False, 1)], "p", "Q:")
    other = problem([sample("c 42", True, 2), sample("d 1", False, 3)], "p", "Frage:")
    build = built(one, other, rule="all")
    assert {(row["prompt"], row["chosen"], row["rejected"]) for row in build.rows} == {
        ("Q:", "a 42", "b 1"),
        ("Frage:", "c 42", "d 1"),
    }


def test_mismatched_prompts() -> None:
    """The control: prompts of the same problem, whichever was answered; it is off unless asked for, and needs two."""
    prompts = ["Q:", "Frage:", "Question:"]
    problems = [problem(mixed("p", 6, 6).samples[place::3], "p", prompt) for place, prompt in enumerate(prompts)] + [
        mixed("q", 2, 2)
    ]
    build = built(*problems, rule="all", mismatch_prompts=True)
    asked = {row["sample_index"]: row["prompt"] for one in problems[:3] for row in one.samples}
    rows = [row for row in build.rows if row["problem_id"] == "p"]
    assert len(rows) == 36 and {row["prompt"] for row in rows} == set(prompts)
    assert all(row["prompt_ids"] == encode(row["prompt"]) for row in rows)
    matching = sum(row["prompt"] == asked[row["chosen_index"]] for row in rows)
    assert 0 < matching < 24  # a third of 36 is expected
    assert all(row["prompt"] == "Q q:" for row in build.rows if row["problem_id"] == "q")
    with pytest.raises(UsageError, match="needs problems that were asked with several prompts"):
        built(mixed("q", 2, 2), mismatch_prompts=True)


def fenced(text: str, correct: bool, index: int, **changes: Any) -> dict[str, Any]:
    return sample(f"{FENCE}{text}", correct, index, **changes)


def test_prefix_moves_into_the_prompt() -> None:
    """With its tokens; spans of tool output and log-probabilities move along."""
    start = len(FENCE)
    rows = [
        fenced("print(42)", True, 0, tool_spans=[[start + 6, start + 9]], token_logprobs=[-1.0] * (start + 10)),
        fenced("print(1)", False, 1, token_logprobs=[-2.0] * (start + 9)),
        sample("no code", False, 2),
        sample("``", False, 3),
    ]
    build = built(problem(rows), rule="all", prefix_to_prompt=FENCE)
    [row] = build.rows
    assert (row["prompt"], row["chosen"], row["rejected"]) == (f"Q:{FENCE}", "print(42)", "print(1)")
    assert row["prompt_ids"] == encode(row["prompt"]) and row["chosen_ids"] == [*encode("print(42)"), END]
    assert row["chosen_mask"] == [1] * 6 + [0] * 3 + [1] and row["rejected_mask"] == [1] * 9
    assert (row["chosen_logprob"], row["rejected_logprob"]) == (-10.0, -18.0)
    assert build.dropped == {"samples: without the prefix": 2}


def test_prefix_must_end_where_a_token_ends() -> None:
    """Tokens of two bytes: the fence is cut where one ends in even places only; never within a tool's output."""

    def wide(ids: Any) -> str:
        return decode(byte for token in ids for byte in divmod(token, 256) if token != END and byte)

    def pairs_of(text: str) -> list[int]:
        padded = [*encode(text), 0] if len(text) % 2 else encode(text)
        return [first * 256 + second for first, second in zip(padded[::2], padded[1::2], strict=True)]

    rows = [
        sample(text, right, n, completion_ids=pairs_of(text))
        for n, (text, right) in enumerate([("ab 42", True), ("ab 1", False)])
    ]
    even = build_pairs([problem(rows)], PairSettings(prefix_to_prompt="ab"), decode=wide)
    assert even.rows[0]["prompt_ids"] == [*encode("Q:"), *pairs_of("ab")]
    odd = build_pairs([problem(rows)], PairSettings(prefix_to_prompt="a"), decode=wide)
    assert not odd.rows and odd.dropped["samples: prefix ends within a token"] == 2
    tool = [sample("ab 42", True, 0, tool_spans=[[1, 3]]), sample("ab 1", False, 1)]
    inside = built(problem(tool), prefix_to_prompt="ab")
    assert not inside.rows and inside.dropped["samples: prefix ends within a token"] == 1


def test_prefix_has_the_same_tokens_in_both() -> None:
    """A prompt has one sequence of tokens: of two ways to write the prefix, the frequent one is kept."""
    joined = {300: "ab"}

    def merged(ids: Any) -> str:
        return "".join(joined.get(token) or decode([token]) for token in ids)

    def rows_of(*texts: tuple[str, bool, bool]) -> list[dict[str, Any]]:
        return [
            sample(
                text, right, number, completion_ids=[300, *encode(text[2:]), END] if short else [*encode(text), END]
            )
            for number, (text, right, short) in enumerate(texts)
        ]

    rows = rows_of(("ab 42", True, True), ("ab 1", False, True), ("ab 2", False, False), ("ab 3", False, True))
    build = build_pairs([problem(rows)], PairSettings(rule="all", prefix_to_prompt="ab"), decode=merged)
    assert indices(build) == {(0, 1), (0, 3)}
    assert build.rows[0]["prompt_ids"] == [*encode("Q:"), 300]
    assert build.dropped == {"samples: prefix in other tokens than most": 1}


def test_prefix_of_a_conversation_is_what_the_assistant_began_to_say() -> None:
    prompt = [{"role": "user", "content": "Q:"}]
    rows = [fenced("print(42)", True, 0), fenced("print(1)", False, 1)]
    [row] = built(problem(rows, prompt=prompt), prefix_to_prompt=FENCE).rows
    assert row["prompt"] == [*prompt, {"role": "assistant", "content": FENCE}]
    assert row["chosen"] == [{"role": "assistant", "content": "print(42)"}]
    assert row["prompt_ids"] == encode(f"Q:{FENCE}")
    conversation = problem(rows, prompt=prompt, with_ids=False)
    for others in ([], [problem(rows, "a", with_ids=False)]):
        with pytest.raises(UsageError, match="prefix_to_prompt cannot cut the text of a conversation"):
            built(*others, conversation, prefix_to_prompt=FENCE)


def test_prefix_of_texts() -> None:
    rows = [fenced("print(42)", True, 0), fenced("print(1)", False, 1)]
    [row] = built(problem(rows, with_ids=False), prefix_to_prompt=FENCE).rows
    assert (row["prompt"], row["chosen"]) == (f"Q:{FENCE}", "print(42)")


def test_rows_are_uniform() -> None:
    """All rows of a build have the same columns: masks in all of them if any sample has the output of a program."""
    with_tool = problem([sample("a 42", True, 0, tool_spans=[[0, 2]]), sample("b 1", False, 1)], "t")
    build = built(mixed("a"), with_tool, mixed("b"), eval_problems=1)
    assert len({tuple(row) for row in [*build.rows, *build.eval_rows]}) == 1
    assert all(len(row["chosen_mask"]) == len(row["chosen_ids"]) for row in build.rows)
    assert "chosen_mask" not in built(mixed("a"), mixed("b")).rows[0]


def test_what_a_row_says() -> None:
    rows = [sample("a 42", True, 3, logprob=-1.5, sampler="x"), sample("b 1", False, 5, logprob=-2.5, sampler="y")]
    [row] = built(problem(rows), rule="max_min").rows
    assert row == {
        "prompt": "Q:",
        "chosen": "a 42",
        "rejected": "b 1",
        "problem_id": "p",
        "pass_rate": 0.5,
        "num_samples": 2,
        "rule": "max_min",
        "answer": "42",
        "prompt_ids": encode("Q:"),
        "chosen_ids": [*encode("a 42"), END],
        "rejected_ids": [*encode("b 1"), END],
        "chosen_answer": "42",
        "chosen_index": 3,
        "chosen_finish_reason": "stop",
        "chosen_logprob": -1.5,
        "rejected_answer": "1",
        "rejected_index": 5,
        "rejected_finish_reason": "stop",
        "rejected_logprob": -2.5,
        "sampler": "x|y",
    }


def test_problems_come_in_their_natural_order() -> None:
    build = built(*(mixed(f"p/{number}", 1, 1) for number in (10, 9, 2, 1)))
    assert [row["problem_id"] for row in build.rows] == ["p/1", "p/2", "p/9", "p/10"]
    assert all(first != second for first, second in pairwise(row["problem_id"] for row in build.rows))


def test_ids_that_differ_in_zeros_only() -> None:
    """`p/1` and `p/01` are two problems, also where they come in parts and under several prompts."""
    parts = [
        problem([row], name, prompt)
        for row in mixed("p", 2, 2).samples
        for name in ("p/01", "p/1")
        for prompt in ("Q:", "Frage:")
    ]
    whole = [
        problem(mixed("p", 2, 2).samples, name, prompt) for name in ("p/01", "p/1") for prompt in ("Q:", "Frage:")
    ]
    for settings in ({"rule": "all"}, {"rule": "all", "mismatch_prompts": True}):
        assert built(*parts, **settings) == built(*whole, **settings)


def refused(kind: type, said: str, *problems: Any, **settings: Any) -> None:
    with pytest.raises(kind) as error:
        build_pairs(problems, PairSettings(**settings))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_bad_samples() -> None:
    row = sample("a 42", True)
    ungraded = {key: value for key, value in row.items() if key != "correct"}
    refused(DataError, "is not graded", problem([ungraded]))
    refused(DataError, "`correct` must be true, false or null, got 'yes'", problem([row | {"correct": "yes"}]))
    wrong = sample("b 1", False, 1)
    refused(
        DataError, "There are 1 token_logprobs for the 5 tokens", problem([row | {"token_logprobs": [1.0]}, wrong])
    )
    for spans in ([[2, 9]], [[3, 2]], [[2, 4], [1, 2]]):
        refused(DataError, "tool_spans of sample 0 of 'p' must be", problem([row | {"tool_spans": spans}, wrong]))
    tool = row | {"tool_spans": [[0, 1]]}
    refused(DataError, "cannot be kept out of training", problem([tool, wrong], with_ids=False))
    refused(DataError, "pairs are tokens, or all are texts", mixed("a"), mixed("b", with_ids=False))
    refused(
        DataError, "has one kind of prompt", mixed("a"), problem([row, wrong], "b", [{"role": "user", "content": "Q"}])
    )
    other = ProblemSamples("p", "Q:", [1, 2], None, [])
    refused(DataError, "has different tokens", problem([row]), other)
    uncounted = [one | {"num_tokens": None} for one in (row, wrong)]
    refused(UsageError, "max_tokens needs samples whose", problem(uncounted, with_ids=False), max_tokens=3)
    refused(UsageError, "max_length needs the tokens of prompts", mixed("a", with_ids=False), max_length=3)
    refused(UsageError, "needs `decode`", mixed("a"), rule="first_divergence")
    without_ids = [row, wrong | {"completion_ids": None}]
    assert built(problem(without_ids)).dropped["samples: without token ids"] == 1
