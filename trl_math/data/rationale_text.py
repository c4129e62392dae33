r"""The reasoning of a completion, without the part that only announces its answer.

A teacher ends in its own way ("So the answer is 8.", `#### 8`, `$\boxed{8}$`, or the second stage's "Therefore, the
answer is 8"), a student learns another (`--> 8`). What is between is the rationale. Cut off is what stands at the end
and says nothing but the answer, "the solution is 8", too, and "So, x = 8" where something came to 8 before (else it is
a step); a box inside of reasoning is opened (`5 + 3 = \boxed{8}` is `5 + 3 = 8`). What is written before the end stays
as it is, also where it names the answer.
"""

import re

from trl_math.grading.extract import announcements, box_spans
from trl_math.grading.locate import THOUGHTS


# So many words may follow an answer without being more reasoning: "The answer is 8. I hope it is correct."
MOST_WORDS = 5
# An answer may be said twice, or thrice: "The answer is 8. #### 8 Therefore, the answer is 8".
MOST_TIMES = 5
# How far before an answer its lead-in may begin, so that no text costs much.
MOST_LEAD = 200

_WORD = re.compile(r"[^\W_]+")
# What gives a reason or computes is reasoning, however short: "The answer is 8 because 5 + 3 = 8."
_REASONING = re.compile(r"\b(?:because|since)\b|\d[\s$)]*[-+*/\u00d7\u00f7][\s$(]*\d[^\n=]{0,60}=", re.IGNORECASE)
_LEAD = re.compile(
    r"(?:\b(?:so|thus|hence|therefore|then|and|finally|in conclusion|conclusion|this means|this gives|we get|we have"
    r"|we conclude|we find|that|is|the|our|my|final|correct|right|numerical|simplified)\b|[\s,;:*_#])+$",
    re.IGNORECASE,
)
# What a closing sentence may state: a number, perhaps with a word behind it, a formula, a letter of a choice.
_NUMBER = r"[-\u2212]?\$?\d[\d,./]*+%?"
_VALUE = rf"\$?(?P<value>{_NUMBER})\$?(?: [a-z]+)?"
_CLOSE = r"[.!\s]*\Z"
_SOLUTION = re.compile(
    r"\bthe (?:(?:final|correct|right) )?(?:solution|result)(?: is|:| =)[:=]?\s{0,4}"
    rf"(?:(?:[a-z]\w{{0,3}}\s?=\s?)?{_VALUE}|\$[^$\n]{{1,60}}\$|\(?(?-i:[A-Z])\)?){_CLOSE}",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"\b(?:so|thus|hence|therefore|then),?\s{{1,4}}\$?[a-z]\w{{0,3}}\$?\s?=\s?{_VALUE}{_CLOSE}", re.IGNORECASE
)
_ROUND_BOX = re.compile(r"(?:\$|\\\[|\\\]|\\\(|\\\)|[\s.*_])+")
_HASHES = re.compile(r"(?:^|(?<=\s))#### ?", re.MULTILINE)
_TAG = "<answer>"


def rationale_of(completion: str, answer_prefix: str | None = None) -> str:
    """Return the reasoning of a completion; nothing if it only answers.

    Args:
        completion: What a teacher wrote.
        answer_prefix: What the style it was asked in puts before an answer, such as `-->`; phrases, boxes and hashes
            are known anyway.
    """
    thoughts, said = _thoughts(completion)
    # A model that has done all its reasoning in its thoughts only says the answer behind them.
    reasoning = _without_answer(said, answer_prefix)
    is_answer = len(reasoning.split()) < 2 and "=" not in reasoning
    return (_without_answer(thoughts, answer_prefix) if is_answer else "") or reasoning


def _thoughts(text: str) -> tuple[str, str]:
    """Return the thoughts of a reasoning model, and what it says after them."""
    for end in THOUGHTS:
        before, found, after = text.rpartition(end)
        if found and after.strip():
            return re.sub(r"^\s*<(?:think|thinking)>|^\s*<\|begin_of_thought\|>", "", before), after
    return "", text


def _without_answer(text: str, answer_prefix: str | None) -> str:
    prefix = (answer_prefix or "").strip()
    if prefix and prefix in text:
        text = text.rpartition(prefix)[0]
    for _ in range(MOST_TIMES):
        text = _cut_box(_cut_statement(_cut_phrase(_cut_hashes(_cut_tag(text.strip())))))
    return _opened(text).strip()


def _cut_tag(text: str) -> str:
    return text.rpartition(_TAG)[0] if _TAG in text and text.endswith("</answer>") else text


def _cut_hashes(text: str) -> str:
    found = list(_HASHES.finditer(text))
    return text[: found[-1].start()] if found and _is_short(text[found[-1].end() :], 12) else text


def _cut_phrase(text: str) -> str:
    """Cut the last sentence off if all it does is to announce the answer."""
    for start, end in announcements(text):
        if _is_short(text[end:]) and not _REASONING.search(text, start):
            return _without_lead(text[:start])
    return text


def _cut_statement(text: str) -> str:
    """Cut the last sentence off if it only states the solution, or gives a name to what was computed before."""
    end = max(0, len(text) - MOST_LEAD)
    stated = _SOLUTION.search(text, end)
    if stated and not _REASONING.search(stated[0]):
        return _without_lead(text[: stated.start()])
    named = _NAMED.search(text, end)
    if named and _is_computed(named["value"].rstrip(".,"), text[: named.start()]):
        return _without_lead(text[: named.start()])
    return text


def _is_computed(value: str, text: str) -> bool:
    """Whether something comes to this value in a text."""
    return re.search(rf"=\s?\$?{re.escape(value)}(?![\d,.]*\d)", text) is not None


def _cut_box(text: str) -> str:
    """Cut the last box off if nothing but its formula is around it."""
    spans = box_spans(text)
    if not spans:
        return text
    start, end, _ = spans[-1]
    if _ROUND_BOX.sub("", text[end:][:MOST_LEAD]) or len(text) - end > MOST_LEAD:
        return text
    line = text.rfind("\n", 0, start) + 1
    lead = text[line:start]
    if len(lead) > MOST_LEAD or _ROUND_BOX.sub("", _LEAD.sub("", _ROUND_BOX.sub(" ", lead))):
        return text
    return re.sub(r"(?:\$\$|\\\[)\s*$", "", text[:line])  # a display's beginning may have a line of its own


def _without_lead(text: str) -> str:
    """Return a text without the words at its end that lead to an answer: "5 + 3 = 8, so the" is "5 + 3 = 8"."""
    line = max(text.rfind("\n") + 1, len(text) - MOST_LEAD)
    return text[:line] + _LEAD.sub("", text[line:])


def _is_short(rest: str, most: int = MOST_WORDS) -> bool:
    """Whether what stands behind an answer is no reasoning."""
    return len(rest) <= MOST_LEAD and len(_WORD.findall(rest)) <= most and not _REASONING.search(rest)


def _opened(text: str) -> str:
    r"""Return a text with what its boxes hold in the place of the boxes."""
    pieces, done = [], 0
    for start, end, content in box_spans(text):
        if start >= done:  # a box in a box is part of the outer one's content
            pieces += [text[done:start], content]
            done = end
    return "".join([*pieces, text[done:]])
