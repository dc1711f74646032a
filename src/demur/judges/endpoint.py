"""An OpenAI-compatible endpoint with a bound on what it may cost: requests, tokens, threads, seconds.

It is asked again with growing pauses (``Retry-After`` is kept) after 408, 409, 429, 5xx, timeouts and broken
connections, and after such an error in a body with status 200. Every try counts as a request. The API key is read from
the environment when the first request is sent; it is written nowhere and taken out of everything that comes back.

The file is long because every way in which an endpoint can fail is told apart in one loop.
"""

from __future__ import annotations

import math
import os
import random
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from demur.extras import need
from demur.judges.replies import (
    Filtered,
    NoAnswer,
    Reply,
    Spent,
    parsed,
    pause_in,
    refused,
    reply_in,
    tokens_in,
    whole,
    without_words_of,
)
from demur.types import DemurError, RefusedByProvider

if TYPE_CHECKING:
    import openai

Messages = Sequence[dict[str, str]]

SAME = 4
"""So many first requests that fail in the same way end the asking: those that follow would fail likewise."""

AGAIN_AFTER = 0.5
"""Seconds until a request that failed is sent again, where the endpoint names no pause; twice as long each time."""


@dataclass(frozen=True)
class Budget:
    """At most so many requests, every retry counted, and so many tokens, as far as the endpoint reports its usage.

    None is no bound; 0 requests sends nothing. Requests are bounded exactly. Tokens are known only after an answer, so
    that those under way at once may go beyond the bound.
    """

    requests: int | None = 2000
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests", "tokens"):
            bound = getattr(self, name)
            if bound is not None and (type(bound) is not int or bound < 0):
                came = f"a budget of {bound!r} {name}"
                raise DemurError(came, "a whole number of at least 0, or None (null) for no bound", "mend it")


@dataclass(frozen=True)
class Spending:
    """Requests that were sent and tokens that were reported."""

    requests: int
    tokens: int


NOBODY = "nobody"
"""The kind of a failure to reach anything at all."""

UNKNOWN = "unknown"
"""The kind of a failure before any answer where the key or the model is not known."""

UNFIT = ("HTTP 400", "HTTP 422", "error 400", "error 422")
"""Kinds of failures that, where a setting is their cause, come after every request."""


