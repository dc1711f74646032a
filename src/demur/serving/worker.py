"""The one thread that generates, and the line before it.

Requests wait in the order in which they came. When there is room, the first one is taken, and with it those behind it
that can be generated with it. Up to two groups take their steps in turn, so that a short answer need not wait for a
long one, and rows are still many to a group. A row that is over frees its place at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from demur.models.memory import let_go, out_of_memory
from demur.serving.errors import Refused, busy, refused_by, unavailable
from demur.serving.group import Group, Stage
from demur.serving.limits import Limits
from demur.serving.order import Failed, Ticket
from demur.types import DemurError

GROUPS = 2
"""So many groups take their steps in turn. More would be smaller ones."""


@dataclass(eq=False)
class Watched:
    """Who is told what the worker does; each by default nobody."""

    began: Callable[[int], object] = field(default=lambda rows: None)
    """A group of so many rows."""
    stepped: Callable[[Group], object] = field(default=lambda group: None)
    ended: Callable[[Group], object] = field(default=lambda group: None)
    broke: Callable[[BaseException], object] = field(default=lambda error: None)


class Worker:
    """Generates what is put into its line."""

    def __init__(self, stage: Stage, limits: Limits, watched: Watched | None = None) -> None:
        self.stage, self.limits, self.watched = stage, limits, watched or Watched()
        self.room = limits.rows  # fewer, once memory has run out
        self.line: deque[Ticket] = deque()
        self.groups: list[Group] = []
        self.stopping, self.ended = False, False
        self.broke = False  # it has ended by a fault, and nobody has asked it to
        self.pace = 1.0  # seconds that a group takes, of late
        self._changed = threading.Condition()
        self._end_by = float("inf")
        self._thread = threading.Thread(target=self._run, name="demur-worker", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether anybody works."""
        return self._thread.is_alive()

    @property
    def is_well(self) -> bool:
        """Whether it works, or has been asked to stop: not where it has ended by itself."""
        return not self.broke and (self.is_alive or self.stopping)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is generated and nothing waits."""
        return not self.groups and not self.line

    @property
    def taken(self) -> int:
        """How many rows are generated for somebody."""
        return sum(group.waited_for for group in self.groups)

    def put(self, ticket: Ticket) -> None:
        """Puts a ticket into the line. Raises :class:`Refused` where it is full (429), or the server stops (503)."""
        with self._changed:
            if self.broke:
                raise unavailable(
                    "this server generates no more: look at its log, and start it again", "failed", retry=5
                )
            if self.stopping or not self.is_alive:
                raise unavailable("this server is being stopped", "stopping", retry=5)
            waiting = sum(not one.gone for one in self.line)
            if waiting >= self.limits.waiting and not (waiting == 0 and self._free() > 0):
                raise busy(
                    f"{waiting} requests wait; expected fewer than {self.limits.waiting}; try again", self._wait()
                )
            self.line.append(ticket)
            self._changed.notify()

    def leave(self, ticket: Ticket) -> None:
        """Nobody waits for the ticket any more: its place is free at the next step."""
        ticket.gone = True
        with self._changed:
            self._changed.notify()

    def stop(self, within: float) -> None:
        """Takes nothing more; what waits is refused, what runs has ``within`` seconds to end. Returns at once."""
        with self._changed:
            if not self.stopping:
                self.stopping, self._end_by = True, time.monotonic() + within
            self._changed.notify()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the thread to end."""
        self._thread.join(timeout)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._begin()
                for group in list(self.groups):
                    self._step(group)
                if time.monotonic() > self._end_by:
                    self._give_up()
        except BaseException as error:  # a fault of this file: nobody may wait for ever
            self.broke = True
            self.watched.broke(error)
            raise
        finally:
            with self._changed:
                self.stopping = self.ended = True
                why = unavailable("this server generates no more", "stopping", retry=5)
                for ticket in self.line:
                    ticket.tell(Failed(why))
                for group in self.groups:
                    group.fail(why)
                self.line.clear()
                self.groups.clear()

    def _wait_for_work(self) -> bool:
        """Whether there is more to do; waits until there is."""
        with self._changed:
            while not self.groups and not self.line and not self.stopping:
                self._changed.wait()
            return bool(self.groups or self.line) or not self.stopping

    def _begin(self) -> None:
        """Takes from the line what there is room for."""
        tickets = self._next()
        if not tickets:
            return
        now = time.monotonic()
        for ticket in tickets:
            ticket.begun = now
        try:
            self.groups.append(Group(self.stage, tickets))
        except Exception as error:  # the thread serves all others too
            self._fail(tickets, error)
            return
        self.watched.began(len(tickets))

    def _next(self) -> list[Ticket]:
        now = time.monotonic()
        with self._changed:
            waiting = [ticket for ticket in self.line if not ticket.gone]
            self.line.clear()
            if self.stopping:
                for ticket in waiting:
                    ticket.tell(Failed(unavailable("this server is being stopped", "stopping", retry=5)))
                return []
            late = [ticket for ticket in waiting if now > ticket.deadline]
            for ticket in late:
                ticket.tell(Failed(unavailable("no place was free in time", "timeout", self._wait())))
            waiting = [ticket for ticket in waiting if ticket not in late]
            room = self._free()
            taken: list[Ticket] = []
            if waiting and room > 0:
                key = waiting[0].order.key
                taken = [ticket for ticket in waiting if ticket.order.key == key][:room]
            self.line.extend(ticket for ticket in waiting if ticket not in taken)
            return taken

    def _free(self) -> int:
        """How many rows may begin: places that nobody has, while no more than twice as many rows are computed."""
        if len(self.groups) >= GROUPS:
            return 0
        computed = sum(group.width for group in self.groups)
        return min(self.room - self.taken, 2 * self.room - computed)

    def _step(self, group: Group) -> None:
        try:
            more = group.advance()
        except Exception as error:  # the thread serves all others too
            self.groups.remove(group)
            self._fail([row.ticket for row in group.rows if not row.over], error, group)
            return
        self.watched.stepped(group)
        if not more:
            self.groups.remove(group)
            self.pace = 0.8 * self.pace + 0.2 * group.seconds
            self.watched.ended(group)

    def _fail(self, tickets: list[Ticket], error: Exception, group: Group | None = None) -> None:
        """Tells that nothing comes of these. What is refused before the first step is the request's fault."""
        if out_of_memory(error):
            self.room = max(1, len(tickets) // 2)
            why = unavailable("memory ran out; fewer requests at once are tried from now on", "memory", self._wait())
        elif isinstance(error, DemurError) and (group is None or not group.taken):
            why = refused_by(error)
        else:
            why = unavailable("the answer could not be generated", "failed")
        if why.status != 400:
            self.watched.broke(error)
        error.__traceback__ = None  # it holds what filled the memory
        if group is not None:
            group.fail(why)
        else:
            for ticket in tickets:
                ticket.tell(Failed(why))
        if why.code == "memory":
            let_go(self.stage.model.device)

    def _give_up(self) -> None:
        """The time to end is over."""
        for group in self.groups:
            group.fail(Refused(503, "this server is being stopped", None, "stopping", 5))
            self.watched.ended(group)
        self.groups.clear()

    def _wait(self) -> int:
        """Seconds until there is room, as a guess from 1 to 60."""
        groups_before = 1 + len(self.line) / max(self.room, 1)
        return int(min(max(groups_before * self.pace, 1), 60))
