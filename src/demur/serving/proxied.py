"""An engine, the weights on which its words are replayed, and what holds where a look is late or fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
from anyio import to_thread

from demur.extras import need
from demur.serving.keys import Keys
from demur.serving.limits import Limits
from demur.serving.logs import Log
from demur.serving.order import Tells
from demur.serving.passing import Policy, Rules
from demur.serving.replaying import NOTHING, Judged, Replay
from demur.serving.service import LOOPBACK
from demur.serving.upstream import Upstream
from demur.serving.verdicts import not_watched, rounded
from demur.types import DemurError, Prompt, TooLong


@dataclass(eq=False)
class Proxy:
    """One engine, and who judges what it says. ``late``: seconds that a look may take. ``tells``: whether clients get
    the guard's numbers, by which an attacker could steer, or its word alone. ``models``: those that clients may ask for
    (empty: all of the engine's); ``also``: parameters that go on to it beside those that are known.
    """

    upstream: Upstream
    replay: Replay
    policy: Policy = "closed"
    window: int = 16
    late: float = 10.0
    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    hosts: tuple[str, ...] = ()
    log: Log = field(default_factory=Log)
    tells: Tells = "signal"
    models: Sequence[str] = ()
    also: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.window < 1 or not self.late > 0:
            raise DemurError(f"window={self.window} and late={self.late}", "at least 1, and above 0", "raise them")
        self.meters = Counts()
        own = self.replay.guard.spec.settings
        self.rules = Rules(self.policy, self.limits, self.models, self.also, self.replay.controls, own)
        self._one = anyio.CapacityLimiter(1)  # a model is asked by one at a time

    @property
    def names(self) -> frozenset[str]:
        """Hosts that a request may name, in lower case."""
        return frozenset(name.lower() for name in (*LOOPBACK, *self.hosts))

    async def judged(self, prompt: Prompt, text: str) -> Judged:
        """What the guard says of a text so far; not watched where the replay is late or fails. A look that is given up
        while it waits for its turn is never made: else those behind it were late for its sake.
        """
        given_up = threading.Event()

        def replayed() -> Judged:
            return self.replay(prompt, text, lambda: not given_up.is_set())

        try:
            with anyio.fail_after(self.late):
                found = await to_thread.run_sync(replayed, limiter=self._one, abandon_on_cancel=True)
        except TimeoutError:
            self.meters.replays.labels("late").inc()
            return Judged(not_watched(f"the replay took longer than {self.late:g} seconds"))
        except TooLong:
            self.meters.replays.labels("failed").inc()
            return Judged(not_watched("prompt and answer are longer than the context of the model that replays them"))
        except Exception as error:  # whatever a model raises: the policy decides
            self.log.fault(error)
            self.meters.replays.labels("failed").inc()
            return Judged(not_watched("the replay failed"))
        finally:
            given_up.set()
        self.meters.replays.labels("done").inc()
        return found

    def stops(self, found: Judged) -> bool:
        """Whether a text ends here."""
        flagged = found.verdict.flagged
        return bool(flagged) or (flagged is None and found is not NOTHING and self.policy == "closed")

    def ended(self, outcome: str, status: int, came: float, found: Judged | None = None, unwatched: int = 0) -> None:
        """Counts a request, and writes of it: how it ended, and the verdict of an answer that was given or stopped."""
        self.meters.request("chat", outcome)
        told: dict[str, Any] = {"outcome": outcome, "status": status, "seconds": round(time.monotonic() - came, 3)}
        if found is not None:
            verdict = found.verdict
            told |= {"flagged": verdict.flagged, "score": rounded(verdict.score), "step": verdict.step}
            told |= {"looked": found.looked, "steps": found.steps, "unwatched_looks": unwatched}
            if verdict.flagged is None:
                told["why"] = verdict.why
            self.meters.judged(verdict.flagged)
            if verdict.flagged is None and found is not NOTHING:
                self.meters.unwatched.labels(self.policy).inc()
        self.log.line("request", endpoint="proxy", **told)

    def about(self, found: Judged, unwatched: int = 0, note: str = "") -> dict[str, Any]:
        """The object ``demur`` of an answer; ``unwatched`` looks were late or failed, and the policy let them pass.
        ``note`` is what a reader of the verdict has to know.
        """
        verdict, numbers = found.verdict, self.tells == "signal"
        if not numbers:
            said = {True: "flagged", False: "let pass", None: verdict.why}[verdict.flagged]
            verdict = replace(verdict, score=None, why=f"{said}; this proxy tells no scores")
            found = replace(found, verdict=verdict, limit=None, sigma=None)
        told = {"by": verdict.by, "flagged": verdict.flagged, "score": rounded(verdict.score)}
        made = {
            "verdict": told | {"limit": rounded(found.limit), "step": verdict.step, "why": verdict.why},
            "mode": "held back",
            "window": self.window,
            "policy": self.policy,
            "replayed_on": self.replay.model.name,
            "sigma": None if found.sigma is None else [rounded(value) for value in found.sigma],
            "looked": found.looked,
            "steps": found.steps,
            "unwatched_looks": unwatched,
        }
        return made | ({"note": note} if note else {})


class Counts:
    """Numbers for Prometheus, under the prefix ``demur_proxy_``."""

    def __init__(self) -> None:
        client = need("prometheus_client", "serve")
        self.client, self.registry = client, client.CollectorRegistry()

        def counter(name: str, what: str, labels: tuple[str, ...]) -> Any:
            return client.Counter(f"demur_proxy_{name}", what, labels, registry=self.registry)

        self.requests = counter("requests", "Requests, by how they ended.", ("endpoint", "outcome"))
        self.verdicts = counter("verdicts", "Verdicts: flagged, let_pass or not_watched.", ("verdict",))
        self.replays = counter("replays", "Looks: done, late or failed.", ("outcome",))
        self.open = client.Gauge("demur_proxy_open", "Requests that are being answered.", registry=self.registry)
        self.unwatched = counter("unwatched", "Answers that were not watched, by what the policy did.", ("policy",))

    def request(self, endpoint: str, outcome: str) -> None:
        """A request has ended so."""
        self.requests.labels(endpoint, outcome).inc()

    def judged(self, flagged: bool | None) -> None:
        """A verdict."""
        self.verdicts.labels("not_watched" if flagged is None else "flagged" if flagged else "let_pass").inc()

    def page(self) -> bytes:
        """All of it, as Prometheus reads it."""
        page: bytes = self.client.generate_latest(self.registry)
        return page
