"""What moves from the beginning of responses into their prompt: an opening that is given, or all that a pair shares.

A response is cut where a token ends, and only there: then the tokens of prompt and response together are the ones that
were sampled, and the texts say the same. A cut is clean if the tokens before it decode to the beginning of the text.
It is not within a character of several tokens, not within the output of a program, and leaves a token that the model
wrote itself, if only the one that ends its turn. Responses of which no tokens are known are cut before white space,
which belongs to the word behind it.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trl_math.data.pair_rules import Pair, Response, num_shared


Decode = Callable[[Sequence[int]], str]

BROKEN = "\ufffd"  # what a part of a character decodes to


class Opening(NamedTuple):
    """What a response begins with."""

    text: str = ""
    ids: tuple[int, ...] = ()


def shared_opening(pair: Pair, decode: Decode | None) -> Opening:
    """Return the longest opening of both responses behind which either can be cut."""
    place = num_shared(*pair)
    if pair.chosen.ids is None or decode is None:
        return Opening(pair.chosen.text[: _before_space(pair, place)])
    place = min(place, *(_last_trained(response) for response in pair))
    while place > 0 and not all(_is_clean(response, place, decode) for response in pair):
        place -= 1
    ids = pair.chosen.ids[:place]
    return Opening(decode(ids), ids) if ids else Opening()


def openings(
    responses: Sequence[Response], text: str, decode: Decode | None
) -> tuple[Opening, list[Response], Counter[str]]:
    """Return the opening that says `text`, the responses that have it, and why the others do not.

    All have the same tokens: of several ways to write the text, the most frequent one is kept.
    """
    dropped: Counter[str] = Counter()
    found: list[tuple[Opening, Response]] = []
    for response in responses:
        opening = _given(response, text, decode)
        if isinstance(opening, str):
            dropped[opening] += 1
        else:
            found.append((opening, response))
    if not found:
        return Opening(), [], dropped
    [(most, count)] = Counter(sorted(opening for opening, _ in found)).most_common(1)
    if count < len(found):
        dropped["prefix in other tokens than most"] = len(found) - count
    return most, [response for opening, response in found if opening == most], dropped


def without(response: Response, opening: Opening) -> Response:
    """Return a response without its opening."""
    if not opening.text and not opening.ids:
        return response
    text = response.text[len(opening.text) :]
    if response.ids is None:
        return dataclasses.replace(response, text=text, num_tokens=None, logprob=None)
    num = len(opening.ids)
    logprobs = response.token_logprobs and response.token_logprobs[num:]
    return dataclasses.replace(
        response,
        text=text,
        ids=response.ids[num:],
        num_tokens=len(response.ids) - num,
        tool_spans=tuple((start - num, end - num) for start, end in response.tool_spans if end > num),
        token_logprobs=logprobs,
        logprob=None if logprobs is None else sum(logprobs),
    )


def _given(response: Response, text: str, decode: Decode | None) -> Opening | str:
    """Return the opening of a response that says `text`, or why there is none."""
    if not response.text.startswith(text):
        return "without the prefix"
    if response.ids is None or decode is None:
        return Opening(text) if len(response.text) > len(text) else "nothing but the prefix"
    last = _last_trained(response)
    for place in range(1, last + 1):
        written = decode(response.ids[:place])
        if written == text and _is_clean(response, place, decode):
            return Opening(text, response.ids[:place])
        if len(written) > len(text):
            return "prefix ends within a token"
    return "nothing but the prefix"


def _is_clean(response: Response, place: int, decode: Decode) -> bool:
    """Whether a response can be cut before this token."""
    assert response.ids is not None
    if any(start < place < end for start, end in response.tool_spans):
        return False
    written = decode(response.ids[:place])
    return not written.endswith(BROKEN) and response.text.startswith(written)


def _last_trained(response: Response) -> int:
    """Return the place of the last token that the model wrote itself."""
    assert response.ids is not None
    spans = [range(start, end) for start, end in response.tool_spans]
    return next((place for place in reversed(range(len(response.ids))) if not any(place in span for span in spans)), 0)


def _before_space(pair: Pair, place: int) -> int:
    """Return the last place up to `place` that white space follows in both texts."""
    chosen, rejected = pair.chosen.text, pair.rejected.text
    while place > 0 and not (chosen[place : place + 1].isspace() and rejected[place : place + 1].isspace()):
        place -= 1
    return place
