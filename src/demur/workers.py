"""Processes that work for this one and end when it ends, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import Any

from demur.types import DemurError

Job = tuple[Any, ...]
Submit = Callable[[Sequence[Job]], Iterator[Any]]

LAST_WORDS = 5.0
"""Seconds that a worker gets to put its files in order."""


def pool(workers: int, begin: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """A pool of new processes, each of which calls ``begin`` first. Where the process that made it is killed or told to
    end, they end too: by themselves they would wait for work for ever, with all their memory.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(begin,))


def _begin(begin: Callable[[], None] | None) -> None:
    if begin:
        begin()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Waits for the parent's end; then this process is told to end, and ended if it does not."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_WORDS)
    os._exit(128 + signal.SIGTERM)


class Processes:
    """This process, or a pool of processes of one thread each.

    A context that gives a function from jobs (a function and its arguments) to an iterator of what came of them, in any
    order. Whoever stops it (Ctrl-C, an end by the system) does not wait for jobs that go on. ``again``: what to do when
    a worker has died.
    """

    def __init__(self, workers: int, again: str = "run the same command again, perhaps with fewer --workers") -> None:
        self.workers, self.again = workers, again
        self.pool: Any = None

    def __enter__(self) -> Submit:
        if self.workers < 2:
            return self._here
        self.pool = pool(self.workers, _begin_worker)
        return self._there

    def _here(self, jobs: Sequence[Job]) -> Iterator[Any]:
        for job in jobs:
            yield job[0](*job[1:])

    def _there(self, jobs: Sequence[Job]) -> Iterator[Any]:
        with _interrupts_wait():  # workers are begun here, and inherit what is kept from their parent
            futures = [self.pool.submit(*job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenExecutor as error:
            came = "a worker process died (the system may have run out of memory)"
            raise DemurError(came, "workers that stay", self.again) from error
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.pool is None:
            return
        if kind is not None and not issubclass(kind, Exception):
            self._drop()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _drop(self) -> None:
        """Ends the workers, whose units are dropped: somebody wants to stop now, not when these are finished."""
        workers = list((self.pool._processes or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + LAST_WORDS
        while any(worker.is_alive() for worker in workers) and time.monotonic() < until:
            for worker in workers:
                with suppress(OSError, ValueError, AttributeError):  # it has just ended
                    worker.terminate()
            time.sleep(0.2)
        for worker in workers:
            with suppress(OSError, ValueError, AttributeError):
                worker.kill()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Keeps Ctrl-C back until the end of the block, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker() -> None:
    """A worker leaves Ctrl-C, which a terminal sends to everybody, to the process that it works for; told to end, it
    leaves no file half-written. Before it has begun there is none, and it ends at once: an exit in here would be
    told as an error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    one_thread()
    signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> None:
    """Ends this process. Told again while it does, it goes on with that: an exit among the last things that Python puts
    in order would be told as an error.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def one_thread() -> None:
    """Has torch compute in one thread: several processes would only wait for each other."""
    import torch

    torch.set_num_threads(1)
