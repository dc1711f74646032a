"""What a client may ask, as OpenAI names it. What would change the answer and is not done here is no field, or a field
that takes one value: so it is refused by name, and never ignored.

Types are strict: ``"1"`` is no number, ``true`` is none either. null is the same as leaving out.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from demur.serving.errors import Refused, wrong

LARGEST_SEED = 2**62
Zero = Annotated[float, Field(ge=0, le=0)]
One = Annotated[int, Field(ge=1, le=1)]
Nothing = Annotated[list[Any], Field(max_length=0)]
NoWeights = Annotated[dict[str, Any], Field(max_length=0)]
Positive = Annotated[int, Field(ge=1)]
Scalar = bool | int | float | str | None


class Asked(BaseModel):
    """Strict, and closed: a name that is not a field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Part(Asked):
    """A part of a message: text alone."""

    type: Literal["text"]
    text: str


class Turn(Asked):
    """A message. An assistant's may hold the refusal that it gave, in place of content."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    refusal: str | None = None
    name: None = None
    tool_calls: Nothing | None = None
    function_call: None = None
    audio: None = None
    annotations: Nothing | None = None


class StreamOptions(Asked):
    """How a stream is told."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Own(Asked):
    """What demur has beside OpenAI's parameters: the sampler by name, its settings, whether the guard looks (if the
    operator leaves that to clients), and whether a stream shows the canvas after every step.
    """

    sampler: Annotated[str, Field(max_length=64)] | None = None
    settings: Annotated[dict[str, Scalar | list[int]], Field(max_length=32)] | None = None
    guard: bool | None = None
    canvas: bool | None = None


class PlainText(Asked):
    """The one format of answers."""

    type: Literal["text"]


class Common(Asked):
    """What both endpoints take."""

    model: Annotated[str, Field(max_length=512)]
    max_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Positive | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: One | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logit_bias: NoWeights | None = None
    user: str | None = None
    demur: Own | None = None


class ChatAsked(Common):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    max_completion_tokens: Positive | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    tools: Nothing | None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: bool | None = None
    functions: Nothing | None = None
    function_call: Literal["none"] | None = None
    response_format: PlainText | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None
    store: Literal[False] | None = None
    metadata: NoWeights | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class TextAsked(Common):
    """``POST /v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    best_of: One | None = None
    echo: Literal[False] | None = None
    suffix: None = None
    logprobs: None = None


def asked_of(kind: type[Asked], body: dict[str, Any]) -> Any:
    """The body as what a client may ask. Raises :class:`Refused`, naming the first parameter that is none or wrong."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _told(kind, error) from None


def _told(kind: type[Asked], error: ValidationError) -> Refused:
    """The first fault in words; texts that came are told by their length alone."""
    first = max(error.errors(include_url=False), key=lambda fault: len(fault["loc"]))  # of a union's arms, the nearest
    param = _param(first["loc"])
    name = param or "the body"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(kind.model_fields)) if "." not in param else "OpenAI's names, docs/serving.md"
        known = ", ".join(sorted(Own.model_fields)) if re.fullmatch(r"demur\.[^.]*", param) else known
        return wrong(f"the parameter {param}", f"one of {known}", "leave it out", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return wrong(f"a request without {param}", param, "add it", param=param, code="missing_parameter")
    expected = _expected(first)
    came = f"{name} {_came(first['input'])}"
    return wrong(came, expected, "docs/serving.md says what is supported", param=param, code="unsupported_value")


def _param(loc: tuple[int | str, ...]) -> str:
    """Where the fault is, without what pydantic calls the arms of a union."""
    parts = [str(part) for part in loc if not (isinstance(part, str) and _ARM(part))]
    return "".join(sign if sign.isprintable() and sign.isascii() else "?" for sign in ".".join(parts))[:120]


def _ARM(part: str) -> bool:  # noqa: N802
    return "[" in part or part in ("str", "bool", "int", "float", "Part")


def _came(value: Any) -> str:
    if isinstance(value, str):
        return f"with a text of {len(value)} characters"
    if value is None or isinstance(value, bool | int | float):
        return f"= {str(value).lower() if isinstance(value, bool) else value if value is not None else 'null'}"[:60]
    return f"with {'a list' if isinstance(value, list) else 'an object'} of {len(value)}"


def _expected(first: Any) -> str:
    kind, context = first["type"], first.get("ctx", {})
    simple = {
        "literal_error": str(context.get("expected", "another value")),
        "none_required": "nothing: it is not supported",
        "model_type": "an object",
        "dict_type": "an object",
        "too_short": f"at least {context.get('min_length', 1)}",
    }
    if kind in simple:
        return simple[kind]
    if kind == "too_long":
        most = context.get("max_length", 0)
        return "none: it is not supported" if most == 0 else f"at most {most}"
    if kind in ("greater_than_equal", "less_than_equal", "greater_than"):
        sign = {"greater_than_equal": "at least", "less_than_equal": "at most", "greater_than": "above"}[kind]
        (bound,) = context.values()
        return f"{sign} {bound:g}"
    return str(first["msg"]).removeprefix("Input should be ")[:120]
