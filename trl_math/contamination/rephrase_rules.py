"""A problem in other words by rule, without a model: order, question, phrases, numerals, names.

    Janet's ducks lay 16 eggs per day. How many eggs does she sell every week?
    Work out how many eggs she sells each week. What is known: Nina's ducks lay sixteen eggs each day.

Numbers stay what they are, in digits or in words, and so does the answer. These are the cheapest paraphrases, and the
hardest for nobody: what a detector does not find of them it finds of nothing. They are here because they need no
model, keep the answer, and are the same for everyone. Formulas are left alone.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from trl_math.contamination.question_numbers import find_mentions, number_word, replace_mentions, word_value
from trl_math.contamination.rephrase_words import FEMALE, MALE, PHRASES, VERBS, WORDS
from trl_math.errors import pick


class Rephrased(NamedTuple):
    """A problem in other words."""

    problem: str
    rules: list[str]  # that changed something
    names: dict[str, str]  # old -> new, for the solution


_SENTENCE = re.compile(r"(?<=[.?!])[\"'\u201d\u2019)]?\s+(?=[A-Z\"'\u201c($\d])")
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|vs|No|a\.m|p\.m)\.$")
# A sentence with one of these speaks of what was said before it.
_REFERS = re.compile(
    r"\b(?:he|she|it|they|him|her|them|his|hers|its|their|this|that|these|those|then|there|also|after|afterwards|before"
    r"|rest|remaining|another|others?|next|first|second|third|finally|later|however|but|so|same|both|more|less|fewer|still"
    r"|the|all|than|twice|times|half|double|such|each|if|when|while|now|once|again)\b",
    re.IGNORECASE,
)
_SUBJECT = r"(?P<subject>he|she|it|they|we|you|I|[A-Z][a-z]+)"
_ASKED = r"(?P<asked>[Hh]ow (?:many|much)(?: (?!does |did |will |can )[\w'-]+){0,6}?)"
_WITH_DO = re.compile(rf"^{_ASKED} (?P<do>does|did|do) {_SUBJECT} (?P<verb>\w+)\b(?P<rest>[^?]*)\?$")
_WITH_MODAL = re.compile(rf"^{_ASKED} (?P<modal>will|can|would|should|could|must) {_SUBJECT} (?P<rest>[^?]+)\?$")
_WHAT_IS = re.compile(r"^What (?:is|was|are|were) (?P<rest>the [^?]+)\?$")
_DOLLARS = re.compile(
    r"\$(?P<amount>\d+(?:,\d{3})*(?:\.\d+)?)(?=[.,;?!](?!\d)|\s+(?:per|each|a|an|for|every|and|on|to|in|from|at|more|less|off)\b|$)"
)
_PART = re.compile(r"[\s-](?:quarters?|halves|half|thirds?|fourths?|fifths?|sixths?|eighths?|tenths?)\b")
_FACTS = ("What is known:", "The facts:", "Here is what is known.")
_LEADS = ("Work out", "Find out", "Tell")
# What only a text with formulas has; in others $ is money.
_IS_LATEX = re.compile(r"[\^_]\d|\\[A-Za-z(\[]|\$[A-Za-z(|-][^$]*\$|[\^_]\{|\[asy\]")
_FORMULA = re.compile(r"\[asy\].*?\[/asy\]|\$\$.*?\$\$|\$[^$]*\$|\\\[.*?\\\]|\\\(.*?\\\)", re.DOTALL)


def rephrase_by_rule(problem: str, seed: int | str = 0, rules: Sequence[str] | None = None) -> Rephrased:
    """Return a problem in other words; another seed, other ones."""
    done: list[str] = []
    text, kept = _without_mathematics(problem)
    names = _new_names(text, random.Random(f"{seed}\nnames\n{problem}"))
    for name in [pick("rule", name, RULES) for name in rules or RULES]:
        draws = random.Random(f"{seed}\n{name}\n{problem}")
        changed = RULES[name](text, draws) if name != "names" else with_names(text, names)
        if changed != text:
            done.append(name)
        text = changed
    for mark, formula in kept.items():
        text = text.replace(mark, formula)
    return Rephrased(text, done, names if "names" in done else {})


def with_names(text: str, names: Mapping[str, str]) -> str:
    """Return a text with other names, all at once."""
    if not names:
        return text
    return re.sub(rf"\b(?:{'|'.join(names)})\b", lambda found: names[found[0]], text)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    found: list[str] = []
    for part in _SENTENCE.split(text.strip()):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] = f"{found[-1]} {part}"
        else:
            found.append(part)
    return found


def _without_mathematics(text: str) -> tuple[str, dict[str, str]]:
    """Return a text with marks in the place of formulas, which no rule reads."""
    kept: dict[str, str] = {}
    if not _IS_LATEX.search(text):
        return text, kept

    def mark(found: re.Match[str]) -> str:
        kept[name := f"\ue000{chr(0xE100 + len(kept))}"] = found[0]
        return name

    return _FORMULA.sub(mark, text), kept


def _new_names(text: str, draws: random.Random) -> dict[str, str]:
    """Return other names for the people of a problem, of the same gender."""
    there = set(re.findall(r"\b[A-Z][a-z]+\b", text))
    names: dict[str, str] = {}
    for known in (FEMALE, MALE):
        free = [name for name in known if name not in there]
        own = [name for name in known if name in there]
        names |= dict(zip(own, draws.sample(free, min(len(own), len(free))), strict=False))
    return names


def _ask_otherwise(text: str, draws: random.Random) -> str:
    """Ask by a request: `Work out how many eggs she sells.`"""
    *facts, question = sentences(text)
    lead = draws.choice(_LEADS)
    if found := _WITH_DO.match(question):
        verb = _without_do(found["do"], found["verb"])
        if verb is not None:
            said = f"{lead} {_lower(found['asked'])} {found['subject']} {verb}{found['rest']}."
            return " ".join([*facts, said])
    if found := _WITH_MODAL.match(question):
        said = f"{lead} {_lower(found['asked'])} {found['subject']} {found['modal']} {found['rest']}."
        return " ".join([*facts, said])
    if found := _WHAT_IS.match(question):
        return " ".join([*facts, f"Determine {found['rest']}."])
    return text


def _without_do(do: str, verb: str) -> str | None:
    if verb not in VERBS:
        return None
    return {"does": VERBS[verb][0], "did": VERBS[verb][1], "do": verb}[do]


def _reorder(text: str, draws: random.Random) -> str:
    """Exchange sentences that speak of nothing said before, and at times put the question first."""
    found = sentences(text)
    if len(found) < 2:
        return text
    *facts, question = found
    for place in range(len(facts) - 1):
        first, second = facts[place], facts[place + 1]
        if not _REFERS.search(first) and not _REFERS.search(second):
            facts[place], facts[place + 1] = second, first
    is_request = not question.endswith("?")
    if draws.random() < 0.5 and len(facts) <= 5 and (is_request or not re.search(r"\bthe\b", question)):
        return " ".join([_with_subject(question, " ".join(facts)), draws.choice(_FACTS), *facts])
    return " ".join([*facts, question])


def _with_subject(question: str, facts: str) -> str:
    """Return a question that comes first with the name in place of the pronoun, if that can be one person only."""
    for pronoun, known in (("he", MALE), ("she", FEMALE)):
        named = [name for name in known if re.search(rf"\b{name}\b", facts)]
        if len(named) == 1 and not re.search(rf"\b{named[0]}\b", question):
            question = re.sub(rf"\b{pronoun}\b", named[0], question, count=1)
    return question


def _other_phrases(text: str, draws: random.Random) -> str:
    """Put phrases and words in the place of others that mean the same, each place once."""
    patterns = [re.compile(rf"(?<!\w){pattern}", re.IGNORECASE) for pattern, _ in PHRASES]
    single = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)
    taken: list[tuple[int, int, str]] = []
    for pattern, (_, others) in zip(patterns, PHRASES, strict=True):
        taken += [
            (*found.span(), _as_written(found[0], found.expand(draws.choice(others))))
            for found in pattern.finditer(text)
        ]
    taken += [(*found.span(), _as_written(found[0], WORDS[found[0].lower()])) for found in single.finditer(text)]
    pieces, end = [], 0
    for start, stop, other in sorted(taken, key=lambda one: one[0]):
        if start >= end:
            pieces += [text[end:start], other]
            end = stop
    return "".join([*pieces, text[end:]])


def _as_written(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old.strip()[:1].isupper() else new


def _other_numerals(text: str, draws: random.Random) -> str:
    """Write digits as words and words as digits, dollars and percents in words, thousands with or without a comma."""
    text = _DOLLARS.sub(lambda found: f"{found['amount']} dollar{'' if found['amount'] == '1' else 's'}", text)
    text = re.sub(r"(?<=\d)\s?%", " percent", text)
    written: dict[int, str] = {}
    for mention in find_mentions(text):
        before = text[: mention.start]
        if mention.is_fixed or before.endswith("$") or mention.value.denominator > 1:
            continue
        if text[mention.end : mention.end + 1].isalpha() or _PART.match(text, mention.end):
            continue  # 5km, 4 quarters
        if re.search(r"\d(?:\s?x\s?|-)$", before) or re.match(r"(?:\s?x\s?|-)\d", text[mention.end :]):
            continue  # 2 x 4, 0-9
        written[mention.start] = _other_numeral(mention.text, mention.value, is_first=_begins(before))
    return replace_mentions(text, written)


def _other_numeral(text: str, value: Fraction, *, is_first: bool) -> str:
    number = int(value)
    if word_value(text) is not None:
        return str(number)
    if number < 100:
        word = number_word(number)
        return word.capitalize() if is_first else word
    for scale, name in ((1000, "thousand"), (100, "hundred")):
        if number % scale == 0 and number // scale < 100 // (scale // 100):
            word = f"{number_word(number // scale)} {name}"
            return word.capitalize() if is_first else word
    return str(number) if "," in text else f"{number:,}"


def _begins(before: str) -> bool:
    return not before.strip() or before.rstrip()[-1] in ".?!"


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


# In the order in which they are applied: later ones read what earlier ones wrote.
RULES: dict[str, Callable[[str, random.Random], str]] = {
    "question": _ask_otherwise,
    "order": _reorder,
    "phrases": _other_phrases,
    "numerals": _other_numerals,
    "names": lambda text, draws: text,  # with the names that are drawn for the whole problem
}
