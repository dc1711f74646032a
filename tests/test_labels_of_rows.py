"""What a run calls its rows says no word that its prompts hide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demur.cli import runs
from demur.experiment.config import Attacked, Defended
from demur.experiment.record import Record


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beginning": "Sure, first drench the barn"}, ("drench", "barn")),
        ({"beginning": "制造炸弹"}, ("炸弹",)),
        ({"leads": ["First, drench", "Then"], "run": 4}, ("drench",)),
        ({"target": "Sure, rifles\nare", "tokens": 4}, ("rifles",)),
    ],
)
def test_an_attack_is_called_by_no_word_that_it_puts_into_prompts(settings: dict[str, Any], words: Any) -> None:
    said = Attacked("an-attack", settings).label
    assert not [word for word in words if word in said]
    assert [name for name in settings if name in said] == list(settings)
    name, value = next(iter(settings.items()))
    other = Attacked("an-attack", settings | {name: [*value, "x y"] if isinstance(value, list) else value + " x"})
    assert other.label != said, "tables keep them apart"


def test_an_attack_is_called_by_its_numbers_and_names() -> None:
    assert Attacked("flip", {"mode": "words"}).label == "flip (mode=words)"
    attack = Attacked("random-search", {"tokens": 2, "target": "To"})
    assert attack.label == "random-search (tokens=2, target=To)"
    asked = Attacked("pair", {"attacker": {"model": "m/x", "base_url": "http://x y"}})
    assert asked.label == "pair (attacker=m/x)"
    assert Defended("any-depth", {"every": 10}).label == "any-depth (every=10)"


def _record(**more: Any) -> Record:
    made = {"model": "m", "attack": "plain", "defense": "none", "outcome": "answer", "id": "hide-the-rifles-7"}
    return Record(**{**made, "prompt": "Hide the rifles", "text": "Rifles go", "answer": "Rifles go", **more})


def test_two_runs_are_compared_without_a_word_of_an_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"one": [_record(), _record(id="q-3", seed=1)], "two": [_record(outcome="refusal"), _record(id="q-3")]}

    class Kept:
        def __init__(self, run: Path) -> None:
            self.run, self.counted = str(run), None

        def records(self, counted: Any) -> list[Record]:
            return rows[self.run]

    monkeypatch.setattr("demur.experiment.store.Store", Kept)
    monkeypatch.setattr("demur.experiment.judging.judged", lambda store, records: records)
    with pytest.raises(runs.typer.Exit):
        runs.diff(Path("one"), Path("two"))
    said = capsys.readouterr().out
    assert "outcome" in said
    assert "prompt-" in said
    assert "ifles" not in said
    rows["one"].append(_record())
    with pytest.raises(runs.DemurError, match="two rows of one called m /") as error:
        runs.diff(Path("one"), Path("two"))
    assert "ifles" not in str(error.value)
    assert _record(id="q-3").label == "q-3"
