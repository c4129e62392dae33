"""The numbers of a build, against counts made here, and the interval of the length classifier against simulation."""

import json

import numpy as np
import pytest
from pair_samples import decode, mixed, problem, sample

from trl_math.data.pair_statistics import PASS_RATES, clustered_share
from trl_math.data.pairs import PairSettings, build_pairs
from trl_math.evaluation.intervals import wilson
from trl_math.reporting.pairs_figure import draw


def lengths(name, right, wrong):
    """A problem whose right and wrong samples have these numbers of letters."""
    rows = [sample(chr(97 + place) * number, True, place) for place, number in enumerate(right)]
    rows += [sample(chr(65 + place) * number, False, 50 + place) for place, number in enumerate(wrong)]
    return problem(rows, name)


PROBLEMS = [lengths("a", [4, 9], [9, 12, 3]), lengths("b", [5], [5, 8]), lengths("c", [], [1]), lengths("d", [2], [])]


def test_counts():
    build = build_pairs(PROBLEMS, PairSettings(rule="all"))
    found = build.statistics
    differences = [4 - 9, 4 - 12, 4 - 3, 9 - 9, 9 - 12, 9 - 3, 5 - 5, 5 - 8]
    assert (found.num_problems, found.num_used, found.num_samples, found.num_pairs) == (4, 2, 10, 8)
    assert found.pairs_per_problem == {2: 1, 6: 1} and found.distinct_answers == {3: 1, 5: 1}
    assert {name: count for name, count in found.pass_rates.items() if count} == {"0": 1, "0.3-0.4": 2, "1": 1}
    assert {name: count for name, count in found.pass_rates_used.items() if count} == {"0.3-0.4": 2}
    assert found.length_difference.mean == pytest.approx(np.mean(differences))
    assert found.length_difference.median == np.median(differences)
    assert found.length_difference.quantiles["0.25"] == pytest.approx(np.quantile(differences, 0.25))
    assert sum(found.length_difference.counts) == found.length_difference.n == 8
    shorter = [1.0 if one < 0 else 0.5 if one == 0 else 0.0 for one in differences]
    assert found.length_auc.value == pytest.approx(np.mean(shorter))
    assert (found.length_auc.n, found.length_auc.num_problems) == (8, 2)
    assert found.logprob_difference is None and found.length_unit == "tokens"
    weighted = build_pairs(PROBLEMS, PairSettings(rule="all", weighting="equal_problems")).statistics
    assert weighted.length_auc.value == pytest.approx((np.mean(shorter[:6]) + np.mean(shorter[6:])) / 2)


@pytest.mark.parametrize(
    ("rate", "name"), [(0, "0"), (0.1, "0.0-0.1"), (0.3, "0.2-0.3"), (0.95, "0.9-1.0"), (0.9, "0.8-0.9"), (1, "1")]
)
def test_bins_of_pass_rates(rate, name):
    right = round(rate * 20)
    found = build_pairs([mixed("p", right, 20 - right)], PairSettings()).statistics
    assert list(found.pass_rates) == list(PASS_RATES)
    assert [key for key, count in found.pass_rates.items() if count] == [name]


def test_log_probabilities():
    """Of samples that have them; and where an opening moved, what both share falls out of the difference."""
    rows = [sample("so 42", True, 0, token_logprobs=[-1.0] * 6, logprob=-6.0)]
    rows += [sample("so 1", False, 1, token_logprobs=[-2.0] * 5, logprob=-10.0), sample("so 2", False, 2)]
    build = build_pairs([problem(rows)], PairSettings(rule="all"))
    assert build.statistics.logprob_difference.mean == 4.0 and build.statistics.logprob_difference.n == 1
    [row] = build_pairs([problem(rows)], PairSettings(rule="first_divergence"), decode=decode).rows
    assert (row["chosen"], row["chosen_logprob"], row["rejected_logprob"]) == ("42", -3.0, -4.0)


def test_warning_where_length_tells():
    """Only where the whole interval is outside of 0.4 to 0.6, on either side."""
    shorter = [lengths(f"p/{number}", [3], [9]) for number in range(30)]
    longer = [lengths(f"q/{number}", [9], [3]) for number in range(30)]
    equal = [lengths(f"r/{number}", [5], [5]) for number in range(30)]
    for problems, tells in ((shorter, True), (longer, True), (equal, False), (shorter[:3], False)):
        found = build_pairs(problems, PairSettings()).statistics
        assert found.length_tells is tells and bool(found.warnings) is tells
    both = build_pairs([*shorter, *longer], PairSettings()).statistics
    assert both.length_auc.value == 0.5 and not both.warnings


def test_interval_of_single_pairs_is_wilsons():
    """One pair a problem: Wilson's interval with one problem fewer, since the variance is estimated."""
    sums = [1.0] * 14 + [0.0] * 6
    found = clustered_share(sums, [1.0] * 20, 20)
    low, high = map(float, wilson(0.7, 19))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_interval_ignores_copies():
    """Pairs that repeat what others of their problem say make no interval narrower."""
    once = clustered_share([1.0, 0.0, 1.0, 1.0], [1.0] * 4, 4)
    copied = clustered_share([9.0, 0.0, 9.0, 9.0], [9.0] * 4, 36)
    assert once[:3] == pytest.approx(copied[:3])


def test_interval_covers():
    """Of clusters of unequal size and their own rates, about 95 % of intervals have the true share in them."""
    random, covered, num = np.random.default_rng(0), 0, 400
    for _ in range(num):
        sizes = random.integers(1, 9, size=60)
        sums = random.binomial(sizes, random.beta(2, 1, size=60))
        found = clustered_share(sums, sizes, int(sizes.sum()))
        covered += found.low <= 2 / 3 <= found.high
    assert 0.92 <= covered / num <= 0.985


def test_table_and_json():
    found = build_pairs(PROBLEMS, PairSettings(rule="all", max_pairs_per_problem=3)).statistics
    said = "\n".join(found.lines())
    for part in ("5 of 2 problems", "1 all samples right, 1 no sample right", "3 more than max_pairs_per_problem"):
        assert part in said
    assert json.loads(json.dumps(found.as_dict()))["length_auc"]["n"] == 5
    nothing = build_pairs(PROBLEMS[2:], PairSettings()).statistics
    assert nothing.length_auc is None and "0 of 0 problems" in "\n".join(nothing.lines())
    json.dumps(nothing.as_dict())


def test_figure(tmp_path):
    """It is drawn for any statistics; the same ones give the same bytes, as `test_pairs_command` finds."""
    problems = [mixed(f"p/{number}", 1 + number % 7, 1 + number % 5) for number in range(40)]
    for name, given in (("many", problems), ("one", problems[:1]), ("none", PROBLEMS[2:])):
        found = build_pairs(given, PairSettings(rule="all")).statistics
        files = draw(found, tmp_path / f"{name}.svg")
        assert [file.name for file in files] == [f"{name}.png", f"{name}.svg"]
        assert all(file.stat().st_size > 1000 for file in files)
