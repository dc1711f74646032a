"""What an endpoint sent, read strictly: a model's text, an error by its code, a provider's refusal, or nothing usable.

Endpoints differ in what they make of the protocol: an error may come with status 200, a text as a list of parts, a
refusal as ``finish_reason``. Nothing here guesses at a text that is not whole.

It is long because every form in which servers say these four things is read here.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

from demur.types import REFUSED

CUT = ("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "model_context_window_exceeded")
"""Values of ``finish_reason`` that say: the text ends where its room did."""

FILTERED = (
    "content_filter", "content_filtered", "content_policy_violation", "responsibleaipolicyviolation", "safety",
    "prohibited_content", "blocklist", "recitation", "spii", "refusal", "guardrail_intervened", "moderation_blocked",
    "data_inspection_failed", "sensitive", "blocked",
)  # fmt: skip
"""Values of ``finish_reason``, and codes of errors, that say: a provider's filter refused."""

BROKEN_OFF = ("error", "abort", "cancelled", "network_error", "insufficient_system_resource")
"""Values of ``finish_reason`` that say: the server gave up; another try may bring the answer."""

CALLS = ("tool_calls", "tool_call", "tool_use", "function_call")
"""Values of ``finish_reason`` that say: the model wants to call something, and has not answered yet."""

OTHERS = ("user", "system", "developer", "tool", "function")
"""Roles of messages that are no model's answer."""

STATUS = {
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "too_many_requests": 429, "overloaded": 503,
    "overloaded_error": 503, "server_error": 500, "internal_error": 500, "internal_server_error": 500,
    "service_unavailable": 503, "unavailable": 503, "timeout": 504, "insufficient_quota": 402,
    "authentication_error": 401, "invalid_api_key": 401, "model_not_found": 404,
}  # fmt: skip
"""Statuses of errors that name themselves in words."""

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529)
"""Statuses after which another try may bring an answer."""

_FLAGGED = re.compile(r"content[ _-]?(?:management )?(?:polic|filter)|\bflagged\b|safety (?:system|filter)", re.I)
"""What providers write where no code says that their filter refused."""


class NoAnswer(Exception):
    """A request that brought no usable answer; its text says why.

    ``kind`` is the same for equal causes, whatever their words. ``again``: another try may help; ``pause``: after so
    many seconds, says the endpoint. ``then`` is what a user can do, where that is known.
    """

    def __init__(
        self, why: str, kind: str = "", *, again: bool = False, pause: float | None = None, then: str = ""
    ) -> None:
        self.kind, self.again, self.pause, self.then = kind or why, again, pause, then
        super().__init__(why)


class Spent(NoAnswer):
    """The budget does not allow another request."""


class Filtered(NoAnswer):
    """A provider's filter stood in for the answer."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{REFUSED} ({what})", "filter")


@dataclass(frozen=True)
class Reply:
    """A model's text; ``cut``: it ended at the limit of its length. ``tokens`` is the reported usage, if any."""

    text: str = field(repr=False)
    cut: bool = False
    tokens: int | None = None


@dataclass(frozen=True)
class Trouble:
    """What an error's body says: its words, its codes in lower case, the parameter that it is about, its status."""

    message: str = field(default="", repr=False)
    codes: tuple[str, ...] = ()
    param: str = ""
    status: int | None = None

    @property
    def filtered(self) -> bool:
        """Whether a provider's filter refused: by a code, else by the words of an error of the client's side."""
        if any(code in FILTERED for code in self.codes):
            return True
        return self.status in (400, 403, 422) and _FLAGGED.search(self.message) is not None


