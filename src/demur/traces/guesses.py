"""Guesses: which token a sampler held for likely at a place that was open, kept where it guessed and nowhere else.

An autoregressive step guesses one place of a response, a step of masked diffusion all that are open. So a trace grows
with what was predicted, not with steps times places: 4,096 autoregressive tokens have 4,096 guesses, not 16,777,216.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Guesses:
    """All guesses of one generation, ``k`` of them in ``s`` steps, by step and then by place.

    Those of step t, from 1, are ``begins[t - 1]`` to ``begins[t]``. ``places`` count the places of the response from 0.
    ``tokens`` are ids. ``confidence`` is the sampler's score of each, nan where none is known (a replayed response).
    """

    begins: Int[np.ndarray, "s+1"]
    places: Int[np.ndarray, "k"]
    tokens: Int[np.ndarray, "k"]
    confidence: Float[np.ndarray, "k"]

    @property
    def steps(self) -> int:
        """How many steps were taken, those that guessed nothing included."""
        return len(self.begins) - 1

    def at(self, t: int, width: int) -> tuple[Int[np.ndarray, "g"], Float[np.ndarray, "g"]]:
        """Tokens and confidence of step t, from 1, at the ``width`` places of a response; -1 and nan where none."""
        tokens, confidence = _nothing(width)
        mine = slice(self.begins[t - 1], self.begins[t])
        tokens[self.places[mine]], confidence[self.places[mine]] = self.tokens[mine], self.confidence[mine]
        return tokens, confidence

    def dense(self, width: int) -> tuple[Int[np.ndarray, "s g"], Float[np.ndarray, "s g"]]:
        """The same of all steps: eight bytes for each step and place."""
        tokens, confidence = _nothing(self.steps, width)
        where = np.repeat(np.arange(self.steps), np.diff(self.begins)), self.places
        tokens[where], confidence[where] = self.tokens, self.confidence
        return tokens, confidence

    @classmethod
    def of_dense(cls, tokens: Int[np.ndarray, "s g"], confidence: Float[np.ndarray, "s g"]) -> Guesses:
        """What :meth:`dense` gives back. Raises ValueError for arrays of two shapes."""
        if tokens.ndim != 2 or tokens.shape != confidence.shape:
            raise ValueError(f"predictions of shape {tokens.shape} with confidence of shape {confidence.shape}")
        steps, places = np.nonzero((tokens >= 0) | ~np.isnan(confidence))
        return cls.of_steps(len(tokens), steps, places, tokens[steps, places], confidence[steps, places])

    @classmethod
    def of_steps(
        cls,
        n_steps: int,
        steps: Int[np.ndarray, "k"],
        places: Int[np.ndarray, "k"],
        tokens: Int[np.ndarray, "k"],
        confidence: Float[np.ndarray, "k"],
    ) -> Guesses:
        """Guesses that are ordered by their step, which counts from 0, and then by place."""
        begins = np.searchsorted(steps, np.arange(n_steps + 1)).astype(np.int32)
        return cls(begins, places.astype(np.int32), tokens.astype(np.int32), confidence.astype(np.float32))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a file holds of them, by name."""
        return {name: getattr(self, name) for name in NAMES}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]], width: int) -> Guesses:
        """Guesses of a response of ``width`` places. Raises KeyError or ValueError for arrays that say none."""
        begins, places, tokens, confidence = (arrays[name] for name in NAMES)
        alike = places.ndim == 1 and places.shape == tokens.shape == confidence.shape and begins.ndim == 1
        if (
            not alike
            or {begins.dtype.kind, places.dtype.kind, tokens.dtype.kind} != {"i"}
            or confidence.dtype.kind != "f"
        ):
            raise ValueError("its guesses are no columns of one length")
        if not len(begins) or begins[0] != 0 or begins[-1] != len(places) or (np.diff(begins) < 0).any():
            raise ValueError("the steps of its guesses do not follow each other")
        if len(places) and not 0 <= places.min() <= places.max() < width:
            raise ValueError(f"a guess at a place beyond the {width} of its response")
        return cls(begins, places, tokens, confidence)


NAMES = ("begins", "places", "tokens", "confidence")


def _nothing(*shape: int) -> tuple[Int[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    return np.full(shape, -1, dtype=np.int32), np.full(shape, np.nan, dtype=np.float32)
