"""What is left of a completion without its answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_math.data.rationale_text import rationale_of


CASES = {
    "a sentence": ("5 + 3 = 8. So the answer is 8.", "5 + 3 = 8."),
    "a clause": ("5 + 3 = 8, so the answer is 8.", "5 + 3 = 8"),
    "two stages": ("5 + 3 = 8.\nTherefore, the answer is 8", "5 + 3 = 8."),
    "said twice": ("5 + 3 = 8. The answer is 8.\nTherefore, the answer is 8.", "5 + 3 = 8."),
    "hashes": ("5 + 3 = <<5+3=8>>8\n#### 8", "5 + 3 = <<5+3=8>>8"),
    "heading": ("#### Step 1\nWe add the apples and the pears and get eight of them all.", None),
    "a box in a sentence of its own": ("5 + 3 = 8.\n\nThe final answer is $\\boxed{8}$.", "5 + 3 = 8."),
    "a box alone": ("5 + 3 = 8.\n\n$$\\boxed{8}$$", "5 + 3 = 8."),
    "a display over three lines": ("5 + 3 = 8.\n\n\\[\n\\boxed{8}\n\\]", "5 + 3 = 8."),
    "a box with a lead": ("5 + 3 = 8.\nTherefore, $\\boxed{8}$.", "5 + 3 = 8."),
    "a box inside of reasoning": ("We add: $5 + 3 = \\boxed{8}$.", "We add: $5 + 3 = 8$."),
    "a box in a fraction": ("It is $\\boxed{\\frac{1}{2}}$ of the cake, so we have half.", None),
    "markdown": ("5 + 3 = **8**\n\n**Answer:** 8", "5 + 3 = **8**"),
    "final answer": ("5 + 3 = 8\nFinal Answer: 8", "5 + 3 = 8"),
    "a letter": ("Only (B) is even.\nThe answer is (B).", "Only (B) is even."),
    "a word": ("It was flipped twice. So the answer is yes.", "It was flipped twice."),
    "tags": ("5 + 3 = 8 <answer>8</answer>", "5 + 3 = 8"),
    "thoughts": ("<think>long</think>5 + 3 = 8. The answer is 8.", "5 + 3 = 8."),
    "thoughts alone": ("<think>\n5 + 3 = 8\n</think>\n\nThe answer is 8.", "5 + 3 = 8"),
    "thoughts and a number": ("<think>5 + 3 = 8</think>8", "5 + 3 = 8"),
    "a reason": ("Tom has both. The answer is 8 because 5 + 3 = 8.", None),
    "a computation behind": ("Answer: 8\n\n5 + 3 = 8", None),
    "what the answer is made of": (
        "The answer is the sum of 3 and 5. 3 + 5 = 8.\nTherefore, the answer is 8",
        "The answer is the sum of 3 and 5. 3 + 5 = 8.",
    ),
    "a wish": ("5 + 3 = 8.\nThe final answer is $\\boxed{8}$. I hope it is correct.", "5 + 3 = 8."),
    "hashes in a line": ("5 + 3 = 8. #### 8", "5 + 3 = 8."),
    "a heading before a step": ("We add.\n#### Step 2\n5 + 3 = 8", None),
    "an answer alone": ("The answer is 8.", ""),
    "a box and nothing else": ("$\\boxed{8}$", ""),
    "what goes on": ("The answer is 8. But wait, Tom ate two of them, so he has six left now.", None),
    "no end at all": ("He has five apples and three pears.", None),
    "nothing": ("  \n", ""),
    "a number": ("6", "6"),
    "a solution": ("9 + 9 = 18. So, the solution is 18.", "9 + 9 = 18."),
    "a result with a unit": ("9 + 9 = 18\nThus the final result is 18 apples.", "9 + 9 = 18"),
    "a name for what was computed": ("A is 3 * 4 = 12. So, A = 12.", "A is 3 * 4 = 12."),
    "a name and the answer": ("3 * 4 = 12. So, A = 12. The answer is 12.", "3 * 4 = 12."),
    "a step that computes": ("5x = 60. So, x = 12.", None),
    "a step to another number": ("3 * 4 = 120. So, A = 12.", None),
    "two names": ("2 + 3 = 5. So, A = 5 and B = 13.", None),
    "what the solution is made of": ("The solution is 5 + 3 = 8.", None),
    "what the solution is": ("We add. The solution is to add 5 and 3 and to take 1 away.", None),
    "a result that is a step": ("The result is 8, and half of this is 4.", None),
    "a result in the middle": ("The result is 8. Half of this is 4.", None),
    "a result of something": ("So, the result of adding them is 8.", None),
    "a solution with a reason": ("The solution is 8 because Tom has both.", None),
    "a solution with a name": ("2x = 10, so 10 / 2 = 5 is x. The solution is x = 5.", "2x = 10, so 10 / 2 = 5 is x."),
    "a solution that is a formula": ("We double x. So the solution is $2x$.", "We double x."),
    "a solution that computes": ("We double x. So the solution is $2 + 2 = 4$.", None),
    "a solution that is a letter": ("Only 7 is odd. The correct solution is (B).", "Only 7 is odd."),
    "a result to be corrected": ("The result is 8 too many.", None),
    "a noun": ("He mixes salt and water. The solution is salty.", None),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name):
    text, left = CASES[name]
    if left is None:
        left = text.replace("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}")
    assert rationale_of(text) == left


def test_the_prefix_of_a_style_is_cut_where_it_stands_last():
    assert rationale_of(" 5 + 3 = 8 --> 8", "-->") == "5 + 3 = 8"
    assert rationale_of("a --> b. More reasoning that goes on for longer. --> 8 END", " --> ") == (
        "a --> b. More reasoning that goes on for longer."
    )
    assert rationale_of("5 + 3 = 8 ANSWER8", "ANSWER") == "5 + 3 = 8"
    assert rationale_of("3 --> 4 apples, then 4 + 4 = 8. --> 8", "-->") == "3 --> 4 apples, then 4 + 4 = 8."
    assert rationale_of("no prefix here at all", "-->") == "no prefix here at all"


@given(st.text("Theanswrio 8.$\\boxed{}#\n<>/k=-*", max_size=60))
def test_it_never_fails_and_does_it_once_and_for_all(text):
    once = rationale_of(text)
    assert once == once.strip()
    assert len(once) <= len(text)


@given(st.lists(st.sampled_from(["Five and three are eight.", "We add 5 + 3.", "x = 8,"]), min_size=1, max_size=4))
def test_what_is_put_behind_reasoning_is_taken_off_again(sentences):
    reasoning = " ".join(sentences).rstrip(",")
    for end in (
        "\nTherefore, the answer is 8",
        " The answer is 8.",
        "\n#### 8",
        "\n\n$\\boxed{8}$",
        " So the answer is 8.",
        " So, the solution is 8.",
        " Thus, the final result is 8 apples.",
        " The answer is 8. END",
    ):
        assert rationale_of(reasoning + end) == reasoning


NUMBERS = st.integers(-999, 9999)


@given(
    st.lists(NUMBERS, min_size=2, max_size=4), NUMBERS, st.sampled_from(["So, x =", "Thus A =", "Therefore, $n$ ="])
)
def test_a_last_line_is_cut_only_if_it_repeats_a_computed_value(parts, other, lead):
    """What was not computed before is a step, whatever it looks like."""
    computed = f"{' + '.join(map(str, parts))} = {sum(parts)}."
    assert rationale_of(f"{computed} {lead} {sum(parts)}.") == computed
    step = f"{computed} {lead} {other}."
    assert rationale_of(step) == (computed if other == sum(parts) else step)


@given(st.lists(st.sampled_from(["the solution is", "So, x = 8", "12", "because", "the result", "= 8.", ",", "\n"])))
def test_nothing_is_made_up(words):
    """What is left is the beginning of the text, up to where the cut is."""
    text = " ".join(words)
    assert text.strip().startswith(rationale_of(text))


@pytest.mark.parametrize(
    "unit",
    [
        "the answer is ",
        "\\boxed{",
        "so ",
        "#### ",
        "$",
        "<answer>",
        "\n",
        "-->",
        "**",
        "#### 1\n",
        "\\boxed{1}",
        "1+1",
        "So, x = 8. ",
        "the solution is 8",
    ],
)
def test_long_texts_have_an_end(unit):
    """A quarter of a million characters of anything: what took squared time would not come back for hours."""
    text = unit * (250_000 // len(unit))
    assert len(rationale_of(text)) <= len(text)
