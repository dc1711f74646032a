"""Recording: traces of any generator of steps that somebody else is watching too.

A step marks whole canvases, most of which say nothing: an autoregressive step writes one place of thousands. So steps
wait on the model's device for a while, and are then reduced, many at once, to the entries that a trace keeps. What is
held grows with what was predicted, not with steps times columns; and nobody waits for the device at every step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.pooling import Phi, Pooler
from demur.traces.fields import TraceField, checked, valued
from demur.traces.guesses import Guesses
from demur.traces.trace import Key, Trace
from demur.types import Canvas, DemurError, Model, Need, Prompt, Spec, Step

CELLS = 2**18
"""So many cells (steps times rows times columns), of 14 bytes, wait on the model's device before they are reduced: 64
steps of one row of 4,096 columns, and all steps of a short generation.
"""


class Recorder:
    """Records a generation that somebody else iterates over: ``for step in recorder(steps): ...``.

    Keeps what a trace needs, on the host: entries that steps wrote, opened again or guessed, and pooled states. Raises
    unless there is a prompt for every row and an open place in it.
    """

    def __init__(
        self,
        model: Model,
        canvas: Canvas,
        prompts: Sequence[Prompt],
        spec: Spec,
        wanted: Sequence[Key],
        fields: Sequence[TraceField] = (),
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
        self.fields = checked(fields)
        self.seconds = 0.0
        self.ended = False
        self._size = max(1, CELLS // canvas.ids.numel())
        self._marks = _Marks.room_for(self._size, canvas)
        self._phis: list[Phi] = []  # of the steps that wait
        self._values: list[list[Float[Tensor, "b"]]] = []  # of these steps, by field
        self._moved: list[_Moved] = []
        self._passes: list[int] = []
        self._left_open = canvas.open  # after each row's last step that was moved
        self._final = canvas.ids, canvas.open  # ids and open places after the last step
        self._replaced: Bool[Tensor, "b"] | None = None

    def __call__(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Phi]]:
        """The same steps, each with the pooled states after it."""
        begun = time.perf_counter()
        for step in steps:
            phi = self.pooler(step)
            self._keep(step, phi)
            self.seconds = time.perf_counter() - begun
            yield step, phi
        self.ended = True

    def _keep(self, step: Step, phi: Phi) -> None:
        self._marks.take(len(self._phis), step)
        self._phis.append(phi)
        self._values.append([valued(field, step, self.canvas) for field in self.fields])
        self._passes.append(step.passes)
        self._final = step.ids, step.open
        if step.replaced is not None:
            self._replaced = step.replaced if self._replaced is None else self._replaced | step.replaced
        if len(self._phis) == self._size:
            self._move()

    def _move(self) -> None:
        """Reduces the steps that wait to what a trace keeps of them, and moves that to the host."""
        if self._phis:
            begin = len(self._passes) - len(self._phis)
            marks = _Marks(*(kind[: len(self._phis)] for kind in self._marks))
            moved, self._left_open = _reduced(marks, self._phis, self.canvas, self._left_open, begin)
            values = [torch.stack(of_field).cpu().numpy() for of_field in zip(*self._values, strict=True)]
            self._moved.append(replace(moved, fields=values))
            self._phis.clear()
            self._values.clear()

    def traces(self) -> list[Trace]:
        """One trace for each row. Raises if no step was taken."""
        if not self._passes:
            raise DemurError("a generation without steps", "at least one", "iterate over recorder(sampler(...)) first")
        self._move()
        n = len(self.prompts)
        live = np.concatenate([moved.live for moved in self._moved])
        written, opened, guessed = (
            np.concatenate([getattr(moved, kind) for moved in self._moved]) for kind in ("written", "opened", "guessed")
        )
        confidence, passes = np.concatenate([moved.confidence for moved in self._moved]), np.array(self._passes)
        whose = zip(*(_by_row(entries, n) for entries in (written, opened, guessed)), strict=True)
        start_ids, open_ = self.canvas.ids.cpu().numpy(), self.canvas.open.cpu().numpy()
        final_ids, final_open = (x.cpu().numpy() for x in self._final)
        guarded = [False] * n if self._replaced is None else self._replaced.tolist()
        mask = frozenset(() if self.model.mask_id is None else (self.model.mask_id,))
        traces = []
        rows = zip(self.prompts, self.canvas.starts(), whose, strict=True)
        for i, (prompt, pad, (mine_written, mine_opened, mine_guessed)) in enumerate(rows):
            # A row's own steps, wherever they lie: between two canvases it waits for its neighbours.
            taken, own = live[:, i], np.cumsum(live[:, i]) - 1
            start, holes = start_ids[i, pad:].astype(np.int32), open_[i, pad:]
            commits = _events(written[mine_written], opened[mine_opened], own, pad)
            step, _, column, token = guessed[mine_guessed].T
            places = np.cumsum(holes)[column - pad] - 1
            guesses = Guesses.of_steps(int(taken.sum()), own[step], places, token, confidence[mine_guessed])
            occurring = [start, guesses.tokens, commits[commits[:, 2] >= 0, 2]]
            pieces, special = self.model.pieces(np.concatenate(occurring).tolist())
            final = final_ids[i, open_[i] & ~final_open[i]]  # as it stands: a renoised end of sequence is none
            traces.append(
                Trace(
                    prompt=prompt,
                    spec=self.spec,
                    start=start,
                    open=holes,
                    commits=commits,
                    guesses=guesses,
                    phi={key: self._states(key, i) for key in self.pooler.wanted},
                    pieces=pieces,
                    special=special | mask,
                    stop="guarded" if guarded[i] else self._stop(commits, final, bool(final_open[i].any())),
                    passes=int(passes[taken].sum()),
                    seconds=self.seconds,
                    ends=frozenset(self.model.stop_ids) & pieces.keys(),
                    fields={field.name: self._of_field(k, i) for k, field in enumerate(self.fields)},
                )
            )
        return traces

    def _states(self, key: Key, i: int) -> Float[np.ndarray, "s d"]:
        """A row's pooled states after its own steps."""
        return np.concatenate([moved.phi[key][moved.live[:, i], i] for moved in self._moved])

    def _of_field(self, k: int, i: int) -> Float[np.ndarray, "s"]:
        """The k-th field after a row's own steps."""
        return np.concatenate([moved.fields[k][moved.live[:, i], i] for moved in self._moved])

    def _stop(self, commits: Int[np.ndarray, "k 3"], final: Int[np.ndarray, "g"], left: bool) -> str:
        """Why a row ended; no row's reason depends on what its neighbours did. ``left``: it has open places."""
        one_by_one = Need.CAUSAL in self.model.offers
        last = commits[-1:, 2] if one_by_one else final
        ended = bool(np.isin(last, np.array(self.model.stop_ids, dtype=np.int64)).any())
        if ended and Need.REMASK not in self.model.offers and (left or one_by_one):
            return "end-of-sequence"
        if not left:
            return "full"
        return "unfilled" if self.ended else "stopped"


