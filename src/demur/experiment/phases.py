"""How far long work is, in plain lines: for a log, a pipe, and whoever looks after some hours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

EVERY = 60.0
"""Seconds between two lines of a phase that goes on."""


class Phases:
    """Work that has phases, while it is open: ``with Phases(print) as phases: phases.progress("generating", 3, 10)``.

    A phase gets a line at its beginning, one a minute, and one at its end. Work that is done sooner than ``patience``
    (seconds) gets none: after that long the phase that goes on is told, and from then on all are.
    """

    def __init__(self, line: Callable[[str], object], patience: float = 0.0) -> None:
        self.line, self.patience = line, patience
        self.over = threading.Event()
        self.phase, self.note = "", ""
        self.done, self.of, self.first = 0, 0, 0
        self.began = self.begun = time.monotonic()

    def __enter__(self) -> Phases:
        threading.Thread(target=self._tick, name="phases", daemon=True).start()
        return self

    def progress(self, phase: str, done: int, of: int, note: str = "") -> None:
        """Takes note of how far a phase is. ``note`` is what else is to be said of it: a loss, say."""
        if phase != self.phase or done < self.done:  # what begins anew under one name is another phase
            self.phase, self.began, self.first = phase, time.monotonic(), done
            self.done, self.of, self.note = done, of, note
            self._say()
        over = done >= of and done > max(self.first, self.done)  # who counts at every step says the end many times
        self.done, self.of, self.note = done, of, note
        if over:
            self._say()

    def state(self) -> str:
        """How far the phase is, how fast it goes and how long it will take."""
        spent, new = time.monotonic() - self.began, self.done - self.first
        text = f"{self.phase}: {self.done} of {self.of}{self.note and ', '}{self.note}"
        if new and spent > 0 and self.done < self.of:
            each = spent / new
            fast = f"{60 / each:.1f} a minute" if each < 60 else f"{3600 / each:.1f} an hour"
            text += f", {fast}, some {spoken(each * (self.of - self.done))} left"
        return text

    def _say(self) -> None:
        if time.monotonic() - self.begun >= self.patience:
            self.line(self.state())

    def _tick(self) -> None:
        wait = self.patience or EVERY
        while not self.over.wait(wait):
            wait = EVERY
            if self.phase:
                self.line(self.state())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()


def spoken(seconds: float) -> str:
    """A span of time as people say it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
