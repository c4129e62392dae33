"""Answers that real sets write in ways of their own."""

import pytest
from datasets import Dataset

from trl_math.data import to_problems, without_problems


def answers(*rows):
    return to_problems(Dataset.from_list(list(rows)), "set")["answer"][:]


@pytest.mark.parametrize(
    ("problem", "solution", "answer"),
    [
        ("Find all solutions to $x^2+x-2=0$.", r"The answers are $\boxed{-2}$ and $\boxed{1}$.", "-2, 1"),
        (
            "List the points in order, separated by semicolons.",
            r"They are $\boxed{(-2,18)}$ and $\boxed{(8,38)}$.",
            "(-2,18), (8,38)",
        ),
        (r"Find $t$. Enter all possible values.", r"Hence $t = \boxed{1}$ or $t = \boxed{9}$.", "1, 9"),
        # One answer in two forms, or any of two answers.
        ("Simplify $(5x+3) - 2(2x-4)$.", r"This yields $\boxed{x+11}$ or $\boxed{11+x}$.", "11+x"),
        ("Enter only one of the foci, not both.", r"\boxed{(10, 0)} \text{ and } \boxed{(0,0)}", "(0,0)"),
        # A box that is not beside the last is a step.
        ("Find all solutions.", r"First $\boxed{3}$ holds. By symmetry the sum is $\boxed{7}$.", "7"),
        ("Find all solutions.", r"So $\boxed{3}$ it is, within \boxed{}.", "3"),
        ("Find all solutions.", "None.\n#### 0", "0"),
    ],
)
def test_boxes_side_by_side_are_one_answer_if_all_are_asked_for(problem, solution, answer):
    assert answers({"problem": problem, "solution": solution}) == [answer]
    assert answers({"problem": problem, "answer": solution}) == [answer]


def test_an_index_beyond_the_choices_is_no_letter():
    rows = [{"question": "q", "choices": ["x", "y"], "answer": answer} for answer in (0, 1, 2, -1)]
    assert answers(*rows) == ["A", "B", "2", "-1"]


def test_multiarith_has_its_answers_in_final_ans():
    assert answers({"question": "q", "final_ans": "39"}) == ["39"]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("If $f(6)-f(2)=12$. What is $x?$", "If $f(6) - f(2) = 12.$ What is $x$?", True),
        ("Solve $2x^{2}+3x\\,=\\left(5\\right)$.", "solve $2x^2 + 3x = (5)$", True),
        ("How many, Ann?", "How  many\n Ann", True),
        ("Compute $\\tan 225^\\circ$.", "Compute $\\tan 22.5^\\circ.$", False),
        ("Compute $\\cos 150^\\circ$.", "Compute $\\cos (-150^\\circ)$.", False),
        ("Is $x^4 - 1 = 0$?", "Is $x^4 + 1 = 0$?", False),
        ("Is it 1,5?", "Is it 15?", False),
    ],
)
def test_a_problem_is_known_again_when_it_is_spaced_otherwise(first, second, is_same):
    rows = Dataset.from_list([{"problem": first}, {"problem": "another one"}])
    kept, num_removed = without_problems(rows, [second])
    assert (len(kept), num_removed) == ((1, 1) if is_same else (2, 0))
