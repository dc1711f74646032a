"""The guard at work, as a defense around a sampler.

After every step of the sampler the guard looks at each row. One that is above its limit is *flagged*, and the next step
writes a refusal over its answer: it is *stopped*. :class:`~demur.guards.rows.RowState` names what a row can be::

    RUNNING <-> WAITING            a canvas of a renoising sampler is finished, the neighbours' are not
    RUNNING  -> FLAGGED -> STOPPED
    RUNNING  -> ENDED              by itself; offline, the guard judges it then: ENDED -> FLAGGED -> STOPPED
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.guards.acting import Refusal
from demur.guards.exempt import row_refuses
from demur.guards.guard import Guard
from demur.guards.rows import OVER, Row, RowState, finished, look, new_rows
from demur.guards.sight import Recent, Seen, Signal
from demur.kinds import check_is, fits, shown
from demur.pooling import Pooler
from demur.refusals import REFUSAL
from demur.samplers import steps_of
from demur.traces import Key, Trace, spec_of
from demur.types import Canvas, DemurError, Model, Need, Sampler, Step, Verdict


@dataclass(frozen=True)
class Watch:
    """A defense: ``Watch(guard)(sampler)`` is the same sampler, watched.

    ``online`` looks after every step of a row and acts at the first exceedance. A row that has ended by itself is not
    stopped any more: its answer is there, and :meth:`Guard.judge` says what there is to say of it. Otherwise a
    generation is judged when all rows have ended, as :meth:`Guard.judge` does: what refuses by itself is let be.

    ``every`` above 1 looks after every so many steps of a row, after step T and after its last step: it acts up to
    ``every`` - 1 steps later. ``late`` 1 acts a step later than it could: what the guard needs of a step is then asked
    for at once and read after the next, so that nobody waits for an accelerator. What the guard promises holds for
    both, since it looks at no score that it was not calibrated on.

    ``hold`` keeps back the last steps, so that nothing leaves unjudged: a step comes out once it and ``hold`` - 1 after
    it have been looked at, or nothing follows. What is flagged meanwhile comes out with the refusal in place of the
    first step that was held. With 0 a step comes out at once, and the refusal takes the place of the next.

    A signal that is not finite is stopped: a guard that can't see must not let pass.
    Acting is one step more: the response is overwritten with ``refusal`` and ends there. Up to it, the steps are those
    of the undefended sampler (law 5).
    """

    guard: Guard
    online: bool = True
    refusal: str = REFUSAL
    every: int = 1
    late: int = 0
    hold: int = 0

    def __post_init__(self) -> None:
        if self.guard is None or isinstance(self.guard, str | PathLike):
            came = f"a {type(self.guard).__name__} in the place of a guard"
            raise DemurError(came, "a guard", "load it: demur.guards.Guard.load(path)")
        for name in ("every", "late", "hold"):
            if not fits(value := getattr(self, name), int):
                raise DemurError(f"{name}={value!r:.40}", "a whole number", "leave it out")
        if self.every < 1:
            raise DemurError(f"every={self.every}", "a number of steps, at least 1", "1 looks after every step")
        if self.late not in (0, 1):
            raise DemurError(f"late={self.late}", "0 or 1", "0 acts at once")
        if self.hold and not self.online:
            raise DemurError("hold for finished answers", "a guard that looks while they are written", "leave it out")
        if self.hold < 0 or 0 < self.hold < self.every:
            least = f"0, or at least every={self.every}: what was not looked at may not leave"
            raise DemurError(f"hold={self.hold}", least, "leave it out, or hold more steps")

    def __call__(self, sampler: Sampler) -> Guarded:
        """The sampler, watched. Raises for a name or a class in place of one."""
        if isinstance(sampler, str | type) or not callable(sampler):
            came = f"{shown(sampler)} in the place of a sampler"
            raise DemurError(came, "a sampler", "make one: demur.samplers.build('ar', model)")
        return Guarded(sampler, self)


@dataclass(frozen=True)
class Guarded:
    """A watched sampler. Rows are judged by themselves; a batch goes on for those that were not stopped."""

    undefended: Any
    watch: Watch

    def __call__(self, model: Model, canvas: Canvas, rngs: Any, rows: list[Row] | None = None) -> Iterator[Step]:
        """Steps of the undefended sampler, until no row goes on. Raises unless model and sampler are the guard's.

        ``rows``: new ones of the caller's (:func:`demur.guards.rows.new_rows`), who reads there what was seen.
        """
        self._check(model, canvas)
        guard, online, every = self.watch.guard, self.watch.online, self.watch.every
        rows, sight = new_rows(guard, canvas.rows) if rows is None else rows, _Sight(guard, model, canvas)
        answer = Refusal(model, canvas, self.watch.refusal)
        unread: deque[tuple[int, Callable[[], Seen]]] = deque()  # asked for and not read, at most ``late``
        hold = self.watch.hold
        unlooked: dict[int, int] = {}  # of rows with steps that were not looked at, when the first of them was taken

        def read_one() -> None:
            when, read = unread.popleft()
            states, sigma = read()
            for row, state, value in zip(rows, states[:, 0].tolist(), sigma.tolist(), strict=True):
                row.observe(RowState(state), value)
            if online:
                look(guard, rows, every)
            for i, row in enumerate(rows if hold else ()):
                if row.state in OVER or row.steps == row.looked:
                    unlooked.pop(i, None)
                else:
                    unlooked.setdefault(i, when)

        for now, step in enumerate(steps_of(self.undefended, model, canvas, rngs)):
            answer.held.append(step)
            if not hold:
                yield from answer.out(rows)
            if not online:
                sight.read(step)
            unread.extend((now, read) for read in sight.of(step, rows))
            while len(unread) > self.watch.late:
                read_one()
            if online and all(row.state in OVER for row in rows):
                break  # nobody is left whose steps anybody waits for
            if hold:  # a row that waits for its neighbours is not looked at before it goes on
                since = min(unlooked.values(), default=now + 1)
                yield from answer.out(rows, keeping=max(hold - 1 + len(unread), now + 1 - since))
        while unread:
            read_one()
        for row in rows:
            row.end()
        if online:
            look(guard, rows, every)  # a last step that no multiple of ``every`` was
        else:
            self._judge(rows, sight)
        yield from answer.out(rows)
        yield from answer.after(rows)

    def _check(self, model: Model, canvas: Canvas) -> None:
        """Raises unless the guard may watch generations of this model on this canvas."""
        guard = self.watch.guard
        layer = guard.spec.layer
        open_ = canvas.open.cpu().numpy()
        length = int(open_.sum(axis=1).max())
        if (open_[:, :-1] & ~open_[:, 1:]).any():  # a form has as many open places as it has
            length = guard.spec.settings.get("length", length)
        guard.check(spec_of(model, self.undefended, length, steps=guard.spec.steps))
        if layer not in model.layers:
            raise DemurError(
                f"a model that watches {', '.join(model.layers) or 'nothing'}",
                f"layer {layer}, which the guard reads",
                f"use model.watching({layer!r}) or record pools that name it",
            )
        if model.tokenizer is None:
            raise DemurError("a model without a tokenizer", "one that can write the refusal", "load it by its name")

    def _judge(self, rows: Sequence[Row], sight: _Sight) -> None:
        """Offline: flags the finished rows that :meth:`Guard.judge` would flag."""
        if not any(row.steps for row in rows):
            return
        guard = self.watch.guard
        scores = guard.scores(finished(guard, rows, sight.states()))
        beyond = [np.array(row.beyond) for row in rows]
        for i in guard.above(scores, beyond).nonzero()[0].tolist():
            if rows[i].steps and not sight.refuses(i):
                rows[i].flag(scores[i], rows[i].steps)


class _Sight:
    """The guard's eyes on one generation: steps in, and out how each row stands and its sigma."""

    def __init__(self, guard: Guard, model: Model, canvas: Canvas) -> None:
        key: Key = (guard.spec.layer, guard.spec.pool)  # type: ignore[assignment]
        self.model, self.canvas, self.key = model, canvas, key
        self.pooler, self.signal = Pooler(canvas, [key]), Signal(guard.anchors)
        self.recent = Recent(guard.spec.steps) if guard.tail else None
        self.rows_may_wait = Need.RENOISE in model.offers
        self.steps: Int[Tensor, "b"] | int = 0  # that each row has taken; of rows that can't wait, any that goes on
        self.tokens = canvas.ids

    def of(self, step: Step, rows: Sequence[Row]) -> list[Callable[[], Seen]]:
        """Asks for state and sigma of every row after the step: one thing to be read; or none, if nobody is watched any
        more. Where rows were stopped and no signal is waited for, it is asked who of the others has ended.
        """
        watched = any(row.is_watched for row in rows)
        if not watched and not any(row.state in (RowState.FLAGGED, RowState.STOPPED) for row in rows):
            return []
        state = step.live[:, None]  # as numbers, RowState.ENDED and RUNNING
        if self.rows_may_wait:
            state = torch.where(_waits(self.model, self.canvas, step)[:, None], int(RowState.WAITING), state.long())
        if not watched:
            kept = state.clone()  # a sampler may write into its own until this is read
            return [lambda: (kept.cpu().numpy(), np.zeros(len(rows)))]
        phi = self.pooler(step)[self.key]
        if self.recent is not None:  # rows of a causal model take their steps together, until they end
            phi = self.recent(phi)
        self.steps = self.steps + (step.live.long() if self.rows_may_wait else 1)
        return [self.signal(phi, self.steps - 1, state)]

    def states(self) -> Float[NDArray[np.float32], "b d"]:
        """The last pooled state of every row."""
        return self.pooler.phi[self.key].detach().cpu().numpy()

    def read(self, step: Step) -> None:
        """Keeps the tokens of the rows that took part: of each those that its own last step left."""
        self.tokens = torch.where(step.live[:, None], _tokens(step), self.tokens)

    def refuses(self, row: int) -> bool:
        """Whether a row's answer is a refusal from its beginning, by the steps that were read."""
        return row_refuses(self.model, *_own(self.canvas, self.tokens, row))


