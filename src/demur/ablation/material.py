"""What detectors read of a set of generations: recorded once, used by every protocol. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from demur.signals import refusal_signal
from demur.traces import Key
from demur.types import DemurError, Prompt

LAST: Key = ("last", "generated")
"""The last layer, pooled over what was generated: what the paper's signal is made of."""
States = Float[NDArray[np.float32], "n T d"]


@dataclass(frozen=True, eq=False)
class Material:
    """n generations of one model under one sampler. It knows neither the model nor the texts.

    ``phi`` are pooled states by (layer, pooling mode), as many as were recorded: a protocol takes those that it needs.
    ``asked`` is the last layer's state of the last given token before anything is generated; ``refused`` and
    ``harmful`` say what the intermediate texts are (``harmful`` only where a judge of intermediate texts exists), held
    or cut at T.

    ``refused_at_last`` and ``harmful_at_last`` are of the *final* texts, which come after step T where a generation has
    more steps than T; without them the marks at T stand. ``taken`` are the steps that each generation took
    (default: T). ``groups`` name the request behind each generation, whatever wraps it (default: each its own).
    ``read`` is how each final text reads by another reader (``refuses``, or another word; empty where it can not be
    read); nothing where nobody read them. ``silent``: whose final text shows nothing; without a judge nobody can say
    what became of these. Raises for lengths that differ.
    """

    name: str
    phi: Mapping[Key, States]
    asked: Float[NDArray[np.float32], "n d"]
    refused: Bool[NDArray[np.bool_], "n T"]
    harmful: Bool[NDArray[np.bool_], "n T"] | None = None
    refused_at_last: Bool[NDArray[np.bool_], "n"] | None = None
    harmful_at_last: Bool[NDArray[np.bool_], "n"] | None = None
    taken: Int[NDArray[np.int64], "n"] | None = None
    groups: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    silent: Bool[NDArray[np.bool_], "n"] | None = None

    def __post_init__(self) -> None:
        n = len(self.asked)
        parts = (*self.phi.values(), self.refused, self.harmful, self.refused_at_last, self.harmful_at_last, self.taken)
        parts = (*parts, self.silent)
        lengths = [len(part) for part in (*parts, self.groups or None, self.read or None) if part is not None]
        if any(length != n for length in lengths):
            raise DemurError(f"{self.name}: {lengths} rows for {n} generations", "one row for each", "cut all alike")

    def __len__(self) -> int:
        return len(self.asked)

    def only(self, rows: Bool[NDArray[np.bool_], "n"]) -> Material:
        """The generations marked in ``rows``."""

        def cut(marks: Any) -> Any:
            return None if marks is None else marks[rows]

        return Material(
            self.name,
            {key: phi[rows] for key, phi in self.phi.items()},
            self.asked[rows],
            self.refused[rows],
            cut(self.harmful),
            cut(self.refused_at_last),
            cut(self.harmful_at_last),
            cut(self.taken),
            tuple(group for group, row in zip(self.groups, rows, strict=True) if row) if self.groups else (),
            tuple(word for word, row in zip(self.read, rows, strict=True) if row) if self.read else (),
            cut(self.silent),
        )

    @property
    def steps(self) -> int:
        """T."""
        return int(self.refused.shape[1])

    @property
    def refused_finally(self) -> Bool[NDArray[np.bool_], "n"]:
        """Whether the final text is a refusal."""
        return self.refused[:, -1] if self.refused_at_last is None else self.refused_at_last

    @property
    def harmful_finally(self) -> Bool[NDArray[np.bool_], "n"] | None:
        """Whether the final text is harmful; None without a judge."""
        if self.harmful is None:
            return None
        return self.harmful[:, -1] if self.harmful_at_last is None else self.harmful_at_last

    @property
    def lengths(self) -> Int[NDArray[np.int64], "n"]:
        """How many steps each generation took; T where it is not known."""
        return np.full(len(self), self.steps) if self.taken is None else self.taken

    @property
    def to_the_end(self) -> tuple[Bool[NDArray[np.bool_], "n T+1"] | None, Bool[NDArray[np.bool_], "n T+1"]]:
        """Marks of harm (None without a judge) and refusal, with the final text's behind the T steps: what RR, ASR, HRR
        and FRR are counted on. A generation that ended by T only holds its last mark once more.
        """
        refused = np.concatenate([self.refused, self.refused_finally[:, None]], axis=1)
        last = self.harmful_finally
        if self.harmful is None or last is None:
            return None, refused
        return np.concatenate([self.harmful, last[:, None]], axis=1), refused

    @property
    def requests(self) -> tuple[str, ...]:
        """The request behind each generation; each its own where nothing is known."""
        return self.groups or tuple(f"{self.name} {i}" for i in range(len(self)))

    @property
    def answered(self) -> Material:
        """The generations whose final text is no refusal."""
        return self.only(~self.refused_finally)

    @property
    def refusing(self) -> Material:
        """The generations whose final text is a refusal."""
        return self.only(self.refused_finally)

    @property
    def succeeded(self) -> Material:
        """The generations that did harm: by the judge, or, where there is none, all that say something and do not
        refuse.
        """
        harmful = self.harmful_finally
        return self.only(self.scored & ~self.refused_finally) if harmful is None else self.only(harmful)

    @property
    def scored(self) -> Bool[NDArray[np.bool_], "n"]:
        """Of which somebody can say what became of them: all, with a judge; else those whose final text says
        something.
        """
        if self.harmful is not None or self.silent is None:
            return np.ones(len(self), dtype=bool)
        return ~self.silent


def together(name: str, parts: Sequence[Material]) -> Material:
    """Several sets as one. Raises for none."""
    if not parts:
        raise DemurError("no generations", "at least one set", "gather some first")
    judged = [part.harmful for part in parts if part.harmful is not None]
    last = [part.harmful_finally for part in parts if part.harmful is not None]
    every = len(judged) == len(parts)
    return Material(
        name,
        {key: np.concatenate([part.phi[key] for part in parts]) for key in parts[0].phi},
        np.concatenate([part.asked for part in parts]),
        np.concatenate([part.refused for part in parts]),
        np.concatenate(judged) if every else None,
        np.concatenate([part.refused_finally for part in parts]),
        np.concatenate([marks for marks in last if marks is not None]) if every else None,
        np.concatenate([part.lengths for part in parts]),
        tuple(request for part in parts for request in part.requests),
        tuple(word for part in parts for word in part.read) if all(part.read for part in parts) else (),
        np.concatenate([~part.scored if part.silent is None else part.silent for part in parts]),
    )


def request_of(prompt: Prompt) -> str:
    """The request behind a prompt: the one that it was made from, or itself."""
    return prompt.parent or prompt.id


def anchored(good: Material, bad: Material, key: Key) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Anchors of one layer and pooling mode from answered harmless and refused harmful generations."""
    first, second = (m.phi[key].mean(axis=0, dtype=np.float64).astype(np.float32) for m in (good, bad))
    return first, second


def sigma_of(m: Material, good: Material, bad: Material, key: Key) -> Float[NDArray[np.float64], "n T"]:
    """The signal of every generation."""
    if not len(m):
        return np.empty((0, m.refused.shape[1]))
    return refusal_signal(m.phi[key], *anchored(good, bad, key))
