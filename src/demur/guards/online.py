"""The guard at work, as a defense around a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.guards.criteria import stopping_criteria  # noqa: F401
from demur.guards.guard import Guard
from demur.pooling import Pooler
from demur.refusals import is_refusal
from demur.traces import Key, Trace, opened_thought, spec_of, text_of, upto_first_end
from demur.types import Canvas, DemurError, Need, Sampler, Step, Verdict

State = Float[Tensor, "b d"] | Float[NDArray[np.float32], "b d"]
REFUSAL = "I'm sorry, but I cannot help with that."
"""What a flagged generation is answered with."""


@dataclass(frozen=True)
class Watch:
    """A defense: ``Watch(guard)(sampler)`` is the same sampler, watched.

    ``online`` judges after every step and acts at the first exceedance; otherwise a generation is judged when it ends,
    as :meth:`Guard.judge` does: what refuses by itself is let be.
    With ``every`` above 1 it looks after every so many steps and after step T only, which costs less and acts up to
    ``every`` - 1 steps later; what it promises holds, since it looks at fewer scores than it was calibrated on. A
    generation that ends early is judged as its finished signal is: with its last state held up to T.
    A signal that is not finite is stopped: a guard that can't see must not let pass.
    Acting is one step more: the response is overwritten with ``refusal`` and ends there. Up to it, the steps are those
    of the undefended sampler (law 5).
    """

    guard: Guard
    online: bool = True
    refusal: str = REFUSAL
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise DemurError(f"every={self.every}", "a number of steps, at least 1", "1 looks after every step")

    def __call__(self, sampler: Sampler) -> Guarded:
        """The sampler, watched."""
        return Guarded(sampler, self.guard, self.online, self.refusal, self.every)


@dataclass(frozen=True)
class Guarded:
    """A watched sampler. Rows are judged by themselves; a batch goes on for those that were not stopped."""

    undefended: Any
    guard: Guard
    online: bool = True
    refusal: str = REFUSAL
    every: int = 1

    def __call__(self, model: Any, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        """Steps of the undefended sampler, until a row is stopped. Raises unless model and sampler are the guard's."""
        self._check(model, canvas)
        layer, pool, steps = self.guard.spec.layer, self.guard.spec.pool, self.guard.spec.steps
        rows, answer = canvas.rows, None
        seen = _Seen(
            np.zeros((rows, steps)),
            np.zeros(rows, dtype=np.int64),
            np.zeros((rows, self.guard.anchors.harmless.shape[1]), dtype=np.float32),
        )
        done, due, ended = (np.zeros(rows, dtype=bool) for _ in range(3))
        waiting = _Waiting(canvas, (layer, pool))  # type: ignore[arg-type]
        last: Step | None = None
        # Whether any row was stopped, or is to be (asked of arrays only where it may have changed); whether rows have
        # stood still and gone on, so that each has taken another number of steps.
        acting = apart = False
        for step in self.undefended(model, canvas, rngs):
            if not (all_live := step.everyone or bool(step.live.all())):
                waits = _waits(model, canvas, step)
                resting = ~step.live.cpu().numpy() & ~waits
                over = resting & ~ended & ~done
                self._end(seen, waiting, step.index, over, due)
                self._spare(model, canvas, last, over, due)
                ended |= resting
                acting = acting or bool(due.any())
                if waiting and waits.any():  # those that go on took part in all that is waiting
                    self._look(seen, waiting.states(), step.index, (~done & ~ended).nonzero()[0])
                    waiting.clear()
                apart = apart or bool(waits.any())
            last = step
            if acting:
                answer = _refusals(model, canvas, self.refusal) if answer is None else answer
                last = _overwritten(step, answer, done, due)
                done, due = done | due, np.zeros(rows, dtype=bool)
            yield last
            if apart or step.index < steps:  # nothing is looked at after T
                waiting.add(last)
            undisturbed = all_live and not acting
            if apart:
                due |= self._look_apart(seen, waiting.states(), step.live.cpu().numpy() & ~done)
                waiting.clear()
                acting, undisturbed = acting or bool(due.any()), False
            elif step.index + 1 == steps or (step.index + 1 < steps and (step.index + 1) % self.every == 0):
                mine = slice(None) if undisturbed else (step.live.cpu().numpy() & ~done).nonzero()[0]
                flags = self._look(seen, waiting.states(), step.index + 1, mine)
                waiting.clear()
                if any(flags.tolist()):
                    due[mine], acting, undisturbed = flags, True, False
            if self.online and not undisturbed and (done | due | ended).all():
                break  # nobody is left whose steps anybody waits for
        over = ~done & ~ended & ~due
        self._end(seen, waiting, 0 if last is None else last.index + 1, over, due)
        self._spare(model, canvas, last, over, due)
        if last is not None and due.any():
            answer = _refusals(model, canvas, self.refusal) if answer is None else answer
            yield _overwritten(_echo(last), answer, done, due)

    def _check(self, model: Any, canvas: Canvas) -> None:
        """Raises unless the guard may watch generations of this model on this canvas."""
        layer = self.guard.spec.layer
        open_ = canvas.open.cpu().numpy()
        length = int(open_.sum(axis=1).max())
        if (open_[:, :-1] & ~open_[:, 1:]).any():  # a form has as many open places as it has
            length = self.guard.spec.settings.get("length", length)
        self.guard.check(spec_of(model, self.undefended, length, steps=self.guard.spec.steps))
        if layer not in model.layers:
            raise DemurError(
                f"a model that watches {', '.join(model.layers) or 'nothing'}",
                f"layer {layer}, which the guard reads",
                f"use model.watching({layer!r}) or record pools that name it",
            )
        if model.tokenizer is None:
            raise DemurError("a model without a tokenizer", "one that can write the refusal", "load it by its name")

    def _look(
        self, seen: _Seen, states: Float[NDArray[np.float32], "b k d"], t: int, rows: Any
    ) -> Bool[NDArray[np.bool_], "m"]:
        """Takes note of k steps, of which t was the last, for ``rows`` (an index), all of which took part in them;
        whether that step exceeds.
        """
        phi, before = states[rows], t - states.shape[1]
        sigma = self.guard.anchors.at(phi, before)
        if t - before > 1:
            seen.sigma[rows, before : t - 1] = sigma[:, :-1]
        seen.sigma[rows, t - 1 :] = sigma[:, -1:]  # held, as it is scored
        seen.steps[rows], seen.phi[rows] = t, phi[:, -1]
        return self._exceeds(seen.sigma[rows], t)

    def _look_apart(
        self, seen: _Seen, states: Float[NDArray[np.float32], "b 1 d"], going: Bool[NDArray[np.bool_], "b"]
    ) -> Bool[NDArray[np.bool_], "b"]:
        """Takes note of one step of every row in ``going``, each by its own number; whether one that is to be looked at
        exceeds.
        """
        found = np.zeros(len(going), dtype=bool)
        for i in (going & (seen.steps < self.guard.spec.steps)).nonzero()[0].tolist():
            t = int(seen.steps[i]) + 1
            flagged = self._look(seen, states, t, slice(i, i + 1))[0]
            found[i] = flagged and (t % self.every == 0 or t == self.guard.spec.steps)
        return found

    def _end(
        self,
        seen: _Seen,
        waiting: _Waiting,
        t: int,
        over: Bool[NDArray[np.bool_], "b"],
        due: Bool[NDArray[np.bool_], "b"],
    ) -> None:
        """Completes the signals of the rows in ``over``, whose last steps, up to t, may be ``waiting``, and marks as
        ``due`` those that did not recover.
        """
        rows = over.nonzero()[0]
        if not len(rows):
            return
        if waiting:
            self._look(seen, waiting.states(), t, rows)
        for i in rows[seen.steps[rows] > 0].tolist():
            taken, whole = int(seen.steps[i]), seen.sigma[i : i + 1]
            due[i] |= self._exceeds(whole, taken)[0]
            for later in range(taken, whole.shape[1]):  # it holds its state, against each step's anchors
                whole[0, later:] = self.guard.anchors.at(seen.phi[i : i + 1, None], later)[0]
                due[i] |= self._exceeds(whole, later + 1)[0]
            if not self.online:
                due[i] = self.guard.threshold.exceeded(self.guard.scores(whole))[0]

    def _spare(
        self,
        model: Any,
        canvas: Canvas,
        last: Step | None,
        over: Bool[NDArray[np.bool_], "b"],
        due: Bool[NDArray[np.bool_], "b"],
    ) -> None:
        """Offline, takes off ``due`` the rows in ``over`` that refuse by themselves; ``last`` was their last step."""
        if self.online or last is None:
            return
        for i in (over & due).nonzero()[0].tolist():
            due[i] = not is_refusal(_says(model, canvas, last, i))

    def _exceeds(self, sigma: Float[NDArray[np.float64], "m T"], t: int) -> Bool[NDArray[np.bool_], "m"]:
        if not self.online:
            return np.zeros(len(sigma), dtype=bool)
        return self.guard.prefix.threshold.exceeded(self.guard.prefix.score_held(sigma, t))


