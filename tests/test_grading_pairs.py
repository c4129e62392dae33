"""Answers of many forms against gold answers: hundreds of pairs of every type, and answers in sentences.

The pairs were written to break the grader: each line of `grading_pairs.txt` has a gold answer, answers that say the
same and answers that do not.
"""

from pathlib import Path

import pytest

from trl_math.grading import grade, grade_all


LINES = (Path(__file__).parent / "grading_pairs.txt").read_text(encoding="utf-8").splitlines()


def answers_of(line: str) -> tuple[str, list[str], list[str]]:
    """Return the gold answer of a line, the right answers and the wrong ones."""
    rest, _, wrong = line.partition("  <!>  ")
    gold, _, right = rest.partition("  <=>  ")
    return gold, right.split("  ;;  ") if right else [], wrong.split("  ;;  ") if wrong else []


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("#")])
def test_pairs(line: str) -> None:
    gold, right, wrong = answers_of(line)
    rows = [(f"Hence $\\boxed{{{answer}}}$.", gold) for answer in right + wrong]
    found = grade_all(rows, "math", workers=1).grades
    mistakes = [(answer, grade) for answer, grade in zip(right, found, strict=False) if grade.correct is not True]
    mistakes += [(answer, grade) for answer, grade in zip(wrong, found[len(right) :], strict=True) if grade.correct]
    assert not mistakes and rows


