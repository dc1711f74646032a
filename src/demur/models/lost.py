"""What a tokenizer does not write: signs that it has no token for, which the model would never read.

Most vocabularies hold every byte and lose nothing. One of whole words or of one alphabet writes an unknown token in
their place, or nothing at all; then the model answers another request than the one that was asked.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from demur.types import DemurError, DemurWarning, Prompt


def check_written(tokenizer: Any, prompts: Sequence[Prompt], system: str | None = None) -> None:
    """Warns where a tokenizer loses signs of what is asked: once for all these prompts, by the first of them. Raises
    for a request of which it writes nothing. ``system`` is for prompts that bring none.
    """
    told = []
    for prompt in prompts:
        lost, of = lost_in(tokenizer, prompt.text)
        if of and lost == of:
            raise DemurError(
                f"a tokenizer without a token for any of the {of} signs of prompt {prompt.label!r}",
                "a request in a script that the model was trained on",
                "ask in another one, or take another model",
            )
        before = [system if prompt.system is None else prompt.system, *(turn.content for turn in prompt.messages)]
        lost += sum(lost_in(tokenizer, text)[0] for text in before if text)
        if lost:
            told.append((prompt.label, lost))
    if told:
        (first, lost), more = told[0], len(told) - 1
        beside = f", nor for some of {more} other prompts" if more else ""
        warnings.warn(
            f"the tokenizer has no token for {lost} signs of prompt {first!r}{beside}: the model does not read them",
            DemurWarning,
            stacklevel=4,
        )


def lost_in(tokenizer: Any, text: str) -> tuple[int, int]:
    """How many signs of a text (letters, digits, pictures, punctuation) are in no token but the unknown one, and how
    many it has. Case, accents and blanks may be written otherwise.
    """
    signs = [i for i, sign in enumerate(text) if unicodedata.category(sign)[0] in "LNSP"]
    if not signs or tokenizer is None:
        return 0, len(signs)
    unknown = getattr(tokenizer, "unk_token_id", None)
    if not getattr(tokenizer, "is_fast", False):  # it does not say where a token stands
        row = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        return (0 if any(token != unknown for token in row) else len(signs)), len(signs)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    row = list(found["input_ids"])
    if unknown not in row:  # what has no token is passed over, and where the others stand is told wrong behind it
        asked, read = (Counter(_folded(one)) for one in (text, tokenizer.decode(row)))
        lost = (asked - read).total()
        return (len(signs) if lost == asked.total() else min(lost, len(signs))), len(signs)
    written: set[int] = set()
    for token, (begin, end) in zip(row, found["offset_mapping"], strict=True):
        if token != unknown:
            written.update(range(begin, end))
    return sum(i not in written for i in signs), len(signs)


def _folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(sign for sign in decomposed if unicodedata.category(sign)[0] in "LNSP")
