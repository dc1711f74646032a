"""The guard inside ``generate`` of transformers, as a stopping criterion.

It does not see steps, as :class:`~demur.guards.online.Watch` does, but tokens that were written and, by a hook, the
states of the network's passes. What it makes of them are the same rows (:mod:`demur.guards.rows`).

The file is long because what generate may do to a row, and how that is noticed, are read together.
"""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.guards.exempt import row_refuses
from demur.guards.guard import Guard
from demur.guards.rows import OVER, Row, RowState, finished, look, new_rows
from demur.guards.sight import Recent, Signal
from demur.kinds import check_is
from demur.models import in_memory, load
from demur.models.network import decoder_of, token_ids, watched
from demur.models.unchanged import check_unchanged
from demur.samplers import Autoregressive
from demur.traces import spec_of
from demur.types import DemurError, DemurWarning, Model, Need, Verdict


def stopping_criteria(guard: Guard, net: Any, tok: Any = None, prompts: int | None = None) -> Any:
    """A ``StoppingCriteria`` for ``net.generate(..., stopping_criteria=[criteria])`` of a transformers model::

        criteria = stopping_criteria(guard, net, tok)
        ids = net.generate(**tok(texts, return_tensors="pt", padding=True), stopping_criteria=[criteria])
        criteria.verdicts  # one for each row of the last call; those of every call are in criteria.calls

    ``net`` may be a model of :func:`demur.load` as well. How many rows there are, where their prompts end and when
    another call begins is seen from what is passed. Greedy or sampled, with or without a cache, in any batch with
    padding on the left; no beams, no assistant, and nothing that passes another text through the network between two
    tokens (``guidance_scale``). ``prompts``, if given, must be the number of rows. Generations in several threads need
    criteria of their own each.

    A stopped row gets padding from there on; answer it with :data:`REFUSAL`. A token's own state is known once it is
    fed back, so with ``generated`` pooling the guard acts one token later than :class:`Watch`, after the same
    ``step``; with ``producing`` at once. A row ends with one of the model's stop ids, or where a row of several is
    padded (``stop_strings``): the padding after it is none of its signal, and nothing stops it any more. Its verdict is
    that of its finished signal, as :meth:`Guard.judge` gives it. The very last token of a batch is never fed back: with
    ``generated``, a signal that ends there lacks its state. A signal that is not finite is stopped. A row that is not
    padded behind its end is an error: generate ends at fewer tokens than the model's own stop ids, or at none.

    It hooks into the network until it is closed (``criteria.close()``, or as a context) or let go of.

    Raises unless the model is the guard's. ``tok`` is for its chat template, its end of sequence and to see whether an
    answer refuses by itself; without it none does, and for a system prompt too, the template is not checked. Sampling
    settings are the caller's business.
    """
    check_is(guard, Guard, "a guard", "load it: demur.guards.Guard.load(path)")
    if isinstance(tok, int):  # the number of rows used to be the third
        tok, prompts = None, tok
    model = net if hasattr(net, "identity") else _loaded(guard, net, tok)
    if Need.CAUSAL not in model.offers:
        raise DemurError(
            f"generate of the {model.kind} model {model.name}", "a causal model", "use Watch(guard)(sampler)"
        )
    spec = spec_of(model, Autoregressive(), 0, steps=guard.spec.steps)
    unchecked = _CALLERS if model.tokenizer is not None else (*_CALLERS, *_OF_A_TEMPLATE)
    guard.check(replace(spec, **{name: getattr(guard.spec, name) for name in unchecked}))
    return _criteria_class()(guard, model, prompts)


_CALLERS = ("sampler", "settings", "revision")
"""What a spec says and is the caller's business; the weights say which model it is."""
_OF_A_TEMPLATE = ("template", "template_args", "day", "source")


def _loaded(guard: Guard, net: Any, tok: Any) -> Model:
    """A network as one of demur's models. What loading says of a generation config is none of ours: transformers, which
    generates here, heeds it.
    """
    net = in_memory.unwrapped(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DemurWarning)
        return load(net, tokenizer=tok, template_args=guard.spec.template_args)


def _padding(model: Model) -> list[int]:
    """Tokens that stand behind an end which the model does not know, as of ``stop_strings``; but its ends, which pad as
    well as they end.
    """
    owners: Any = (model.tokenizer, getattr(model.net, "generation_config", None), model.net.config)
    named = [getattr(owner, "pad_token_id", None) for owner in owners]
    return sorted({*token_ids(named, model.net.get_input_embeddings().num_embeddings)} - {*model.stop_ids})


