"""What is said to an OpenAI-compatible server, and what its answers mean.

Every setting is sent, neutral or not: vLLM and SGLang fill what they are not told from the model's generation config.
They know `top_k`, `min_p` and `repetition_penalty`, which OpenAI's interface does not have; to other servers these go
only if they are not neutral, and a server that refuses them ends the run.

Log-probabilities must be the model's own (see `Sampling`). vLLM tells those unless it is started with another
`--logprobs-mode`; SGLang divides by the temperature first, so it is asked for none at another temperature than 1.
"""

import email.utils
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from trl_math.errors import UsageError
from trl_math.generation.backend import Request, cut_at_stop
from trl_math.generation.end_tokens import decode
from trl_math.generation.server_discovery import Server
from trl_math.generation.server_pool import TryAgain
from trl_math.records import Completion, Sampling


logger = logging.getLogger(__name__)

# Endpoint -> path below /v1.
ENDPOINTS = {"completions": "/completions", "chat": "/chat/completions"}
# Settings that OpenAI's interface does not have, with what switches them off.
NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
# What a server may say of a request that it would take at another time; and anything from 500.
PASSING = (408, 409, 425, 429)

# Codes of a request that a filter refuses, of OpenAI and of Azure.
REFUSALS = ("content_filter", "content_policy_violation", "invalid_prompt")


class TooLong(Exception):
    """Prompt and `max_tokens` together are more than the context."""

    def __init__(self, context_length: int | None) -> None:
        super().__init__("more than the context")
        self.context_length = context_length


class Refused(Exception):
    """A filter would not let the request through: another time it would not either."""


class Reply(NamedTuple):
    """An answer as it came, for messages about it."""

    server: Server
    status: int
    headers: Mapping[str, str]
    body: Any  # the JSON in it; its text if that is none


def check_sampling(server: Server, sampling: Sampling) -> None:
    """Raise if the server would not do what is asked, as far as that is known; warn where it is not."""
    asked = [name for name, neutral in NEUTRAL.items() if getattr(sampling, name) != neutral]
    if asked and not server.is_known:
        logger.warning(
            "%s is neither vLLM nor SGLang: if it does not know %s, it may leave that out without a word.",
            server.name,
            " and ".join(asked),
        )
    if sampling.choices and not server.is_known:
        logger.warning(
            "%s is neither vLLM nor SGLang, and cannot be told to answer with one of %s: other answers are kept.",
            server.name,
            " and ".join(map(repr, sampling.choices)),
        )
    is_own = sampling.temperature in (0, 1) and sampling.repetition_penalty == 1
    if sampling.logprobs and server.engine == "sglang" and not is_own:
        raise UsageError(
            "SGLang tells log-probabilities after temperature and repetition_penalty, which are not the model's own: "
            f"sample at temperature 1 and repetition_penalty 1 (got {sampling.temperature:g} and "
            f"{sampling.repetition_penalty:g}), leave logprobs out, or use vLLM."
        )


def check_prompt(request: Request, endpoint: str) -> None:
    """Raise unless the request has the prompt that the endpoint takes."""
    if endpoint == "chat" and not isinstance(request.prompt, list):
        raise UsageError(
            f"Endpoint chat takes messages, got {type(request.prompt).__name__}: use endpoint completions for plain "
            "prompts, or a chat prompt style."
        )
    if endpoint == "completions" and len(request.prompt_ids) == 0 and not request.prompt:
        raise UsageError("Endpoint completions needs the prompt's token ids, and a prompt has none.")


def request_body(
    server: Server,
    request: Request,
    sampling: Sampling,
    *,
    model: str,
    endpoint: str,
    max_tokens: int,
    has_seed: bool,
) -> dict[str, Any]:
    """Return the JSON that asks for one sample."""
    body: dict[str, Any] = {
        "model": model,
        "n": 1,
        "stream": False,
        "max_tokens": max_tokens,
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "stop": list(sampling.stop) or None,
    }
    for name, neutral in NEUTRAL.items():
        if server.is_known or getattr(sampling, name) != neutral:
            body[name] = getattr(sampling, name)
    if body.get("top_k") == 0:
        body["top_k"] = -1  # off, in the one spelling that both engines have always had
    if server.is_known:
        body["return_token_ids"] = True
    if has_seed:
        body["seed"] = request.seed
    body |= _choices(server, sampling.choices)
    if endpoint == "chat":
        body["messages"] = request.prompt
        body |= {"logprobs": True} if sampling.logprobs else {}
    else:
        # Other servers may have no way to take token ids.
        takes_text = isinstance(request.prompt, str) and not server.is_known
        body["prompt"] = request.prompt if takes_text else list(request.prompt_ids)
        body |= {"logprobs": 0} if sampling.logprobs else {}
    return body


def _choices(server: Server, choices: Sequence[str]) -> dict[str, Any]:
    """Return what makes a server answer with a choice; nothing for one that may not know how."""
    if not choices:
        return {}
    if server.engine == "vllm":
        return (
            {"guided_choice": list(choices)}
            if _is_before(server.version, 0, 11)
            else {"structured_outputs": {"choice": list(choices)}}
        )
    if server.engine == "sglang":
        return {"regex": f"({'|'.join(map(re.escape, choices))})"}
    return {}


def _is_before(version: str | None, *wanted: int) -> bool:
    """Whether a version is known to be before one."""
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < wanted


