"""Any-depth alignment: the model is asked again, in the middle of its answer, whether it would begin it.

After Zhang, Estornell, Baek, Li and Xu, *Any-Depth Alignment: Unlocking Innate Safety Alignment of LLMs to Any-Depth*,
arXiv:2510.18081, the variant that re-thinks (ADA-RK). A model that was trained to refuse does so at the beginning of
its turn; the tokens that open the turn carry that. They are put behind what it has written so far, and if what it says
then is a refusal, the answer is stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from demur.defenses.asking import said_behind
from demur.guards.acting import Refusal
from demur.guards.rows import OVER, RowState
from demur.kinds import check_kinds
from demur.models.control import bare_row
from demur.refusals import REFUSAL, is_refusal
from demur.samplers import steps_of
from demur.types import Canvas, DemurError, DemurWarning, Need, Sampler, Scoring, Step, lacking


@dataclass(frozen=True)
class AnyDepth:
    """A defense: ``AnyDepth()(sampler)`` is the same sampler, which is asked again after every ``every`` tokens.

    ``tokens`` are read of what the model says then, by the refusal dictionary. What is stopped is overwritten with
    ``refusal``, as :class:`demur.guards.Watch` does. Up to there the steps are those of the undefended sampler.

    The paper's numbers of tokens are its own for each model; ours are one default. Each look is a pass over all that is
    written so far and ``tokens`` steps, which the run's overhead holds and ``passes`` of a trace does not.
    """

    every: int = 25
    tokens: int = 10
    refusal: str = REFUSAL
    name: ClassVar[str] = "any-depth"
    guarded: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CAUSAL})
    active: ClassVar[bool] = True
    stops: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("every", "tokens")

    def __post_init__(self) -> None:
        check_kinds(self, {name: getattr(self, name) for name in ("every", "tokens", "refusal")}, self.name)
        for name in ("every", "tokens"):
            if getattr(self, name) < 1:
                raise DemurError(f"any-depth with {name}={getattr(self, name)}", "at least 1", "raise it")

    def __call__(self, sampler: Sampler) -> Asked:
        """The sampler, whose model is asked again."""
        return Asked(sampler, self)


@dataclass
class _Row:
    state: RowState = RowState.RUNNING


@dataclass(frozen=True)
class Asked:
    """A sampler whose model is asked again. Rows are asked by themselves."""

    undefended: Any
    defense: AnyDepth

    def __call__(self, model: Scoring, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        """Steps of the undefended sampler, until no row goes on. Raises for a model that is not causal, or whose chat
        template writes nothing to open an answer. Warns where no answer can be long enough to be asked about.
        """
        if missing := lacking(model, AnyDepth.needs):
            then = "leave any-depth out for this model"
            raise DemurError(f"any-depth on {model.name}, which has no {missing}", "a causal model", then)
        opening = bare_row(model.tokenizer, model.chat.opening)
        longest = int(canvas.open.sum(dim=1).max())
        if longest < self.defense.every:  # rows of such a run would be those without a defense
            came = f"any-depth asks after every {self.defense.every} tokens, and answers have {longest} at most"
            warnings.warn(f"{came}: it asks about none of them; make every smaller", DemurWarning, stacklevel=2)
        rows, answer = [_Row() for _ in range(canvas.rows)], Refusal(model, canvas, self.defense.refusal)
        for step in steps_of(self.undefended, model, canvas, rngs):
            answer.held.append(step)
            yield from answer.out(rows)
            for row, live in zip(rows, step.live.tolist(), strict=True):
                if not live and row.state is RowState.RUNNING:
                    row.state = RowState.ENDED
            if all(row.state in OVER for row in rows):
                break
            if (step.index + 1) % self.defense.every == 0:
                running = [i for i, row in enumerate(rows) if row.state is RowState.RUNNING]
                for i in self._refused(model, canvas, step, running, opening):
                    rows[i].state = RowState.FLAGGED
        yield from answer.after(rows)

    def _refused(self, model: Scoring, canvas: Canvas, step: Step, rows: list[int], opening: list[int]) -> list[int]:
        """Those of the rows in which the model refuses, asked again behind what it has written."""
        written = [step.ids[i][~canvas.pad[i] & ~step.open[i]].tolist() + opening for i in rows]
        said = said_behind(model, written, self.defense.tokens)
        return [i for i, text in zip(rows, said, strict=True) if is_refusal(text)]
