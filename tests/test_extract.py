"""Which part of a completion is its answer: boxes, hashes, phrases, final numbers, letters."""

import pytest

from trl_math.grading.choices import find_choice
from trl_math.grading.extract import after_phrase, final_box, numbers
from trl_math.grading.locate import PLACES, find
from trl_math.grading.steps import quick


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{5}$.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\framebox{7}", "7"),
        (r"\boxed{\boxed{4} + 1}", "4"),
        (r"the volume is $\boxed 2$.", "2"),
        ("no box", None),
        # marin#9163: an earlier box is not the answer of a text that opens another
        (r"\boxed{1} and \boxed{2", ""),
        (r"\boxed{5}. Wait, that is wrong: $\boxed{\frac{1", ""),
        (r"\boxed{5} so put it in \boxed{}", ""),
        (r"\boxed{", ""),
        # ... but prose about boxes opens none
        (r"I use \boxed for the answer: \boxed{5}", "5"),
        (r"$\boxed{5}$ (as \boxed asks)", "5"),
        # several boxes side by side are one answer
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
        (r"$x = \boxed{1}$, $y = \boxed{2}$.", "1, 2"),
        (r"\boxed{1}, \boxed{2}, or \boxed{3}", "1, 2, 3"),
        (r"\boxed{1} = \boxed{2}", "2"),
        (r"We get \boxed{1}. Checking again, and simplifying, we get \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{}", ""),
    ],
)
def test_final_box(text: str, answer: str | None) -> None:
    assert final_box(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 18.", "18"),
        ("Final Answer: **73**", "73"),  # Math-Verify#76
        ("\u2705 Final Answer: **73**\n\nI hope this helps", "73"),
        ("**Answer:** 3.50 dollars", "3.50 dollars"),
        ("The final answer to the question is (C).", "(C)"),
        ("Final answer:\n\n$$5$$", "$$5$$"),
        ("the answer is $\\frac{3. 5}{2}$. Done.", "$\\frac{3. 5}{2}$"),
        ("Answer is $x=1$ and $y=3$", "$x=1$ and $y=3$"),
        ("ANSWER:B", "B"),
        ("Answer - A", "A"),
        ("The answer is 3. No: the answer is 4.", "4"),
        ("so 6 * 7 --> 42", "42"),
        ("\u7b54\u6848\u662f 5", "5"),
        ("There is no answer.", None),
        ("nothing", None),
    ],
)
def test_after_phrase(text: str, answer: str | None) -> None:
    assert after_phrase(text) == answer


def test_numbers() -> None:
    text = "5-3 costs -7 or -$4 or $3.50, 2,125 and 40%, 3/4, 4 1/3, 1.5e3, .5; 1,2; x2 at 3. Done"
    found = ["5", "3", "-7", "-$4", "$3.50", "2,125", "40%", "3/4", "4 1/3", "1.5e3", ".5", "1", "2", "2", "3"]
    assert [number for number, _ in numbers(text)] == found


