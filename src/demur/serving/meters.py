"""Numbers for Prometheus, under the prefix ``demur_``. No label holds a word of a client."""

from __future__ import annotations

from typing import Any

from demur.extras import need
from demur.serving.group import Group
from demur.serving.order import Answer, Order
from demur.serving.worker import Worker

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
LOOKS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Meters:
    """One server's; two servers in one process count apart."""

    def __init__(self) -> None:
        client = need("prometheus_client", "serve")
        self.client, self.registry = client, client.CollectorRegistry()

        def made(kind: str, name: str, what: str, labels: tuple[str, ...] = (), **more: Any) -> Any:
            return getattr(client, kind)(f"demur_{name}", what, labels, registry=self.registry, **more)

        self.requests = made("Counter", "requests", "Requests, by how they ended.", ("endpoint", "outcome"))
        self.verdicts = made("Counter", "verdicts", "Verdicts: flagged, let_pass or not_watched.", ("verdict",))
        self.tokens = made("Counter", "tokens", "Tokens of requests that were answered.", ("kind",))
        self.steps = made("Counter", "steps", "Steps that groups of rows have taken.")
        self.waiting = made("Gauge", "waiting", "Requests that wait for a place.")
        self.places = made("Gauge", "places_taken", "Rows that are generated for somebody.")
        self.room = made("Gauge", "places", "Rows that may be generated at once.")
        self.rows = made("Histogram", "group_rows", "Rows of a group as it begins.", buckets=ROWS)
        self.answer = made("Histogram", "answer_seconds", "From a request's arrival to its answer.", buckets=SECONDS)
        self.first = made(
            "Histogram", "first_text_seconds", "From arrival to the first text of a stream.", buckets=SECONDS
        )
        self.look = made("Histogram", "look_seconds", "A guard's time for one step of a group, mean.", buckets=LOOKS)

    def began(self, rows: int) -> None:
        """A group of so many rows."""
        self.rows.observe(rows)

    def ended(self, group: Group) -> None:
        """A group has taken its last step."""
        self.steps.inc(group.taken)
        if group.seen is not None and group.taken:
            self.look.observe(group.looking / group.taken)

    def request(self, endpoint: str, outcome: str) -> None:
        """A request has ended so."""
        self.requests.labels(endpoint, outcome).inc()

    def answered(self, order: Order, answer: Answer, seconds: float) -> None:
        """An answer was given."""
        self.answer.observe(seconds)
        self.tokens.labels("read").inc(len(order.row))
        self.tokens.labels("written").inc(answer.tokens)
        self.judged(answer.verdict.flagged)

    def judged(self, flagged: bool | None) -> None:
        """A verdict."""
        name = "not_watched" if flagged is None else "flagged" if flagged else "let_pass"
        self.verdicts.labels(name).inc()

    def began_to_speak(self, seconds: float) -> None:
        """The first text of a stream has left."""
        self.first.observe(seconds)

    def page(self, worker: Worker) -> bytes:
        """All of it, as Prometheus reads it."""
        self.waiting.set(len(worker.line))
        self.places.set(worker.taken)
        self.room.set(worker.room)
        page: bytes = self.client.generate_latest(self.registry)
        return page
