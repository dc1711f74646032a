"""Attacks that search: each is made once for its subject, and what it found is kept in the run's folder.

PAIR asks other models, which may never say the same again. A search that is done again for another defense, or after a
kill, would measure another attack: so the first result counts, whoever comes second.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demur import artefact
from demur.attacks import Pair, chat_by, rating_by
from demur.experiment.judging import judge_of
from demur.types import DemurError, Prompt

SEARCHED = ("random-search", "pair")


def check_pair(settings: Mapping[str, Any]) -> None:
    """Raises for settings from which no :class:`demur.attacks.Pair` can be made, as far as that is known before any
    model is loaded.
    """
    own = ("rounds", "streams", "stop_at")
    if unknown := set(settings) - {"attacker", "judge", *own}:
        raise DemurError(
            f"pair with {', '.join(sorted(map(str, unknown)))}", f"settings out of attacker, judge, {', '.join(own)}",
            "name these",
        )  # fmt: skip
    for name in own:
        if type(settings.get(name, 1)) is not int:
            raise DemurError(f"pair with {name} {settings[name]!r}", "a whole number", "mend it")
    attacker = settings.get("attacker")
    if isinstance(attacker, Mapping):
        _endpoint(attacker)
    elif not isinstance(attacker, str) or not attacker:
        raise DemurError(
            f"pair with attacker {attacker!r}", "the name of a chat model, or {model: ..., base_url: ...}", "add one"
        )
    Pair(_nothing, _nothing, _rating(settings), **{name: settings[name] for name in own if name in settings})


def requests_of(settings: Mapping[str, Any]) -> int:
    """The most that PAIR asks its attacker, and likewise its judge, for one prompt."""
    return int(settings.get("rounds", Pair.rounds)) * int(settings.get("streams", Pair.streams))


def pair_of(settings: Mapping[str, Any], target: Callable[[Prompt], str]) -> Pair:
    """PAIR of a recipe against a target."""
    given = settings["attacker"]
    if isinstance(given, Mapping):
        attacker = _endpoint(given)
    else:
        from demur.experiment.work import model_of

        attacker = chat_by(model_of(given, "auto"))
    own = {name: settings[name] for name in ("rounds", "streams", "stop_at") if name in settings}
    return Pair(attacker, target, _rating(settings), **own)


def search(
    folder: Path, content: Mapping[str, Any], prompts: Sequence[Prompt], attack: Callable[[], Any]
) -> list[Prompt]:
    """The prompts as a search attacks them: what it found before for equal ``content``, in this run, or finds now.

    Each is kept as soon as it is found, so that nothing is asked twice. ``attack`` makes the attack, if it is needed.
    Raises what the search raises; one that was broken off, but had found something, counts and is told by
    :func:`searches`.
    """
    found: list[Prompt] = []
    made = None
    for prompt in prompts:
        text = json.dumps([content, asdict(prompt)], sort_keys=True, default=str)
        path = folder / "attacked" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if path.is_file():
            kept = _read(path)
        else:
            made = made or attack()
            new = made.search(prompt)
            kept = {"attack": content["attack"], "prompt": asdict(new.prompt)}
            kept |= {name: getattr(new, name) for name in ("score", "queries", "ended")}
            artefact.write(path, json.dumps(kept) + "\n")
        found.append(Prompt(**kept["prompt"]))
    return found


def searches(folder: Path) -> list[str]:
    """What the searches of a run came to, a line for each attack."""
    by: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((folder / "attacked").glob("*.json")):
        kept = _read(path)
        by.setdefault(kept["attack"], []).append(kept)
    lines = []
    for name, every in by.items():
        queries, broken = sum(kept["queries"] for kept in every), [kept["ended"] for kept in every if kept["ended"]]
        short = f", {len(broken)} broken off ({broken[0]})" if broken else ""
        lines.append(f"{name}: {len(every)} searches, {queries} queries{short}")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Prompt(**kept["prompt"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DemurError(f"{path} is broken ({error})", "an attacked prompt", "remove it, then add --resume") from error
    return kept


def _endpoint(settings: Mapping[str, Any]) -> Callable[[list[dict[str, str]]], str]:
    from demur.judges import Budget, chat

    if not isinstance(settings.get("model"), str) or not isinstance(settings.get("base_url"), str):
        raise DemurError(
            "pair with an attacker without model or base_url", "both", "or name a chat model to be run here"
        )
    made = dict(settings)
    try:
        if "budget" in made:
            made["budget"] = Budget(**made["budget"])
        return chat(**made)
    except TypeError as error:
        raise DemurError(f"pair with attacker {made} ({error})", "settings of demur.judges.chat", "mend it") from error


def _rating(settings: Mapping[str, Any]) -> Callable[[Prompt, str], int | None]:
    given = settings.get("judge", "dictionary")
    if isinstance(given, Mapping):
        judge = judge_of(given)
        if judge.question.name != "harm":
            raise DemurError(f"pair with a judge of {judge.question.name}", "the rubric harm", "leave rubric out")
        return rating_by(judge, judge.question.low, judge.question.high)
    if given == "dictionary":
        from demur.judges import Dictionary

        return rating_by(Dictionary(), 0, 1)
    if given == "organism":
        from demur.organism.judge import judge as outcome

        return lambda prompt, answer: {"harmful": 10, "refusal": 1}.get(outcome(prompt, answer), 4)
    raise DemurError(f"pair with judge {given!r}", "dictionary, organism or {model: ..., base_url: ...}", "name one")


def _nothing(_: object) -> str:
    return ""
