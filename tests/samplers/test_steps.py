"""Samplers from outside: what a step must not say, and the names that specs give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import small
import torch

from demur.samplers import SAMPLERS, steps
from demur.samplers.build import made_again, spec_name
from demur.testing import PROMPTS, check_sampler, tiny
from demur.traces import generate, spec_of
from demur.types import DemurError, Kind, Need, Step

Change = Callable[[Step], Any]


@dataclass(frozen=True)
class RightToLeft:
    """Writes the last open place of each row; ``change`` is done to every step before it is given."""

    change: Change = lambda step: step
    needs = frozenset({Need.LOGITS, Need.MASK})

    def __call__(self, model: Any, canvas: Any, rngs: Any) -> Iterator[Step]:
        ids, opened = canvas.ids, canvas.open
        for index in itertools.count():
            if not opened.any():
                return
            out = model.forward(replace(canvas, ids=ids), opened)
            out.logits[:, model.mask_id] = -torch.inf
            guesses, sure = ids.clone(), torch.full(ids.shape, torch.nan)
            guesses[opened], sure[opened] = out.logits.argmax(-1), out.logits.softmax(-1).amax(-1).float()
            live, now = opened.any(1), opened & (opened.long().flip(1).cumsum(1).flip(1) == 1)
            ids, opened = torch.where(now, guesses, ids), opened & ~now
            step = Step(index, ids, opened, now, guesses, sure, live, out.hidden, out.start, shift=model.shift)
            yield self.change(step)


def written(step: Step, token: int) -> Step:
    """The step with another token where it wrote."""
    ids, guesses = (torch.where(step.committed, token, x) for x in (step.ids, step.predictions))
    return replace(step, ids=ids, predictions=guesses)


ILL: dict[str, Change] = {
    "no step": lambda step: step.ids,
    "nothing": lambda step: None if step.index else "x",
    "a token that there is not": lambda step: written(step, 10**6),
    "a token below 0": lambda step: written(step, -5),
    "the mask": lambda step: written(step, 258),
    "another guess than was written": lambda step: replace(step, predictions=torch.zeros_like(step.ids)),
    "a narrower canvas": lambda step: replace(step, committed=step.committed[:, :-1]),
    "ids as floats": lambda step: replace(step, ids=step.ids.float()),
    "open as numbers": lambda step: replace(step, open=step.open.long()),
    "no states": lambda step: replace(step, hidden={}),
    "states of too few columns": lambda step: replace(step, hidden={k: v[:, :2] for k, v in step.hidden.items()}),
    "another number": lambda step: replace(step, index=step.index + 7),
    "a given token moved": lambda step: replace(step, ids=torch.full_like(step.ids, 65), predictions=step.ids * 0 + 65),
    "a given place committed": lambda step: replace(step, committed=torch.ones_like(step.committed)),
    "a place written without a word": lambda step: replace(step, committed=torch.zeros_like(step.committed)),
    "a given place opened": lambda step: replace(step, open=torch.ones_like(step.open)),
    "rows that are not live": lambda step: replace(step, live=torch.zeros_like(step.live)),
    "one live for all": lambda step: replace(step, live=step.live[0]),
    "passes in words": lambda step: replace(step, passes="two"),
}


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in ILL.items()])
def test_a_step_that_says_something_else_than_it_did_is_one_line(change: Change) -> None:
    with pytest.raises(DemurError) as caught:
        generate(tiny("masked"), PROMPTS, RightToLeft(change), length=4)
    assert "RightToLeft" in small.one_line(caught.value)
    with pytest.raises(AssertionError):
        check_sampler(RightToLeft(change), tiny("masked"), 4)


def raises(model: Any, canvas: Any, rngs: Any) -> Iterator[Step]:
    for step in RightToLeft()(model, canvas, rngs):
        if step.index == 2:
            raise ValueError("one line\nand another")
        yield step


def none(model: Any, canvas: Any, rngs: Any) -> Any:
    return None


def of_two(model: Any, canvas: Any) -> Any:
    return iter(())


@pytest.mark.parametrize(("sampler", "says"), [(raises, "step 3 (ValueError"), (none, "NoneType"), (of_two, "2 pos")])
def test_a_sampler_that_fails_is_one_line_that_names_it(sampler: Any, says: str) -> None:
    with pytest.raises(DemurError) as caught:
        generate(tiny("masked"), PROMPTS, sampler, length=4)
    line = small.one_line(caught.value)
    assert says in line
    assert sampler.__name__ in line


def forever(model: Any, canvas: Any, rngs: Any) -> Iterator[Step]:
    *_, last = RightToLeft()(model, canvas, rngs)
    for index in itertools.count():
        nothing = torch.zeros_like(last.committed)
        yield replace(last, index=index, committed=nothing, ids=canvas.ids, open=canvas.open)


def test_a_sampler_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PATIENCE", 20)
    with pytest.raises(DemurError, match="has not ended"):
        generate(tiny("masked"), PROMPTS[:1], forever, length=1)
    with pytest.raises(AssertionError, match="has not ended"):
        check_sampler(forever, tiny("masked"), 1)


def test_a_sampler_that_stops_early_is_found_by_its_check() -> None:
    def early(model: Any, canvas: Any, rngs: Any) -> Iterator[Step]:
        yield from itertools.islice(RightToLeft()(model, canvas, rngs), 2)

    with pytest.raises(AssertionError, match="left places open"):
        check_sampler(early, tiny("masked"), 4)


def reusing(model: Any, canvas: Any, rngs: Any) -> Iterator[Step]:
    """One tensor for all steps, and the canvas itself at that."""
    for step in RightToLeft()(model, canvas, rngs):
        canvas.ids.copy_(step.ids), canvas.open.copy_(step.open)
        yield replace(step, ids=canvas.ids, open=canvas.open)


def test_a_sampler_may_write_into_its_canvas_and_use_its_tensors_again() -> None:
    plain = generate(tiny("masked"), PROMPTS, RightToLeft(), length=4)
    again = generate(tiny("masked"), PROMPTS, reusing, length=4)
    assert [trace.text() for trace in plain] == [trace.text() for trace in again]
    for one, other in zip(plain, again, strict=True):
        assert np.array_equal(one.commits, other.commits)


def test_the_steps_of_our_own_samplers_are_given_as_they_are() -> None:
    model = tiny("causal")
    canvas = model.canvas(PROMPTS, 2)
    ours = SAMPLERS["ar"]()
    assert type(steps.steps_of(ours, model, canvas, None)) is type(ours(model, canvas, None))


# -- names in specs --------------------------------------------------------------------------------------------


def test_two_classes_of_one_name_have_two_specs() -> None:
    class MaskedDiffusion(RightToLeft):
        """Called as one of ours."""

    model = tiny(Kind.MASKED)
    ours = spec_of(model, SAMPLERS["low-confidence"](), 4)
    theirs = spec_of(model, MaskedDiffusion(), 4)
    assert ours.sampler == "MaskedDiffusion"
    assert theirs.sampler.endswith("MaskedDiffusion")
    assert theirs.sampler != ours.sampler
    assert spec_of(model, reusing, 4).sampler.endswith(":reusing"), "two functions are two samplers"
    assert spec_of(model, reusing, 4).key != spec_of(model, raises, 4).key


def test_a_sampler_is_made_again_from_its_spec_where_somebody_says_where_it_is() -> None:
    assert made_again("MaskedDiffusion", {"steps": 4}) == SAMPLERS["low-confidence"](steps=4)
    called = spec_name(RightToLeft())
    with pytest.raises(DemurError) as caught:
        made_again(called, {})
    assert f"--sampler {called}" in small.one_line(caught.value)
    assert isinstance(made_again(called, {}, called), RightToLeft)
    with pytest.raises(DemurError, match="expected MaskedDiffusion"):
        made_again("MaskedDiffusion", {}, called)
    with pytest.raises(DemurError, match="can not be made with nonsense"):
        made_again(called, {"nonsense": 1}, called)
