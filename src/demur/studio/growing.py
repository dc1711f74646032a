"""A file of lines that grows for hours: beside its final place, window by window, so that a kill costs one window."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demur.artefact import write, write_once
from demur.types import DemurError


@dataclass(frozen=True)
class Growing:
    """``path`` once it is whole; until then its lines stand in ``path.part``, and what they are of in
    ``path.part.json``. ``content``: everything that a line depends on, as JSON may hold it; a file goes on only with
    the same. Lines come in windows of ``window``, the last one may be shorter. One process writes at a time.
    """

    path: Path
    content: Mapping[str, Any]
    window: int
    held: list[int] = field(default_factory=list, compare=False, repr=False)
    """The open file by which this process keeps others away; it ends with this context, or the process."""

    @property
    def part(self) -> Path:
        """Where the lines grow."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def about(self) -> Path:
        """Where it is said what they are of."""
        return self.path.with_name(f"{self.path.name}.part.json")

    def is_finished(self) -> bool:
        """Whether the file is in its place already, and nothing grows beside it."""
        return self.path.is_file() and not self.part.exists()

    def lines(self) -> Iterator[dict[str, Any]]:
        """What stands in the finished file; an empty line for one that is no JSON object."""
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    said = json.loads(line)
                except ValueError:
                    said = {}
                yield said if isinstance(said, dict) else {}

    def begun(self, resume: bool) -> int:
        """How many lines are there already, in whole windows; what was torn behind them is cut off. Begins the file
        where there is none. Raises for lines of something else, and for lines that nobody asked to go on with.
        """
        if self.part.exists() and self.about.exists():
            if not resume:
                raise DemurError(
                    f"{self.part} holds lines of a replay that was not finished",
                    "--resume to go on with it",
                    "or delete it to begin anew",
                )
            self._hold()
            self._check()
            return self._cut()
        if not self.part.exists():
            write_once(self.part, "")  # of two that begin at once, both hold the same file
        self._hold()
        write(self.about, json.dumps(self.content, sort_keys=True))
        os.truncate(self.part, 0)
        return 0

    def kept(self) -> Iterator[dict[str, Any]]:
        """The lines that are there."""
        with (self.path if self.is_finished() else self.part).open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def add(self, lines: Sequence[str]) -> None:
        """A window of lines more. They are on the disk when it returns."""
        try:
            with self.part.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DemurError(
                f"{self.part} could not be written ({error.strerror or error})",
                "room, and the right to write there",
                "free space, then go on with --resume",
            ) from error

    def finish(self) -> Path:
        """Puts the whole file into its place."""
        self.part.replace(self.path)
        self.about.unlink(missing_ok=True)
        return self.path

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *problem: object) -> None:
        while self.held:
            os.close(self.held.pop())

    def _hold(self) -> None:
        """Keeps other processes away, where the system can. Raises if one is at work on the file, or has finished it
        just now.
        """
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock
        except ImportError:  # Windows
            return
        try:
            self.held.append(os.open(self.part, os.O_RDONLY))
        except OSError as error:
            raise DemurError(
                f"{self.part} can not be opened ({error.strerror or error})", "a file that one may read", "look at it"
            ) from error
        try:
            flock(self.held[0], LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            raise DemurError(
                f"another replay is writing {self.part}", "one at a time", "wait for it, or name another --out"
            ) from error
        except OSError:  # a file system that knows no such thing
            return
        if not self.part.exists() or not os.path.samestat(os.fstat(self.held[0]), self.part.stat()):
            raise DemurError(f"another replay has just finished {self.path}", "one at a time", "look at that file")

    def _check(self) -> None:
        try:
            said = json.loads(self.about.read_text(encoding="utf-8"))
        except ValueError:
            said = {}
        mine = json.loads(json.dumps(self.content))
        other = sorted(key for key in {*mine, *said} if mine.get(key) != said.get(key))
        if other:
            raise DemurError(
                f"{self.part} was begun with another {', another '.join(other)}",
                "the command that began it",
                f"give that one, or delete {self.part.name} to begin anew",
            )

    def _cut(self) -> int:
        """Leaves whole windows alone, and says how many lines they have."""
        lines = whole = end = at = 0
        with self.part.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                lines, at = lines + 1, at + len(line)
                if lines % self.window == 0:
                    whole, end = lines, at
        os.truncate(self.part, end)
        return whole
