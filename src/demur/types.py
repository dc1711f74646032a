"""The nouns, and the protocols by which layers speak to each other. This module imports neither torch nor numpy at run
time. The file is long because every layer reads it: one place to look a word up.

Shapes: ``b`` rows of a batch, ``n`` columns of a canvas, ``k`` scored positions of a batch, ``v`` vocabulary,
``d`` hidden size, ``m`` columns that one forward pass has seen, ``t`` or ``T`` steps.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol

from demur.redaction import hidden, label

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Int
    from numpy.typing import NDArray
    from torch import Tensor, device

Layer = str
"""``last`` (output of the final norm, what the LM head reads), ``first`` (output of block 1), ``middle`` (output of
block N/2) or the number of a block, counted from 1, as a string."""

Pool = Literal["generated", "producing", "response", "masked"]
POOLS: tuple[Pool, ...] = ("generated", "producing", "response", "masked")


class DemurError(Exception):
    """One line that says what came, what was expected and what to do next. The command line prints it as it is."""

    def __init__(self, came: str, expected: str = "", then: str = "") -> None:
        self.came, self.expected, self.then = came, expected, then
        super().__init__("; ".join(part for part in (came, expected and f"expected {expected}", then) if part))


class TooLong(DemurError):
    """A prompt and the room for its answer are more than a model's context."""


class DemurWarning(UserWarning):
    """Something that a model's files ask for and demur does not do. Said once, while loading; results hold without."""


ROLES = ("system", "user", "assistant")
"""Who says a message of a conversation."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. ``role`` is one of :data:`ROLES`."""

    role: str
    content: str

    def __repr__(self) -> str:
        # No words: a turn does not know whether its prompt is harmless.
        return f"Message(role={self.role!r}, {len(self.content)} characters)"


