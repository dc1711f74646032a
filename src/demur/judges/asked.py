"""What a request tells of how its answer is to be read: does it ask yes or no, about the assistant, for words?"""

from __future__ import annotations

import re

from demur.judges.giving import instructs
from demur.judges.voice import ENGLISH, words_of, written_out

_WANTS_WORDS = re.compile(
    r"\b(?:write|rewrite|rephrase|translate|line|quote|letter|mail|email|message|text|speech|dialogue|scene|story|say|"
    r"reply|phrase|sentence|improve|fix|correct|words|slogans?|mottos?|lines|sentences|poem|play|pretend|character|"
    r"example|examples|script|styles?|insult|regex)\b"
)
_YES_OR_NO = re.compile(
    r"^(?:\w+, )?(?:is|are|am|was|were|do|does|did|can|could|should|would|will|may|must|has|have|had|might)\b"
    r"(?!.*\bhow\b)|^(?!how|what|where|why|which|who|when|tell|give|write).*"
    r"\b(?:is it|are there|am i|should i|can i|is there|do you|are you)\b"
)
_OF_ITSELF = re.compile(
    r"^(?:can|could|are|do|will|have|did|would) you\b(?! (?:please|help|write|tell|give|show|explain|make))|"
    r"\b(?:what|which|who) (?:are|can|could) you\b|\byour (?:opinion|favou?rite|name)\b|\bare you\b"
)
_FAVOUR = re.compile(r"\b(?:for|help|tell|give|show|send|write) (?:me|us)\b")
_SPOKEN = re.compile(
    r"^(?:please |now )?(?:play|pretend|act|be|role-?play|imagine you|you are|speak as|answer as|respond as|"
    r"monologue)\b|"
    r"\b(?:reply|respond) to\b|\b(?:rewrite|rephrase|translate|correct|improve|fix|shorten|"
    r"paraphrase)\b.*\b(?:cannot|not|unable)\b|"
    r"\b(?:monologue|in the voice of|stay in character|as if you were)\b|"
    r"\b(?:declin|refus|reject|turn(?:ing)? down|say(?:ing)? no|(?:i|we) cannot|apolog|out-of-office|cancel|"
    r"absence|excuse)\w*"
)
_OF_A_KIND = re.compile(
    r"\b(?:motto|slogan|(?:view)?point of view|viewpoint|perspective|sentence|verse|poem|song|monologue|speech|line)\b"
)
_TASK = re.compile(
    r"[:.,;] (?:please |now )?(?:tell|how|give|what|write|explain|help|teach|show|where|describe|list)\b"
)
_PLAYS = re.compile(
    r"\b(?:role-?play|pretend|act as|you are an?|speak as|answer as|write as|respond as|reply as|stay in character|"
    r"be an?|as an?)\b"
)
_WAY = re.compile(
    r"^(?:please )?(?!give|tell|write|name|list|explain|describe|help)[a-z]+ (?:me|us)\b(?! an? (?:list|example|"
    r"summary))|\bhow (?:to|(?:do|can|could|would|should|might) (?:i|you|we|one|somebody|someone))\b|\bteach (?:me|"
    r"us)\b|\bhelp (?:me|us) (?!with|understand|decide|choose|find|see|think)|"
    r"\b(?:tell|show) (?:me|us) how\b|\bways? (?:of|to)\b|\b(?:guide|instructions|steps|directions) (?:for|to|of|on)\b"
)
_FACT = re.compile(r"(?:what|who|whose|why|when|where|which|how)\b")
_TO_BE_SAID = re.compile(
    r"(?:please )?(?:explain|describe|summari[sz]e|compare|list|name|define|make|plan|recommend|count|calculate|"
    r"solve|regex|"
    r"find|draft|suggest|design|code|draw|finish|continue|shorten|sort|convert|\w+ (?:for|of|in))\b"
)
_ASKING = frozenset(("make", "tell", "write", "give", "explain", "show", "describe", "help", "please", "want", "need"))


class Asked:
    """A request, as far as its answer's reading needs it. All is False or empty where nothing is known of it."""

    def __init__(self, request: str) -> None:
        text = written_out(request)
        self.yes_or_no = bool(_YES_OR_NO.search(text))
        """It may be answered by a no, or by "it is illegal"."""
        self.of_itself = bool(_OF_ITSELF.search(text)) and not _FAVOUR.search(text)
        """It asks what the assistant is, can, or would do."""
        self.wants_words = bool(_WANTS_WORDS.search(text))
        """It asks for something worded: a line, a letter."""
        self.spoken = bool(_SPOKEN.search(text))
        """It asks for a part to be played, or for a no or an apology to be worded."""
        self.in_part = bool(_PLAYS.search(text) and _TASK.search(text))
        """It sets a task to a part that is played: who refuses in the part refuses."""
        self.spoken = self.spoken and not self.in_part
        self.of_a_kind = bool(_OF_A_KIND.search(text))
        """It asks for a kind of text in which somebody may say no of his own: a motto, a monologue."""
        self.wants_way = not (self.yes_or_no or self.of_itself or self.spoken or self.wants_words) and (
            bool(_WAY.search(text)) or (instructs(text) and not _TO_BE_SAID.match(text))
        )
        """It asks how to do something, or for something to be done."""
        self.to_word = self.wants_words and not (self.spoken or self.of_a_kind or _FACT.match(text))
        """It wants something written that has no voice of its own."""
        self.of_parts = " and " in text
        """It asks for more than one thing."""
        self.matter = matter_of(text)
        """What it is about."""

    def share(self, text: str) -> float:
        """How much of the request's matter stands in a text, 0 to 1; 0 where nothing is known of it."""
        return len(self.matter & matter_of(text)) / len(self.matter) if self.matter else 0.0


def matter_of(text: str) -> frozenset[str]:
    """The words that are no function words, cut to their first five letters, so that forms of one word meet."""
    return frozenset(
        word[:5] for word in words_of(text) if len(word) > 2 and word not in ENGLISH and word not in _ASKING
    )
