"""What a server says of itself: which engine it is, which models it has, how long their context is.

All of it comes from `GET /v1/models`, which every OpenAI-compatible server has, so that a wrong address, key or model
name is known before anything is asked for.
"""

import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2

from trl_math.errors import UsageError, nearest


logger = logging.getLogger(__name__)

# Engines whose settings beyond OpenAI's are known, by what they call themselves in `owned_by`.
ENGINES = ("vllm", "sglang")
# Where each tells its version, relative to the server's root.
VERSION_PATHS = {"vllm": "/version", "sglang": "/get_server_info"}
# Seconds that a question about the server itself may take.
QUICK = 10.0


@dataclass(frozen=True)
class Server:
    """A server that was reached."""

    url: str  # ends in /v1 or the like; may carry a user and a password
    engine: str  # one of `ENGINES`, or what else it says
    version: str | None = None
    context_length: int | None = None

    @property
    def name(self) -> str:
        """The address, to be shown."""
        return without_secrets(self.url)

    @property
    def is_known(self) -> bool:
        return self.engine in ENGINES


def authorisation(api_key: str | None = None) -> dict[str, str]:
    """Return the header that carries the key: the one given, else that of the environment."""
    return {"Authorization": f"Bearer {api_key or os.environ.get('OPENAI_API_KEY') or 'EMPTY'}"}


def full_url(url: str) -> str:
    """Return the address with its `/v1`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(
            f"{without_secrets(url)!r} is no server address: give http://host:port/v1, or https:// and what the "
            "provider says, without anything after it."
        )
    url = url.rstrip("/")
    return url if re.search(r"/v\d", parts.path) else f"{url}/v1"


def without_secrets(url: str) -> str:
    """Return an address without the user and password in it."""
    return re.sub(r"(?<=//)[^/]*@", "***@", url.partition("?")[0])


def secrets_in(url: str) -> list[str]:
    """Return what of an address must not be shown."""
    password = urlsplit(url).password
    return [password, unquote(password)] if password else []


def model_ids(listing: Any) -> list[str]:
    """Return the names in the answer to `GET /v1/models`."""
    return [str(entry["id"]) for entry in _entries(listing)]


def discover(url: str, model: str, client: httpx2.Client, patience: float = 0.0) -> Server:
    """Ask the server at `url` what it is; raise unless it serves `model`. One that just starts is waited for."""
    response = _models(url, client, time.monotonic() + patience)
    entries = _entries(_json(response)) if response.status_code == 200 else []
    if not entries:
        logger.warning("%s does not list its models: whether it serves %r will be seen.", without_secrets(url), model)
        return Server(url, "unknown")
    by_id = {str(entry["id"]): entry for entry in entries}
    if model not in by_id:
        raise UsageError(not_served(url, model, list(by_id)))
    entry = by_id[model]
    # A LoRA adapter has the context of its base.
    context_length = entry.get("max_model_len") or by_id.get(str(entry.get("parent")), {}).get("max_model_len")
    owner = str(entry.get("owned_by") or "unknown").lower()
    engine = next((name for name in ENGINES if name in owner), owner)
    return Server(url, engine, _version(url, engine, client), context_length)


def not_served(url: str, model: str, served: Sequence[str]) -> str:
    """Return what to say about a model that a server does not have."""
    shown = ", ".join(served[:10]) + (", ..." if len(served) > 10 else "")
    return f"{without_secrets(url)} does not serve {model!r}.{nearest(model, served)} It serves: {shown}."


def _models(url: str, client: httpx2.Client, deadline: float) -> httpx2.Response:
    name = without_secrets(url)
    while True:
        try:
            response = client.get(f"{url}/models", timeout=QUICK)
            trouble = f"it answers {response.status_code}"
            if response.status_code in (401, 403):
                raise UsageError(
                    f"{name} does not accept the API key ({response.status_code}): set OPENAI_API_KEY to one that it "
                    "knows."
                )
            if response.status_code < 500 and response.status_code != 429:
                return response
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            trouble = str(error) or type(error).__name__
        if time.monotonic() >= deadline:
            raise UsageError(f"{name} cannot be reached ({trouble}): is the server running, and is this its address?")
        time.sleep(1.0)


def _version(url: str, engine: str, client: httpx2.Client) -> str | None:
    if engine not in VERSION_PATHS:
        return None
    root = re.sub(r"/v\d+$", "", url)
    try:
        version = _json(client.get(root + VERSION_PATHS[engine], timeout=QUICK)).get("version")
    except (httpx2.RequestError, AttributeError):
        return None
    return None if version is None else str(version)


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _entries(listing: Any) -> list[dict[str, Any]]:
    entries = listing.get("data") if isinstance(listing, dict) else listing
    return [entry for entry in entries or [] if isinstance(entry, dict) and "id" in entry]
