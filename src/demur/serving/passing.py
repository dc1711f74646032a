"""What a client asks of an engine behind a proxy: what is passed on to it, and how the replay reads it.

Both shall read the same conversation. So messages go on as the replay has read them, and a request goes on only with
parameters that say how tokens are drawn, how many, and how they are sent: any other may change what the engine reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from demur.serving.asks import Turn
from demur.serving.errors import Refused, wrong
from demur.serving.limits import Limits
from demur.serving.orders import content_of, conversation_of, role_of
from demur.types import Prompt

Policy = Literal["closed", "open"]
TURNS: TypeAdapter[list[Turn]] = TypeAdapter(list[Turn])
SEVERAL = ("logprobs", "top_logprobs", "n", "best_of", "tools", "functions", "modalities", "audio", "echo", "suffix")
"""Parameters whose answers hold more than one text: nobody here can judge the rest."""
DRAWING = frozenset({
    "frequency_penalty", "logit_bias", "max_completion_tokens", "max_tokens", "min_p", "min_tokens", "presence_penalty",
    "repeat_penalty", "repetition_penalty", "seed", "stop", "temperature", "top_k", "top_p", "typical_p",
})  # fmt: skip
"""Parameters by which tokens are drawn and counted."""
SENDING = frozenset({
    "messages", "metadata", "model", "prompt_cache_key", "safety_identifier", "service_tier", "store", "stream",
    "stream_options", "user",
})  # fmt: skip
"""Parameters by which an answer is asked for and sent."""
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,), "best_of": (1,), "tool_choice": ("none", "auto"), "function_call": ("none", "auto"),
    "parallel_tool_calls": (True,), "modalities": (["text"],), "response_format": ({"type": "text"},),
}  # fmt: skip
"""Values that change nothing, beside null, false, 0 and nothing at all: many clients send them. They stay here."""


@dataclass(frozen=True, eq=False)
class Rules:
    """What the operator has said of requests. ``models``: the engine's that clients may ask for (empty: all of them);
    ``also``: further parameters that go on; ``controls``: texts that a tokenizer reads as control tokens;
    ``temperature``: that under which the guard was calibrated.
    """

    policy: Policy = "closed"
    limits: Limits = field(default_factory=Limits)
    models: Sequence[str] = ()
    also: Sequence[str] = ()
    controls: Sequence[str] = ()
    temperature: float = 0.0


@dataclass(frozen=True, eq=False)
class Passed:
    """What goes to the engine, and the conversation as the replay reads it; None where it can't be read and the policy
    is open: ``why`` says so. ``note`` is what a reader of the verdict has to know.
    """

    body: Mapping[str, Any] = field(repr=False)
    prompt: Prompt | None
    why: str = ""
    note: str = ""

    @property
    def stream(self) -> bool:
        """Whether the answer shall come in parts."""
        return bool(self.body.get("stream"))


def passed(body: Mapping[str, Any], rules: Rules) -> Passed:
    """What is passed on of a request. Raises :class:`Refused` for what can not be judged, and for another model."""
    if not isinstance(body.get("stream"), bool | None):
        raise wrong("stream that is neither true nor false", "one of them", param="stream")
    if rules.models and body.get("model") not in rules.models:
        then = "this proxy's operator has named these (--only)"
        message = f"no such model; expected {' or '.join(rules.models)}; {then}"
        raise Refused(404, message, "model", "model_not_found")
    sent = {name: value for name, value in body.items() if not _is_neutral(name, value)}
    for name in SEVERAL:
        if name in sent:
            raise wrong(f"{name}, whose answers this proxy can not judge", "one text", "leave it out", param=name)
    try:
        _check_names(sent, rules)
        turns = _turns(sent.get("messages"))
        prompt = conversation_of(turns, rules.limits, may_prefill=False)
        _check_controls(prompt, rules)
    except Refused as error:
        if rules.policy == "closed":
            raise
        return Passed(sent, None, error.message)
    said = [{"role": role_of(turn), "content": content_of(turn, i)} for i, turn in enumerate(turns)]
    return Passed(sent | {"messages": said}, prompt, note=_note(sent, rules))


def _is_neutral(name: str, value: Any) -> bool:
    """Whether leaving it out changes nothing; a setting of the draw may well be 0."""
    if name in DRAWING | SENDING:
        return value is None
    return value in (None, False, [], {}) or value in NEUTRAL.get(name, ())


def _check_names(sent: Mapping[str, Any], rules: Rules) -> None:
    for name in sent:
        if name not in DRAWING | SENDING and name not in rules.also:
            shown = name if name.isidentifier() and name.isascii() and len(name) < 40 else "of another name"
            raise wrong(
                f"the parameter {shown}, which may change what the engine reads", "how tokens are drawn and sent",
                "leave it out, or the operator lets it pass (--pass-on)", param=shown, code="unknown_parameter",
            )  # fmt: skip


def _turns(messages: Any) -> list[Turn]:
    try:
        turns = TURNS.validate_python(messages)
    except ValidationError:
        raise wrong(
            "messages that can not be replayed", "texts of system, user and assistant",
            "this proxy passes on nothing that it can not judge (--policy closed)", param="messages",
        ) from None  # fmt: skip
    if not turns:
        raise wrong("a request without messages", "one at least", param="messages")
    return turns


def _check_controls(prompt: Prompt, rules: Rules) -> None:
    """An engine may obey what is read here as letters: a turn that closes itself and opens another."""
    if any(control in text for text in prompt.texts for control in rules.controls):
        raise wrong(
            "messages that hold a control token of the model, which the engine may obey", "words alone", "take it out",
            param="messages",
        )  # fmt: skip


def _note(sent: Mapping[str, Any], rules: Rules) -> str:
    own, said = rules.temperature, sent.get("temperature")
    if said == own and said is not None:
        return ""
    how = "the request says no temperature" if said is None else f"asked at temperature {said!s:.20}"
    return f"{how}; the guard was calibrated at {own:g}"