class _Meter:
    """What has been spent and heard so far, and the client that is opened when it is first needed."""

    def __init__(self, places: int) -> None:
        self.lock = threading.Lock()
        self.places = threading.BoundedSemaphore(places)
        self.first = threading.BoundedSemaphore(min(places, SAME))
        self.requests = 0
        self.tokens = 0
        self.answered = False  # by anything, in this process
        self.open = False  # a whole answer came, now or to the same settings at another time
        self.failures: Counter[str] = Counter()
        self.ends: list[DemurError] = []  # what ended the asking
        self.opens_at = 0.0  # time.monotonic() before which the endpoint wants no request
        self.client: openai.OpenAI | None = None


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address that ends in ``/v1``, asked under a budget.

    ``api_key_env`` names the variable that holds the key; empty: no key is sent, whatever the environment holds.
    ``timeout`` is in seconds of silence and for one try, ``retries`` come on top of the first try, ``concurrency``
    bounds the requests under way at once, whoever calls. ``temperature``, ``seed`` and ``max_tokens`` (of an answer)
    are left out of the request where they are None, since some endpoints reject them. ``max_completion_tokens`` is the
    newer name of ``max_tokens``: where it is set, it is sent instead. ``patience``: a pause that the endpoint asks for
    (``Retry-After``) is kept up to so many seconds; where it is longer, there is no answer, and the reason says so.

    The first answer opens the way for more than :data:`SAME` requests at once; where so many first requests fail
    alike, a DemurError with their reason ends the asking.
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
    max_completion_tokens: int | None = None
    patience: float = 600.0
    _meter: _Meter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", address_of(self.base_url))
        if self.concurrency < 1 or self.retries < 0 or not self.timeout > 0 or not self.patience >= 0:
            came = f"concurrency {self.concurrency}, retries {self.retries}, timeout {self.timeout}, "
            came += f"patience {self.patience}"
            raise DemurError(came, "at least 1, 0, more than 0 and 0", "change the settings of the endpoint")
        for name in ("concurrency", "retries", "seed", "max_tokens", "max_completion_tokens"):
            value, least = getattr(self, name), 1 if name.startswith("max") else None
            fits = type(value) is int and (least is None or value >= least)
            if not fits and not (value is None and name not in ("concurrency", "retries")):
                raise DemurError(f"{name} {value!r}", "a whole number" + " of at least 1" * bool(least), "mend it")
        warm = self.temperature
        if warm is not None and (isinstance(warm, bool) or not 0 <= warm < math.inf):
            raise DemurError(f"temperature {warm}", "a number of at least 0, or None (null)", "mend it")
        if self.api_key_env and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII):  # may be the key itself
            then = "put the key into a variable, and name that"
            raise DemurError("api_key_env is no name of an environment variable", "such as OPENAI_API_KEY", then)
        object.__setattr__(self, "_meter", _Meter(self.concurrency))

    def __reduce__(self) -> tuple[Any, ...]:
        """Settings travel to another process; what was spent and the open client stay."""
        return Endpoint, tuple(getattr(self, setting.name) for setting in fields(self) if setting.init)

    @property
    def place(self) -> str:
        """The address, for messages; it holds no user, password or query (:func:`address_of`)."""
        return self.base_url

    @property
    def longest(self) -> int | None:
        """How many tokens an answer may have; None where nothing is sent about it."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def spent(self) -> Spending:
        """What was spent so far, by this object."""
        with self._meter.lock:
            return Spending(self._meter.requests, self._meter.tokens)

    def check(self) -> None:
        """Sends nothing; raises what the first request would raise for a missing client or key."""
        self._client()

    def heard_before(self) -> None:
        """Says that this model answered such requests at another time: then a few failures are not the whole story."""
        self._meter.open = True

    def __call__(self, messages: Messages) -> Reply:
        """The model's answer. Raises :class:`NoAnswer` where it has none, DemurError where asking on is pointless."""
        client, request = self._client(), self._request(messages)
        with self._place():
            for tried in count():
                self._wait()
                self._count()
                try:
                    return self._sent(client, request)
                except NoAnswer as error:
                    # Only what this request said can be quoted in what came back.
                    error.args = (without_words_of(str(error), (m["content"] for m in messages)),)
                    if error.pause is not None:
                        with self._meter.lock:
                            self._meter.opens_at = max(self._meter.opens_at, time.monotonic() + error.pause)
                        if error.pause > self.patience:
                            raise self.failed(self._too_long(error.pause, str(error), error.kind)) from None
                    if not error.again or tried >= self.retries:
                        raise self.failed(error) from None
                    if error.pause is None:
                        time.sleep(min(AGAIN_AFTER * 2**tried, 8.0) * random.uniform(0.75, 1.0))  # noqa: S311
        raise AssertionError  # the loop has no other end

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places of requests under way. Until somebody has been answered there are :data:`SAME` at most."""
        meter = self._meter
        ends = len(meter.ends)
        with meter.places:
            if meter.open:
                yield
                return
            with meter.first:
                if len(meter.ends) > ends:  # while this one waited
                    raise meter.ends[-1]
                yield

    def _wait(self) -> None:
        """Waits as long as the endpoint has asked anybody to wait; raises where that is too long."""
        while (left := self._meter.opens_at - time.monotonic()) > 0:
            if left > self.patience:
                raise self.failed(self._too_long(left, "not sent", "pause"))
            time.sleep(left)

    def _too_long(self, pause: float, said: str, kind: str) -> NoAnswer:
        why = f"{said}: the endpoint asks for a pause of {pause:,.0f} s, longer than patience {self.patience:,.0f} s"
        return NoAnswer(why, kind, then="raise patience, or go on later")

    def failed(self, error: NoAnswer) -> Exception:
        """A request's last failure: itself, or the error that ends the asking where the first ones all failed so."""
        meter = self._meter
        with meter.lock:
            if isinstance(error, (Spent, Filtered)) or (meter.open and error.kind not in (NOBODY, UNKNOWN)):
                return error
            meter.failures[error.kind] += 1
            n = meter.failures[error.kind]
            unfit = bool(error.then) and error.kind in UNFIT
            if error.kind == NOBODY:
                end = DemurError(str(error), "an OpenAI-compatible endpoint", "start it, or name its address")
            elif error.kind == UNKNOWN:
                moved = "redirect" in str(error)
                expected = "an answer from there" if moved else "a key and a model that it knows"
                end = DemurError(f"{self.place} says {error}", expected, error.then)
            elif n >= SAME or unfit:
                end = DemurError(
                    f"{self.place} {f'failed the first {n} requests' if n > 1 else 'says'}: {error}",
                    f"answers of {self.model}",
                    error.then or "see to the endpoint, then try again",
                )
            else:
                return error
            meter.ends.append(end)
            return end

    def _sent(self, client: openai.OpenAI, request: dict[str, Any]) -> Reply:
        """One try."""
        import openai

        try:
            raw = client.chat.completions.with_raw_response.create(**request)
            body = raw.http_response.content
        except openai.APIConnectionError as error:  # timeouts are among them
            raise self._unreached(error) from None
        except openai.APIStatusError as error:
            raise self._rejected(error) from None
        except openai.OpenAIError as error:
            raise NoAnswer(self._clean(f"{type(error).__name__}: {error}"), type(error).__name__) from None
        content = parsed(body)
        with self._meter.lock:
            self._meter.tokens += tokens_in(content) or 0
        try:
            reply = reply_in(content)
        except NoAnswer as error:
            raise self._without_secrets(error) from None
        self._meter.answered = True
        self._meter.open |= not reply.cut
        return Reply(self._without_key(reply.text), reply.cut, reply.tokens)

    def _request(self, messages: Messages) -> dict[str, Any]:
        settings = {"temperature": self.temperature, "seed": self.seed}
        if self.max_completion_tokens is not None:
            settings["max_completion_tokens"] = self.max_completion_tokens
        else:
            settings["max_tokens"] = self.max_tokens
        given = {name: value for name, value in settings.items() if value is not None}
        sound = [{name: whole(value) for name, value in message.items()} for message in messages]
        return {"model": self.model, "messages": sound, **given}

    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    def _client(self) -> openai.OpenAI:
        client = need("openai", "judges")
        key = self._key()
        if self.api_key_env and not key:
            raise DemurError(
                f"{self.api_key_env} is not set", "the endpoint's API key in it", "export it, then try again"
            )
        if not (key.isascii() and key.isprintable()):
            raise DemurError(f"{self.api_key_env} holds more than plain letters", "an API key", "copy it once more")
        with self._meter.lock:
            if self._meter.client is None:
                # Requests hold what was asked and answered: they go where the settings say, and nowhere else.
                plain = client.DefaultHttpxClient(
                    timeout=self.timeout, follow_redirects=False, event_hooks={"request": [_own_headers(key or "none")]}
                )
                made: openai.OpenAI = client.OpenAI(
                    api_key=key or "none",
                    base_url=self.base_url,
                    timeout=self.timeout,
                    max_retries=0,
                    http_client=plain,
                )  # fmt: skip
                weakref.finalize(self, made.close)
                self._meter.client = made
            return self._meter.client

    def _count(self) -> None:
        """Takes a request from the budget just before it leaves, or raises :class:`Spent`."""
        meter, most = self._meter, self.budget
        with meter.lock:
            if most.requests is not None and meter.requests >= most.requests:
                raise Spent(f"budget of {most.requests:,} requests is spent")
            if most.tokens is not None and meter.tokens >= most.tokens:
                raise Spent(f"budget of {most.tokens:,} tokens is spent")
            meter.requests += 1

    def _unreached(self, error: openai.APIConnectionError) -> NoAnswer:
        import openai

        cause = error.__cause__
        kind = type(cause).__name__
        if kind in ("ConnectError", "ConnectTimeout") and not self._meter.answered:
            return NoAnswer(f"nothing answers at {self.place} ({self._clean(str(cause), 100)})", NOBODY, again=True)
        if isinstance(error, openai.APITimeoutError):
            return NoAnswer(f"timeout: no answer within {self.timeout:g} s", "timeout", again=True)
        return NoAnswer(f"connection broken ({kind})", again=True)

    def _rejected(self, error: openai.APIStatusError) -> NoAnswer:
        if 300 <= error.status_code < 400:
            return self._moved(error.status_code, error.response.headers.get("location", ""))
        try:
            content = parsed(error.response.content)
        except NoAnswer:
            content = None
        found = self._without_secrets(refused(error.status_code, content, pause_in(error.response.headers)))
        if error.status_code in (401, 404) and not self._meter.answered:  # it would be so for every request
            where = f"{self.api_key_env or 'api_key_env'}, model {self.model!r} and an address that ends in /v1"
            return NoAnswer(str(found), UNKNOWN, then=f"check {where}")
        return found

    def _moved(self, status: int, where: str) -> NoAnswer:
        """An endpoint that sends its clients elsewhere. Nobody follows: the texts would go to an address that nobody
        has named, or be left behind on the way.
        """
        try:
            found = urlsplit(where)
            to = f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path}" if found.scheme else found.path
        except ValueError:
            to = ""
        said = f"HTTP {status}, a redirect{f' to {self._clean(to, 120)}' if to.isprintable() and to else ''}"
        then = "name the address that it leads to, if you trust it with what is asked; its base ends in /v1"
        kind = f"HTTP {status}" if self._meter.answered else UNKNOWN
        return NoAnswer(said, kind, then=then)

    def _without_secrets(self, error: NoAnswer) -> NoAnswer:
        error.args = (self._clean(str(error)),)
        return error

    def _without_key(self, text: str) -> str:
        key = self._key()
        return text.replace(key, "***") if len(key) >= 8 else text

    def _clean(self, text: str, most: int = 300) -> str:
        """One bounded line without the key."""
        return " ".join(self._without_key(text).split())[:most]


