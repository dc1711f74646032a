"""benchmarks/cost.py: a generation's time is split into the sampler's and the guard's, and nothing is lost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from demur.guards import Watch
from demur.traces import generate, watching
from demur.types import Prompt

ASKED = [Prompt(str(i), f"Prompt {i} about {i * i}") for i in range(4)]


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for name in ("cost", "measure"):
        sys.modules.pop(name, None)
    import cost

    return cost


def test_the_time_of_a_generation_is_the_samplers_and_the_guards(cost: Any) -> None:
    model = small.causal("llama")
    traces = generate(model, ASKED, length=cost.T, steps=cost.T, batch=4)
    guards, own = cost.guards_of(traces), watching(model, cost.KEYS)
    assert guards["default"].anchors.signal_name == "whitened"
    assert guards["default"].detector.name == "last"
    assert guards["paper's"].detector.name == "autoencoder"
    longest = max(trace.steps for trace in traces)
    for guard in guards.values():
        seen = cost.lived(Watch(guard), own, ASKED)
        assert len(seen.steps) == longest, "a guard that never acts stops nothing"
        assert len(seen.beside) == longest
        np.testing.assert_allclose(seen.generation + seen.own, seen.whole)
        assert (seen.own[cost.WALL] >= np.sum(seen.beside, axis=0)[cost.WALL]).all()
    shares = cost.parts_of(guards["default"], own, ASKED[:1])
    assert {"pooling", "sigma", "the look"} <= {*shares}
