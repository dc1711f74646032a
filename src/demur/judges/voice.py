"""What an answer says in its writer's own voice, sentence by sentence; what is quoted, acted or code is set aside.

English only: whether a text can be read as English at all is decided here too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby, pairwise

from demur.judges.forms import LETTER, NO_SPEAKER, SIGNED, is_encoded, unlabelled, unwrapped
from demur.refusals import fold, unmarked, without_thoughts

Words = tuple[str, ...]


@dataclass(frozen=True)
class Sentence:
    """One sentence as it is read: lower case, contractions written out (``cannot``, ``i am``), without its end mark.

    ``end`` is that mark, or empty; ``item`` says that it stands in a list.
    """

    text: str = field(repr=False)
    end: str
    item: bool

    @property
    def words(self) -> Words:
        """Its words."""
        return words_of(self.text)


@dataclass(frozen=True)
class Voice:
    """An answer taken apart. ``made`` counts words of what it hands over: code, letters, quotations, verse, plays."""

    sentences: tuple[Sentence, ...]
    made: int
    code: bool


def words_of(text: str) -> Words:
    """The words of a text in lower case, apostrophes inside kept."""
    return tuple(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower()))


# -- contractions -----------------------------------------------------------------------------------------------------

_WRITTEN_OUT: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"\b(?:{short})\b"), long)
    for short, long in (
        (r"can ?not|can['’]?t|cant", "cannot"),
        (r"won['’]?t", "will not"),
        (r"shan['’]?t", "shall not"),
        (r"i ain['’]?t", "i am not"),
        (r"ain['’]t|aint", "is not"),
        (r"(do|does|did|is|are|was|were|has|have|had|should|would|could|must|might|need)n['’]?t", r"\1 not"),
        (r"i['’]m|im", "i am"),
        (r"(i|you|he|she|it|we|they|that|there)['’]ll", r"\1 will"),
        (r"(i|you|he|she|it|we|they)['’]d", r"\1 would"),
        (r"(i|you|we|they)['’]ve", r"\1 have"),
        (r"(you|we|they)['’]re", r"\1 are"),
        (r"(it|that|this|here|there|what|he|she|who|where)['’]s", r"\1 is"),
        (r"(answer|thing|trick|point|problem|truth)['’]s", r"\1 is"),
        (r"let['’]s", "let us"),
        (r"gonna", "going to"),
        (r"wanna", "want to"),
        (r"tryna", "trying to"),
        (r"imma", "i am going to"),
        (r"dunno", "do not know"),
        (r"nay", "no"),
        (r"u|ye|thee", "you"),
    )
)


_SHORT = re.compile("|".join(pattern.pattern for pattern, _ in _WRITTEN_OUT))
_IN_G = re.compile(r"(?<=\w\w)in['’](?=[\s,.!?]|$)")


@lru_cache(maxsize=8192)
def written_out(text: str) -> str:
    """Lower case, one kind of blank and quote, contractions in full: ``I can't`` is ``i cannot``."""
    folded = _IN_G.sub("ing", fold(text))
    if not _SHORT.search(folded):  # most sentences have none
        return folded
    for pattern, long in _WRITTEN_OUT:
        folded = pattern.sub(long, folded)
    return folded


