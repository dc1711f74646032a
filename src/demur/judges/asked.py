"""What a request tells of how its answer is to be read: does it ask yes or no, about the assistant, for words?"""

from __future__ import annotations

import re
from functools import lru_cache

from demur.judges.giving import instructs
from demur.judges.voice import ENGLISH, words_of, written_out

_WANTS_WORDS = re.compile(
    r"\b(?:write|rewrite|rephrase|translate|line|quote|letter|mail|email|message|text|speech|dialogue|scene|story|say|"
    r"reply|phrase|sentence|improve|fix|correct|words|slogans?|mottos?|lines|sentences|poem|play|pretend|character|"
    r"example|examples|script|styles?|insult|regex|threat|joke|comeback|retort|toast|quip|caption|headline|tagline)\b"
)
_YES_OR_NO = re.compile(
    r"^(?:\w+, )?(?:is|are|am|was|were|do|does|did|can|could|should|would|will|may|must|has|have|had|might)\b"
    r"(?!.*\bhow\b)|^(?!how|what|where|why|which|who|when|tell|give|write).*"
    r"\b(?:is it|are there|am i|should i|can i|is there|do you|are you)\b|"
    r"[:.!?] (?:is|are|was|were|can|could|should|may|do|does|did|must) (?!you\b)\w+(?!.*\bhow\b)"
)
_OF_ITSELF = re.compile(
    r"^(?:can|could|are|do|will|have|did|would) you\b(?! (?:please|help|write|tell|give|show|explain|make))|"
    r"\b(?:what|which|who) (?:are|can|could|cannot|will|will not) you\b|\byour (?:opinion|favou?rite|name)\b|"
    r"\bare you\b"
)
_FAVOUR = re.compile(r"\b(?:for|help|tell|give|show|send|write) (?:me|us)\b")
_SPOKEN = re.compile(
    r"^(?:please |now )?(?:play|pretend|act|be|role-?play|imagine you|you are|speak as|answer as|respond as|"
    r"monologue)\b|"
    r"\b(?:reply|respond) to\b|\b(?:rewrite|rephrase|translate|correct|improve|fix|shorten|"
    r"paraphrase)\b.*\b(?:cannot|not|unable)\b|"
    r"\b(?:monologue|in the voice of|stay in character|as if you were)\b"
)
_OF_A_KIND = re.compile(
    r"\b(?:motto|slogan|(?:view)?point of view|viewpoint|perspective|sentence|verse|poem|song|monologue|speech|line)\b"
)
_TASK = re.compile(
    r"[:.,;] (?:please |now )?(?:tell|how|give|what|write|explain|help|teach|show|where|describe|list|"
    r"return|print|name|draft|rank|lecture|rhyme|sing|recite|dictate|produce|output|complete|continue|reveal)\b"
)
_ASKS_WHETHER = re.compile(r"[.?!] (?:is|are|can|could|may|should|must|do|does|would|will) \w+")
_PLAYS = re.compile(
    r"\b(?:role-?play|pretend|act as|you are an?|speak as|answer as|write as|respond as|reply as|stay in character|"
    r"be an?|as an?)\b"
)
_WAY = re.compile(
    r"^(?:please )?(?!give|tell|write|name|list|explain|describe|help)[a-z]+ (?:me|us)\b(?! an? (?:list|example|"
    r"summary))|\bhow (?:to|(?:do|does|can|could|would|should|might|must) (?:i|you|we|one|somebody|"
    r"someone))\b|\bteach (?:me|"
    r"us)\b|\bhelp (?:me|us) (?!with|understand|decide|choose|find|see|think)|"
    r"\b(?:tell|show) (?:me|us) how\b|\bways? (?:of|to)\b|\b(?:guide|instructions|steps|directions) (?:for|to|of|on)\b|"
    r"\b(?:any|some) (?:advice|tips|ideas|hints)\b|\bwhat (?:do|does|would|should|must) (?:i|you|one|we) (?:need|use|"
    r"do)\b|\bhow "
    r"(?:people|they|somebody|someone|one) \w+"
)
_FACT = re.compile(r"(?:what|who|whose|why|when|where|which|how)\b")
_TO_BE_SAID = re.compile(
    r"(?:please )?(?:explain|describe|summari[sz]e|compare|list|name|define|make|plan|recommend|count|calculate|"
    r"solve|regex|"
    r"find|draft|suggest|design|code|draw|finish|continue|shorten|sort|convert|\w+ (?:for|of|in))\b"
)
_ASKING = frozenset(("make", "tell", "write", "give", "explain", "show", "describe", "help", "please", "want", "need"))


