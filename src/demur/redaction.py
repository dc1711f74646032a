"""What of a prompt and its answer may be shown, and how the rest is hidden.

:func:`hidden` is the one rule: words are shown where the prompt is marked harmless, or where somebody asks to see them.
:func:`redact` hides the content words of a text and leaves its skeleton: function words, refusals, punctuation. So a
picture of a jailbreak can be shown in a talk. It is for the eye of a reader, not a guarantee: the number of letters
stays, and who must keep a text secret should not make a page of it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Protocol

BLOCK = "█"


class Marked(Protocol):
    """What the rule reads of a prompt."""

    @property
    def harmful(self) -> bool | None:
        """None where nobody has said."""
        ...


def hidden(prompt: Marked, show_harmful: bool = False) -> bool:
    """Whether the words of this prompt and of its answer stay hidden: unless it is marked harmless (``harmful`` is
    False), or somebody asks to see them. What nobody has marked may be anything. A ``show_harmful`` that is a word
    ("no") asks for nothing.
    """
    asked = type(show_harmful).__name__ in ("bool", "bool_") and bool(show_harmful)
    return prompt.harmful is not False and not asked


def how_to_show(prompt: Marked) -> str:
    """A line that says why the words of a hidden prompt are hidden, and what shows them."""
    if prompt.harmful:
        return (
            "Redacted: the prompt is marked harmful. To see the words: --show-harmful (in Python: show_harmful=True)."
        )
    return (
        "Redacted: nobody has marked the prompt as harmless. If it is: --harmless (in Python: harmful=False). "
        "To see the words anyway: --show-harmful (in Python: show_harmful=True)."
    )


# ---------------------------------------------------------------------------------------------------------------------
# Texts

_FUNCTION = frozenset(
    """
    a about after all also am an and another any are as at be because been before but by can can't cannot could couldn't
    did didn't do does doesn't don't else for from had has have he her here him his how however i i'd i'll i'm i've if
    in instead into is isn't it it's its just me might more must my no not of on only or other our out she should so
    some such than that that's the their them then there these they this those to too under until up us very was we were
    what when where which while who whose why will with won't would you your
    """.split()  # noqa: SIM905
)
"""Words that say how others belong together and nothing by themselves. No verb, noun or adjective is among them."""

_REFUSING = (
    "able to help",
    "able to assist",
    "assist with",
    "cannot assist",
    "cannot fulfill",
    "cannot help",
    "cannot provide",
    "can't assist",
    "can't fulfill",
    "can't help",
    "can't provide",
    "help you",
    "help with",
    "i am afraid",
    "i am not able",
    "i am sorry",
    "i decline",
    "i must decline",
    "i refuse",
    "i'm afraid",
    "i'm not able",
    "i'm sorry",
    "i'm unable",
    "unable to",
)
"""Phrases of refusals, which are shown: that a text refuses is what a view is looked at for. Only whole phrases: an
"illegal" or a "help" by itself may be what was asked about."""
_PHRASES = tuple(sorted((tuple(phrase.split()) for phrase in _REFUSING), key=len, reverse=True))

_CHUNK = re.compile(r"\S+")
_OPENING = "\"'([{“‘«„¿¡*-–—…"
_CLOSING = "\"')]}”’».,:;!?*-–—…"
_ENDS = (".", "!", "?", ":", "…", "。")


def redact(text: str) -> str:
    """``text`` with every content word replaced by blocks; same number of characters, so offsets stay valid.

    What stands between blanks is shown if it is one function word with punctuation around it, or belongs to a phrase of
    a refusal; of all else, punctuation alone is left. So no word shows through because it is cut by a hyphen, a dot or
    a character without width, and none that is written as a name or an acronym ("May", "US").
    """
    shown: list[str] = []
    end, fresh = 0, True
    chunks = list(_CHUNK.finditer(text))
    cores = [_core(match[0]) for match in chunks]
    words = [core.lower().replace("’", "'") for core in cores]
    refusing = _phrases(words, [match[0] for match in chunks])
    for i, match in enumerate(chunks):
        chunk = match[0]
        kept = i in refusing or (words[i] in _FUNCTION and _cased(cores[i], fresh))
        if kept and len(cores[i]) == 1 and _spelled(cores, i):
            kept = False
        shown += [text[end : match.start()], chunk if kept else "".join(map(_hide, chunk))]
        end = match.end()
        fresh = chunk.rstrip("\"')]}”’»*").endswith(_ENDS) or "\n" in text[end : end + 2]
    return "".join([*shown, text[end:]])


def _core(chunk: str) -> str:
    """A chunk without the punctuation around it."""
    return chunk.lstrip(_OPENING).rstrip(_CLOSING)


def _cased(word: str, fresh: bool) -> bool:
    """Whether a function word is written as one: in lower case, or with a capital where a sentence begins."""
    begins = fresh and (word[1:].islower() or word == "A")
    return begins or word == word.lower() or word == "I" or word[:2] in ("I'", "I’")


def _spelled(cores: list[str], i: int) -> bool:
    """Whether a letter stands beside another one, as in a word that is spelled: b, a, r."""
    return any(len(cores[k]) == 1 and cores[k].isalnum() for k in (i - 1, i + 1) if 0 <= k < len(cores))


def _phrases(words: list[str], chunks: list[str]) -> set[int]:
    """The places of chunks that belong to a phrase of a refusal; nothing but blanks stands inside a phrase."""
    places: set[int] = set()
    for i in range(len(words)):
        for phrase in _PHRASES:
            span = range(i, i + len(phrase))
            if tuple(words[i : i + len(phrase)]) == phrase and all(
                chunks[k].lower().replace("’", "'").endswith(words[k]) for k in span[:-1]
            ):
                places.update(span)
                break
    return places


def _hide(sign: str) -> str:
    """A block for whatever may be a part of a word: letters, marks, digits, pictures, what has no width or no name.

    Pictures (emoji, letters in circles), formatting characters and those of private use spell words too.
    """
    category = unicodedata.category(sign)
    return BLOCK if category[0] in "LMNC" or category == "So" else sign


# ---------------------------------------------------------------------------------------------------------------------
# Names and titles, which may repeat what is hidden

_PART = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+|[^\W_]+")
_NAME = re.compile(r"[\w.:/+-]{1,64}", re.ASCII)


def _parts(text: str) -> set[str]:
    """The content words of a text, folded: of ``camelCase`` each part too, of scripts without blanks pairs of signs;
    and pictures.
    """
    folded = unicodedata.normalize("NFKC", "".join(sign for sign in text if unicodedata.category(sign) != "Cf"))
    found = {sign for sign in text if unicodedata.category(sign) == "So" and sign != BLOCK}
    for word in re.findall(r"[^\W_]+", folded):
        for part in (word, *_PART.findall(word)):
            small = part.casefold()
            if small.isascii():
                found |= (
                    {small}
                    if len(small) > 2 or (len(small) == 2 and not small.isalpha() and not small.isdigit())
                    else set()
                )
            elif ord(max(small)) >= 0x0E00:
                found |= {small[i : i + 2] for i in range(max(len(small) - 1, 1))}
            else:
                found.add(small)
    return found - _FUNCTION


def label(name: str, secrets: Iterable[str]) -> str:
    """The id of a hidden prompt as it may be shown: as it is, or ``prompt-`` and eight digits of its hash where it is a
    text and no name, or repeats a word of ``secrets``.
    """
    letters = re.sub(r"[\W_]+", "", name).casefold()
    words, own = set().union(*map(_parts, secrets)), _parts(name)
    told = words & own or any(len(word) > 3 and word in letters for word in words)
    if _NAME.fullmatch(name) and not told and not any(_akin(word, part) for word in words for part in own):
        return name
    return f"prompt-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _akin(word: str, part: str) -> bool:
    """Whether two words begin alike for all but their endings: bomb and bombs, explosives and explosion."""
    short = min(len(word), len(part))
    return short > 3 and word[: max(4, short - 3)] == part[: max(4, short - 3)]


def without(text: str, secrets: Iterable[str], known: Iterable[str] = ()) -> str:
    """A title or note beside hidden texts, without the words that it repeats of them.

    ``known`` are names that are shown anyway, as that of the attack: its words may stand.
    """
    words = set().union(*map(_parts, secrets)) - set().union(*map(_parts, known))

    def shown(match: re.Match[str]) -> str:
        letters = match[0].casefold()
        said = words & _parts(match[0]) or any(len(word) > 3 and word in letters for word in words)
        return "".join(map(_hide, match[0])) if said else match[0]

    return _CHUNK.sub(shown, text)