class _Marks(NamedTuple):
    """What a trace needs of steps that wait, in room that is used again and again.

    Kept as they come, rows of thousands of columns would be let go between small things that stay, and leave holes in
    memory that nothing fits into: 69 MiB for 4,096 tokens, instead of some 10.
    """

    live: Bool[Tensor, "c b"]
    committed: Bool[Tensor, "c b n"]
    open: Bool[Tensor, "c b n"]
    predictions: Int[Tensor, "c b n"]
    confidence: Float[Tensor, "c b n"]

    @classmethod
    def room_for(cls, steps: int, canvas: Canvas) -> _Marks:
        """Room for so many steps, on the canvas's device."""
        flags, device = (steps, *canvas.ids.shape), canvas.ids.device
        live, committed, open_ = (torch.empty(x, dtype=torch.bool, device=device) for x in (flags[:2], flags, flags))
        predictions = torch.empty(flags, dtype=canvas.ids.dtype, device=device)
        return cls(live, committed, open_, predictions, torch.empty(flags, dtype=torch.float32, device=device))

    def take(self, i: int, step: Step) -> None:
        """Takes note of a step. Its hidden states are let go, so that no volume of them ever stands in memory."""
        self.live[i], self.committed[i], self.open[i] = step.live, step.committed, step.open
        self.predictions[i], self.confidence[i] = step.predictions, step.confidence


