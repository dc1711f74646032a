"""A trace as a table for notebooks: its steps, or its places, with the columns that docs/trace.md describes. Nothing is
redacted (docs/decisions/0008-what-is-shown.md): who asks for data asks for the words.

It does not know the trace's class: one is asked by the names of its parts. pandas is loaded when a frame is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from demur.extras import need

WRITTEN = ("committed", "revised")
"""States of places that a step has written (:data:`demur.views.scene.CellState`)."""


def steps_of(trace: Any, anchors: Any = None) -> Any:
    """A trace (:class:`demur.traces.Trace`) as a pandas ``DataFrame`` with one row for each step: see docs/trace.md.

    With ``anchors`` the column ``sigma`` holds the signal; a step behind the T-th has none (nan).
    """
    pandas = need("pandas", "data")
    sigma = [] if anchors is None else [float(value) for value in anchors.signal(trace)]
    table: dict[str, list[Any]] = {name: [] for name in ("id", "step", "committed", "open", "confidence", "refused")}
    for t in range(1, trace.steps + 1):
        states = trace.states(t)
        written = np.isin(states, WRITTEN)
        scores = trace.guesses.at(t, len(states))[1][written]
        scores = scores[np.isfinite(scores)]
        table["id"].append(trace.prompt.id)
        table["step"].append(t)
        table["committed"].append(int(written.sum()))
        table["open"].append(int(np.isin(states, ("open", "predicted")).sum()))
        table["confidence"].append(float(scores.mean()) if len(scores) else float("nan"))
        table["refused"].append(trace.refused(t))
    if anchors is not None:
        table["sigma"] = [sigma[t] if t < len(sigma) else float("nan") for t in range(trace.steps)]
    table |= {name: values.tolist() for name, values in trace.fields.items()}
    return pandas.DataFrame(table | {"text": [trace.text(t) for t in table["step"]]})


def places_of(trace: Any) -> Any:
    """A trace as a pandas ``DataFrame`` with one row for each step and place of the response: see docs/trace.md."""
    pandas = need("pandas", "data")
    parts = []
    for t in range(1, trace.steps + 1):
        tokens = trace.tokens(t)
        parts.append(
            pandas.DataFrame(
                {
                    "id": trace.prompt.id,
                    "step": t,
                    "place": np.arange(len(tokens)),
                    "token": tokens,
                    "piece": [trace.pieces[int(i)].decode("utf-8", "replace") if i >= 0 else "" for i in tokens],
                    "state": trace.states(t),
                    "confidence": trace.guesses.at(t, len(tokens))[1],
                }
            )
        )
    return pandas.concat(parts, ignore_index=True)