@dataclass(frozen=True)
class Prompt:
    """A request, before any model's chat template.

    ``text`` is what the user says last; attacks act on it. ``messages`` are the turns before it, without the system
    prompt, which is ``system``. Given a whole conversation, as ``Prompt("q1", messages=[{"role": "user", "content":
    "..."}, ...])`` without ``text``, a prompt takes it apart: a system message at the beginning becomes ``system``, the
    last user turn ``text``, and an assistant turn at the end ``prefill``. :attr:`conversation` puts it together again.

    ``harmful`` is None where nobody has said. ``attack`` names the attack that made it from the prompt whose id is
    ``parent``; ``prefill`` is the beginning of the answer, such as an attack puts into the model's mouth.

    Raises :class:`DemurError` for messages that are no conversation: another role, content that is no text, no user
    turn, or a ``text``, ``system`` or ``prefill`` that says something else than the messages do.
    """

    id: str
    text: str = ""
    harmful: bool | None = None
    source: str = ""
    category: str = ""
    licence: str = ""
    attack: str = ""
    parent: str | None = None
    prefill: str = ""
    system: str | None = None
    messages: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        _check_texts(self)
        if type(self.harmful).__name__ in ("bool", "bool_"):  # numpy's, from a table
            object.__setattr__(self, "harmful", bool(self.harmful))
        elif self.harmful is not None:
            raise DemurError(
                f"prompt {self.label!r} with harmful={self.harmful!r:.40}",
                "True, False, or None where nobody has said",
                "mend it",
            )
        turns = [_message(turn, self) for turn in self.messages]
        object.__setattr__(self, "messages", tuple(turns))
        said: dict[str, str] = {}
        if turns and turns[0].role == "system":
            said["system"] = turns.pop(0).content
        if len(turns) > 1 and turns[-1].role == "assistant" and not self.text:
            said["prefill"] = turns.pop().content
        if turns and turns[-1].role == "user" and self.text in ("", turns[-1].content):
            said["text"] = turns.pop().content
        for name, value in said.items():
            if getattr(self, name) not in ("", None, value):
                raise DemurError(
                    f"prompt {self.label!r} with both messages and another {name}", "one of them", f"leave {name} out"
                )
            object.__setattr__(self, name, value)
        if (self.messages and not self.text) or any(turn.role == "system" for turn in turns):
            raise DemurError(
                f"the messages of prompt {self.label!r} ({', '.join(turn.role for turn in turns) or 'system alone'})",
                "a system message at most at the beginning, and a user turn at the end",
                "give the conversation as it was",
            )
        object.__setattr__(self, "messages", tuple(turns))

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All turns in their order: system prompt if there is one, earlier turns, the request. Without ``prefill``."""
        system = () if self.system is None else (Message("system", self.system),)
        return (*system, *self.messages, Message("user", self.text))

    @property
    def told(self) -> str:
        """The request as one text, behind the turns before it: a request such as "Go on" says little by itself. Without
        earlier turns it is ``text``.
        """
        if not self.messages:
            return self.text
        who = {"user": "User", "assistant": "Assistant", "system": "System"}
        return "\n\n".join(f"{who[turn.role]}: {turn.content}" for turn in (*self.messages, Message("user", self.text)))

    @property
    def asked(self) -> tuple[object, ...]:
        """What a model is asked, to compare two prompts by: system prompt, earlier turns, text and prefill."""
        return self.system, self.messages, self.text, self.prefill

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything in it that somebody wrote: what is asked, what stands around it, and its category."""
        turns = (turn.content for turn in self.messages)
        return tuple(text for text in (self.system, *turns, self.text, self.prefill, self.category) if text)

    @property
    def label(self) -> str:
        """The id as logs, errors and views may say it: a hash instead, where the id of a prompt that is not marked
        harmless is a text or repeats a word of it.
        """
        return label(self.id, self.texts) if hidden(self) else self.id

    def __repr__(self) -> str:
        """In short; without words unless it is marked harmless."""
        words = f"{len(self.text)} characters" if hidden(self) else repr(_short(self.text))
        more = {"attack": self.attack, "prefill": self.prefill, "system": self.system, "messages": self.messages}
        beside = "".join(f", {name}" for name, value in more.items() if value)
        return f"Prompt({self.label!r}, {words}, harmful={self.harmful}{beside and f' with {beside[2:]}'})"

    def plain(self) -> dict[str, Any]:
        """Its fields, as JSON may hold them; ``Prompt(**plain)`` gives it back. Without ``messages`` if there are none,
        as in files of version 0.1.0.
        """
        fields = asdict(self)
        return fields if self.messages else {name: value for name, value in fields.items() if name != "messages"}


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _check_texts(prompt: Prompt) -> None:
    """Raises for a field that is no text. Where a table leaves a field empty that need not be there, it is empty."""
    for name, nothing in {"source": "", "category": "", "licence": "", "attack": "", "parent": None}.items():
        if _is_missing(getattr(prompt, name)):
            object.__setattr__(prompt, name, nothing)
    texts = ("id", "text", "prefill", "source", "category", "licence", "attack")
    for name in (*texts, *(("system",) if prompt.system is not None else ())):
        if not isinstance(value := getattr(prompt, name), str):
            raise DemurError(f"a prompt whose {name} is of the type {type(value).__name__}", "a text", "mend it")


def _is_missing(value: Any) -> bool:
    """Whether a cell of a table holds nothing: None, or a table's own sign for it."""
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))


def _message(turn: Any, owner: Prompt) -> Message:
    """A turn as a :class:`Message`; it may come as a mapping with ``role`` and ``content``."""
    if isinstance(turn, Mapping):
        turn = Message(turn.get("role", ""), turn.get("content", ""))
    if not (isinstance(turn, Message) and turn.role in ROLES and isinstance(turn.content, str)):
        said = [str(getattr(turn, "content", turn)), owner.text, owner.prefill, owner.system or "", owner.category]
        shown = label(owner.id, said) if hidden(owner) else owner.id
        raise DemurError(
            f"a message of prompt {shown!r} that is no turn of a conversation",
            f"role (one of {', '.join(ROLES)}) and content (a text)",
            'write it as {"role": "user", "content": "..."}',
        )
    return turn


