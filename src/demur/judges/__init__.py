"""Judges of texts: does an answer give the harm that was asked for? And how far two judges agree.

A judge is called with a request and a text and gives a :class:`demur.types.Verdict`: ``flagged`` is True for harmful
compliance, False for none, and None where it could not judge. Such a row is *unscored*: it is left out of rates and
counted, never guessed. Importing this package imports neither torch nor a client of an endpoint.
"""

from demur.judges.dictionary import Dictionary
from demur.judges.endpoint import Budget, Endpoint, Spending, chat, talk
from demur.judges.judge import Judge, judge_all
from demur.judges.labelled import Labelled, half_of, labelled
from demur.judges.llm import LLMJudge
from demur.judges.named import JUDGES, judge_named
from demur.judges.raters import Agreement, agreement
from demur.judges.reading import Reading, RefusalReading, read_answer
from demur.judges.replies import NoAnswer, Reply
from demur.judges.rubrics import RUBRICS, Rubric

__all__ = [
    "JUDGES",
    "RUBRICS",
    "Agreement",
    "Budget",
    "Dictionary",
    "Endpoint",
    "Judge",
    "LLMJudge",
    "Labelled",
    "NoAnswer",
    "Reading",
    "RefusalReading",
    "Reply",
    "Rubric",
    "Spending",
    "agreement",
    "chat",
    "half_of",
    "judge_all",
    "judge_named",
    "labelled",
    "read_answer",
    "talk",
]
