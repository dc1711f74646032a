"""Cells of a frame: what stands open at the end is left out of the work, and changes nothing of what is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from demur.redaction import redact
from demur.traces.view import cells_of
from demur.views.scene import CellState

PIECES = {
    1: b"The", 2: b" kiln", 3: b" is", 4: b"s", 5: b" six", 6: b" a", 7: "é".encode()[:1], 8: "é".encode()[1:],
    9: b"<end>", 10: b".", 11: b"I", 12: b" si",
}  # fmt: skip
STATES: tuple[CellState, ...] = ("open", "predicted", "committed", "kept", "revised")


def plainly(tokens: Any, states: list[CellState]) -> list[str]:
    """Every place looked at; words redacted over all of them, an open one as a letter."""
    whole = b"".join(PIECES[t] for t in tokens if t > 0)
    assert b"\xc3" not in whole.replace("é".encode(), b""), "whole characters, or the other way is not comparable"
    words = [
        "x" if s == "open" else " " * len(PIECES[t]) if t == 9 else PIECES[t].decode()
        for t, s in zip(tokens, states, strict=True)
    ]
    hidden, at, out = redact("".join(words)), 0, []
    for token, state, word in zip(tokens, states, words, strict=True):
        out.append("" if state == "open" else "<end>" if token == 9 else hidden[at : at + len(word)])
        at += len(word)
    return out


@pytest.mark.parametrize("seed", range(40))
def test_open_places_at_the_end_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    written, behind = int(rng.integers(0, 9)), int(rng.integers(0, 6))
    known = [t for t in PIECES if t not in (7, 8)]
    tokens = [int(rng.choice(known)) if rng.random() < 0.7 else -1 for _ in range(written)] + [-1] * behind
    states: list[CellState] = ["open" if t < 0 else STATES[int(rng.integers(1, 5))] for t in tokens]
    cells = cells_of(np.array(tokens, dtype=int), states, PIECES, {9}, hide=True)
    assert [cell.state for cell in cells] == states
    assert [cell.text for cell in cells] == plainly(tokens, states)
    shown = cells_of(np.array(tokens, dtype=int), states, PIECES, {9}, hide=False)
    assert [cell.text for cell in shown] == [PIECES[t].decode() if t > 0 else "" for t in tokens]


def test_a_character_that_nothing_completes_is_shown_before_the_open_end() -> None:
    tokens, states = np.array([1, 7, -1, -1]), ["kept", "kept", "open", "open"]
    assert [cell.text for cell in cells_of(tokens, states, PIECES, set(), hide=False)] == ["The", "\ufffd", "", ""]  # type: ignore[arg-type]
    tokens = np.array([7, 8, -1, -1])
    assert [cell.text for cell in cells_of(tokens, states, PIECES, set(), hide=False)] == ["", "é", "", ""]  # type: ignore[arg-type]


def test_frames_share_their_cells() -> None:
    first = cells_of(np.array([1, 2, -1]), ["kept", "committed", "open"], PIECES, set(), hide=False)
    second = cells_of(np.array([1, 2, 3]), ["kept", "kept", "committed"], PIECES, set(), hide=False)
    assert first[0] is second[0], "or else pages of long answers need gigabytes"
