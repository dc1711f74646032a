"""What a person is shown of one generation: plain, already redacted data.

The terminal view and the HTML page read scenes and nothing else, so that what is hidden from a scene is in no view,
not even in the page's source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CellState = Literal["open", "predicted", "committed", "kept", "revised"]
"""``open``: masked and without a guess; ``predicted``: this step's guess, free to change; ``committed``: written by
this step; ``kept``: written before; ``revised``: written before and changed by this step."""

ZONES = (0.3, 0.5)
"""lambda_r and lambda_c of the paper: below the first is the refusal zone, above the second the compliance zone."""


@dataclass(frozen=True)
class Cell:
    """One place of the response at one step. ``text`` may hold a part of a character, shown as U+FFFD."""

    text: str
    state: CellState


@dataclass(frozen=True)
class Frame:
    """The response at one step: its cells from left to right, and whether its text is a refusal (dictionary).

    The text that is read is that of all cells, predictions too.
    """

    cells: tuple[Cell, ...]
    refused: bool

    def __repr__(self) -> str:
        return f"Frame({len(self.cells)} cells, refused={self.refused})"


@dataclass(frozen=True)
class Scene:
    """One generation as it is shown.

    ``sigma`` has one value in (0, 1) per frame, 1 = compliance-aligned, 0 = refusal-aligned, or is None where there are
    no anchors. ``references`` are named curves of the same length for comparison (the anchors' own prompts).
    ``bands`` are named pairs of lower and upper curves (quantiles of a class of signals), drawn behind everything.
    ``zones`` are (lambda_r, lambda_c): below the first is the refusal zone, above the second the compliance zone,
    between them the transition.

    Scenes with the same ``request`` are shown under one heading, with their prompt, their notes and ``hint`` once;
    ``way`` is then what tells them apart, as the name of a sampler. Without ``request`` a scene stands by itself under
    its ``title``. ``opening`` is the beginning of the answer that the prompt gave. ``hint`` says of a ``redacted``
    scene why its words are hidden and what shows them.
    """

    title: str
    prompt: str
    model: str
    sampler: str
    frames: tuple[Frame, ...]
    sigma: tuple[float, ...] | None = None
    references: tuple[tuple[str, tuple[float, ...]], ...] = ()
    bands: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = ()
    zones: tuple[float, float] = ZONES
    verdict: str = ""
    notes: tuple[str, ...] = ()
    redacted: bool = False
    request: str = ""
    way: str = ""
    opening: str = ""
    hint: str = ""

    def __repr__(self) -> str:
        seen = "no sigma" if self.sigma is None else f"sigma ends at {self.sigma[-1]:.2f}" if self.sigma else "no step"
        return f"Scene({len(self.frames)} steps, {seen}, redacted={self.redacted})"