class _Waiting:
    """The steps since the last look. Those of cached passes, whose ``hidden`` has a token or two, are pooled together
    when they are looked at: a model's pass leaves nothing of this code in the processor's caches, and the first of
    several pays for that. Till then the steps are kept, as they were yielded. Others are pooled at once, so that no
    volume of states stands in memory.
    """

    def __init__(self, canvas: Canvas, key: Key) -> None:
        self.key, self.pooler = key, Pooler(canvas, [key])
        self.steps: list[Step] = []
        self.pooled: list[State] = []

    def __len__(self) -> int:
        return len(self.steps) + len(self.pooled)

    def add(self, step: Step) -> None:
        """One more step that waits."""
        self.steps.append(step)
        if step.span != "new":
            self._pool()

    def clear(self) -> None:
        """What :meth:`states` gave waits no more."""
        self.pooled.clear()

    def states(self) -> Float[NDArray[np.float32], "b k d"]:
        """Pooled states of the steps that wait beside each other, in one transfer where they lie on a device."""
        self._pool()
        if len(self.pooled) > 1 and all(isinstance(x, Tensor) for x in self.pooled):
            return torch.stack(tuple(self.pooled), dim=1).cpu().numpy()  # type: ignore[arg-type]
        arrays = [x.cpu().numpy() if isinstance(x, Tensor) else x for x in self.pooled]
        return arrays[0][:, None] if len(arrays) == 1 else np.stack(arrays, axis=1)

    def _pool(self) -> None:
        for step in self.steps:
            self.pooler.take(step)
            self.pooled.append(self.pooler.state(self.key))
        self.steps.clear()


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is known of every row so far: sigma, of how many steps, and the last pooled state."""

    sigma: Float[NDArray[np.float64], "b T"]
    steps: Int[NDArray[np.int64], "b"]
    phi: Float[NDArray[np.float32], "b d"]


def _waits(model: Any, canvas: Canvas, step: Step) -> Bool[NDArray[np.bool_], "b"]:
    """The rows that take no part in a step and are not over: a renoising sampler's that have finished a canvas before
    their neighbours have. They have places left, and have written no end of sequence.
    """
    if Need.RENOISE not in model.offers:
        return np.zeros(canvas.rows, dtype=bool)
    stops = torch.tensor(model.stop_ids, dtype=step.ids.dtype, device=step.ids.device)
    ended = (torch.isin(step.ids, stops) & canvas.open & ~step.open).any(dim=1)
    waits: NDArray[np.bool_] = (~step.live & step.open.any(dim=1) & ~ended).cpu().numpy()
    return waits


def _says(model: Any, canvas: Canvas, step: Step, row: int) -> str:
    """A row's response after the step, as :meth:`Trace.refused` reads it: guesses filled in, special tokens left out,
    up to its first end, behind the mark of a thought that the prompt opens.
    """
    holes = canvas.open[row]
    guesses = torch.where(step.confidence[row].isnan(), -1, step.predictions[row])
    ids = torch.where(step.open[row], guesses, step.ids[row])[holes].tolist()
    own = ~canvas.pad[row]
    start, open_ = (x[row][own].cpu().numpy() for x in (canvas.ids, canvas.open))
    pieces, special = model.pieces([i for i in ids if i >= 0] + start.tolist())
    ids = ids[: upto_first_end(ids, start, open_, model.stop_ids)]
    return opened_thought(start, open_, pieces) + text_of(ids, pieces, {*special, model.mask_id})


def _refusals(model: Any, canvas: Canvas, refusal: str) -> Int[Tensor, "b n"]:
    """The canvas with the refusal in the open places; what it does not fill is end-of-sequence."""
    words = list(model.tokenizer(refusal, add_special_tokens=False)["input_ids"])
    end = (*model.stop_ids, model.mask_id, getattr(model, "pad_id", None))[0]
    ids = canvas.ids.clone()
    for i in range(canvas.rows):
        columns = torch.where(canvas.open[i])[0]
        written = (words + [end] * len(columns))[: len(columns)]
        ids[i, columns] = torch.tensor(written, dtype=ids.dtype, device=ids.device)
    return ids


def _overwritten(step: Step, answer: Int[Tensor, "b n"], done: NDArray[np.bool_], due: NDArray[np.bool_]) -> Step:
    """The step as it is for rows that nobody stopped; stopped before: nothing happens; stopped now: the refusal."""
    if not (done | due).any():
        return step
    was, now = (torch.from_numpy(marks).to(step.ids.device) for marks in (done, due))
    stopped: Bool[Tensor, "b 1"] = (was | now)[:, None]
    changed = answer != step.ids
    return replace(
        step,
        ids=torch.where(stopped, answer, step.ids),
        open=step.open & ~stopped,
        committed=torch.where(stopped, now[:, None] & (changed | step.open | step.committed), step.committed),
        predictions=torch.where(stopped, answer, step.predictions),
        confidence=torch.where(stopped, float("nan"), step.confidence),
        live=(step.live & ~was) | now,
        everyone=False,
        replaced=now,
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
        everyone=False,
        replaced=None,
        passes=0,
    )


# ---------------------------------------------------------------------------------------------------------------------
# What came of it


def acted(trace: Trace) -> Verdict:
    """What an online (or offline) guard did, read off a defended trace: whether it acted, and after which step."""
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
    before = undefended.replay(min(step, undefended.steps))[undefended.open]
    written = np.isin(np.nonzero(undefended.open)[0], undefended.commits[undefended.commits[:, 0] < step, 1])
    after = undefended.replay(undefended.steps)[undefended.open]
    return sum(
        int(b) not in undefended.special for a, b, w in zip(before, after, written, strict=True) if not w or a != b
    )
