"""Which row of a batch is which request, what a flag does to its logits, and what is told of it afterwards.

An engine's interfaces say when a row comes, moves and goes, not why it goes: it may have ended, or it was put aside and
comes back. So a request that goes is *parked* with its place among the states, until it comes back, or too many others
have gone after it. One that comes back to find its states gone is *not watched*, and its verdict says so.

Steps count from 1. With ``producing`` the state that a row's logits are made of belongs to the token about to be
written; with ``generated`` to the one before, which was fed back. So a flag acts before the next token is drawn.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.engines.vllm.look import Eyes, Glance, columns
from demur.engines.vllm.options import Mode, Options
from demur.engines.vllm.request import Request, Verdict
from demur.guards import Guard
from demur.guards.drawing import drawn_otherwise

PARKED = 256
"""So many requests that have left a batch keep their states."""
_UNREAD = 256  # rows of finished requests that are still on the device


@dataclass(eq=False)
class Post:
    """A guard at work: its eyes, what a flag does, and what it writes. ``notes`` go into every verdict; ``digest`` is
    the sha256 of its file.
    """

    guard: Guard
    look: Eyes
    mode: Mode
    refusal: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    digest: str = ""
    forced: dict[int, Tensor] = field(default_factory=dict)

    @property
    def own(self) -> bool:
        """Whether a token's own state is read."""
        return self.guard.spec.pool == "generated"

    def written_by(self, stop: int) -> Tensor:
        """The tokens that are forced, one after the other; the last one for ever."""
        if stop not in self.forced:
            tokens = [*(self.refusal if self.mode is Mode.REFUSE else ()), stop]
            self.forced[stop] = torch.tensor(tokens, device=self.look.device)
        return self.forced[stop]


