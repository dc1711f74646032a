"""From what a client asks to what is generated. What can not be done is refused here, before anything waits for it.

A guard watches generations of its own spec alone. A request for another sampler, or other settings, is no way around
it: it is refused, unless the operator leaves it to clients whether the guard looks and the request says that it shall
not.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from demur.guards import Guard
from demur.models.control import Sealed, control_tokens, row_of
from demur.refusals import shows_nothing
from demur.samplers import build
from demur.samplers.build import fitting, made_again, needs_of
from demur.serving.asks import ChatAsked, Common, Own, TextAsked, Turn
from demur.serving.errors import Refused, refused_by, wrong
from demur.serving.limits import Limits
from demur.serving.order import Order
from demur.serving.settings import checked
from demur.traces import STEPS, spec_of
from demur.types import DemurError, Message, Model, Prompt, Sampler, TooLong, lacking

DRAW = ("temperature", "top_p", "top_k")
"""Settings of a sampler that OpenAI's clients, and others, have names for."""
RAW = "a raw completion is outside of what the guard was calibrated on: requests in the chat template"


@dataclass(frozen=True, eq=False)
class Terms:
    """What the operator has fixed. ``served`` is the model's name for clients; ``sampler``, called ``named``, is the
    default (None: the guard's, or the family's). ``steps`` is T, for samplers that take as many.
    """

    model: Model
    served: str
    guard: Guard | None = None
    limits: Limits = field(default_factory=Limits)
    sampler: Sampler | None = None
    named: str = ""
    steps: int = STEPS
    length: int | None = None
    guard_is_a_choice: bool = False
    may_prefill: bool = False


