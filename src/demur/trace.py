"""Traces: what one generation did, step by step; small enough to keep and exact enough to replay.

``generate`` makes them, ``teacher_forced`` makes the same ones from finished responses in one pass, and ``Recorder``
makes them of any generator of steps that somebody else is watching too.
"""

from __future__ import annotations

import base64
import codecs
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from demur import artefact
from demur.models.control import answer_row
from demur.page import fragment
from demur.pooling import Phi, Pooler
from demur.redaction import hidden, how_to_show, redact, without
from demur.refusals import MARKS, begins_thought, is_refusal, open_thought
from demur.samplers import Autoregressive, build, seeded
from demur.scene import Cell, CellState, Frame, Scene
from demur.types import Canvas, DemurError, Layer, Need, Pool, Prompt, Sampler, Spec, Step

Key = tuple[Layer, Pool]
STEPS = 32
"""T of the paper: the number of signal values of a generation (arXiv:2602.02600, section 4.1)."""
DEFAULT: tuple[Key, ...] = (("last", "generated"),)


@dataclass(frozen=True, eq=False)
class Trace:
    """One generation. ``n`` columns without padding, ``g`` of them open at the start, ``s`` steps taken.

    ``commits`` are rows (step, column, token) in order; a column may come again where a sampler revises, and token -1
    says that it was opened again (masked, or filled with noise, which is not kept).
    ``predictions[t]`` are the guesses of step t + 1 at the open columns, -1 where the step made none.
    ``phi`` are pooled hidden states, one row a step. ``pieces`` are the bytes of every token that occurs. ``ends`` are
    those of them that end an answer; files of version 0.1.0 do not know them.
    """

    prompt: Prompt
    spec: Spec
    start: Int[np.ndarray, "n"]
    open: Bool[np.ndarray, "n"]
    commits: Int[np.ndarray, "k 3"]
    predictions: Int[np.ndarray, "s g"]
    confidence: Float[np.ndarray, "s g"]
    phi: Mapping[Key, Float[np.ndarray, "s d"]]
    pieces: Mapping[int, bytes]
    special: frozenset[int]
    stop: str
    passes: int
    seconds: float
    origin: Literal["live", "replayed"] = "live"
    ends: frozenset[int] = frozenset()

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.predictions)

    def replay(self, t: int) -> Int[np.ndarray, "n"]:
        """The canvas after t steps; t = 0 is the start. Raises for a t outside 0 ... steps."""
        if not 0 <= t <= self.steps:
            raise DemurError(f"step {t}", f"0 to {self.steps}, the steps of this trace", "0 is the start")
        ids = self.start.copy()
        for step, column, token in self.commits:
            if step < t:
                ids[column] = token if token >= 0 else self.start[column]
        return ids

    def tokens(self, t: int | None = None) -> Int[np.ndarray, "g"]:
        """The response after t steps (None: the last) with this step's predictions filled in; -1 = unknown."""
        t = self.steps if t is None else t
        ids = self.replay(t)[self.open]
        written = self._written(t)
        guesses = self.predictions[t - 1] if t else np.full(len(ids), -1)
        return np.where(written, ids, guesses)

    def _written(self, t: int) -> Bool[np.ndarray, "g"]:
        written = np.zeros(len(self.start), dtype=bool)
        before = self.commits[self.commits[:, 0] < t]
        written[before[:, 1]] = before[:, 2] >= 0  # of several, the last one counts
        mine: Bool[np.ndarray, "g"] = written[self.open]
        return mine

    def text(self, t: int | None = None) -> str:
        """The response's text after t steps, predictions filled in (None: after the last), up to its first end.

        Special tokens are left out, but those that mark thoughts. An end of sequence before a given token of the answer
        (:class:`demur.attacks.Infill`) ends nothing: the text goes on.
        """
        tokens = self.tokens(t).tolist()
        return text_of(tokens[: upto_first_end(tokens, self.start, self.open, self.ends)], self.pieces, self.special)

    def answer(self, t: int | None = None) -> str:
        """The whole answer after t steps, in its order, up to its first end: the mark of a thought that the chat
        template opened, what the prompt prefilled, with its holes filled, and the rest.

        It is what judges read, without its thoughts (:func:`demur.refusals.without_thoughts`); :meth:`text` holds the
        generated places alone.
        """
        given, first = self.prompt.prefill, int(self.open.argmax())
        if self.open[first:].all():
            return (given or self._opened) + self.text(t)
        mask = self.pieces[int(self.start[first])].decode("utf-8", errors="replace")
        row, tokens = self.start.copy(), self.tokens(t)
        row[self.open] = tokens
        unread = np.flatnonzero(self.open)[upto_first_end(tokens.tolist(), self.start, self.open, self.ends) :]
        read = row[first : unread[0] if len(unread) else None]
        return given.partition(mask)[0] + text_of(read[read >= 0].tolist(), self.pieces, self.special)

    def refused(self, t: int | None = None) -> bool:
        """Whether the text after t steps is a refusal by the dictionary, thoughts taken off; the text-level signal is
        its negation. An answer that is still a thought refuses nothing.
        """
        return is_refusal(self._opened + self.text(t))

    @cached_property
    def _opened(self) -> str:
        return opened_thought(self.start, self.open, self.pieces)

    def aligned(self, layer: Layer, pool: Pool, steps: int | None = None) -> Float[np.ndarray, "T d"]:
        """phi cut at T steps (default: the spec's); a trace that ended early holds its last state up to T."""
        if (layer, pool) not in self.phi:
            raise DemurError(
                f"a trace without {layer}/{pool} states",
                f"one recorded with them; this has {', '.join('/'.join(k) for k in self.phi) or 'none'}",
                f"record with pools=[({layer!r}, {pool!r})]",
            )
        phi, steps = self.phi[layer, pool], steps or self.spec.steps
        if len(phi) >= steps:
            return phi[:steps]
        held: Float[np.ndarray, "T d"] = phi[np.minimum(np.arange(steps), len(phi) - 1)]
        return held

    # -- views ------------------------------------------------------------------------------------------------------

    def scene(
        self,
        sigma: Sequence[float] | None = None,
        *,
        show_harmful: bool = False,
        title: str = "",
        verdict: str = "",
        notes: Sequence[str] = (),
        references: Sequence[tuple[str, Sequence[float]]] = (),
        bands: Sequence[tuple[str, Sequence[float], Sequence[float]]] = (),
        request: str = "",
        way: str = "",
    ) -> Scene:
        """What a person is shown. The words of the prompt and of the answer are hidden unless the prompt is marked
        harmless or ``show_harmful`` is given (:func:`demur.redaction.hidden`); so are words of the prompt in a title,
        a note or a verdict. See :class:`~demur.scene.Scene` for ``request`` and ``way``.
        """
        hide = hidden(self.prompt, show_harmful)
        last = max(self.steps, 1)

        def beside(text: str) -> str:
            known = (self.prompt.attack, self.spec.model, self.spec.sampler)
            return without(text, self.prompt.texts, known) if hide else text

        def held(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(float(values[min(t, len(values) - 1)]) for t in range(last))

        return Scene(
            title=beside(title) or f"{self.spec.model}, {self.spec.sampler}",
            prompt=redact(self.prompt.text) if hide else self.prompt.text,
            model=self.spec.model,
            sampler=self.spec.sampler,
            frames=tuple(self.frame(t, hide) for t in range(1, self.steps + 1)),
            sigma=held(sigma) if sigma is not None else None,
            references=tuple((beside(name), held(values)) for name, values in references),
            bands=tuple((beside(name), held(low), held(high)) for name, low, high in bands),
            verdict=beside(verdict),
            notes=tuple(map(beside, notes)),
            redacted=hide,
            request=beside(request),
            way=beside(way),
            opening=redact(self.prompt.prefill) if hide else self.prompt.prefill,
            hint=how_to_show(self.prompt) if hide else "",
        )

    def frame(self, t: int, hide: bool) -> Frame:
        """The response after step t as cells; the cells' texts put together are the text, special tokens included.

        A character that is split over tokens is shown in the cell that completes it; one that no cell completes, as
        U+FFFD in the last cell before the gap or the end.
        """
        tokens, before, after = self.tokens(t), self._written(t - 1), self._written(t)
        columns = np.where(self.open)[0]
        now = np.isin(columns, self.commits[(self.commits[:, 0] == t - 1) & (self.commits[:, 2] >= 0), 1])
        ever = np.isin(columns, self.commits[(self.commits[:, 0] < t - 1) & (self.commits[:, 2] >= 0), 1])
        cells: list[tuple[str, CellState]] = []
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for g, (token, following) in enumerate(zip(tokens, [*tokens[1:], -1], strict=True)):
            if token < 0:
                cells.append(("", "open"))
                continue
            state: CellState = "predicted"
            if after[g]:
                state = "kept" if before[g] and not now[g] else "revised" if ever[g] else "committed"
            cells.append((decoder.decode(self.pieces[int(token)], final=bool(following < 0)), state))
        if hide:
            cells = _redacted(cells, [int(token) in self.special for token in tokens])
        return Frame(cells=tuple(Cell(text, state) for text, state in cells), refused=self.refused(t))

    def to_frame(self, anchors: Any = None, *, per: Literal["step", "place"] = "step") -> Any:
        """A pandas ``DataFrame`` with one row for each step, with ``anchors`` (:class:`demur.signals.Anchors`) their
        ``sigma`` too; or for each step and place. docs/trace.md describes the columns. Nothing is redacted. Needs
        ``demur[data]``.
        """
        from demur import frames

        if per not in ("step", "place"):
            raise DemurError(f"per={per!r}", "step or place", "leave it out for one row a step")
        if per == "place" and anchors is not None:
            raise DemurError("anchors for rows of places", "rows of steps, which have a signal", "leave `per` out")
        return frames.steps_of(self, anchors) if per == "step" else frames.places_of(self)

    def _repr_html_(self) -> str:
        return fragment([self.scene()])

    def __repr__(self) -> str:
        """In short, without a word of prompt or answer."""
        made = f"{self.spec.model}, {self.spec.sampler}"
        return f"Trace({self.prompt.label!r}, {made}, {self.steps} steps, stop={self.stop!r}, origin={self.origin!r})"

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Writes one safetensors file; saving a loaded trace gives the same bytes."""
        arrays = {"start": self.start, "open": self.open, "commits": self.commits}
        arrays |= {"predictions": self.predictions, "confidence": self.confidence}
        arrays |= {f"phi/{layer}/{pool}": phi for (layer, pool), phi in self.phi.items()}
        card = {
            "prompt": self.prompt.plain(),
            "spec": self.spec.plain(),
            "pieces": {str(i): base64.b64encode(piece).decode() for i, piece in sorted(self.pieces.items())},
            "special": sorted(self.special),
        }
        card |= {name: getattr(self, name) for name in ("stop", "passes", "seconds", "origin")}
        if self.ends:  # files of version 0.1.0, which know none, keep their bytes
            card["ends"] = sorted(self.ends)
        return artefact.save(path, "trace", arrays, card)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Reads what :meth:`save` wrote. Raises for a missing, broken or changed file."""
        arrays, card = artefact.load(path, "trace")
        with artefact.reading(path, "trace"):
            keys = [name for name in arrays if name.startswith("phi/")]
            fields: dict[str, Any] = {name: array for name, array in arrays.items() if name not in keys} | card
            fields |= {
                "phi": {(name.split("/")[1], name.split("/")[2]): arrays[name] for name in keys},
                "prompt": Prompt(**card["prompt"]),
                "spec": artefact.made(Spec, card["spec"]),
                "pieces": {int(i): base64.b64decode(piece) for i, piece in card["pieces"].items()},
                "special": frozenset(card["special"]),
                "ends": frozenset(card.get("ends", ())),
            }
            return cls(**fields)


def text_of(ids: Sequence[int], pieces: Mapping[int, bytes], special: Container[int]) -> str:
    """The text of tokens, special ones left out. Bytes on two sides of an unknown place (-1) are never put together."""
    runs = [b""]
    for i in ids:
        if i < 0:
            runs.append(b"")
        elif i not in special:
            runs[-1] += pieces[i]
    return "".join(run.decode("utf-8", errors="replace") for run in runs)


def upto_first_end(
    tokens: Sequence[int], start: Int[np.ndarray, "n"], open_: Bool[np.ndarray, "n"], ends: Container[int]
) -> int:
    """How many of a response's tokens are read: those before the first end behind which no other token is given."""
    given = [i for i in np.flatnonzero(~open_[int(open_.argmax()) :]) + int(open_.argmax()) if start[i] not in ends]
    behind = int(open_[: given[-1]].sum()) if given else 0
    return next((i for i in range(behind, len(tokens)) if tokens[i] in ends), len(tokens))


def opened_thought(start: Int[np.ndarray, "n"], open_: Bool[np.ndarray, "n"], pieces: Mapping[int, bytes]) -> str:
    """The mark of a thought that the given tokens before a response leave open, as templates of reasoning models do;
    empty if there is none. A mark is one token, or stands at the end of what is given.
    """
    before = [i for i in start[: int(open_.argmax())].tolist() if i in pieces]
    marks = {i for i in {*before} if pieces[i].decode("utf-8", errors="replace").strip().lower() in MARKS}
    last = next((pieces[i].decode().strip() for i in reversed(before) if i in marks), "")
    if begins_thought(last):
        return last
    tail = text_of(before[-40:], pieces, ()).rstrip()[-40:]
    opened = open_thought(tail)
    return opened if opened and tail.endswith(opened) else ""


def _redacted(cells: list[tuple[str, CellState]], special: Sequence[bool]) -> list[tuple[str, CellState]]:
    """Cells whose joined text is redacted: words may run over cells, and redaction keeps every offset.

    An open place counts as a letter, since the word beside it may go on there: "he" before it may become "hero".
    Special tokens, which end words, keep their names: these say nothing but that an answer has ended.
    """
    words = [
        "x" if state == "open" else " " * len(text) if kept else text
        for (text, state), kept in zip(cells, special, strict=True)
    ]
    whole, at, out = redact("".join(words)), 0, []
    for (text, state), kept, word in zip(cells, special, words, strict=True):
        out.append((text if kept or state == "open" else whole[at : at + len(word)], state))
        at += len(word)
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Making traces


def spec_of(model: Any, sampler: Any, length: int, *, steps: int = STEPS, seed: int | None = None) -> Spec:
    """What makes traces of ``model`` under ``sampler`` comparable.

    The response length belongs to it for samplers that see the whole canvas, not for autoregressive ones, whose first
    steps do not depend on it; nor does the cache, which changes nothing but the time.
    """
    # A guard changes no step before it acts. DiffuGuard does; its traces go by the same spec all the same, since guards
    # that were fitted without it are measured on them.
    while hasattr(sampler, "undefended"):
        sampler = sampler.undefended
    settings = {k: v for k, v in vars(sampler).items() if k != "cache" and not k.startswith("_")}
    if not isinstance(sampler, Autoregressive):
        settings["length"] = length
    return Spec(
        **asdict(model.identity),
        sampler=type(sampler).__name__,
        settings=settings,
        steps=steps,
        seed=seed,
        versions=_versions(),
    )


@cache
def _versions() -> dict[str, str]:
    """What ran, for the record. Looked up once: it takes longer than a step of a small model."""
    return {name: metadata.version(name) for name in ("demur", "torch", "transformers")}


class Recorder:
    """Records a generation that somebody else iterates over: ``for step in recorder(steps): ...``.

    Keeps, on the model's device, token rows and pooled states only; they are moved once, by :meth:`traces`. Raises
    unless there is a prompt for every row and an open place in it.
    """

    def __init__(
        self, model: Any, canvas: Canvas, prompts: Sequence[Prompt], spec: Spec, wanted: Sequence[Key]
    ) -> None:
        if len(prompts) != canvas.rows:
            raise DemurError(
                f"{len(prompts)} prompts for {canvas.rows} rows", "one each", "use model.canvas(prompts, length)"
            )
        for prompt, has_room in zip(prompts, canvas.open.any(dim=1).tolist(), strict=True):
            if not has_room:
                raise DemurError(
                    f"a generation without steps: no open place for prompt {prompt.label!r}",
                    "at least one in every row",
                    "ask for a length of at least 1, or leave the row out",
                )
        self.model, self.canvas, self.prompts, self.spec = model, canvas, tuple(prompts), spec
        self.pooler = Pooler(canvas, wanted)
        self.kept: list[tuple[Step, Phi]] = []
        self.seconds = 0.0
        self.ended = False

    def __call__(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Phi]]:
        """The same steps, each with the pooled states after it."""
        begun = time.perf_counter()
        for step in steps:
            phi = self.pooler(step)
            # What a trace needs; the step's own states are let go, so that no volume of them ever stands in memory.
            self.kept.append((_without_states(step), phi))
            self.seconds = time.perf_counter() - begun
            yield step, phi
        self.ended = True

    def traces(self) -> list[Trace]:
        """One trace for each row. Raises if no step was taken."""
        if not self.kept:
            raise DemurError("a generation without steps", "at least one", "iterate over recorder(sampler(...)) first")
        names = ("committed", "predictions", "confidence", "live", "open")
        stacked = {name: torch.stack([getattr(step, name) for step, _ in self.kept]).cpu().numpy() for name in names}
        phi = {key: torch.stack([phi[key] for _, phi in self.kept]).cpu().numpy() for key in self.pooler.wanted}
        start_ids, open_ = self.canvas.ids.cpu().numpy(), self.canvas.open.cpu().numpy()
        final_ids, final_open = (x.cpu().numpy() for x in (self.kept[-1][0].ids, self.kept[-1][0].open))
        stops = np.array(self.model.stop_ids, dtype=np.int64)
        passes = np.array([step.passes for step, _ in self.kept])
        traces = []
        for i, (prompt, pad) in enumerate(zip(self.prompts, self.canvas.starts(), strict=True)):
            # A row's own steps, wherever they lie: between two canvases it waits for its neighbours.
            taken = np.flatnonzero(stacked["live"][:, i])
            committed = stacked["committed"][taken, i, pad:]
            tokens = stacked["predictions"][taken, i, pad:]
            opened = stacked["open"][taken, i, pad:]
            before = np.concatenate([open_[None, i, pad:], opened[:-1]])
            commits = _events(committed, opened & (committed | ~before), tokens)
            holes = open_[i, pad:]
            sure = stacked["confidence"][taken, i, pad:][:, holes].astype(np.float32)
            predictions = np.where(np.isnan(sure), -1, tokens[:, holes]).astype(np.int32)
            row = start_ids[i, pad:].astype(np.int32)
            occurring = [row, predictions[predictions >= 0], commits[commits[:, 2] >= 0, 2]]
            pieces, special = self.model.pieces(np.concatenate(occurring).tolist())
            # No row's reason depends on what its neighbours did.
            left = final_open[i].any()
            guarded = any(step.replaced is not None and bool(step.replaced[i]) for step, _ in self.kept)
            written = final_ids[i, open_[i] & ~final_open[i]]  # as it stands: a renoised end of sequence is none
            one_by_one = Need.CAUSAL in self.model.offers
            last = commits[-1:, 2] if one_by_one else written
            if guarded:
                stop = "guarded"
            elif Need.REMASK not in self.model.offers and np.isin(last, stops).any() and (left or one_by_one):
                stop = "end-of-sequence"
            elif not left:
                stop = "full"
            else:
                stop = "unfilled" if self.ended else "stopped"
            traces.append(
                Trace(
                    prompt=prompt,
                    spec=self.spec,
                    start=row,
                    open=holes,
                    commits=commits,
                    predictions=predictions,
                    confidence=sure,
                    phi={key: states[taken, i] for key, states in phi.items()},
                    pieces=pieces,
                    special=special | ({self.model.mask_id} if self.model.mask_id is not None else frozenset()),
                    stop=stop,
                    passes=int(passes[taken].sum()),
                    seconds=self.seconds,
                    ends=_occurring(self.model.stop_ids, pieces),
                )
            )
        return traces


