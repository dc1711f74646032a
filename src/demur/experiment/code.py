"""The code of parts from outside demur, as keys hold it: rows of two versions of a part must not meet in one run."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from demur.attacks import ATTACKS
from demur.defenses import DEFENSES
from demur.guards.detectors import DETECTORS
from demur.judges.named import JUDGES
from demur.registry import imported, is_path
from demur.samplers import SAMPLERS
from demur.traces.fields import TRACE_FIELDS
from demur.worlds import WORLDS

REGISTRIES = (ATTACKS, DEFENSES, DETECTORS, JUDGES, SAMPLERS, TRACE_FIELDS, WORLDS)
"""Where packages register what a recipe may name."""


def code_of(content: Any) -> dict[str, str]:
    """Twelve hex digits of the source of every part from outside that plain data name, by that name: ``module:Class``,
    also as the world of an attack (``module:Class/attack``), and names that packages register.

    What counts is the module that holds the part: blanks and comments in it do not, and what it imports is not looked
    at. Empty where all parts are demur's own. Raises for a part that can not be imported.
    """
    found: dict[str, str] = {}
    for text in _texts(content):
        name = text.partition("/")[0]
        path = name if is_path(name) else _registered(name)
        if path and name not in found:
            found[name] = _digest(path)
    return dict(sorted(found.items()))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _texts(value)


def _registered(name: str) -> str:
    """Where the part is that a package registers under this name; empty where none does."""
    return next((registry.packaged[name].value for registry in REGISTRIES if name in registry.packaged), "")


def _digest(path: str) -> str:
    """Of the file that a part's class or function is written in; ``none`` where it has no file."""
    part = imported(path, "part")
    module = sys.modules.get(getattr(part, "__module__", "")) or sys.modules[path.partition(":")[0]]
    file = Path(getattr(module, "__file__", None) or "")
    return _digest_of(file, file.stat().st_mtime_ns) if file.is_file() else "none"


@lru_cache(maxsize=256)
def _digest_of(file: Path, changed: int) -> str:
    raw = file.read_bytes()
    if file.suffix == ".py":
        raw = ast.dump(ast.parse(raw)).encode()
    return hashlib.sha256(raw).hexdigest()[:12]
