"""Where units are done on many machines. As processes do (:class:`demur.workers.Processes`), it is a context that gives
a function from jobs to an iterator of what came of them, in any order.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from demur.extras import need
from demur.types import DemurError
from demur.workers import Job, Submit, one_thread


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
    one_thread()
    try:
        return None, job[0](*job[1:])
    except DemurError as error:
        return (error.came, error.expected, error.then), None
