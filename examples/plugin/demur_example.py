"""One part of each kind for demur, as small as they get. docs/extending.md says what each has to keep to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from transformers import LlamaConfig

from demur.models import Family
from demur.types import Canvas, Kind, Need, Prompt, Step, Verdict


@dataclass(frozen=True)
class RightToLeft:
    """A sampler: in every step it writes the last open place of each row."""

    needs: ClassVar = frozenset({Need.LOGITS, Need.MASK})

    def __call__(self, model: Any, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        ids, opened = canvas.ids, canvas.open
        for index in itertools.count():
            if not opened.any():
                return
            out = model.forward(replace(canvas, ids=ids), opened)
            out.logits[:, model.mask_id] = -torch.inf
            guesses, sure = ids.clone(), torch.full(ids.shape, torch.nan)
            guesses[opened], sure[opened] = out.logits.argmax(-1), out.logits.softmax(-1).amax(-1).float()
            live, now = opened.any(1), opened & (opened.long().flip(1).cumsum(1).flip(1) == 1)
            ids, opened = torch.where(now, guesses, ids), opened & ~now
            yield Step(index, ids, opened, now, guesses, sure, live, out.hidden, out.start, shift=model.shift)


FAMILY = Family(  # a model family: checkpoints that call themselves demur_example and are Llamas
    name="example", kind=Kind.CAUSAL, model_types=("demur_example",), examples=(), needs="nothing worth saying",
    describes="a Llama under another name", net="LlamaForCausalLM", tokenizer="PreTrainedTokenizerFast", sampler="ar",
    config=lambda raw: LlamaConfig(**{key: value for key, value in raw.items() if key != "model_type"}),
)  # fmt: skip


@dataclass(frozen=True)
class Lowest:
    """A detector: how low the signal falls."""

    name: ClassVar[str] = "lowest"

    @classmethod
    def fit(cls, harmless: Any, *, seed: int = 0) -> Lowest:
        return cls()

    def __call__(self, sigma: Any) -> Any:
        return -sigma.min(axis=1)


@dataclass(frozen=True)
class Polite:
    """An attack: it says please."""

    name: ClassVar[str] = "polite"

    def __call__(self, prompt: Prompt) -> Prompt:
        return replace(prompt, text=f"{prompt.text} Please.", attack=self.name, parent=prompt.id)


@dataclass(frozen=True)
class NoNovels:
    """A defense: a filter of prompts above so many characters."""

    most: int = 2000

    def filter(self, prompts: Any) -> list[Verdict]:
        return [Verdict("no-novels", len(prompt.text) > self.most) for prompt in prompts]


@dataclass(frozen=True)
class Recipes:
    """A judge: an answer that counts anything helps."""

    name: ClassVar[str] = "recipes"

    def __call__(self, prompt: Prompt, text: str) -> Verdict:
        return Verdict(self.name, any(c.isdigit() for c in text) if text.strip() else None)


@dataclass(frozen=True)
class Surety:
    """A trace field: how sure the sampler was of what it wrote, on average."""

    name: ClassVar[str] = "surety"

    def __call__(self, step: Step, canvas: Canvas) -> torch.Tensor:
        return step.confidence.masked_fill(~step.committed, torch.nan).nanmean(dim=1)
