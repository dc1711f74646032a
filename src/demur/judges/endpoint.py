"""An OpenAI-compatible endpoint with a bound on what it may cost: requests, tokens, threads, seconds.

The official client sends, and tries again with growing pauses (``Retry-After`` is kept) after 408, 409, 429, 5xx,
timeouts and broken connections. Every try counts as a request. The API key is read from the environment when the first
request is sent; it is written nowhere and taken out of everything that comes back.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from demur.types import DemurError

if TYPE_CHECKING:
    import openai

Messages = Sequence[dict[str, str]]


class NoAnswer(Exception):
    """A request that brought no usable answer; its text says why."""


class Spent(NoAnswer):
    """The budget does not allow another request."""


@dataclass(frozen=True)
class Budget:
    """At most so many requests, every retry counted, and so many tokens, as far as the endpoint reports its usage.

    None is no bound; 0 requests sends nothing. Requests are bounded exactly. Tokens are known only after an answer, so
    that those under way at once may go beyond the bound.
    """

    requests: int | None = 2000
    tokens: int | None = None


@dataclass(frozen=True)
class Spending:
    """Requests that were sent and tokens that were reported."""

    requests: int
    tokens: int


@dataclass(frozen=True)
class Reply:
    """A model's text; ``cut``: it ended at the limit of its length. ``tokens`` is the reported usage, if any."""

    text: str
    cut: bool = False
    tokens: int | None = None