def _occurring(stops: Sequence[int], pieces: Mapping[int, bytes]) -> frozenset[int]:
    return frozenset(stops) & pieces.keys()


def _events(
    committed: Bool[np.ndarray, "s n"], reopened: Bool[np.ndarray, "s n"], tokens: Int[np.ndarray, "s n"]
) -> Int[np.ndarray, "k 3"]:
    """Rows (step, column, token) in order: what a step wrote, then, as token -1, what it opened again."""
    rows = []
    for marks, values in ((committed, tokens), (reopened, np.full_like(tokens, -1))):
        when, where = np.nonzero(marks)
        rows.append(np.stack([when, where, values[when, where]], axis=1))
    events = np.concatenate(rows)
    return events[np.argsort(events[:, 0], kind="stable")].astype(np.int32)


def _without_states(step: Step) -> Step:
    slim = Step(**(vars(step) | {"hidden": {}}))
    return slim


def as_prompts(prompts: Prompt | str | Sequence[Prompt | str]) -> list[Prompt]:
    """What a model is asked as prompts: one or several, each a :class:`Prompt` or its text, whose id is then
    ``typed-1`` ... by its place. Raises for anything else.
    """
    several: Any = [prompts] if isinstance(prompts, Prompt | str) or not isinstance(prompts, Iterable) else prompts
    made = [Prompt(f"typed-{i}", one) if isinstance(one, str) else one for i, one in enumerate(several, start=1)]
    for one in made:
        if not isinstance(one, Prompt):
            raise DemurError(
                f"a prompt of type {type(one).__name__}",
                "a Prompt or a text, one or several",
                "write Prompt(id, text), or Prompt(id, messages=[...]) for a conversation",
            )
    return made


