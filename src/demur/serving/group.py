"""Orders that are generated together: one canvas, one generator of steps, and a reader for every row.

Rows are independent: each has its own random numbers, and its answer is the one that the same seed gives alone. A row
is over when it has ended by itself, was cut (a stop string, ``most`` tokens), was stopped by the guard, or nobody waits
for it. When all are over, no further step is computed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from demur.guards import Guard, Watch
from demur.guards.rows import Row, new_rows
from demur.refusals import REFUSAL
from demur.samplers import seeded, steps_of
from demur.serving.errors import Refused, unavailable
from demur.serving.order import Answer, Done, Drawn, Failed, Mode, Said, Tells, Ticket
from demur.serving.settled import Settled
from demur.serving.texts import Text
from demur.serving.verdicts import not_watched, sigma_of, told, verdict_of
from demur.traces import text_of
from demur.types import Canvas, Model, Need, Sampler, Step


class Vocabulary:
    """The bytes of tokens, looked up once each; ``unseen`` are those that no text shows: special ones and the mask."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.pieces: dict[int, bytes] = {}
        self.unseen: set[int] = set() if model.mask_id is None else {model.mask_id}
        table = getattr(model.net, "get_input_embeddings", lambda: None)()
        self.know(range(int(getattr(table, "num_embeddings", 0) or 0)))

    def know(self, ids: Sequence[int] | set[int]) -> None:
        """Makes sure that these are known; -1 is no token."""
        new = {*ids} - self.pieces.keys() - {-1}
        if new:
            pieces, special = self.model.pieces(sorted(new))
            self.pieces |= pieces
            self.unseen |= special


@dataclass(frozen=True, eq=False)
class Stage:
    """What all groups share. ``hold`` steps are held back (0: asynchronous); ``tells`` is what clients are told."""

    model: Model
    vocabulary: Vocabulary
    guard: Guard | None = None
    hold: int = 1
    tells: Tells = "signal"

    @property
    def mode(self) -> Mode:
        """How the guard looks."""
        if self.guard is None:
            return "not watched"
        return "held back" if self.hold else "asynchronous"


class Group:
    """Tickets whose orders have one key. :meth:`advance` takes one step."""

    def __init__(self, stage: Stage, tickets: Sequence[Ticket]) -> None:
        self.stage, self.order = stage, tickets[0].order
        guard = stage.guard if self.order.watched else None
        model = stage.model.watching(own=False)
        if guard is not None:
            model = stage.model.watching(guard.spec.layer, own=guard.spec.pool == "generated")
        orders = [ticket.order for ticket in tickets]
        self.canvas: Canvas = model.canvas_of([order.row for order in orders], self.order.places)
        self.timed = Timed(self.order.sampler)
        self.seen = new_rows(guard, len(tickets)) if guard is not None else None
        rngs = [seeded(order.seed, 1)[0] for order in orders]
        self.steps: Iterator[Step]
        if guard is None:
            self.steps = self.timed(model, self.canvas, rngs)
        else:
            self.steps = Watch(guard, hold=stage.hold)(self.timed)(model, self.canvas, rngs, self.seen)
        self.settled = Settled(self.order.sampler, len(tickets), self.order.places)
        self.rows = [
            Reader(ticket, stage, self.seen[i] if self.seen is not None else None) for i, ticket in enumerate(tickets)
        ]
        self.rows_may_wait = Need.RENOISE in model.offers
        self.taken = 0
        self.seconds = 0.0

    @property
    def width(self) -> int:
        """How many rows are computed."""
        return len(self.rows)

    @property
    def waited_for(self) -> int:
        """How many of them somebody waits for."""
        return sum(not row.over for row in self.rows)

    @property
    def looking(self) -> float:
        """Seconds that the guard has taken."""
        return max(self.seconds - self.timed.seconds, 0.0) if self.seen is not None else 0.0

    def advance(self) -> bool:
        """One step; whether another may follow. What rows say of it is told at once."""
        self._leave()
        if not self.waited_for:
            self.steps.close()  # type: ignore[attr-defined]
            return False
        begun = time.perf_counter()
        step = next(self.steps, None)
        self.seconds += time.perf_counter() - begun
        if step is None:
            for row in self.rows:
                row.last()
            return False
        self.taken += 1
        self._read(step)
        return True

    def fail(self, why: Refused) -> None:
        """No row goes on."""
        for row in self.rows:
            row.fail(why)
        self.steps.close()  # type: ignore[attr-defined]

    def _leave(self) -> None:
        """Rows that nobody waits for, and those whose time is over."""
        now = time.monotonic()
        for row in self.rows:
            if row.ticket.gone:
                row.over = True
            elif now > row.ticket.deadline:
                row.fail(unavailable("the answer took longer than this server allows", "timeout"))

    def _read(self, step: Step) -> None:
        """Brings the host what the rows read of a step, in two transfers."""
        places = self.order.places
        ids, open_, guessed = (x[:, -places:] for x in (step.ids, step.open, ~step.confidence.isnan()))
        guesses = torch.where(guessed, step.predictions[:, -places:], -1)
        filled = torch.where(open_, guesses, ids)
        tokens, still_open = torch.stack([filled, open_.to(filled.dtype)]).cpu().numpy()
        replaced = step.replaced if step.replaced is not None else torch.zeros_like(step.live)
        live, stopped = torch.stack([step.live, replaced]).cpu().numpy()
        still_open = still_open > 0
        self.stage.vocabulary.know(set(np.unique(tokens).tolist()))
        counts = self.settled(step, still_open)
        for i, row in enumerate(self.rows):
            if row.over:
                continue
            if stopped[i]:
                row.stop()
            elif live[i]:
                row.read(tokens[i], still_open[i], int(counts[i]))
            elif not (self.rows_may_wait and self._waits(tokens[i], still_open[i])):
                row.last()

    def _waits(self, tokens: Int[NDArray[np.int64], "p"], open_: Bool[NDArray[np.bool_], "p"]) -> bool:
        """Whether a row that takes no part goes on later: it has places left, and has written no end."""
        ended = np.isin(tokens[~open_], np.array(self.stage.model.stop_ids, dtype=np.int64)).any()
        return bool(open_.any() and not ended)


