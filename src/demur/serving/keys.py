"""API keys. A file holds their SHA-256, never a key: who reads the file can not ask with it.

A key is 256 random bits, so its hash needs neither salt nor a slow function. Keys that people think up do
not belong here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.types import DemurError

_LINE = re.compile(r"([0-9a-f]{64})(?:\s+\S.*)?")


@dataclass(frozen=True)
class Keys:
    """The hashes of the keys that are let in, as 64 hex digits each. None: everybody is."""

    hashes: Sequence[str] = ()

    @classmethod
    def read(cls, path: str | Path) -> Keys:
        """A file with one hash a line; behind it a blank and a name, if you like. ``#`` begins a comment. Raises for a
        file without any, and for a line that is none: without telling it, since it may be a key.
        """
        try:
            lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DemurError(
                f"no keys in {path} ({type(error).__name__})", "a file of hashes", "see --new-key"
            ) from None
        hashes = []
        for number, line in enumerate(lines, start=1):
            if not (said := line.partition("#")[0].strip()):
                continue
            if not (match := _LINE.fullmatch(said)):
                raise DemurError(
                    f"line {number} of {path}",
                    "64 hex digits, then a name if you like",
                    "demur serve --new-key writes one",
                )
            hashes.append(match[1])
        if not hashes:
            raise DemurError(f"{path} without a key", "one hash a line", "demur serve --new-key writes one")
        return cls(tuple(hashes))

    def let_in(self, key: str) -> bool:
        """Whether the key is one of them. All are compared, each in constant time."""
        asked = hash_of(key)
        found = [hmac.compare_digest(asked, known) for known in self.hashes]
        return any(found)

    def __bool__(self) -> bool:
        return bool(self.hashes)

    def __repr__(self) -> str:
        return f"Keys({len(self.hashes)})"


def new_key() -> str:
    """A key of 256 random bits."""
    return f"demur-{secrets.token_urlsafe(32)}"


def hash_of(key: str) -> str:
    """The SHA-256 of a key, as 64 hex digits."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
