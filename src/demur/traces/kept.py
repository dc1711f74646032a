"""Traces that were generated before, kept in a folder, so that work that was stopped asks nothing twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demur.traces.trace import Key, Trace
from demur.types import DemurError, Prompt, Spec


def read_by_the_model(prompt: Prompt) -> list[Any]:
    """What a model reads of a prompt: not its id, nor what is known about it."""
    return [prompt.system, [[turn.role, turn.content] for turn in prompt.messages], prompt.text, prompt.prefill]


@dataclass
class Kept:
    """A folder of traces, one file each.

    A file's name stands for all that its content depends on: what the model reads, demur's version, model, sampler,
    length, pooling modes, and the seed of the row's dice. ``reused`` and ``made`` count traces; ``full`` is why none
    could be kept.
    """

    folder: Path
    reused: int = 0
    made: int = 0
    full: str = ""
    _touched: set[Path] = field(default_factory=set, repr=False)

    def place(self, spec: Spec, pools: Sequence[Key], length: int, seed: int, prompt: Prompt) -> Path:
        """The file of one generation, whose dice begin at ``seed``."""
        whole = [spec.key, spec.versions.get("demur", ""), [list(key) for key in pools], length, seed]
        text = json.dumps([*whole, read_by_the_model(prompt)])
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return self.folder / name[:2] / f"{name}.safetensors"

    def read(self, place: Path, prompt: Prompt) -> Trace | None:
        """The trace in a file, as an answer to ``prompt``. None where there is none, where it is broken, or of an older
        format: it is made again.
        """
        if not place.is_file():
            return None
        try:
            trace = Trace.load(place)
        except DemurError:
            return None
        self.reused += 1
        self._touched.add(place)
        return replace(trace, prompt=prompt)

    def write(self, place: Path, trace: Trace) -> None:
        """Keeps a trace. Where there is no room, nothing is kept any more, and ``full`` says why."""
        self.made += 1
        if self.full:
            return
        try:
            trace.save(place)
        except DemurError as error:
            self.full = str(error)
        self._touched.add(place)

    def size(self) -> int:
        """Bytes in the folder."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))

    def forget(self) -> None:
        """Removes the files that were read or written through this object: the work is done."""
        for place in self._touched:
            place.unlink(missing_ok=True)
        self._touched.clear()
