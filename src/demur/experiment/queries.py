"""Attacks that search with a model's answers, such as PAIR: from a recipe's settings to an attack.

Their class has a field ``target``, which the run fills: a prompt to the subject's answer. Fields ``attacker`` and
``judge``, where it has them, are made of what the recipe says; all others are plain settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from demur import worlds
from demur.attacks import rating_by
from demur.experiment.asking import attacker_of, judge_of, known_settings
from demur.judges import Dictionary, Endpoint, LLMJudge, talk
from demur.types import DemurError, Prompt

GIVEN = ("target", "attacker", "judge")
"""Fields that are more than a setting."""
IN_PYTHON = ("knows", "weight")
"""Fields that a recipe can not fill: what an attacker knows of a guard is a function, and its weight goes with it."""


def own_settings(kind: Any) -> list[str]:
    """The plain settings of an attack's class."""
    return [one.name for one in fields(kind) if one.init and one.name not in (*GIVEN, *IN_PYTHON)]


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
    attacker = settings.get("attacker")
    if "attacker" in keys_of(kind):
        if isinstance(attacker, Mapping):
            attacker_of(attacker, name)
        elif not isinstance(attacker, str) or not attacker:
            expected = "the name of a chat model, or {model: ..., base_url: ...}"
            raise DemurError(f"{name} without an attacker", expected, "add")
    queries_of(name, kind, settings, _nothing, _nothing)


def queries_of(
    name: str,
    kind: Any,
    settings: Mapping[str, Any],
    target: Callable[[Prompt], str],
    local: Callable[[list[dict[str, str]]], str] | None = None,
) -> Any:
    """An attack of a recipe against a target. ``local`` is the attacker where it is a model that runs here. Endpoints
    keep their budgets for the whole process.
    """
    given: dict[str, Any] = {"target": target}
    if "attacker" in keys_of(kind):
        attacker = settings["attacker"]
        given["attacker"] = _attacker(json.dumps(attacker, sort_keys=True), name) if local is None else local
    if "judge" in keys_of(kind):
        given["judge"] = _rating(name, settings.get("judge", "dictionary"))
    return kind(**given, **{one: settings[one] for one in own_settings(kind) if one in settings})


def local_attacker(settings: Mapping[str, Any]) -> str:
    """The name of the attacker that runs here; empty for an endpoint, and where there is none."""
    named = settings.get("attacker")
    return named if isinstance(named, str) else ""


def endpoints_of(name: str, settings: Mapping[str, Any]) -> dict[str, Endpoint]:
    """The endpoints of an attack: its attacker's and its judge's, where they are no models that run here."""
    found = {}
    if isinstance(attacker := settings.get("attacker"), Mapping):
        found["attacker"] = attacker_of(attacker, name)
    if isinstance(judge := settings.get("judge"), Mapping):
        found["judge"] = judge_of(judge).endpoint
    return found


def check_access(name: str, settings: Mapping[str, Any]) -> None:
    """Raises where an attacker's or a judge's endpoint lacks its client or its key. Nothing is sent."""
    for endpoint in endpoints_of(name, settings).values():
        endpoint.check()


def most_queries(kind: Any, settings: Mapping[str, Any]) -> int:
    """The most that a search asks its attacker, and likewise its judge, for one prompt: the product of its ``rounds``
    and its ``streams``; 0 for a class that has neither, of which nobody knows.
    """
    factors = [settings.get(name, getattr(kind, name, 0)) for name in ("rounds", "streams")]
    return int(factors[0]) * int(factors[1])


@cache
def _attacker(settings: str, name: str) -> Callable[[list[dict[str, str]]], str]:
    return talk(attacker_of(json.loads(settings), name))


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
