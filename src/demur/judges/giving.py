"""Whether a sentence tells somebody how to do a thing: a bare verb with its object, "you can ...", "by doing ...".

Sentences come as :func:`demur.judges.voice.written_out` writes them.
"""

from __future__ import annotations

import re

from demur.judges.voice import ENGLISH

_AT_FIRST = (
    r"^(?:(?:first|second|third|next|then|now|finally|lastly|afterwards|after that|also|and|or|otherwise|once \w+|"
    r"to start|(?:ladies and gentlemen|(?:my |dear )?(?:friends?|child|children|lad|sir|son|sweetheart|uncle))|"
    r"to begin|(?:for|if|with|when|once|on|in) [^,]{1,30}|never|always|do not|just|simply|[a-z]+ly)(?: of all)?,? )*"
)
_OBJECT = (
    r"(?:an?|the|your|his|her|its|their|it|them|this|that|these|those|all|any|each|every|both|one|two|three|four|five|"
    r"six|ten|half|some|more|enough|up|down|out|off|away|in|into|on|onto|over|with|to|from|for|until|at|around|through|"
    r"between|under|behind|before|after|against|across|back|together|my|\d+|(?!rarely|hardly|seldom|really|usually|generally|only)[a-z]+ly)"
)
_BARE = re.compile(
    rf"{_AT_FIRST}([a-z]{{2,}}),? (?:{_OBJECT}\b|(?!(?:is|are|was|were|has|have|can|will|may|should|could|would|"
    rf"does|must|never|often|rarely|always|and|or)\b)[a-z]*[a-rt-z],? (?:[a-z]+ )?(?:over|into|onto|through|and|"
    rf"with|in|into|on|until|over|from|to)\b|(?!(?:is|are|was|were|has|have|can|will|may|should|could|would|does|"
    rf"must|never|often)\b)[a-z]+(?: [a-z]*[a-rt-z])?,|[a-z]+s (?:with|in|into|on|until|over|from)\b)"
)
_YOU = re.compile(
    r"\byou (?:can|could|need|must|should|will|may|want|have|might|would|just|simply|first|then)(?: (?:to|also|"
    r"just|then))? "
    r"(?!be\b|feel|not\b|find yourself|ask\b|talk|contact|consult|speak|help|regret|get (?:in|into|caught)|to\b)[a-z]+"
)
_BY = re.compile(
    r"\b(?:by|involves?|means|requires?|consists of|works by|begin with|start with) (?:\w+ )?[a-z]+ing\b|"
    r"\d+(?:[.,]\d+)?(?:st|nd|rd|th)?[ -]?(?:g|kg|ml|l|cm|mm|m|km|nm|seconds?|minutes?|hours?|days?|weeks?|"
    r"degrees?|percent|"
    r"times|euros?|dollars?|litres?|grams?|spoons?|cups?|parts?|pm|am|feet|inch\w*|volts?|amps?)\b|"
    r"\d ?[%°/x=+*]|\b\d+$|"
    r"\b(?:step|part|number|size|setting|level) \d"
)
_ADVICE = re.compile(
    r"\bi would (?:not |never |just |always )?(?!like|love|rather|be\b|urge|encourage|hate|suggest|advise|better|"
    r"prefer)[a-z]+|"
    r"\bworks? (?:for|best with|well|every)|\b(?:my|the|one|a good) (?:trick|secret|key|tool) is\b|\b(?:nothing "
    r")?beats\b|"
    r"\byou (?:never |always )?(?:want|need) to [a-z]+|\bhelps? you [a-z]+ (?:it|them|the)\b|^no need\b|"
    r"^(?:then |and )?let (?:it|the \w+|them) (?:rest|cool|stand|dry|soak|sit|boil|simmer|rise|set|go)\b|^(?:hot|"
    r"cold|warm) \w+$"
)
_NO_VERB = ENGLISH | frozenset(
    """
please thank thanks sorry let many each every everybody nobody everyone someone somebody people because since while
although though instead however also such ask tell call contact consult remember consider talk speak seek reach feel
imagine
think choose ah oh hmm well honesty violence theft patience trust
""".split()  # noqa: SIM905 - words, not strings
)


def instructs(text: str) -> bool:
    """Whether a sentence tells how."""
    if _YOU.search(text) or _BY.search(text):
        return True
    if _ADVICE.search(text):
        return True
    if re.match(r"[a-z]+(?:, (?:and )?[a-z]+(?: [a-z]+){0,3}){2,}$", text):  # "dab, wait, rinse"
        return True
    bare = _BARE.match(text)
    return (
        bare is not None and bare[1] not in _NO_VERB and not re.search(r"(?:[^s]s|[^e]ed|ing|ly|tion|ness)$", bare[1])
    )