@pytest.mark.parametrize(
    ("kind", "text", "answer", "place"),
    [
        # A box counts before everything else, and the last mark of a kind before the earlier ones.
        ("math", "#### 4\nThe answer is 5: $\\boxed{6}$", "6", "box"),
        ("number", "#### 4\nThe answer is 5", "4", "hashes"),
        ("number", "#### 1\nNo:\n#### 2", "2", "hashes"),
        ("number", "#### 2,125\nTherefore, that is 2125 dollars.", "2,125", "hashes"),
        # Markdown's headings are no answers.
        ("number", "#### Step 1: add\n3 + 4 = 7\n#### Step 2: double\nThat is 14.", "14", "number"),
        ("number", "#### 18\n#### Explanation\nIt is easy.", "18", "hashes"),
        ("math", "#### Final Answer\nThe answer is $x^2$.", "$x^2$", "phrase"),
        # After a phrase: the first number or formula, or what follows the equals sign.
        ("number", "The answer is 18, which is 3 more than 15.", "18", "phrase"),
        ("number", "The answer is 3 + 4 = 7 apples.", "7", "phrase"),
        ("number", "The answer is $1,250.", "$1,250", "phrase"),
        ("math", "The answer is the number $5$ since $5 > 4$.", "5", "phrase"),
        ("math", "The answer is $2$ and $3$.", "$2$ and $3$", "phrase"),
        ("math", "The answer is (2, 3).", "(2, 3)", "phrase"),
        ("math", "The answer is Tuesday.", "Tuesday", "phrase"),
        # Thoughts are no answers, and tags enclose them.
        ("math", "<think>\\boxed{3}, or \\boxed{</think>The answer is 5.", "5", "phrase"),
        ("math", "<think>Is it 3?</think>\n\\boxed{5}", "5", "box"),
        ("number", "<think>3</think><answer> 5 </answer>", "5", "bare"),
        ("math", "<answer>3</answer> is wrong: <answer>\\boxed{5}</answer>.", "5", "box"),
        ("number", "We think 7.</think>", "7", "number"),
        # Nothing is marked.
        ("math", "\\frac{3}{4}", "\\frac{3}{4}", "bare"),
        ("math", "x = 5", "x = 5", "bare"),
        ("number", "18 apples", "18 apples", "bare"),
        ("math", "so we have $x = 3$, and therefore the area is $9\\pi$.", "9\\pi", "formula"),
        ("math", "There are 5 values of $x$.", "5", "number"),
        ("number", "3 + 4 = 7 and 7 * 2 = 14.", "14", "number"),
        (
            "text",
            "We count the days from Monday.\nThe answer is Friday, since 4 days have passed.",
            "Friday",
            "phrase",
        ),
        ("text", "Friday", "Friday", "bare"),
        ("text", "We count from Monday, day after day after day.\nFriday.", "Friday", "line"),
        # No answer.
        ("number", "I do not know.", None, "none"),
        ("math", "", None, "none"),
        ("text", "I would have to think about this for much longer than I can", None, "none"),
        ("math", "the answer is 5, so $\\boxed{5", None, "unfinished"),
    ],
)
def test_what_is_marked_counts_first_and_the_kind_decides_the_rest(
    kind: str, text: str, answer: str | None, place: str
) -> None:
    found = find(text, kind)
    assert (found.text, found.place) == (answer, place)
    assert place in PLACES


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (C).", "C"),
        ("answer: b", "B"),
        ("Answer A is correct option", "A"),
        ("Hence answer will be D. 5 apples", "D"),
        ("CORRECT OPTION:OPTION E", "E"),
        ("(D) is correct answer", "D"),
        ("D is the correct choice", "D"),
        ("**Answer: C**", "C"),
        ("#### B", "B"),
        ("\\boxed{\\text{(C)}}", "C"),
        ("\\boxed{C) 18 min}", "C"),
        ("\\boxed{18 min}", "18 min"),
        ("The answer is 18 min.", "18 min"),
        ("27 + 3 = 30\nB", "B"),
        ("(c)", "C"),
        ("It cannot be (A), so it must be (B)", "B"),
        ("The answer is a number", "a number"),
        ("I do not know.", None),
        ("\\boxed{C} or rather \\boxed{", None),
        ("The answer is (F).", "F"),  # there is no F, but that is no other answer
    ],
)
def test_choices(text: str, answer: str | None) -> None:
    options = ["17 min", "16 min", "18 min", "15 min", "19 min"]
    found = find_choice(text, options)
    if text.endswith("(F)."):
        assert found.text != "C" and found.text not in tuple("ABCDE")
    else:
        assert found.text == answer
    assert found.place in PLACES


UNITS = [
    "\\boxed{",
    "\\boxed{1}",
    "{",
    "}",
    "\\",
    "\\boxed 5 ",
    "\\boxed",
    "$",
    "$$",
    "\\[",
    "\\(",
    "answer ",
    "answer is ",
]
UNITS += [
    "####",
    "#### 1\n",
    "1,",
    "1/",
    "-",
    "9",
    "a",
    " ",
    "\n",
    "*",
    "the answer is $",
    "(A) ",
    "answer:",
    "1 1/",
    "=",
]


# What was once slow is among them: rows of matrices that looked like formulas, commands that looked like letters.
UNITS += [
    "\\\\[",
    "$\\\\(",
    "\\alpha",
    "\\alpha 1",
    "option ",
    "is ",
    "#### $1$ $2$",
    "1,x",
    "[1,2[",
    "</think>",
    "<answer>1",
]


def look_everywhere(text: str) -> None:
    for kind in ("math", "number", "text"):
        find(text, kind)
    find_choice(text, ["12 cm", "b", "two thirds"])
    final_box(text)


# Quadratic time would be minutes.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", UNITS)
def test_all_of_it_takes_linear_time(unit: str) -> None:
    look_everywhere("the answer is " + unit * (40_000 // len(unit)))
    look_everywhere("\\boxed{option" + unit * (40_000 // len(unit)) + "}")


@pytest.mark.slow
@pytest.mark.parametrize("first", UNITS)
def test_pairs_of_units_take_linear_time(first: str) -> None:
    for second in UNITS:
        look_everywhere((first + second) * (50_000 // len(first + second)) + "x")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", UNITS)
def test_comparing_takes_little_time_whatever_the_text(unit: str) -> None:
    text = unit * (1900 // len(unit))
    for gold, answer in ((text, text + "0"), ("x=5", text), (text + "1=5", "x^2=5")):
        quick(gold, answer)