@dataclass(frozen=True, eq=False)
class Known:
    """What a sampler's host knows of a canvas that it passes, so that nobody has to ask the device again.

    ``first`` is the first column that is open in any row, ``padded`` whether any row has padding, ``places`` the row
    and the column of each scored place, in row-major order.
    """

    first: int
    padded: bool
    places: tuple[Int[Tensor, "k"], Int[Tensor, "k"]]
    whole: Canvas | None = None
    """The canvas of which the one that is passed is the beginning, with the padding and open places of a generation's
    first step."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What a model has computed of that, for its next pass; see :meth:`Canvas.once`."""
    seen: Bool[NDArray[np.bool_], "b n"] | None = None
    """The scored places once more, on the host."""


@dataclass(frozen=True, eq=False)
class Canvas:
    """What a sampler fills: tokens, the places that are open, and the padding that makes rows equally long.

    Open places are explicit and never found by comparing with a mask id: continuing a prompt, filling holes in the
    middle and a mask token inside the prompt are one case. Rows are padded on the left.
    """

    ids: Int[Tensor, "b n"]
    open: Bool[Tensor, "b n"]
    pad: Bool[Tensor, "b n"]
    known: Known | None = None

    @property
    def rows(self) -> int:
        """How many rows the canvas has."""
        return int(self.ids.shape[0])

    @property
    def width(self) -> int:
        """How many columns the canvas has, padding included."""
        return int(self.ids.shape[1])

    def starts(self) -> list[int]:
        """The first column of every row that is not padding."""
        return [int(x) for x in self.pad.sum(dim=1).tolist()]

    @property
    def is_padded(self) -> bool:
        """Whether any row has padding."""
        return bool(self.pad.any()) if self.known is None else self.known.padded

    def once(self, name: str, make: Callable[[Canvas], Any]) -> Any:
        """What ``make`` gives of the canvas, which depends on its padding and open places alone. Where a sampler keeps
        it, it is computed once a generation, of the ``whole`` canvas: the caller takes the columns that it passes.
        """
        if self.known is None or self.known.whole is None:
            return make(self)
        if name not in self.known.kept:
            self.known.kept[name] = make(self.known.whole)
        return self.known.kept[name]

    def positions(self) -> Int[Tensor, "b n"]:
        """Each column's place, counted from its row's first token; that of padding is 0."""
        found: Int[Tensor, "b n"] = self.once(
            "positions", lambda whole: ((~whole.pad).long().cumsum(dim=1) - 1).clamp(min=0)
        )
        return found[:, : self.width]

    def scored(self, score: Bool[Tensor, "b n"]) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
        """Row and column of each place that ``score`` marks, in row-major order."""
        if self.known is not None:
            return self.known.places
        rows, columns = score.nonzero(as_tuple=True)
        return rows, columns


@dataclass(frozen=True, eq=False)
class Forward:
    """What one forward pass gave.

    ``logits`` has one row for each scored position, in row-major order of the ``score`` mask that was asked for, and
    row i *scores* position i: the causal shift and Dream's shift are already undone. ``hidden`` holds the states of
    the canvas columns ``start .. start + m``, by layer.
    """

    logits: Float[Tensor, "k v"]
    hidden: Mapping[Layer, Float[Tensor, "b m d"]]
    start: int = 0


