"""A GGUF file's header, and those of the parts beside it, read whole.

Facts of the format: llama.cpp's ``gguf-py`` and its loader (``llama-model.cpp``).
"""

from __future__ import annotations

import hashlib
import math
import mmap
import re
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from demur.types import DemurError


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: ``kind`` is ggml's number of its type, ``shape`` is in torch's order."""

    file: Path
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself; of one in several parts, all parts together.

    ``fields``: values by key; of a list of strings, such as a vocabulary, the length alone. ``written``: key and value
    as the file has them, without lists of the tokenizer, which are long. ``digest``: SHA-256 of the files.
    """

    files: tuple[Path, ...]
    fields: Mapping[str, Any]
    written: Mapping[str, bytes]
    tensors: Mapping[str, Place]
    digest: str

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.fields.get("general.architecture", ""))

    def says(self, key: str, default: Any = None) -> Any:
        """The value of a key of the architecture."""
        return self.fields.get(f"{self.architecture}.{key}", default)


_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf\Z", re.IGNORECASE)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9


def opened(path: Path) -> Header:
    """The header of a file, and of the parts beside it. Raises for one that is cut off, no model, or lacks parts."""
    fields, written, tensors = _header_of(path)
    files = [path]
    count = int(fields.get("split.count", 1) or 1)
    if count > 1:
        files = _parts(path, count, int(fields.get("split.no", 0)))
        for part in files[1:]:
            tensors |= _header_of(part)[2]
        expected = fields.get("split.tensors.count")
        if expected is not None and int(expected) != len(tensors):
            raise DemurError(
                f"the {count} parts of {path.name} hold {len(tensors)} tensors", str(expected), "download them again"
            )
    kind = fields.get("general.type", "model")
    if kind != "model" or fields.get("general.architecture") == "clip":
        raise DemurError(f"{path.name} is no model by itself ({kind})", "a language model", "name the model's own file")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            while block := data.read(2**20):
                digest.update(block)
    return Header(tuple(files), fields, written, tensors, digest.hexdigest())


def refused(header: Header, what: str, expected: str = "") -> DemurError:
    """The error for a file that asks for what its native class does not compute."""
    return DemurError(
        f"{header.files[0].name}: {what}",
        expected or f"what the native class of {header.architecture!r} computes",
        "take the model's safetensors files instead",
    )


def _parts(path: Path, count: int, number: int) -> list[Path]:
    name = _PART.match(path.name)
    if number != 0 or name is None:
        raise DemurError(
            f"{path.name} is part {number + 1} of {count} of a model",
            "the first part, named ...-00001-of-0000N.gguf, with the others beside it",
            "name the first part",
        )
    files = [path.with_name(f"{name[1]}-{i + 1:05d}-of-{count:05d}{path.suffix}") for i in range(count)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise DemurError(
            f"{path.name} is one of {count} parts, and {missing[0]} is not beside it",
            f"all {count}",
            "download the others, or merge them: llama-gguf-split --merge",
        )
    return files


_Parsed = tuple[dict[str, Any], dict[str, bytes], dict[str, Place]]
"""Fields, the same as they are written, tensors."""


def _header_of(path: Path) -> _Parsed:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise DemurError(f"{path.name} is no GGUF file", "a file that starts with the bytes GGUF", "check the file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                fields, written, tensors = _parsed(path, data)
            except (struct.error, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as error:
                raise DemurError(
                    f"{path.name} could not be loaded: it is cut off or damaged in its header",
                    "a whole GGUF file",
                    "download it again",
                ) from error
    _check_apart(path, tensors)
    size = path.stat().st_size
    for name, place in tensors.items():
        if place.start + place.size > size:
            raise DemurError(
                f"{path.name} is cut off: tensor {name} would end at byte {place.start + place.size} of {size}",
                "a whole GGUF file",
                "download it again",
            )
    return fields, written, tensors


def _check_once(path: Path, names: Sequence[str]) -> None:
    """Raise for a tensor that a file lists twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DemurError(
            f"{path.name} lists tensor {twice[0]} twice (a duplicated tensor)",
            "every tensor once, since nobody can know which of the two is meant",
            "download or convert the model again",
        )


def _check_apart(path: Path, tensors: Mapping[str, Place]) -> None:
    """Raise for tensors that lie over one another, as where a header was edited: one would have another's numbers."""
    before: tuple[str, Place] | None = None
    for name, place in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size)):
        if before is not None and place.start < before[1].start + before[1].size:
            raise DemurError(
                f"{path.name}: tensors {before[0]} and {name} lie over one another",
                "every tensor in a place of its own",
                "download or convert the model again",
            )
        before = (name, place)


@cache
def _unpacked(kind: int) -> bool:
    """Whether the package ``gguf`` makes numbers of a type's blocks; it knows more types than it unpacks."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[GGMLQuantizationType(kind)][1]), np.uint8), GGMLQuantizationType(kind))
    except NotImplementedError:
        return False
    return True


def _parsed(path: Path, data: mmap.mmap) -> _Parsed:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    at = 4

    def take(form: str) -> Any:
        nonlocal at
        values = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return values[0] if len(values) == 1 else values

    def text() -> str:
        nonlocal at
        length = take("Q")
        if length > len(data) - at:
            raise struct.error("a string longer than the file")
        value = data[at : at + length]
        at += length
        return value.decode()

    def value(kind: int) -> Any:
        nonlocal at
        if kind in _SCALARS:
            return take(_SCALARS[kind])
        if kind == _STRING:
            return text()
        if kind != _LIST:
            raise struct.error(f"a value of type {kind}")
        inner, count = take("I"), take("Q")
        if inner in _SCALARS:
            values = struct.unpack_from(f"<{count}{_SCALARS[inner]}", data, at)
            at += struct.calcsize(f"<{count}{_SCALARS[inner]}")
            return list(values)
        if inner != _STRING:
            return [value(inner) for _ in range(count)]
        for _ in range(count):  # a vocabulary: the tokenizer's own reader takes it
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        return count

    version, tensor_count, field_count = take("I"), take("Q"), take("Q")
    if version not in (2, 3):
        raise DemurError(f"{path.name} is GGUF version {version}", "2 or 3, little-endian", "convert the model again")
    fields: dict[str, Any] = {}
    written: dict[str, bytes] = {}
    for _ in range(field_count):
        begin, key, kind = at, text(), take("I")
        if key in fields:
            raise DemurError(
                f"{path.name} says {key} twice",
                "every key once, since nobody can know which of the two is meant",
                "download or convert the model again",
            )
        fields[key] = value(kind)
        if kind != _LIST or not key.startswith("tokenizer."):
            written[key] = data[begin:at]
    places = []
    for _ in range(tensor_count):
        name, dims = text(), take("I")
        shape = struct.unpack_from(f"<{dims}Q", data, at)
        at += 8 * dims
        kind, offset = take("I"), take("Q")
        if kind not in GGML_QUANT_SIZES or not _unpacked(kind):
            known = kind in GGML_QUANT_SIZES
            raise DemurError(
                f"{path.name}: tensor {name} is of ggml's type {GGMLQuantizationType(kind).name if known else kind}",
                "a type that the package gguf unpacks",
                "pip install -U gguf, or take another file of the model",
            )
        block, size = GGML_QUANT_SIZES[kind]
        places.append((name, tuple(reversed(shape)), kind, offset, math.prod(shape) // block * size))
    _check_once(path, [name for name, *_ in places])
    step = int(fields.get("general.alignment", 32))
    start = -(-at // step) * step
    tensors = {n: Place(path, shape, kind, start + offset, size) for n, shape, kind, offset, size in places}
    return fields, written, tensors
