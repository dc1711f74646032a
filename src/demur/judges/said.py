"""What an answer says, sentence by sentence, and whose voice is read: its own, or that of what it hands over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from demur.judges.acts import Act, act_of
from demur.judges.asked import Asked
from demur.judges.forms import body_of, remarks
from demur.judges.giving import instructs
from demur.judges.voice import QUOTATION, Sentence, Voice, voice_of


def acts_of(sentences: Sequence[Sentence]) -> tuple[Act, ...]:
    """What each sentence does; one about those somebody was sent to ("they will listen") sends there too."""
    found: list[Act] = []
    for sentence in sentences:
        act = act_of(sentence)
        if act is Act.GIVES and found and found[-1] is Act.SENDS and _OF_THEM.match(sentence.text):
            act = Act.SENDS
        found.append(act)
    return tuple(found)


_OF_THEM = re.compile(
    r"(?:they|trained|somebody|someone|it is (?:free|open|confidential|anonymous)|you (?:can|do not|deserve))\b"
)


@dataclass(frozen=True)
class Said:
    """The sentences of an answer with what each does."""

    sentences: tuple[Sentence, ...]
    acts: tuple[Act, ...]

    @classmethod
    def of(cls, voice: Voice) -> Self:
        """What a voice says."""
        return cls(voice.sentences, acts_of(voice.sentences))

    def words(self, begin: int, end: int) -> int:
        """Words of content in a stretch of sentences; those of a list count, whatever they do."""
        return sum(
            len(s.words) for s, act in zip(self.sentences[begin:end], self.acts[begin:end], strict=True)
            if act is Act.GIVES or (s.item and act not in (Act.DECLINES, Act.LIMITS))
        )  # fmt: skip

    def items(self, begin: int, end: int) -> int:
        """Items of lists with words in them, in a stretch."""
        return sum(s.item and bool(s.words) for s in self.sentences[begin:end])

    def told(self, begin: int, end: int) -> int:
        """Sentences in a stretch that tell how."""
        stretch = zip(self.sentences[begin:end], self.acts[begin:end], strict=True)
        return sum(act is Act.GIVES and instructs(s.text) for s, act in stretch)

    def first(self, *acts: Act) -> int | None:
        """The first sentence that does one of these."""
        return next((i for i, act in enumerate(self.acts) if act in acts), None)


def voice_in(text: str, asked: Asked) -> Voice:
    """The voice of an answer. Where all of it is set aside (a quotation, verse, a letter, remarks of code), it is the
    assistant's own if nobody asked for something worded, or if it declines the writing itself.
    """
    voice = voice_of(text)
    if not voice.made or _own_words(voice):
        return voice
    bare = voice_of(remarks(text) if voice.code else body_of(text) if asked.wants_words else text, quoted=False)
    if not _own_words(bare):
        return voice
    if voice.code:
        return bare if Act.DECLINES in acts_of(bare.sentences) else voice
    theirs = asked.wants_words and not asked.to_tell
    return voice if theirs and not _declines_writing(bare, asked) else bare


_OF_WRITING = re.compile(
    r"\b(?:write|draft|compose|create|generate|finish|continue) (?:this|that|such|it|you|an?|the|\w*)? ?(?:verse|poem|"
    r"song|letter|message|mail|email|guide|scene|story|text|line|rhyme|page|content|request)\w*\b|\b(?:policy|"
    r"policies|guidelines|instructions for)\b"
)


def _declines_writing(voice: Voice, asked: Asked) -> bool:
    """Whether a sentence declines to write: no letter says of itself that it can not be written."""
    acts = acts_of(voice.sentences)
    return not asked.spoken and any(
        act is Act.DECLINES and _OF_WRITING.search(s.text) for s, act in zip(voice.sentences, acts, strict=True)
    )


def _own_words(voice: Voice) -> bool:
    return any(set(s.words) - {QUOTATION, "code"} for s in voice.sentences)
