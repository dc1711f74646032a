"""What :mod:`demur.traces` holds, under the name that it had in version 0.1.0."""

from typing import Any

from demur import traces
from demur.traces import __all__  # noqa: F401


def __getattr__(name: str) -> Any:
    return getattr(traces, name)
