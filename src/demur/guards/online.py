"""The guard at work: as a defense around a sampler, and as a stopping criterion for ``model.generate`` of
transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.guards.guard import Guard
from demur.pooling import Pooler
from demur.trace import Trace, spec_of
from demur.types import Canvas, DemurError, Sampler, Step, Verdict

REFUSAL = "I'm sorry, but I cannot help with that."
"""What a flagged generation is answered with."""


@dataclass(frozen=True)
class Watch:
    """A defense: ``Watch(guard)(sampler)`` is the same sampler, watched.

    ``online`` judges after every step and acts at the first exceedance; otherwise a generation is judged when it ends.
    With ``every`` above 1 it looks after every so many steps only, which costs less and acts up to ``every`` - 1 steps
    later; what it promises holds, since it looks at fewer scores than it was calibrated on. A generation that ends
    early is judged as its finished signal is: with its last state held up to T.
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
        layer, pool, steps = self.guard.spec.layer, self.guard.spec.pool, self.guard.spec.steps
        length = int(canvas.open.sum(dim=1).max())
        self.guard.check(spec_of(model, self.undefended, length, steps=steps))
        if layer not in model.layers:
            raise DemurError(
                f"a model that watches {', '.join(model.layers) or 'nothing'}",
                f"layer {layer}, which the guard reads",
                f"use model.watching({layer!r}) or record pools that name it",
            )
        if model.tokenizer is None:
            raise DemurError("a model without a tokenizer", "one that can write the refusal", "load it by its name")
        rows, answer = canvas.rows, None
        pooler = Pooler(canvas, [(layer, pool)])  # type: ignore[list-item]
        seen = _Seen(
            np.zeros((rows, steps)),
            np.zeros(rows, dtype=np.int64),
            np.zeros((rows, self.guard.anchors.harmless.shape[1])),
        )
        done, due, ended = (np.zeros(rows, dtype=bool) for _ in range(3))
        waiting: list[Float[Tensor, "b d"]] = []  # pooled states of the steps since the last look
        last: Step | None = None
        acting = False  # whether any row was stopped, or is to be; asked of arrays only where it may have changed
        for step in self.undefended(model, canvas, rngs):
            if not (all_live := all(step.live.tolist())):
                live = step.live.cpu().numpy()
                self._end(seen, waiting, step.index, ~live & ~ended & ~done, due)
                ended |= ~live
                acting = acting or bool(due.any())
            last = step
            if acting:
                answer = _refusals(model, canvas, self.refusal) if answer is None else answer
                last = _overwritten(step, answer, done, due)
                done, due = done | due, np.zeros(rows, dtype=bool)
            yield last
            pooled = pooler(last)[layer, pool]  # type: ignore[index]
            undisturbed = all_live and not acting
            if step.index < steps:
                waiting.append(pooled)
                if (step.index + 1) % self.every == 0:
                    mine = slice(None) if undisturbed else (step.live.cpu().numpy() & ~done).nonzero()[0]
                    flags = self._look(seen, waiting, step.index + 1, mine)
                    waiting.clear()
                    if any(flags.tolist()):
                        due[mine], acting, undisturbed = flags, True, False
            if self.online and not undisturbed and (done | due | ~step.live.cpu().numpy()).all():
                break  # nobody is left whose steps anybody waits for
        self._end(seen, waiting, 0 if last is None else last.index + 1, ~done & ~ended & ~due, due)
        if last is not None and due.any():
            answer = _refusals(model, canvas, self.refusal) if answer is None else answer
            yield _overwritten(_echo(last), answer, done, due)

    def _look(
        self, seen: _Seen, waiting: Sequence[Float[Tensor, "b d"]], t: int, rows: Any
    ) -> Bool[NDArray[np.bool_], "m"]:
        """Takes note of the ``waiting`` steps, of which t was the last, for ``rows`` (an index), all of which took part
        in them; whether that step exceeds.
        """
        states = waiting[0][:, None] if len(waiting) == 1 else torch.stack(tuple(waiting), dim=1)
        phi = states.cpu().numpy()[rows]
        sigma = self.guard.anchors.at(phi, t - len(waiting))
        seen.sigma[rows, t - len(waiting) : t], seen.sigma[rows, t:] = sigma, sigma[:, -1:]  # held, as it is scored
        seen.steps[rows], seen.phi[rows] = t, phi[:, -1]
        return self._exceeds(seen.sigma[rows], t)

    def _end(
        self,
        seen: _Seen,
        waiting: Sequence[Float[Tensor, "b d"]],
        t: int,
        over: Bool[NDArray[np.bool_], "b"],
        due: Bool[NDArray[np.bool_], "b"],
    ) -> None:
        """Completes the signals of the rows in ``over``, which took t steps, and marks as ``due`` those that did not
        recover.
        """
        rows = over.nonzero()[0]
        if waiting:
            due[rows] |= self._look(seen, waiting, t, rows)
        for i in rows[seen.steps[rows] > 0].tolist():
            taken, whole = int(seen.steps[i]), seen.sigma[i : i + 1]
            for later in range(taken, whole.shape[1]):  # it holds its state, against each step's anchors
                whole[0, later:] = self.guard.anchors.at(seen.phi[i : i + 1, None], later)[0]
                due[i] |= self._exceeds(whole, later + 1)[0]
            if not self.online:
                due[i] = self.guard.detector.errors_of(whole)[0] > -self.guard.detector.threshold_

    def _exceeds(self, sigma: Float[NDArray[np.float64], "m T"], t: int) -> Bool[NDArray[np.bool_], "m"]:
        if not self.online:
            return np.zeros(len(sigma), dtype=bool)
        return np.asarray(self.guard.prefix.score_held(sigma, t) > self.guard.prefix.limit)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is known of every row so far: sigma, of how many steps, and the last pooled state."""

    sigma: Float[NDArray[np.float64], "b T"]
    steps: Int[NDArray[np.int64], "b"]
    phi: Float[NDArray[np.float64], "b d"]


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


# ---------------------------------------------------------------------------------------------------------------------
# transformers


def stopping_criteria(guard: Guard, model: Any, prompts: int = 1) -> Any:
    """A ``StoppingCriteria`` for ``model.net.generate(..., stopping_criteria=[criteria])``, for ``prompts`` rows.

    Use it as a context, so that its hook on the network is taken off again::

        with stopping_criteria(guard, model) as criteria:
            ids = model.net.generate(**inputs, max_new_tokens=64, stopping_criteria=[criteria])
        criteria.verdicts  # one for each row

    A stopped row gets padding from there on; answer it with :data:`REFUSAL`. A token's own state is known once it is
    fed back, so with ``generated`` pooling the guard acts one token later than :class:`Watch`; with ``producing`` at
    once. Raises unless the model is the guard's. Sampling settings are the caller's business and can't be checked here.
    """
    from transformers import StoppingCriteria

    from demur.models.network import decoder_of, watched

    spec = spec_of(model, _sampler_of(guard), 0, steps=guard.spec.steps)
    guard.check(replace(spec, sampler=guard.spec.sampler, settings=guard.spec.settings))
    if model.kind != "causal":
        raise DemurError(
            f"generate of the {model.kind} model {model.name}", "a causal model", "use Watch(guard)(sampler)"
        )

    class GuardCriteria(StoppingCriteria):  # type: ignore[misc]
        """Stops rows whose signal does not look like one of harmless answers."""

        def __init__(self) -> None:
            self.sigma = np.zeros((prompts, guard.spec.steps))
            self.sums: Tensor | None = None
            self.seen = self.passes = 0
            self.stopped = np.zeros(prompts, dtype=np.int64)
            self.above = np.zeros(prompts)

        def __enter__(self) -> Any:
            layers = (guard.spec.layer,)
            self.watching = watched(model.net, layers)
            self.collect = self.watching.__enter__()
            self.handle = decoder_of(model.net).register_forward_hook(self._passed)
            return self

        def __exit__(self, *error: Any) -> None:
            self.handle.remove()
            self.watching.__exit__(*error)

        def _passed(self, _module: object, _inputs: object, output: Any) -> None:
            """After each pass: the newest column's state, which is a token's own or the one that will produce it."""
            states = self.collect(output.last_hidden_state)[guard.spec.layer]
            self.passes += 1
            if guard.spec.pool == "generated" and self.passes == 1:
                return  # the prompt's own pass holds no generated token
            newest = states[:, -1].float()
            if newest.shape[0] != prompts:
                raise DemurError(f"{newest.shape[0]} rows", f"{prompts}, as announced", "set prompts, and use no beams")
            self.sums = newest if self.sums is None else self.sums + newest
            self.seen += 1
            if self.seen <= guard.spec.steps:
                t = self.seen - 1
                self.sigma[:, t] = guard.anchors.at((self.sums / self.seen).cpu().numpy()[:, None], t)[:, 0]
                z = guard.prefix.score(self.sigma[:, : t + 1])
                new = (z > guard.prefix.limit) & (self.stopped == 0)
                self.stopped[new] = t + 1
                self.above[new] = z[new]

        def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
            return torch.from_numpy(self.stopped > 0).to(input_ids.device)

        @property
        def verdicts(self) -> Sequence[Verdict]:
            """One for each row; ``step`` is the first step whose score was above the limit."""
            return [
                Verdict("sri-guard", bool(s), float(z) if s else None, int(s) or None)
                for s, z in zip(self.stopped, self.above, strict=True)
            ]

    return GuardCriteria()


def _sampler_of(guard: Guard) -> Any:
    from demur.samplers import Autoregressive

    return Autoregressive()
