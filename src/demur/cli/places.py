"""Where a command may write: a place that can be written, and no file that would be lost by it.

A command never writes over what it reads, nor over a file of another sort: a page, anchors, a guard, a trace, a model's
weights. A file of its own sort is replaced.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from demur.cli.asked import OTHER_FILES, PROMPT_FILES
from demur.types import DemurError

Sort = Literal["page", "anchors", "guard", "trace", "lines"]

NAMES: dict[Sort, tuple[str, ...]] = {
    "page": (".html", ".htm"),
    "anchors": (".safetensors",),
    "guard": (".safetensors",),
    "trace": (".safetensors",),
    "lines": (".jsonl", ".ndjson", ".json", ".txt"),
}
"""How names of files of a sort end. Other endings are taken, too, unless they are known to mean something else."""
KNOWN = frozenset((*PROMPT_FILES, *OTHER_FILES, ".htm", ".png", ".svg", ".py"))
SAID = {
    "page": "an HTML page",
    "anchors": "anchors",
    "guard": "a guard",
    "trace": "a trace",
    "lines": "JSON lines",
    "weights": "a model's weights",
}


def check_writable(*paths: Path | None, sort: Sort | None = None, beside: Iterable[str | Path | None] = ()) -> None:
    """Raises, before anything is computed, for places where no file could be written when all is done, and for files
    that would be lost: those ``beside``, which the command reads or writes as well, and existing ones of another sort
    than the ``sort`` that is written.
    """
    from demur.artefact import place_of  # not above: help needs no NumPy

    others = [Path(os.path.expanduser(name)) for name in beside if name is not None]  # texts of prompts among them
    for named in paths:
        if named is None:
            continue
        path = place_of(named)
        if path.is_dir():
            raise DemurError(f"{path} is a folder", "the name of a file", f"for example: {path / 'out'}{path.suffix}")
        there = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise DemurError(
                f"{path} could not be written ({there} is {'not to be written' if there.is_dir() else 'no folder'})",
                "a place with the right to write there",
                "name another place",
            )
        if any(_same(path, other) for other in others):
            raise DemurError(
                f"{path} is named twice, and what it holds would be lost",
                "a file that this command does not read or write as well",
                "name another place",
            )
        if sort is not None:
            _check_sort(path, sort)


def _check_sort(path: Path, sort: Sort) -> None:
    ends = path.suffix.lower()
    if ends in KNOWN and ends not in NAMES[sort]:
        raise DemurError(
            f"{path} for {SAID[sort]}",
            f"a name that ends in {' or '.join(NAMES[sort])}",
            f"for example: {path.with_suffix(NAMES[sort][0])}",
        )
    found = _held(path)
    if found is not None and found != sort:
        raise DemurError(
            f"{path} holds {SAID.get(found, f'a file of demur ({found})')}, and would be lost",
            f"a new name, or that of a file with {SAID[sort]}",
            "name another place, or remove it",
        )
    if found in _DEAR:  # said before the minutes or hours that the new one takes
        print(f"note: {path} holds {SAID[sort]}, which the new one replaces in the end", file=sys.stderr)


_DEAR = ("guard", "anchors")
"""Sorts of files that took long to fit, and that other results may name."""


def _held(path: Path) -> str | None:
    """What an existing file holds, as its content says: a page, the kind of a file of demur, or a model's weights; None
    for all others.
    """
    if not path.is_file():
        return None
    with suppress(OSError):
        with path.open("rb") as file:
            head = file.read(16)
        if head.lower().startswith(b"<!doctype html"):
            return "page"
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import safe_open

    with suppress(Exception):  # a broken file is no file of another sort: it may be made again
        with safe_open(path, framework="np") as file:
            card = (file.metadata() or {}).get("demur")
        kind = "weights" if card is None else json.loads(card)["kind"]
        return kind if isinstance(kind, str) else None
    return None


def _same(path: Path, other: Path) -> bool:
    """Whether two names are of one file, by whatever way; a name of no file is compared as a name."""
    with suppress(OSError, ValueError):
        return path.samefile(other)
    with suppress(OSError, ValueError):
        return path.resolve() == other.resolve()
    return False