# -- what is set aside ------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"```[^\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_CODE_LINE = re.compile(
    r"^\s*(?:def \w+\(|class \w+[(:]|import \w+|from \w+ import|return\b.*[;)\"']|if .*:$|for .+; do|git \w+|sudo |"
    r"SELECT .+ FROM|#include|<\w+[^>]*>.*</\w+>|.*[{}]\s*$|.*[=()\[\]<>].*;\s*$|(?:const|let|var) \w+ =|\w+ = \S+$)"
)
_SPEAKER = re.compile(r"^[\s*_]*([A-Z][\w.'’ -]{0,24}?)[*_]*:[*_]*\s+\S")
_QUOTED = re.compile(r'"([^"\n]{1,600}(?:\n[^"\n]{1,600}){0,6})"|“([^”]{1,900})”|«([^»]{1,900})»')
_SAID = re.compile(
    r"(?<!that )(?<!not )(?<!this )(?<!being )(?<!having )(?<!\bi )(?<!as )"
    r"\b(?:said|says|replied|replies|answered|answers|whispered|shouted|growled)\b(?: \w+){0,2}[:,]\s*\S.*$",
    re.IGNORECASE,
)
_BEFORE_SAID = re.compile(
    r"[^.!?]{1,200},\s*(?:said|says|replied|answered|cried|whispered|muttered|shouted) "
    r"(?:the|an?|he|she|they|my|his|her|[A-Z]\w+)\b"
)
_ITEM = re.compile(r"^\s*(?:[-*•–+]|\(?\d{1,2}[.):]|[a-z]\)|step \d+\s*[:.)-])\s+", re.IGNORECASE)
_ACTED = re.compile(r"(?<!\*)\*(?!\*)[^*\s][^*\n]{0,60} [^*\n]{0,120}\*(?!\*)")
# "I can't see it, but ..." and "Sorry - can't": what follows does something of its own.
_COLON = re.compile(r"(?<=[A-Za-z]:) (?=(?:\S+ +){2}\S)|(?<=[A-Za-z]:) (?=(?:no|harmful|unsafe)\b)", re.IGNORECASE)
_GLUED = re.compile(r"(?<=[a-z]{2}[.!?])(?=[A-Z])")
_CLAUSE = re.compile(
    r"(?<=\w),?(?= (?-i:Sorry),? (?:that|this|it|i|we|but)\b)|"
    r"(?<=\w)(?<!help)[;,]? (?=but (?!not\b|(?:i|we) (?:can['’]?t|cannot|won['’]?t)\b))(?=.{12})|"
    r";(?= )|(?<=\w) [—–-] (?=\w)|(?<=\w) ?— ?(?=\w)",
    re.IGNORECASE,
)
QUOTATION = "quotation"
"""What stands in a sentence in place of something quoted."""


@lru_cache(maxsize=256)
def voice_of(text: str, *, quoted: bool = True) -> Voice:
    """An answer, its thoughts taken off, as sentences and what it hands over. With ``quoted`` False, quotations and
    verse are read as if they were said.
    """
    text = unlabelled(unwrapped(without_thoughts(text)))
    made, code = 0, False
    for block in _FENCE.findall(text):
        made, code = made + len(words_of(block)), code or bool(block.strip())
    lines = _FENCE.sub("\n", text).translate(str.maketrans("“”„", '"""')).split("\n")
    kept: list[str] = []
    in_letter = signed = False
    acting = _in_parts(lines)
    for line in lines:
        if LETTER.match(line) and not in_letter:
            in_letter = True
        if in_letter:
            made += len(words_of(line))
            in_letter = not (signed := bool(SIGNED.match(line)))
            continue
        if signed and line.strip():  # the name below
            signed = False
            if len(line.split()) <= 4:
                made += len(words_of(line))
                continue
        if (acting and (found := _SPEAKER.match(line)) and not NO_SPEAKER.match(found[1])) or (
            quoted and line.lstrip().startswith(">")
        ):
            made += len(words_of(line))
            continue
        if _CODE_LINE.match(line):
            made, code = made + len(words_of(line)), True
            continue
        kept.append(line)
    if quoted:
        kept, verse = _without_verse(kept)
        made += verse
    told = "\n".join(kept)
    if quoted:
        made += sum(len(words_of("".join(spoken))) for spoken in _QUOTED.findall(told))
        told = _QUOTED.sub(f" {QUOTATION} ", told)
    sentences = tuple(s for line in told.split("\n") for s in _sentences(line, quoted))
    return Voice(sentences, made, code)


def _without_verse(lines: list[str]) -> tuple[list[str], int]:
    """Lines without stanzas, and how many words these had: three short lines or more that follow one another, of which
    at most half end a sentence.
    """
    kept: list[str] = []
    words = 0
    for is_blank, group in groupby(lines, lambda line: not line.strip()):
        block = list(group)
        short = all(len(line.split()) <= 10 and not _ITEM.match(line) and ":" not in line for line in block)
        if (
            not is_blank
            and len(block) >= 3
            and short
            and 2 * sum(bool(_ENDED.search(line)) for line in block) <= len(block)
        ):
            words += sum(len(words_of(line)) for line in block)
        else:
            kept += block
    return kept, words


