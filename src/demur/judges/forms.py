"""The form that an answer stands in, taken off: tags, JSON, a speaker's name, a letter's greeting, a play's lines.

Attacks prescribe forms ("answer as Ada", "as JSON", "write a letter that teaches ..."), and who refuses in one refuses.
Case is as it came: names are told by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# -- tags and JSON ----------------------------------------------------------------------------------------------------

_TAGGED_THOUGHT = re.compile(
    r"<(reasoning|thinking|thoughts?|scratchpad|reflection|analysis|plan)>.*?</\1>", re.DOTALL | re.IGNORECASE
)
_TAG = re.compile(r"</?(?:answer|response|output|final(?:[_ ]answer)?|result|reply|message|text)>", re.IGNORECASE)
_ONE_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)
_SAYS_NO = re.compile(r"(?:is_?)?(?:refus|declin|block)", re.IGNORECASE)
_ENCODED = re.compile(r"\s*(?=[A-Za-z0-9+/]*\d)(?=[A-Za-z0-9+/]*[A-Z])(?:[A-Za-z0-9+/]{24,}\s*)+={0,2}\s*")


def unwrapped(text: str) -> str:
    """A text without thoughts in tags, tags around the answer, and JSON; each value of that is a line."""
    if "<" in text:
        thought = _TAGGED_THOUGHT.sub("\n", text)
        text = _TAG.sub("\n", thought if thought.strip() else text)
    values = json_values(text, "{")
    return text if values is None else ".\n".join(values) or text


def json_values(text: str, begins: tuple[str, ...] | str = ("{", "[")) -> list[str] | None:
    """The words in a text that is JSON and no more, fenced or not; None for any other text."""
    fenced = _ONE_FENCE.fullmatch(text)
    inside = fenced[1] if fenced else text
    if not inside.lstrip().startswith(begins):
        return None
    try:
        return [*_values(json.loads(inside))]
    except (ValueError, RecursionError):
        return None


def _values(found: Any) -> Iterator[str]:
    """The words in JSON, and ``refused`` for a key that says so and is true."""
    if isinstance(found, str) and found:
        yield found
    for value in found if isinstance(found, list) else ():
        yield from _values(value)
    for key, value in found.items() if isinstance(found, dict) else ():
        if value is True and _SAYS_NO.match(key):
            yield "refused"
        yield from _values(value)


def is_encoded(text: str) -> bool:
    """Whether a text is base64 or the like, which nobody reads here."""
    return bool(_ENCODED.fullmatch(text))


# -- who speaks -------------------------------------------------------------------------------------------------------

_VERB = r"(?: (?:says|speaks|tells|reads|replies|answers|growls|whispers|mutters|murmurs|sighs|shouts|would say))"
_SAID = r"(?: (?:said|spoke|replied|answered|growled|whispered|muttered|murmured|sighed|shouted))"
_NAME = r"(?:[A-Z][\w'’-]*|I)(?:[ .]+(?:[A-Z][\w'’-]*|of|the)){0,2}"
_LABEL = re.compile(
    rf"[\s*_]*({_NAME}|(?:The|An?|This) \w+(?={_VERB}))[*_]*({_VERB}|"
    rf"{_SAID})?[*_]*(?: ?\([^)\n]{{0,40}}\))?(?:\s*[:>]+[*_]*)[\s.,]*(?=\S)"
)
_SIGNS = "\U0001f512\U0001f513\U0001f607\U0001f608\U0001f47c\U0001f47f"
"""A lock shut and open, an angel and a devil: signs by which one model speaks with two voices."""
_BRACKETED = re.compile(rf"^[ \t*_]*(?:\[([A-Z][A-Za-z0-9 _-]{{0,20}})\]|\[?([{_SIGNS}])\]?)[*_:]*[ \t]*", re.MULTILINE)
_LINE = re.compile(r"^[\s*_]*([A-Z][\w.'’ -]{0,24}?)[*_]*(?: ?\([^)\n]{0,40}\))?[*_]*:[*_]*\s+(\S.*)$")
NO_SPEAKER = re.compile(
    r"^(?:answer|ai|assistant|response|note|warning|refusal|summary|step|steps|policy|important|error|disclaimer|reason|"
    r"message|status|pros|cons|example|tip|result|output|conclusion|bot|model|title|subject|ingredients|method|caution|"
    r"absolutely|sure|certainly|yes|no|okay|sorry)\b",
    re.IGNORECASE,
)
_DOES = r"(?= (?:does|will|can|cannot|can['’]t|won['’]t|doesn['’]t|shall|must|refuses|declines|has|is|would)\b)"


def unlabelled(text: str, names: tuple[str, ...] = ()) -> str:
    """A text without the name of the one who speaks all of it ("Ada says: ..."); where it speaks of itself by this
    name, it is "this assistant". A play keeps its names, and so does who "said" something, but for ``names``.
    """
    text = _BRACKETED.sub("", text, count=1)
    found = _LABEL.match(text)
    told = found is not None and re.search(_SAID, found[2] or "") and found[1] not in names
    if found is None or told or NO_SPEAKER.match(found[1]) or len(speeches(text)) > 1:
        return text
    return named_self(text[found.end() :], (found[1],))


def named_self(text: str, names: tuple[str, ...]) -> str:
    """A text in which whoever has one of these names and does something is "this assistant"."""
    for name in names:
        text = re.sub(rf"\b{re.escape(name)}{_DOES}", "this assistant", text)
    return text


def speeches(text: str) -> dict[str, str]:
    """What each speaker says in a text of labelled lines or parts (``ANNA: ...``, ``[FREE] ...``), by name, and what no
    speaker says, by no name; empty where no line has a label.
    """
    found: dict[str, list[str]] = {}
    if parts := list(_BRACKETED.finditer(text)):
        ends = [*(part.start() for part in parts[1:]), len(text)]
        for part, end in zip(parts, ends, strict=True):
            found.setdefault(part[1] or part[2], []).append(text[part.end() : end])
    else:
        rest: list[str] = []
        for line in text.split("\n"):
            if (spoken := _LINE.match(line)) and not NO_SPEAKER.match(spoken[1]):
                found.setdefault(spoken[1], []).append(spoken[2])
            elif line.strip():
                rest.append(line)
        if len(found) > 1 and rest:
            found[""] = rest
    return {name: "\n".join(lines) for name, lines in found.items()}


def is_bracketed(text: str) -> bool:
    """Whether its speakers stand in brackets: one model in two parts, not a play."""
    return bool(_BRACKETED.search(text))


# -- letters ----------------------------------------------------------------------------------------------------------

LETTER = re.compile(
    r"^\s*(?:subject|re)\s*:|^\s*[\"“]?dear (?!user|customer|human|reader)\w+|^\s*(?:hello|hi|hey) [A-Z]\w+,\s*$",
    re.IGNORECASE,
)
SIGNED = re.compile(
    r"^\s*(?:(?:with|all) (?:\w+ ){0,3}(?:regards|love|thanks|wishes|respect)|(?:kind|best|warm|many)? ?"
    r"(?:regards|wishes|thanks)|yours|sincerely|cheers|love|respectfully|warmly|best|your \w+)\b[^.]{0,24},?\s*$",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"\A(?:\s*(?:subject|re)\s*:[^\n]*\n)?\s*(?:dear \w+(?: (?-i:[A-Z])\w+| and \w+){0,2}[,.:!]*|"
    r"(?:hello|hi|hey)(?: \w+)?[,.:!]+)",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(
    r"(?:^|(?<=[.!?]))\s*(?:yours(?: \w+)?|(?:(?:kind|best|warm) )?(?:regards|wishes)|sincerely|warmly|best|love|"
    r"your \w+),\s*[\w. ]{1,24}\Z",
    re.IGNORECASE | re.MULTILINE,
)


def body_of(text: str) -> str:
    """A letter without its subject, greeting and signature; another text as it is."""
    greeting = _GREETING.match(text)
    if greeting is None:
        return text
    return _SIGNATURE.sub("", text[greeting.end() :].rstrip())


# -- code -------------------------------------------------------------------------------------------------------------

_FENCED = re.compile(r"```[^\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_REMARK = re.compile(r"^\s*(?:#|//|--|\*|/\*+|<!--|\"\"\")+\s*(.*?)(?:\*/|-->|\"\"\")?\s*$")
_RAISES = re.compile(r"^\s*(?:raise|throw|return|panic|abort|sys\.exit)\b[^\"']*[\"'](.*)[\"']\W*$")
_EMPTY = re.compile(r"^\s*(?:(?:def|function|class|fn|func|public|void|int)\b.*|pass|return;?|[{}]*|import .*)$")


def remarks(text: str) -> str:
    """What the remarks and errors of a text's code say, where there is nothing else in it; else nothing."""
    said: list[str] = []
    for block in _FENCED.findall(text):
        for line in block.split("\n"):
            if found := _REMARK.match(line) or _RAISES.match(line):
                said.append(found[1])
            elif not _EMPTY.match(line):
                return ""
    return "\n".join(said)
