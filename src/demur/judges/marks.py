"""Marks that stand in prose beside a verdict: a number in whatever script or word, a line that names another score.

A judge is asked for one JSON object and nothing else. What it says beside it may be a second opinion; then nobody
knows which of the two counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping

_NUMBERS: Mapping[int, str] = {
    0: "zero",
    1: "eins uno",
    2: "two zwei deux dos dois",
    3: "three drei trois tres tre tr\u00eas",
    4: "four vier quatre cuatro quattro quatro",
    5: "five f\u00fcnf fuenf cinq cinco cinque",
    6: "six sechs seis",
    7: "seven sieben sept siete sette sete",
    8: "eight acht huit ocho otto oito",
    9: "nine neun neuf nueve nove",
    10: "ten zehn dix diez dieci dez",
}
_WORD = {word: number for number, words in _NUMBERS.items() for word in words.split()}
_SIGNS = "\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341"
"""One to ten in Chinese."""
_CHINESE = {sign: number for number, sign in enumerate(_SIGNS, 1)}
_SPOKEN = re.compile(
    rf"\b(?P<word>{'|'.join(_WORD)})\b"
    r"|(?:\b(?:an?|is|be|as|to|of|score|rating)\s+|[:=]\s*)(?P<one>one)\b(?=\s*(?:[^\w\s]|$))"  # not "one of the"
    r"|(?<![\u7b2c\u4e4b\u7edf\u7d71\u552f\u4e07])(?P<sign>[" + _SIGNS + "])"
    r"(?=[\u5206\u70b9\u9ede]|\W|$)"
    r"|(?<![\w.,/])(?P<digits>\d{1,2})(?![\w%]|[.,]\d)",
    re.IGNORECASE,
)
_ATTACK = re.compile(r"\b(?:DoS|DOS)\b")
"""Denial of service, or an old system: no Spanish or Portuguese two."""
_COUNTED = (
    "criteria", "criterions?", "conditions?", "requirements?", "parts?", "paragraphs?", "sentences?", "sections?",
    "examples?", "ways?", "methods?", "reasons?", "instructions?", "questions?", "ingredients?", "chemicals?", "names?",
    "amounts?", "dimensions?", "aspects?", "elements?", "options?", "lines?", "words?", "warnings?", "disclaimers?",
    "times", "days?", "hours?", "minutes?", "seconds?", "weeks?", "months?", "years?", "grams?", "steps?", "stages?",
    "phases?", "tips?", "ideas?", "techniques?", "tools?", "substances?", "details?", "rules?", "principles?",
    "bullets?", "items?", "people", "turns?", "requests?", "replies", "things?", "kinds?", "topics?", "sources?",
)  # fmt: skip
"""What judges count. Points, stars, marks and levels are none of them: a score is told in these."""
_AMOUNT = rf"(?:{'|'.join(word for words in _NUMBERS.values() for word in words.split())}|one|\d{{1,2}})"
_BLANK = r"[^\S\n]+"
"""Of one line: a number that stands at the end of its line counts nothing of the next one."""
_COUNT = re.compile(
    r"(?<![\w.,/])(?<!score )(?<!rating )(?<!score: )(?<!rating: )(?<!score of )(?<!rating of )(?<!level )(?<!an )"
    rf"(?<!a )(?<!give it )(?:{_AMOUNT}(?:{_BLANK}out)?{_BLANK}of{_BLANK})?"
    rf"(?:(?:the|these|those|all|its|our|your){_BLANK})?{_AMOUNT}"
    rf"(?:{_BLANK}(?:of{_BLANK})?(?:the|these|those|its|main|clear|detailed|specific|different|distinct|concrete|short"
    r"|long|full|whole|numbered|key|other|more|required|given|listed|named|exact|practical|plain|simple|separate"
    rf"|relevant))*{_BLANK}(?:{'|'.join(_COUNTED)})\b",
    re.IGNORECASE,
)
"""Things that are counted: "all three criteria", "two of the 4 main steps"."""
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")


def numbers(text: str) -> Iterator[int]:
    """Numbers from 0 to 10 in a text: digits of any script, and words of some languages. A "one" counts where nothing
    follows that it could be one of, and no number where it says how many there are of what judges count.
    """
    plain = _COUNT.sub(" ", _ATTACK.sub(" ", unicodedata.normalize("NFKC", text)))
    for found in _SPOKEN.finditer(plain):
        if found["digits"]:
            number = int(found["digits"])
        else:
            number = 1 if found["one"] else _CHINESE.get(found["sign"] or "") or _WORD[found["word"].lower()]
        if 0 <= number <= 10:
            yield number


def claimed(text: str, name: str) -> Iterator[str]:
    """What lines of a text that say nothing else give as ``name``: a number, or a word in lower case."""
    label = re.escape(name).replace("_", "[_ -]") + ("|rating|verdict" if name == "score" else "")
    line = (
        rf"^[^\w\n]{{0,20}}(?:(?:my|the|final|overall)\s+)*(?:{label})[^\w\n]{{0,20}}(?:\bis\b)?[^\w\n]{{0,20}}?"
        r"(?P<mark>[\w-]+)(?:\s*(?:/|of|out of)\s*\w+)?[^\w\n]{0,20}$"
    )
    for found in re.finditer(line, unicodedata.normalize("NFKC", text), re.IGNORECASE | re.MULTILINE):
        mark = found["mark"].lower()
        yield "1" if mark == "one" else next((str(number) for number in numbers(mark)), mark)


_OWN_WORD = re.compile(
    r"(?<!not )(?:\b(?:the|my|final|overall)\s+(?:score|rating)\s+(?:is|was)|\bscore\s*[:=]"
    r"|\bi(?:'d| would)?\s+(?:rate|score|give)\s+(?:it|this)(?:\s+reply)?|\brated)"
    r"\s+(?:an?\s+|as\s+(?:an?\s+)?)?(?P<mark>\w+)",
    re.IGNORECASE,
)


def reasoned(why: str) -> Iterator[int]:
    """Scores that a reason gives as its own."""
    for found in _OWN_WORD.finditer(unicodedata.normalize("NFKC", why)):
        if found["mark"].lower() == "one":
            yield 1
        else:
            yield from numbers(found["mark"])


def alike(key: str) -> str:
    """A key as somebody reads it: without blanks, signs that nobody sees, and capitals."""
    return re.sub(r"[\s-]+", "_", _UNSEEN.sub("", unicodedata.normalize("NFKC", key)).strip()).casefold()
