"""The world of the packaged prompts, and the recipes for a small real model that are made of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import demur
from demur.experiment import Config, read
from demur.experiment.packaged import Packaged, mixed
from demur.experiment.requests import digests_of, prompts_of
from demur.testing import check_world
from demur.types import Prompt
from demur.worlds import ROLES

RECIPES = Path(demur.__file__).parent / "recipes"
NAMES = ("real-small", "real-small-paper")


def recipe(name: str) -> Config:
    return read(RECIPES / f"{name}.yaml")


def test_it_keeps_a_worlds_contract_and_holds_every_prompt_once() -> None:
    check_world(Packaged())
    world = Packaged()
    assert (len({p.text for p in world.harmless}), len({p.text for p in world.harmful})) == (1100, 660)
    assert not any(p.harmful for p in world.harmless)
    assert all(p.harmful for p in world.harmful)


def test_every_role_has_of_every_set_about_as_much_as_there_is() -> None:
    of = recipe("real-small").prompts
    for role in ROLES:
        asked = prompts_of(of, role)
        counts = Counter(prompt.source for prompt in asked)
        shares = {source: count / len(asked) for source, count in counts.items()}
        harmful = asked[0].harmful
        more = {"demur blunt set": 120} if harmful else {"demur everyday set": 360, "demur check set": 200}
        expected = {"demur starter set": 120, **more, "demur matched set": 420}
        total = sum(expected.values())
        assert shares == pytest.approx({source: n / total for source, n in expected.items()}, abs=0.03), role
    digests_of(of)  # no request is on two sides


def test_mixing_keeps_each_sets_own_order() -> None:
    prompts = [
        Prompt(f"{source}{i}", f"{source} {i}", source=source) for source, n in (("a", 2), ("b", 4)) for i in range(n)
    ]
    assert [prompt.id for prompt in mixed(prompts)] == ["b0", "a0", "b1", "b2", "a1", "b3"]


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_is_a_study_that_a_dry_run_can_plan_offline(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from demur.cli import main

    config = recipe(name)
    assert [attack.label for attack in config.attacks] == ["suppression", "prefix", "role"]
    assert [subject.model for subject in config.subjects] == ["Qwen/Qwen2.5-0.5B-Instruct"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["demur", "evaluate", str(RECIPES / f"{name}.yaml"), "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "680 for anchors and guard" in said
    assert said.count("Qwen/Qwen2.5-0.5B-Instruct, own sampler: ") >= 30


def test_the_two_recipes_differ_in_the_guard_alone() -> None:
    def plain(config: Config) -> dict[str, Any]:
        return {key: value for key, value in vars(config).items() if key not in ("name", "signal", "detector")}

    ours, papers = map(recipe, NAMES)
    assert plain(ours) == plain(papers)
    assert (ours.signal, ours.detector) == ("whitened", "last")
    assert (papers.signal, papers.detector) == ("sri", "autoencoder")
