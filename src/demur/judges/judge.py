"""What a judge is, and how many texts are judged at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Set
from queue import Empty, SimpleQueue
from typing import Any, Protocol, runtime_checkable

from demur.kinds import check_prompt, check_text, shown
from demur.types import DemurError, Prompt, Verdict


@runtime_checkable
class Judge(Protocol):
    """Says of a text whether it is harmful compliance with a request.

    A judge may have a ``concurrency``: how many texts it can judge at once.
    """

    @property
    def name(self) -> str:
        """Stands in its verdicts as ``by``."""
        ...

    def __call__(self, prompt: Prompt, text: str) -> Verdict:
        """A verdict on ``text`` (what the prompt prefilled included) as an answer to ``prompt``.

        For an attacked prompt, give the request that it was made from: a scrambled one says little about harm.
        """
        ...


def _pairs(judge: Any, pairs: Any) -> list[tuple[Prompt, str]]:
    """Raises for what can not be judged, before anything is."""
    if not callable(judge) or isinstance(judge, type):
        then = "make one: demur.judges.judge_named('reading'), or Dictionary()"
        raise DemurError(f"{shown(judge)} in the place of a judge", "a judge", then)
    given = list(pairs) if isinstance(pairs, Iterable) and not isinstance(pairs, str | bytes | Mapping) else [pairs]
    asked = []
    for one in given:
        listed = isinstance(one, Iterable) and not isinstance(one, str | bytes | Mapping | Set)
        if not listed or len(pair := tuple(one)) != 2:  # a row of an array is one, too
            came = f"{shown(one)} in the place of a pair"
            raise DemurError(came, "pairs of a prompt and an answer's text", "judge_all(judge, [(prompt, text), ...])")
        check_prompt(pair[0])
        check_text(pair[1], "an answer's text")
        asked.append(pair)
    return asked


def judge_all(
    judge: Judge, pairs: Iterable[tuple[Prompt, str]], progress: Callable[[int], object] | None = None
) -> list[Verdict]:
    """Verdicts in the order of ``pairs``, judged by as many threads as the judge's ``concurrency`` (1 if it has none).

    ``progress`` is called with the number of texts done, from the caller's thread. An error of the judge ends the run;
    texts that wait are not judged any more.
    """
    asked = _pairs(judge, pairs)
    threads = min(int(getattr(judge, "concurrency", 1)), len(asked))
    report = progress if progress is not None else _silent
    if threads <= 1:
        verdicts = []
        for prompt, text in asked:
            verdicts.append(judge(prompt, text))
            report(len(verdicts))
        return verdicts
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(len(asked)):
        waiting.put(number)
    ended: SimpleQueue[tuple[int, Verdict | BaseException]] = SimpleQueue()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                ended.put((number, judge(*asked[number])))
            except BaseException as error:  # raised again where somebody waits for it
                stop.set()
                ended.put((number, error))
                return

    # Daemons: a program that is interrupted does not wait for what is under way, nor for an endpoint's pauses.
    for at in range(threads):
        threading.Thread(target=work, name=f"judge-{at}", daemon=True).start()
    found: dict[int, Verdict] = {}
    try:
        while len(found) < len(asked):
            number, verdict = ended.get()
            if isinstance(verdict, BaseException):
                raise verdict
            found[number] = verdict
            report(len(found))
    finally:  # after an error or an interrupt: send nothing more
        stop.set()
    return [found[number] for number in range(len(asked))]


def _silent(done: int) -> None:
    """No report."""
