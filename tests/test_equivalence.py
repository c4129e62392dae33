"""Answers as classes for majority votes: what says the same is one class, whatever the order."""

import random

import pytest

from trl_math.errors import UsageError
from trl_math.grading import Grader, cluster, cluster_all, grade
from trl_math.grading.normalise import normalise
from trl_math.grading.read import read
from trl_math.grading.write import write


CLASSES = [
    ["1/2", "0.5", "\\frac12", "\\dfrac{2}{4}", "x = 0.50", "1:2"],
    ["50", "50\\%", "$50$", "50 \\text{ apples}", "50.0"],
    ["1/3", "0.333333", "0.\\overline{3}"],
    ["0.333"],
    ["\\frac{\\sqrt2}{2}", "\\frac{1}{\\sqrt{2}}", "\\sqrt{0.5}"],
    ["1, 2", "2,1", "\\{1, 2\\}", "x=1 \\text{ or } x=2", "1,2,2"],
    ["(1, 2)", "\\left(1,2\\right)"],
    ["(2, 1)"],
    ["[1, 2]", "1 \\le x \\le 2"],
    ["x > 3", "(3, \\infty)"],
    ["x^2+2x+1", "(x+1)^2", "y = (1+x)^2"],
    ["x^2+2x+2"],
    ["Tuesday", "\\text{tuesday}"],
    ["\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{bmatrix} 1.0 \\\\ 2 \\end{bmatrix}"],
    ["1 \\pm \\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2"],
    ["101_2"],
    ["2^{50000}", "2^{50000}"],
]
UNANSWERED = [None, "", "  ", "\\frac{1}{", "$$"]


def test_classes_whatever_the_order() -> None:
    expected = {answer: number for number, answers in enumerate(CLASSES) for answer in answers}
    answers = [*expected, *UNANSWERED]
    for seed in range(4):
        random.Random(seed).shuffle(answers)
        classes = cluster(answers)
        names = {}
        for answer, found in zip(answers, classes, strict=True):
            if answer in UNANSWERED:
                assert found is None
            else:
                assert names.setdefault(expected[answer], found) == found, (answer, seed)
        assert len(set(names.values())) == len(CLASSES)
        # Numbered in order of first appearance.
        seen = [found for found in classes if found is not None]
        assert list(dict.fromkeys(seen)) == list(range(len(CLASSES)))


def test_many_lists_share_the_processes() -> None:
    lists = [["\\sqrt{8}", "2\\sqrt{2}", "3"], [], [None], ["\\sqrt{8}", "3", "2\\sqrt{2}", "\\sqrt{2} \\cdot 2"]]
    assert cluster_all(iter(lists)) == [[0, 0, 1], [], [None], [0, 1, 0, 0]]


def test_a_vote_does_not_depend_on_who_else_votes() -> None:
    """50% stands beside 50, so that it cannot join 0.5 and 50."""
    assert cluster(["0.5", "50"]) == [0, 1]
    assert cluster(["0.5", "50\\%", "50"]) == [0, 1, 1]
    assert cluster(["50\\%", "0.5"]) == [0, 1]


@pytest.mark.parametrize(
    ("votes", "classes"),
    [
        (["5 cm", "5", "50 mm", "5 m", "x = 5 \\text{ cm}", "0.05 \\text{ m}", "5cm"], [0, 0, 0, 1, 0, 0, 0]),
        (["5", "5 apples", "5 pears"], [0, 0, 0]),
        (["\\$5", "5", "500 cents", "50"], [0, 0, 0, 1]),
        (["30^\\circ", "30", "\\frac{\\pi}{6}"], [0, 0, 1]),
        (["5\\sqrt2 \\text{ cm}", "5\\sqrt{2}", "50\\sqrt{2} \\text{ mm}"], [0, 0, 0]),
        (["4 \\text{ cm}^2", "4 cm", "4", "4 cm"], [0, 1, 1, 1]),
    ],
)
def test_a_number_without_a_unit_is_in_the_usual_one(votes: list[str], classes: list[int]) -> None:
    assert cluster(votes) == classes
    backwards = cluster(votes[::-1])[::-1]
    assert [[a == b for a in classes] for b in classes] == [[a == b for a in backwards] for b in backwards]


def test_classes_are_those_of_grading() -> None:
    """Answers of one class have one verdict, whichever of them is the gold answer."""
    for answers in CLASSES:
        if "50" in answers or "\\frac12" in answers:
            continue  # percentages and ratios, where grading is lenient to one side
        for gold in answers:
            assert all(grade(f"\\boxed{{{answer}}}", gold).correct for answer in answers), (gold, answers)


def test_other_kinds() -> None:
    assert cluster(["B", "(b)", "B) 5 cm", None, "C", "5 cm"], "choice") == [0, 0, 0, None, 1, 2]
    assert cluster(["Yes", "yes.", "\\text{yes}", "no", ""], "text") == [0, 0, 0, 1, None]
    assert cluster(["18", "$18.00", "18 apples", "17"], "number") == [0, 0, 0, 1]
    assert cluster([]) == []
    with pytest.raises(UsageError, match="Unknown kind of answer 'numbers'"):
        cluster(["1"], "numbers")


@pytest.mark.timeout(120)
def test_it_does_not_hang() -> None:
    endless = ["\\sum_{k=1}^{10^{10}} k!^{k!}", "\\sum_{k=1}^{10^{10}} (k!)^{k!}"]
    huge = [
        "5^(5^(5^(5^5)))",
        "5^(5^(5^(5^5)))",
        "5^(5^(5^(5^6)))",
        "9" * 100_000,
        "{" * 10_000 + "}" * 10_000,
        "x^" * 900 + "x",
    ]
    with Grader(workers=1, deadline=1) as grader:
        classes = cluster([*endless, *huge, "5", "5.0"], grader=grader)
    assert classes[-1] == classes[-2]
    assert classes[2] == classes[3] != classes[4]
    assert classes[0] != classes[1]  # nobody could tell


@pytest.mark.timeout(120)
def test_many_votes_do_not_need_every_pair() -> None:
    generator = random.Random(0)
    spellings = ("{}", "{}.0", "x = {}", "${}$", "\\boxed{{{}}}", "{} \\text{{ cm}}")
    votes = [generator.choice(spellings).format(generator.randrange(200)) for _ in range(2000)]
    votes += [f"\\sqrt{{{number}}}" for number in range(200)]
    classes = cluster(votes)
    assert len(set(classes)) == 200 + 200 - 15  # roots of squares are integers


@pytest.mark.parametrize("answers", CLASSES, ids=lambda answers: answers[0])
def test_what_is_written_reads_the_same(answers: list[str]) -> None:
    for answer in answers:
        found = read(normalise(answer))
        assert read(write(found)) == found
