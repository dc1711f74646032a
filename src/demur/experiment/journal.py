"""What a run says while it works: one plain line a minute, in ``log.txt`` of its folder and wherever somebody listens.

Names of units, counts, times and errors stand there; no prompt and no answer does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO

from demur.types import DemurError

FILE = "log.txt"
EVERY = 60.0
"""Seconds between two lines of a phase that goes on."""


class Journal:
    """A run's log while it is open: ``with Journal(folder) as journal: journal.progress("generating", 3, 10)``.

    A phase gets a line at its beginning, one a minute, and one at its end; so does the whole. ``say`` hears every line,
    without the time of day. A log that can not be written ends no run.
    """

    def __init__(self, folder: Path, say: Callable[[str], object] | None = None) -> None:
        self.path, self.say = folder / FILE, say
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.file: IO[str] | None = None
        self.phase, self.done, self.of = "", 0, 0
        self.began, self.first = 0.0, 0
        self.begun = time.monotonic()

    def __enter__(self) -> Journal:
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", encoding="utf-8", errors="replace")
        threading.Thread(target=self._tick, name="journal", daemon=True).start()
        return self

    def line(self, text: str) -> None:
        """Writes one line, at once."""
        with self.lock:
            if self.file is not None:
                with suppress(OSError, ValueError):
                    self.file.write(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {text}\n")
                    self.file.flush()
            if self.say is not None:
                self.say(text)

    def progress(self, phase: str, done: int, of: int) -> None:
        """Takes note of how far a phase is."""
        if phase != self.phase:
            self.phase, self.began, self.first = phase, time.monotonic(), done
            self.done, self.of = done, of
            self.line(self.state())
        self.done, self.of = done, of
        if done >= of and done > self.first:
            self.line(self.state())

    def state(self) -> str:
        """How far the phase is, how fast it goes and how long it will take."""
        spent, new = time.monotonic() - self.began, self.done - self.first
        text = f"{self.phase}: {self.done} of {self.of}"
        if new and spent > 0 and self.done < self.of:
            each = spent / new
            fast = f"{60 / each:.1f} a minute" if each < 60 else f"{3600 / each:.1f} an hour"
            text += f", {fast}, some {spoken(each * (self.of - self.done))} left"
        return text

    def _tick(self) -> None:
        while not self.over.wait(EVERY):
            if self.phase:
                self.line(self.state())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        lasted = spoken(time.monotonic() - self.begun)
        if kind is None:
            self.line(f"finished after {lasted}")
        else:
            what = str(error) if isinstance(error, DemurError) else kind.__name__
            self.line(f"ended after {lasted} before its end: {what}; what was finished is kept, --resume goes on")
        if self.file is not None:
            with suppress(OSError):
                self.file.close()


def spoken(seconds: float) -> str:
    """A span of time as people say it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