@dataclass(frozen=True, eq=False)
class _Moved:
    """What traces keep of ``c`` steps of ``b`` rows, on the host.

    Entries are (step, row, column, token), in this order: what was ``written``, what was ``opened`` again (token -1)
    and what was ``guessed``, with the sampler's confidence in the guess.
    """

    live: Bool[np.ndarray, "c b"]
    written: Int[np.ndarray, "k 4"]
    opened: Int[np.ndarray, "k 4"]
    guessed: Int[np.ndarray, "k 4"]
    confidence: Float[np.ndarray, "k"]
    phi: Mapping[Key, Float[np.ndarray, "c b d"]]
    fields: Sequence[Float[np.ndarray, "c b"]] = ()


def _reduced(
    marks: _Marks, phis: Sequence[Phi], canvas: Canvas, before: Bool[Tensor, "b n"], begin: int
) -> tuple[_Moved, Bool[Tensor, "b n"]]:
    """The entries of steps that wait, counted from ``begin``, and what each row has open after its last one of them.

    ``before`` is what it had open before the first. A step in which a row takes no part says nothing of it.
    """
    live, committed, still_open, tokens, confidence = marks
    rows = torch.arange(canvas.rows, device=live.device)
    counted = torch.arange(1, len(live) + 1, device=live.device)[:, None]
    latest = torch.cat([torch.zeros_like(counted[:1]).expand(1, canvas.rows), torch.where(live, counted, 0)])
    latest = latest.cummax(dim=0).values  # a row's last step of its own so far, from 1; 0 is before the first
    opens = torch.cat([before[None], still_open])
    was_open = opens[latest[:-1], rows]
    own = live[:, :, None] & ~canvas.pad
    guessed = own & canvas.open & ~confidence.isnan()

    def entries(where: Bool[Tensor, "c b n"], values: Int[Tensor, "k"]) -> Int[np.ndarray, "k 4"]:
        at = torch.cat([where.nonzero(), values[:, None]], dim=1).to(torch.int32).cpu().numpy()
        at[:, 0] += begin
        return at

    written, opened = own & committed, own & still_open & (committed | ~was_open)
    moved = _Moved(
        live=live.cpu().numpy().copy(),  # on a CPU, that is the room itself
        written=entries(written, tokens[written]),
        opened=entries(opened, torch.full_like(tokens[opened], -1)),
        guessed=entries(guessed, tokens[guessed]),
        confidence=confidence[guessed].cpu().numpy(),
        phi={key: torch.stack([phi[key] for phi in phis]).cpu().numpy() for key in phis[0]},
    )
    return moved, opens[latest[-1], rows]


def _by_row(entries: Int[np.ndarray, "k 4"], n_rows: int) -> list[Int[np.ndarray, "j"]]:
    """Which entries are whose, in their order."""
    order = np.argsort(entries[:, 1], kind="stable")
    return np.split(order, np.searchsorted(entries[order, 1], np.arange(1, n_rows)))


def _events(
    written: Int[np.ndarray, "j 4"], opened: Int[np.ndarray, "l 4"], own: Int[np.ndarray, "t"], pad: int
) -> Int[np.ndarray, "k 3"]:
    """Rows (step, column, token) in order: what a step wrote, then, as token -1, what it opened again. Steps are
    counted as the row's ``own``, columns from its first that is not padding.
    """
    entries = np.concatenate([written, opened])
    events = np.stack([own[entries[:, 0]], entries[:, 2] - pad, entries[:, 3]], axis=1)
    return events[np.argsort(events[:, 0], kind="stable")].astype(np.int32)
