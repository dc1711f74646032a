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
from demur.signals import Anchors
from demur.trace import Trace, spec_of
from demur.types import Canvas, DemurError, Sampler, Step, Verdict

REFUSAL = "I'm sorry, but I cannot help with that."
"""What a flagged generation is answered with."""


@dataclass(frozen=True)
class Watch:
    """A defense: ``Watch(guard)(sampler)`` is the same sampler, watched.

    ``online`` judges after every step and acts at the first exceedance; otherwise a generation is judged when it ends.
    One that ends early is judged as its finished signal is: with its last state held up to T.
    Acting is one step more: the response is overwritten with ``refusal`` and ends there. Up to it, the steps are those
    of the undefended sampler (law 5).
    """

    guard: Guard
    online: bool = True
    refusal: str = REFUSAL

    def __call__(self, sampler: Sampler) -> Guarded:
        """The sampler, watched."""
        return Guarded(sampler, self.guard, self.online, self.refusal)


@dataclass(frozen=True)
class Guarded:
    """A watched sampler. Rows are judged by themselves; a batch goes on for those that were not stopped."""

    undefended: Any
    guard: Guard
    online: bool = True
    refusal: str = REFUSAL

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
        rows, anchors, prefix = canvas.rows, self.guard.anchors, self.guard.prefix
        if model.tokenizer is None:
            raise DemurError("a model without a tokenizer", "one that can write the refusal", "load it by its name")
        answer = None
        pooler = Pooler(canvas, [(layer, pool)])  # type: ignore[list-item]
        seen = _Seen(
            np.zeros((rows, steps)), np.zeros(rows, dtype=np.int64), np.zeros((rows, anchors.harmless.shape[1]))
        )
        done, due, ended = (np.zeros(rows, dtype=bool) for _ in range(3))
        everybody = slice(None)
        last: Step | None = None
        for step in self.undefended(model, canvas, rngs):
            live = step.live.cpu().numpy()
            if not (all_live := bool(live.all())):
                due |= self._failed(anchors, seen, ~live & ~ended & ~done)
                ended |= ~live
            last = step
            if acting := bool((done | due).any()):
                answer = _refusals(model, canvas, self.refusal) if answer is None else answer
                last = _overwritten(step, answer, done, due)
                done, due = done | due, np.zeros(rows, dtype=bool)
            yield last
            phi = pooler(last)[layer, pool].cpu().numpy()  # type: ignore[index]
            mine = everybody if all_live and not acting else (live & ~done).nonzero()[0]
            if (t := step.index) < steps and len(phi := phi[mine]):
                seen.sigma[mine, t:] = anchors.at(phi, t)[:, None]  # held, as the online score wants it
                seen.steps[mine], seen.phi[mine] = t + 1, phi
                if self.online:
                    due[mine] = prefix.score_held(seen.sigma[mine], t + 1) > prefix.limit
            if self.online and (acting or not all_live or due.any()) and (done | due | ~live).all():
                break  # nobody is left whose steps anybody waits for
        due |= self._failed(anchors, seen, ~done & ~ended & ~due)
        if last is not None and due.any():
            answer = _refusals(model, canvas, self.refusal) if answer is None else answer
            yield _overwritten(_echo(last), answer, done, due)

    def _failed(self, anchors: Anchors, seen: _Seen, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the rows in ``asked``, which have just ended, did not recover; their signals are completed up to
        T.
        """
        flags = np.zeros(len(asked), dtype=bool)
        for i in np.nonzero(asked & (seen.steps > 0))[0].tolist():
            taken, whole = int(seen.steps[i]), seen.sigma[i : i + 1]
            for t in range(taken, whole.shape[1]):  # it holds its state, against each step's anchors
                whole[0, t:] = anchors.at(seen.phi[i : i + 1], t)[0]
                if self.online and self.guard.prefix.score_held(whole, t + 1)[0] > self.guard.prefix.limit:
                    flags[i] = True
            if not self.online:
                flags[i] = self.guard.detector.errors_of(whole)[0] > -self.guard.detector.threshold_
        return flags


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
        committed=torch.where(stopped, now[:, None] & (changed | step.open), step.committed),
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
                self.sigma[:, t] = guard.anchors.at((self.sums / self.seen).cpu().numpy(), t)
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