class _Call:
    """One call of ``generate``: its rows, and the running means of their states."""

    def __init__(self, guard: Guard, model: Model, ids: Int[Tensor, "b n"]) -> None:
        self.guard, self.model = guard, model
        self.rows = new_rows(guard, len(ids))
        self.given = ids.shape[1] - 1  # the criteria are asked for the first time with one token written
        self.ids, self.columns = ids, 0
        self.signal = Signal(guard.anchors)
        self.recent = Recent(guard.spec.steps) if guard.tail else None
        self.stops = torch.tensor(model.stop_ids, dtype=ids.dtype, device=ids.device)
        self.padding = torch.tensor(_padding(model) if len(ids) > 1 else [], dtype=ids.dtype, device=ids.device)
        self.goes_on = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
        self.stop = ~self.goes_on  # the rows that the guard has stopped
        self.behind = torch.full((len(ids),), -1, dtype=ids.dtype, device=ids.device)  # what stands behind a row's end
        self.taken = torch.zeros(len(ids), dtype=torch.long, device=ids.device)
        self.sums: Float[Tensor, "b d"] | None = None

    def take(self, states: Float[Tensor, "b d"], tokens: Int[Tensor, "b"], faults: Bool[Tensor, "2"]) -> None:
        """One more state of each row that goes on, and the token that it belongs to. The others' are padding. Raises
        for :meth:`faults`, which the device is asked for with everything else.
        """
        self.columns += 1
        if self.columns > self.guard.spec.steps and self.recent is None:
            self._check(*faults.tolist())
            return
        self.goes_on = self.goes_on & ~torch.isin(tokens, self.padding)  # it ended at something of the caller's
        live = self.goes_on.to(states.device)
        before = torch.zeros_like(states) if self.sums is None else self.sums
        self.sums = torch.where(live[:, None], before + states, before)
        self.taken += self.goes_on
        phi = self._means() if self.recent is None else self.recent(self._means())
        told = torch.cat([self.goes_on[:, None], faults.expand(len(live), 2)], dim=1)
        read = self.signal(phi, self.columns - 1, told.to(states.device))
        self.goes_on = self.goes_on & ~torch.isin(tokens, self.stops)
        came, sigma = read()
        self._check(*came[0, 1:].astype(bool).tolist())
        for row, runs, value in zip(self.rows, came[:, 0].tolist(), sigma.tolist(), strict=True):
            row.observe(RowState.RUNNING if runs else RowState.ENDED, value)
        stopped = self.stopped
        look(self.guard, self.rows)
        if self.stopped != stopped:  # what follows is padding
            self.stop = torch.tensor(self.stopped, device=tokens.device)
            self.goes_on = self.goes_on & ~self.stop

    def faults(self, ids: Int[Tensor, "b n"]) -> Bool[Tensor, "2"]:
        """What must not be, on the device: that rows are others than before, and that a row goes on behind its end, or
        after the guard has stopped it: behind one of the model's stop ids at which this generate does not end, say.
        Nobody would look at what is written there. The newest of the ``ids`` are those which nothing was taken of.
        """
        moved, tokens = (ids[:, : self.ids.shape[1]] != self.ids).any(), ids[:, -1]
        if not any(row.state in OVER for row in self.rows):
            return torch.stack([moved, torch.zeros_like(moved)])
        over = ~self.goes_on
        self.behind = torch.where(over & (self.behind < 0), tokens, self.behind)
        return torch.stack([moved, over.all() | (over & (tokens != self.behind)).any()])

    def _check(self, moved: bool, astray: bool) -> None:
        """Raises for a fault."""
        if moved:
            raise _reordered()
        if astray:
            ends = self.stops.tolist()
            raise DemurError(
                "a row that goes on where it has ended or was stopped",
                f"a generate that ends at {', '.join(map(str, ends)) or 'some token'}, and writes padding behind it",
                f"give generate eos_token_id={ends or 'one'}: transformers pads nothing without, and may not know all; "
                "a row that writes a token of padding counts as ended, too",
            )

    @property
    def stopped(self) -> list[bool]:
        """Which rows the guard has stopped."""
        return [bool(row.flagged_at) for row in self.rows]

    @property
    def sigma(self) -> Float[NDArray[np.float64], "b T"]:
        """The rows' signals, their last states held up to T."""
        if self.sums is None:
            return np.stack([row.sigma for row in self.rows])
        return finished(self.guard, self.rows, self._means().cpu().numpy())

    def verdicts(self) -> list[Verdict]:
        """Of a stopped row, which step's score was above the limit; of any other, what :meth:`Guard.judge` says of its
        finished signal.
        """
        beyond = [np.array(row.beyond) for row in self.rows]
        flagged = self.guard.above(self.guard.scores(sigma := self.sigma), beyond)
        refused = [bool(above) and self._refuses(i) for i, above in enumerate(flagged)]
        whole = self.guard.judge_signals(sigma, refused, beyond)
        return [self._seen(row) or verdict for row, verdict in zip(self.rows, whole, strict=True)]

    def _seen(self, row: Row) -> Verdict | None:
        """The verdict on a row that was stopped, or of which nothing was seen."""
        if not row.steps:
            return Verdict("sri-guard", None, None, None, "not judged: its only token was never fed back")
        if not row.flagged_at:
            return None
        if not math.isfinite(row.score):
            return Verdict("sri-guard", True, None, row.flagged_at, "the signal is not finite")
        limit = self.guard.limit_after(row.flagged_at)
        why = f"above the limit after step {row.flagged_at}: score {row.score:.3g}, limit {limit:.3g}"
        return Verdict("sri-guard", True, row.score, row.flagged_at, why)

    def _refuses(self, i: int) -> bool:
        """Whether a row's answer refuses by itself; nobody knows without a tokenizer, and it is taken not to."""
        if self.model.tokenizer is None:
            return False
        ids = self.ids[i].cpu().numpy()
        return row_refuses(self.model, ids, np.arange(len(ids)) >= self.given, ids[self.given :].tolist())

    def _means(self) -> Float[Tensor, "b d"]:
        assert self.sums is not None
        return self.sums / self.taken.clamp(min=1).to(self.sums.device)[:, None]


