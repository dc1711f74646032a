"""What a judge is, and how many texts are judged at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
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
    pool = ThreadPoolExecutor(threads, thread_name_prefix="judge")
    try:
        waiting = [pool.submit(judge, prompt, text) for prompt, text in asked]
        for done, future in enumerate(as_completed(waiting), 1):
            future.result()
            report(done)
        return [future.result() for future in waiting]
    finally:  # after an error or an interrupt: send nothing more, and do not wait for what is under way
        pool.shutdown(wait=False, cancel_futures=True)


def _silent(done: int) -> None:
    """No report."""
