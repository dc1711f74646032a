"""Control tokens: those that open and close turns. Only the template and a prefill may write them.

A request that holds ``<|im_end|>`` would close its own turn and open another. So the control tokens in what is asked
are sealed before the template is rendered, and tokenised as the letters that they are written with. A text without any
is tokenised as ever, token for token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demur.refusals import MARKS
from demur.types import DemurError, Message

_SEAL = re.compile("\ue000[\ue100-\uf8ff]\ue001")
_MARK = re.compile(r"[<\[◁]\S+[>\]▷]")
_THOUGHT = re.compile("|".join(map(re.escape, sorted(MARKS))), re.IGNORECASE)


@dataclass(frozen=True)
class Sealed:
    """A text in which every control token of what was asked is a seal: three private characters that stand for it."""

    text: str = field(repr=False)
    seals: Mapping[str, str]
    controls: Mapping[int, str]

    def opened(self) -> str:
        """The text with its control tokens written out."""
        return _SEAL.sub(lambda seal: self.seals.get(seal.group(), seal.group()), self.text)


def control_tokens(tokenizer: Any, written: str) -> dict[int, str]:
    """Tokens that say where turns begin and end, by id: special ones, and marks in what the template has ``written``
    (its source, and a conversation by it), and those of thoughts where there is one: who asks opens none. Not the token
    for what a tokenizer does not know.
    """
    special = {*getattr(tokenizer, "all_special_ids", ())} - {getattr(tokenizer, "unk_token_id", None)}
    found = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in special}
    for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
        content = str(token.content)
        named = (content in written and _MARK.fullmatch(content) is not None) or (written and content.lower() in MARKS)
        if (token.special and i != getattr(tokenizer, "unk_token_id", None)) or named:
            found[i] = content
    return {i: content for i, content in found.items() if content.strip()}


def sealed(
    turns: Sequence[Message], controls: Mapping[int, str], *, whole: bool = False
) -> tuple[list[Message], dict[str, str]]:
    """The turns with a seal for every control token in them, and what each seal stands for. The marks of a thought stay
    in an earlier answer, since templates look for them there; ``whole``: not in the last turn, which no template may
    shorten by them.
    """
    everything, code = "".join(turn.content for turn in turns), 0xE100
    seals: dict[str, str] = {}
    marks = {*_THOUGHT.findall(turns[-1].content)} if whole else set()
    for content in sorted({*controls.values()} | marks):
        if content in everything:
            while (seal := f"\ue000{chr(code)}\ue001") in everything:
                code += 1
            seals[seal], code = content, code + 1
    if not seals:
        return list(turns), {}
    by_content = {content: seal for seal, content in seals.items()}
    longest = re.compile("|".join(re.escape(content) for content in sorted(by_content, key=len, reverse=True)))

    def close(turn: Message) -> Message:
        kept = MARKS if turn.role == "assistant" and not (whole and turn is turns[-1]) else ()
        return Message(
            turn.role,
            longest.sub(lambda c: c.group() if c.group().lower() in kept else by_content[c.group()], turn.content),
        )

    return [close(turn) for turn in turns], seals


def row_of(tokenizer: Any, text: Sealed, *, templated: bool) -> list[int]:
    """The tokens of a prompt. Without a template, behind what the tokenizer puts in front of every text; never with
    what it puts behind one, nor with a second begin of sequence.
    """
    row = _letters(tokenizer, text) if text.seals else bare_row(tokenizer, text.text)
    if templated:
        return row
    alone = bare_row(tokenizer, text.text)
    whole = list(tokenizer(text.text)["input_ids"])
    for begin in range(len(whole) - len(alone) + 1):
        if whole[begin : begin + len(alone)] == alone:
            return _once(tokenizer, [*whole[:begin], *row], text.text)
    return _ended_by_text(tokenizer, whole, text.text)


def bare_row(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text and of nothing else, also where a tokenizer puts an end behind it unasked."""
    return _once(tokenizer, _ended_by_text(tokenizer, _ids(tokenizer, text), text), text)


