"""What a client asks of an engine behind a proxy: what is passed on to it, and how the replay reads it.

Both shall read the same conversation. So messages go on as the replay has read them, and a request goes on only with
parameters that say how tokens are drawn, how many, and how they are sent: any other may change what the engine reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from demur.guards.drawing import drawn_otherwise
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
    "n": (1,), "best_of": (1,), "logprobs": (False,), "top_logprobs": (0,), "echo": (False,), "suffix": ("",),
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"), "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False), "modalities": (["text"], []), "response_format": ({"type": "text"},),
    "chat_template_kwargs": ({},), "documents": ([],), "add_generation_prompt": (True,),
    "continue_final_message": (False,), "ignore_eos": (False,), "use_beam_search": (False,),
    "skip_special_tokens": (True,), "spaces_between_special_tokens": (True,), "include_stop_str_in_output": (False,),
    "add_special_tokens": (False,), "stop_token_ids": ([],), "bad_words": ([],), "allowed_token_ids": ([],),
    "logits_processors": ([],), "structured_outputs": ({},), "mm_processor_kwargs": ({},), "vllm_xargs": ({},),
    "return_token_ids": (False,), "return_tokens_as_token_ids": (False,), "length_penalty": (1,),
    "early_stopping": (False,), "priority": (0,),
}  # fmt: skip
"""Values that change nothing, beside null: many clients send them. They stay here. Of any other name every
value may change something: an engine may think unless it is told ``think: false``.
"""


@dataclass(frozen=True, eq=False)
class Rules:
    """What the operator has said of requests. ``models``: the engine's that clients may ask for (empty: all of them);
    ``also``: further parameters that go on, whatever their value; ``controls``: texts that a tokenizer reads as control
    tokens; ``own``: the settings of the draw under which the guard was calibrated.
    """

    policy: Policy = "closed"
    limits: Limits = field(default_factory=Limits)
    models: Sequence[str] = ()
    also: Sequence[str] = ()
    controls: Sequence[str] = ()
    own: Mapping[str, Any] = field(default_factory=dict)


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
    sent = {name: value for name, value in body.items() if not _is_neutral(name, value, rules)}
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


def _is_neutral(name: str, value: Any, rules: Rules) -> bool:
    """Whether leaving it out changes nothing. What the operator lets pass goes on as it came."""
    return value is None or (name not in rules.also and value in NEUTRAL.get(name, ()))


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
    own, said = rules.own.get("temperature") or 0.0, sent.get("temperature")
    notes = []
    if said is None or said != own:
        how = "the request says no temperature" if said is None else f"asked at temperature {said!s:.20}"
        notes.append(f"{how}; the guard was calibrated at {own:g}")
    drawn = {name: value for name, value in sent.items() if name in DRAWING}
    if otherwise := drawn_otherwise(rules.own, {"temperature": math.inf} | drawn):  # nobody knows an engine's default
        notes.append(f"drawn with {otherwise}; the guard was calibrated otherwise")
    return ". ".join(notes)