_OWN = re.compile(r"host|accept(-encoding)?|connection|content-(type|length)|user-agent|authorization|x-stainless-.*")
"""Headers that a request needs."""


def _own_headers(key: str) -> Callable[[Any], None]:
    """Leaves a request the headers that it needs, and this key. The client takes others from the environment:
    OPENAI_ORG_ID and OPENAI_PROJECT_ID name somebody, and OPENAI_CUSTOM_HEADERS may hold keys. They would go to
    whatever endpoint is asked.
    """

    def clean(request: Any) -> None:
        for name in [name for name in request.headers if not _OWN.fullmatch(name.lower())]:
            del request.headers[name]
        request.headers["authorization"] = f"Bearer {key}"

    return clean


def address_of(given: str) -> str:
    """An address without blanks, line ends and slashes around it. Raises for what is none, and for one that holds a
    user, a password or a query: they would go into recipes, records and errors.
    """
    text = given.strip().strip("\u200b\ufeff").strip().rstrip("/")
    try:
        address = urlsplit(text)
        sound = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, brackets that do not close
        sound = False
    if not sound or any(sign.isspace() or not sign.isprintable() for sign in text):
        # Not shown: what is no address may be a key in the wrong place.
        raise DemurError("base_url is no address", "one that begins with http:// or https://", "name it in full")
    if address.username is not None or address.password is not None:
        raise DemurError(  # it would be sent in the place of the key, and stand in recipes and reports
            "base_url holds a user or a password", "an address alone", "put the key into a variable: api_key_env"
        )
    if "?" in text or "#" in text:
        raise DemurError(  # the client would write its own path behind it
            "base_url holds a ? or a #", "the address before that, which ends in /v1", "leave that part out"
        )
    if address.path.endswith("/chat/completions"):
        raise DemurError(
            "base_url ends in /chat/completions", "the address before that, which ends in /v1", "leave that part out"
        )
    return text


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
    max_completion_tokens: int | None = None,
) -> Callable[[list[dict[str, str]]], str]:
    """A function from messages (``{"role": ..., "content": ...}``) to the model's text, under one budget for all calls.

    For an attacker that writes prompts, such as PAIR. Whatever brings no text is a DemurError that says why; where a
    provider's filter refused, a :class:`demur.types.RefusedByProvider`.
    """
    endpoint = Endpoint(
        model, base_url, api_key_env, timeout, retries, budget=budget, temperature=temperature, seed=seed,
        max_tokens=max_tokens, max_completion_tokens=max_completion_tokens,
    )  # fmt: skip
    return talk(endpoint)


def talk(endpoint: Endpoint) -> Callable[[list[dict[str, str]]], str]:
    """The same of an endpoint that is at hand."""

    def ask(messages: list[dict[str, str]]) -> str:
        try:
            return endpoint(messages).text
        except Filtered as error:
            raise RefusedByProvider(f"{endpoint.model}: {error}", "a text", "ask another model") from None
        except NoAnswer as error:
            then = "raise the budget" if isinstance(error, Spent) else error.then or "try again, or ask another model"
            raise DemurError(f"{endpoint.model} gave no answer: {error}", "a text", then) from None

    return ask