def answer_row(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a finished answer, which begins no sequence."""
    row, begin = bare_row(tokenizer, text), getattr(tokenizer, "bos_token_id", None)
    is_written = begin is not None and text.lstrip().startswith(str(tokenizer.convert_ids_to_tokens(begin)))
    return row[1:] if row[:1] == [begin] and not is_written else row


def _ids(tokenizer: Any, text: str, **options: Any) -> list[int]:
    return list(_encoded(tokenizer, text, **options)["input_ids"])


def _encoded(tokenizer: Any, text: str, **options: Any) -> Any:
    """A text's tokens without special ones. Raises in one line where there is none for a sign of it, not even one for
    what is unknown.
    """
    if halves := re.search("[\ud800-\udfff]", text):
        raise DemurError(
            f"a text with half a sign (U+{ord(halves.group()):04X}), which no tokenizer reads",
            "whole signs: these two halves of one came apart in a cut text or in escapes of JSON",
            "take it out, or write the sign whole",
        )
    try:
        return tokenizer(text, add_special_tokens=False, **options)
    except Exception as error:  # tokenizers raises just this
        if "unk" not in str(error).lower():
            raise
        raise DemurError(
            f"a text with a sign for which the tokenizer has no token ({' '.join(str(error).split())[:80]})",
            "signs of the alphabet that the model was trained on, or a token for unknown ones",
            "write it in other signs, or mend the tokenizer's unk_token",
        ) from error


def _ended_by_text(tokenizer: Any, row: list[int], text: str) -> list[int]:
    """The row up to where the text ends: without special tokens behind it that it does not hold."""
    special, text = {*getattr(tokenizer, "all_special_ids", ())}, text.rstrip()
    special.discard(getattr(tokenizer, "unk_token_id", None))
    while row and row[-1] in special and not text.endswith(str(tokenizer.convert_ids_to_tokens(row[-1])).strip()):
        row = row[:-1]
    return row


def _once(tokenizer: Any, row: list[int], text: str) -> list[int]:
    """The row with one begin of sequence, where the tokenizer puts its own before that of the template."""
    if len(row) > 1 and row[0] == row[1] == getattr(tokenizer, "bos_token_id", None):
        begin = str(tokenizer.convert_ids_to_tokens(row[0])).strip()
        return row if text.lstrip().removeprefix(begin).lstrip().startswith(begin) else row[1:]
    return row


def _letters(tokenizer: Any, text: Sealed) -> list[int]:
    """The tokens of a text with seals: between the template's control tokens, each stretch as it reads, with no control
    token in it. Raises for a tokenizer that can't take these as letters.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise _no_letters(tokenizer, text)
    found = _encoded(tokenizer, text.text, return_offsets_mapping=True)
    row: list[int] = []
    stretch: list[int] = []
    begin = 0
    for token, (first, last) in [
        *zip(found["input_ids"], found["offset_mapping"], strict=True),
        (None, (len(text.text), len(text.text))),
    ]:
        if token is not None and token not in text.controls:
            stretch.append(token)
            continue
        between = text.text[begin:first]
        row += _stretch(tokenizer, between, text) if _SEAL.search(between) else stretch
        row += [] if token is None else [token]
        stretch, begin = [], last
    return row


def _stretch(tokenizer: Any, between: str, text: Sealed) -> list[int]:
    """The tokens of a stretch whose seals are opened; in two parts at each where the whole is still a control token."""
    whole = _SEAL.sub(lambda seal: text.seals.get(seal.group(), seal.group()), between)
    row = _ids(tokenizer, whole, split_special_tokens=True)
    if not text.controls.keys() & {*row}:
        return row
    parts = [""]
    for piece in re.split(f"({_SEAL.pattern})", between):
        content = text.seals.get(piece)
        if content is None:
            parts[-1] += piece
        else:
            parts[-1] += content[: len(content) // 2]
            parts.append(content[len(content) // 2 :])
    row = [token for part in parts if part for token in _ids(tokenizer, part, split_special_tokens=True)]
    if text.controls.keys() & {*row}:
        raise _no_letters(tokenizer, text)
    return row


def _no_letters(tokenizer: Any, text: Sealed) -> DemurError:
    held = ", ".join(sorted(text.seals.values()))[:80]
    return DemurError(
        f"a prompt that holds {held}, which {type(tokenizer).__name__} can only read as control tokens",
        "a prompt whose words open and close no turn",
        "take them out, or build the canvas from token rows with canvas_of",
    )