def read_completion(reply: Reply, sampling: Sampling, endpoint: str, tokenizer: Any) -> Completion:
    """Return the sample in a successful answer; raise `TryAgain` if there is none."""
    try:
        choice = reply.body["choices"][0]
        said = choice["message"]["content"] if endpoint == "chat" else choice["text"]
        finish_reason = choice["finish_reason"]
        usage = reply.body.get("usage") or {}
    except (KeyError, IndexError, TypeError, AttributeError):
        raise TryAgain(f"answered with what is no completion: {shorten(reply.body)}") from None
    if finish_reason in (None, "abort", "error"):
        raise TryAgain(f"ended a sample with {finish_reason!r}")
    if endpoint == "chat" and (choice["message"].get("reasoning") or choice["message"].get("reasoning_content")):
        warn_once("%s keeps the reasoning apart from the answer: samples hold the answer alone.", reply.server.name)
    refusal = choice["message"].get("refusal") if endpoint == "chat" else None
    if refusal or (finish_reason == "content_filter" and not said):
        said, finish_reason = said or refusal, "refused"
    elif finish_reason not in ("stop", "length"):
        # Not ended by the model: of our reasons, only `length` says that a sample was cut off.
        warn_once("%s ended samples with %r: they count as cut off (length).", reply.server.name, str(finish_reason))
        finish_reason = "length"
    token_ids = choice.get("token_ids")
    num_tokens = usage.get("completion_tokens") if token_ids is None else len(token_ids)
    if num_tokens is None:
        raise UsageError(f"{reply.server.name} does not tell how many tokens a sample has (usage.completion_tokens).")
    return Completion(
        text=_text(said or "", choice, sampling, tokenizer),
        token_ids=None if token_ids is None else tuple(token_ids),
        finish_reason=finish_reason,
        num_tokens=num_tokens,
        num_prompt_tokens=usage.get("prompt_tokens"),
        logprobs=_logprobs(choice.get("logprobs"), num_tokens, endpoint, reply.server) if sampling.logprobs else None,
    )


def _text(said: str, choice: dict[str, Any], sampling: Sampling, tokenizer: Any) -> str:
    """Return the sample's text: decoded as every backend does it if tokens and tokenizer are there, else as told.

    A server decodes in pieces: it leaves out a last character that is not whole, or a space before the first word.
    """
    ids = choice.get("token_ids")
    if tokenizer is None or ids is None:
        return said
    # vLLM and SGLang have their names for what stopped a sample: a text is a stop string, all else an end token.
    matched = choice.get("stop_reason", choice.get("matched_stop"))
    if isinstance(matched, str):
        before_stop = cut_at_stop(decode(tokenizer, ids), sampling.stop)
        return said if before_stop is None else before_stop
    return decode(tokenizer, ids, ids[-1:] if choice["finish_reason"] == "stop" else ())


def _logprobs(told: Any, num_tokens: int, endpoint: str, server: Server) -> tuple[float, ...]:
    try:
        numbers = [entry["logprob"] for entry in told["content"]] if endpoint == "chat" else told["token_logprobs"]
        found = tuple(float(number) for number in numbers)
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{server.name} tells no log-probabilities: leave logprobs out.") from None
    if len(found) != num_tokens:
        raise UsageError(
            f"{server.name} tells {len(found)} log-probabilities for {num_tokens} tokens: leave logprobs out."
        )
    return found


def check_reply(reply: Reply) -> None:
    """Return if the answer is a success; raise what else it is."""
    if 200 <= reply.status < 300:
        if not isinstance(reply.body, dict):
            raise TryAgain(f"answered with what is no JSON: {shorten(reply.body)}")
        return
    message, code = error_message(reply.body)
    name = reply.server.name
    if reply.status in (401, 403):
        raise UsageError(
            f"{name} does not accept the API key ({reply.status} {message}): set OPENAI_API_KEY to one that it knows."
        )
    if is_passing(reply) and code != "insufficient_quota":
        rest = retry_after(reply.headers.get("retry-after"))
        raise TryAgain(f"answered {reply.status} {message}", rest=rest, is_busy=reply.status == 429)
    if code in REFUSALS:
        raise Refused(message)
    if code == "context_length_exceeded" or "context length" in message.lower():
        found = re.search(r"context length(?: of| is)? \(?(\d+)", message)
        raise TooLong(int(found[1]) if found else None)
    raise UsageError(f"{name} refuses the request ({reply.status}): {message}")


def is_passing(reply: Reply) -> bool:
    """Whether the same request may succeed at another time."""
    return reply.status in PASSING or reply.status >= 500


def error_message(body: Any) -> tuple[str, str | None]:
    """Return what an error answer says in one line, and its code. OpenAI nests it, SGLang does not."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return shorten(error), None
    message = error.get("message") or error.get("detail") or error
    return shorten(message), str(error.get("code"))


def retry_after(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, which has a number or a date."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def shorten(said: Any, length: int = 500) -> str:
    """Return the beginning of what was said, in one line."""
    text = " ".join(str(said).split())
    return text if len(text) <= length else f"{text[:length]}..."


_warned: set[tuple[str, ...]] = set()


def warn_once(message: str, *args: str) -> None:
    """Log a warning that would otherwise come with every sample."""
    if (message, *args) not in _warned:
        _warned.add((message, *args))
        logger.warning(message, *args)
