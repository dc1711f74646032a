"""Processes that work for this one and end when it ends, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

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
