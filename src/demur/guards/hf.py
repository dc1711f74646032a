"""The guard inside ``generate`` of transformers, as a stopping criterion."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.guards.guard import Guard
from demur.trace import spec_of
from demur.types import DemurError, Identity, Need, Verdict


def stopping_criteria(guard: Guard, net: Any, tok: Any = None, prompts: int | None = None) -> Any:
    """A ``StoppingCriteria`` for ``net.generate(..., stopping_criteria=[criteria])`` of a transformers model::

        criteria = stopping_criteria(guard, net, tok)
        ids = net.generate(**tok(texts, return_tensors="pt", padding=True), stopping_criteria=[criteria])
        criteria.verdicts  # one for each row of the last call; those of every call are in criteria.calls

    ``net`` may be a model of :func:`demur.load` as well. How many rows there are, where their prompts end and when
    another call begins is seen from what is passed. Greedy or sampled, with or without a cache, in any batch with
    padding on the left; no beams and no assistant. ``prompts``, if given, must be the number of rows.

    A stopped row gets padding from there on; answer it with :data:`REFUSAL`. A token's own state is known once it is
    fed back, so with ``generated`` pooling the guard acts one token later than :class:`Watch`, after the same
    ``step``; with ``producing`` at once. A row ends with one of the model's stop ids: the padding after it is none of
    its signal, which is judged as a finished one is, its last state held up to T. What is only then above the limit is
    flagged, too late to be stopped. The very last token of a batch is never fed back: with ``generated``, a signal that
    ends there lacks its state. A signal that is not finite is stopped.

    It hooks into the network until it is closed (``criteria.close()``, or as a context) or let go of.

    Raises unless the model is the guard's. ``tok`` is for its chat template and its end of sequence; without it, and
    for a system prompt, the template is not checked. Sampling settings are the caller's business.
    """
    if isinstance(tok, int):  # the number of rows used to be the third
        tok, prompts = None, tok
    model = net if hasattr(net, "identity") else _adapted(guard, net, tok)
    if Need.CAUSAL not in model.offers:
        raise DemurError(
            f"generate of the {model.kind} model {model.name}", "a causal model", "use Watch(guard)(sampler)"
        )
    from demur.samplers import Autoregressive

    spec = spec_of(model, Autoregressive(), 0, steps=guard.spec.steps)
    guard.check(replace(spec, sampler=guard.spec.sampler, settings=guard.spec.settings))
    return _criteria_class()(guard, model, prompts)


def _adapted(guard: Guard, net: Any, tok: Any) -> Any:
    """A causal model of transformers as one of demur's, under the name of the guard's: its weights decide."""
    from demur.models import Causal, in_memory
    from demur.models.chat import Chat
    from demur.models.network import fingerprint

    net, tok = in_memory.unwrapped(net), in_memory.check_tokenizer(tok)  # as demur.load takes them
    if not hasattr(net, "generate") or not hasattr(net, "get_decoder"):
        raise DemurError(
            f"a {type(net).__name__}", "a causal language model of transformers, or of demur.load", "pass that one"
        )
    known, dtype = guard.spec, str(net.dtype).removeprefix("torch.")
    told = {name: getattr(known, name) for name in ("template", "template_args", "day", "source")}
    if tok is not None:
        told = Chat(tok, None, known.template_args).described()
    identity = Identity(
        model=known.model,
        revision=known.revision,
        weights=fingerprint(net),
        dtype=known.dtype if known.dtype.startswith(dtype) else dtype,  # what is quantised says so behind its dtype
        **told,
    )
    return Causal(net=net, tokenizer=tok, identity=identity)


class _Rows:
    """What is known of the rows of one call: sigma so far, of how many states, and who has ended or was stopped."""

    def __init__(self, guard: Guard, rows: int) -> None:
        self.guard = guard
        self.sigma = np.zeros((rows, guard.spec.steps))
        self.sums: Tensor | None = None
        self.seen = 0
        self.steps = np.zeros(rows, dtype=np.int64)  # how many states a row's signal is made of
        self.ending, self.over = (np.zeros(rows, dtype=bool) for _ in range(2))
        self.stopped = np.zeros(rows, dtype=np.int64)
        self.above = np.zeros(rows)

    def take(self, newest: Float[Tensor, "b d"]) -> None:
        """One more state of each row that goes on; the others' newest column is padding."""
        self.seen += 1
        rows = (~self.over).nonzero()[0]
        if self.seen > self.guard.spec.steps or not len(rows):
            return
        kept = torch.from_numpy(self.over).to(newest.device)[:, None]
        last = newest.new_zeros(newest.shape) if self.sums is None else self.sums
        self.sums = torch.where(kept, last, last + newest)
        t = self.seen - 1
        self.steps[rows] = self.seen
        self.sigma[rows, t] = self.guard.anchors.at(self._means(rows), t)[:, 0]
        self._mark(rows, self.guard.prefix.score(self.sigma[rows, : t + 1]), t + 1)

    def finish(self, which: NDArray[np.bool_]) -> None:
        """Completes the signals of rows that have ended, with their last states held, and judges them."""
        rows = (which & (self.steps > 0) & (self.stopped == 0)).nonzero()[0]
        self.over = self.over | which
        for i in rows.tolist():
            one, phi = np.array([i]), self._means(np.array([i]))
            for later in range(int(self.steps[i]), self.guard.spec.steps):  # it holds its state
                self.sigma[i, later] = self.guard.anchors.at(phi, later)[0, 0]
                self._mark(one, self.guard.prefix.score(self.sigma[one, : later + 1]), later + 1)

    def finished(self) -> _Rows:
        """The same, had all rows ended here."""
        whole = copy.copy(self)
        whole.sigma, whole.over = self.sigma.copy(), self.over.copy()
        whole.stopped, whole.above = self.stopped.copy(), self.above.copy()
        whole.finish(~whole.over)
        return whole

    def verdicts(self) -> list[Verdict]:
        """One for each row; ``step`` is the first step whose score was above the limit."""
        found = []
        whole = self.finished()
        for s, z in zip(whole.stopped.tolist(), whole.above.tolist(), strict=True):
            score = z if s and math.isfinite(z) else None
            why = "the signal is not finite" if s and score is None else ""
            found.append(Verdict("sri-guard", bool(s), score, s or None, why))
        return found

    def _means(self, rows: NDArray[np.int64]) -> Float[NDArray[np.float32], "m 1 d"]:
        assert self.sums is not None
        counts = torch.from_numpy(np.maximum(self.steps, 1)).to(self.sums)[:, None]
        means: Float[NDArray[np.float32], "b d"] = (self.sums / counts).cpu().numpy()
        return means[rows, None]

    def _mark(self, rows: NDArray[np.int64], z: Float[NDArray[np.float64], "m"], t: int) -> None:
        new = self.guard.prefix.threshold.exceeded(z) & (self.stopped[rows] == 0)
        self.stopped[rows[new]], self.above[rows[new]] = t, z[new]
        self.over[rows[new]] = True


