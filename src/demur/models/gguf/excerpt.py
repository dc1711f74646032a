"""A small GGUF file with what a big one says of its model, but without its vocabulary and its weights.

The package ``gguf``, by which transformers reads configurations, makes several numpy arrays of every string: of a
vocabulary of 150,000 tokens and as many merges, ten to twenty seconds each time. A configuration needs none of them.
"""

from __future__ import annotations

import struct
from pathlib import Path

from demur.models.gguf.header import Header

_UINT8, _UINT32, _LIST = 0, 4, 9
_F32 = 0
_COUNTED = ("gpt2", "starcoder2")
"""Architectures of which transformers' translation knows no size of the vocabulary, but counts the list of it."""


def write_excerpt(header: Header, path: Path) -> None:
    """Writes the header's fields without lists of the tokenizer, the size of the vocabulary in their place, and the
    names of all tensors, each of one element (translations ask which there are, never what they hold).
    """
    fields = dict(header.written)
    size, words = f"{header.architecture}.vocab_size", "tokenizer.ggml.tokens"
    count = header.fields.get(words)
    if isinstance(count, int) and header.architecture in _COUNTED:
        fields[words] = _text(words) + struct.pack("<IIQ", _LIST, _UINT8, count) + bytes(count)
    elif isinstance(count, int) and size not in header.fields:
        fields[size] = _text(size) + struct.pack("<II", _UINT32, count)
    begin = b"GGUF" + struct.pack("<IQQ", 3, len(header.tensors), len(fields)) + b"".join(fields.values())
    begin += b"".join(_text(name) + struct.pack("<IQIQ", 1, 1, _F32, 0) for name in header.tensors)
    step = int(header.fields.get("general.alignment", 32))
    path.write_bytes(begin + bytes(-len(begin) % step) + bytes(step))


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data