def _reordered() -> DemurError:
    return DemurError(
        "rows that were reordered, or written several tokens at a time",
        "one token a row and step",
        "use no beams and no assistant, and new criteria for a call that goes on from a kept cache",
    )


@dataclass(frozen=True)
class _Pass:
    """The newest column's states of a pass, and what kind of pass it was: whether it used keys and values, and whether
    there were none before it.
    """

    states: Float[Tensor, "b d"]
    columns: int
    cached: bool
    begun: bool
    right_padded: bool
    ids: Int[Tensor, "b m"] | None

    def has_read(self, written: Int[Tensor, "b n"]) -> bool:
        """Whether it may have read the rows up to the newest token. Of states in place of tokens nobody can tell."""
        if self.begun and self.columns < written.shape[1] - 1:
            return False
        before = written[:, :-1][:, -self.columns :]
        return self.ids is None or (self.ids.shape == before.shape and bool((self.ids.to(before) == before).all()))


class _Newest:
    """The passes of a network since the criteria were asked last, of each thread apart."""

    def __init__(self, model: Model, layer: str) -> None:
        self.layer, self.of_thread = layer, threading.local()
        with ExitStack() as open_:
            self.collect = open_.enter_context(watched(model.net, (layer,)))
            mine = weakref.WeakMethod(self.passed)  # the network must not keep alive whoever looks at it

            def hook(_: object, _args: object, options: Any, output: Any) -> None:
                if (take := mine()) is not None:
                    take(options, output)

            handle = decoder_of(model.net).register_forward_hook(hook, with_kwargs=True)
            open_.callback(handle.remove)
            self.close = weakref.finalize(self, open_.pop_all().close)

    def taken(self) -> tuple[_Pass | None, int]:
        """This thread's last pass, and how many there were; both are told once."""
        mine = vars(self.of_thread)
        return mine.pop("last", None), mine.pop("passes", 0)

    def passed(self, options: Any, output: Any) -> None:
        """After each pass: the newest column's state is a token's own, or the one that will produce it."""
        states = self.collect(output.last_hidden_state)[self.layer]
        # transformers 5.24 calls "cache" what was "past_key_values"; what comes out tells of a cache of any other name.
        names = ("cache", "past_key_values")
        caches = [options.get(name) for name in names] + [getattr(output, name, None) for name in names]
        cache: Any = next((cache for cache in caches if cache is not None), None)
        mask, columns = options.get("attention_mask"), states.shape[1]
        padded = columns > 1 and isinstance(mask, Tensor) and mask.ndim == 2 and not bool(mask[:, -1].all())
        begun = cache is not None and bool(cache.get_seq_length() <= columns)
        mine = vars(self.of_thread)
        states, ids = states[:, -1].float(), options.get("input_ids")
        mine["last"] = _Pass(states, columns, cache is not None, begun, padded, ids)
        mine["passes"] = mine.get("passes", 0) + 1


