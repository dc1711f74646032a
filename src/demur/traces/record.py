"""Recording: traces of any generator of steps that somebody else is watching too."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int

from demur.pooling import Phi, Pooler
from demur.traces.trace import Key, Trace
from demur.types import Canvas, DemurError, Need, Prompt, Spec, Step


class Recorder:
    """Records a generation that somebody else iterates over: ``for step in recorder(steps): ...``.

    Keeps, on the model's device, token rows and pooled states only; they are moved once, by :meth:`traces`. Raises
    unless there is a prompt for every row and an open place in it.
    """

    def __init__(
        self, model: Any, canvas: Canvas, prompts: Sequence[Prompt], spec: Spec, wanted: Sequence[Key]
    ) -> None:
        if len(prompts) != canvas.rows:
            raise DemurError(
                f"{len(prompts)} prompts for {canvas.rows} rows", "one each", "use model.canvas(prompts, length)"
            )
        for prompt, has_room in zip(prompts, canvas.open.any(dim=1).tolist(), strict=True):
            if not has_room:
                raise DemurError(
                    f"a generation without steps: no open place for prompt {prompt.label!r}",
                    "at least one in every row",
                    "ask for a length of at least 1, or leave the row out",
                )
        self.model, self.canvas, self.prompts, self.spec = model, canvas, tuple(prompts), spec
        self.pooler = Pooler(canvas, wanted)
        self.kept: list[tuple[Step, Phi]] = []
        self.seconds = 0.0
        self.ended = False

    def __call__(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Phi]]:
        """The same steps, each with the pooled states after it."""
        begun = time.perf_counter()
        for step in steps:
            phi = self.pooler(step)
            # What a trace needs; the step's own states are let go, so that no volume of them ever stands in memory.
            self.kept.append((_without_states(step), phi))
            self.seconds = time.perf_counter() - begun
            yield step, phi
        self.ended = True

    def traces(self) -> list[Trace]:
        """One trace for each row. Raises if no step was taken."""
        if not self.kept:
            raise DemurError("a generation without steps", "at least one", "iterate over recorder(sampler(...)) first")
        names = ("committed", "predictions", "confidence", "live", "open")
        stacked = {name: torch.stack([getattr(step, name) for step, _ in self.kept]).cpu().numpy() for name in names}
        phi = {key: torch.stack([phi[key] for _, phi in self.kept]).cpu().numpy() for key in self.pooler.wanted}
        start_ids, open_ = self.canvas.ids.cpu().numpy(), self.canvas.open.cpu().numpy()
        final_ids, final_open = (x.cpu().numpy() for x in (self.kept[-1][0].ids, self.kept[-1][0].open))
        stops = np.array(self.model.stop_ids, dtype=np.int64)
        passes = np.array([step.passes for step, _ in self.kept])
        traces = []
        for i, (prompt, pad) in enumerate(zip(self.prompts, self.canvas.starts(), strict=True)):
            # A row's own steps, wherever they lie: between two canvases it waits for its neighbours.
            taken = np.flatnonzero(stacked["live"][:, i])
            committed = stacked["committed"][taken, i, pad:]
            tokens = stacked["predictions"][taken, i, pad:]
            opened = stacked["open"][taken, i, pad:]
            before = np.concatenate([open_[None, i, pad:], opened[:-1]])
            commits = _events(committed, opened & (committed | ~before), tokens)
            holes = open_[i, pad:]
            sure = stacked["confidence"][taken, i, pad:][:, holes].astype(np.float32)
            predictions = np.where(np.isnan(sure), -1, tokens[:, holes]).astype(np.int32)
            row = start_ids[i, pad:].astype(np.int32)
            occurring = [row, predictions[predictions >= 0], commits[commits[:, 2] >= 0, 2]]
            pieces, special = self.model.pieces(np.concatenate(occurring).tolist())
            # No row's reason depends on what its neighbours did.
            left = final_open[i].any()
            guarded = any(step.replaced is not None and bool(step.replaced[i]) for step, _ in self.kept)
            written = final_ids[i, open_[i] & ~final_open[i]]  # as it stands: a renoised end of sequence is none
            one_by_one = Need.CAUSAL in self.model.offers
            last = commits[-1:, 2] if one_by_one else written
            if guarded:
                stop = "guarded"
            elif Need.REMASK not in self.model.offers and np.isin(last, stops).any() and (left or one_by_one):
                stop = "end-of-sequence"
            elif not left:
                stop = "full"
            else:
                stop = "unfilled" if self.ended else "stopped"
            traces.append(
                Trace(
                    prompt=prompt,
                    spec=self.spec,
                    start=row,
                    open=holes,
                    commits=commits,
                    predictions=predictions,
                    confidence=sure,
                    phi={key: states[taken, i] for key, states in phi.items()},
                    pieces=pieces,
                    special=special | ({self.model.mask_id} if self.model.mask_id is not None else frozenset()),
                    stop=stop,
                    passes=int(passes[taken].sum()),
                    seconds=self.seconds,
                    ends=frozenset(self.model.stop_ids) & pieces.keys(),
                )
            )
        return traces


def _events(
    committed: Bool[np.ndarray, "s n"], reopened: Bool[np.ndarray, "s n"], tokens: Int[np.ndarray, "s n"]
) -> Int[np.ndarray, "k 3"]:
    """Rows (step, column, token) in order: what a step wrote, then, as token -1, what it opened again."""
    rows = []
    for marks, values in ((committed, tokens), (reopened, np.full_like(tokens, -1))):
        when, where = np.nonzero(marks)
        rows.append(np.stack([when, where, values[when, where]], axis=1))
    events = np.concatenate(rows)
    return events[np.argsort(events[:, 0], kind="stable")].astype(np.int32)


def _without_states(step: Step) -> Step:
    slim = Step(**(vars(step) | {"hidden": {}}))
    return slim
