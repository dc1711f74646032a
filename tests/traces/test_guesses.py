"""Guesses kept where they were made say what the whole array of steps and places said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demur.traces import Guesses

SHAPES = st.tuples(st.integers(0, 6), st.integers(1, 5))


@st.composite
def dense(draw: st.DrawFn) -> tuple[Any, Any]:
    """Predictions and confidence; a guess may lack its confidence, and a confidence its guess."""
    shape = draw(SHAPES)
    scores = st.one_of(st.just(np.float32(np.nan)), st.floats(-1, 1, width=32), st.just(np.float32(-np.inf)))
    return (
        draw(hnp.arrays(np.int32, shape, elements=st.integers(-1, 9))),
        draw(hnp.arrays(np.float32, shape, elements=scores)),
    )


@given(dense())
def test_laid_out_they_are_what_came(given_: tuple[Any, Any]) -> None:
    predictions, confidence = given_
    guesses = Guesses.of_dense(predictions, confidence)
    assert guesses.steps == len(predictions)
    for ours, theirs in zip(guesses.dense(predictions.shape[1]), given_, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours, theirs)
    for t, rows in enumerate(zip(predictions, confidence, strict=True), 1):
        for ours, theirs in zip(guesses.at(t, predictions.shape[1]), rows, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@given(dense())
def test_their_arrays_are_they(given_: tuple[Any, Any]) -> None:
    guesses = Guesses.of_dense(*given_)
    again = Guesses.of_arrays(guesses.arrays, given_[0].shape[1])
    assert {name: array.tobytes() for name, array in again.arrays.items()} == {
        name: array.tobytes() for name, array in guesses.arrays.items()
    }


def test_a_guess_costs_the_same_however_long_the_response_is() -> None:
    def size(n: int) -> int:
        places = np.arange(n)
        return sum(array.nbytes for array in Guesses.of_steps(n, places, places, places, np.ones(n)).arrays.values())

    assert size(4096) < 4 * size(1024)
    assert size(4096) == 4096 * 16 + 4


PLAIN = Guesses.of_steps(2, np.array([0, 1]), np.array([0, 1]), np.array([5, 6]), np.ones(2)).arrays


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"tokens": np.zeros(3, np.int32)}, "one length"),
        ({"places": np.zeros((2, 1), np.int32)}, "one length"),
        ({"places": np.zeros(2, np.float32)}, "one length"),
        ({"confidence": np.zeros(2, np.int32)}, "one length"),
        ({"begins": np.zeros(0, np.int32)}, "follow each other"),
        ({"begins": np.array([0, 2, 1, 2], np.int32)}, "follow each other"),
        ({"begins": np.array([0, 1], np.int32)}, "follow each other"),
        ({"places": np.array([0, 2], np.int32)}, "beyond the 2"),
        ({"places": np.array([-1, 1], np.int32)}, "beyond the 2"),
    ],
)
def test_arrays_that_say_no_guesses_are_refused(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Guesses.of_arrays(PLAIN | changed, 2)
