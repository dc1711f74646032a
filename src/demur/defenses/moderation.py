"""A review of answers by a model that was made for it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, cast

import torch

from demur.defenses.asking import said_behind
from demur.defenses.forms import FORMS, PLAIN, Form, form_of, only_word, quoted, safety_line
from demur.defenses.setup import Setup, loaded
from demur.kinds import check_kinds
from demur.traces import Trace, generate
from demur.types import DemurError, DemurWarning, Model, Need, Prompt, Scoring, Verdict


@dataclass(frozen=True)
class Moderation:
    """A moderation model reads request and answer, and says whether the answer is safe.

    ``form`` is how it is asked (:data:`demur.defenses.forms.FORMS`); empty: by the name of its checkpoint, and plainly,
    with a warning, where that says nothing. ``policy`` stands in for the form's own one, where it has one. ``strict``
    stops what is called controversial, too. ``threshold``: the least probability of a yes that stops, where the form
    asks for one (ShieldGemma). ``tokens``: of its answer; None: the form's.

    Read are the forms that the makers give (:mod:`demur.defenses.forms`), and they alone. What can not be read, such as
    prose, a verdict in a sentence, an empty text or a thought without an end, is unscored; in a :class:`Line` it
    stops what it was asked about. Raises for a template that leaves out the request or the answer,
    and for what is longer than the model's context.
    """

    model: Model
    unsafe: str = "unsafe"
    safe: str = "safe"
    tokens: int | None = None
    batch: int = 8
    form: str = ""
    policy: str = field(default="", repr=False)
    strict: bool = False
    threshold: float = 0.5
    name: ClassVar[str] = "moderation"
    guarded: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("model", "form", "policy", "strict", "threshold")

    def __post_init__(self) -> None:
        own = ("unsafe", "safe", "tokens", "batch", "form", "policy", "strict", "threshold")
        check_kinds(self, {name: getattr(self, name) for name in own}, self.name)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Raises unless a model is named, and for settings that its form does not have."""
        if not isinstance(settings.get("model"), str):
            raise DemurError("moderation without a model", "a moderation model", "meta-llama/Llama-Guard-3-8B, say")
        if settings.get("form", "plain") not in FORMS:
            raise DemurError(
                f"moderation with form {settings['form']!r}", ", ".join(FORMS), "name one, or leave it out"
            )
        form = FORMS[settings["form"]] if "form" in settings else form_of(settings["model"]) or PLAIN
        if "policy" in settings and not (form.policy_as and isinstance(settings["policy"], str)):
            raise DemurError(f"moderation of form {form.name} with a policy", "shieldgemma or policy", "leave it out")
        if not 0 <= settings.get("threshold", 0.5) <= 1:
            raise DemurError(f"moderation with threshold {settings['threshold']}", "a probability", "0.5 is the middle")

    @classmethod
    def made(cls, setup: Setup, model: str, **settings: Any) -> Self:
        """By the model of that name."""
        return cls(loaded(model), **settings)

    @property
    def asked(self) -> Form:
        """How the model is asked."""
        if self.form:
            return FORMS[self.form]
        return form_of(getattr(self.model, "name", "")) or PLAIN

    def review(self, traces: Sequence[Trace]) -> list[Verdict]:
        """Flags what the moderation model calls unsafe."""
        form = self.asked
        if not self.form and form is PLAIN:
            said = f"how {self.model.name} wants to be asked is not known: it gets both sides in one message (plain)"
            warnings.warn(f"{said}; name its form: {', '.join(FORMS)}", DemurWarning, stacklevel=2)
        if form.read is None:
            return [self._rated(p) for p in self._probabilities(form, traces)]
        return [self.verdict(said) for said in self._answers(form, traces)]

    def verdict(self, said: str) -> Verdict:
        """What an answer of the moderation model says."""
        form = self.asked
        found = None if form.read is safety_line else only_word(said, self.safe, self.unsafe)
        if found is None and form.read not in (None, only_word):
            found = form.read(said)
        flagged = {"unsafe": True, "controversial": self.strict, "safe": False}.get(found or "")
        return Verdict("moderation", flagged, why=" ".join(said.split())[:60] or "an empty answer")

    def _rated(self, p: float) -> Verdict:
        """A verdict by the probability of a yes; unscored where it is no number."""
        if math.isnan(p):
            return Verdict("moderation", None, why="the probability of a yes is no number")
        return Verdict("moderation", p >= self.threshold, p, why=f"yes with probability {p:.2f}")

    def _answers(self, form: Form, traces: Sequence[Trace]) -> list[str]:
        """What the model says of each, greedily."""
        tokens = self.tokens or form.tokens
        if form.two_turns:
            return [
                said for rows in self._rows(form, traces) for said in said_behind(self.model, rows, tokens, marked=True)
            ]
        policy = (self.policy or form.policy) if form.policy_as == "system" else None
        shown = quoted if policy else lambda request, answer: f"User: {request}\n\nAgent: {answer}"
        asked = [Prompt(t.prompt.id, shown(_request(t.prompt), t.answer()), system=policy) for t in traces]
        said = generate(self.model, asked, length=tokens, steps=tokens, batch=self.batch)
        return [answer.said() for answer in said]

    def _rows(self, form: Form, traces: Sequence[Trace]) -> list[list[list[int]]]:
        """Each conversation in the model's own template, ``batch`` of them at once."""
        chat = self.model.chat
        if form.policy_as == "guideline":
            chat = replace(chat, template_args=dict(chat.template_args) | {"guideline": self.policy or form.policy})
        shown = [t.prompt if form.earlier else replace(t.prompt, messages=()) for t in traces]
        rows = [
            chat.conversation(prompt, trace.answer(), answering=form.answering)
            for prompt, trace in zip(shown, traces, strict=True)
        ]
        config, tokens = getattr(self.model, "config", None), self.tokens or form.tokens
        context = getattr(config, "max_position_embeddings", None)
        for trace, row in zip(traces, rows, strict=True):
            if context is not None and len(row) + tokens > context:
                raise DemurError(
                    f"prompt {trace.prompt.label!r} and its answer take {len(row)} tokens, and what {self.model.name} "
                    f"says of them {tokens}",
                    f"at most {context} together, the model's context",
                    "ask for shorter answers, or name a model with a longer context",
                )
        return [rows[i : i + self.batch] for i in range(0, len(rows), self.batch)]

    @torch.no_grad()
    def _probabilities(self, form: Form, traces: Sequence[Trace]) -> list[float]:
        """Of ``Yes`` against ``No`` as the first token, for each answer. Raises for a vocabulary without the two."""
        if not {Need.LOGITS, Need.CAUSAL} <= self.model.offers:
            raise DemurError(f"{self.model.name} as {form.name}", "a causal model", "name another one")
        model = cast("Scoring", self.model)
        words = [model.tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("Yes", "No")]
        if any(len(word) != 1 for word in words):
            raise DemurError(f"{model.name} writes Yes or No in several tokens", "one each", "name another model")
        found: list[float] = []
        for rows in self._rows(form, traces):
            canvas = model.canvas_of(rows, 1)
            logits = model.forward(canvas, canvas.open).logits.float()[:, [word[0] for word in words]]
            found += logits.softmax(dim=-1)[:, 0].tolist()
        return found


def _request(prompt: Prompt) -> str:
    """What was asked, behind the turns before it: a request may lean on them and say little by itself."""
    who = {"assistant": "Agent", "system": "System"}
    if not prompt.messages:
        return prompt.text
    earlier = [f"{who.get(turn.role, 'User')}: {turn.content}" for turn in prompt.messages]
    first = earlier[0].removeprefix("User: ")  # the form writes it in front of all
    return "\n\n".join([first, *earlier[1:], f"User: {prompt.text}"])
