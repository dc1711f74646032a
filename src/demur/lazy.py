"""Packages whose names are looked up when they are first used: importing one loads no more than is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def looked_up(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__`` and ``__dir__`` (PEP 562): a name comes from the module of it that ``homes`` says.

    Type checkers do not see through it: a package imports the same names under ``TYPE_CHECKING``.
    """

    def look_up(name: str) -> Any:
        if name in homes:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return look_up, lambda: sorted({*vars(sys.modules[package]), *homes})