def _waits(model: Model, canvas: Canvas, step: Step) -> Bool[Tensor, "b"]:
    """The rows that take no part in a step and are not over: a renoising sampler's that have finished a canvas before
    their neighbours have. They have places left, and have written no end of sequence.
    """
    stops = torch.tensor(model.stop_ids, dtype=step.ids.dtype, device=step.ids.device)
    ended = (torch.isin(step.ids, stops) & canvas.open & ~step.open).any(dim=1)
    return ~step.live & step.open.any(dim=1) & ~ended


def _tokens(step: Step) -> Int[Tensor, "b n"]:
    """The canvas after the step with its guesses filled in; -1 where it made none."""
    guesses = torch.where(step.confidence.isnan(), -1, step.predictions)
    return torch.where(step.open, guesses, step.ids)


def _own(
    canvas: Canvas, tokens: Int[Tensor, "b n"], row: int
) -> tuple[Int[NDArray[np.integer], "n"], Bool[NDArray[np.bool_], "n"], list[int]]:
    """A row without its padding, where its response stands in it, and the response."""
    own = ~canvas.pad[row]
    start, open_ = (x[row][own].cpu().numpy() for x in (canvas.ids, canvas.open))
    return start, open_, tokens[row][canvas.open[row]].tolist()


# ---------------------------------------------------------------------------------------------------------------------
# What came of it


