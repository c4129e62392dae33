"""Every rule, on any samples: right against wrong of the same prompt, each used as often as the rule says."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_samples import decode, encode, mixed, problem, sample

from trl_math.data.columns import PAIRS
from trl_math.data.pair_rules import NEED_NUMBER, PAIR_RULES
from trl_math.data.pairs import PairSettings, build_pairs
from trl_math.errors import UsageError


def with_rule(rule: str, **changes: Any) -> PairSettings:
    return PairSettings(**({"rule": rule, "pairs_per_problem": 2 if rule in NEED_NUMBER else None} | changes))


@st.composite
def many_problems(draw: Any) -> list[Any]:
    """Problems of a few samples over a small alphabet: with ties, duplicates, unfinished and unjudged ones."""
    problems = []
    for name in range(draw(st.integers(1, 5))):
        rows = []
        for index in range(draw(st.integers(0, 8))):
            text = draw(st.text("aé\U0001f600 1", max_size=6))
            reason = draw(st.sampled_from(["stop", "stop", "stop", "length", "max_errors"]))
            row = sample(text, draw(st.sampled_from([True, False, False, None])), index, finish_reason=reason)
            length = len(row["completion_ids"])
            start = draw(st.integers(0, length))
            end = draw(st.integers(start, length))
            rows.append(row | ({"tool_spans": [[start, end]]} if start < end and draw(st.booleans()) else {}))
        problems.append(problem(rows, f"p/{name}", f"Q{name}:"))
    return problems


@pytest.mark.parametrize("rule", PAIR_RULES)
@settings(deadline=None, max_examples=40)
@given(problems=many_problems(), unfinished=st.sampled_from(["drop", "rejected"]), seed=st.integers(0, 3))
def test_laws_of_all_rules(rule: str, problems: list[Any], unfinished: str, seed: int) -> None:
    """Right against wrong, of one prompt, the tokens and texts of the samples, masks as long as they are."""
    wanted = with_rule(rule, unfinished=unfinished, seed=seed)
    build = build_pairs(problems, wanted, decode=decode)
    rows = {(one.problem_id, row["sample_index"]): row for one in problems for row in one.samples}
    prompts = {one.problem_id: one for one in problems}
    assert build.statistics.num_pairs == len(build.rows) and not build.eval_rows
    for pair in build.rows:
        assert set(PAIRS.required) <= set(pair) <= set(PAIRS.columns)
        asked = prompts[pair["problem_id"]]
        chosen, rejected = (rows[pair["problem_id"], pair[f"{side}_index"]] for side in ("chosen", "rejected"))
        assert (chosen["correct"], rejected["correct"]) == (True, False)
        assert chosen["finish_reason"] == "stop" and chosen["completion"] != rejected["completion"]
        assert rejected["finish_reason"] == "stop" or unfinished == "rejected"
        for side, row in (("chosen", chosen), ("rejected", rejected)):
            _check_side(pair, side, row, asked)
        verdicts = [row["correct"] for row in asked.samples if row["correct"] is not None]
        assert pair["pass_rate"] == sum(verdicts) / len(verdicts) and pair["num_samples"] == len(verdicts)


def _check_side(pair: dict[str, Any], side: str, row: dict[str, Any], asked: Any) -> None:
    ids = pair[f"{side}_ids"]
    assert [*pair["prompt_ids"], *ids] == [*asked.prompt_ids, *row["completion_ids"]]
    assert pair["prompt"] + pair[side] == asked.prompt + row["completion"]
    assert encode(pair["prompt"]) == pair["prompt_ids"]
    assert ids
    if "chosen_mask" in pair:
        moved = len(row["completion_ids"]) - len(ids)
        tools = {place for start, end in row.get("tool_spans", []) for place in range(start, end)}
        assert pair[f"{side}_mask"] == [int(place + moved not in tools) for place in range(len(ids))]
        assert any(pair[f"{side}_mask"])
    else:
        assert "tool_spans" not in row


@pytest.mark.parametrize("rule", PAIR_RULES)
@settings(deadline=None, max_examples=15)
@given(problems=many_problems(), data=st.data())
def test_order_does_not_matter(rule: str, problems: list[Any], data: Any) -> None:
    """Shuffled problems and samples, and problems given in parts, make the same pairs; so does the same seed again."""
    wanted = with_rule(rule, eval_problems=0)
    shuffled = [
        type(one)(one.problem_id, one.prompt, one.prompt_ids, one.answer, part)
        for one in data.draw(st.permutations(problems))
        for part in _parts(data.draw(st.permutations(one.samples)), data)
    ]
    first, second = (build_pairs(each, wanted, decode=decode) for each in (problems, shuffled))
    assert first == second


def _parts(rows: list[Any], data: Any) -> list[list[Any]]:
    cut = data.draw(st.integers(0, len(rows)))
    return [rows[:cut], rows[cut:]]


@pytest.mark.parametrize("rule", PAIR_RULES)
@pytest.mark.parametrize("cap", [None, 2, 7])
def test_how_often_a_sample_is_used(rule: str, cap: int | None) -> None:
    """No pair twice, no more than the cap; and the rules that say so use no sample twice."""
    wanted = with_rule(rule, max_pairs_per_problem=cap)
    build = build_pairs([mixed("a", 4, 6), mixed("b", 5, 2), mixed("c", 1, 1)], wanted, decode=decode)
    pairs = [(row["problem_id"], row["chosen_index"], row["rejected_index"]) for row in build.rows]
    assert len(set(pairs)) == len(pairs) > 0
    assert max(Counter(name for name, _, _ in pairs).values()) <= (cap or 99)
    if rule not in ("all", "random"):
        for side in (1, 2):
            assert max(Counter((pair[0], pair[side]) for pair in pairs).values()) == 1


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ("all", {"a": 24, "b": 10, "c": 1}),
        ("random", {"a": 3, "b": 3, "c": 1}),
        ("max_min", {"a": 1, "b": 1, "c": 1}),
        ("balanced", {"a": 4, "b": 2, "c": 1}),
        ("fixed", {"a": 3}),
        ("short_correct_long_wrong", {"a": 1, "b": 1, "c": 1}),
        ("length_matched", {"a": 1, "b": 1, "c": 1}),
        ("first_divergence", {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_how_many_pairs(rule: str, numbers: dict[str, int]) -> None:
    problems = [mixed("a", 4, 6), mixed("b", 5, 2), mixed("c", 1, 1)]
    number = 3 if rule in NEED_NUMBER else None
    build = build_pairs(problems, PairSettings(rule=rule, pairs_per_problem=number), decode=decode)
    assert Counter(row["problem_id"] for row in build.rows) == numbers
    assert all(row["rule"] == rule for row in build.rows)


def test_fixed_leaves_out_or_draws_again() -> None:
    """Problems with too few samples are counted; with replacement they have exactly as many pairs as the others."""
    problems = [mixed("a", 4, 6), mixed("b", 1, 2)]
    plain = build_pairs(problems, PairSettings(rule="fixed", pairs_per_problem=4))
    assert {row["problem_id"] for row in plain.rows} == {"a"}
    assert plain.dropped == {"problems: too few samples for pairs_per_problem": 1}
    again = build_pairs(problems, PairSettings(rule="fixed", pairs_per_problem=50, with_replacement=True))
    assert Counter(row["problem_id"] for row in again.rows) == {"a": 50, "b": 50}


def test_max_min_takes_the_first_of_each_side() -> None:
    rows = [sample("b 1", False, 1), sample("a 42", True, 3), sample("c 2", False, 0), sample("d 42", True, 2)]
    [row] = build_pairs([problem(rows)], PairSettings(rule="max_min")).rows
    assert (row["chosen_index"], row["rejected_index"]) == (2, 0)


def test_rules_of_length() -> None:
    rows = [sample("x" * length, True, length) for length in (5, 9)]
    rows += [sample("y" * length, False, length) for length in (3, 8, 20)]
    pairs = {
        rule: [(row["chosen_index"], row["rejected_index"]) for row in build_pairs([problem(rows)], wanted).rows]
        for rule in ("short_correct_long_wrong", "length_matched")
        for wanted in [PairSettings(rule=rule, pairs_per_problem=2)]
    }
    assert pairs == {"short_correct_long_wrong": [(5, 20), (9, 8)], "length_matched": [(9, 8), (5, 3)]}


def test_first_divergence_moves_what_is_shared() -> None:
    """The pair with the longest common beginning, cut where the two part."""
    rows = [
        sample("2+2 is 4, so 42", True, 0),
        sample("First, 42", True, 1),
        sample("2+2 is 5, so 7", False, 2),
        sample("Well, 7", False, 3),
    ]
    [row] = build_pairs([problem(rows)], PairSettings(rule="first_divergence"), decode=decode).rows
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Q:2+2 is ", "4, so 42", "5, so 7")
    assert row["prompt_ids"] == encode(row["prompt"])


def test_first_divergence_cuts_no_character_and_no_output() -> None:
    """é and è share their first byte; and a cut within a program's output would train half of it."""
    rows = [sample("caf\u00e9 42", True, 0), sample("caf\u00e8 7", False, 1)]
    [row] = build_pairs([problem(rows)], PairSettings(rule="first_divergence"), decode=decode).rows
    assert (row["prompt"], row["chosen"]) == ("Q:caf", "\u00e9 42")
    rows = [
        sample("run: 42 out", True, 0, tool_spans=[[5, 8]]),
        sample("run: 41 out", False, 1, tool_spans=[[5, 8]]),
    ]
    [row] = build_pairs([problem(rows)], PairSettings(rule="first_divergence"), decode=decode).rows
    assert (row["prompt"], row["chosen_mask"]) == ("Q:run: ", [0, 0, 0, 1, 1, 1, 1])


