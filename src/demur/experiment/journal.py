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

from demur.experiment.phases import Phases, spoken
from demur.types import DemurError

FILE = "log.txt"


class Journal:
    """A run's log while it is open: ``with Journal(folder) as journal: journal.progress("generating", 3, 10)``.

    A phase gets a line at its beginning, one a minute, and one at its end; the whole has one at its end. ``say`` hears
    every line, without the time of day. A log that can not be written ends no run.
    """

    def __init__(self, folder: Path, say: Callable[[str], object] | None = None) -> None:
        self.path, self.say = folder / FILE, say
        self.lock = threading.Lock()
        self.file: IO[str] | None = None
        self.phases = Phases(self.line)
        self.begun = time.monotonic()

    def __enter__(self) -> Journal:
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.path.open("a", encoding="utf-8", errors="replace")
        self.phases.__enter__()
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
        self.phases.progress(phase, done, of)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.phases.__exit__(kind, error, trace)
        lasted = spoken(time.monotonic() - self.begun)
        if kind is None:
            self.line(f"finished after {lasted}")
        else:
            what = str(error) if isinstance(error, DemurError) else kind.__name__
            self.line(f"ended after {lasted} before its end: {what}; what was finished is kept, --resume goes on")
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
