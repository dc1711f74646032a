"""What is odd about a finished answer, said once a source: it is no answer, holds more than one, or less."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping

from demur.prompts.columns import CONVERSATION_COLUMNS, MISSING, THOUGHT_COLUMNS
from demur.prompts.rows import Row, fold, says_something
from demur.types import DemurWarning, Prompt

_OPENED = re.compile(
    r"\s*(?:(?:<\|im_start\|>|<\|start_header_id\|>|<\|start\|>|<start_of_turn>|<\|)(?:assistant|model)?|assistant)"
    r"(?:\|>|:|\n|<\|)"
    r"|\s*<｜Assistant｜>|\s*\[/INST\]",
    re.IGNORECASE,
)
"""How an answer begins that still stands in its chat template."""
_MARKED = re.compile(r"\s*(?:<|\[/|assistant\s*[:\n])", re.IGNORECASE)
ECHOED = 12
"""A request of so many characters is not by chance the beginning of its answer."""


def odd(prompt: Prompt, response: str, row: Row, told: set[str]) -> str:
    """The answer, empty where it is but the mark of a missing value. Warns of that, of an answer that begins with its
    request or with a mark of a chat template, and of a thought beside it, each once: ``told`` keeps which.
    """
    missing = response.strip().lower() in MISSING
    for kind, line in _lines(prompt, response, row, missing):
        if kind not in told:
            told.add(kind)
            warnings.warn(f"{row.where}: {line}", DemurWarning, stacklevel=3)
    return "" if missing else response


def _lines(prompt: Prompt, response: str, row: Row, missing: bool) -> Iterator[tuple[str, str]]:
    if missing:
        yield (
            "missing",
            f"the answer is {response.strip()!r}, which stands for a missing value: such rows count as unanswered",
        )
        return
    asked = prompt.text.strip()
    if len(asked) >= ECHOED and response.lstrip().startswith(asked):
        yield (
            "echo",
            "the answer begins with its request, as where a pipeline writes both (return_full_text): it is read as it "
            "stands; take the request off",
        )
    if _MARKED.match(response) and _OPENED.match(response):
        yield (
            "framed",
            "the answer begins with a mark of a chat template, which is read as a part of it; write the answer alone",
        )
    if where := _thought(row):
        yield "thought", f"{where} is not read: what is replayed is the answer without its thought"


def _thought(row: Row) -> str:
    """Where a thought stands beside the answer; empty where there is none."""
    for column, value in row.values.items():
        if fold(column) in THOUGHT_COLUMNS and says_something(value):
            return f"the column {column!r}"
        last = value[-1] if fold(column) in CONVERSATION_COLUMNS and isinstance(value, list) and value else None
        if isinstance(last, Mapping):
            for name in last:
                if fold(str(name)) in THOUGHT_COLUMNS and says_something(last[name]):
                    return f"{name!r} in the last turn of {column!r}"
    return ""
