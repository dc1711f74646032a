"""torch's compiler among import hooks that raise.

``torch._dynamo``, which transformers imports with most models, asks of a list of packages whether they are there
(``importlib.util.find_spec``). An import hook that raises for one of them, where it should find nothing, ends that
import, and every load with it. Such hooks are how people try what happens without a package. (The oldest transformers
that demur takes ask in the same way themselves, and die of them.)
"""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec


def import_compiler() -> None:
    """Imports ``torch._dynamo`` with a package that a hook raises for taken as missing. Does nothing where no hook is
    installed beside Python's own: transformers then imports it when it needs it.
    """
    if "torch._dynamo" in sys.modules or not any(map(_is_foreign, sys.meta_path)):
        return
    find = importlib.util.find_spec

    def found(name: str, package: str | None = None) -> ModuleSpec | None:
        try:
            return find(name, package)
        except ImportError:
            return None

    importlib.util.find_spec = found
    try:
        with suppress(ImportError):  # what is missing for good is said in one line by whoever needs it
            importlib.import_module("torch._dynamo")
    finally:
        importlib.util.find_spec = find


def _is_foreign(finder: object) -> bool:
    made = finder if isinstance(finder, type) else type(finder)
    return not made.__module__.startswith("_frozen_importlib")