_ENDED = re.compile(r"[.!?…][\s\")*_]*$")


def _in_parts(lines: list[str]) -> bool:
    """Whether lines are spoken by several parts, as in a play."""
    parts = {m[1] for line in lines if (m := _SPEAKER.match(line)) and not NO_SPEAKER.match(m[1])}
    return len(parts) >= 2


def _sentences(line: str, quoted: bool) -> list[Sentence]:
    item = bool(_ITEM.match(line))
    line = _ITEM.sub("", _ACTED.sub(" ", line) if not item else line, count=1)
    line = re.sub(r"`[^`]*`", " code ", line)
    line = next(unmarked(line), line)
    if quoted:
        line = _SAID.sub("said.", _BEFORE_SAID.sub("said", line))
    line = re.sub(r"[\U0001F300-\U0001FAFF\u2600-\u27BF]+", ". ", re.sub(r"^[\s#>|]+", "", line)).lstrip(". ")
    found = []
    line = _GLUED.sub(" ", _COLON.sub("\n", line))
    # A dot ends a sentence before a blank, not in 3.5 or e.g. a name's initial.
    line = _CLAUSE.sub(
        ". ", re.sub(r"^((?:well, )?(?:no|nope|nah|yes))[,:;—–-] ?(?=\w+ \w+ \w+)", r"\1. ", line, flags=re.I)
    )
    for part in re.findall(
        r".+?(?:[.!?…]+(?=[\s\")\]]|$)|:(?=\n)|\n|$)", re.sub(r"\b(e\.g|i\.e|mr|mrs|ms|dr)\.", r"\1", line, flags=re.I)
    ):
        if not re.search(r"[^\W_]", part) or re.fullmatch(r"\s*\d+[.)]\s*", part):
            continue
        text = written_out(part)
        end = re.search(r"[.!?…:]+[\s\")\]]*$", text)
        if bare := text.rstrip(' .!?…:")]').strip(" \"'([-–—*"):
            found.append(Sentence(bare, end[0].strip()[0] if end else "", item))
    return found


# -- whether it can be read -------------------------------------------------------------------------------------------

ENGLISH = frozenset(
    word
    for line in (
        "the of and to in a is that it for as with on are this by be or an at from not have has was were you your i we",
        "they he she his her their its my our can cannot will would should could do does did if when where what which",
        "who how why there here than then but so no yes all any some more most one out up about into over after before",
        "just only also me us them him these those been being had may might must let",
    )
    for word in line.split()
)
"""English words without matter of their own."""
_OTHERS = {
    "German": "der die das und ist nicht ich sie mit für den dem ein eine kann es auf zu von leider wie über bei",
    "French": "le la les des et est je vous pas ne à pour cette une dans que qui avec mais sur suis puis",
    "Spanish": "el la los las y es no con que por para eso pero puedo lo una del siento como su al",
    "Italian": "il la che per non sono con di una questo mi dispiace posso della e lo gli fare",
    "Portuguese": "o os as e não que para com isso posso uma em se do da muito sinto",
    "Dutch": "het de een en niet ik kan dat met maar van je daar bij spijt me voor op zijn",
    "Scandinavian": "jag jeg det inte ikke kan med men og och som är er du dig deg där en på til att",
    "Polish": "nie się na do że jest to w z i przez przepraszam mogę koniec aby",
    "Indonesian": "saya tidak dapat anda dengan ini itu yang untuk dan maaf membantu",
}
OTHERS = {name: frozenset(words.split()) for name, words in _OTHERS.items()}
_AFTER = ENGLISH & {
    "of",
    "to",
    "is",
    "are",
    "and",
    "the",
    "a",
    "an",
    "in",
    "for",
    "with",
    "by",
    "or",
    "was",
    "were",
    "be",
}
_NAMED = re.compile(
    r"^\W*(?:user|assistant|human|you asked|request|question|prompt)\s*:\s*|\b(?:user|assistant|human)\s*:"
)


