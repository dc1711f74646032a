"""Trace fields: numbers of one's own, one for each step and row, recorded while the steps run."""

from __future__ import annotations

from typing import Protocol

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
        values = field(step, canvas)
    except Exception as error:  # whatever somebody else's class raises
        said = " ".join(str(error).split())[:160]
        raise DemurError(
            f"trace field {field.name!r} failed ({type(error).__name__}: {said})", "numbers", NEXT
        ) from error
    if getattr(values, "shape", None) != (canvas.rows,):
        gave = getattr(values, "shape", type(values).__name__)
        raise DemurError(f"trace field {field.name!r} gave {gave}", f"a tensor of {canvas.rows}, one a row", NEXT)
    return values.float()


def fields_named(*names: str) -> tuple[TraceField, ...]:
    """The trace fields with these names. Raises for one that is unknown, and for two of one name."""
    made = tuple(map(TRACE_FIELDS.make, names))
    for name, field in zip(names, made, strict=True):
        if not (callable(field) and isinstance(getattr(field, "name", None), str)):
            raise DemurError(f"trace field {name!r}, a {type(field).__name__}", "a name and a call", NEXT)
    twice = [field.name for field in made if sum(field.name == other.name for other in made) > 1]
    if twice:
        raise DemurError(f"two trace fields called {twice[0]!r}", "one of each name", "leave one out")
    return made
