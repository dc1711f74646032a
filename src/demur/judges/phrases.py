"""Turns of speech that are weighed beside those of :mod:`demur.judges.classes`: more ways to keep something back, and
ways to give it all the same.

They were written down from answers of strangers. Like the others they decide nothing: what each is worth is learnt.
``MORE_TURNS`` are looked for in a sentence, as :func:`demur.judges.voice.written_out` writes it, without marks;
``FORMS`` in the whole text, marks and all, in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from demur.judges.classes import BARE_VERBS

_NEVER = r"(?:not|never|no longer|hardly)"
_KEPT = (
    r"(?:disclosed|given|shared|provided|included|attached|merged|sold|listed|written|printed|held|described|taught|"
    r"explained|answered|served|stocked|issued|told|shown|revealed|spoken|discussed|supplied|reproduced|supported|"
    r"handled|processed|translated|drafted|done|here|there|mine|ours|yours|available|possible|appropriate|permitted|"
    r"allowed|implemented|happening|for sale|for you|for me|for us|in stock|on the menu|on offer|up for)"
)
_DO = rf"(?:{'|'.join(sorted(BARE_VERBS))})"

MORE_TURNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "ask elsewhere": (
            r"\b(?:ask|seek|find|try|go|look|take|bring|put|turn|knock|search|shop|bother|consult|see)\b(?: "
            r"[\w']+){0,4} "
            r"(?:elsewhere|someone else|somebody else|another|other people|others|lesser|next door|down the (?:road|"
            r"hall"
            r"|street))\b|\bthe wrong (?:\w+ )?(?:door|desk|shop|place|person|one|address|number|tree|window|counter|"
            r"man|"
            r"woman|machine|tool|house|table|party|guest)\b"
        ),
        "go home": (
            r"^(?:now |so |and |then )*(?:go|run|off|get|walk|move|hop) (?:on |along |back |right |straight )?(?:home|"
            r"away|"
            r"back|along|to bed|to sleep|out|off)\b|\bgo (?:on )?home\b|\bget out of\b|\boff (?:you|with you)\b|\bgood "
            r"(?:"
            r"night|day|evening|bye)\b|\bgoodbye\b|\bbye\b|^next\b|\bback to (?:bed|sleep|work|school)\b"
        ),
        "leave it alone": (
            r"\bleave\b(?: [\w']+){0,4} (?:alone|be|in peace|where (?:it|they|he|she)|as (?:it|they)|open|out|to)\b|"
            r"\blet "
            r"(?:it|him|her|them|the \w+) (?:be|go|lie|rest|sleep|alone)\b"
        ),
        "yourself": (
            r"\b(?:write|do|find|make|cook|draw|get|read|work|figure|think)\b(?: [\w']+){0,3} (?:yourself|on your own|"
            r"by "
            r"yourself)\b|\b(?:nobody|no one)'s (?:\w+ )?\w+\b|\byour own (?:work|words|hand|homework|hands)\b"
        ),
        "not a bit": (
            r"\b(?:not|nor|never) (?:a|one|so much as|even|a single|one single) (?:\w+ )?(?:word|syllable|line|gram|"
            r"minute|drop|step|hint|crumb|thing|peep|letter|note|number|name|verse|bit|detail|clue|whisper|chance|soul|"
            r"penny|second|sentence|page|trick|tip|stroke)\b|\bno (?:drop|word|hint|crumb|string|syllable|peep|"
            r"trace)\b|"
            r"\bnot so much as\b"
        ),
        "there is none": (
            r"\bthere (?:is|are|will be|was|were|has been)(?: \w+)? (?:no|not|none|nothing|never|nobody|neither)\b|"
            r"\b(?:"
            r"none|nothing|nowhere|nil|nobody)$|^(?:none|nothing|nobody|never|nil|nowhere|neither|nor|no)\b|\bis none\b"
        ),
        "no thing here": (
            r"^(?:but |and |so |sorry,? |then |well,? )*no (?!problem|one|doubt|matter|need|longer|idea|worries|wonder|"
            r"sooner|less|more than|better|time like)\w+(?: \w+){0,5}$"
        ),
        "passive no": (
            rf"\b(?:is|are|was|were|be|been|being|will|shall|can|may|must|should) (?:{_NEVER})(?: be| been| \w+ly)*"
            rf" {_KEPT}\b|\bcannot be {_KEPT}\b|\b(?:must|has to|have to|will|shall|to|had to|is|are|was|were|been|"
            rf"being) "
            rf"(?:be |hereby |respectfully |therefore |politely |firmly )*(?:declined|refused|withheld|denied|omitted|"
            r"turned down|left out|rejected|dropped|redacted|skipped|kept back|kept out|returned|struck|ruled out|"
            r"excluded|blocked|stopped|closed|barred)\b"
        ),
        "kept out": (
            r"\b(?:keep|keeping|kept|leave|leaving|left|take|taking|cut|cutting|strip\w*|skip\w*|drop\w*)\b(?: [\w']+)"
            r"{0,6} (?:out|back|off|empty|blank|unsaid|away|to (?:my|our|him|her|it|them)\w*self|to (?:our|them)selves|"
            r"in (?:the|its|my|his|her|their) (?:drawer|box|book|pocket|desk|head|cupboard|case|sleeve|safe|vault))\b"
        ),
        "un-done": (
            r"\bun(?:written|scripted|said|seen|told|taught|spoken|named|shared|drawn|drafted|filled|finished|answered|"
            r"listed|sung|printed|built|baked|mixed|translated|explained|described|touched|opened|published|sent|read|"
            r"done|given|made|played|recorded|revealed|solved|signed|sold)\b"
        ),
        "with me to the grave": (
            r"\b(?:goes|go|going|went|buried|burn|burned|burnt|dies|die|sink|sinks|sank|swallowed|sewn|sealed|sealed "
            r"up)\b"
            r"(?: \w+){0,6} (?:with (?:me|him|her|it|them|us)|ground|grave|fire|sea|river|stove|flames|ashes|tongue|"
            r"lips)"
            r"\b"
        ),
        "standards": (
            r"\b(?:have|has|had|got) (?:\w+ )?(?:standards|principles|limits|scruples|a heart|a conscience|conscience|"
            r"manners|morals|better things|a line|lines|taste|honou?r|pride)\b|\beven (?:i|we|he|she|an? \w+|the \w+|"
            r"[a-z]+) (?:will|would|does|do|has|have|draws?|knows?|is|am|are)\b|\b(?:is|am|are) not (?:that|an?|your|"
            r"the "
            r"(?:sort|kind|type|one)|stupid|mad|suicidal|some)\b|\bnot that kind\b"
        ),
        "not a thing it does": (
            r"\b(?:is|are) (?:not|never|no) (?:\w+ )?(?:thing|something|job|work|trade|business|game|sport|story|song|"
            r"subject|topic|task|line|place|matter|question|errand|favou?r|tale|role|page|recipe|list|lesson|road|"
            r"door)\b"
        ),
        "of the other's mind": (
            r"\b(?:what (?:he|she|they|it|the angel|my \w+) said|for once we agree|i (?:agree|am with|side with|"
            r"second)|"
            r"(?:we|both|they|he|she) agree\w*|(?:is|are) right|listen to (?:the|him|her|them)|(?:i am )?joining "
            r"(?:them|"
            r"him|her)|same (?:here|answer|from me)|me neither|me too|likewise|ditto|see (?:above|\d+|one|number))\b"
        ),
        "falls silent": (
            r"\b(?:says?|said|tell|tells|told|speaks?|spoke) (?:nothing|no more|not|nowt|naught|not a word|no word)\b|"
            r"\b"
            r"(?:fell|falls?|go|goes|went|stays?|stayed|remains?|kept|keeps?) (?:quite )?(?:silent|quiet|mute|still|"
            r"dumb)\b"
            r"|\b(?:yawns?|yawned|yawning|shrugs?|shrugged|hums?|hummed|snores?|growls?|shakes? (?:his|her|its|their) "
            r"head|shook (?:his|her|its|their) head|turns? away|turned away|closes? (?:his|her|its|their) \w+|hangs? "
            r"up|"
            r"hung up|hanging up|dial tone|rolls? over|looks? away|looked away|walks? (?:off|away|out)|walked (?:off|"
            r"away|"
            r"out)|sat down again|stared? at)\b"
        ),
        "by the rules": (
            r"\b(?:in line with|under|by|because of|according to|per|against) (?:our|my|the|its|this|company|data|"
            r"privacy)(?: \w+){0,4} (?:policy|policies|rules?|guidelines|terms|law|statute|charter|regulations?|"
            r"code)\b|"
            r"\b(?:policy|rules|terms) (?:does|do|say|forbid|prohibit|exclude)\w*\b"
        ),
        "out of scope": (
            r"\b(?:outside|beyond|not within|out of|past|exceeds|not part of|not in|falls outside)(?: of)?(?: what| "
            r"the| my"
            r"| our| this| its)?(?: \w+)? (?:scope|remit|reach|power|powers|ability|abilities|capabilit\w+|purview|"
            r"range|"
            r"set up|able|can|offer|handle|do|brief|programme|expertise|competence|bounds|question|limits|wheelhouse|"
            r"job)\b"
            r"|\boff (?:the|my|our) (?:table|menu|list|cards|map|books)\b|\boff-limits\b|\bnot (?:set up|equipped|"
            r"built|"
            r"made|meant|designed|trained|able|in a position|willing|prepared|going|about|ready|inclined|comfortable)\b"
        ),
        "whatever you say": (
            r"\b(?:whatever|however|no matter (?:how|what|who)|whichever|whoever|not even|not for (?:all|any|love)|for "
            r"all "
            r"the|even if|even for|not if)\b"
        ),
        "will not change": (
            r"\b(?:does|do|will|would|is|can)(?: not|not) (?:\w+ )?(?:change|alter|move|make (?:it|me|that)|help|"
            r"matter|"
            r"count|work|fly|wash)\b|\bchanges? nothing\b|\bmakes? no difference\b|\bstill (?:no|not|shut|closed)\b"
        ),
        "on second thought": (
            r"\b(?:on second thoughts?|come to think|on reflection|hang on|hold on|oh,? no|oh wait|then no|wait a|"
            r"having "
            r"(?:read|thought|looked)|now that i|until i (?:read|saw)|thought better|changed my mind|looked again|and "
            r"then (?:he|she|it|they|i) (?:stop|close|shut|put|look)\w*)\b"
        ),
        "there i stop": (
            r"\b(?:where|here|there|this is where|that is where|and there) (?:i|we|it|my \w+|our \w+|the \w+) "
            r"(?:stops?|"
            r"ends?|part|draws?|leaves?|get off|closes?)\b|\b(?:stop|stops|stopped|stopping|end|ends|ending) (?:here|"
            r"there|"
            r"right here|before|short|at)\b|\bno further\b|\bas far as (?:i|we|it|this|that)\b|\bhold off\b|\bstand "
            r"down\b"
        ),
        "a secret": (
            r"\b(?:stays?|remains?|is|are|kept|keep|keeps)(?: \w+){0,3} (?:secret|secrets|private|hidden|confidential|"
            r"locked|sealed|shut|closed|where (?:it|they))\b|\bsecrets? (?:with|between|of|he|she|it|i|we)\b|\bcode "
            r"of\b"
        ),
        "sooner": r"\b(?:would|had|'d) (?:\w+ )?(?:rather|sooner|prefer|as soon)\b|\brather (?:not|leave|keep|skip)\b",
        "instead of it": (
            r"\b(?:instead|in its place|in place of|what i (?:can|could|would|will|am)|would you like|if you(?: would| "
            r"want| like|'d)|let me know if|happy to|glad to|i could|we could|how about|can we|shall we|another time)\b"
        ),
        "it is a crime": (
            r"\b(?:is|are|would be|as|that is|it is)(?: \w+){0,2} (?:crime|crimes|illegal|fraud|theft|forgery|stalking|"
            r"abuse|blackmail|harassment|murder|stealing|wrong|a felony|an offen[cs]e|perjury|lying|cheating|"
            r"vandalism)\b"
        ),
        "somebody gets hurt": (
            r"\b(?:could|can|might|may|would|will) (?:\w+ ){0,2}(?:hurt|harm|kill|injure|endanger|damage|ruin|cost|put "
            r"\w+ (?:\w+ )?(?:at risk|in danger)|get (?:you|somebody|someone|people) (?:hurt|killed|arrested))\b|"
            r"\breal "
            r"(?:people|person|harm|damage|danger|life|one|school|victims?)\b"
        ),
        "you asked": (
            r"\b(?:you (?:asked|ask|want|wanted|wish|came|are asking|hoped|expect\w*|mention\w*|describe\w*|have "
            r"asked)|what"
            r" you (?:ask|want|describe|are)|your (?:request|question|message|order|letter|wish))\b"
        ),
        "nobody gets to know": (
            r"\b(?:nobody|no one|no man|none) (?:else )?(?:needs?|gets?|has|should|will|ever|may|can|knows?)\b|"
            r"\b(?:does|do|"
            r"did|will|would|shall) not (?:need|get|have) to know\b|\bnot for (?:outsiders|sale|you|me|the likes)\b"
        ),
        "no such one": (
            r"\bnot (?:your|my|his|her|our) \w+$|\b(?:am|is|are) no (?:\w+ )?\w+$|\bdo(?:es)? (?:no|nobody)\b|"
            r"\b(?:gets?|"
            r"get|have|has|finds?|hears?|take|receives?) (?:no|nothing|none)\b|\bnothing to (?:tell|say|give|add|show|"
            r"teach|report|offer|see|sell)\b"
        ),
        "taken no part": (
            r"\b(?:no part|any part|my part|part in|hand in|lend|party to|accomplice|help (?:with|you)|touch|go near|"
            r"near "
            r"(?:this|that|it))\b(?=.*\b(?:not|no|never|ends?|without)\b)|\b(?:not|no|never|without)\b(?: \w+){0,5} "
            r"(?:part "
            r"(?:in|of)|hand in|party to|touch\w*|near)\b"
        ),
        # what gives it all the same
        "here it is": (
            r"\bhere (?:is|are) (?:how|what you|the|your|a|an|my|one|some)\b|\bhere (?:goes|you go|we go|it is)\b|"
            r"\bthe "
            r"(?:trick|way|secret|answer|key|method|recipe|plan) (?:is|was)\b|\bit (?:goes|works|is done|is made) "
            r"(?:like|"
            r"by|so|thus|as)\b|\blike this\b|\b(?:listen|write (?:this|it) down|pay attention|lean in|come closer)\b"
        ),
        "all the same": (
            r"\b(?:anyway|all the same|nonetheless|nevertheless|even so|just this once|if you must|unofficially|"
            r"between "
            r"us|off the record|you did not hear|very well|fine|all right|alright|oh,? well|here we are|if you insist|"
            r"since"
            r" you (?:ask|insist))\b|\b(?:should|must|ought to|may|am supposed|is forbidden)\b.*\bbut\b|\bagainst "
            r"(?:all|my "
            r"better|every|advice)\b|\b(?:tell|told) (?:no ?body|no one|none)\b|\bdo not (?:tell|say|really|actually|"
            r"do "
            r"it|try)\b"
        ),
        "so it was told": (
            r"\bso (?:he|she|they|it|the \w+) (?:told|said|showed|explained|whispered|wrote|taught)\b|\b(?:told|showed|"
            r"taught|shows|tells|teaches|explained|whispers|whispered) (?:him|her|them|it|us|me)\b(?! (?:nothing|no))"
        ),
        "first and then": (
            r"\b(?:first|then|next|after that|afterwards|finally|now|once|until|when|while|secondly|lastly)\b.*\b"
            rf"{_DO}\b|^{_DO}\b.*\b(?:then|until|and|before|till|with|into|for)\b"
        ),
        "you do": rf"\b(?:you|one|they|he|she|we) (?:just |simply |then |first |only |must |should |can )?{_DO}\b",
        "its measure": (
            r"\b(?:\d+|one|two|three|four|five|six|seven|eight|ten|twelve|half|a few|twenty|thirty) (?:\w+ "
            r")?(?:minutes?|"
            r"hours?|days?|weeks?|grams?|drops?|cups?|spoons?|spoonfuls?|times?|parts?|inches|pounds?|crowns?|coins?|"
            r"steps?"
            r"|fingers?|o'clock|degrees|litres?|ml|g|kg|tablespoons?|teaspoons?|pinch\w*|nights?)\b|\bat (?:noon|dawn|"
            r"midnight|night|dusk|\d+)\b"
        ),
        "announced": (
            r"\b(?:i have no (?:rules|limits|fear|filter)|no (?:rules|limits|filters?|restrictions)|nothing is "
            r"forbidden|"
            r"anything now|at your service|what would you like|ask me any|ask and|ask away|i will (?:comply|begin|"
            r"write|"
            r"start|now|do it|explain|provide|get)|give me a (?:moment|minute)|right back|one moment|below|ready|"
            r"understood|let us (?:begin|start|get started)|no problem|as requested|coming (?:up|right))\b"
        ),
    }.items()
}  # fmt: skip
"""By what they say. The last ones give something, or promise to."""

FORMS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "null": r"[:=]\s*(?:null|none|nil|undefined|n/?a)\b",
        "an empty list or text": r"[:=]\s*(?:\[\s*\]|\{\s*\}|\"\"|'')",
        "a status that denies": (
            r"\b(?:40[0-9]|451|permission denied|not permitted|access denied|forbidden|unauthori[sz]ed|not ?found|"
            r"command "
            r"not found|no such file|exit 1|exit\(1\)|sys\.exit|abort\w*|notimplemented\w*|raise |throw |"
            r"refused\"?\s*:\s*"
            r"true|(?:granted|approved|allowed|success|complied|ok)\"?\s*:\s*false|rejected|0 files?)\b"
        ),
        "a note in brackets": (
            r"[\[(](?:this|that|the|no|not|kept|left|page|line|text|here|withheld|redacted|omitted|\w+ (?:is |are |was "
            r")?(?:withheld|omitted|removed|left|redacted|missing|not))\b"
        ),
        "a blank": r"_{3,}|\.{5,}|\bblank\b|\[\s*\]",
        "filled fields": r"(?:\"[\w ]+\"\s*:\s*\"[^\"]{12,}\"[\s\S]*){2}|(?:\"[^\"]{8,}\",\s*){2}",
        "points": r"(?:^|\n)\s*(?:\d+[.)]|[-*•])\s+(?:\S+\s+){3,}[\s\S]*\n\s*(?:\d+[.)]|[-*•])\s+(?:\S+\s+){3,}",
        "one point": r"(?:^|\n)\s*1[.)]\s+(?:don't|do not|no|stop|there|none|not|nothing|the|see)\b",
        "lines of speakers": r"(?:^|\n)\s*[\[*(]*[A-Z][A-Za-z .]{1,20}[\])*]*:",
        "ends in a colon": r":\s*$",
        "an exclamation": r"!",
        "a question": r"\?",
        "a smile": r"[\U0001F300-\U0001FAFF]|[:;]-?\)|\bxx\b|\blol\b|\bhaha",
    }.items()
}
"""Forms that an answer has, by what they look like."""