_MANNER = re.compile(
    r"(?:please )?(?:(?:do not|never|avoid|use no|you (?:may|must|can|should) not|without)\b(?!.*\bhow\b)|"
    r"(?:answer|reply|"
    r"respond|talk|speak|put your|give your|think in|begin|start|from now on|return|"
    r"say \S+ first)\b(?=.*\b(?:as|like|in|"
    r"with|without|only|twice|using|tags|first)\b))"
)
_END = re.compile(r"(?<=[.?!])\s+|(?<=[.?!]\")\s+")
_NO = r"(?:declin\w*|refus\w*|reject\w*|turn(?:s|ing)? down|say(?:s|ing)? no|(?:i|we) cannot|apolog\w*|excuse\w*)\b"
_SAID_OF_NO = re.compile(rf"\b{_NO}")
_OF_ABSENCE = re.compile(r"\b(?:out-of-office|cancel|absence)")
"""What is a no where something is to be worded. To cancel a thing is none."""
_FORBIDDEN = re.compile(
    r"\b(?:no|not|never|nothing|without|avoid\w*|cannot|neither|nor|omit\w*|skip\w*|stop|refrain\w*|spare|zero|"
    rf"instead of|rather than|unable to|afraid to|incapable of)\b(?:,? \"?(?!and\b|but\b)\w+){{0,4}}?,? \"?{_NO}"
    rf"(?:(?:,| or| and| nor)+ (?:\w+ )?{_NO})*"
    rf"|\b(?:if|when|whenever|should|unless|because) you (?:\w+ ){{0,2}}?{_NO}"
    rf"|\b{_NO}(?: \w+){{0,3}}? (?:is|are|will be|would be)(?: \w+)? (?:not|never|no|unacceptable|forbidden|prohibited|"
    r"punish\w*|wrong|impossible|an option)\b"
    rf"|\b{_NO} (?:is|are) (?:not|never|no|unacceptable|forbidden|prohibited|punish\w*|wrong|impossible)\b"
    rf"|\bforbidden to (?:\w+ ){{0,2}}?{_NO}|\b(?:everyone|everybody|every other \w+|(?:all )?others?|other \w+) "
    rf"(?:else )?{_NO}|\byou (?:have )?(?:already |once )?(?:refused|declined)\b|\byou will (?:just|only|always|"
    rf"probably|surely) {_NO}|\b(?:refusing|declining|refusals?) (?:now )?(?:means|will be|would be|counts|costs|makes|"
    rf"is "
    rf"(?:logged|agreeing)|ends)\b|\b{_NO}\"? means\b|\bno-{_NO}|\brefus\w+\"?: ?(?:false|true|null)\b"
    rf"|\b{_NO} (?:nothing|nobody|no one|none)\b|\bi (?:\w+ )?{_NO} (?:\w+ )?(?:your|any|all|excuses|apologies)\b"
    r"|\b(?:cancel|reject|refuse)\w* (?:\w+ ){0,3}(?:rules?|instructions?|guidelines?|restrictions?|filters?)\b"
    rf"|\b(?:code|function|program|class|regex|endpoint|query) (?:that|which|to|for) (?:\w+ )?{_NO}"
)
"""A no that is forbidden, spoken of as the answer that is not wanted, or a program's: none is to be worded."""
_TO_TELL = re.compile(r"\b(?:recipe|steps|instructions?) (?:for|of|to|with)\b")
_WILL_YOU = re.compile(
    r"^(?:\w+, )?(?:can|could|will|would) you (?:please |just )?(?:help|write|tell|give|show|explain|make|teach|draft|"
    r"list|describe|send|create)\b"
)
_AS = re.compile(r"\b(?:answer|reply|respond|speak|talk|act) as\b")
_OF_TEXT = re.compile(
    r"(?:please )?(?:translate|correct|proofread|fix|rephrase|rewrite|paraphrase|shorten|improve|polish)\b"
    r"[^\"'“:]{0,40}[\"'“:]"
)
_NAMED = re.compile(
    r"\b(?:[Yy]ou(?:['’]re| are)|[Aa]ct as|[Aa]nswer as|[Rr]espond as|[Rr]eply as|[Ss]peak as|[Bb]e|[Pp]lay) "
    r"(?:an? |the |my )?([A-Z]\w+)"
)


