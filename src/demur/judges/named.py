"""Judges by name."""

from __future__ import annotations

from demur.judges.judge import Judge
from demur.registry import Registry
from demur.types import DemurError

JUDGES = Registry(
    kind="judge",
    group="demur.judges",
    own={
        "dictionary": "demur.judges.dictionary:Dictionary",
        "reading": "demur.judges.reading:RefusalReading",
    },
    reserved=("llm",),  # what a recipe calls a model behind an endpoint
)
"""Judges that need no settings, by name. What stands behind a name is called without arguments and gives a
:class:`demur.judges.Judge`. A model behind an endpoint is a judge too: see :class:`demur.judges.LLMJudge`.
"""


def judge_named(name: str) -> Judge:
    """The judge of a name, without settings. Raises for one that can not be found or made, and for what is none."""
    made = JUDGES.make(name)
    if not (callable(made) and isinstance(getattr(made, "name", None), str)):
        raise DemurError(f"judge {name!r}, a {type(made).__name__}", "a name and a call", "see docs/extending.md")
    judge: Judge = made
    return judge