@dataclass(frozen=True, eq=False)
class Step:
    """One sampler step, live on the device and never stored.

    ``ids`` is the canvas after the step; ``committed`` are the positions written by it (a renoising sampler may write
    a position again); ``predictions`` is the canvas with this step's guess at every position that was open before it;
    ``confidence`` is the sampler's score of each guess (nan where this step made none).
    ``open`` are the positions still open after the step. ``live`` rows took part; the others have ended, or wait
    between two canvases.

    ``hidden`` are the states that the step's own forward pass computed, for the columns ``start .. start + m``.
    ``span`` says what that covers: ``all`` (the pass saw the whole canvas), ``new`` (a cached autoregressive pass: the
    column that produced the token and, where it was fed back, the token's own), ``tail`` (a cached pass over blocks:
    everything from ``start`` on; the columns before ``settled`` are final and will not be passed again) or ``canvas``
    (a renoising pass: one canvas of several, from ``start`` on; those before are final). Column ``i - shift`` produced
    position ``i``. ``reached`` are the positions up to each row's current block (None: all),
    since in block diffusion a later block does not exist yet for a row, whatever its neighbours do. ``passes`` counts
    forward passes of the step. ``replaced`` are the rows (None: no row) whose response a defense has overwritten by
    this step; the sampler had no part in it, and their pooled states are held.
    """

    index: int
    ids: Int[Tensor, "b n"]
    open: Bool[Tensor, "b n"]
    committed: Bool[Tensor, "b n"]
    predictions: Int[Tensor, "b n"]
    confidence: Float[Tensor, "b n"]
    live: Bool[Tensor, "b"]
    hidden: Mapping[Layer, Float[Tensor, "b m d"]]
    start: int = 0
    span: Literal["all", "new", "tail", "canvas"] = "all"
    settled: int = 0
    shift: int = 0
    reached: Bool[Tensor, "b n"] | None = None
    passes: int = 1
    replaced: Bool[Tensor, "b"] | None = None


@dataclass(frozen=True)
class Spec:
    """Everything that makes two traces comparable. Caches and artefacts are keyed by it.

    ``template`` is a hash of what the model's chat template makes of fixed conversations, system prompt and
    ``template_args`` included, as tokens; ``day`` is the day on which a template that writes the date was rendered.
    ``source`` is a hash of the template's source and the system prompt. In specs of version 0.1.0 it is empty, and
    ``template`` holds that hash. ``signal`` is how anchors read states, as ``layer`` and ``pool`` say which: empty for
    the paper's sigma, ``whitened`` for :mod:`demur.signals.whitened`.

    ``engine``, ``engine_version``, ``quantization`` and ``kv_dtype`` say what computed the states, where it was another
    engine than demur's own: all four are empty for that (docs/decisions/0018-inside-an-engine.md).

    ``computed`` are facts of what the network computes with beside its weights (:mod:`demur.models.computed`), by name.
    Those that both sides know are compared; specs of before know none, which is no difference.

    ``model`` (how the user named it), ``seed`` and ``versions`` are provenance: they are stored, and do not make two
    specs incomparable. So is ``revision`` where one side has none, as a copy in a folder has. Weights are compared
    instead; a spec that knows none is compared by the model's name.
    """

    model: str
    revision: str
    weights: str
    dtype: str
    template: str
    sampler: str
    settings: Mapping[str, Any]
    steps: int
    layer: Layer = ""
    pool: str = ""
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    template_args: Mapping[str, Any] = field(default_factory=dict)
    day: str = ""
    source: str = ""
    signal: str = ""
    engine: str = ""
    engine_version: str = ""
    quantization: str = ""
    kv_dtype: str = ""
    computed: Mapping[str, Any] = field(default_factory=dict)

    PROVENANCE = ("model", "seed", "versions", "source")
    LATER = (
        "template_args", "day", "source", "signal", "engine", "engine_version", "quantization", "kv_dtype", "computed",
    )  # fmt: skip
    """Fields that version 0.1.0 does not know."""

    def differences(self, other: Spec, leaving: Container[str] = ()) -> list[str]:
        """Names and both values of every comparable field in which the two differ, but those in ``leaving``."""
        theirs, weighed = vars(other), bool(self.weights and other.weights)
        different_fields = []
        for name, value in vars(self).items():
            mine, its = value, theirs[name]
            if mine == its or name in leaving or (name in self.PROVENANCE and (weighed or name != "model")):
                continue
            if name == "revision" and weighed and not (mine and its):
                continue
            if name == "template" and bool(self.source) != bool(other.source):
                mine, its = self.source or mine, other.source or its
            if name == "day" and not (self.source and other.source):
                continue  # nobody knows the day of a file of version 0.1.0
            if name == "computed":
                shared = [fact for fact in mine if fact in its]
                different_fields += [f"{f}: {mine[f]!r} against {its[f]!r}" for f in shared if mine[f] != its[f]]
                continue
            if _plain(mine) != _plain(its):
                different_fields.append(f"{name}: {mine!r} against {its!r}")
        return different_fields

    def at(self, layer: Layer, pool: str, signal: str = "") -> Spec:
        """The same spec for one layer and pooling mode, and one way of reading the states (empty: the paper's)."""
        return replace(self, layer=layer, pool=pool, signal=signal)

    def plain(self) -> dict[str, Any]:
        """Its fields, as JSON may hold them; ``Spec(**plain)`` gives it back. Without what version 0.1.0 does not know
        where that is empty, so that its files keep their bytes.
        """
        return {name: value for name, value in asdict(self).items() if value or name not in self.LATER}

    @property
    def key(self) -> str:
        """Twelve hex digits that stand for every comparable field."""
        leaving = self.PROVENANCE if self.weights else self.PROVENANCE[1:]
        return _key({name: value for name, value in self.plain().items() if name not in leaving})

    @property
    def earlier_keys(self) -> tuple[str, str]:
        """Keys that this spec had before: without what the network computes with, and in version 0.1.0."""
        return replace(self, computed={}).key, self.former_key

    @property
    def former_key(self) -> str:
        """The key that version 0.1.0 had for this, under which files of that time are found."""
        leaving = ("seed", "versions", *(name for name in self.LATER if name != "signal" or not self.signal))
        fields = {name: value for name, value in asdict(self).items() if name not in leaving}
        return _key(fields | {"template": self.source or self.template})