def test_first_divergence_leaves_the_end() -> None:
    """Where one response begins with all of the other, the lesson is where to stop."""
    rows = [sample("42", True, 0), sample("42 or so", False, 1)]
    [row] = build_pairs([problem(rows)], PairSettings(rule="first_divergence"), decode=decode).rows
    assert (row["prompt"], row["chosen_ids"], row["rejected"]) == ("Q:42", [256], " or so")


def test_first_divergence_of_texts() -> None:
    """Texts are cut before white space, so that no tokenizer joins what is on the two sides."""
    rows = [sample(" it is 42", True, 0), sample(" it is 43", False, 1)]
    [row] = build_pairs([problem(rows, with_ids=False)], PairSettings(rule="first_divergence")).rows
    assert (row["prompt"], row["chosen"], row["rejected"]) == ("Q: it is", " 42", " 43")
    assert "prompt_ids" not in row


def test_seeds_differ() -> None:
    problems = [mixed(f"p/{number}", 6, 6) for number in range(5)]
    for rule in ("all", "random", "balanced", "fixed"):
        found = [build_pairs(problems, with_rule(rule, seed=seed)).rows for seed in (0, 1)]
        assert found[0] != found[1]


def test_leaving_a_problem_out_changes_no_other() -> None:
    problems = [mixed(f"p/{number}", 6, 6) for number in range(6)]
    whole = build_pairs(problems, PairSettings()).rows
    fewer = build_pairs(random.Random(0).sample(problems, 3), PairSettings()).rows
    assert all(row in whole for row in fewer) and fewer


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rule": "balancd"}, "Unknown rule 'balancd'. Did you mean 'balanced'?"),
        ({"rule": "random"}, "Rule random needs pairs_per_problem"),
        ({"rule": "random", "pairs_per_problem": 0}, "pairs_per_problem must be at least 1, got 0"),
        ({"rule": "balanced", "pairs_per_problem": 2}, "takes no pairs_per_problem: max_pairs_per_problem"),
        ({"max_pairs_per_problem": 0}, "max_pairs_per_problem must be at least 1, got 0"),
        ({"rule": "random", "pairs_per_problem": 3, "max_pairs_per_problem": 2}, "is above max_pairs_per_problem 2"),
        ({"with_replacement": True}, "with_replacement is for rule fixed"),
        ({"min_pass_rate": 0.9, "max_pass_rate": 0.1}, "the first not above the second, got 0.9 and 0.1"),
        ({"max_pass_rate": 1.5}, "must be from 0 to 1"),
        ({"weighting": "equal"}, "Unknown weighting 'equal'. Known: none, equal_problems"),
        ({"duplicates": "none"}, "Unknown duplicates 'none'"),
        ({"near_threshold": 0.5}, "near_threshold is for duplicates near"),
        ({"duplicates": "near", "near_threshold": 0}, "near_threshold must be above 0"),
        ({"unfinished": "reject"}, "Unknown unfinished 'reject'. Did you mean 'rejected'?"),
        ({"prefix_to_prompt": ""}, "prefix_to_prompt is empty"),
        ({"eval_fraction": 1.0}, "eval_fraction must be from 0 to below 1"),
        ({"eval_fraction": 0.1, "eval_problems": 2}, "give one of them"),
        ({"eval_problems": -1}, "eval_problems must be 0 or above"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
    ],
)
def test_bad_settings(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        PairSettings(**wrong)
    assert said in str(error.value) and "\n" not in str(error.value)