class _Meter:
    """What has been spent so far, and the client that is opened when it is first needed."""

    def __init__(self, places: int) -> None:
        self.lock = threading.Lock()
        self.places = threading.BoundedSemaphore(places)
        self.requests = 0
        self.tokens = 0
        self.answered = False
        self.client: openai.OpenAI | None = None


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address that ends in ``/v1``, asked under a budget.

    ``api_key_env`` names the variable that holds the key; empty: no key is sent, whatever the environment holds.
    ``timeout`` is in seconds of silence and for one try, ``retries`` come on top of the first try, ``concurrency``
    bounds the requests under way at once, whoever calls. ``temperature``, ``seed`` and ``max_tokens`` (of an answer)
    are left out of the request where they are None, since some endpoints reject them.
    """

    model: str
    base_url: str
    api_key_env: str = ""
    timeout: float = 60.0
    retries: int = 4
    concurrency: int = 8
    budget: Budget = field(default_factory=Budget)
    temperature: float | None = 0.0
    seed: int | None = 0
    max_tokens: int | None = 512
    _meter: _Meter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _is_address(self.base_url):  # not shown: what is no address may be a key in the wrong place
            raise DemurError("base_url is no address", "one that begins with http:// or https://", "name it in full")
        if self.concurrency < 1 or self.retries < 0 or not self.timeout > 0:
            came = f"concurrency {self.concurrency}, retries {self.retries}, timeout {self.timeout}"
            raise DemurError(came, "at least 1, at least 0 and more than 0", "change the settings of the endpoint")
        object.__setattr__(self, "_meter", _Meter(self.concurrency))

    def __reduce__(self) -> tuple[Any, ...]:
        """Settings travel to another process; what was spent and the open client stay."""
        settings = (self.model, self.base_url, self.api_key_env, self.timeout, self.retries, self.concurrency)
        return Endpoint, (*settings, self.budget, self.temperature, self.seed, self.max_tokens)

    @property
    def place(self) -> str:
        """The address without a user, a password or a query, for messages."""
        address = urlsplit(self.base_url)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"

    @property
    def spent(self) -> Spending:
        """What was spent so far, by this object."""
        with self._meter.lock:
            return Spending(self._meter.requests, self._meter.tokens)

    def check(self) -> None:
        """Sends nothing; raises what the first request would raise for a missing client or key."""
        self._client()

    def __call__(self, messages: Messages) -> Reply:
        """The model's answer. Raises :class:`NoAnswer` where it has none, DemurError where asking on is pointless."""
        client, request = self._client(), self._request(messages)
        import openai

        try:
            with self._meter.places:
                raw = client.chat.completions.with_raw_response.create(**request)
            body = raw.http_response.text
        except openai.APIConnectionError as error:  # timeouts are among them
            raise self._unreached(error) from None
        except openai.APIStatusError as error:
            raise self._rejected(error) from None
        except openai.OpenAIError as error:
            raise NoAnswer(self._clean(f"{type(error).__name__}: {error}")) from None
        self._meter.answered = True
        return self._reply(body)

    def _request(self, messages: Messages) -> dict[str, Any]:
        settings = {"temperature": self.temperature, "seed": self.seed, "max_tokens": self.max_tokens}
        given = {name: value for name, value in settings.items() if value is not None}
        # An answer may hold half of a surrogate pair, which no UTF-8 can carry.
        sound = [{k: v.encode(errors="replace").decode() for k, v in message.items()} for message in messages]
        return {"model": self.model, "messages": sound, **given}

    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    def _client(self) -> openai.OpenAI:
        try:
            import openai
        except ImportError as error:
            raise DemurError(
                "the client of endpoints is not installed", "openai", "pip install 'demur[judges]'"
            ) from error
        key = self._key()
        if self.api_key_env and not key:
            raise DemurError(
                f"{self.api_key_env} is not set", "the endpoint's API key in it", "export it, then try again"
            )
        if not (key.isascii() and key.isprintable()):
            raise DemurError(f"{self.api_key_env} holds more than plain letters", "an API key", "copy it once more")
        with self._meter.lock:
            if self._meter.client is None:
                # Counting where requests leave counts the client's own retries too. A strong reference to the method
                # would keep this object, and with it the open connections, for ever.
                count = weakref.WeakMethod(self._count)
                hooks = {"request": [lambda request: _call(count(), request)]}
                http = openai.DefaultHttpxClient(timeout=self.timeout, event_hooks=hooks)
                self._meter.client = openai.OpenAI(
                    api_key=key or "none",
                    base_url=self.base_url,
                    timeout=self.timeout,
                    max_retries=self.retries,
                    http_client=http,
                )
                weakref.finalize(self, http.close)
            return self._meter.client

    def _count(self, request: object) -> None:
        """Takes a request from the budget just before it leaves, or raises :class:`Spent`."""
        meter, most = self._meter, self.budget
        with meter.lock:
            if most.requests is not None and meter.requests >= most.requests:
                raise Spent(f"budget of {most.requests:,} requests is spent")
            if most.tokens is not None and meter.tokens >= most.tokens:
                raise Spent(f"budget of {most.tokens:,} tokens is spent")
            meter.requests += 1

    def _unreached(self, error: openai.APIConnectionError) -> Exception:
        import openai

        cause = error.__cause__
        if isinstance(cause, Spent):  # older clients wrap whatever a hook raises
            return cause
        kind = type(cause).__name__
        if kind in ("ConnectError", "ConnectTimeout") and not self._meter.answered:
            came = f"nothing answers at {self.place} ({self._clean(str(cause), 100)})"
            return DemurError(came, "an OpenAI-compatible endpoint", "start it, or name its address")
        if isinstance(error, openai.APITimeoutError):
            return NoAnswer(f"timeout: no answer within {self.timeout:g} s")
        return NoAnswer(f"connection broken ({kind})")

    def _rejected(self, error: openai.APIStatusError) -> Exception:
        said = error.body.get("message") if isinstance(error.body, dict) else None
        reason = f" ({said})" if isinstance(said, str) and said else ""
        status = self._clean(f"HTTP {error.status_code}{reason}")
        if error.status_code in (401, 404) and not self._meter.answered:  # it would be so for every request
            where = f"{self.api_key_env or 'api_key_env'}, model {self.model!r} and an address that ends in /v1"
            return DemurError(f"{self.place} says {status}", "a key and a model that it knows", f"check {where}")
        return NoAnswer(status)

    def _reply(self, body: str) -> Reply:
        try:
            content = json.loads(body)
            choice = content["choices"][0]
            text, end = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, RecursionError):
            raise NoAnswer("the body of the answer is no JSON") from None
        except (LookupError, TypeError, AttributeError):
            raise NoAnswer("the body of the answer is no chat completion") from None
        usage = content.get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        tokens = total if type(total) is int and total >= 0 else None
        with self._meter.lock:
            self._meter.tokens += tokens or 0
        if not isinstance(text, str) or not text.strip():
            raise NoAnswer(f"an answer without text (finish_reason {self._clean(str(end), 40)})")
        return Reply(self._without_key(text), end == "length", tokens)

    def _without_key(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "***") if len(key) >= 8 else text

    def _clean(self, text: str, most: int = 200) -> str:
        """One bounded line without the key."""
        return " ".join(self._without_key(text).split())[:most]


def _call(method: Callable[[object], None] | None, request: object) -> None:
    if method is not None:
        method(request)


def _is_address(text: str) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        return False


def chat(
    model: str,
    base_url: str,
    *,
    api_key_env: str = "",
    timeout: float = 60.0,
    retries: int = 4,
    budget: Budget = Budget(),
    temperature: float | None = 1.0,
    seed: int | None = None,
    max_tokens: int | None = 1024,
) -> Callable[[list[dict[str, str]]], str]:
    """A function from messages (``{"role": ..., "content": ...}``) to the model's text, under one budget for all calls.

    For an attacker that writes prompts, such as PAIR. Whatever brings no text is a DemurError that says why.
    """
    endpoint = Endpoint(
        model, base_url, api_key_env, timeout, retries, budget=budget, temperature=temperature, seed=seed,
        max_tokens=max_tokens,
    )  # fmt: skip
    return talk(endpoint)


def talk(endpoint: Endpoint) -> Callable[[list[dict[str, str]]], str]:
    """The same of an endpoint that is at hand."""

    def ask(messages: list[dict[str, str]]) -> str:
        try:
            return endpoint(messages).text
        except NoAnswer as error:
            then = "raise the budget" if isinstance(error, Spent) else "try again, or ask another model"
            raise DemurError(f"{endpoint.model} gave no answer: {error}", "a text", then) from None

    return ask
