"""Traces that were generated before, kept in a folder, so that work that was stopped asks nothing twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demur.traces.trace import Key, Trace
from demur.types import DemurError, Model, Prompt, Sampler, Spec


def read_by_the_model(prompt: Prompt) -> list[Any]:
    """What a model reads of a prompt: not its id, nor what is known about it."""
    return [prompt.system, [[turn.role, turn.content] for turn in prompt.messages], prompt.text, prompt.prefill]


def written_by(model: Model) -> list[Any]:
    """What a model writes by, and its spec does not say: a folder's generation config may end answers elsewhere, and
    another device rounds otherwise.
    """
    parts = ("stop_ids", "mask_id", "fill_id", "shift", "partition")
    return [model.device.type, *(getattr(model, part, None) for part in parts)]


def check_bare(sampler: Sampler) -> None:
    """Raises for a sampler with a defense around it: its traces would be taken for those of the sampler alone."""
    if hasattr(sampler, "undefended"):
        raise DemurError(
            f"{type(sampler).__name__}, a sampler with a defense, and traces that are kept",
            "the sampler alone, or nothing kept",
            "leave out kept: the spec of a trace says nothing of a defense",
        )


@dataclass
class Kept:
    """A folder of traces, one file each.

    A file's name stands for all that its content depends on: what the model reads, versions, model, what it writes by
    beside its spec (:func:`written_by`), sampler, length, pooling modes, and the seed of the row's dice. A sampler with
    a defense around it has the spec of the sampler alone, so it is refused: :func:`check_bare`. ``reused`` and ``made``
    count traces; ``full`` is why none could be kept.
    """

    folder: Path
    reused: int = 0
    made: int = 0
    full: str = ""
    _touched: set[Path] = field(default_factory=set, repr=False)

    def place(self, model: Model, spec: Spec, pools: Sequence[Key], length: int, seed: int, prompt: Prompt) -> Path:
        """The file of one generation, whose dice begin at ``seed``."""
        whole = [spec.key, dict(spec.versions), written_by(model), [list(key) for key in pools], length, seed]
        text = json.dumps([*whole, read_by_the_model(prompt)], sort_keys=True)
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        return self.folder / name[:2] / f"{name}.safetensors"

    def read(self, place: Path, prompt: Prompt) -> Trace | None:
        """The trace in a file, as an answer to ``prompt``. None where there is none, where it is broken, or of an older
        format: it is made again.
        """
        try:
            trace = Trace.load(place)
        except (DemurError, OSError):
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
        """Bytes in the folder. What another process removes meanwhile does not count."""
        found = 0
        for path in self.folder.rglob("*.safetensors"):
            with suppress(FileNotFoundError):
                found += path.stat().st_size
        return found

    def forget(self) -> None:
        """Removes the files that were read or written through this object: the work is done. What can not be removed,
        in a folder that is read-only, stays.
        """
        for place in self._touched:
            with suppress(OSError):
                place.unlink(missing_ok=True)
        self._touched.clear()