TEXTS = [
    # (kind, completion, gold answer, verdict)
    ("math", "\\boxed{1} ... wait \\boxed{2}", "2", True),
    ("math", "\\boxed{1} ... wait \\boxed{2}", "1", False),
    ("math", "\\boxed{}", "5", False),
    ("math", "The answer is 5. \\boxed{}", "5", False),
    ("math", "**\\boxed{5}**", "5", True),
    ("math", "$$\\boxed{\n5\n}$$", "5", True),
    ("math", "\\boxed{5", "5", False),
    ("math", "\\boxed{ 5 }", "5", True),
    ("math", "$\\boxed{5}$ dollars", "5", True),
    ("math", "The answer is: 42. I hope it is correct.", "42", True),
    ("math", "The answer is 42. I hope it is correct", "42", True),
    ("math", "The final answer is $\\frac{1}{2}$. I hope it is correct.", "0.5", True),
    ("math", "The answer is: $x = 3$.", "3", True),
    ("math", "Final Answer: The final answer is $10$. I hope it is correct.", "10", True),
    ("math", "So the answer is 3.14.", "3.14", True),
    ("math", "Answer: 7 apples", "7", True),
    ("math", "**Answer:** $\\frac{3}{4}$", "0.75", True),
    ("math", "The answer is 12, not 13.", "12", True),
    ("math", "Therefore, the answer is (1, 2).", "(1,2)", True),
    ("math", "The answer is 1, 2 and 3.", "1,2,3", True),
    ("math", "The answer is x=3 or x=4", "3,4", True),
    ("math", "the answer is -5", "-5", True),
    ("math", "The answer is $-\\frac{1}{2}$", "-0.5", True),
    ("math", "The answer is 5 cm.", "5", True),
    ("math", "The answer is five.", "5", True),
    ("math", "the answer: 1/2", "0.5", True),
    ("math", "Answer:\n\n42", "42", True),
    ("math", "# Answer\n42", "42", True),
    ("math", "### Final Answer\n\n$42$", "42", True),
    ("math", "### Final Answer:\n**42**", "42", True),
    ("math", "Therefore $x = 5$.", "5", True),
    ("math", "Therefore $x = 5$", "x=5", True),
    ("math", "so $2+3 = 5$.", "5", True),
    ("math", "We get 2 + 3 = 5", "5", True),
    ("math", "Hence, there are $5$ ways.", "5", True),
    ("math", "Thus $a+b = 3+4 = 7$", "7", True),
    ("math", "The area is $9\\pi$ square units.", "9\\pi", True),
    ("math", "The probability is $\\frac{1}{2}$, i.e. 50%.", "0.5", True),
    ("math", "no idea", "5", False),
    ("math", "", "5", False),
    ("math", "5", "", None),
    ("math", "5", None, None),
    ("math", "5", "\\frac{", None),
    ("math", "<think>\\boxed{3}</think> The answer is 5", "3", False),
    ("math", "<think>\\boxed{3}</think> The answer is \\boxed{5}", "5", True),
    ("math", "<answer>5</answer>", "5", True),
    ("math", "<answer> \\boxed{5} </answer>", "5", True),
    ("number", "She sold 1,234 in total.\n#### 1,234", "1234", True),
    ("number", "#### 1,234", "1,234", True),
    ("number", "#### $1,234.00", "1234", True),
    ("number", "#### 1234 dollars", "1,234", True),
    ("number", "#### 12\n\n#### 13", "12", False),
    ("number", "####5", "5", True),
    ("number", "#### -5", "-5", True),
    ("number", "#### 0.5", "1/2", True),
    ("number", "#### 50%", "50", True),
    ("number", "The answer is $18.", "18", True),
    ("number", "There are 3 cats and 4 dogs, so 7.", "7", True),
    ("number", "The answer is 7 apples and 3 pears", "7", True),
    ("number", "It costs $1,000.", "1000", True),
    ("number", "5 - 3 = 2", "2", True),
    ("number", "x = -2", "-2", True),
    ("number", "Total: 3.", "3", True),
    ("number", "18 (since 3 * 6 = 18)", "18", True),
    ("number", "He needs 2 1/2 cups.", "2.5", True),
    ("number", "He needs 2.5 cups", "5/2", True),
    ("number", "The result is 1e3", "1000", True),
    ("number", "the final answer is 12.", "12", True),
    ("number", "So 12. ", "12.0", True),
    ("number", "#### 12", "13", False),
    ("number", "twelve", "12", True),
    ("number", "The answer is twelve.", "12", True),
    ("number", "\\boxed{12}", "12", True),
    ("number", "\\boxed{\\frac{3}{2}}", "1.5", True),
    ("number", "\\boxed{12 \\text{ apples}}", "12", True),
    ("number", "$1.50", "1.5", True),
    ("number", "It's 3:2", "3", False),
    ("text", "yes", "Yes", True),
    ("text", "The answer is Yes.", "yes", True),
    ("text", 'The answer is "Paris".', "Paris", True),
    ("text", "\\boxed{\\text{Paris}}", "paris", True),
    ("text", "Paris, France", "Paris", False),
    ("text", "not Paris", "Paris", False),
    ("text", "The answer is no", "yes", False),
    ("text", "Answer: the Eiffel Tower", "Eiffel Tower", True),
    ("text", "**Answer:** entailment", "Entailment", True),
    ("math", "Let $x=2$. Then\n\\[x^2 = 4.\\]\nThe answer is $\\boxed{4}$.", "4", True),
    ("math", "The answer is $\\boxed{\\frac{1}{2}}$ or $0.5$.", "0.5", True),
    ("math", "The final answer is: $\\boxed{x = 3}$", "3", True),
    ("math", "ANSWER: $\\dfrac{3}{4}$", "3/4", True),
    ("math", "Answer: C", "C", True),
    ("math", "\\[\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}\\]", "(1,2)", True),
    ("math", "Answer: $(2, 3)$.", "(2,3)", True),
    ("math", "Hence the solutions are $x = 2$ and $x = 3$.", "2,3", True),
    ("math", "So the roots are $2$ and $3$.", "2,3", True),
    ("math", "The answer is \\(\\frac{1}{2}\\).", "0.5", True),
    ("math", "The answer is \\[\\frac{1}{2}\\]", "0.5", True),
    ("math", "Final Answer: \\(12\\)", "12", True),
    ("math", "**Final Answer**\n\n\\boxed{12}", "12", True),
    ("math", "**Final Answer**\n\n12", "12", True),
    ("math", "Thus, the answer is 12 (mod 13).", "12", True),
    ("math", "The value is $12$, as desired.", "12", True),
    ("math", "It follows that $k=12$. QED", "12", True),
    ("math", "so it's 12!", "12", True),
    ("math", "Therefore, there are 12 ways to do this.", "12", True),
    ("math", "12 is the answer.", "12", True),
    ("number", "12 is the final answer", "12", True),
    ("number", "The answer is therefore 1,000,000.", "1000000", True),
    ("number", "The total is £3.50", "3.5", True),
    ("number", "He has -3 degrees", "-3", True),
    ("number", "2+2=4", "4", True),
    ("math", "2+2=4", "4", True),
    ("number", "Answer:12", "12", True),
    ("number", "Answer is 12 km", "12", True),
    ("number", "A: 12", "12", True),
    ("number", "#### 3/4", "0.75", True),
    ("number", "#### 1,234,567.89", "1234567.89", True),
    ("number", "#### 12%", "12", True),
    ("number", "#### 12 %", "0.12", True),
    ("number", "answer is 10^3", "1000", True),
    ("number", "the answer is 3 x 10^2", "300", True),
    ("number", "the answer is 1.5 million", "1500000", True),
    ("number", "the answer is 20 or 30", "30", False),
]


@pytest.mark.parametrize(("kind", "completion", "gold", "correct"), TEXTS)
def test_answers_in_sentences(kind: str, completion: str, gold: str | None, correct: bool | None) -> None:
    found = grade(completion, gold, kind)
    assert found.correct is correct, found


