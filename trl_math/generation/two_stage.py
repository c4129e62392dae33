r"""Zero-shot chain of thought in two stages: first the reasoning, then, behind "Therefore, the answer is", the answer.

    Q: {problem}\nA: Let's think step by step.        -> reasoning
    the same, {reasoning}\nTherefore, the answer is   -> answer

It is a backend around another ("Large Language Models are Zero-Shot Reasoners", https://huggingface.co/papers/2205.11916,
as https://huggingface.co/papers/2212.10071 uses it). The sample is the reasoning, the request for the answer and the
answer, in one text, so that it is graded and trained on as any other. A sample has no token ids, being of two draws.

Where it differs from the published code:

1. Between the parts there is one space or line break, whatever was drawn around them; there, "step by step." and the
   reasoning came to stand without one.
2. The answer is drawn greedily unless told otherwise, and ends with its line; there, as the reasoning was drawn.
3. In a chat the assistant's own turn goes on. A server that takes messages alone is asked in a further turn.

Samples are drawn in groups, so that a run that is interrupted loses no more than the reasoning of a group.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from trl_math.data.prompt_styles import THEREFORE
from trl_math.errors import UsageError
from trl_math.generation.backend import Backend, Request, Usage, request_seed
from trl_math.generation.tokenise import prompt_token_ids
from trl_math.records import Completion, Sampling


ANSWER_REQUEST = THEREFORE  # as students write it who learn in words
# What a server is asked that takes messages only, and may not let a turn go on.
ANSWER_TURN = f'Complete this sentence with the final answer and say nothing else: "{ANSWER_REQUEST} ..."'
GROUP_SIZE = 256
# Tokens at most that the second prompt has beside the first one and the reasoning.
REQUEST_TOKENS = 64
# No reasoning, so that there is nothing to put before the answer.
NO_REASONING = ("prompt_too_long", "refused")


class TwoStageBackend(Backend):
    """Draws reasoning from another backend, and then the answer to it.

    Args:
        backend: The engine.
        tokenizer: Of its model; None for a server that takes messages and has its own.
        is_chat: The engine takes messages alone.
        answer_tokens: Tokens of an answer at most; `max_tokens` is for the reasoning.
        answer_temperature: Of the answer; 0 is greedy.
        group_size: So many samples are reasoned out before their answers are asked for.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Any,
        *,
        is_chat: bool = False,
        answer_tokens: int = 32,
        answer_temperature: float = 0.0,
        group_size: int = GROUP_SIZE,
    ) -> None:
        if answer_tokens < 1 or group_size < 1:
            raise UsageError(f"answer_tokens and group_size must be at least 1, got {answer_tokens} and {group_size}.")
        self.backend = backend
        self.tokenizer = tokenizer
        self.is_chat = is_chat
        self.answer_tokens = answer_tokens
        self.answer_temperature = answer_temperature
        self.context_length = backend.context_length
        self._group_size = group_size

    def stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index, sample) as samples end."""
        if sampling.logprobs:
            raise UsageError(
                "A sample of two stages is of two draws and has no log-probabilities: leave logprobs out."
            )
        if sampling.choices:
            raise UsageError("A sample of two stages is reasoning and an answer, and no choice: leave choices out.")
        return self._stream(requests, sampling)

    def facts(self) -> dict[str, Any]:
        return {**self.backend.facts(), "prompting": "two_stage"}

    def troubles(self) -> dict[str, int]:
        return self.backend.troubles()

    def close(self) -> None:
        self.backend.close()

    def most(self, request: Request, sampling: Sampling) -> Usage:
        """Return the most tokens that both draws may take."""
        return both_stages(self.backend.most(request, sampling), self.answer_tokens)

    def _stream(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        numbered = enumerate(requests)
        while group := list(islice(numbered, self._group_size)):
            reasoned: list[tuple[int, Request, Completion]] = []
            for place, completion in self.backend.stream([request for _, request in group], sampling):
                index, request = group[place]
                follow_up = self._follow_up(request, completion)
                if follow_up is None:
                    yield index, _unanswered(request, completion)
                else:
                    reasoned.append((index, follow_up, _with_prompt_tokens(request, completion)))
            settings = dataclasses.replace(
                sampling,
                num_samples=1,
                max_tokens=self.answer_tokens,
                temperature=self.answer_temperature,
                **({"top_p": 1.0, "top_k": 0, "min_p": 0.0} if self.answer_temperature == 0 else {}),
            )
            follow_ups = [follow_up for _, follow_up, _ in reasoned]
            for place, answer in self.backend.stream(follow_ups, settings) if reasoned else ():
                index, follow_up, reasoning = reasoned[place]
                yield index, joined(reasoning, _with_prompt_tokens(follow_up, answer))

    def _follow_up(self, request: Request, reasoning: Completion) -> Request | None:
        """Return the request for the answer; None if there is no reasoning, or no room behind it."""
        if reasoning.finish_reason in NO_REASONING:
            return None
        seed = request_seed(request.seed, "answer", 0)
        if self.is_chat:
            turns = [{"role": "assistant", "content": reasoning.text}, {"role": "user", "content": ANSWER_TURN}]
            return Request((), seed, [*request.prompt, *turns])
        behind = f"{reasoning.text.rstrip()}\n{ANSWER_REQUEST}"
        if isinstance(request.prompt, str) and self.tokenizer is None:
            return Request((), seed, request.prompt + behind)
        ids = self._ids_behind(request, behind)
        text = request.prompt + behind if isinstance(request.prompt, str) else request.prompt
        follow_up = Request(ids, seed, text)
        return follow_up if self.backend.fits(ids) else None

    def _ids_behind(self, request: Request, behind: str) -> list[int]:
        """Return the tokens of a prompt with more text behind it."""
        if isinstance(request.prompt, str):
            return prompt_token_ids(self.tokenizer, request.prompt + behind)
        # Behind the tokens of a template a text is tokenised as it is behind a line break.
        line_break, both = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("\n", f"\n{behind.lstrip()}")
        )
        is_apart = both[: len(line_break)] == line_break
        own = both[len(line_break) :] if is_apart else self.tokenizer(behind, add_special_tokens=False)["input_ids"]
        return [*request.prompt_ids, *own]


def both_stages(first: Usage, answer_tokens: int, num_samples: int = 1) -> Usage:
    """Return the most tokens that samples take whose first stage takes so many: the second one reads them again."""
    again = first.num_prompt_tokens + first.num_tokens + REQUEST_TOKENS * num_samples
    return Usage(first.num_prompt_tokens + again, first.num_tokens + answer_tokens * num_samples)


def joined(reasoning: Completion, answer: Completion) -> Completion:
    """Return both parts as one sample."""
    told = [part.num_prompt_tokens for part in (reasoning, answer)]
    return Completion(
        text=join(reasoning.text, answer.text),
        token_ids=None,
        finish_reason="refused" if answer.finish_reason == "refused" else _ended(answer),
        num_tokens=reasoning.num_tokens + answer.num_tokens,
        reasoning_finish_reason=reasoning.finish_reason,
        num_prompt_tokens=None if None in told else sum(filter(None, told)),
    )


def join(reasoning: str, answer: str) -> str:
    """Return reasoning, the request for the answer, and the first line of the answer, with one space between.

    A chat that repeats the sentence that it is to complete has said it once.
    """
    said = answer.strip().strip('"').strip()
    repeated = re.match(r"(?:therefore,?\s+)?the\s+(?:final\s+)?answer\s+is\b[\s:.]*", said, re.IGNORECASE)
    line = said[repeated.end() if repeated else 0 :].lstrip().partition("\n")[0].rstrip()
    return f"{reasoning.rstrip()}\n{ANSWER_REQUEST} {line}".rstrip()


def _ended(answer: Completion) -> str:
    """Return why an answer ended: with its line, if there is something behind that."""
    return "stop" if "\n" in answer.text.strip() else answer.finish_reason


def _unanswered(request: Request, reasoning: Completion) -> Completion:
    """Return what was drawn where there is nothing to ask for, or no room to ask."""
    reason = reasoning.finish_reason if reasoning.finish_reason in NO_REASONING else "length"
    return dataclasses.replace(
        _with_prompt_tokens(request, reasoning),
        token_ids=None,
        finish_reason=reason,
        reasoning_finish_reason=reasoning.finish_reason,
    )


def _with_prompt_tokens(request: Request, completion: Completion) -> Completion:
    """Return a completion that knows how many tokens its prompt had: as the engine says, else as they were sent."""
    if completion.num_prompt_tokens is not None or not len(request.prompt_ids):
        return completion
    return dataclasses.replace(completion, num_prompt_tokens=len(request.prompt_ids))