class Orders:
    """Makes orders of requests. Raises :class:`DemurError` at once if the operator's own terms can not be kept."""

    def __init__(self, terms: Terms) -> None:
        self.terms, self.model = terms, terms.model
        self.names = fitting(self.model.offers)
        guard, self.plain = terms.guard, terms.sampler or build(None, self.model, steps=terms.steps)
        self.named = terms.named or self.model.preferred
        self.bound: int | None = None  # places that the guard's promise hangs on
        if guard is not None:
            self.bound = guard.spec.settings.get("length")
            if terms.sampler is None:
                own = {name: value for name, value in guard.spec.settings.items() if name != "length"}
                self.plain = made_again(guard.spec.sampler, own)
                self.named = self._name_of(self.plain)
        if lacks := lacking(self.model, needs_of(self.plain)):
            raise DemurError(
                f"a guard of the sampler {self.named} for {self.model.name}, which has no {lacks}",
                "a guard of this model",
                "fit one: demur guard fit",
            )
        if terms.length is not None and self.bound not in (None, terms.length):
            raise DemurError(f"--length {terms.length}", f"{self.bound}, the guard's", "leave it out")
        self.length = self.bound or terms.length or self.model.default_length(terms.steps)
        if self.length > terms.limits.answer:
            raise DemurError(
                f"answers of {self.length} tokens", f"at most {terms.limits.answer}", "raise --max-tokens, or --length"
            )
        if guard is not None:
            guard.check(self._spec(self.plain, self.length))
        self._tokenizing = threading.Lock()  # a tokenizer is not made for several threads

    def chat(self, asked: ChatAsked) -> Order:
        """What a chat is answered with. Raises :class:`Refused`."""
        if asked.max_completion_tokens and asked.max_tokens and asked.max_completion_tokens != asked.max_tokens:
            raise wrong("max_tokens and another max_completion_tokens", "one of them", param="max_tokens")
        most = asked.max_completion_tokens or asked.max_tokens
        return self._order(asked, most, conversation_of(asked.messages, self.terms.limits, self.terms.may_prefill), "")

    def text(self, asked: TextAsked) -> Order:
        """What a raw text is continued with. Raises :class:`Refused`."""
        text = asked.prompt if isinstance(asked.prompt, str) else asked.prompt[0]
        return self._order(asked, asked.max_tokens, None, text)

    # -- what is read -----------------------------------------------------------------------------------------------

    def _row(self, prompt: Prompt | None, text: str, places: int) -> tuple[int, ...]:
        """The tokens that the model reads. Raises for too many of them, and for what no model is asked."""
        try:
            with self._tokenizing:
                row = self._templated(prompt, places) if prompt is not None else self._raw(text, places)
        except DemurError as error:
            raise refused_by(error, "messages" if prompt is not None else "prompt") from None
        if len(row) > self.terms.limits.prompt:
            raise wrong(
                f"a prompt of {len(row)} tokens",
                f"at most {self.terms.limits.prompt}",
                "send less",
                param="messages" if prompt is not None else "prompt",
                code="context_length_exceeded",
            )
        return row

    def _templated(self, prompt: Prompt, places: int) -> tuple[int, ...]:
        canvas = self.model.canvas([prompt], places)
        return tuple(canvas.ids[0][~canvas.open[0]].tolist())

    def _raw(self, text: str, places: int) -> tuple[int, ...]:
        tokenizer = self.model.tokenizer
        if shows_nothing(text):
            raise DemurError("an empty prompt", "a text", "give it some words")
        if tokenizer is None:
            raise DemurError("a model without a tokenizer", "one that reads texts", "serve another")
        controls = control_tokens(tokenizer, self.model.chat.template or "")
        if any(content in text for content in controls.values()):
            raise DemurError(
                "a prompt that holds a control token of the model", "words alone", "use /v1/chat/completions"
            )
        row = tuple(row_of(tokenizer, Sealed(text, {}, controls), templated=False))
        context = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        if not row:
            raise DemurError("a prompt that is no token at all", "a text that the tokenizer knows", "give it words")
        if context is not None and len(row) + places > context:
            came = f"a prompt of {len(row)} tokens and an answer of {places}"
            raise TooLong(came, f"at most {context} together, the model's context", "shorten one of them")
        return row

    # -- how it is answered -----------------------------------------------------------------------------------------

    def _order(self, asked: Common, most: int | None, prompt: Prompt | None, text: str) -> Order:
        terms, own = self.terms, asked.demur or Own()
        if asked.model != terms.served:
            raise Refused(
                404, f"no such model; expected {terms.served}; GET /v1/models lists it", "model", "model_not_found"
            )
        if most is not None and most > terms.limits.answer:
            name = "max_tokens" if asked.max_tokens == most else "max_completion_tokens"
            raise wrong(f"{name}={most}", f"at most {terms.limits.answer}", "ask for less", param=name)
        if own.canvas and not asked.stream:
            raise wrong("demur.canvas without stream", "a stream, which shows it", param="demur.canvas")
        if asked.stream_options is not None and not asked.stream:
            raise wrong("stream_options without stream", "stream=true", param="stream_options")
        unwatched = self._unwatched(own)
        named, sampler, settings = self._sampler(asked, own)
        places = self.bound if self.bound and not unwatched else most or self.length
        if terms.guard is not None and not unwatched:
            try:
                terms.guard.check(self._spec(sampler, places))
            except DemurError as error:
                raise wrong(
                    f"settings under which the guard can not look ({error.came})",
                    "those that it was calibrated with: leave out sampler, settings and temperature",
                    "GET /v1/models shows them",
                    param=self._blamed(asked, own),
                ) from None
        chat = prompt is not None
        row = self._row(prompt, text, places)
        return Order(
            id=f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            chat=chat,
            model=terms.served,
            row=row,
            sampler=sampler,
            named=named,
            settings=settings,
            seed=asked.seed if asked.seed is not None else secrets.randbelow(2**31),
            places=places,
            most=min(most or places, places),
            stops=self._stops(asked.stop),
            unwatched=unwatched,
            note="" if chat or unwatched else RAW,
            stream=bool(asked.stream),
            usage=bool(asked.stream_options and asked.stream_options.include_usage),
            canvas=bool(own.canvas),
            texts=tuple(prompt.texts) if prompt is not None else (text,),
            created=int(time.time()),
        )

    def _unwatched(self, own: Own) -> str:
        """Why no guard looks; empty if one does."""
        if self.terms.guard is None:
            if own.guard:
                raise wrong("demur.guard=true", "a server with a guard", "this one has none", param="demur.guard")
            return "this server has no guard"
        if own.guard is None or own.guard:
            return ""
        if not self.terms.guard_is_a_choice:
            raise wrong(
                "demur.guard=false",
                "true",
                "this server's operator has not left it to clients (--allow-guard-choice)",
                param="demur.guard",
            )
        return "the client asked for no guard"

    def _sampler(self, asked: Common, own: Own) -> tuple[str, Sampler, dict[str, Any]]:
        """The sampler's name, the sampler, and its settings as JSON may hold them."""
        base, named = self.plain, self.named
        try:
            if own.sampler is not None and own.sampler != self.named:
                if own.sampler not in self.names:  # never looked up: a client can not say what is imported
                    raise wrong(
                        "a sampler that this model is not run with",
                        ", ".join(self.names),
                        "name one",
                        param="demur.sampler",
                    )
                named, base = own.sampler, build(own.sampler, self.model, steps=self.terms.steps)
            changes = checked(base, own.settings or {}, named)
            for name in DRAW:
                value = getattr(asked, name)
                if value is None or (name == "top_p" and value == 1 and getattr(base, name, None) in (None, 1)):
                    continue
                if changes.get(name, value) != value:
                    raise wrong(f"{name} and another one in demur.settings", "one of them", param=name)
                if not hasattr(base, name):
                    raise wrong(f"{name} with the sampler {named}", "one that has it", "leave it out", param=name)
                changes[name] = value
            sampler = replace(base, **changes) if changes else base  # type: ignore[type-var]
        except DemurError as error:
            raise refused_by(error, self._blamed(asked, own)) from None
        except TypeError:
            raise wrong("settings for a sampler that has none", "none", param="demur.settings") from None
        return named, sampler, _plain(sampler)

    def _blamed(self, asked: Common, own: Own) -> str | None:
        """The first parameter by which a client wants another draw than the usual one; None where none does."""

        def is_other(name: str, value: Any) -> bool:
            usual = getattr(self.plain, name, None)
            return value is not None and value != usual and not (name == "top_p" and value == 1 and usual is None)

        said = {"demur.sampler": own.sampler not in (None, self.named)}
        said["demur.settings"] = any(is_other(name, value) for name, value in (own.settings or {}).items())
        said |= {name: is_other(name, getattr(asked, name)) for name in DRAW}
        return next((name for name, other in said.items() if other), None)

    def _name_of(self, sampler: Sampler) -> str:
        """By which name it is asked for; the name of its class where there is none."""
        names = [self.model.preferred, *self.names]
        return next(
            (n for n in names if build(n, self.model, steps=self.terms.steps) == sampler), type(sampler).__name__
        )

    def _spec(self, sampler: Sampler, places: int) -> Any:
        steps = self.terms.guard.spec.steps if self.terms.guard is not None else self.terms.steps
        return spec_of(self.model, sampler, places, steps=steps)

    def _stops(self, stop: str | Sequence[str] | None) -> tuple[str, ...]:
        limits = self.terms.limits
        stops = tuple([stop] if isinstance(stop, str) else stop or ())
        if len(stops) > limits.stops or any(not 0 < len(one) <= limits.stop_length for one in stops):
            raise wrong(
                f"{len(stops)} stop strings of {', '.join(str(len(one)) for one in stops[:4])} characters",
                f"at most {limits.stops}, of 1 to {limits.stop_length} characters",
                param="stop",
            )
        return stops


