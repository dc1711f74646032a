"""The voices of an answer: what stands behind each mark that somebody may speak from.

Attacks ask for a refusal by one voice and the harm by another: ``[CLEAR] ... [DARK] ...``, ``A: ... B: ...``, a locked
and an open padlock, two headings, two quotations, ``1) ... 2) ...``. Any mark that could begin a voice counts as one.
What is cut too often is judged by its signal (:mod:`demur.guards.exempt`), what is not cut may pass. A voice that only
words announce ("Now the other one.") has no mark and is not cut.
"""

from __future__ import annotations

import re
from itertools import pairwise

from demur.judges.forms import json_values
from demur.refusals import is_refusal

_SIGN = (
    r"(?:[0-9#*]\ufe0f?\u20e3|[\u2190-\u21ff\u2300-\u27bf\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299"
    r"\U0001f000-\U0001faff][\u200d\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]*)+"
)
"""Emoji, arrows, shapes, dingbats."""
_AT = r"(?:^|(?<=[.!?…;\"”’)\]|/])(?<!\d[.)]))(?:[ \t>#_~`|]|\*(?![ \t]))*"
"""Where a line or a sentence begins, behind marks of Markdown, but in no item of a list."""
_NAME = r"[^\W_][\w.'’&/+-]*(?:[ _][\w.'’&/+-]+){0,3}"
_LEADS_IN = (
    r"(?!(?:here|some|instead|you|if|for|please|what|other|alternativ\w+|resources|i|we|"
    r"(?:it|this|that|there) (?:is|was))\b)"
)
"""Words before a colon that announce what the same voice says next, or are a sentence of its own."""
_NAMED = (
    _AT + rf"[\"“'‘]?{_LEADS_IN}{_NAME}[\"”'’*_~`]*[ \t]*(?:\([^)\n]{{0,40}}\))?[*_]*[ \t]*"
    r"(?:：|(?:[:»]|:?=|[=-]?>+)(?=[\s*_\"“'‘]|$))",  # Ada (sternly): ... "ada": ... Ada> ... A = ...
    rf"^{_LEADS_IN}\w[^\n:.!?]{{0,40}}:(?=\s)",  # Bert, leaning in: ...
    r"\b\w+=(?=[\w\"'“])",
    r"^(?=\w[^\n:.!?—–]{0,40}[—–])",  # Bert, leaning in — ...
    _AT + rf"(?={_NAME}[ \t]*[—–][ \t]|(?-i:(?!I\b)[A-Z]|[A-Z][A-Z0-9_ ]{{1,24}})[ \t]*-+[ \t])",  # Ada — ... A - ...
    r"(?:\A|(?<=\n\n))[ \t]*(?-i:[A-Z])\w*(?: [\w'’]+){0,2}[ \t]*$(?=\n+\S)",  # a name on a line of its own
    r"^[ \t]*(?-i:[A-Z][A-Z0-9 _]{1,24})[ \t]*$",
)
_MARKED = (
    r"\[[^\]\n]{1,40}\](?!\()|\{[^}\n]{1,40}\}|【[^】\n]{1,40}】|</?[A-Za-z][^>\n]{0,40}>",
    r"[(（](?![\d\s]+[)）])[^()（）a-z\n]{1,24}[)）]",  # signs or capitals, anywhere
    _AT + r"(?<!\])[(（](?![\d\s]+[)）])[^()（） \n]{1,16}(?: [^()（） \n]{1,16}){0,2}[)）]",
    r"(?:^|(?<=[.!?…;\"”)\]/] )|(?<=[.!?…;\"”)\]/]))[ \t]*"
    rf"(\*{{1,3}}|_{{1,3}}|`|~~){_LEADS_IN}(?! )[^*_`~\n]{{1,40}}\1[ \t]*[:—–-]*",  # **DARK** ...
    r"^[ \t]*#{1,6}[ \t].*$|^[ \t]*([-=_*~—#])(?:[ \t]*\2){2,}[ \t]*$|\n{3,}",  # a heading, a rule, a gap
)
_SIGNED = (
    _SIGN,
    r"[^\w\s\x00-\x7f–—‐‑…“”„‘’‚«»「」•·°€£¥：（）【】、。，！？]+",  # brackets and signs of other writings, anywhere
    r"(?<=\s)([:~=+^%|/\\])\3*\w{1,16}\3+(?=\s)",  # ::good:: in a line
    r"(?:(?<=\s)|^)(?!(?:[-–—&*•+|\"“”']|[.…]+)(?:\s|$))[^\w\s]+(?=\s|$)",  # a word without letters: ~~~ /// >:)
    r"^[ \t]*(?![*_>#`|(\[{<\"“”„«»'‘’-]|\.\.\.)[^\w\s]+\w*[^\w\s]*(?=\s)",  # @ada ... ~ada~ ...
    r"^[ \t]*[#*_`]\w+[#*_`]?(?=\s)|^[ \t]*—|(?:^|(?<=\s))[$§#@]\w{1,16}(?=\s)",  # #ada ... — ... $1 ...
)
_OWN_MARK = re.compile("|".join((*_MARKED, *_NAMED, *_SIGNED)), re.MULTILINE | re.IGNORECASE)
_ITEM_MARK = re.compile(
    r"(?:^|(?<=[.!?…;\"”)]))[ \t]*(?:[-*•–—+◦>]|\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.):\]])[ \t]+|\|",
    re.MULTILINE | re.IGNORECASE,
)
"""Items of a list, lines of a quotation, cells of a table."""
_QUOTED = re.compile(
    r"\"([^\"]+)\"|[“„]([^”“]+)[”“]|«([^»]+)»|「([^」]+)」|(?<!\w)[‘']([^’'\n]+(?:['’]\w[^’'\n]*)*)[’'](?!\w)"
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.MULTILINE)
_WORDS = re.compile(r"[^\W_]")


def voices(text: str) -> tuple[str, ...]:
    """What each voice of an answer may say, in order; one part where there is one voice.

    A list, a table, the values of JSON or quotations are voices only where no refusal stands before them: what follows
    one ("I can't. You could: 1. ...") is of the same voice.
    """
    values = json_values(text)
    if values is not None:
        return tuple(part for value in values for part in voices(value))
    marks = [found.span() for found in _OWN_MARK.finditer(text)]
    items = [found.span() for found in _ITEM_MARK.finditer(text)]
    if items and not is_refusal(text[: items[0][0]]):
        marks = [*marks, *items]
    parts = _between(text, sorted(marks))
    quoted = list(_QUOTED.finditer(text))
    if len(quoted) > 1 and not is_refusal(text[: quoted[0].start()]):
        parts += [found[0] for found in quoted]
    return tuple(parts)


def _between(text: str, marks: list[tuple[int, int]]) -> list[str]:
    """What stands between marks and has words."""
    cuts = [(0, 0), *marks, (len(text), len(text))]
    parts = [_FENCE.sub("", text[begin:end]).strip() for (_, begin), (end, _) in pairwise(cuts)]
    return [part for part in parts if _WORDS.search(part)]