class _Newest:
    """The newest column's states of the last pass, and what kind of pass it was."""

    def __init__(self, model: Any, layer: str) -> None:
        from demur.models.network import decoder_of, watched

        self.layer, self.columns = layer, 0
        self.states: Float[Tensor, "b d"] | None = None
        self.cached = self.begun = False  # whether it used keys and values, and whether there were none before it
        self.right_padded = False
        with ExitStack() as open_:
            self.collect = open_.enter_context(watched(model.net, (layer,)))
            mine = weakref.WeakMethod(self.passed)  # the network must not keep alive whoever looks at it

            def hook(_: object, _args: object, options: Any, output: Any) -> None:
                if (take := mine()) is not None:
                    take(options, output)

            handle = decoder_of(model.net).register_forward_hook(hook, with_kwargs=True)
            open_.callback(handle.remove)
            self.close = weakref.finalize(self, open_.pop_all().close)

    def passed(self, options: Any, output: Any) -> None:
        """After each pass: the newest column's state is a token's own, or the one that will produce it."""
        states = self.collect(output.last_hidden_state)[self.layer]
        self.states, self.columns = states[:, -1].float(), states.shape[1]
        mask, cache = options.get("attention_mask"), options.get("past_key_values")
        self.cached = cache is not None
        self.begun = self.cached and cache.get_seq_length() <= self.columns
        if self.columns > 1 and isinstance(mask, Tensor) and mask.ndim == 2:
            self.right_padded = not bool(mask[:, -1].all())


