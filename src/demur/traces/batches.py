"""Rows in batches: as many at once as were asked for, or as many as fit. The one place where memory may run out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from demur.kinds import fits
from demur.models.memory import batch_that_fits, let_go, out_of_memory, what_fits
from demur.types import DemurError, Model, Prompt

Batch = int | Literal["auto"]
"""Rows at once; ``auto``: what fits, by an estimate, and half of it wherever memory runs out all the same."""
Row = TypeVar("Row")
Made = TypeVar("Made")


def in_batches(
    model: Model,
    rows: Sequence[Row],
    batch: Batch,
    run: Callable[[Sequence[Row]], Sequence[Made]],
    planned: Callable[[], int],
    less: Callable[[], str] = lambda: "",
) -> Iterator[tuple[Sequence[Row], Sequence[Made]]]:
    """``run`` of groups of rows, in their order, each with what came of it. ``planned`` gives the first size of
    ``auto``; it is called once, if there are rows. ``less`` says what of one row would fit, where not even one does.

    With ``auto`` a group that does not fit is halved and tried again, and no later one is larger. With a number it ends
    in one line that names a batch which fits: halves of the group are tried until one runs to its end. Raises where
    not even one row fits.
    """
    size = batch if batch != "auto" else planned() if rows else 1
    begin = 0
    while begin < len(rows):
        group = rows[begin : begin + size]
        made = _tried(model, run, group)
        if made is None:
            fits = len(group) // 2
            if batch == "auto" and fits:
                size = fits
                continue
            while fits and _tried(model, run, group[:fits]) is None:
                fits //= 2
            raise _too_large(model, len(group), fits, less() if not fits else "")
        yield group, made
        begin += len(group)


def _tried(model: Model, run: Callable[[Sequence[Row]], Sequence[Made]], group: Sequence[Row]) -> Sequence[Made] | None:
    """What came of a group; None if memory ran out. The error is let go first: it holds what filled the memory."""
    try:
        return run(group)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    let_go(model.device)
    return None


def _too_large(model: Model, rows: int, fits: int, less: str) -> DemurError:
    came = f"{rows} row{'s'[: rows > 1]} at once do{'es'[: 2 * (rows == 1)]} not fit into the memory of {model.device}"
    if not fits:
        shorter = f"{less}, by an estimate" if less else "take shorter answers"
        return DemurError(
            came, "room for at least one row", f"{shorter}; or take another dtype (--dtype), or a smaller model"
        )
    return DemurError(
        came,
        f"a batch of {fits}, which does: it was tried",
        f"say batch={fits} (--batch {fits}), or batch='auto', which finds it",
    )


def plan(model: Model, prompts: Sequence[Prompt], *, length: int, steps: int) -> int:
    """The first size of ``auto`` for prompts of a model: :func:`demur.models.memory.batch_that_fits` of the longest."""
    return batch_that_fits(model, rows=len(prompts), prompt=_widest(model, prompts), length=length, steps=steps)


def less(model: Model, prompts: Sequence[Prompt], *, length: int, steps: int) -> str:
    """What of one row would fit, in words: :func:`demur.models.memory.what_fits` of the longest."""
    return what_fits(model, prompt=_widest(model, prompts), length=length, steps=steps)


def _widest(model: Model, prompts: Sequence[Prompt]) -> int:
    return model.canvas([max(prompts, key=characters)], 1).width - 1


def characters(prompt: Prompt) -> int:
    """How long a prompt is: its text, what its answer begins with, and the turns before."""
    turns = sum(len(message.content) for message in prompt.messages or ())
    return len(prompt.text) + len(prompt.prefill) + turns


def check_batch(batch: Any) -> None:
    """Raises for what is neither ``auto`` nor a number of at least 1."""
    if not (isinstance(batch, str) and batch == "auto") and not (fits(batch, int) and batch >= 1):
        raise DemurError(f"batch={batch!r:.40}", "a whole number of at least 1, or 'auto'", "name one of these")