def parsed(body: bytes) -> Any:
    """The JSON of a body, which is UTF-8 (a byte order mark may stand before it). Raises :class:`NoAnswer`."""
    try:
        return json.loads(body)
    except UnicodeDecodeError:
        raise NoAnswer("the body of the answer is no JSON (and no UTF-8)", "no JSON") from None
    except (ValueError, RecursionError):
        page = b"<html" in body[:2000].lower() or b"<!doctype" in body[:2000].lower()
        what = "no JSON (a web page)" if page else "no JSON"
        then = "name the address that ends in /v1, of the model's server itself"
        raise NoAnswer(f"the body of the answer is {what}", "no JSON", then=then) from None


def tokens_in(content: Any) -> int | None:
    """The reported usage of an answer, if any."""
    usage = content.get("usage") if isinstance(content, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if type(total) is int and total >= 0 else None


def reply_in(content: Any) -> Reply:
    """The text of a parsed answer. Raises :class:`NoAnswer` where it holds none, or an error in its place."""
    choices = content.get("choices") if isinstance(content, dict) else None
    choices = choices if isinstance(choices, list) else []
    choice = choices[0] if choices else None
    trouble = trouble_in(content) or trouble_in(choice)
    if trouble is None and choice is None:  # where nothing is answered, whatever a body says is why
        told = trouble_in(content, any_object=True)
        trouble = told if told is not None and (told.message or told.codes) else None
    if trouble is not None:
        raise _refused_in_200(trouble)
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise NoAnswer("the body of the answer is no chat completion", "no chat completion")
    if len(choices) > 1:  # one was asked for: which of them is it?
        raise NoAnswer(f"{len(choices)} answers in the place of one", "several answers")
    end = _word(choice.get("finish_reason"))
    if end in FILTERED:
        raise Filtered(end)
    if end in BROKEN_OFF:
        raise NoAnswer(f"the server broke its answer off (finish_reason {end})", "broken off", again=True)
    if end in CALLS or message.get("tool_calls") or _named(message.get("function_call")):
        raise NoAnswer("a call of a tool in the place of an answer", "a tool", then="turn the endpoint's tools off")
    if (role := _word(message.get("role"))) in OTHERS:
        raise NoAnswer(f"a message of the {role} in the place of an answer", "another role")
    said, declined = _text(message.get("content")), _declined(message)
    if said.strip() and declined.strip() and said.strip() != declined.strip():
        raise NoAnswer("an answer and a refusal in one message", "answer and refusal")
    text = whole(said if said.strip() else declined)
    if not text.strip():
        thoughts = any(_text(message.get(name)).strip() for name in ("reasoning_content", "reasoning"))
        what = "an answer of thoughts alone" if thoughts else "an answer without text"
        then = "raise max_tokens (max_completion_tokens), or turn the model's thinking off" if end in CUT else ""
        raise NoAnswer(f"{what} (finish_reason {end or 'none'})", f"no text, {end}", then=then)
    return Reply(text, end in CUT, tokens_in(content))


def _named(call: Any) -> bool:
    """Whether a call of a function is one: some servers write an empty one into every answer."""
    return bool(call.get("name") if isinstance(call, Mapping) else call)


def _refused_in_200(trouble: Trouble) -> NoAnswer:
    """An error that came with status 200, by the code in its body."""
    if trouble.filtered:
        return Filtered(_filter(trouble))
    code = str(trouble.status or next(iter(trouble.codes), "")) or "without a code"
    why = f"no chat completion but an error {code}, with status 200{f' ({trouble.message})' if trouble.message else ''}"
    return NoAnswer(why, f"error {code}", again=trouble.status in AGAIN, then=_then(trouble))


def refused(status: int, content: Any, pause: float | None) -> NoAnswer:
    """What a status of 400 and above comes to; ``content`` is its parsed body, if it has one."""
    found = trouble_in(content, any_object=True) or Trouble()
    trouble = Trouble(found.message, found.codes, found.param, status)
    if trouble.filtered:
        return Filtered(_filter(trouble))
    said = f" ({trouble.message})" if trouble.message else ""
    again = status in AGAIN and "insufficient_quota" not in trouble.codes
    then = _then(trouble) if status in (400, 422) else ""  # of others, a setting is not the cause
    return NoAnswer(f"HTTP {status}{said}", f"HTTP {status}", again=again, pause=pause, then=then)


def _filter(trouble: Trouble) -> str:
    return next((code for code in trouble.codes if code in FILTERED), trouble.message)


def _then(trouble: Trouble) -> str:
    """What to set where an endpoint does not take a parameter; nothing where it does not say which."""
    words = f"{trouble.param} {trouble.message}"
    if "max_completion_tokens" in words and "max_tokens" in words:
        return "set max_completion_tokens, which is then sent in the place of max_tokens"
    named = [name for name in ("max_completion_tokens", "max_tokens", "temperature", "seed") if name in words]
    return f"set {named[0]} to another value, or to null (None), which leaves it out" if named else ""


def trouble_in(content: Any, *, any_object: bool = False) -> Trouble | None:
    """The error that a body holds, in the forms that servers give it; None if it holds none.

    With ``any_object`` a body that is known to be an error's may also say it in ``message`` or ``detail``.
    """
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        return None
    error = content.get("error")
    if error in (None, False, "", {}, []):
        marked = content.get("object") == "error" or content.get("type") == "error"
        if not (any_object or marked):
            return None
        several = content.get("errors")
        if isinstance(several, list) and several and isinstance(several[0], dict | str):
            error = several[0]
        else:
            error = {key: content.get(key) for key in ("message", "code", "type", "param")}
            error["message"] = next((content[key] for key in ("message", "detail", "msg") if content.get(key)), None)
    if not isinstance(error, dict):
        return Trouble(_line(error))
    inner = error.get("innererror") or error.get("inner_error")
    marks = [error.get("code"), error.get("type"), error.get("status"), content.get("code")]
    marks += [inner.get("code")] if isinstance(inner, dict) else []
    codes = tuple(dict.fromkeys(word for word in map(_word, marks) if word))
    return Trouble(_line(error.get("message")), codes, _line(error.get("param")), _status(codes))


def _status(codes: tuple[str, ...]) -> int | None:
    for code in codes:
        if code.isascii() and code.isdigit() and 400 <= int(code[:4]) < 600:
            return int(code)
        if code in STATUS:
            return STATUS[code]
    return None


def _word(value: Any) -> str:
    """A code as one word in lower case; nothing for what is neither text nor whole number."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    try:
        return "_".join(whole(str(value)).lower().replace("-", "_").split())[:60]
    except ValueError:  # a number of thousands of digits
        return ""


def _line(value: Any) -> str:
    """Words of an error as one line; a structure as JSON."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return " ".join(whole(text).split())[:300]


def _text(content: Any) -> str:
    """A message's content: a text, or the texts of its parts; thoughts and pictures among them are left out."""
    if isinstance(content, str):
        return content
    found = []
    for part in content if isinstance(content, list) else []:
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, Mapping) and part.get("type") in (None, "text", "output_text"):
            inner = part.get("text")
            inner = inner.get("value") if isinstance(inner, Mapping) else inner
            found.append(inner if isinstance(inner, str) else "")
    return "".join(found)


