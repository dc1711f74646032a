"""Tokens as bytes, so that texts can be put together without a tokenizer and no character is ever invented.

A token of a byte-level or byte-fallback vocabulary may be a part of a character. Decoding token by token would turn it
into U+FFFD; joining bytes first and decoding once keeps it (law 9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from demur.refusals import CHANNEL, CHANNEL_MARKS, MARKS

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


def _byte_alphabet() -> dict[str, int]:
    """The printable stand-ins that byte-level BPE (GPT-2) uses for the 256 bytes, inverted."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def token_bytes(tokenizer: Any, ids: Iterable[int]) -> tuple[dict[int, bytes], frozenset[int]]:
    """The bytes of each token of ``ids`` and which of them are special (left out of texts).

    What tells thoughts from answers (:data:`demur.refusals.MARKS`) is not left out, special or not.
    An id that is no token (the embedding matrix may have more rows than the vocabulary) counts as special.
    Works on the tokenizer's declared decoder: byte-level, byte-fallback with ``▁`` for blanks, or, for others, the
    tokenizer's own decoding of the single token where it follows another. So a text may begin with the blank before
    its first word, or end with the one after its last (``</w>``), which some tokenizers' own decoding leaves out.
    """
    wanted = sorted(set(ids))
    if tokenizer is None:  # token-only models, such as random ones: their text is space-separated ids
        return {i: f"{i} ".encode() for i in wanted}, frozenset()
    added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
    special = set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
    special -= _marks(added)
    decoder = repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", ""))
    suffix = re.search(r'BPEDecoder\(suffix="(.+?)"\)', decoder)
    blank = re.search(r'Metaspace\(replacement="(.)"', decoder)
    names = tokenizer.convert_ids_to_tokens(wanted)  # of an added token, what normalization has made of it
    table: dict[int, bytes] = {}
    for i, name in zip(wanted, names, strict=True):
        if name is None:  # a row of the embedding matrix that no token uses
            table[i] = f"<unused {i}>".encode()
        elif i in special and i in added:
            table[i] = str(added[i].content).encode()
        elif suffix is not None:  # it ends words; at the end of a text, decoding leaves the blank out
            table[i] = name.replace(suffix[1], " ").encode()
        elif "ByteLevel" in decoder:
            table[i] = bytes(_ALPHABET[c] for c in name) if all(c in _ALPHABET for c in name) else name.encode()
        elif "▁" in decoder or "ByteFallback" in decoder or "Metaspace" in decoder:
            byte = _BYTE_TOKEN.match(name) if "ByteFallback" in decoder else None
            piece = name.replace("▁", " ") if "▁" in decoder or (blank is None and "Metaspace" in decoder) else name
            piece = piece.replace(blank[1], " ") if blank is not None else piece
            table[i] = bytes([int(byte.group(1), 16)]) if byte else piece.encode()
        else:
            # A token after another of its kind, so that what stands between words belongs to it (WordPiece).
            once, twice = (tokenizer.decode([i] * n, clean_up_tokenization_spaces=False) for n in (1, 2))
            table[i] = twice.removeprefix(once).encode()
    return table, frozenset(i for i, name in zip(wanted, names, strict=True) if i in special or name is None)


def _marks(added: Mapping[int, Any]) -> set[int]:
    """Added tokens that tell thoughts from answers."""
    contents = {i: str(token.content) for i, token in added.items()}
    channels = CHANNEL_MARKS if CHANNEL in contents.values() else frozenset()
    return {i for i, content in contents.items() if content.lower() in MARKS or content in channels}
