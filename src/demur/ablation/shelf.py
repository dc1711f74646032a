"""Traces that were generated before, kept in a folder, so that another anchor or another split asks nothing twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.traces import Key, Trace
from demur.types import DemurError, Prompt, Spec

ASKED: Any = ("last", "asked")
"""Where a kept trace holds the state of the last given token, beside its pooled states: one row."""
State = Float[NDArray[np.float32], "d"]


@dataclass(frozen=True, eq=False)
class Recorded:
    """One generation as it is kept: its trace, and the last layer's state of the last given token before it began."""

    trace: Trace
    asked: State


def read_by_the_model(prompt: Prompt) -> list[Any]:
    """What a model reads of a prompt: not its id, nor what is known about it."""
    return [prompt.system, [[turn.role, turn.content] for turn in prompt.messages], prompt.text, prompt.prefill]


@dataclass
class Shelf:
    """A folder of recorded generations, one file each.

    A file's name stands for all that its content depends on: what the model reads, demur's version, model, sampler,
    length, pooling modes, and the seed of the row's dice. ``reused`` and ``made`` count generations; ``full`` is why
    none could be kept.
    """

    folder: Path
    reused: int = 0
    made: int = 0
    full: str = ""

    def place(self, spec: Spec, pools: Sequence[Key], length: int, seed: int, prompt: Prompt) -> Path:
        """The file of one generation, whose dice begin at ``seed``."""
        whole = [spec.key, spec.versions.get("demur", ""), [list(key) for key in pools], length, seed]
        text = json.dumps([*whole, read_by_the_model(prompt)])
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return self.folder / name[:2] / f"{name}.safetensors"

    def read(self, place: Path, prompt: Prompt) -> Recorded | None:
        """The generation in a file, as an answer to ``prompt``. None where there is none, where it is broken, or of an
        older format: it is made again.
        """
        if not place.is_file():
            return None
        try:
            trace = Trace.load(place)
            (asked,) = trace.phi[ASKED]
        except (DemurError, KeyError):
            return None
        self.reused += 1
        states = {key: phi for key, phi in trace.phi.items() if key != ASKED}
        return Recorded(replace(trace, phi=states, prompt=prompt), asked)

    def write(self, place: Path, recorded: Recorded) -> None:
        """Keeps a generation. Where there is no room, nothing is kept any more, and ``full`` says why."""
        self.made += 1
        if self.full:
            return
        trace = recorded.trace
        try:
            replace(trace, phi={**trace.phi, ASKED: recorded.asked[None]}).save(place)
        except DemurError as error:
            self.full = str(error)

    def size(self) -> int:
        """Bytes in the folder."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))
