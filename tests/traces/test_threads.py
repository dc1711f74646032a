"""Two generations at once through one network are those that each is alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import small
import torch
from test_guards import limited, tiny_guard

from demur import guards as g
from demur.traces import generate
from demur.types import DemurError, Prompt

ASKED = [[Prompt("a", "hello there", harmful=False)], [Prompt("b", "quite other", harmful=False)]]
ROWS = [torch.tensor([[70, 71, 72]]), torch.tensor([[80, 81, 82]])]


@pytest.fixture(autouse=True)
def threads_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(run: Callable[[int], Any]) -> list[Any]:
    """What two threads give that begin together."""
    found: dict[int, Any] = {}
    together = threading.Barrier(2)

    def go(i: int) -> None:
        together.wait()
        try:
            found[i] = run(i)
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=go, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(2)]


@pytest.mark.parametrize(
    ("make", "pools"),
    [
        (lambda: small.causal("llama"), [("middle", "generated"), ("first", "producing"), ("last", "generated")]),
        (lambda: small.diffusion("llada"), [("middle", "response"), ("last", "generated")]),
        (lambda: small.blocks("qwen3"), [("first", "generated")]),
    ],
    ids=["causal", "masked", "block"],
)
def test_traces_of_two_threads_are_those_of_one(make: Callable[[], Any], pools: Any) -> None:
    model = make()

    def run(i: int) -> Any:
        return generate(model, ASKED[i], length=16, pools=pools)[0]

    alone = [run(0), run(1)]
    for _ in range(3):
        for ours, theirs in zip(at_once(run), alone, strict=True):
            np.testing.assert_array_equal(ours.tokens(), theirs.tokens())
            for key in pools:
                np.testing.assert_array_equal(ours.phi[key], theirs.phi[key])


def asked(criteria: Any, i: int) -> Any:
    small.causal("llama").net.generate(
        input_ids=ROWS[i], attention_mask=torch.ones_like(ROWS[i]), do_sample=False, max_new_tokens=12,
        pad_token_id=small.PAD, stopping_criteria=[criteria],
    )  # fmt: skip
    return criteria.sigma.copy()


def test_criteria_of_two_threads_see_their_own_generation() -> None:
    guard, net = limited(tiny_guard(), 1e300), small.causal("llama").net

    def run(i: int) -> Any:
        with g.stopping_criteria(guard, net) as criteria:
            return asked(criteria, i)

    alone = [run(0), run(1)]
    for _ in range(4):
        for ours, theirs in zip(at_once(run), alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_one_criteria_for_two_threads_follows_one_and_says_so_to_the_other() -> None:
    """But one after the other, in whatever thread, is as ever; and what was seen is read from any."""
    guard, net = limited(tiny_guard(), 1e300), small.causal("llama").net
    with g.stopping_criteria(guard, net) as criteria:
        alone = [asked(criteria, 0), asked(criteria, 1)]
        other = threading.Thread(target=asked, args=(criteria, 0))
        other.start()
        other.join()
        np.testing.assert_array_equal(criteria.sigma, alone[0])
        assert len(criteria.calls) == 3
    passes = threading.Barrier(2)

    class Meeting:
        """A logits processor at which both threads wait for each other, a few times."""

        def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            with suppress(threading.BrokenBarrierError):  # the other has ended
                passes.wait(1)
            return scores

    with g.stopping_criteria(guard, net) as criteria:
        found = at_once(
            lambda i: net.generate(
                input_ids=ROWS[i], attention_mask=torch.ones_like(ROWS[i]), do_sample=False, max_new_tokens=4,
                pad_token_id=small.PAD, stopping_criteria=[criteria], logits_processor=[Meeting()],
            )
        )  # fmt: skip
    errors = [one for one in found if isinstance(one, Exception)]
    assert errors
    for error in errors:
        assert isinstance(error, DemurError)
        assert "at once" in str(error)
