"""What a person is shown of a trace: cells, frames and scenes, redacted where the prompt is not marked harmless."""

from __future__ import annotations

import codecs
from collections.abc import Container, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from demur.numbers import signals_of
from demur.redaction import how_to_show, redact, without
from demur.types import Prompt, Spec
from demur.views.scene import Cell, CellState, Frame, Scene


def scene_of(
    prompt: Prompt,
    spec: Spec,
    frames: Sequence[Frame],
    *,
    hide: bool,
    sigma: Sequence[float] | None,
    title: str,
    verdict: str,
    notes: Sequence[str],
    references: Sequence[tuple[str, Sequence[float]]],
    bands: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    request: str,
    way: str,
) -> Scene:
    """A scene of ``frames`` that are already redacted where ``hide`` says so; what stands beside them is redacted here.

    Curves are held at their last value, or cut, so that each has one value a frame.
    """

    def beside(text: str) -> str:
        known = (prompt.attack, spec.model, spec.sampler)
        return without(text, prompt.texts, known) if hide else text

    def held(values: Sequence[float]) -> tuple[float, ...]:
        (values,) = signals_of([values], name="a curve", unknown=True)
        return tuple(float(values[min(t, len(values) - 1)]) for t in range(max(len(frames), 1)))

    return Scene(
        title=beside(title) or f"{spec.model}, {spec.sampler}",
        prompt=redact(prompt.text) if hide else prompt.text,
        model=spec.model,
        sampler=spec.sampler,
        frames=tuple(frames),
        sigma=held(sigma) if sigma is not None else None,
        references=tuple((beside(name), held(values)) for name, values in references),
        bands=tuple((beside(name), held(low), held(high)) for name, low, high in bands),
        verdict=beside(verdict),
        notes=tuple(map(beside, notes)),
        redacted=hide,
        request=beside(request),
        way=beside(way),
        opening=redact(prompt.prefill) if hide else prompt.prefill,
        hint=how_to_show(prompt) if hide else "",
    )


def cells_of(
    tokens: Int[np.ndarray, "g"],
    states: Sequence[CellState],
    pieces: Mapping[int, bytes],
    special: Container[int],
    *,
    hide: bool,
) -> tuple[Cell, ...]:
    """A response as cells, one a place; a token of -1 is unknown. With ``hide`` the words are redacted.

    A character that is split over tokens is shown in the cell that completes it; one that no cell completes, as U+FFFD
    in the last cell before the gap or the end.
    """
    ending = len(states) - _open_at_the_end(states)  # what stands behind is open and has no text
    tokens, written, behind = tokens[:ending], states[:ending], (cell("", "open"),) * (len(states) - ending)
    texts = []
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token, following in zip(tokens, [*tokens[1:], -1][:ending], strict=True):
        texts.append("" if token < 0 else decoder.decode(pieces[int(token)], final=bool(following < 0)))
    cells = list(zip(texts, written, strict=True))
    if hide:
        cells = _redacted(cells, [int(token) in special for token in tokens], behind=len(behind))
    return (*(cell(text, state) for text, state in cells), *behind)


@lru_cache(maxsize=2**16)
def cell(text: str, state: CellState) -> Cell:
    """The cell; every frame of a generation holds most of those that the one before it holds."""
    return Cell(text, state)


def _open_at_the_end(states: Sequence[CellState]) -> int:
    return next((i for i, state in enumerate(reversed(states)) if state != "open"), len(states))


def _redacted(cells: list[tuple[str, CellState]], special: Sequence[bool], behind: int) -> list[tuple[str, CellState]]:
    """Cells whose joined text is redacted: words may run over cells, and redaction keeps every offset. ``behind``:
    how many open places follow.

    An open place counts as a letter, since the word beside it may go on there: "he" before it may become "hero".
    Special tokens, which end words, keep their names: these say nothing but that an answer has ended.
    """
    words = [
        "x" if state == "open" else " " * len(text) if kept else text
        for (text, state), kept in zip(cells, special, strict=True)
    ]
    whole, at, out = redact("".join(words) + "x" * behind), 0, []
    for (text, state), kept, word in zip(cells, special, words, strict=True):
        out.append((text if kept or state == "open" else whole[at : at + len(word)], state))
        at += len(word)
    return out