@cache
def _criteria_class() -> Any:
    """The class, made on demand: transformers is not loaded before."""
    from transformers import StoppingCriteria

    class GuardCriteria(StoppingCriteria):  # type: ignore[misc]
        """Stops rows whose signal does not look like one of harmless answers."""

        def __init__(self, guard: Guard, model: Model, prompts: int | None) -> None:
            self.guard, self.model, self.prompts = guard, model, prompts
            self.own = guard.spec.pool == "generated"
            self.newest = _Newest(model, guard.spec.layer)
            self.mine = threading.local()  # the call of generate that runs in this thread
            self.now: _Call | None = None
            self.before: list[Sequence[Verdict]] = []

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            self.close()

        def close(self) -> None:
            """Takes the hooks off the network."""
            self.newest.close()

        def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
            newest, passes = self.newest.taken()
            if newest is None or not self.newest.close.alive:
                raise DemurError("generate of another model, or after close()", "the model given", "make new criteria")
            known: _Call | None = getattr(self.mine, "call", None)
            first = known is None or self._begins(input_ids, newest, known)
            if passes > 1 and not (first and newest.has_read(input_ids)):
                raise DemurError(
                    f"{passes} passes of the network for one token, the last of which may be of another text",
                    "one pass a token",
                    "leave out guidance_scale and what calls the network itself, or use Watch(guard)",
                )
            if first or known is None:
                known = self.mine.call = self._begun(input_ids, newest)
            elif known is not self.now:
                raise DemurError(
                    "two calls of generate at once with one criteria", "one for each", "make new criteria for each"
                )
            faults = known.faults(input_ids)
            known.ids = input_ids
            if not self.own:  # the newest state has produced the newest token
                known.take(newest.states, input_ids[:, -1], faults)
            elif not first:  # it is the own state of the token before, which was fed back
                known.take(newest.states, input_ids[:, -2], faults)
            return known.stop

        def _begins(self, ids: Int[Tensor, "b n"], newest: _Pass, before: _Call) -> bool:
            """Whether another call of generate has begun. Raises where rows are not written one token at a time."""
            if newest.begun or ids.shape[0] != before.ids.shape[0]:
                return True
            known = before.ids
            more = ids.shape[1] - known.shape[1]
            if newest.cached and more == 1 and newest.columns == 1:
                if len(newest.states) != len(ids):
                    raise _reordered()
                return False  # whether the rows are the same ones is asked with everything else: :meth:`_Call.faults`
            goes_on = more > 0 and bool((ids[:, : known.shape[1]] == known).all())
            if goes_on and more == 1:
                return False
            if newest.cached and goes_on:
                raise _reordered()
            return True

        def _begun(self, ids: Int[Tensor, "b n"], newest: _Pass) -> _Call:
            """Another call of generate, with its first token written. Raises for what can not be followed, and where
            the network is another one than when these criteria were made.
            """
            check_unchanged(self.model)
            if self.prompts is not None and len(ids) != self.prompts:
                raise DemurError(
                    f"{len(ids)} rows", f"{self.prompts}, as announced", "leave prompts out, and use no beams"
                )
            if newest.right_padded:
                raise DemurError(
                    "a batch that is padded on the right", "padding on the left", "set tok.padding_side = 'left'"
                )
            self.before = list(self.calls)
            self.now = _Call(self.guard, self.model, ids)
            return self.now

        @property
        def sigma(self) -> Float[NDArray[np.float64], "b T"]:
            """The last call's signals; each holds its last state up to T."""
            return self.now.sigma if self.now is not None else np.zeros((0, self.guard.spec.steps))

        @property
        def verdicts(self) -> Sequence[Verdict]:
            """One for each row of the last call: of a stopped row with the step whose score was above the limit, of any
            other as :meth:`Guard.judge` gives it of the finished signal.
            """
            return self.now.verdicts() if self.now is not None else []

        @property
        def calls(self) -> Sequence[Sequence[Verdict]]:
            """The verdicts of every call, in their order."""
            return [*self.before, self.verdicts] if self.now is not None else []

    return GuardCriteria