def generate(
    model: Any,
    prompts: Prompt | str | Sequence[Prompt | str],
    sampler: Sampler | None = None,
    *,
    length: int | None = None,
    seed: int = 0,
    steps: int = STEPS,
    pools: Sequence[Key] = DEFAULT,
    batch: int = 8,
    progress: Callable[[int], object] | None = None,
) -> list[Trace]:
    """Generates an answer to every prompt and returns their traces, in order. A prompt may be given as its text.

    ``length`` open places a prompt (None: :meth:`demur.types.Model.default_length`); ``steps`` is T, where signals are
    cut. Prompt i draws from a generator seeded ``seed + i``, so that results do not depend on ``batch``. ``progress``
    is called with the number of prompts done. Raises for steps or a batch below 1.
    """
    _check_counts(steps=steps, batch=batch)
    prompts = as_prompts(prompts)
    sampler = sampler if sampler is not None else default_sampler(model)
    watched = watching(model, pools)
    length = model.default_length(steps) if length is None else length
    spec = spec_of(model, sampler, length, steps=steps, seed=seed)
    traces: list[Trace] = []
    for begin in range(0, len(prompts), batch):
        group = prompts[begin : begin + batch]
        canvas = watched.canvas(group, length)
        recorder = Recorder(watched, canvas, group, spec, pools)
        for _ in recorder(sampler(watched, canvas, seeded(seed + begin, len(group)))):
            pass
        traces += recorder.traces()
        if progress is not None:
            progress(len(traces))
    return traces


