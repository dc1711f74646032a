"""What a server consists of, without its protocol: terms, orders, a worker, and who counts and writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demur.serving.group import Stage, Vocabulary
from demur.serving.keys import Keys
from demur.serving.logs import Log
from demur.serving.meters import Meters
from demur.serving.order import Answer, Event, Order, Tells, Ticket
from demur.serving.orders import Orders, Terms
from demur.serving.verdicts import told
from demur.serving.worker import Watched, Worker

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(eq=False)
class Service:
    """One model, served. ``hosts`` are the names by which clients may call it, beside those of loopback; ``tells``
    is what they are told of the guard; ``also`` is told of every answer.
    """

    terms: Terms
    hold: int = 1
    keys: Keys = field(default_factory=Keys)
    hosts: tuple[str, ...] = ()
    log: Log = field(default_factory=Log)
    tells: Tells = "signal"
    also: Callable[[Order, Answer], object] | None = None

    def __post_init__(self) -> None:
        self.orders = Orders(self.terms)
        self.meters = Meters()
        self.stage = Stage(self.terms.model, Vocabulary(self.terms.model), self.terms.guard, self.hold, self.tells)
        watched = Watched(began=self.meters.began, ended=self.meters.ended, broke=self.log.fault)
        self.worker = Worker(self.stage, self.terms.limits, watched)

    @property
    def names(self) -> frozenset[str]:
        """Hosts that a request may name, in lower case."""
        return frozenset(name.lower() for name in (*LOOPBACK, *self.hosts))

    def ticket(self, order: Order, tell: Callable[[Event], object], came: float) -> Ticket:
        """Puts an order into the line. Raises :class:`demur.serving.errors.Refused`."""
        ticket = Ticket(order, tell, came, came + self.terms.limits.seconds)
        self.worker.put(ticket)
        return ticket

    def about(self, order: Order, answer: Answer) -> dict[str, Any]:
        """The object ``demur`` of an answer."""
        return told(order, answer, self.stage.mode, self.stage.hold, self.stage.tells)

    def answered(self, order: Order, answer: Answer, came: float) -> None:
        """Counts an answer, and writes of it."""
        seconds = time.monotonic() - came
        self.meters.answered(order, answer, seconds)
        self.meters.request(_endpoint(order), "refused" if answer.refusal is not None else "answered")
        self.log.request(_endpoint(order), answer.finish, 200, seconds, order, answer)
        if self.also is not None:
            self.also(order, answer)

    def described(self) -> dict[str, Any]:
        """What ``GET /v1/models`` says of the model: how it answers where a request does not say, and who looks."""
        terms, plain = self.terms, self.orders
        guard = terms.guard
        made: dict[str, Any] = {
            "kind": str(terms.model.kind),
            "samplers": plain.names,
            "sampler": plain.named,
            "length": plain.length,
            "max_tokens": terms.limits.answer,
            "mode": self.stage.mode,
            "hold_back": self.stage.hold if guard is not None else 0,
            "tells": self.stage.tells,
            "guard": None,
        }
        if guard is not None:
            looks = guard.spec.steps if guard.tail is None else "whole answers"
            made["guard"] = {
                "promise": guard.promise,
                "steps": looks,
                "clients_may_switch_it_off": terms.guard_is_a_choice,
            }
        return made


def _endpoint(order: Order) -> str:
    return "chat" if order.chat else "completions"
