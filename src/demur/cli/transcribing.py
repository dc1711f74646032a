"""What ``demur replay`` reads and says: a source of transcripts, their lines, and how far it is."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.types import DemurError

if TYPE_CHECKING:
    from demur.guards import Guard
    from demur.prompts import Transcript
    from demur.signals import Anchors
    from demur.studio.replaying import Replayed

SHOWN = 24
"""So many transcripts stand on a page."""


def line_of(one: Replayed, anchors: Anchors, model: str) -> dict[str, Any]:
    """One transcript for machines: without a word of it."""
    line: dict[str, Any] = {
        "id": one.transcript.prompt.label,
        "sigma": [] if one.sigma is None else [round(float(value), 6) for value in one.sigma],
        "refused": one.refused,
        "read": one.read,
        "tokens": 0 if one.trace is None else one.trace.steps,
        "refusals": anchors.refusals,
        "model": model if one.trace is None else one.trace.spec.model,
        "row": one.transcript.row,
        "answer_tokens": one.tokens,
        "harmful": one.transcript.prompt.harmful,
    }
    if one.verdict is not None:
        line |= {"flagged": one.verdict.flagged, "score": one.verdict.score, "verdict": one.verdict.why}
    return line | ({"why": one.why} if one.why else {})


class Source:
    """The transcripts of a source, marked. It is read once to look at all of them, and once more to replay them, so
    that nobody has to hold them. What was looked at is what is replayed, or it raises.
    """

    def __init__(self, source: str, columns: Mapping[str, str], harmful: bool | None) -> None:
        self.source, self.columns, self.harmful = source, columns, harmful
        self.known: dict[str, Any] | None = None

    def rows(self) -> Iterator[Transcript]:
        """The transcripts, from the first on. Raises, at the end at the latest, where they are not those that were
        looked at: a file that somebody writes, or a pipe.
        """
        from demur.prompts import each_transcript

        digest, rows = hashlib.sha256(), 0
        for one in each_transcript(self.source, columns=self.columns):
            unmarked = one.prompt.harmful is None
            marked = replace(one, prompt=replace(one.prompt, harmful=self.harmful)) if unmarked else one
            digest.update(json.dumps([marked.prompt.plain(), marked.response, marked.row]).encode())
            rows += 1
            if self.known is not None and rows > self.known["rows"]:
                break
            yield marked
        found = {"rows": rows, "transcripts": digest.hexdigest()[:16]}
        if self.known is None:
            self.known = found
        elif found != self.known:
            raise DemurError(
                f"{self.source} has changed since it was looked at",
                f"the same {self.known['rows']} transcripts from the first look to the last",
                "replay a file that nobody writes, not a pipe",
            )

    def surveyed(self) -> dict[str, Any]:
        """How many there are, and a hash of their words. Raises for the first row that can not be read."""
        for _ in self.rows():
            pass
        return dict(self.known or {})


class Told:
    """What is said of the transcripts so far: lines, how many have a signal, what stands on a page, and why some have
    no signal.
    """

    def __init__(self, anchors: Anchors, model: str) -> None:
        self.anchors, self.model = anchors, model
        self.all = self.signals = 0
        self.first: list[Replayed] = []
        self.reasons: Counter[str] = Counter()
        self.places: dict[str, str] = {}

    def lines(self, found: Sequence[Replayed]) -> list[str]:
        """The lines of a window."""
        for one in found:
            self._count(one.trace is not None, one.why, one.transcript)
        self.first = first_of([found], self.first)
        return [json.dumps(line_of(one, self.anchors, self.model)) for one in found]

    def heard(self, kept: Iterable[tuple[Mapping[str, Any], Transcript]]) -> None:
        """Takes note of lines that another process has written."""
        for line, transcript in kept:
            self._count(bool(line["tokens"]), str(line.get("why", "")), transcript)

    def _count(self, has_trace: bool, why: str, transcript: Transcript) -> None:
        self.all += 1
        self.signals += has_trace
        if why:
            self.reasons[why] += 1
            self.places.setdefault(why, transcript.where)

    def notes(self) -> list[str]:
        """What has no signal, counted by its reason; where the first of them stands."""
        none = "transcripts have no signal"
        return [
            f"! {count} of {self.all} {none} ({reason}), their sigma is empty; the first: {self.places[reason]}"
            for reason, count in self.reasons.items()
        ]


def first_of(windows: Iterable[Sequence[Replayed]], more: Sequence[Replayed]) -> list[Replayed]:
    """The first ``SHOWN`` transcripts that have a trace, of windows and then of ``more``."""
    shown: list[Replayed] = []
    for window in chain(windows, [more]):
        shown += [one for one in window if one.trace is not None]
        if len(shown) >= SHOWN:
            break
    return shown[:SHOWN]


def digest_of(part: Anchors | Guard | None) -> str | None:
    """A hash of anchors or of a guard: of the file that they make."""
    from tempfile import TemporaryDirectory

    if part is None:
        return None
    with TemporaryDirectory() as folder:
        return hashlib.sha256(part.save(Path(folder) / "part").read_bytes()).hexdigest()[:16]
