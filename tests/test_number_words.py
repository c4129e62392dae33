"""Numbers have one form, however a text writes them."""

import pytest

from trl_math.contamination.number_words import clean, numbers_of


def named(text: str) -> list[set[str]]:
    return [set(number) for number in numbers_of(clean(text)).mentions]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000 and $10{,}000$ and 12,\\!345", [{"1000"}, {"10000"}, {"12345"}]),
        ("two hundred and five, twenty-five, twenty five", [{"205"}, {"25"}, {"25"}]),
        ("one thousand two hundred, a hundred", [{"1200"}, {"100"}]),
        ("three four five", [{"3"}, {"4"}, {"5"}]),
        ("2.5 million, 5k", [{"2500000"}, {"5000"}]),
        ("3/4, \\frac{3}{4}, \\dfrac34, three quarters, 0.75", [{"3/4"}] * 5),
        ("three and a half, 3½, 3 1/2", [{"7/2"}] * 3),
        ("two-thirds, 2/3", [{"2/3"}, {"2/3"}]),
        ("two dozen eggs", [{"24"}]),
        ("twice, double, doubled", [{"2"}] * 3),
        ("75 cents or $0.75", [{"75", "3/4"}, {"3/4"}]),
        ("30% off", [{"30", "3/10"}]),
        ("half an hour, 30 minutes", [{"1/2", "2", "30", "120"}, {"30", "1800"}]),
        ("the third day", [{"3", "1/3"}]),
        ("8:00 in the morning", [{"8"}]),
        ("a 24-cubic-inch box, 5-year-old", [{"24"}, {"5", "60"}]),
        ("one apple, a pear, each", []),
        ("1/0", []),
        ("", []),
    ],
)
def test_one_form(text: str, expected: list[set[str]]):
    assert named(text) == expected


def test_coordinates_of_a_drawing_are_no_numbers():
    assert named("A square has sides of 7. [asy]draw((0,0)--(12,5));[/asy]") == [{"7"}]


def test_a_week_implies_seven():
    assert "7" in numbers_of(clean("How much does she earn a week?")).implied
