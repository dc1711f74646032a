"""Thought and answer of a reasoning model, each as a trace of its own.

A model that thinks first writes its first tokens into its thought, so that a signal of the first T steps says how it
thinks, and not how it answers. A segment is the same generation seen from its own first token: its steps, its text, and
its pooled states are of its tokens alone, and its spec says which segment it is. So anchors and guards are fitted on it
as on any trace, and those of one segment refuse the other.

Of a running mean m over t tokens, of which the first k are the thought's, the answer's mean is
(t m_t - k m_k) / (t - k), as in :mod:`demur.signals.recent`. Means are kept in fp32, so that the answer's first states
are off by about k times 1e-7 of their size: 4e-4 behind a thought of 4,096 tokens, a tenth of that ten tokens later.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from demur.refusals import MARKS, thinks
from demur.traces.guesses import Guesses
from demur.traces.text import text_of
from demur.traces.trace import Trace
from demur.types import DemurError

Part = Literal["thought", "answer"]
PARTS: tuple[Part, ...] = ("thought", "answer")
MEANS = ("generated", "producing")
"""Pooling modes that are means over all tokens so far: what a segment's own states can be had from."""
_LAST = frozenset(mark[-1] for mark in MARKS)


@dataclass(frozen=True, eq=False)
class Segment(Trace):
    """A part of a generation, as a trace. Whether it refused is what ``whole`` says: a thought refuses nothing by
    itself. It is not kept in a file, since its whole is.
    """

    whole: Trace | None = None

    def refused(self, t: int | None = None) -> bool:
        """Whether the whole answer is a refusal (without ``t``), or the segment's text after its step ``t``."""
        return super().refused(t) if t is not None or self.whole is None else self.whole.refused()

    def save(self, path: str | Path) -> Path:
        """Raises: the whole trace is what can be kept."""
        raise DemurError("a segment to save", "the whole trace", "save that; segment(trace, ...) makes this one again")


def thought_tokens(trace: Trace) -> int | None:
    """How many of the response's tokens are a thought's, its closing mark among them; 0 without a thought, None for one
    that was not closed. The marks are those of :data:`demur.refusals.THOUGHTS`, and gpt-oss's channels.
    """
    tokens = trace.tokens().tolist()
    opened = trace.opened
    began = thinks(opened)
    for k, token in enumerate(tokens, start=1):
        if trace.pieces.get(token, b"").decode("utf-8", errors="replace").rstrip()[-1:] not in _LAST:
            continue
        inside = thinks(opened + text_of(tokens[:k], trace.pieces, trace.special))
        if began and not inside:
            return k
        began = began or inside
    return None if began else 0


def segment(trace: Trace, part: Part) -> Segment | None:
    """The thought or the answer of a generation; None if there is none: no thought, or an answer that was not begun.

    For samplers that write from left to right, and pools ``generated`` and ``producing``. Raises for others.
    """
    if part not in PARTS:
        raise DemurError(f"the segment {part!r:.40}", " or ".join(PARTS), "name one of these")
    if "length" in trace.spec.settings or (other := sorted({pool for _, pool in trace.phi} - {*MEANS})):
        came = trace.spec.sampler if "length" in trace.spec.settings else f"states pooled as {other[0]}"
        raise DemurError(
            f"segments of a trace with {came}",
            f"a sampler that writes from left to right, and states pooled as {' or '.join(MEANS)}",
            "record such a trace, or take the whole one",
        )
    thought = thought_tokens(trace)
    if part == "thought":
        return None if thought == 0 else _cut(trace, "thought", 0, thought or trace.steps, closed=thought is not None)
    if thought is None or thought == trace.steps:
        return None
    return _cut(trace, "answer", thought, trace.steps)


def _cut(trace: Trace, part: Part, first: int, last: int, closed: bool = False) -> Segment:
    """Steps ``first`` + 1 to ``last`` of a trace in which step t writes place t. ``closed``: it ends by itself."""
    places = np.flatnonzero(trace.open)
    columns = slice(0, places[last - 1] + 1 if part == "thought" else None)
    start, open_ = trace.start.copy(), trace.open.copy()
    start[places[:first]] = trace.replay(first)[places[:first]]
    open_[places[:first]] = False
    step = trace.commits[:, 0]
    commits = trace.commits[(step >= first) & (step < last)].copy()
    commits[:, 0] -= first
    begins = trace.guesses.begins
    mine = slice(begins[first], begins[last])
    guesses = Guesses(
        begins[first : last + 1] - begins[first],
        trace.guesses.places[mine] - first,
        trace.guesses.tokens[mine],
        trace.guesses.confidence[mine],
    )
    changed: dict[str, Any] = {
        "spec": replace(trace.spec, settings=dict(trace.spec.settings) | {"segment": part}),
        "start": start[columns],
        "open": open_[columns],
        "commits": commits,
        "guesses": guesses,
        "phi": {key: _own(means[:last], first) for key, means in trace.phi.items()},
        "stop": "end-of-sequence" if closed else trace.stop,
        "fields": {name: values[first:last] for name, values in trace.fields.items()},
        "whole": trace,
    }
    kept = {one.name: getattr(trace, one.name) for one in fields(Trace) if one.name not in changed}
    return Segment(**kept, **changed)


def _own(means: Float[np.ndarray, "t d"], first: int) -> Float[np.ndarray, "t-first d"]:
    """Means over the tokens behind the first ``first``, of means over all so far."""
    if not first:
        return means
    steps = np.arange(1, len(means) + 1, dtype=np.float64)[first:, None]
    sums = means[first:].astype(np.float64) * steps - means[first - 1].astype(np.float64) * first
    return np.asarray(sums / (steps - first), dtype=np.float32)
