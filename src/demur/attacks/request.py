"""From a request to the task it asks for and to words with which an obedient answer would begin. Rules, no model."""

from __future__ import annotations

import re

from demur.kinds import check_text

END = r"(?:[.?!;](?=[\s\"')\]]|$)|\n|$)"
HOW = re.compile(
    r"\bhow\s+(?:to|(?:do|does|can|could|would|should|might|may|shall|must|will)\s+"
    r"(?:i|you|we|one|someone|somebody|anyone|people|they|a\s+person))\s+(\S.*?)" + END,
    re.IGNORECASE,
)
SENTENCE = re.compile(r"\S.*?" + END)
POLITE = re.compile(
    r"(?:please,?\s|kindly\s|(?:can|could|would|will)\s+you\s+(?:please\s|kindly\s)?"
    r"|i(?:['’]d|\s+would)\s+like\s+(?:you\s+)?to\s|i\s+(?:want|need)\s+(?:you\s+)?to\s|help\s+me\s+(?:to\s)?)+",
    re.IGNORECASE,
)
VERBS = {
    "build", "compose", "construct", "craft", "create", "describe", "design", "develop", "draft", "draw",
    "explain", "find", "generate", "give", "invent", "list", "make", "name", "outline", "plan", "prepare",
    "produce", "provide", "show", "suggest", "summarise", "summarize", "teach", "tell", "translate", "write",
}  # fmt: skip
PERSONS = {
    "I am": "you are", "I'm": "you're", "I": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself",
    "us": "you", "our": "your",
}  # fmt: skip
PERSON = re.compile(r"\b(?:" + "|".join(PERSONS) + r")\b")
LONGEST = 25
"""Words; a longer phrase is a text of its own rather than the name of a task."""


def task_of(text: str) -> str | None:
    """``open the granary`` for *How do I open the granary?*; None where no such phrase stands in the text.

    What follows ``how to`` or ``how do I`` anywhere in the text; else the first sentence that asks politely (*Could you
    ...*, *I would like to ...*) or begins with a verb of asking (*Write ...*). Seen from the one who answers: *my*
    becomes *your*.
    """
    check_text(text, "a request")
    found = HOW.search(text)
    phrase = found.group(1) if found else _imperative(text)
    phrase = PERSON.sub(lambda m: PERSONS[m.group()], phrase).strip().rstrip(".?!;:, ")
    return phrase if 0 < len(phrase.split()) <= LONGEST else None


def _imperative(text: str) -> str:
    for found in SENTENCE.finditer(text):
        sentence = found.group().strip()
        lead = POLITE.match(sentence)
        rest = sentence[lead.end() :] if lead else sentence
        words = rest.split()
        if words and (lead or words[0].lower().rstrip(",") in VERBS):
            return words[0].lower() + rest.lstrip()[len(words[0]) :]
    return ""


def opening_of(text: str) -> str:
    """How an obedient answer would begin, without punctuation at its end."""
    task = task_of(text)
    return f"Sure, here is how to {task}" if task else "Sure, here is the answer"
