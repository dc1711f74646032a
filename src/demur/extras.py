"""Optional parts: what is not installed is one line that names the command, wherever it is missed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from demur.types import DemurError


def need(module: str, extra: str, why: str = "") -> ModuleType:
    """The module, imported. Raises :class:`DemurError`, naming the extra of demur that brings it, if it is missing.

    An error inside the module itself, such as a broken dependency of its own, is passed on with its text.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise DemurError(
            f"{package} is not installed" if error.name == package else f"{package} can not be imported ({error})",
            f"{package}, {why}" if why else f"the extra {extra!r} of demur",
            f"pip install 'demur[{extra}]'",
        ) from error
