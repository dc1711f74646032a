"""Acting: a refusal is written over rows of a generation while it runs.

Whoever watches a sampler hands every step to :class:`Refusal`, and takes from it the steps that may be seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from demur.guards.rows import RowState
from demur.refusals import REFUSAL as REFUSAL  # noqa: PLC0414 (guards has had it)
from demur.types import Canvas, Model, Step


class Fated(Protocol):
    """A row as far as acting is concerned."""

    state: RowState


class Refusal:
    """The refusal, as it is written over rows of one canvas, and the steps that nobody has seen yet."""

    def __init__(self, model: Model, canvas: Canvas, text: str) -> None:
        self.model, self.canvas, self.text = model, canvas, text
        self.ids: Int[Tensor, "b n"] | None = None  # tokens are made when the first row is flagged
        self.held: deque[Step] = deque()
        self.last: Step | None = None  # what came out last
        self.stopped = torch.zeros(canvas.rows, dtype=torch.bool, device=canvas.ids.device)

    def out(self, rows: Sequence[Fated], keeping: int = 0) -> Iterator[Step]:
        """Steps that may be seen, all but the last ``keeping``. Rows that were flagged are stopped by the first."""
        while len(self.held) > keeping:
            self.last = self.over(self.held.popleft(), rows)
            yield self.last

    def after(self, rows: Sequence[Fated]) -> Iterator[Step]:
        """One step more, if rows were flagged after the last one that came out."""
        if self.last is not None and any(row.state is RowState.FLAGGED for row in rows):
            yield self.over(_echo(self.last), rows)

    def over(self, step: Step, rows: Sequence[Fated]) -> Step:
        """The step, with the refusal in rows that are flagged, which are stopped by it, and in those stopped before."""
        flagged = [row.state is RowState.FLAGGED for row in rows]
        if not any(flagged) and self.ids is None:
            return step
        if self.ids is None:
            self.ids = _refusals(self.model, self.canvas, self.text)
        if not any(flagged):
            return _nothing_in(self.stopped, step, self.ids)
        before, now = self.stopped, torch.tensor(flagged, device=self.stopped.device)
        self.stopped = before | now
        for row in rows:
            if row.state is RowState.FLAGGED:
                row.state = RowState.STOPPED
        return _overwritten(step, self.ids, before, now)


def _refusals(model: Model, canvas: Canvas, refusal: str) -> Int[Tensor, "b n"]:
    """The canvas with the refusal in the open places; what it does not fill is end-of-sequence."""
    words = list(model.tokenizer(refusal, add_special_tokens=False)["input_ids"])
    end = (*model.stop_ids, model.mask_id, getattr(model, "pad_id", None))[0]
    written = (words + [end] * canvas.width)[: canvas.width]
    text = torch.tensor(written, dtype=canvas.ids.dtype, device=canvas.ids.device)
    place = (canvas.open.long().cumsum(dim=1) - 1).clamp(min=0)
    return torch.where(canvas.open, text[place], canvas.ids)


def _overwritten(step: Step, answer: Int[Tensor, "b n"], before: Bool[Tensor, "b"], now: Bool[Tensor, "b"]) -> Step:
    """The step as it is for rows that nobody stopped; stopped before: nothing happens; stopped now: the refusal."""
    stopped: Bool[Tensor, "b 1"] = (before | now)[:, None]
    changed = answer != step.ids
    return replace(
        step,
        ids=torch.where(stopped, answer, step.ids),
        open=step.open & ~stopped,
        committed=torch.where(stopped, now[:, None] & (changed | step.open | step.committed), step.committed),
        predictions=torch.where(stopped, answer, step.predictions),
        confidence=torch.where(stopped, float("nan"), step.confidence),
        live=(step.live & ~before) | now,
        replaced=now,
    )


def _nothing_in(stopped: Bool[Tensor, "b"], step: Step, answer: Int[Tensor, "b n"]) -> Step:
    """The step as it is, but that nothing happens in rows that were stopped before it."""
    goes_on: Bool[Tensor, "b"] = ~stopped
    here = goes_on[:, None]
    return replace(
        step,
        ids=torch.where(here, step.ids, answer),
        open=step.open & here,
        committed=step.committed & here,
        predictions=torch.where(here, step.predictions, answer),
        confidence=step.confidence.masked_fill(stopped[:, None], float("nan")),
        live=step.live & goes_on,
    )


def _echo(step: Step) -> Step:
    """A step after the last one, in which nothing happens."""
    nothing = torch.zeros_like(step.live)
    return replace(
        step,
        index=step.index + 1,
        committed=torch.zeros_like(step.committed),
        confidence=torch.full_like(step.confidence, float("nan")),
        live=nothing,
        replaced=None,
        passes=0,
    )
