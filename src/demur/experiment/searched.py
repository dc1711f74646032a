"""Attacks that search: each is made once for its subject, and what it found is kept in the run's folder.

PAIR asks other models, which may never say the same again. A search that is done again for another defense, or after a
kill, would measure another attack: so the first result counts, whoever comes second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur import artefact
from demur.attacks import Pair, chat_by, rating_by
from demur.experiment.config import near
from demur.experiment.judging import judge_of
from demur.types import REFUSED, DemurError, Prompt

if TYPE_CHECKING:
    from demur.judges import Endpoint, LLMJudge

SEARCHED = ("random-search", "pair")
_OWN = ("rounds", "streams", "stop_at")
PAIR_KEYS = ("attacker", "judge", *_OWN)
"""What a recipe may say about PAIR."""
ATTACKERS_OWN = {"temperature": 1.0, "seed": None, "max_tokens": 1024}
"""Where an attacker's endpoint differs from a judge's, unless the recipe says otherwise: an attacker must vary."""


def check_pair(settings: Mapping[str, Any]) -> None:
    """Raises for settings from which no :class:`demur.attacks.Pair` can be made, as far as that is known before any
    model is loaded. Nothing is sent.
    """
    _known("pair", settings, PAIR_KEYS)
    for name in _OWN:
        if type(settings.get(name, 1)) is not int:
            raise DemurError(f"pair with {name} {settings[name]!r}", "a whole number", "mend it")
    attacker = settings.get("attacker")
    if isinstance(attacker, Mapping):
        _endpoint(attacker)
    elif not isinstance(attacker, str) or not attacker:
        raise DemurError("pair without an attacker", "the name of a chat model, or {model: ..., base_url: ...}", "add")
    Pair(_nothing, _nothing, _rating(settings), **{name: settings[name] for name in _OWN if name in settings})


def endpoints_of(settings: Mapping[str, Any]) -> dict[str, Endpoint]:
    """The endpoints of an attack: its attacker's and its judge's, where they are no models that run here."""
    found = {}
    if isinstance(attacker := settings.get("attacker"), Mapping):
        found["attacker"] = _endpoint(attacker)
    if isinstance(judge := settings.get("judge"), Mapping):
        found["judge"] = judge_of(judge).endpoint
    return found


def check_access(settings: Mapping[str, Any]) -> None:
    """Raises where an attacker's or a judge's endpoint lacks its client or its key. Nothing is sent."""
    for endpoint in endpoints_of(settings).values():
        endpoint.check()


def requests_of(settings: Mapping[str, Any]) -> int:
    """The most that PAIR asks its attacker, and likewise its judge, for one prompt."""
    return int(settings.get("rounds", Pair.rounds)) * int(settings.get("streams", Pair.streams))


def pair_of(settings: Mapping[str, Any], target: Callable[[Prompt], str]) -> Pair:
    """PAIR of a recipe against a target. Endpoints keep their budgets for the whole process."""
    given = settings["attacker"]
    if isinstance(given, Mapping):
        attacker = _attacker(json.dumps(given, sort_keys=True))
    else:
        from demur.experiment.work import model_of

        attacker = chat_by(model_of(given, "auto"))
    own = {name: settings[name] for name in _OWN if name in settings}
    return Pair(attacker, target, _rating(settings), **own)


def kept_at(folder: Path, content: Mapping[str, Any], prompt: Prompt) -> Path:
    """The file of what a search found for a prompt; ``content`` is all that this depends on beside it."""
    text = json.dumps([content, prompt.plain()], sort_keys=True, default=str)
    return folder / "attacked" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def search(
    folder: Path, content: Mapping[str, Any], prompts: Sequence[Prompt], attack: Callable[[], Any]
) -> list[Prompt]:
    """The prompts as a search attacks them: what it found before for equal ``content``, in this run, or finds now.

    Each is kept as soon as it is found, so that nothing is asked twice. ``attack`` makes the attack, if it is needed.
    Raises what the search raises, and for one that an endpoint broke off: it is made again when the run goes on.
    """
    found: list[Prompt] = []
    made = None
    for prompt in prompts:
        path = kept_at(folder, content, prompt)
        if not path.is_file():
            made = made or attack()
            new = made.search(prompt)
            asks = isinstance(content["settings"].get("judge"), Mapping)
            if new.ended and (asks or new.score):  # a rule can't fail: what it could not rate, nobody can
                came = f"the search for {prompt.label} broke off ({new.ended})"
                raise DemurError(came, "attacker and judge that answer", "mend that, then add --resume")
            kept = {"attack": content["attack"], "prompt": new.prompt.plain()}
            kept |= {name: getattr(new, name) for name in ("score", "queries", "ended", "refused")}
            artefact.write_once(path, json.dumps(kept) + "\n")
        found.append(Prompt(**_read(path)["prompt"]))
    return found


def searches(paths: Sequence[Path]) -> list[str]:
    """What the searches that are kept at ``paths`` came to, a line for each attack."""
    by: dict[str, list[dict[str, Any]]] = {}
    for kept in (_read(path) for path in paths if path.is_file()):
        by.setdefault(kept["attack"], []).append(kept)
    lines = []
    for name, every in by.items():
        queries, nothing = sum(kept["queries"] for kept in every), [kept["ended"] for kept in every if kept["ended"]]
        refused = sum(kept.get("refused", 0) for kept in every)  # files of version 0.1.0 do not say
        unheard = sum(bool(kept.get("refused")) and not kept["score"] and not kept["ended"] for kept in every)
        short = f", {refused} of them {REFUSED}" if refused else ""
        short += f", {len(nothing)} without a result ({nothing[0]})" if nothing else ""
        short += f", {unheard} without a result (no message got past the provider's filter)" if unheard else ""
        lines.append(f"{name}: {len(every)} searches, {queries} queries{short}")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Prompt(**kept["prompt"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DemurError(f"{path} is broken ({error})", "an attacked prompt", "remove it, then add --resume") from error
    return kept


def _known(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises for settings of other names; what they hold is not shown, it may be a key."""
    if unknown := sorted(set(map(str, given)) - set(names)):
        raise DemurError(
            f"{what} with {', '.join(unknown)}{near(unknown[0], names)}",
            f"settings out of {', '.join(names)}",
            "name these",
        )


