"""What is to be generated for one request, and what came of it: data alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from demur.serving.errors import Refused
from demur.types import Sampler, Verdict

Mode = Literal["held back", "asynchronous", "not watched"]
"""``held back``: nothing leaves before it was judged. ``asynchronous``: a step leaves while it is judged."""
Tells = Literal["signal", "verdict"]
"""What clients are told: all of it, or no number of the guard's, since these show an attacker the way past it."""


@dataclass(frozen=True, eq=False)
class Order:
    """One answer that is asked for. ``row`` are the tokens that the model reads, ``places`` what the canvas has open,
    ``most`` how many tokens the answer may have. ``unwatched`` says why no guard looks at it; empty if one does.
    """

    id: str
    chat: bool
    model: str
    row: tuple[int, ...]
    sampler: Sampler
    named: str
    settings: Mapping[str, Any]
    seed: int
    places: int
    most: int
    stops: tuple[str, ...] = field(default=(), repr=False)
    unwatched: str = ""
    note: str = ""
    stream: bool = False
    usage: bool = False
    canvas: bool = False
    texts: Sequence[str] = field(default=(), repr=False)
    created: int = 0

    @property
    def watched(self) -> bool:
        """Whether a guard looks at it."""
        return not self.unwatched

    @property
    def key(self) -> tuple[str, str, int, bool]:
        """Orders with one key may be generated together."""
        return self.named, json.dumps(dict(self.settings), sort_keys=True, default=str), self.places, self.watched


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer. ``text`` is what left, also where a guard stopped it; ``refusal`` is then what it was answered with.

    ``sigma`` is the signal of the steps that the guard has seen, ``looked`` how many these are of ``steps``. ``limit``
    is that of the verdict's score.
    """

    text: str = field(repr=False)
    finish: Literal["stop", "length", "content_filter"]
    tokens: int
    steps: int
    verdict: Verdict
    refusal: str | None = None
    sigma: Sequence[float] | None = None
    looked: int = 0
    limit: float | None = None


@dataclass(frozen=True)
class Said:
    """Text that leaves."""

    text: str = field(repr=False)


@dataclass(frozen=True)
class Drawn:
    """The canvas after a step, guesses filled in: ``open`` places of it are not written yet."""

    step: int
    text: str = field(repr=False)
    open: int


@dataclass(frozen=True, eq=False)
class Done:
    """The answer is there."""

    answer: Answer


@dataclass(frozen=True, eq=False)
class Failed:
    """There will be no answer, or no more of it."""

    why: Refused


Event = Said | Drawn | Done | Failed


@dataclass(eq=False)
class Ticket:
    """An order on its way. ``tell`` takes what happens to it, from the worker's thread. ``gone`` says that nobody waits
    for it any more; whoever waits sets it.
    """

    order: Order
    tell: Callable[[Event], object]
    came: float
    deadline: float
    gone: bool = False
    begun: float = field(default=0.0)
