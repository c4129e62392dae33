"""Messages say one problem, and two problems."""

import pytest

from trl_math.wording import counted


@pytest.mark.parametrize(
    "number, words, said",
    [
        (1, ("row",), "1 row"),
        (0, ("row",), "0 rows"),
        (2000, ("row",), "2,000 rows"),
        (1, ("record is", "records are"), "1 record is"),
        (2, ("record is", "records are"), "2 records are"),
    ],
)
def test_one_and_many(number, words, said):
    assert counted(number, *words) == said