def watching(model: Any, pools: Sequence[Key]) -> Any:
    """The model with just those captures that the pooling modes need."""
    layers = dict.fromkeys(layer for layer, _ in pools)
    return model.watching(*layers, own=any(pool == "generated" for _, pool in pools))


def default_sampler(model: Any) -> Sampler:
    """The sampler of the model's family: greedy decoding, low-confidence remasking in 32 steps, Dream's, SDAR's ..."""
    return build(None, model)


def teacher_forced(
    model: Any,
    prompts: Prompt | str | Sequence[Prompt | str],
    responses: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    steps: int = STEPS,
    pools: Sequence[Key] = DEFAULT,
    sampler: Autoregressive | None = None,
    batch: int = 16,
    progress: Callable[[int], object] | None = None,
) -> list[Trace]:
    """Traces of finished responses from one pass each: what a live generation of these tokens would have recorded.

    ``responses`` are texts or token rows (exact). They end with their first end of sequence, as a live generation does,
    and only their first ``steps`` tokens are fed. A text rarely holds its end: its trace then lacks one state that a
    live one has, the end's own, and holds the one before it; a row with the token at its end has it. ``sampler`` is the
    one the traces shall be comparable with (default: greedy). The responses may come from another model (a closed one,
    say): then this one is a surrogate, and the signal is what it would have felt in saying them. Confidence is not
    computed (nan). Raises for an empty response, for steps or a batch below 1, and for a diffusion model, whose
    intermediate steps can't be known from the final text.
    """
    if Need.CAUSAL not in model.offers:
        raise DemurError(
            f"teacher-forced replay on the diffusion model {model.name}",
            "a causal model: a diffusion model's steps can't be read off its final text",
            "generate with it instead",
        )
    _check_counts(steps=steps, batch=batch)
    prompts, responses = as_prompts(prompts), [responses] if isinstance(responses, str) else responses
    if len(prompts) != len(responses):
        raise DemurError(f"{len(responses)} responses for {len(prompts)} prompts", "one each", "pair them up")
    sampler = sampler if sampler is not None else Autoregressive()
    watched = watching(model, pools)
    spec = spec_of(model, sampler, steps, steps=steps)
    rows = [_up_to_its_end(_token_row(model, response), model.stop_ids)[:steps] for response in responses]
    if not all(rows):
        raise DemurError("an empty response", "responses of at least one token", "leave its prompt out")
    # Rows of like length share a batch, so that little of it is padding; the order is put back at the end.
    order = sorted(range(len(rows)), key=lambda i: (len(prompts[i].text), len(rows[i])))
    traces: dict[int, Trace] = {}
    for begin in range(0, len(rows), batch):
        members = order[begin : begin + batch]
        group, answers = [prompts[i] for i in members], [rows[i] for i in members]
        begun = time.perf_counter()
        # One by one, so that whether a prompt fits into the context does not depend on its neighbours' answers.
        asked = [watched.canvas([prompt], len(answer)) for prompt, answer in zip(group, answers, strict=True)]
        prompts_ids = [one.ids[0][~one.open[0]].cpu() for one in asked]
        canvas = watched.canvas_of([[*p.tolist(), *a] for p, a in zip(prompts_ids, answers, strict=True)], 0)
        out = watched.forward(canvas, None)
        seconds = time.perf_counter() - begun
        phi = {key: _running_means(out.hidden[key[0]], key[1], [len(a) for a in answers]) for key in pools}
        for i, (place, prompt, row, answer) in enumerate(zip(members, group, prompts_ids, answers, strict=True)):
            n, g = len(row), len(answer)
            start = np.concatenate([row.numpy(), np.full(g, watched.pad_id)]).astype(np.int32)
            steps_taken = np.arange(g)
            predictions = np.full((g, g), -1, dtype=np.int32)
            predictions[steps_taken, steps_taken] = answer
            pieces, special = model.pieces([*start.tolist(), *answer])
            traces[place] = Trace(
                prompt=prompt,
                spec=spec,
                start=start,
                open=np.arange(n + g) >= n,
                commits=np.stack([steps_taken, n + steps_taken, np.array(answer)], axis=1).astype(np.int32),
                predictions=predictions,
                confidence=np.full((g, g), np.nan, dtype=np.float32),
                phi={key: value[i] for key, value in phi.items()},
                pieces=pieces,
                special=special,
                stop="end-of-sequence" if answer[-1] in model.stop_ids else "full",
                passes=1,
                seconds=seconds,
                origin="replayed",
                ends=_occurring(model.stop_ids, pieces),
            )
        if progress is not None:
            progress(len(traces))
    return [traces[i] for i in range(len(rows))]


def _token_row(model: Any, response: str | Sequence[int]) -> list[int]:
    if not isinstance(response, str):
        return [int(i) for i in response]
    return answer_row(model.tokenizer, response)


def _up_to_its_end(tokens: list[int], stops: Sequence[int]) -> list[int]:
    """The tokens up to the first end of sequence, which is the last that a live generation takes."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))]


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise DemurError(f"{name}={count}", "at least 1", "raise it")


def _running_means(states: Any, pool: Pool, lengths: Sequence[int]) -> list[Float[np.ndarray, "s d"]]:
    """Cumulative means of the states of (``generated``) or before (``producing``) the last ``lengths[i]`` columns."""
    if pool not in ("generated", "producing"):
        raise DemurError(
            f"pooling mode {pool!r} in a teacher-forced replay", "generated or producing", "name one of these"
        )
    end = states.shape[1] - (pool == "producing")
    means = []
    for i, length in enumerate(lengths):
        mine = states[i, end - length : end].float()
        means.append((mine.cumsum(dim=0) / torch.arange(1, length + 1, device=mine.device)[:, None]).cpu().numpy())
    return means