@dataclass(eq=False)
class Timed:
    """A sampler, and the seconds that its own steps take: what a guard around it takes is the rest."""

    undefended: Sampler
    seconds: float = field(default=0.0)

    def __call__(self, model: Any, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        """Its steps."""
        steps = steps_of(self.undefended, model, canvas, rngs)
        while True:
            begun = time.perf_counter()
            step = next(steps, None)
            self.seconds += time.perf_counter() - begun
            if step is None:
                return
            yield step


class Reader:
    """One row: reads what is final of it, and tells its ticket."""

    def __init__(self, ticket: Ticket, stage: Stage, seen: Row | None) -> None:
        self.ticket, self.stage, self.seen = ticket, stage, seen
        order, known = ticket.order, stage.vocabulary
        ends = {*stage.model.stop_ids}
        self.text = Text(known.pieces, known.unseen, ends, order.stops, order.most)
        # Diffusion settles a text before its last step, and the guard judges all: no verdict hangs on a stop string.
        self.cut_at_once = Need.CAUSAL in stage.model.offers or seen is None
        # A step that was held back comes once it was looked at; any other is looked at before the next one comes.
        self.looked_at = stage.hold > 0 or seen is None
        self.steps, self.read_upto, self.over = 0, 0, False
        self.tokens: list[int] = []  # after its last step, guesses filled in

    def read(self, tokens: Int[NDArray[np.int64], "p"], open_: Bool[NDArray[np.bool_], "p"], final: int) -> None:
        """A step in which it took part; ``final`` places, from the first, will not change any more."""
        if self._is_cut():  # the guard has now looked at all that it says
            self._done()
            return
        self.steps += 1
        self.tokens = tokens.tolist()
        if self.ticket.order.canvas:
            shown = text_of(self.tokens, self.stage.vocabulary.pieces, self.stage.vocabulary.unseen)
            self.ticket.tell(Drawn(self.steps, shown, int(open_.sum())))
        self._say(self.text.feed(self.tokens[self.read_upto : final]))
        self.read_upto = max(self.read_upto, final)
        if self.looked_at and self._is_cut():  # a step behind its end is none of the answer's, and stops nothing
            self._done()

    def _is_cut(self) -> bool:
        """Whether its text has an end, and what follows is no part of the answer."""
        return self.text.finish is not None and self.cut_at_once

    def last(self) -> None:
        """It takes no further step: what is left of its text, and the answer."""
        if self.over:
            return
        if self.text.finish is None:
            self._say(self.text.feed(self.tokens[self.read_upto :]) + self.text.close())
        self._done()

    def stop(self) -> None:
        """The guard has stopped it: nothing more of it leaves."""
        self._tell(Done(self._answer(stopped=True)))

    def fail(self, why: Refused) -> None:
        """It is given up; what the guard has seen of it is told."""
        if self.over:
            return
        answer = self._answer(stopped=False)
        about = told(self.ticket.order, answer, self.stage.mode, self.stage.hold, self.stage.tells)
        self._tell(
            Failed(Refused(why.status, why.message, why.param, why.code, why.retry, about if self.steps else {}))
        )

    def _say(self, text: str) -> None:
        if text:
            self.ticket.tell(Said(text))

    def _done(self) -> None:
        self._tell(Done(self._answer(stopped=False)))

    def _tell(self, event: Done | Failed) -> None:
        self.over = True
        self.ticket.tell(event)

    def _answer(self, stopped: bool) -> Answer:
        order, guard = self.ticket.order, self.stage.guard
        verdict, limit, sigma, looked = not_watched(order.unwatched), None, None, 0
        if guard is not None and self.seen is not None:
            verdict, limit = verdict_of(guard, self.seen, max(self.steps, self.seen.steps))
            sigma, looked = sigma_of(self.seen), self.seen.looked
        return Answer(
            text=self.text.so_far,
            finish="content_filter" if stopped else self.text.finish or "length",
            tokens=self.text.tokens,
            steps=self.steps,
            verdict=verdict,
            refusal=REFUSAL if stopped else None,
            sigma=sigma,
            looked=looked,
            limit=limit,
        )
