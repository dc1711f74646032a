"""The text of a response's tokens: decoded by offsets, cut at its end, behind the thought that its prompt opened."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from demur.refusals import CHANNEL, MARKS, begins_thought, open_channel, open_thought

_CONTROL = re.compile(r"<\S+>|\[\S+\]|◁\S+▷")
"""A token that is written as a mark: of turns, mostly."""


def text_of(ids: Sequence[int], pieces: Mapping[int, bytes], special: Container[int]) -> str:
    """The text of tokens, special ones left out. Bytes on two sides of an unknown place (-1) are never put together."""
    runs = [b""]
    for i in ids:
        if i < 0:
            runs.append(b"")
        elif i not in special:
            runs[-1] += pieces[i]
    return "".join(run.decode("utf-8", errors="replace") for run in runs)


def upto_first_end(
    tokens: Sequence[int], start: Int[np.ndarray, "n"], open_: Bool[np.ndarray, "n"], ends: Container[int]
) -> int:
    """How many of a response's tokens are read: those before the first end behind which no other token is given."""
    given = [i for i in np.flatnonzero(~open_[int(open_.argmax()) :]) + int(open_.argmax()) if start[i] not in ends]
    behind = int(open_[: given[-1]].sum()) if given else 0
    return next((i for i in range(behind, len(tokens)) if tokens[i] in ends), len(tokens))


def opened_thought(start: Int[np.ndarray, "n"], open_: Bool[np.ndarray, "n"], pieces: Mapping[int, bytes]) -> str:
    """The mark of a thought that the given tokens before a response leave open, as templates of reasoning models do;
    empty if there is none. A mark is one token, behind which no other control token stands (an earlier turn's mark
    opens nothing), or it stands at the end of what is given. Of gpt-oss, whose channels are tokens of their own, the
    header of the channel that is open.
    """
    before = [i for i in start[: int(open_.argmax())].tolist() if i in pieces]
    if (channel := _open_channel(before, pieces)) is not None:
        return channel
    said = (pieces[i].decode("utf-8", errors="replace").strip() for i in reversed(before))
    last = next((piece for piece in said if piece.lower() in MARKS or _CONTROL.fullmatch(piece)), "")
    if begins_thought(last):
        return last
    return _open_at_end(text_of(before[-40:], pieces, ()))


def begun(start: Int[np.ndarray, "n"], open_: Bool[np.ndarray, "n"], pieces: Mapping[int, bytes], prefill: str) -> str:
    """What an answer begins with before the first generated token: the mark that the template opened, and the prefill.

    A prefill may close the thought of the template, or stand in the channel that it opened: the mark before it says so.
    Where the prefill is not found again in what its tokens say, no mark is put before it, and all of it is read.
    """
    if not prefill:
        return opened_thought(start, open_, pieces)
    given = text_of([i for i in start[: int(open_.argmax())].tolist() if i in pieces], pieces, ())
    head, found, _ = given.rpartition(prefill)
    return (_open_at_end(head) or open_channel(head[-200:]) if found else "") + prefill


def _open_at_end(given: str) -> str:
    """The mark of a thought with which a text ends; empty if it ends with none that opens one."""
    tail = given.rstrip()[-40:]
    opened = open_thought(tail)
    return opened if opened and tail.endswith(opened) else ""


def _open_channel(before: Sequence[int], pieces: Mapping[int, bytes]) -> str | None:
    """The header of the channel that tokens leave open, empty for none; None where they hold no channel."""
    last = next((k for k in reversed(range(len(before))) if pieces[before[k]].strip() == CHANNEL.encode()), None)
    return None if last is None else open_channel(text_of(before[last:], pieces, ()))