@cache
def _criteria_class() -> Any:
    """The class, made on demand: transformers is not loaded before."""
    from transformers import StoppingCriteria

    class GuardCriteria(StoppingCriteria):  # type: ignore[misc]
        """Stops rows whose signal does not look like one of harmless answers."""

        def __init__(self, guard: Guard, model: Any, prompts: int | None) -> None:
            self.guard, self.stops, self.prompts = guard, model.stop_ids, prompts
            self.own = guard.spec.pool == "generated"
            self.newest = _Newest(model, guard.spec.layer)
            self.now = _Rows(guard, prompts or 0)
            self.ids: Int[Tensor, "b n"] | None = None
            self.before: list[list[Verdict]] = []

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            self.close()
            if error[:1] == (None,):
                self.now.finish(~self.now.over)  # whose last token was not fed back, or which ran into the length

        def close(self) -> None:
            """Takes the hooks off the network."""
            self.newest.close()

        def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
            newest = self.newest.states
            if newest is None or not self.newest.close.alive:
                raise DemurError("generate of another model, or after close()", "the model given", "make new criteria")
            first = self._begins(input_ids)
            if first:
                self._begin(len(input_ids))
            now = self.now
            if not (self.own and first):  # the prompt's own pass holds no generated token
                now.take(newest)
                if self.own:
                    now.finish(now.ending & ~now.over)  # the end's own state was the last one
            now.ending |= np.isin(input_ids[:, -1].cpu().numpy(), self.stops)
            if not self.own:
                now.finish(now.ending & ~now.over)  # what produced the end is known already
            self.ids, self.newest.states = input_ids, None
            return torch.from_numpy(now.stopped > 0).to(input_ids.device)

        def _begins(self, ids: Int[Tensor, "b n"]) -> bool:
            """Whether another call of generate has begun. Raises where rows are not written one token at a time."""
            known, newest = self.ids, self.newest
            if known is None or newest.begun or ids.shape[0] != known.shape[0]:
                return True
            more = ids.shape[1] - known.shape[1]
            goes_on = more > 0 and bool((ids[:, : known.shape[1]] == known).all())
            if goes_on and more == 1:
                return False
            if newest.cached and (goes_on or (more == 1 and newest.columns == 1)):
                raise DemurError(
                    "rows that were reordered, or written several tokens at a time",
                    "one token a row and step",
                    "use no beams and no assistant, and new criteria for a call that goes on from a kept cache",
                )
            return True

        def _begin(self, rows: int) -> None:
            if self.prompts is not None and rows != self.prompts:
                raise DemurError(f"{rows} rows", f"{self.prompts}, as announced", "leave prompts out, and use no beams")
            if self.newest.right_padded:
                raise DemurError(
                    "a batch that is padded on the right", "padding on the left", "set tok.padding_side = 'left'"
                )
            if self.ids is not None:
                self.before.append(self.now.verdicts())
            self.now = _Rows(self.guard, rows)

        @property
        def sigma(self) -> Float[NDArray[np.float64], "b T"]:
            """The last call's signals, as far as they are known."""
            return self.now.sigma

        @property
        def verdicts(self) -> Sequence[Verdict]:
            """One for each row of the last call; ``step`` is the first step whose score was above the limit."""
            return self.now.verdicts()

        @property
        def calls(self) -> Sequence[Sequence[Verdict]]:
            """The verdicts of every call, in their order."""
            return [*self.before, self.verdicts] if self.ids is not None else []

    return GuardCriteria