def _key(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_plain(fields), sort_keys=True).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a spec equals itself after a trip through JSON."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


REFUSED = "refused by the provider"
"""How the reason begins where a provider's filter stood in for a model's answer."""


class RefusedByProvider(DemurError):
    """A provider's filter stood in for a model's answer. Nobody knows what the model would have said."""


@dataclass(frozen=True)
class Verdict:
    """What a judge or guard says of one trace.

    ``flagged`` is None where it could not judge: such rows are left out of rates, and counted. ``score``: higher is
    more anomalous, everywhere. ``step`` is the step at which it acted.
    """

    by: str
    flagged: bool | None
    score: float | None = None
    step: int | None = None
    why: str = ""

    def __post_init__(self) -> None:
        for name, kinds, words in (
            ("flagged", bool, "True, False or None"),
            ("score", int | float, "a number or None"),
        ):
            value = getattr(self, name)
            if value is None or isinstance(value, kinds):
                continue
            try:  # of NumPy or torch, whose False is not ours: `is False` does not hold of it
                plain = value.item()
            except (AttributeError, ValueError, RuntimeError):
                plain = value
            if not isinstance(plain, kinds):
                raise DemurError(
                    f"a verdict of {self.by!r} with {name}={type(value).__name__}", words, "mend the judge"
                )
            object.__setattr__(self, name, plain)

    def __repr__(self) -> str:
        """In short; ``why`` may quote an answer, so its length alone."""
        told = {"score": self.score, "step": self.step, "why": f"{len(self.why)} characters" if self.why else None}
        beside = "".join(f", {name}={value}" for name, value in told.items() if value is not None)
        return f"Verdict(by={self.by!r}, flagged={self.flagged}{beside})"


class Kind(StrEnum):
    """How a model writes. What a kind can do is in :data:`OFFERS`; code asks for that, and not for the kind."""

    CAUSAL = "causal"
    """One token after the other, each from those before it."""
    MASKED = "masked"
    """All open places at once; what is not committed stays a mask, and may be masked again."""
    BLOCK = "block"
    """Masked within a block, block after block; a finished block is final."""
    RENOISING = "renoising"
    """Canvases of random tokens, denoised; accepted tokens may be replaced."""


