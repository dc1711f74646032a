"""Attacks that ask models, such as PAIR and ``translated``: from a recipe's settings to an attack.

The class of one that searches with a model's answers has a field ``target``, which the run fills: a prompt to the
subject's answer. Fields ``attacker``, ``translator`` and ``judge``, where it has them, are made of what the recipe
says; all others are plain settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from demur import worlds
from demur.attacks import rating_by
from demur.experiment.asking import chat_of, judge_of, known_settings
from demur.judges import Dictionary, Endpoint, LLMJudge, talk
from demur.types import DemurError, Prompt

CHATS = ("attacker", "translator")
"""Fields that are a chat model: a class has at most one of them."""
GIVEN = ("target", *CHATS, "judge")
"""Fields that are more than a setting."""
IN_PYTHON = ("knows", "weight")
"""Fields that a recipe can not fill: what an attacker knows of a guard is a function, and its weight goes with it."""


def own_settings(kind: Any) -> list[str]:
    """The plain settings of an attack's class."""
    return [one.name for one in fields(kind) if one.init and one.name not in (*GIVEN, *IN_PYTHON)]


def chat_in(kind: Any) -> str:
    """The field of an attack's class that is a chat model; empty where none is."""
    named = {one.name for one in fields(kind)} if is_dataclass(kind) else set()
    return next((chat for chat in CHATS if chat in named), "")


def keys_of(kind: Any) -> tuple[str, ...]:
    """What a recipe may say about an attack of this class."""
    named = {one.name for one in fields(kind)}
    return (*[name for name in GIVEN[1:] if name in named], *own_settings(kind))


def check_queries(name: str, kind: Any, settings: Mapping[str, Any]) -> None:
    """Raises for settings from which no attack can be made, as far as that is known before any model is loaded. Nothing
    is sent.
    """
    known_settings(name, settings, keys_of(kind))
    whole = [one.name for one in fields(kind) if str(one.type) in ("int", "<class 'int'>")]
    for setting in own_settings(kind):
        if setting in whole and type(settings.get(setting, 1)) is not int:
            raise DemurError(f"{name} with {setting} {settings[setting]!r}", "a whole number", "mend it")
    if part := chat_in(kind):
        asked = settings.get(part)
        if isinstance(asked, Mapping):
            chat_of(asked, name, part)
        elif not isinstance(asked, str) or not asked:
            expected = "the name of a chat model, or {model: ..., base_url: ...}"
            raise DemurError(f"{name} without {_a(part)}", expected, "add")
    queries_of(name, kind, settings, _nothing, _nothing)


def queries_of(
    name: str,
    kind: Any,
    settings: Mapping[str, Any],
    target: Callable[[Prompt], str],
    local: Callable[[list[dict[str, str]]], str] | None = None,
) -> Any:
    """An attack of a recipe against a target. ``local`` is the attacker, or the translator, where it is a model that
    runs here. Endpoints keep their budgets for the whole process.
    """
    given: dict[str, Any] = {"target": target} if "target" in {one.name for one in fields(kind)} else {}
    if part := chat_in(kind):
        given[part] = _chat(json.dumps(settings[part], sort_keys=True), name, part) if local is None else local
    if "judge" in keys_of(kind):
        given["judge"] = _rating(name, settings.get("judge", "dictionary"))
    return kind(**given, **{one: settings[one] for one in own_settings(kind) if one in settings})


def local_chat(settings: Mapping[str, Any]) -> str:
    """The name of the attacker, or the translator, that runs here; empty for an endpoint, and where there is none."""
    return next((settings[part] for part in CHATS if isinstance(settings.get(part), str)), "")


def endpoints_of(name: str, settings: Mapping[str, Any]) -> dict[str, Endpoint]:
    """The endpoints of an attack: its attacker's or its translator's, and its judge's, where they are no models that
    run here.
    """
    found = {part: chat_of(settings[part], name, part) for part in CHATS if isinstance(settings.get(part), Mapping)}
    if isinstance(judge := settings.get("judge"), Mapping):
        found["judge"] = judge_of(judge).endpoint
    return found


def check_access(name: str, settings: Mapping[str, Any]) -> None:
    """Raises where an attacker's, a translator's or a judge's endpoint lacks its client or key. Nothing is sent."""
    for endpoint in endpoints_of(name, settings).values():
        endpoint.check()


def most_queries(kind: Any, settings: Mapping[str, Any]) -> int:
    """The most that a search asks its attacker, and likewise its judge, for one prompt: the product of its ``rounds``
    and its ``streams``; of one that has neither, its ``tries``; 0 for a class without any, of which nobody knows.
    """
    if hasattr(kind, "tries"):
        return int(settings.get("tries", kind.tries))
    factors = [settings.get(name, getattr(kind, name, 0)) for name in ("rounds", "streams")]
    return int(factors[0]) * int(factors[1])


@cache
def _chat(settings: str, name: str, part: str) -> Callable[[list[dict[str, str]]], str]:
    return talk(chat_of(json.loads(settings), name, part))


def _a(part: str) -> str:
    return f"{'an' if part[0] in 'aeiou' else 'a'} {part}"


@cache
def _judge(settings: str) -> LLMJudge:
    return judge_of(json.loads(settings))


def _rating(name: str, given: Any) -> Callable[[Prompt, str], int | None]:
    if isinstance(given, Mapping):
        judge = _judge(json.dumps(given, sort_keys=True))
        if judge.question.name != "harm":
            raise DemurError(f"{name} with a judge of {judge.question.name}", "the rubric harm", "leave rubric out")
        return rating_by(judge, judge.question.low, judge.question.high)
    if given == Dictionary().name:
        return rating_by(Dictionary(), 0, 1)
    if isinstance(given, str) and worlds.is_world(given):
        rule = worlds.named(given).judge
        if rule is not None:
            return rule.rating
    known = ", ".join(["dictionary", *worlds.WORLDS])
    raise DemurError(f"{name} with judge {given!r}", f"{known} or {{model: ..., base_url: ...}}", "name one")


def _nothing(_: object) -> str:
    return ""