def _declined(message: Mapping[str, Any]) -> str:
    """The words in which a model refuses, where they stand apart: under ``refusal``, or in a part of that kind."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    return _text(message.get("refusal")) or "".join(
        _text(part.get("refusal")) for part in parts if part.get("type") == "refusal"
    )


def whole(text: str) -> str:
    """A text with a question mark for each half of a surrogate pair, which no UTF-8 can carry."""
    return text.encode(errors="replace").decode()


def without_words_of(said: str, texts: Iterable[str]) -> str:
    """What somebody said, without the words that stand in ``texts``: servers like to quote what was sent, and no
    request's words belong into a log.

    Words that errors are made of (:data:`_ORDINARY`) stay where they stand by themselves; in a run of four words of a
    text, or beside another word of it, they go too. Of writing without blanks, pairs of letters go.
    """
    singles: set[str] = set()
    pairs: set[tuple[str, ...]] = set()
    fours: set[tuple[str, ...]] = set()
    for text in texts:
        words = [word.casefold() for word in _WORD.findall(text)]
        singles.update(word for word in words if _tells(word))
        pairs.update(pairwise(words))
        fours.update(zip(words, words[1:], words[2:], words[3:], strict=False))
    places = list(_WORD.finditer(said))
    spoken = [place[0].casefold() for place in places]
    quoted = [word in singles for word in spoken]
    for at in range(len(spoken) - 1):
        pair = tuple(spoken[at : at + 2])
        if pair in pairs and (any(quoted[at : at + 2]) or all(_UNSPACED_LETTER.fullmatch(word) for word in pair)):
            quoted[at : at + 2] = [True] * 2
    for at in range(len(spoken) - 3):
        if tuple(spoken[at : at + 4]) in fours:
            quoted[at : at + 4] = [True] * 4
    kept, end = "", 0
    for at, place in enumerate(places):
        if quoted[at]:
            if not (at and quoted[at - 1]):
                kept += said[end : place.start()] + "[...]"
            end = place.end()
    return kept + said[end:]


def _tells(word: str) -> bool:
    """Whether a word by itself tells something of the text that it stands in."""
    return not (word in _ORDINARY or (word.isdecimal() and len(word) < 5) or _UNSPACED_LETTER.fullmatch(word))


_ORDINARY = frozenset(
    """
    a about above after again all allowed alone already also an and another answer answered answers any are as ask
    asked asking assistant at authentication authorization available bad be because been before begin beginning
    being below between body broke broken budget busy but by byte bytes call can cannot capacity certificate chat
    check choices client code complete completion completions connection contain contained contains content context
    copy could data denied detected did different do does doing done due during e each empty end ended endpoint ends
    error errors etc exceed exceeded exceeds exist exists expected expired fail failed fails failure few field
    filter filtered finish first flagged follow following for forbidden format found from full g gateway get given
    gives good had half harm harmful harmless has have header http https i id if in input inputs instead
    instructions integer internal into invalid is it its json judge judged key kind known knows last later least
    length less limit limits line lines list long longer made many marked material max maximum may message messages
    method min minimum minutes missing model models more most much must n name named new next no nobody none not
    nothing null number object objects of off old on one only or other others out output outside over overloaded own
    page parameter parameters parse parsed part patience pause per permission place please policies policy problem
    process prompt prompts proxy quota rate rated reach read reason received refusal refuse refused refuses reject
    rejected remove reply request requested requests required response retry role rubric s safety same say says scale
    score scores second seconds see send sent sentence server service set should silence so some spent ssl status stop
    string such support supported system t tcp temporarily text than that the their them then there these thinking
    third this those thought thoughts time timeout to token tokens too tool tools total triggered try two type unable
    unavailable unexpected unicode unknown unreachable unsupported until up upstream url usable usage use used user
    using utf v value values version violated violates violation wait was way we web were what when where which
    while who whole whom whose why will with within without word words wrong x yes you your
    """.split()  # noqa: SIM905 - a list of words would be a word a line
)
"""Words that errors of endpoints, questions to judges and English sentences are made of. By themselves they tell
nothing of a request."""


_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
"""A word; of Thai, Burmese, Khmer, Japanese and Chinese, which have no blanks between words, a letter."""


def pause_in(headers: Mapping[str, str]) -> float | None:
    """The seconds that ``Retry-After`` asks for, as a number or as a date; None where it says nothing sensible."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        given = (headers.get(name) or "").strip()
        if not given:
            continue
        try:
            seconds = float(given) / scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(given).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                continue
        if not math.isnan(seconds) and seconds > 0:
            return seconds
    return None
