"""Optional parts: what is not installed is one line that names the command, wherever it is missed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType

from demur.types import DemurError


def need(module: str, extra: str, why: str = "") -> ModuleType:
    """The module, imported. Raises :class:`DemurError`, naming the extra of demur that brings it, if it is missing.

    matplotlib comes whatever ``MPLBACKEND`` says. An error inside the module itself, such as a broken dependency of
    its own, is passed on with its text.
    """
    try:
        with _without_backend():
            return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DemurError(
            f"{package} is not installed" if error.name == package else f"{package} can not be imported ({error})",
            f"{package}, {why}" if why else f"the extra {extra!r} of demur",
            f"pip install 'demur[{extra}]'",
        ) from error


@contextmanager
def _without_backend() -> Iterator[None]:
    """Keeps ``MPLBACKEND`` from matplotlib's first import: a backend shows windows, of which there are none here. A
    notebook names its own there for every command that it starts, and matplotlib does not come with the name of one
    that is missing.
    """
    named = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named and "matplotlib" in sys.modules:
        with suppress(ValueError):  # what pyplot will use, should somebody import it later
            sys.modules["matplotlib"].rcParams["backend"] = named
