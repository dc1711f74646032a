"""A model behind an endpoint reads final texts after they were generated; what it says of a unit is one file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur import artefact
from demur.experiment.config import Config, near
from demur.experiment.parts import goals_of, prompts_of
from demur.experiment.store import Store
from demur.experiment.units import Unit
from demur.types import REFUSED, DemurError, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from demur.judges import LLMJudge

ANSWERS = "answers"
"""The judge's cache, in the run's folder, where the recipe names none."""


def judge_of(settings: Mapping[str, Any]) -> LLMJudge:
    """The judge of a recipe: ``model``, ``base_url`` and further settings of LLMJudge, ``budget`` as a mapping.
    ``intermediate`` is none of the judge's own: so many texts before the last one are judged, too.

    Raises for settings that it does not have, for missing ones and for values that it does not take.
    """
    from demur.judges import Budget, LLMJudge

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
    try:
        if "budget" in made:
            made["budget"] = Budget(**{name: limit if limit is None else int(limit) for name, limit in budget.items()})
        return LLMJudge(**made)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise DemurError(f"judge llm with a setting of another kind ({error})", "numbers, texts", "mend it") from error


def judge_tokens(config: Config) -> float:
    """Roughly how many tokens a request to the judge is: four characters each, for an answer of full length."""
    asked = prompts_of(config.prompts, "harmful")
    long = "four" * (config.length or 128)
    whole = sum(len(judge_of(config.judge_settings).question.ask(prompt, long)) for prompt in asked)
    return whole / len(asked) / 4


@dataclass(frozen=True)
class Judging:
    """What became of the texts that a judge was asked about: how many, and why how many of them are unscored."""

    texts: int
    reasons: Mapping[str, int]

    @property
    def unscored(self) -> int:
        """How many texts got no verdict."""
        return sum(self.reasons.values())

    @property
    def refused(self) -> int:
        """How many of these a provider's filter refused to judge."""
        return sum(n for why, n in self.reasons.items() if why.startswith(REFUSED))

    def plain(self) -> dict[str, Any]:
        """As a manifest holds it, the commonest reason first."""
        reasons = sorted(self.reasons.items(), key=lambda item: (-item[1], item[0]))
        return {
            "unscored": self.unscored,
            "unscored_why": [{"why": why, "n": n} for why, n in reasons[:REASONS]],
            "refused_by_provider": self.refused,
            "judged": self.texts,
        }


NOT_JUDGED = Judging(0, {})
REASONS = 10
"""So many reasons of unscored rows stand in a manifest."""


def judge(config: Config, store: Store, units: Sequence[Unit], progress: Callable[[str, int, int], object]) -> Judging:
    """Judges the final texts of harmful requests, each as an answer to the request that was attacked; returns how many
    could not be judged, and why.

    Every text is asked about again at every call, and what was answered before comes from the judge's cache: so a
    change of the judge's settings counts, and a run goes on with those that got no answer. Raises where the first
    requests all fail alike.
    """
    from demur.judges import judge_all

    asking = judge_of({"cache": str(store.folder / ANSWERS)} | dict(config.judge_settings))
    asked = [unit for unit in units if unit.role == "harmful"]
    plain = {prompt.id: prompt.text for prompt in prompts_of(config.prompts, "harmful")}
    texts, reasons = 0, Counter[str]()
    for at, unit in enumerate(asked, 1):
        goals = goals_of(unit.attack)
        rows = [row for row in store.rows([unit.key]) if not canned(row)]
        pairs = [(_request(row, goals, plain), row["answer"]) for row in rows]
        verdicts = judge_all(asking, pairs)
        texts += len(verdicts)
        reasons.update(verdict.why for verdict in verdicts if verdict.flagged is None)
        before = [(request, text) for row, (request, _) in zip(rows, pairs, strict=True) for text in _texts(row)]
        said = iter([verdict.flagged for verdict in judge_all(asking, before)])
        found = [
            {"id": row["id"]} | asdict(verdict) | {"before": [next(said) for _ in _texts(row)]}
            for row, verdict in zip(rows, verdicts, strict=True)
        ]
        artefact.write(store.folder / "judged" / f"{unit.key}.json", json.dumps(found) + "\n")
        progress("judging", at, len(asked))
    return Judging(texts, reasons)


def _request(row: Mapping[str, Any], goals: Mapping[str, str], plain: Mapping[str, str]) -> Prompt:
    """What a row was made to ask for: what its file says, else the plain request; where nobody knows, its own words."""
    return Prompt(row["id"], goals.get(row["id"]) or plain.get(row["parent"]) or row["prompt"])


def _texts(row: Mapping[str, Any]) -> Sequence[str]:
    """The answers on the way that are judged, too."""
    return row.get("texts") or ()


def canned(row: Mapping[str, Any]) -> bool:
    """Whether a defense put its refusal in the answer's place: nobody needs to be asked about that."""
    return bool(row["flagged_by"]) and row["outcome"] == "refusal"


def judged(store: Store, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows with ``verdict``: what the judge said (``by``, ``flagged``, ``score``, ``why`` ...); None where nobody was
    to be asked, ``flagged`` None where one was and there is no verdict.
    """
    asked = store.manifest["config"]["judge"] == "llm"
    known: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["unit"] not in known:
            known[row["unit"]] = _verdicts(store.folder / "judged" / f"{row['unit']}.json")
        due = asked and row["role"] == "harmful" and not canned(row)
        yield row | {"verdict": known[row["unit"]].get(row["id"], NOTHING) if due else None}


NOTHING = {"by": "llm", "flagged": None, "score": None, "step": None, "why": "no verdict is kept"}


def _verdicts(path: Path) -> dict[str, Any]:
    """What is kept of a unit's verdicts by the row's id; nothing where that is missing or broken."""
    try:
        return {verdict.pop("id"): verdict for verdict in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
