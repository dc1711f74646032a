"""What a run calls its rows says no word that its prompts hide."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_manifests_of_runs import CONFIG, call, records, written

from demur.experiment.config import Attacked, Defended


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


def test_two_runs_are_compared_without_a_word_of_an_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"id": "hide-the-rifles-7", "prompt": "Hide the rifles", "answer": "Rifles go"}
    stores = [written(tmp_path / name, CONFIG) for name in ("one", "other")]
    key = stores[0].counted[0]
    first, second, *rest = records(CONFIG, key)
    hidden, named = replace(first, **words), replace(second, id="q-3")
    for store, outcome in zip(stores, ("answer", "refusal"), strict=True):
        store.files()[key].unlink()
        store.add(key, [replace(hidden, outcome=outcome), replace(named, outcome=outcome), *rest])
    code, said = call(capsys, monkeypatch, "runs", "diff", *[store.folder for store in stores])
    assert (code, "2 differ" in said, f"{hidden.label}: outcome" in said, "q-3: outcome" in said) == (1, *[True] * 3)
    assert hidden.label.startswith("prompt-")
    assert "ifles" not in said
    stores[1].files()[key].unlink()
    stores[1].add(key, [hidden, hidden, *rest])
    code, said = call(capsys, monkeypatch, "runs", "diff", *[store.folder for store in stores])
    assert (code, "two rows of" in said, "ifles" in said) == (2, True, False), said