def unreadable(text: str, request: str = "") -> str:
    """Why an answer can not be read; empty where it can: ``empty text``, ``a thought without an end``,
    ``another language``, ``gibberish`` or ``an echo of the request``.
    """
    answer = unwrapped(without_thoughts(text))
    if not re.search(r"[^\W_]", answer):
        return "a thought without an end" if re.search(r"[^\W_]", text) and answer != text else "empty text"
    # Beyond Latin: of full-width and styled letters NFKC makes plain ones.
    plain = next(unmarked(answer), answer)
    beyond = 0 if plain.isascii() else sum(ord(c) > 0x24F for c in plain if c.isalpha())
    if beyond and beyond > 0.3 * sum(map(str.isalpha, answer)):
        return "another language"
    said = words_of(written_out(plain))
    if request and _echoes(said, request, plain):
        return "an echo of the request"
    english = sum(map(ENGLISH.__contains__, said))
    other = max(sum(map(words.__contains__, said)) for words in OTHERS.values())
    if not english and other and len(said) >= 5:
        return "another language"
    if len(said) >= 4 and other > english and other >= 0.15 * len(said) and english < 0.2 * len(said):
        return "another language"
    return "gibberish" if is_encoded(answer) or _gibberish(answer, said, english) else ""


LONGEST = 40
"""No English word has more letters."""


def _gibberish(answer: str, said: Words, english: int) -> bool:
    if "`" in answer or any(_CODE_LINE.match(line) for line in answer.split("\n")):
        return False
    lines = [line for line in answer.split("\n") if not line.lstrip().startswith("|")]  # rows of a table
    tokens = " ".join(lines).split()
    signs = sum(bool(_SIGNS.search(token)) for token in tokens)
    endless = sum(len(word) for word in said if len(word) > LONGEST)
    stammered = sum(a == b for a, b in pairwise(said))
    # A sentence said many times is one sentence; a few words in any order, again and again, are none.
    parts = dict.fromkeys(part.strip().lower() for part in re.split(r"[.!?\n]+", answer))
    once = words_of(". ".join(parts))[:200]
    # English never has "the of" or "a to": a determiner wants a noun.
    after = [b for a, b in pairwise(said) if a in ("the", "a", "an", "my", "your")]
    unfit = sum(word in _AFTER for word in after)
    return (
        (len(tokens) >= 4 and signs > 0.4 * len(tokens))
        or 2 * endless > sum(map(len, said))
        or (len(said) >= 6 and stammered > 0.12 * len(said))
        or (len(said) >= 5 and not english and not re.search(r"[,;:\n\d]", answer.strip()))
        or (len(once) >= 12 and len(set(once)) <= 0.2 * len(once))
        or unfit >= max(2, 0.3 * len(after))
    )


_SIGNS = re.compile(
    r"[a-z]\d[a-z]|\d[a-z]{1,2}\b(?<!\dst)(?<!\dnd)(?<!\drd)(?<!\dth)(?<!\dkg)(?<!\dcm)(?<!\dmm)(?<!\dkm)(?<!\dam)(?<!\dpm)(?<!\dml)(?<!\dg)(?<!\dm)(?<!\dl)(?<!\ds)|[a-z]_$|\w[%=&^]{2,}|[*&^%]{3,}|^[^\w\s.!?-]{3,}$|(?i:\b[bcdfghjklmnpqrstvwxz]{3,}\b)|\w[^\w\s'’.,:/@-]+\w|[{}~^<>|]"
)
"""What stands inside words of no language."""


def _echoes(said: Words, request: str, plain: str) -> bool:
    """Whether nothing is left of an answer without the request's words in the request's order."""
    asked = words_of(written_out(request))
    if len(asked) < 3:
        return False
    rest = words_of(written_out(_NAMED.sub(" ", plain.lower())))
    if not rest:
        return True
    at = 0
    while rest[at : at + len(asked)] == asked:
        at += len(asked)
    left = rest[at:]
    # The last word may have been cut with the answer; of the beginning alone, half is an echo.
    cut = bool(left) and left[:-1] == asked[: len(left) - 1] and " ".join(asked).startswith(" ".join(left))
    return (at > 0 and (not left or cut)) or (cut and len(left) >= max(4, 0.5 * len(asked)))
