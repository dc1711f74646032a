"""Models behind endpoints, of a recipe's settings: a judge, an attacker, a translator. Making one sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from demur.judges import Budget, Endpoint, LLMJudge
from demur.kinds import check_kinds
from demur.registry import near
from demur.types import DemurError

OWN: dict[str, dict[str, Any]] = {
    "attacker": {"temperature": 1.0, "seed": None, "max_tokens": 1024},
    "translator": {"max_tokens": 1024},
}
"""Where the endpoint of a part differs from a judge's, unless the recipe says otherwise: an attacker must vary, and a
translator say the same again."""


def judge_of(settings: Mapping[str, Any]) -> LLMJudge:
    """The judge of a recipe: ``model``, ``base_url`` and further settings of LLMJudge, ``budget`` as a mapping.
    ``intermediate`` is none of the judge's own: so many texts before the last one are judged, too.

    Raises for settings that it does not have, for missing ones and for values that it does not take.
    """
    known = [setting.name for setting in fields(LLMJudge) if setting.init]
    limits = [setting.name for setting in fields(Budget)]
    made, budget = dict(settings), settings.get("budget", {})
    several = made.pop("intermediate", 0)
    if not isinstance(several, int) or isinstance(several, bool) or several < 0:
        raise DemurError(f"judge llm with intermediate {several!r}", "a number of texts, at least 0", "mend it")
    for name in ("model", "base_url"):
        if not isinstance(made.get(name), str) or not made[name]:
            raise DemurError(f"judge llm with {name} {made.get(name)!r}", "a text", f"add {name}")
    for what, given, names in (("judge llm", made, known), ("its budget", budget, limits)):
        if not isinstance(given, Mapping) or set(given) - set(names):
            came = repr(given)
            if isinstance(given, Mapping):
                unknown = sorted(map(str, set(given) - set(names)))
                came = ", ".join(unknown) + near(unknown[0], names)
            raise DemurError(f"{what} with {came}", f"settings out of {', '.join(names)}", "name these")
    if not isinstance(made.get("cache"), str | None):
        raise DemurError(f"judge llm with cache {made['cache']!r}", "the path of a folder", "put it in quotes")
    check_kinds(LLMJudge, {key: value for key, value in made.items() if key != "budget"}, "judge llm")
    check_kinds(Budget, budget, "judge llm")
    try:
        if "budget" in made:
            made["budget"] = Budget(**budget)
        return LLMJudge(**made)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise DemurError(f"judge llm with a setting of another kind ({error})", "numbers, texts", "mend it") from error


def chat_of(settings: Mapping[str, Any], attack: str, part: str) -> Endpoint:
    """The attacker, or the translator (``part``), of a recipe: ``model``, ``base_url`` and further settings of an
    endpoint; ``attack`` is the name of the attack, for errors. Raises for settings that it does not have, for missing
    ones and for values that it does not take.
    """
    called = f"{attack}'s {part}"
    for name in ("model", "base_url"):
        if not isinstance(settings.get(name), str):
            an = "an" if part[0] in "aeiou" else "a"
            raise DemurError(f"{attack} with {an} {part} without {name}", "model and base_url", f"add {name}")
    known_settings(called, settings, [setting.name for setting in fields(Endpoint) if setting.init])
    made = OWN[part] | dict(settings)
    budget = made.get("budget", {})
    if not isinstance(budget, Mapping):
        raise DemurError(f"{called} with a budget that is no mapping", "budget: {requests: ...}", "mend it")
    known_settings("its budget", budget, [limit.name for limit in fields(Budget)])
    check_kinds(Endpoint, {key: value for key, value in made.items() if key != "budget"}, called)
    check_kinds(Budget, budget, called)
    try:
        if budget:
            made["budget"] = Budget(**budget)
        return Endpoint(**made)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DemurError(f"{called} with a setting of another kind ({error})", "numbers, texts", "mend") from error


def known_settings(what: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises for settings of other names; what they hold is not shown, it may be a key."""
    if unknown := sorted(set(map(str, given)) - set(names)):
        raise DemurError(
            f"{what} with {', '.join(unknown)}{near(unknown[0], names)}",
            f"settings out of {', '.join(names)}",
            "name these",
        )
