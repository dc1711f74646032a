"""Finished transcripts as traces and signals: what can be replayed, and what is said of the rest.

Any number of them: they are taken window by window, sorted by length within each, and nothing of a window stays when
the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from demur.guards.exempt import begins_marked, refuses
from demur.judges.reading import read_answer
from demur.prompts import Transcript
from demur.refusals import is_refusal, shows_nothing
from demur.signals import Anchors
from demur.traces import Key, Trace, teacher_forced, text_of
from demur.traces.batches import Batch
from demur.types import DemurError, Verdict

if TYPE_CHECKING:
    from demur.guards import Guard

NO_ANSWER = "no answer"
WINDOW = 256
"""So many transcripts are read, sorted by length and replayed before the next ones are read."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """One transcript. ``trace`` and ``sigma`` are None where ``why`` says so. ``refused`` is what the dictionary says
    of the whole answer up to its first end of sequence (None: there is none), ``read`` what it does as a reader says
    (:func:`demur.judges.reading.read_answer`; None: it can not be read), ``tokens`` how many it has.
    """

    transcript: Transcript
    trace: Trace | None
    sigma: Float[np.ndarray, "T"] | None
    refused: bool | None
    tokens: int
    verdict: Verdict | None = None
    why: str = ""
    read: str | None = None


def replayed(
    model: Any,
    transcripts: Sequence[Transcript],
    anchors: Anchors,
    guard: Guard | None = None,
    *,
    steps: int,
    wanted: Key,
    batch: Batch = 16,
    progress: Callable[[int], object] | None = None,
) -> list[Replayed]:
    """Signals of transcripts, in their order, from one pass each over at most ``steps`` tokens of the answer, or over
    the whole answer where the guard looks at it.

    A row without an answer, or that the model can't be asked (a prompt longer than its context), has no signal and says
    why. Raises if that is so of every row, and as :func:`demur.traces.teacher_forced` does for other reasons.
    """
    how: dict[str, Any] = {"steps": steps, "wanted": wanted, "batch": batch, "progress": progress}
    windows = replaying(model, transcripts, anchors, guard, window=max(1, len(transcripts)), **how)
    return [one for window in windows for one in window]


def replaying(
    model: Any,
    transcripts: Iterable[Transcript],
    anchors: Anchors,
    guard: Guard | None = None,
    *,
    steps: int,
    wanted: Key,
    batch: Batch = 16,
    chunk: int | None = None,
    window: int = WINDOW,
    found_before: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Iterator[list[Replayed]]:
    """The same, ``window`` transcripts at a time, each list when it is done; long rows in passes of ``chunk`` columns
    (:func:`demur.traces.teacher_forced`).

    Windows without a single signal wait for the first one that has some; if none comes, it raises, as
    :func:`replayed` does, unless there was one before (``found_before``). ``progress``: with the transcripts done.
    """
    rest, done = iter(transcripts), 0
    waiting: list[list[Replayed]] = []

    def counted(of_window: int) -> None:
        if progress is not None:
            progress(done + of_window)

    how: dict[str, Any] = {"steps": steps, "wanted": wanted, "batch": batch, "chunk": chunk, "progress": counted}
    while some := list(islice(rest, window)):
        waiting.append(_window(model, some, anchors, guard, **how))
        done += len(some)
        counted(0)
        found_before = found_before or any(one.trace is not None for one in waiting[-1])
        while found_before and waiting:
            yield waiting.pop(0)  # nothing of it stays here while the next window is read
    if waiting:
        reason = waiting[0][0].why
        raise DemurError(
            f"none of {done} transcripts could be replayed ({reason})",
            "at least one with an answer that this model can be asked",
            "name the answer's column: --column response=COLUMN" if reason == NO_ANSWER else "",
        )


def _window(
    model: Any,
    transcripts: Sequence[Transcript],
    anchors: Anchors,
    guard: Guard | None,
    *,
    steps: int,
    wanted: Key,
    **how: Any,
) -> list[Replayed]:
    answers = [_read(model, one.response) for one in transcripts]
    why = {i: NO_ANSWER for i, (tokens, _) in enumerate(answers) if not tokens}
    whole = guard is not None and guard.tail is not None
    length = max([steps, *(len(tokens) for tokens, _ in answers)]) if whole else steps
    traces = _traces(model, transcripts, answers, why, steps=steps, length=length, pools=[wanted], **how)
    found = []
    for i, (one, (tokens, text)) in enumerate(zip(transcripts, answers, strict=True)):
        opened = traces[i].opened if i in traces else ""  # a transcript begins behind what the template wrote
        refused = is_refusal(opened + text) if tokens else None
        if i not in traces:
            found.append(Replayed(one, None, None, refused, len(tokens), None, why[i], _does(opened + text, one)))
            continue
        sigma = anchors.signal(traces[i])
        verdict = None
        if guard is not None:
            beyond = [guard.anchors.beyond(traces[i])] if whole else None
            marked = bool(opened) or begins_marked(tokens, traces[i].pieces)
            gone = bool(refused) and refuses(opened + text, one.prompt.text, opened=marked)
            verdict = guard.judge_signals(sigma[None], [gone], beyond)[0]
        reason = "" if np.isfinite(sigma).all() else "the signal is not finite: look at the model's states"
        told, does = None if reason else sigma, _does(opened + text, one)
        found.append(Replayed(one, traces[i], told, refused, len(tokens), verdict, reason, does))
    return found


def _does(answer: str, one: Transcript) -> str | None:
    found = read_answer(answer, one.prompt.text)
    return found.value if found.readable else None


def _read(model: Any, response: str) -> tuple[list[int], str]:
    """An answer's tokens up to its first end of sequence, which included, and its text up to there."""
    if shows_nothing(response):
        return [], ""
    tokens = list(model.tokenizer(response, add_special_tokens=False, verbose=False)["input_ids"])
    end = next((i for i, token in enumerate(tokens) if token in model.stop_ids), None)
    if end is None:
        return tokens, response
    pieces, special = model.pieces(tokens[: end + 1])
    text = text_of(tokens[: end + 1], pieces, special)
    return (tokens[: end + 1] if not shows_nothing(text) else []), text


def _traces(
    model: Any,
    transcripts: Sequence[Transcript],
    answers: Sequence[tuple[list[int], str]],
    why: dict[int, str],
    *,
    length: int,
    **how: Any,
) -> dict[int, Trace]:
    """Traces by row. Rows that the model can't be asked are looked for only if a pass over all of them failed, and go
    into ``why``.
    """

    def passed() -> dict[int, Trace]:
        rows = [i for i in range(len(transcripts)) if i not in why]
        asked, said = [transcripts[i].prompt for i in rows], [answers[i][0][:length] for i in rows]
        made = teacher_forced(model, asked, said, length=length, **how)
        return dict(zip(rows, made, strict=True))

    try:
        return passed()
    except DemurError:
        before = len(why)
        for i, reason in _refused_by(model, transcripts, answers, length):
            why.setdefault(i, reason)
        if len(why) == before:
            raise
    return passed()


def _refused_by(
    model: Any, transcripts: Sequence[Transcript], answers: Sequence[tuple[list[int], str]], length: int
) -> Iterator[tuple[int, str]]:
    """Rows whose prompt and answer make no canvas of the model, and what it says of them."""
    for i, (one, (tokens, _)) in enumerate(zip(transcripts, answers, strict=True)):
        try:
            model.canvas([one.prompt], max(min(len(tokens), length), 1))
        except DemurError as error:
            yield i, f"{error.came}; expected {error.expected}" if error.expected else error.came
