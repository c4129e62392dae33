r"""What the fast judge decides, the slow one decides in the same way: on real answers, and on made-up ones.

The slow judge works without any of the fast one's shortcuts (math-verify's parser, SymPy's numbers); see `slow.py`.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trl_math.grading import last_boxed
from trl_math.grading.cascade import Cascade
from trl_math.grading.steps import quick


MATH = Path(__file__).parents[2] / "shared" / "data" / "math"
needs_math = pytest.mark.skipif(not MATH.is_dir(), reason="needs the benchmark files in ../shared/data")


@pytest.fixture(scope="module")
def slow() -> Cascade:
    return Cascade(is_fast=False)


def disagreement(slow: Cascade, gold: str, answer: str) -> str | None:
    fast = quick(gold, answer)
    if fast is None or fast.reason in ("too_complex", "gold_unreadable"):
        return None
    outcome = slow.outcome(gold, answer)
    return None if outcome.correct == fast.correct else f"{gold!r} and {answer!r}: fast {fast}, slow {outcome}"


def is_integer(text: str) -> bool:
    return text.lstrip("-").isdigit()


@needs_math
@pytest.mark.parametrize("share", [0.2, pytest.param(1, marks=pytest.mark.slow)])
def test_fast_and_slow_agree_on_answers_of_math(slow: Cascade, share: float) -> None:
    """On pairs of MATH's answers, most of them not integers; on each answer with itself; and on respellings."""
    lines = (MATH / "train.jsonl").read_text(encoding="utf-8").splitlines()
    golds = sorted({gold for line in lines if (gold := last_boxed(json.loads(line)["solution"]))})
    generator = random.Random(1)
    difficult = [gold for gold in golds if not is_integer(gold)]
    pairs = [(generator.choice(difficult), generator.choice(difficult)) for _ in range(int(1200 * share))]
    pairs += [(generator.choice(golds), generator.choice(golds)) for _ in range(int(300 * share))]
    pairs += [
        (gold, respelled) for gold in generator.sample(difficult, int(150 * share)) for respelled in respellings(gold)
    ]
    found = [complaint for pair in pairs if (complaint := disagreement(slow, *pair))]
    assert not found, found[:5]


def respellings(gold: str) -> list[str]:
    return [
        f"x = {gold}",
        f"$\\left({gold}\\right)$",
        gold.replace("\\frac", "\\dfrac").replace(" ", ""),
        gold.replace("\\frac", "\\tfrac") + "+1",
        f"-({gold})",
        f"{gold} \\text{{ cm}}",
    ]


# ---- Made-up expressions ----

numbers = st.one_of(
    st.integers(0, 30).map(str),
    st.integers(31, 10**9).map(str),
    st.integers(1, 9999).map(lambda n: f"{n / 100:.2f}"),
    st.tuples(st.integers(1, 99), st.integers(1, 99)).map(lambda pair: f"\\frac{{{pair[0]}}}{{{pair[1]}}}"),
    st.tuples(st.integers(1, 9), st.integers(1, 4)).map(lambda pair: f"{pair[0]}\\frac{{{pair[1]}}}{{5}}"),
)
atoms = st.one_of(numbers, st.sampled_from(["\\pi", "x", "y", "e", "i", "\\sqrt{2}", "\\sqrt{3}", "\\theta", "n"]))


def extend(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-"]), inner).map(lambda p: f"{p[0]}{p[1]}{p[2]}"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]})({p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]}) \\cdot {p[1]}"),
        st.tuples(inner, inner).map(lambda p: f"\\frac{{{p[0]}}}{{{p[1]}}}"),
        st.tuples(inner, st.integers(-2, 5)).map(lambda p: f"({p[0]})^{{{p[1]}}}"),
        inner.map(lambda text: f"\\sqrt{{{text}}}"),
        inner.map(lambda text: f"-({text})"),
        inner.map(lambda text: f"\\sin({text})"),
        inner.map(lambda text: f"|{text}|"),
        inner.map(lambda text: f"\\left({text}\\right)"),
    )


expressions = st.recursive(atoms, extend, max_leaves=6)
answers = st.one_of(
    expressions,
    st.tuples(expressions, expressions).map(lambda p: f"({p[0]}, {p[1]})"),
    st.tuples(expressions, expressions).map(lambda p: f"[{p[0]}, {p[1]})"),
    st.lists(expressions, min_size=2, max_size=3).map(", ".join),
    expressions.map(lambda text: f"x = {text}"),
    expressions.map(lambda text: f"y < {text}"),
    numbers.map(lambda text: f"{text}\\%"),
    numbers.map(lambda text: f"{text} \\text{{ cm}}"),
)


def changed(text: str, how: int) -> str:
    """Return the same answer in other words, or nearly the same answer."""
    if how == 0:
        return (
            text.replace("\\frac", "\\dfrac")
            .replace("(", "\\left(")
            .replace(")", "\\right)")
            .replace("\\left\\", "\\")
        )
    if how == 1:
        return f"{text} + 0"
    if how == 2:
        return f"2 \\cdot ({text}) \\cdot \\frac{{1}}{{2}}"
    if how == 3:
        return f"{text} + \\frac{{1}}{{1000}}"
    return text.replace("2", "3", 1)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(answers, answers, st.integers(0, 5))
def test_fast_and_slow_agree_on_made_up_answers(slow: Cascade, first: str, second: str, how: int) -> None:
    answer = second if how == 5 else changed(first, how)
    assert disagreement(slow, first, answer) is None


def test_the_fast_path_needs_no_sympy() -> None:
    """Most of MATH is graded without SymPy, torch or transformers, and without a process."""
    code = """
import sys
from trl_math.grading import grade, grade_all
rows = [("so $\\\\boxed{\\\\frac{1}{2}}$", "0.5"), ("$\\\\boxed{\\\\sqrt{2}}$", "\\\\sqrt{3}"), ("4", "x=4")]
grades, report = grade_all(rows)
assert [g.correct for g in grades] == [True, False, True] and report.num_slow == 0
assert not {"sympy", "math_verify", "torch", "transformers", "numpy", "datasets"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
