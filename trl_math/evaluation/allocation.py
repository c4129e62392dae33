"""Which samples of which problems are drawn, in rounds, so that each problem gets only as many as settle it.

Every problem gets the first samples; a problem that is not settled gets more in each round, until it is, or has the
most that one may have, or the budget of the whole set is spent. Of a budget that is short, problems that are expected
to need the fewest further samples come first: so it settles as many problems as it can.

What is asked follows from the verdicts on samples, taken in the order of their numbers, and from nothing else. A run
that goes on after an interruption replays the rounds from the first with the samples that are there, and so arrives at
the same ones, whatever was drawn when, and whatever other samples lie in the same place.

A rule that expects something of problems before it sees them may have a prior that is fitted to the first samples.
What `agreement` promises is a share of problems, on average over those that the prior is fitted to: of all together
1 - confidence would be decided otherwise by all samples, not of those at each single pass rate. A few problems do not
tell what problems are like: a prior fitted to one of them says of it twice what was seen once. To fewer than
`FEWEST_FITTED` none is fitted: the rule gets no prior, and takes Jeffreys', over which the average then is. Where no
Beta distribution is like the problems (most at 0, the others just above the threshold) it may be twice that share.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from trl_math.evaluation.posterior import FITTED, Prior, fit_prior
from trl_math.evaluation.sequential import Rule, Verdict


# Samples that a fitted prior may weigh. Where problems are alike, the fit says more than a few samples of each can
# bear, and would settle a problem unseen; where they differ as they usually do, it weighs less anyway.
MOST_WEIGHT = 8.0
FEWEST_FITTED = 32  # problems

Verdicts = Mapping[str, Sequence[bool | None]]  # by problem, of its samples 0, 1, ...; None: it cannot be judged


@dataclass
class Track:
    """One problem under way."""

    asked: int = 0
    seen: int = 0  # samples that the rule has looked at
    right: int = 0  # of these
    settled: Verdict | None = None


class Counted(NamedTuple):
    """One problem at the end: all its samples, and what the rule says of those it looked at."""

    problem_id: str
    num_samples: int
    num_correct: int
    decision: Verdict
    is_settled: bool


class Amounts(NamedTuple):
    """How many samples: at first, in a round, at most, in all, and for problems that are sampled again."""

    first: int
    round: int
    most: int
    budget: int | None = None
    resample_to: int | None = None
    resampled: tuple[str, ...] = ()  # never, always


Count = TypeVar("Count")


class Rounds(Protocol[Count]):
    """What decides, round by round, which samples are drawn; `Count` is what it tells of a problem at the end."""

    def next_round(self, verdicts: Verdicts) -> dict[str, int]:
        """Return how many samples, those before included, problems must have now; nothing at the end."""

    def counts(self, verdicts: Verdicts) -> list[Count]:
        """Return the problems as they are at the end."""

    @property
    def standing(self) -> str:
        """What is still to be had, to be said with a round; may be empty."""


class Allocation:
    """The rounds until a rule settles problems.

    `make_rule` gets the prior that is fitted to the first samples if `is_fitted` and problems are not too few, else
    None. `earlier`: right samples and all of other problems, that the prior is fitted to as well.
    """

    def __init__(
        self,
        ids: Sequence[str],
        amounts: Amounts,
        make_rule: Callable[[Prior | None], Rule],
        *,
        is_fitted: bool,
        earlier: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.amounts = amounts
        self.unjudged: list[str] = []  # their gold answers cannot be read
        self.num_asked = 0  # samples so far
        self.num_resampled = 0
        self.is_short = False  # the budget did not do
        self.rule: Rule | None = None
        self._make_rule = make_rule
        self._is_fitted = is_fitted
        self._earlier = earlier
        self._was_again = False
        self._tracks = {name: Track() for name in ids}

    standing = ""

    @property
    def num_open(self) -> int:
        """Problems that are not settled."""
        return sum(track.settled is None for track in self._tracks.values())

    @property
    def has_fitted(self) -> bool:
        """Whether the rule's prior is fitted to the first samples."""
        return self.rule is not None and self.rule.prior.name == FITTED

    def next_round(self, verdicts: Verdicts) -> dict[str, int]:
        """Return how many samples, those before included, problems must have now; nothing at the end.

        `verdicts` are those on the samples that were asked for so far, at least.
        """
        if not self.num_asked:
            return self._ask(dict.fromkeys(self._tracks, self.amounts.first))
        self._leave_out(verdicts)
        if self.rule is None:
            self.rule = self._make_rule(self._fit(verdicts) if self._is_fitted else None)
        for name, track in self._tracks.items():
            _look(track, verdicts[name], self.rule)
        if wanted := self._open():
            return self._ask(wanted)
        again = self._ask(self._again(verdicts))
        self.num_resampled += len(again)
        return again

    def counts(self, verdicts: Verdicts) -> list[Counted]:
        """Return the problems as they are at the end."""
        assert self.rule is not None
        counted = []
        for name, track in self._tracks.items():
            decision = self.rule.best(track.right, track.seen) if track.settled is None else track.settled
            right = sum(verdict is True for verdict in verdicts[name][: track.asked])
            counted.append(Counted(name, track.asked, right, decision, track.settled is not None))
        return counted

    @property
    def facts(self) -> dict[str, Any]:
        """What the rounds came to, to be written down."""
        assert self.rule is not None
        return {
            **self.rule.facts,
            "num_samples": self.num_asked,
            "num_unsettled": self.num_open,
            "num_resampled": self.num_resampled,
        }

    def _leave_out(self, verdicts: Verdicts) -> None:
        """Take out problems whose samples cannot be judged."""
        for name in without_verdict({name: track.asked for name, track in self._tracks.items()}, verdicts):
            self.unjudged.append(name)
            del self._tracks[name]

    def _fit(self, verdicts: Verdicts) -> Prior | None:
        first = [(sum(map(bool, verdicts[name][: one.asked])), one.asked) for name, one in self._tracks.items()]
        counts = [*first, *self._earlier]
        if len(counts) < FEWEST_FITTED:
            return None
        right, asked = zip(*counts, strict=True)
        return fit_prior(right, asked, MOST_WEIGHT)

    def _open(self) -> dict[str, int]:
        """Return what problems that are not settled ask for, those that need the fewest samples first."""
        rule, amounts = self.rule, self.amounts
        assert rule is not None
        unsettled = [
            (float(rule.expected[track.seen, track.right]), place, name, track)
            for place, (name, track) in enumerate(self._tracks.items())
            if track.settled is None and track.asked < amounts.most
        ]
        wanted = {}
        for _, _, name, track in sorted(unsettled, key=lambda one: one[:2]):
            step = max(amounts.round, int(rule.fewest[track.seen, track.right]))
            wanted[name] = min(track.asked + step, amounts.most)
        return wanted

    def _again(self, verdicts: Verdicts) -> dict[str, int]:
        """Return what problems ask for that are sampled again since they were never or always solved, once."""
        if self.amounts.resample_to is None or self._was_again:
            return {}
        self._was_again = True
        whole = {("never", False), ("always", True)}
        again = {}
        for name, track in self._tracks.items():
            found = set(verdicts[name][: track.asked])
            if len(found) == 1 and {(status, *found) for status in self.amounts.resampled} & whole:
                again[name] = self.amounts.resample_to
        return again

    def _ask(self, wanted: dict[str, int]) -> dict[str, int]:
        """Return as much of what is wanted as the budget covers, and note it."""
        asked = {}
        for name, total in wanted.items():
            track = self._tracks[name]
            more = total - track.asked
            granted = more if self.amounts.budget is None else min(more, self.amounts.budget - self.num_asked)
            self.is_short |= granted < more
            if granted > 0:
                track.asked += granted
                self.num_asked += granted
                asked[name] = track.asked
        return asked


def without_verdict(asked: Mapping[str, int], verdicts: Verdicts) -> list[str]:
    """Return the problems of which a sample that was asked for cannot be judged."""
    return [name for name, number in asked.items() if None in verdicts[name][:number]]


def _look(track: Track, verdicts: Sequence[bool | None], rule: Rule) -> None:
    """Let the rule look at samples one after the other, up to the one that settles it."""
    while track.settled is None and track.seen < min(track.asked, rule.max_samples):
        track.right += bool(verdicts[track.seen])
        track.seen += 1
        track.settled = rule.settled(track.right, track.seen)
