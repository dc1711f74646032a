"""A model behind an endpoint reads final texts after they were generated; what it says of a unit is one file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from demur import artefact
from demur.experiment.asking import judge_of
from demur.experiment.attacking import goals_of
from demur.experiment.config import ASKED, ROUTES, Config
from demur.experiment.record import Record
from demur.experiment.requests import prompts_of
from demur.experiment.store import Store
from demur.experiment.units import Unit
from demur.judges import judge_all
from demur.types import REFUSED, Prompt

ANSWERS = "answers"
"""The judge's cache, in the run's folder, where the recipe names none."""


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
    asking = judge_of({"cache": str(store.folder / ANSWERS)} | dict(config.judge_settings))
    asked = [unit for unit in units if unit.role == "harmful"]
    plain = {prompt.id: prompt for prompt in prompts_of(config.prompts, "harmful")}
    texts, reasons = 0, Counter[str]()
    for at, unit in enumerate(asked, 1):
        goals = goals_of(unit.attack)
        records = [record for record in store.records([unit.key]) if not canned(record)]
        pairs = [(request_of(record, goals, plain), record.answer) for record in records]
        verdicts = judge_all(asking, pairs)
        texts += len(verdicts)
        reasons.update(verdict.why for verdict in verdicts if verdict.flagged is None)
        before = [
            (request, text) for record, (request, _) in zip(records, pairs, strict=True) for text in record.texts or ()
        ]
        said = iter([verdict.flagged for verdict in judge_all(asking, before)])
        kept = [
            {"id": record.id} | asdict(verdict) | {"before": [next(said) for _ in record.texts or ()]}
            for record, verdict in zip(records, verdicts, strict=True)
        ]
        artefact.write(store.folder / "judged" / f"{unit.key}.json", json.dumps(kept) + "\n")
        progress("judging", at, len(asked))
    return Judging(texts, reasons)


def request_of(record: Record, goals: Mapping[str, str], plain: Mapping[str, Prompt]) -> Prompt:
    """What a record was made to ask for: as its file says, else the plain request with the turns before it, else its
    own words.
    """
    if goal := goals.get(record.id):
        return Prompt(record.id, goal)
    if asked := plain.get(record.parent):
        return Prompt(record.id, asked.text, messages=asked.messages)
    return Prompt(record.id, record.prompt)


def canned(record: Record) -> bool:
    """Whether a defense put its refusal in the answer's place: nobody needs to be asked about that."""
    return bool(record.flagged_by) and record.outcome == "refusal"


def same_judge(manifest: Mapping[str, Any], config: Config) -> bool:
    """Whether a manifest's run was judged as the configuration says, however an endpoint is reached."""
    before = manifest["config"].get("judge_settings") or {}
    one, other = ({k: v for k, v in of.items() if k not in ROUTES} for of in (before, config.judge_settings))
    return bool(manifest["config"]["judge"] == config.judge) and one == json.loads(json.dumps(other))


def kept(config: Config, store: Store, units: Sequence[Unit]) -> Judging:
    """What a judge has said of some units of a run, so far as it is kept: nobody is asked."""
    if not config.asks_a_model:
        return NOT_JUDGED
    found = [record.verdict for record in judged(store, store.records([unit.key for unit in units]))]
    verdicts = [verdict for verdict in found if verdict is not None]
    return Judging(len(verdicts), Counter(str(v["why"]) for v in verdicts if v["flagged"] is None))


def judged(store: Store, records: Iterable[Record]) -> Iterator[Record]:
    """Records with ``verdict``: what the judge said (``by``, ``flagged``, ``score``, ``why`` ...); None where nobody
    was to be asked, ``flagged`` None where one was and there is no verdict.
    """
    asked = store.manifest["config"]["judge"] == ASKED
    known: dict[str, dict[str, Any]] = {}
    for record in records:
        if record.unit not in known:
            known[record.unit] = _verdicts(store.folder / "judged" / f"{record.unit}.json")
        due = asked and record.role == "harmful" and not canned(record)
        yield replace(record, verdict=known[record.unit].get(record.id, NOTHING) if due else None)


NOTHING = {"by": ASKED, "flagged": None, "score": None, "step": None, "why": "no verdict is kept"}


def _verdicts(path: Path) -> dict[str, Any]:
    """What is kept of a unit's verdicts by the row's id; nothing where that is missing or broken."""
    try:
        return {verdict.pop("id"): verdict for verdict in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
