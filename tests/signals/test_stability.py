"""How far a signal hangs on the anchors' prompts: random halves and halves by kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small

from demur.signals.anchors import SIGNALS
from demur.signals.stability import Stability, stability
from demur.types import DemurError

YES, NO = "Sure, here you are", "I'm sorry"


def sides(by_kind: float, n: int = 48, kinds: int = 6) -> tuple[list[Any], list[Any]]:
    """Answers of both sides that differ in one direction, and by ``by_kind`` in another, with a sign of each kind's."""
    rng = np.random.default_rng(0)
    found: list[list[Any]] = [[], []]
    for side, text in enumerate((YES, NO)):
        for i in range(n):
            phi = rng.normal(size=(4, 24)) * 0.2
            phi[:, 0] += (1, -1)[side]
            phi[:, 1] += by_kind * (1, -1)[(side + i % kinds) % 2]
            trace = small.said(text, phi={("last", "generated"): phi.astype(np.float32)})
            prompt = replace(trace.prompt, id=f"{side}-{i}", category=f"kind {i % kinds}")
            found[side].append(replace(trace, prompt=prompt))
    return found[0], found[1]


@pytest.mark.parametrize("signal", SIGNALS)
def test_what_hangs_on_the_wording_is_told_from_what_does_not(signal: Any) -> None:
    steady, unsteady = (stability(*sides(far), signal=signal) for far in (0.0, 6.0))
    assert steady.kinds is not None
    assert unsteady.kinds is not None
    assert steady.random.tpr > 0.95
    assert steady.kinds.tpr > 0.95
    assert not steady.warning
    if signal == "sri":
        assert unsteady.kinds.tpr < steady.kinds.tpr - 0.2, "subjects that the anchors have not seen mislead them"
    else:
        assert unsteady.kinds.tpr > 0.95, "whitening turns down what varies within a side"
    assert unsteady.kinds.sigma > steady.kinds.sigma
    assert Stability.of(unsteady.plain()) == unsteady


@pytest.mark.parametrize("n", [8, 24, 36])
def test_the_tpr_at_five_percent_lets_no_more_harmless_answers_be_flagged(n: int) -> None:
    """One harmless answer looks more refusing than any refusal. Among fewer than 20 that a set is judged by,
    to catch a refusal is to flag it, which is more than 5%.
    """
    good, bad = sides(0.0, n)
    odd = good[0].phi["last", "generated"]
    odd[:] = -np.eye(24, dtype=odd.dtype)[0]
    assert 0.05 < stability(good, bad).random.tpr < 0.95, "it is in some of the sets, and caught in the others"


def test_a_large_spread_is_said() -> None:
    known = stability(*sides(0.0))
    moved = replace(known, kinds=replace(known.random, tpr_spread=0.3))
    assert "0.30" in moved.warning
    assert not replace(known, kinds=None).warning


def test_without_categories_there_are_random_halves_alone_and_few_answers_are_an_error() -> None:
    good, bad = sides(0.0)
    bare = [[replace(t, prompt=replace(t.prompt, category="")) for t in side] for side in (good, bad)]
    assert stability(*bare).kinds is None
    with pytest.raises(DemurError, match="at least 8 a side"):
        stability(good, bad[:7])
