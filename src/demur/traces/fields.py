"""Trace fields: numbers of one's own, one for each step and row, recorded while the steps run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from demur.registry import Registry
from demur.types import Canvas, DemurError, Step


class TraceField(Protocol):
    """Says one number of every step and row. Keep it on the device: whoever asks for a value waits for it."""

    @property
    def name(self) -> str:
        """How the column is called: a word of its own."""
        ...

    def __call__(self, step: Step, canvas: Canvas) -> Float[Tensor, "b"]:
        """The numbers after a step of a generation that began with ``canvas``; nan where there is none."""
        ...


NEXT = "see docs/extending.md"
TRACE_FIELDS = Registry(kind="trace field", group="demur.trace_fields")
"""Trace fields by name. What stands behind a name is called without arguments and gives a :class:`TraceField`."""


def valued(field: TraceField, step: Step, canvas: Canvas) -> Float[Tensor, "b"]:
    """A field's numbers after a step, in fp32. Raises for one that fails, or that does not give one number a row."""
    try:
        values: Any = field(step, canvas)
    except Exception as error:  # whatever somebody else's class raises
        said = " ".join(str(error).split())[:160]
        raise DemurError(
            f"trace field {field.name!r} failed ({type(error).__name__}: {said})", "numbers", NEXT
        ) from error
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        values = torch.as_tensor(values, device=canvas.ids.device)
    if not isinstance(values, Tensor) or tuple(values.shape) != (canvas.rows,) or values.is_complex():
        gave = f"shape {tuple(values.shape)} of {values.dtype}" if isinstance(values, Tensor) else type(values).__name__
        raise DemurError(f"trace field {field.name!r} gave {gave}", f"a tensor of {canvas.rows}, one a row", NEXT)
    numbers: Float[Tensor, "b"] = values.float()
    return numbers


def fields_named(*names: str) -> tuple[TraceField, ...]:
    """The trace fields with these names. Raises for one that is unknown, and for two of one name."""
    made = tuple(map(TRACE_FIELDS.make, names))
    for name, field in zip(names, made, strict=True):
        if not (callable(field) and isinstance(getattr(field, "name", None), str)):
            raise DemurError(f"trace field {name!r}, a {type(field).__name__}", "a name and a call", NEXT)
    return checked(made)


COLUMNS = (
    "id",
    "step",
    "place",
    "token",
    "piece",
    "state",
    "committed",
    "open",
    "confidence",
    "refused",
    "sigma",
    "text",
)
"""Columns of a trace's tables (docs/trace.md), which no field may be called."""


def checked(fields: Sequence[TraceField]) -> tuple[TraceField, ...]:
    """The same fields. Raises for what is none, for a name that is no word of its own, and for two of one name."""
    for field in fields:
        name = getattr(field, "name", None)
        if not (callable(field) and isinstance(name, str)) or isinstance(field, type):
            what = f"the class {field.__name__}" if isinstance(field, type) else f"a {type(field).__name__}"
            raise DemurError(f"a trace field that is {what}", "an object with a name and a call", NEXT)
        if not re.fullmatch(r"\w[\w-]*", name) or name in COLUMNS:
            raise DemurError(
                f"a trace field called {name!r:.80}", f"a word of its own, none of {', '.join(COLUMNS)}", NEXT
            )
    names = [field.name for field in fields]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DemurError(f"two trace fields called {twice[0]!r}", "one of each name", "leave one out")
    return tuple(fields)