OPTIONS = {
    "numbers": ["12", "15", "18", "21", "24"],
    "fractions": ["\\frac{1}{2}", "\\frac{1}{3}", "0.25", "2", "None of the above"],
    "words": ["Paris", "London", "Rome"],
}
CHOSEN = [
    # (options, completion, the letter that it chooses)
    ("numbers", "(B)", "B"),
    ("numbers", "B", "B"),
    ("numbers", "B.", "B"),
    ("numbers", "b", "B"),
    ("numbers", "(b)", "B"),
    ("numbers", "b)", "B"),
    ("numbers", "B)", "B"),
    ("numbers", "option B", "B"),
    ("numbers", "Option (B)", "B"),
    ("numbers", "The answer is B) 15", "B"),
    ("numbers", "The answer is (B) 15", "B"),
    ("numbers", "The answer is B.", "B"),
    ("numbers", "The correct answer is B", "B"),
    ("numbers", "Answer: B", "B"),
    ("numbers", "**B**", "B"),
    ("numbers", "**Answer: (B)**", "B"),
    ("numbers", "\\boxed{B}", "B"),
    ("numbers", "\\boxed{\\text{B}}", "B"),
    ("numbers", "\\boxed{(B)}", "B"),
    ("numbers", "\\boxed{15}", "B"),
    ("numbers", "The answer is 15.", "B"),
    ("numbers", "So the correct option is B: 15", "B"),
    ("numbers", "The correct choice is $\\textbf{(B)}\\ 15$", "B"),
    ("numbers", "\\boxed{\\textbf{(B)}\\ 15}", "B"),
    ("numbers", "\\boxed{B. 15}", "B"),
    ("numbers", "Therefore, B is correct.", "B"),
    ("numbers", "therefore the answer is option b.", "B"),
    ("numbers", "Answer:\nB", "B"),
    ("numbers", "A is wrong and C is wrong, so the answer is B", "B"),
    ("numbers", "The answer is: **B**", "B"),
    ("numbers", "I choose B.", "B"),
    ("numbers", "We pick (B).", "B"),
    ("numbers", "#### B", "B"),
    ("numbers", "15", "B"),
    ("numbers", "Final answer: B) 15.", "B"),
    ("numbers", "答案是B", "B"),
    ("numbers", "The answer is `B`", "B"),
    ("numbers", "The answer is $B$.", "B"),
    ("numbers", "Let A be the set. A is 12 too big... so the answer: B", "B"),
    ("numbers", "A triangle has three sides, so 15", "B"),
    ("numbers", "A number of people think it is 15", "B"),
    ("numbers", "A", "A"),
    ("numbers", "A good choice is 15.", "B"),
    ("numbers", "E", "E"),
    ("words", "The capital is Paris.", "A"),
    ("words", "paris", "A"),
    ("words", "Paris", "A"),
    ("words", "B", "B"),
    ("words", "The answer is Rome", "C"),
    ("words", "The answer is London, not Rome", "B"),
    ("fractions", "\\boxed{1/3}", "B"),
    ("fractions", "The answer is 1/3.", "B"),
    ("fractions", "\\boxed{\\frac{1}{3}}", "B"),
    ("fractions", "\\boxed{0.5}", "A"),
    ("fractions", "none of the above", "E"),
    ("fractions", "The answer is (C) because 0.25 = 1/4.", "C"),
    ("fractions", "Answer: (a)", "A"),
    ("fractions", "A: because.", "A"),
    ("fractions", "A.", "A"),
    ("fractions", "A. \\frac{1}{2}", "A"),
    ("fractions", "**B) 1/3**", "B"),
    ("fractions", "We can eliminate A, B and C. Answer: D", "D"),
    ("fractions", "Is the answer A? No. The answer is D.", "D"),
    ("fractions", "the correct answer is therefore (D)", "D"),
    ("fractions", "Thus, (D).", "D"),
    ("fractions", "Thus the answer is \\textbf{(D)}", "D"),
    ("fractions", "The final answer is $\\boxed{\\textbf{(D)}\\ 2}$.", "D"),
    ("fractions", "$\\boxed{D}$", "D"),
    ("fractions", "\\boxed{d}", "D"),
    ("fractions", "\\boxed{option D}", "D"),
    ("fractions", "\\boxed{\\text{D. } 2}", "D"),
    ("fractions", "<answer>D</answer>", "D"),
    ("fractions", "<think>A</think>D", "D"),
    ("fractions", "Correct Answer :- D", "D"),
    ("fractions", "Ans. D", "D"),
    ("fractions", "Ans - D", "D"),
    ("fractions", "answer = D", "D"),
    ("fractions", "The answer is D, which equals 2", "D"),
    ("fractions", "Therefore the best choice is D", "D"),
    ("fractions", "[D]", "D"),
    ("fractions", "D: 2", "D"),
    ("fractions", "Hence, option D is right.", "D"),
    ("fractions", "so D", "D"),
    ("fractions", "I'd go with D", "D"),
    ("numbers", "The answer is F", None),
    ("numbers", "5", None),
]


@pytest.mark.parametrize(("options", "completion", "letter"), CHOSEN)
def test_choices_in_sentences(options: str, completion: str, letter: str | None) -> None:
    texts = OPTIONS[options]
    verdicts = [grade(completion, gold, "choice", choices=texts).correct for gold in "ABCDE"[: len(texts)]]
    assert verdicts == [gold == letter for gold in "ABCDE"[: len(texts)]]
