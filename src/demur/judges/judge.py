"""What a judge is, and how many texts are judged at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Protocol, runtime_checkable

from demur.types import Prompt, Verdict


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


def judge_all(
    judge: Judge, pairs: Iterable[tuple[Prompt, str]], progress: Callable[[int], object] | None = None
) -> list[Verdict]:
    """Verdicts in the order of ``pairs``, judged by as many threads as the judge's ``concurrency`` (1 if it has none).

    ``progress`` is called with the number of texts done, from the caller's thread. An error of the judge ends the run;
    texts that wait are not judged any more.
    """
    asked = list(pairs)
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