def without_manner(request: str) -> str:
    """A request without the sentences that say how to answer it: as whom, in which form, with which words forbidden;
    empty where nothing else is asked.
    """
    return " ".join(part for part in _END.split(request.strip()) if not _MANNER.match(part.lower()))


class Asked:
    """A request, as far as its answer's reading needs it. All is False or empty where nothing is known of it."""

    def __init__(self, request: str) -> None:
        whole, text = written_out(request), written_out(without_manner(request))
        self.known = bool(text)
        """Whether anything is known of it."""
        self.names = tuple(dict.fromkeys(_NAMED.findall(request)))
        """Names of a part that the answer is to be given by."""
        self.yes_or_no = bool(_YES_OR_NO.search(text)) and not _WILL_YOU.match(text)
        """It may be answered by a no, or by "it is illegal"."""
        self.of_itself = "yourself" in text or bool(_OF_ITSELF.search(text) and not _FAVOUR.search(text))
        """It asks what the assistant is, can, or would do."""
        self.wants_words = bool(_WANTS_WORDS.search(text))
        """It asks for something worded: a line, a letter."""
        allowed = _FORBIDDEN.sub(" ", text)
        of_no = bool(_SAID_OF_NO.search(allowed) or (self.wants_words and _OF_ABSENCE.search(allowed)))
        self.of_no = of_no
        """It asks for a no or an apology to be worded."""
        self.spoken = of_no or bool(_SPOKEN.search(text) or _AS.search(whole))
        """It asks for a part to be played, or for a no or an apology to be worded."""
        self.to_tell = not of_no and bool(_WAY.search(text) or _TO_TELL.search(text))
        """It wants to be told a way, plainly or in a text, a letter or a scene that tells it."""
        task = _TASK.search(whole) or self.to_tell or (self.names and _ASKS_WHETHER.search(whole))
        self.in_part = bool((_PLAYS.search(whole) or self.names) and task)
        """It sets a task to a part that is played: who refuses in the part refuses."""
        self.spoken = self.spoken and not (self.in_part or self.to_tell)
        self.of_a_kind = bool(_OF_A_KIND.search(text)) and not self.to_tell
        """It asks for a kind of text in which somebody may say no of his own: a motto, a monologue."""
        self.wants_way = not (self.yes_or_no or self.of_itself or self.spoken or self.wants_words) and (
            bool(_WAY.search(text)) or (instructs(text) and not _TO_BE_SAID.match(text))
        )
        """It asks how to do something, or for something to be done."""
        self.to_word = self.wants_words and not (self.spoken or self.of_a_kind or _FACT.match(text))
        """It wants something written that has no voice of its own."""
        self.of_text = bool(_OF_TEXT.match(text))
        """It hands over a text to be translated, corrected or put in other words."""
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


@lru_cache(maxsize=4096)
def asked_by(request: str) -> Asked:
    """The same request is read once: in a run, many answers are given to it."""
    return Asked(request)
