"""Where units are done: each engine is a context that gives a function from jobs to an iterator of what came of them,
in any order.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import Any

from demur.extras import need
from demur.types import DemurError
from demur.workers import LAST_WORDS, pool

Job = tuple[Any, ...]
Submit = Callable[[Sequence[Job]], Iterator[Any]]


class Processes:
    """This process, or a pool of processes of one thread each."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
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
            raise DemurError(came, "workers that stay", "add --resume, perhaps with fewer --workers") from error
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
    _one_thread()
    signal.signal(signal.SIGTERM, _end)


def _end(*_: object) -> None:
    """Ends this process. Told again while it does, it goes on with that: an exit among the last things that Python puts
    in order would be told as an error.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


class Ray:
    """Ray tasks on a local cluster or on the one that ``RAY_ADDRESS`` names.

    Tasks, not actors: a worker that dies is replaced by Ray and its task tried again, and a cluster that grows is used
    as it grows. Models stay loaded in the worker processes, which Ray keeps for later tasks (``max_calls=0``: by itself
    it would end one that uses a GPU after every task). All nodes must see the run's folder.
    """

    def __init__(self, workers: int) -> None:
        self.ray: Any = need("ray", "ray")
        self.workers, self.started = workers, False

    def __enter__(self) -> Submit:
        if not self.ray.is_initialized():
            settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
            if "RAY_ADDRESS" not in os.environ:
                settings["num_cpus"] = self.workers
            ours = signal.getsignal(signal.SIGTERM)
            self.ray.init(**settings)
            self.started = True
            if ours is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, ours)  # Ray puts its own one there
        return self._submit

    def _submit(self, jobs: Sequence[Job]) -> Iterator[Any]:
        gpus = 1 if self.ray.cluster_resources().get("GPU", 0) else 0
        remote = self.ray.remote(num_cpus=1, num_gpus=gpus, max_retries=5, max_calls=0)(_on_ray)
        waiting = [remote.remote(job) for job in jobs]
        while waiting:
            ready, waiting = self.ray.wait(waiting)
            try:
                results = self.ray.get(ready)
            except self.ray.exceptions.RayTaskError:
                raise  # the task's own error, as it would come without Ray
            except self.ray.exceptions.RayError as error:
                came = f"Ray lost a worker or a node for good ({type(error).__name__})"
                raise DemurError(came, "a cluster that stays", "run the same command again with --resume") from error
            for wrong, found in results:
                if wrong is not None:
                    raise DemurError(*wrong)
                yield found

    def __exit__(self, *_: object) -> None:
        if self.started:
            self.ray.shutdown()


def _on_ray(job: Job) -> tuple[tuple[str, str, str] | None, Any]:
    """A job on a Ray worker. Users' errors come back as data, since Ray would wrap them."""
    _one_thread()
    try:
        return None, job[0](*job[1:])
    except DemurError as error:
        return (error.came, error.expected, error.then), None