class Desk:
    """All requests of one engine under its guards."""

    def __init__(
        self, posts: dict[str, Post], options: Options, device: torch.device, engine: dict[str, Any] | None = None
    ) -> None:
        self.engine = engine or {}  # what is told of it
        self.posts, self.options, self.device = posts, options, device
        self.rows: dict[int, Request] = {}
        self.parked: OrderedDict[int, Request] = OrderedDict()
        self.unread: list[tuple[Request, Tensor | None]] = []
        self.known: OrderedDict[int, Verdict] = OrderedDict()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.number = 0

    # -- who is where ---------------------------------------------------------------------------------------------

    def add(self, index: int, request: Request) -> None:
        """A request takes a row; one that was parked takes up where it was."""
        self.remove(index)
        back = self._comes_back(request)
        if back is not None:
            back.out = request.out
            self.rows[index] = back
            return
        self.number += 1
        request.number = self.number
        request.id = request.id or f"{self.number}"
        request.place = self.posts[request.guard].look.take()
        self.rows[index] = request

    def _comes_back(self, request: Request) -> Request | None:
        """The parked request that this is; None for a new one, and where several could be meant. The choices of one
        request share a key: who comes with fewer tokens than were written, but for the last one, is another one.
        """
        known = float("inf") if request.out is None else len(request.out)
        same = [each for each in self.parked.values() if each.key is request.key and each.written <= known + 1]
        if request.out is not None and len(same) > 1:
            same = [each for each in same if each.out is request.out]
        if len(same) != 1 or same[0].guard != request.guard:
            return None
        return self.parked.pop(same[0].number)

    def remove(self, index: int) -> None:
        """Nobody has this row any more."""
        request = self.rows.pop(index, None)
        if request is None:
            return
        if request.out is not None and request.has_ended(len(request.out)):
            self._finish(request)
            return
        self.parked[request.number] = request
        while len(self.parked) > PARKED:
            self._finish(self.parked.popitem(last=False)[1])

    def move(self, source: int, target: int, swap: bool) -> None:
        """A row moves, or two change places."""
        moved, other = self.rows.pop(source, None), self.rows.pop(target, None)
        if moved is not None:
            self.rows[target] = moved
        if other is not None and swap:
            self.rows[source] = other
        elif other is not None:  # it is overwritten
            self.rows[target] = other
            self.remove(target)
            if moved is not None:
                self.rows[target] = moved

    # -- a step ---------------------------------------------------------------------------------------------------

    def step(
        self,
        logits: Float[Tensor, "n v"],
        states: Float[Tensor, "n d"] | None,
        rows: Sequence[tuple[int, Request, int]],
        fed: Int[Tensor, "n"] | None = None,
    ) -> Float[Tensor, "n v"]:
        """One look at every row, and what follows for its logits, which are changed in place. ``rows``: the row of the
        logits, its request, and how many tokens of the answer are written. ``fed``: the token that each row was fed.
        """
        blind = ""
        if states is None or len(states) != len(logits):
            blind = f"the head was given {'nothing' if states is None else len(states)} for {len(logits)} rows"
        for name, post in self.posts.items():
            mine = [(row, each, written) for row, each, written in rows if each.guard == name]
            if not mine:
                continue
            for _, request, _ in mine if blind else ():
                request.lost = request.lost or blind
            if states is not None and not blind:
                self._see(post, states, mine, fed)
            if post.mode is not Mode.WATCH:
                self._act(post, logits, mine)
        return logits

    def _see(
        self, post: Post, states: Tensor, mine: Sequence[tuple[int, Request, int]], fed: Int[Tensor, "n"] | None
    ) -> None:
        """Shows the guard the rows in which there is something new."""
        look, seen = post.look, list[Glance]()
        for row, request, written in mine:
            step = written if post.own else written + 1
            if request.lost or step < 1 or request.has_ended(written):
                continue
            again = step == request.steps
            if not again and step != request.steps + 1:
                request.lost = f"the states of step {request.steps + 1} were not seen: step {step} came"
                continue
            request.steps, request.written = step, written
            if look.looks_at(step):
                seen.append(Glance(row, request.place, step, again, request.stops))
        if seen:
            look.see(states, seen, fed)

    def _act(self, post: Post, logits: Tensor, mine: Sequence[tuple[int, Request, int]]) -> None:
        """Leaves flagged rows one token: the next of the refusal, or a stop token. Of a request that has none, nothing
        can be ended, and its verdict says so.
        """
        mine = [(row, request, written) for row, request, written in mine if request.stops]
        lost = self.options.unseen and any(request.lost for _, request, _ in mine)
        if not mine or (not lost and post.look.is_quiet([request.place for _, request, _ in mine])):
            return
        at, places, steps, stops = columns(
            [
                (row, request.place, written if post.own else written + 1, request.stops[0])
                for row, request, written in mine
            ],
            self.device,
        )
        flagged = post.look.flagged(places)
        unseen = torch.zeros_like(flagged, dtype=torch.bool)
        if lost:
            unseen = torch.tensor([bool(request.lost) for _, request, _ in mine], device=self.device)
            for _, request, _ in mine:
                request.ended_by_us |= bool(request.lost)
        hit = (flagged > 0) | unseen
        since = torch.where(flagged > 0, steps - flagged, 0).long()
        token = torch.empty_like(stops)
        for stop in {request.stops[0] for _, request, _ in mine}:
            line = post.written_by(stop)
            token = torch.where(stops == stop, line[since.clamp(min=0, max=len(line) - 1)], token)
        token = torch.where(unseen & (flagged == 0), stops, token)
        _leave_one(logits, at, hit, token)

    # -- what is told ---------------------------------------------------------------------------------------------

    def _finish(self, request: Request) -> None:
        """Its place is given back; what is to be told of it is read when somebody asks, or when there is much of it."""
        look = self.posts[request.guard].look
        self.unread.append((request, look.row(request.place) if request.place >= 0 else None))
        if request.place >= 0:
            look.give(request.place)
        if len(self.unread) >= _UNREAD:
            self.read()

    def read(self) -> None:
        """Brings what is told of finished requests from the device, and forgets the oldest of them."""
        verdicts = self._verdicts(self.unread)
        self.known |= {verdict.number: verdict for verdict in verdicts}
        self._count(verdicts, self.counts)
        self.unread = []
        while len(self.known) > self.options.keep:
            self.known.popitem(last=False)

    def verdicts(self, id_: str | None = None) -> list[dict[str, Any]]:
        """What is known of a request, or of all, in the order in which they came; of one that still runs, so far."""
        self.read()
        going = [each for each in (*self.rows.values(), *self.parked.values()) if id_ in (None, each.id)]
        rows = [(each, self.posts[each.guard].look.row(each.place)) for each in going]
        known = [verdict for verdict in self.known.values() if id_ in (None, verdict.id)]
        return [verdict.plain() for verdict in sorted([*known, *self._verdicts(rows)], key=lambda v: v.number)]

    def counters(self) -> dict[str, dict[str, int]]:
        """How many requests of each guard that have left the batch were let pass, flagged, not watched, and how many
        were acted on; and how many run. One that was put aside and comes back moves from the first to the last.
        """
        self.read()
        counts = Counter(self.counts)
        gone = [(each, self.posts[each.guard].look.row(each.place)) for each in self.parked.values()]
        self._count(self._verdicts(gone), counts)
        names = ("let pass", "flagged", "not watched", "acted")
        found = {guard: {name: counts[guard, name] for name in names} for guard in self.posts}
        for guard, counted in found.items():
            counted["running"] = sum(each.guard == guard for each in self.rows.values())
        return found

    @staticmethod
    def _count(verdicts: Sequence[Verdict], counts: Counter[tuple[str, str]]) -> None:
        for verdict in verdicts:
            counts[verdict.guard, verdict.status] += 1
            counts[verdict.guard, "acted"] += verdict.acted

    def _verdicts(self, rows: Sequence[tuple[Request, Tensor | None]]) -> list[Verdict]:
        """One transfer for all rows of a guard's T that lie on one device."""
        numbers: dict[int, list[float]] = {}
        for size, device in {(len(row), row.device) for _, row in rows if row is not None}:
            of_size = [(q, row) for q, row in rows if row is not None and (len(row), row.device) == (size, device)]
            together = torch.stack([row for _, row in of_size]).cpu().tolist()
            numbers |= {id(request): line for (request, _), line in zip(of_size, together, strict=True)}
        return [self._verdict(request, numbers[id(request)]) for request, row in rows if row is not None]

    def _verdict(self, request: Request, numbers: list[float]) -> Verdict:
        post = self.posts[request.guard]
        *sigma, flagged, score, last, worst = numbers
        at = round(flagged)
        steps = request.steps
        if request.out is not None and steps and len(request.out) <= request.written:
            steps -= 1  # the token of the last row never came: the row was part of a prompt, or was thrown away
        if at > steps:
            at = 0
        acts = post.mode is not Mode.WATCH and bool(request.stops)
        if at and acts:
            steps = min(steps, at)
        looked = steps if post.guard.tail else min(steps, post.look.steps)
        watched, why = True, "" if at else f"no step was above the limit{_unlooked(steps - looked)}"
        if request.lost:
            watched, why = False, request.lost
        elif not steps:
            watched, why = False, "no state of it was seen"
        limit = post.guard.limit_after(at or max(steps, 1))
        if at and watched:
            seen = math.isfinite(score)
            why = f"step {at}: score {score:.3g}, limit {limit:.3g}" if seen else f"step {at}: the signal is not finite"
        return Verdict(
            request.id, request.number, request.guard, str(post.mode), watched,
            bool(at) if watched or at else None, at or None, acts and (bool(at) or request.ended_by_us),
            score if steps else None, limit, steps, tuple(sigma[: min(steps, len(sigma))]), last if steps else None,
            worst if steps else None, why, looked, (*post.notes, *self._notes(post, request)),
        )  # fmt: skip

    def _notes(self, post: Post, request: Request) -> tuple[str, ...]:
        settings, notes = post.guard.spec.settings, [*request.notes]
        own = settings.get("temperature", 0.0)
        if own != request.temperature:
            notes.append(f"sampled at temperature {request.temperature:g}; the guard was calibrated at {own:g}")
        if otherwise := drawn_otherwise(settings, {**request.drawn, "temperature": request.temperature}):
            notes.append(f"drawn with {otherwise}; the guard was calibrated otherwise")
        return tuple(notes)


def _unlooked(steps: int) -> str:
    """What a verdict says of steps that are behind what its guard looks at."""
    return f"; {steps} further steps were not looked at" if steps else ""


def _leave_one(
    logits: Float[Tensor, "n v"], at: Int[Tensor, "b"], hit: Bool[Tensor, "b"], token: Int[Tensor, "b"]
) -> None:
    """Of the rows ``at`` that are ``hit``, every logit but that of ``token`` becomes minus infinity. In place, and
    without asking the device which rows these are.
    """
    of_all = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    of_all[at] = hit
    kept = logits[at, token]
    logits.masked_fill_(of_all[:, None], -torch.inf)
    logits[at, token] = torch.where(hit, torch.zeros_like(kept), kept)
