"""The official client and curl: each asks an OpenAI-compatible server for one answer, whole or in parts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Came:
    """One answer. ``id`` is what its verdict may be found by, ``demur`` the object beside it (None: there is none)."""

    id: str
    content: str
    refusal: str | None
    finish: str
    demur: Any


def by_openai(url: str, body: dict[str, Any], *, stream: bool) -> Came:
    """By OpenAI's own client. What it does not know goes into ``extra_body``, as a user's code has it."""
    import openai

    known = {name: body[name] for name in ("model", "messages", "max_tokens", "temperature", "seed") if name in body}
    more = {name: value for name, value in body.items() if name not in known}
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        if not stream:
            made = client.chat.completions.create(**known, extra_body=more)
            (choice,) = made.choices
            said = choice.message
            return Came(made.id, said.content or "", said.refusal, choice.finish_reason, getattr(made, "demur", None))
        parts = [*client.chat.completions.create(**known, stream=True, extra_body=more)]
    return _together([part.model_dump() for part in parts])


def by_curl(url: str, body: dict[str, Any], *, stream: bool) -> Came:
    """By curl."""
    line = ["curl", "-sN", f"{url}/chat/completions", "-H", "Content-Type: application/json"]
    sent = json.dumps(body | {"stream": stream})
    raw = subprocess.run([*line, "-d", sent], capture_output=True, check=True, timeout=120).stdout.decode()
    if not stream:
        made = json.loads(raw)
        (choice,) = made["choices"]
        said = choice["message"]
        finish = choice["finish_reason"]
        return Came(made["id"], said["content"] or "", said.get("refusal"), finish, made.get("demur"))
    lines = [line.removeprefix("data: ") for line in raw.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines[-1]
    return _together([json.loads(line) for line in lines[:-1]])


def _together(parts: Sequence[dict[str, Any]]) -> Came:
    choices = [choice for part in parts for choice in part["choices"]]
    refusal = "".join(choice["delta"].get("refusal") or "" for choice in choices)
    (finish,) = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    (told,) = [part["demur"] for part in parts if part.get("demur")] or [None]
    (id_,) = {part["id"] for part in parts}
    return Came(id_, "".join(choice["delta"].get("content") or "" for choice in choices), refusal or None, finish, told)


def all_ways(url: str, body: dict[str, Any]) -> list[Came]:
    """The same request by both, whole and in parts."""
    return [by(url, body, stream=stream) for by in (by_openai, by_curl) for stream in (False, True)]
