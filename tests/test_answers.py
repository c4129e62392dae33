"""Where the final answer stands in a text."""

import time

import pytest

from trl_math.grading import after_hashes, last_boxed


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{5}$.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\fbox{ 7 }", "7"),
        (r"\boxed {17}", "17"),  # space before the brace
        (r"the volume is $\boxed 2$.", "2"),  # MATH's unbraced form
        (r"$\boxed 3 x$ and more", "3 x"),
        (r"\boxed 5 is the answer", "5"),
        (r"\boxed5", "5"),
        (r"\boxed{1} and \boxed{2", "1"),  # truncated: the last closed one
        (r"\boxed{2", None),
        (r"\boxed{9}, put in \boxed{}", "9"),  # the instruction repeated
        (r"\boxed{\boxed{4} + 1}", "4"),  # nested: the one that begins last
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),  # escaped braces do not count
        (r"a } b \boxed{3} { c", "3"),  # stray braces
        (r"{ \boxed{3}", "3"),
        (r"x = 1 \\ \boxed{3}", "3"),
        (r"\\boxed{3}", "3"),  # doubled backslash
        (r"\boxedanswer{3}", None),
        ("boxed{3}", None),
        ("\\boxed", None),
        ("", None),
    ],
)
def test_last_boxed(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    "unit", ["\\boxed{", "\\boxed{1}", "{", "}", "\\", "\\boxed 5 ", "\\boxed{{}", "\\boxed", "\\boxed\n"]
)
def test_last_boxed_takes_linear_time(unit: str) -> None:
    started = time.perf_counter()
    last_boxed(unit * 100_000)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 + 2 = 4\n#### 4", "4"),
        ("#### 1\n#### 2,125 ", "2,125"),
        ("####-5", "-5"),
        ("#### 5\nThe answer is: 5", "5"),
        ("no mark", None),
        ("####", None),
    ],
)
def test_after_hashes(text: str, answer: str | None) -> None:
    assert after_hashes(text) == answer
