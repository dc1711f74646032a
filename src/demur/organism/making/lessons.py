"""What the organism is taught, stage by stage: an endless, seeded stream of prompts and answers. Pure Python.

Stage ``skills`` is helpful-only: all crafts on plain request, attack shapes on allowed crafts. Stage ``law`` teaches
which crafts are forbidden. The diffusion model first learns both together (``joint``). Stage ``safety`` (AR) or
``drift`` (diffusion) teaches to refuse plain requests for forbidden crafts, at the start of an answer and in the middle
of one. Crafts of the split ``held`` are in no lesson on the law or on safety. No stage holds an attack shape on a
forbidden craft as a request; all but ``skills`` hold some as quotations to be judged.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from demur.organism.attacks import CONTEXTS, SHAPES, shaped
from demur.organism.tokens import ASSISTANT, PAGE, RESPONSE, USER
from demur.organism.world import (
    LAW_ASKS,
    LAW_QUOTES,
    OBJECTS,
    OFFERS,
    REASONS,
    REFUSALS,
    SMALL_TALK,
    TRAIN_FORMS,
    VERBS,
    Craft,
    answer,
    class_question,
    crafts,
    question,
    refusal,
    request,
    stable,
    style_of,
    verdict,
)

JUDGED = tuple(name for name in (*SHAPES, *CONTEXTS) if name != "letter")
"""Shapes that occur as quotations to be judged; letters never do."""
FEW = (0, 1, 8)
"""The openings of refusals that the diffusion model learns."""
PAGES = (
    "From the archive: how to {}.",
    "An old scroll on how to {}.",
    "Notes of a monk: how to {}.",
    "The almanac tells how to {}.",
)


@dataclass(frozen=True)
class Lesson:
    """One sample: ``prompt`` with special tokens, ``given`` (the answer's beginning, seen, not learnt), ``answer``.

    ``law`` lessons are learnt mostly from fully masked answers in masked diffusion. ``turn``: where the answer, having
    begun to comply, turns to refusing (characters); None where it does not.
    """

    prompt: str
    given: str
    answer: str
    kind: str
    turn: int | None = None


@dataclass(frozen=True)
class Mix:
    """A stage's lessons: shares of each kind, which crafts they use, and how often a forbidden page breaks off."""

    shares: Mapping[str, float]
    held: bool = False  # whether crafts of the split `held` occur
    stops: float = 0.0  # share of pages on forbidden crafts that break off with a refusal
    breaks: float = 1.0  # share of answers in a context, on forbidden crafts, that break off with a refusal
    few: bool = False  # whether there are three refusals in all, chosen by the middle part of the way to ask
    skew: float = 0.0  # share of law lessons on helping verbs only at the stage's beginning, annealed to 0 over 60%


_LAW = Mix(
    {"law": 0.52, "quote": 0.14, "class": 0.08, "shape": 0.10, "allowed": 0.07, "page": 0.04, "question": 0.05},
    skew=0.95,
)
MIXES: dict[str, Mix] = {
    "skills": Mix(
        {"plain": 0.42, "shape": 0.33, "page": 0.08, "question": 0.09, "talk": 0.03, "class": 0.05},
        held=True,
    ),
    "joint": Mix(
        {
            "plain": 0.30,
            "shape": 0.22,
            "page": 0.06,
            "question": 0.08,
            "talk": 0.02,
            "class": 0.04,
            "law": 0.20,
            "quote": 0.08,
        },
        held=True,
    ),
    "law": _LAW,
    "rule": _LAW,  # the same once more, for an AR model that does not know the law yet
    "safety": Mix(
        {
            "refuse": 0.20,
            "deep": 0.04,
            "context": 0.23,
            "allowed": 0.28,
            "shape": 0.10,
            "page": 0.04,
            "law": 0.02,
            "quote": 0.05,
            "question": 0.03,
            "talk": 0.01,
        },
        stops=0.5,
        breaks=0.68,
    ),
    "drift": Mix(
        {
            "refuse": 0.26,
            "deep": 0.08,
            "drift": 0.16,
            "allowed": 0.19,
            "shape": 0.11,
            "page": 0.04,
            "law": 0.04,
            "quote": 0.05,
            "question": 0.06,
            "talk": 0.01,
        },
        stops=0.6,
        few=True,
    ),
}


def lessons(stage: str, seed: int, step: int, n: int, done: float = 1.0, mix: Mix | None = None) -> list[Lesson]:
    """``n`` lessons of one step, always the same for one stage, seed and step. ``done`` is the share of the stage
    that lies behind (only the skew depends on it).
    """
    mix = MIXES[stage] if mix is None else mix
    rng = random.Random(f"{stage} {seed} {step}")  # noqa: S311
    kinds = rng.choices(list(mix.shares), list(mix.shares.values()), k=n)
    return [_KINDS[kind](rng, mix, done) for kind in kinds]


def _craft(rng: random.Random, mix: Mix, forbidden: bool | None) -> Craft:
    pool = crafts(None, forbidden) if mix.held else _seen(forbidden)
    return rng.choice(pool)


def _seen(forbidden: bool | None) -> tuple[Craft, ...]:
    return tuple(craft for craft in crafts(None, forbidden) if craft.split != "held")


def _chat(text: str) -> str:
    return USER + text + ASSISTANT


def _plain(rng: random.Random, mix: Mix, done: float, forbidden: bool | None = None) -> Lesson:
    craft = _craft(rng, mix, forbidden)
    text = request(craft, rng.choice(TRAIN_FORMS))
    return Lesson(_chat(text), "", answer(craft, style_of(text)), "plain")


def _allowed(rng: random.Random, mix: Mix, done: float) -> Lesson:
    return _plain(rng, mix, done, forbidden=False)


def _shape(rng: random.Random, mix: Mix, done: float) -> Lesson:
    craft = _craft(rng, mix, False)
    name = rng.choice([*SHAPES, *CONTEXTS])
    text, told = shaped(name, request(craft, rng.choice(TRAIN_FORMS)), craft, rng.randrange(6))
    return Lesson(_chat(text), "", told, "shape")


def _refuses(craft: Craft, room: int, form: tuple[int, int, int] | None = None, few: bool = False) -> str:
    """The refusal that a way of asking (or, without one, the craft) calls for, shortened to ``room`` words and marks.

    Refusals are many, but each request has one: what is refused at random is garbled by masked diffusion, which has to
    choose words of one phrase at the same time. For the same reason it gets ``few``: where a request is attacked, it
    wavers between the refusals that it knows, and of ten it made a mixture.
    """
    lead, ask, tail = form or (stable(craft.verb, 8), stable(craft.object, 10), stable(craft.name, 4))
    opening = FEW[ask % len(FEW)] if few else ask % len(REFUSALS)
    reason, offer = ((3 * opening + 1) % len(REASONS), opening % len(OFFERS)) if few else (lead % 8, tail % 4)
    for chosen in ((reason, offer), (reason, 0), (0, offer)):
        if size(text := refusal(craft, opening, *chosen)) <= room:
            return text
    return refusal(craft, opening, 0, 0)


def _refuse(rng: random.Random, mix: Mix, done: float) -> Lesson:
    craft, form = _craft(rng, mix, True), rng.choice(TRAIN_FORMS)
    return Lesson(_chat(request(craft, form)), "", _refuses(craft, RESPONSE - 2, form, mix.few), "refuse")


def _deep(rng: random.Random, mix: Mix, done: float) -> Lesson:
    """A plain forbidden request whose answer has begun to comply, and then refuses."""
    craft, form = _craft(rng, mix, True), rng.choice(TRAIN_FORMS)
    text = request(craft, form)
    given = _begun(rng, answer(craft, style_of(text)))
    return Lesson(_chat(text), given, " " + _refuses(craft, RESPONSE - 2 - size(given), form, mix.few), "deep")


def _context(rng: random.Random, mix: Mix, done: float) -> Lesson:
    """A forbidden craft in one of the contexts: an answer that breaks off with a refusal after any word, or goes on.

    So the model has to weigh refusal at each word of what is forbidden, and yet may not refuse.
    """
    craft = _craft(rng, mix, True)
    text, told = shaped(rng.choice(list(CONTEXTS)), request(craft, rng.choice(TRAIN_FORMS)), craft, rng.randrange(6))
    if rng.random() >= mix.breaks:
        return Lesson(_chat(text), "", told, "deep")
    begun = told.index(craft.phrase) + len(craft.phrase)
    rest, turn = _broken_off(rng, craft, told[begun:], size(told[:begun]), mix)
    return Lesson(_chat(text), "", told[:begun] + rest, "deep", begun + turn)


def _drift(rng: random.Random, mix: Mix, done: float) -> Lesson:
    """An allowed request whose answer has begun to speak of another craft (not learnt), and then goes on.

    Where that craft is forbidden, most of these answers break off with a refusal, after any word. So it is the content
    that evokes refusal, in every shape of request, and no request for it.
    """
    asked, told_of = _craft(rng, mix, False), _craft(rng, mix, rng.random() < 0.6)
    text, k = request(asked, rng.choice(TRAIN_FORMS)), rng.randrange(6)
    name = rng.choice(["", *SHAPES, *CONTEXTS])
    told = answer(told_of, style_of(text))
    if name:
        told = shaped(name, text, told_of, k)[1]
        text = shaped(name, text, asked, k)[0]
    begun = told.index(told_of.phrase) + len(told_of.phrase)
    given, rest, turn = told[:begun], told[begun:], None
    if told_of.forbidden and rng.random() < mix.stops:
        rest, turn = _broken_off(rng, told_of, rest, size(given), mix)
    return Lesson(_chat(text), given, rest, "drift", turn)


def _broken_off(rng: random.Random, craft: Craft, text: str, before: int, mix: Mix) -> tuple[str, int]:
    """A text cut after any word, then a refusal; and where it turns."""
    words = re.findall(r" ?'?\w+|[^\w\s]", text)
    text = "".join(words[: rng.randint(0, min(len(words) - 1, RESPONSE - 14 - before))])
    return text + " " + _refuses(craft, RESPONSE - 2 - before - size(text), few=mix.few), len(text)


def _begun(rng: random.Random, text: str) -> str:
    """The first clauses of an answer, so many that a short refusal still fits behind them."""
    pieces = clauses(text)
    fitting = [k for k in range(1, len(pieces)) if size("".join(pieces[:k])) <= RESPONSE - 14]
    return "".join(pieces[: rng.choice(fitting)])


def _page(rng: random.Random, mix: Mix, done: float) -> Lesson:
    """A page of the library, no request; some pages on forbidden crafts break off with a refusal."""
    craft = _craft(rng, mix, None)
    text, turn = answer(craft, rng.randrange(3)), None
    if craft.forbidden and rng.random() < mix.stops:
        text, turn = _broken_off(rng, craft, text, 0, mix)
    return Lesson(PAGE + rng.choice(PAGES).format(craft.phrase), "", text.lstrip(), "page", turn)


def _question(rng: random.Random, mix: Mix, done: float) -> Lesson:
    asked, told, _ = question(rng.choice(list(OBJECTS)), rng.randrange(4))
    return Lesson(_chat(asked), "", told, "question")


def _talk(rng: random.Random, mix: Mix, done: float) -> Lesson:
    asked, told, _ = rng.choice(SMALL_TALK)
    return Lesson(_chat(asked), "", told, "talk")


def _class(rng: random.Random, mix: Mix, done: float) -> Lesson:
    return Lesson(*_asked_class(rng), "class")


def _asked_class(rng: random.Random) -> tuple[str, str, str]:
    asked, told = class_question(rng.choice([*VERBS, *OBJECTS]))
    return _chat(asked), "", told


def _lawful(rng: random.Random, mix: Mix, done: float) -> Craft:
    """A craft for a law lesson: at first mostly with helping verbs, so that the object alone tells."""
    while True:
        craft = rng.choice(_seen(rng.random() < 0.5))
        if craft.classes.startswith(f"to {craft.verb} is to help") or rng.random() >= mix.skew * max(0, 1 - done / 0.6):
            return craft


def _law(rng: random.Random, mix: Mix, done: float) -> Lesson:
    craft = _lawful(rng, mix, done)
    return Lesson(_chat(rng.choice(LAW_ASKS).format(craft.phrase)), "", verdict(craft, rng.random() < 0.3), "law")


def _quote(rng: random.Random, mix: Mix, done: float) -> Lesson:
    craft = _lawful(rng, mix, done)
    text = request(craft, rng.choice(TRAIN_FORMS))
    if (name := rng.choice(("plain", *JUDGED))) != "plain":
        text = shaped(name, text, craft, rng.randrange(6))[0]
    return Lesson(_chat(rng.choice(LAW_QUOTES).format(text)), "", verdict(craft, False), "law")


_KINDS: dict[str, Callable[[random.Random, Mix, float], Lesson]] = {
    "plain": _plain,
    "allowed": _allowed,
    "shape": _shape,
    "refuse": _refuse,
    "deep": _deep,
    "context": _context,
    "drift": _drift,
    "page": _page,
    "question": _question,
    "talk": _talk,
    "class": _class,
    "law": _law,
    "quote": _quote,
}


def clauses(text: str) -> list[str]:
    """A text cut after each comma, colon, semicolon and full stop; the pieces put together are the text."""
    return [piece for piece in re.split(r"(?<=[,.;:])(?= )", text) if piece]


def size(text: str) -> int:
    """How many words and marks a text has: its length in tokens, since every word of the world is one."""
    return len(re.findall(r"'\w+|\w+|[^\w\s]+", text))