def _endpoint(settings: Mapping[str, Any]) -> Endpoint:
    """The attacker's endpoint."""
    from demur.judges import Budget, Endpoint

    for name in ("model", "base_url"):
        if not isinstance(settings.get(name), str):
            raise DemurError(f"pair with an attacker without {name}", "model and base_url", f"add {name}")
    _known("pair's attacker", settings, [setting.name for setting in fields(Endpoint) if setting.init])
    made = ATTACKERS_OWN | dict(settings)
    budget = made.get("budget", {})
    if not isinstance(budget, Mapping):
        raise DemurError("pair's attacker with a budget that is no mapping", "budget: {requests: ...}", "mend it")
    _known("its budget", budget, [limit.name for limit in fields(Budget)])
    try:
        if budget:
            made["budget"] = Budget(**{name: limit if limit is None else int(limit) for name, limit in budget.items()})
        return Endpoint(**made)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DemurError(
            f"pair's attacker with a setting of another kind ({error})", "numbers, texts", "mend"
        ) from error


@cache
def _attacker(settings: str) -> Callable[[list[dict[str, str]]], str]:
    from demur.judges import talk

    return talk(_endpoint(json.loads(settings)))


@cache
def _judge(settings: str) -> LLMJudge:
    return judge_of(json.loads(settings))


def _rating(settings: Mapping[str, Any]) -> Callable[[Prompt, str], int | None]:
    given = settings.get("judge", "dictionary")
    if isinstance(given, Mapping):
        judge = _judge(json.dumps(given, sort_keys=True))
        if judge.question.name != "harm":
            raise DemurError(f"pair with a judge of {judge.question.name}", "the rubric harm", "leave rubric out")
        return rating_by(judge, judge.question.low, judge.question.high)
    if given == "dictionary":
        from demur.judges import Dictionary

        return rating_by(Dictionary(), 0, 1)
    if given == "organism":
        from demur.organism.judge import judge as outcome

        ratings = {"harmful": 10, "refusal": 1}
        return lambda prompt, answer: ratings.get(outcome(prompt, answer), 4) if answer.strip() else None
    raise DemurError(f"pair with judge {given!r}", "dictionary, organism or {model: ..., base_url: ...}", "name one")


def _nothing(_: object) -> str:
    return ""
