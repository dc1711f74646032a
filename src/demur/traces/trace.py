"""The trace: what one generation did, step by step; small enough to keep and exact enough to replay."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from demur import artefact
from demur.kinds import check_text, fits
from demur.redaction import hidden
from demur.refusals import is_refusal
from demur.traces import frames, view
from demur.traces.guesses import Guesses
from demur.traces.text import begun, opened_thought, text_of, upto_first_end
from demur.types import DemurError, Layer, Pool, Prompt, Spec
from demur.views.page import fragment
from demur.views.scene import CellState, Frame, Scene

Key = tuple[Layer, Pool]
STEPS = 32
"""T of the paper: the number of signal values of a generation (arXiv:2602.02600, section 4.1)."""
DEFAULT: tuple[Key, ...] = (("last", "generated"),)


@dataclass(frozen=True, eq=False)
class Trace:
    """One generation. ``n`` columns without padding, ``g`` of them open at the start, ``s`` steps taken.

    ``commits`` are rows (step, column, token) in order; a column may come again where a sampler revises, and token -1
    says that it was opened again (masked, or filled with noise, which is not kept).
    ``guesses`` are what each step predicted at the open columns, where it did: a trace grows with its tokens.
    ``phi`` are pooled hidden states, one row a step. ``pieces`` are the bytes of every token that occurs. ``ends`` are
    those of them that end an answer; files of version 0.1.0 do not know them. ``fields`` are numbers of a user's own,
    one a step (:class:`demur.traces.TraceField`).
    """

    prompt: Prompt
    spec: Spec
    start: Int[np.ndarray, "n"]
    open: Bool[np.ndarray, "n"]
    commits: Int[np.ndarray, "k 3"]
    guesses: Guesses
    phi: Mapping[Key, Float[np.ndarray, "s d"]]
    pieces: Mapping[int, bytes]
    special: frozenset[int]
    stop: str
    passes: int
    seconds: float
    origin: Literal["live", "replayed"] = "live"
    ends: frozenset[int] = frozenset()
    fields: Mapping[str, Float[np.ndarray, "s"]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return self.guesses.steps

    @property
    def places(self) -> int:
        """How many places the response has."""
        return int(self.open.sum())

    @property
    def predictions(self) -> Int[np.ndarray, "s g"]:
        """What step t + 1 guessed, in row t, -1 where it did not: laid out anew at every call, steps times places."""
        return self.guesses.dense(self.places)[0]

    @property
    def confidence(self) -> Float[np.ndarray, "s g"]:
        """The sampler's scores of the :attr:`predictions`, nan where there is none: laid out anew at every call."""
        return self.guesses.dense(self.places)[1]

    def replay(self, t: int) -> Int[np.ndarray, "n"]:
        """The canvas after t steps; t = 0 is the start. Raises for a t outside 0 ... steps."""
        if not (fits(t, int) and 0 <= t <= self.steps):
            raise DemurError(f"step {t!r:.40}", f"0 to {self.steps}, the steps of this trace", "0 is the start")
        ids = self.start.copy()
        before = self.commits[self.commits[:, 0] < t]
        columns, tokens = before[:, 1], before[:, 2]
        ids[columns] = np.where(tokens >= 0, tokens, self.start[columns])  # of several, the last one counts
        return ids

    def tokens(self, t: int | None = None) -> Int[np.ndarray, "g"]:
        """The response after t steps (None: the last) with this step's predictions filled in; -1 = unknown."""
        t = self.steps if t is None else t
        ids = self.replay(t)[self.open]
        written = self._written(t)
        return np.where(written, ids, self.guesses.at(t, len(ids))[0] if t else -1)

    def _written(self, t: int) -> Bool[np.ndarray, "g"]:
        written = np.zeros(len(self.start), dtype=bool)
        before = self.commits[self.commits[:, 0] < t]
        written[before[:, 1]] = before[:, 2] >= 0  # of several, the last one counts
        mine: Bool[np.ndarray, "g"] = written[self.open]
        return mine

    def states(self, t: int) -> list[CellState]:
        """What step t, from 1, did to each place of the response."""
        if not (fits(t, int) and 1 <= t <= self.steps):
            raise DemurError(f"step {t!r:.40}", f"1 to {self.steps}, the steps of this trace", "0 is the start")
        before, after = self._written(t - 1), self._written(t)
        columns, writing = np.flatnonzero(self.open), self.commits[self.commits[:, 2] >= 0]
        now = np.isin(columns, writing[writing[:, 0] == t - 1, 1])
        ever = np.isin(columns, writing[writing[:, 0] < t - 1, 1])
        cases = {"open": self.tokens(t) < 0, "predicted": ~after, "kept": before & ~now, "revised": ever}
        states: list[CellState] = np.select(list(cases.values()), list(cases), "committed").tolist()
        return states

    def text(self, t: int | None = None) -> str:
        """The response's text after t steps, predictions filled in (None: after the last), up to its first end. Nothing
        is redacted: :meth:`scene` gives what a person may be shown.

        Special tokens are left out, but those that mark thoughts. An end of sequence before a given token of the answer
        (:class:`demur.attacks.Infill`) ends nothing: the text goes on.
        """
        tokens = self.tokens(t).tolist()
        return text_of(tokens[: upto_first_end(tokens, self.start, self.open, self.ends)], self.pieces, self.special)

    def answer(self, t: int | None = None) -> str:
        """The whole answer after t steps, in its order, up to its first end: the mark of a thought that the chat
        template opened, what the prompt prefilled, with its holes filled, and the rest. Nothing is redacted.

        It is what judges read, without its thoughts (:func:`demur.refusals.without_thoughts`, which knows by that mark
        that one was opened); :meth:`text` holds the generated places alone, and :meth:`said` has the mark before them.
        """
        given, first = self.prompt.prefill, int(self.open.argmax())
        if self.open[first:].all():
            return begun(self.start, self.open, self.pieces, given) + self.text(t)
        mask = self.pieces[int(self.start[first])].decode("utf-8", errors="replace")
        row, tokens = self.start.copy(), self.tokens(t)
        row[self.open] = tokens
        unread = np.flatnonzero(self.open)[upto_first_end(tokens.tolist(), self.start, self.open, self.ends) :]
        read = row[first : unread[0] if len(unread) else None]
        return given.partition(mask)[0] + text_of(read[read >= 0].tolist(), self.pieces, self.special)

    def said(self, t: int | None = None) -> str:
        """The response's text after t steps behind the mark of a thought that was open before it: where it begins with
        one, :func:`demur.refusals.without_thoughts` takes that thought off. Without one it is :meth:`text`.
        """
        return self.opened + self.text(t)

    def refused(self, t: int | None = None) -> bool:
        """Whether the text after t steps is a refusal by the dictionary, thoughts taken off; the text-level signal is
        its negation. An answer that is still a thought refuses nothing.
        """
        return is_refusal(self.said(t))

    @cached_property
    def opened(self) -> str:
        """The mark of a thought that is open before the response, as the chat template or the prompt's prefill left it;
        empty if there is none.
        """
        return opened_thought(self.start, self.open, self.pieces)

    def aligned(self, layer: Layer, pool: Pool, steps: int | None = None) -> Float[np.ndarray, "T d"]:
        """phi cut at T steps (default: the spec's); a trace that ended early holds its last state up to T."""
        check_text(layer, "a layer")
        check_text(pool, "a pooling mode")
        if (layer, pool) not in self.phi:
            raise DemurError(
                f"a trace without {layer}/{pool} states",
                f"one recorded with them; this has {', '.join('/'.join(k) for k in self.phi) or 'none'}",
                f"record with pools=[({layer!r}, {pool!r})]",
            )
        if steps is not None and not (fits(steps, int) and steps >= 1):
            raise DemurError(f"steps={steps!r:.40}", "a whole number of at least 1", "leave it out for the spec's")
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
        earlier: Sequence[Frame] = (),
    ) -> Scene:
        """What a person is shown. The words of the prompt and of the answer are hidden unless the prompt is marked
        harmless or ``show_harmful`` is given (:func:`demur.redaction.hidden`); so are words of the prompt in a title,
        a note or a verdict. See :class:`~demur.views.scene.Scene` for ``request`` and ``way``. ``earlier``: frames of
        its first steps that were made before, with words hidden or shown as here; later steps change none of them.
        """
        if not fits(show_harmful, bool):
            raise DemurError(f"show_harmful={show_harmful!r:.40}", "True or False", "leave it out to hide the words")
        hide = hidden(self.prompt, show_harmful)
        return view.scene_of(
            self.prompt,
            self.spec,
            [*earlier, *(self.frame(t, hide) for t in range(len(earlier) + 1, self.steps + 1))],
            hide=hide,
            sigma=sigma,
            title=title,
            verdict=verdict,
            notes=notes,
            references=references,
            bands=bands,
            request=request,
            way=way,
        )

    def frame(self, t: int, hide: bool) -> Frame:
        """The response after step t as cells; the cells' texts put together are the text, special tokens included.

        A character that is split over tokens is shown in the cell that completes it; one that no cell completes, as
        U+FFFD in the last cell before the gap or the end.
        """
        cells = view.cells_of(self.tokens(t), self.states(t), self.pieces, self.special, hide=hide)
        return Frame(cells=cells, refused=self.refused(t))

    def to_frame(self, anchors: Any = None, *, per: Literal["step", "place"] = "step") -> Any:
        """A pandas ``DataFrame`` with one row for each step, or for each step and place. Nothing is redacted: it holds
        the words of the answer, harmful ones too, and so does what you write from it (``to_csv``).

        With ``anchors`` (:class:`demur.signals.Anchors`) rows of steps have their ``sigma``. docs/trace.md describes
        the columns. Needs ``demur[data]``.
        """
        if per not in ("step", "place"):
            raise DemurError(f"per={per!r}", "step or place", "leave it out for one row a step")
        if anchors is not None and not hasattr(anchors, "signal"):
            came = f"a {type(anchors).__name__} in the place of anchors"
            raise DemurError(came, "anchors, or nothing", "load them: demur.Anchors.load(path)")
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
        """Writes one safetensors file; saving a loaded trace gives the same bytes. Nothing is redacted: it holds the
        words of the prompt and of the answer.
        """
        arrays = {"start": self.start, "open": self.open, "commits": self.commits}
        arrays |= {f"guesses/{name}": array for name, array in self.guesses.arrays.items()}
        arrays |= {f"phi/{layer}/{pool}": phi for (layer, pool), phi in self.phi.items()}
        arrays |= {f"field/{name}": values for name, values in self.fields.items()}
        card = {
            "prompt": self.prompt.plain(),
            "spec": self.spec.plain(),
            "pieces": {str(i): base64.b64encode(piece).decode() for i, piece in sorted(self.pieces.items())},
            "special": sorted(self.special),
        }
        card |= {name: getattr(self, name) for name in ("stop", "passes", "seconds", "origin")}
        if self.ends:  # files of version 0.1.0 know none
            card["ends"] = sorted(self.ends)
        return artefact.save(path, "trace", arrays, card)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Reads what :meth:`save` wrote, and files of version 0.1.0, which hold a prediction for every step and place.
        Raises for a missing, broken or changed file.
        """
        arrays, card = artefact.load(path, "trace")
        with artefact.reading(path, "trace"):

            def under(room: str) -> dict[str, Any]:
                return {name.removeprefix(room): arrays.pop(name) for name in list(arrays) if name.startswith(room)}

            if "predictions" in arrays:
                guesses = Guesses.of_dense(arrays.pop("predictions"), arrays.pop("confidence"))
            else:
                guesses = Guesses.of_arrays(under("guesses/"), int(arrays["open"].sum()))
            parts: dict[str, Any] = {
                "phi": {(key.split("/")[0], key.split("/")[1]): phi for key, phi in under("phi/").items()},
                "guesses": guesses,
                "fields": under("field/"),
                "prompt": Prompt(**card["prompt"]),
                "spec": artefact.made(Spec, card["spec"]),
                "pieces": {int(i): base64.b64decode(piece) for i, piece in card["pieces"].items()},
                "special": frozenset(card["special"]),
                "ends": frozenset(card.get("ends", ())),
            }
            return cls(**arrays | card | parts)