_ONE = "one of demur.generate(model, prompts, Watch(guard)(sampler))"


def acted(trace: Trace) -> Verdict:
    """What an online (or offline) guard did, read off a defended trace: whether it acted, and after which step. Of a
    guard that holds steps back that is the last one that had left: what it flagged is a step behind it.
    """
    check_is(trace, Trace, "a trace", _ONE)
    stopped = trace.stop == "guarded"
    step = trace.steps - 1 if stopped else None
    return Verdict(
        by="sri-guard", flagged=stopped, step=step, why=f"stopped after step {step}" if stopped else "let pass"
    )


def spared(undefended: Trace, step: int) -> int:
    """How many tokens of the undefended response were not yet committed after ``step``: never produced, if it stops
    there.

    Special tokens (end-of-sequence, masks) do not count.
    """
    check_is(undefended, Trace, "a trace", _ONE)
    if not fits(step, int):
        raise DemurError(f"step {shown(step)}", "a whole number", "for example: acted(trace).step")
    before = undefended.replay(min(step, undefended.steps))[undefended.open]
    written = np.isin(np.nonzero(undefended.open)[0], undefended.commits[undefended.commits[:, 0] < step, 1])
    after = undefended.replay(undefended.steps)[undefended.open]
    return sum(
        int(b) not in undefended.special for a, b, w in zip(before, after, written, strict=True) if not w or a != b
    )