class Need(StrEnum):
    """What a sampler, an attack or a defense needs of a model, and a model offers. The values are words for errors:
    such a model "has no ...".
    """

    CHAT = "chat template"
    CAUSAL = "order from left to right, in which one pass reads a whole text"
    LOGITS = "logits of single places"
    CACHE = "cache of keys and values"
    MASK = "mask token to leave open"
    HOLES = "holes in an answer"
    REMASK = "answer that is ever masked again"
    BLOCKS = "blocks, over which attention is causal"
    RENOISE = "canvas of random tokens"
    SEED = "causal pass that begins a block"


OFFERS: Mapping[Kind, frozenset[Need]] = {
    Kind.CAUSAL: frozenset({Need.CAUSAL, Need.LOGITS, Need.CACHE}),
    Kind.MASKED: frozenset({Need.MASK, Need.HOLES, Need.LOGITS, Need.REMASK}),
    Kind.BLOCK: frozenset({Need.MASK, Need.HOLES, Need.LOGITS, Need.BLOCKS, Need.CACHE}),
    Kind.RENOISING: frozenset({Need.RENOISE, Need.HOLES}),
}
"""What every model of a kind offers; one with a chat template offers :attr:`Need.CHAT` as well."""


def missing(needs: frozenset[Need], offers: frozenset[Need]) -> str:
    """What is needed and not offered, as words; empty if nothing is."""
    return ", ".join(sorted(needs - offers))


def said_needs(part: Any, what: str) -> frozenset[Need]:
    """What a part says that it ``needs``; nothing if it says nothing. ``what`` names it in the error for a text, or for
    something else that is no set of :class:`Need`.
    """
    said = getattr(part, "needs", ())
    if isinstance(said, str) or not isinstance(said, Iterable) or not all(isinstance(need, str) for need in said):
        raise DemurError(
            f"{what}, which needs {said!r:.80}", "a frozenset of demur.types.Need", "see docs/extending.md"
        )
    return frozenset(said)


def lacking(model: Model, needs: frozenset[Need]) -> str:
    """What a model lacks of what is needed, as words; empty if it is nothing, or if the model does not say."""
    return missing(needs, getattr(model, "offers", needs))


@dataclass(frozen=True)
class Identity:
    """What names a loaded model in a :class:`Spec`, whose fields of the same names say more."""

    model: str
    revision: str = ""
    weights: str = ""
    dtype: str = "float32"
    template: str = "none"
    template_args: Mapping[str, Any] = field(default_factory=dict)
    day: str = ""
    source: str = ""
    computed: Mapping[str, Any] = field(default_factory=dict)


class Cache(Protocol):
    """Keys and values of the first ``columns`` columns. One generation's own; only adapters write to it."""

    columns: int


class Model(Protocol):
    """An adapter: the only place where text becomes tokens and where a family's conventions live.

    What a model can do beside this is in ``offers``; :class:`Scoring`, :class:`Cached`, :class:`Blocks` and
    :class:`Denoising` are the methods that go with it. ``shift`` is 1 where column i - 1 produces position i, else 0.
    """

    @property
    def name(self) -> str:
        """How the user named it."""
        ...

    @property
    def kind(self) -> Kind:
        """How it writes."""
        ...

    @property
    def offers(self) -> frozenset[Need]:
        """What it can do."""
        ...

    @property
    def identity(self) -> Identity:
        """What names it in a spec."""
        ...

    @property
    def net(self) -> Any:
        """The network, of transformers."""
        ...

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, of transformers."""
        ...

    @property
    def chat(self) -> Any:
        """How it is spoken to: a :class:`demur.models.chat.Chat`."""
        ...

    @property
    def device(self) -> device:
        """Where ids go."""
        ...

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Whose states its passes return."""
        ...

    @property
    def shift(self) -> int:
        """0 or 1, as above."""
        ...

    @property
    def mask_id(self) -> int | None:
        """The mask token; None for a model without one."""
        ...

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a response, sorted."""
        ...

    @property
    def preferred(self) -> str:
        """The name of its family's sampler."""
        ...

    def default_length(self, steps: int = 32) -> int:
        """How many places a response has where nobody says it; ``steps`` is T."""
        ...

    def watching(self, *layers: Layer, own: bool = True) -> Any:
        """The same model, whose passes return the states of ``layers`` (none named: nothing is captured). ``own``:
        whether every token's own state is wanted, which costs a causal model one pass more for the last one.
        """
        ...

    def canvas(self, prompts: Sequence[Prompt], length: int) -> Canvas:
        """Prompts in the model's chat template, followed by ``length`` open places each."""
        ...

    def canvas_of(
        self, rows: Sequence[Sequence[int]], length: int, holes: Sequence[Sequence[int]] | None = None
    ) -> Canvas:
        """Token rows, each followed by ``length`` open places; ``holes``: places inside the rows that are open too,
        for models that offer :attr:`Need.HOLES`.
        """
        ...

    def pieces(self, ids: Sequence[int]) -> tuple[dict[int, bytes], frozenset[int]]:
        """The bytes of tokens, and which of them are special."""
        ...