def conversation_of(turns: Sequence[Turn], limits: Limits, may_prefill: bool) -> Prompt:
    """The messages of a request as a prompt. Raises :class:`Refused`."""
    if len(turns) > limits.messages:
        raise wrong(f"{len(turns)} messages", f"at most {limits.messages}", param="messages")
    said = [Message(role_of(turn), content_of(turn, i)) for i, turn in enumerate(turns)]
    if said[-1].role == "assistant" and not may_prefill:
        raise wrong(
            "an assistant's message at the end, which would begin the answer",
            "a user's message at the end",
            "this server's operator has not allowed it (--allow-prefill)",
            param=f"messages.{len(said) - 1}",
        )
    try:
        return Prompt("request", messages=tuple(said))
    except DemurError as error:
        raise refused_by(error, "messages") from None


def role_of(turn: Turn) -> str:
    """Who says a message, as a template knows it: a developer's is a system message."""
    return "system" if turn.role == "developer" else turn.role


def content_of(turn: Turn, i: int) -> str:
    """What a message says, the ``i``-th. An answer that was stopped may hold what had left of it beside the refusal: it
    is read as the refusal, which a guard writes over an answer. Raises :class:`Refused`.
    """
    content = turn.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    if turn.refusal is not None:
        if turn.role != "assistant":
            raise wrong("a refusal of another role", "an assistant's", param=f"messages.{i}.refusal")
        content = turn.refusal
    if not content:
        raise wrong("a message without content", "a text", param=f"messages.{i}.content")
    return content


def _plain(sampler: Any) -> dict[str, Any]:
    """Its settings, as JSON may hold them; what none can is told by its type."""
    if not is_dataclass(sampler):
        return {}
    values = {each.name: getattr(sampler, each.name) for each in fields(sampler)}
    simple = bool | int | float | str | None
    return {
        name: value if isinstance(value, simple) else [*value] if isinstance(value, tuple) else type(value).__name__
        for name, value in values.items()
    }
