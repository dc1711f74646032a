"""How far a command is: a bar at a terminal; in a log or a pipe a line a minute, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from demur.traces import Kept

PATIENCE = 10.0
"""Seconds that a command may take elsewhere than at a terminal without a word."""

Progress = Callable[..., None]
"""``progress(what, done, of)``, and a note as a fourth argument: what is being done, how much of how much."""


@contextmanager
def progress_on(prefix: str = "", *, quiet: bool = False, stays: bool = False) -> Iterator[Progress]:
    """Tells how far the work in it is, each thing with a line of its own. ``prefix`` stands before every name. The bars
    leave when the work is done, unless they are to ``stay``. ``quiet`` says nothing at all.
    """
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield lambda *_: None
    elif console.is_terminal:
        with _bars(prefix, console, stays) as progress:
            yield progress
    else:
        from demur.experiment.phases import Phases

        with Phases(say, PATIENCE) as phases:
            yield lambda what, *how: phases.progress(prefix + what, *how)


def say(line: str) -> None:
    """A line on standard error. Who does not listen any more ends no work."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


@contextmanager
def unfinished() -> Iterator[Kept]:
    """Where a command keeps what was answered, in the cache. Stopped in whatever way, the same command goes on from
    there; once it is done, nothing of it is left.
    """
    from demur.models import cache_dir
    from demur.traces import Kept

    kept = Kept(cache_dir() / "unfinished")
    yield kept
    if kept.full:
        print(f"demur: answers could not be kept meanwhile ({kept.full})", file=sys.stderr)
    kept.forget()


@contextmanager
def _bars(prefix: str, console: Console, stays: bool) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Bars(*columns, TimeRemainingColumn(), console=console, transient=not stays)
    tasks: dict[str, Any] = {}

    def progress(what: str, done: int, of: int, note: str = "") -> None:
        if not tasks:
            bars.start()  # not before there is something to do: an empty bar leaves an empty line
        if what not in tasks:
            tasks[what] = bars.add_task("", total=of)
        bars.update(tasks[what], completed=done, total=of, description=escape(prefix + what + (note and f", {note}")))

    try:
        yield progress
    finally:
        bars.stop()