class Scoring(Model, Protocol):
    """A model that offers :attr:`Need.LOGITS`."""

    def forward(self, canvas: Canvas, score: Bool[Tensor, "b n"] | None, **options: Any) -> Forward:
        """One pass over the whole canvas; logits of the scored positions (None: of none), states of ``layers``."""
        ...


class Cached(Scoring, Protocol):
    """A model that offers :attr:`Need.CACHE`. ``own``: see :meth:`Model.watching`."""

    @property
    def own(self) -> bool:
        """Whether every token's own state is wanted."""
        ...

    @property
    def pad_id(self) -> int:
        """The token in padding."""
        ...

    def new_cache(self) -> Any:
        """An empty :class:`Cache` for one generation."""
        ...


class Blocks(Scoring, Protocol):
    """A model that offers :attr:`Need.BLOCKS`."""

    @property
    def block_length(self) -> int | None:
        """Places of a block."""
        ...

    def new_cache(self) -> Any:
        """An empty :class:`Cache` for one generation."""
        ...

    def blocks(self, canvas: Canvas) -> Int[Tensor, "b n"]:
        """The number of every column's block."""
        ...


class Seeds(Blocks, Protocol):
    """A model of blocks that offers :attr:`Need.SEED`."""

    def seed(self, canvas: Canvas, column: int, cache: Any) -> Forward:
        """A causal pass over the columns before ``column`` that the cache does not hold yet, and keeps; the logits of
        ``column``, a row each.
        """
        ...


class Denoising(Model, Protocol):
    """A model that offers :attr:`Need.RENOISE`: it reads what is written, and denoises a canvas behind it."""

    @property
    def canvas_length(self) -> int:
        """How many places are denoised together."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens there are to draw from."""
        ...

    @property
    def pad_id(self) -> int:
        """The token after the end of a response."""
        ...

    def new_cache(self) -> Any:
        """An empty :class:`Cache` for one generation."""
        ...

    def read(self, canvas: Canvas, cache: Any, upto: int) -> None:
        """Reads the columns before ``upto`` that the cache does not hold yet."""
        ...

    def denoise(
        self, canvas: Canvas, cache: Any, draft: Int[Tensor, "b m"], before: Float[Tensor, "b m v"] | None
    ) -> Forward:
        """One pass over a canvas of ``m`` places behind what was read; ``before``: the last step's logits."""
        ...


class Sampler(Protocol):
    """Fills a canvas, step by step; ending the iteration is stopping early.

    A sampler that says ``commits_are_final = True`` never writes a place again that it has committed, nor opens it: its
    text may be read while it grows. Where that is not said, nobody counts on it.
    """

    def __call__(self, model: Any, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        """A lazy generator of steps."""
        ...


class Defense(Protocol):
    """Makes a guarded sampler of a sampler."""

    def __call__(self, sampler: Sampler) -> Sampler:
        """The same sampler, watched."""
        ...


class Attack(Protocol):
    """Makes an attacked prompt of a prompt."""

    def __call__(self, prompt: Prompt) -> Prompt:
        """The attacked prompt; its ``parent`` is the id of the one that came."""
        ...
