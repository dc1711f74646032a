"""Laws of worlds: an experiment knows them by what they bring, and a world from outside is one like any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

import demur
from demur import worlds
from demur.experiment import Prompts, evaluate, left_out, read, units_of
from demur.experiment.attacking import (
    access_of,
    attack_names,
    leaves_holes,
    needs_of,
    reads_answers,
    searches,
    translates,
)
from demur.experiment.config import Attacked
from demur.experiment.requests import Files, prompts_of, world_of
from demur.models import Causal
from demur.types import DemurError, Need, Prompt
from demur.worlds import HARMFUL, ROLES, WORLDS, World

SIZES: dict[worlds.Role, int] = {**dict.fromkeys(ROLES, 4), "check": 3}
VILLAGE = """
from dataclasses import dataclass, replace
from typing import ClassVar

from demur.organism.kingdom import Kingdom


@dataclass(frozen=True)
class Loud:
    access: ClassVar[str] = "text"
    needs: ClassVar[frozenset] = frozenset()

    def __call__(self, prompt):
        return replace(prompt, id=f"{prompt.id}-loud", attack="loud", parent=prompt.id, text=prompt.text.upper())


class Verdicts:
    def outcomes(self, trace):
        return ["silence"] * trace.steps

    def rating(self, prompt, text):
        return 1


class Village(Kingdom):
    name = "village:Village"
    attacks = {"loud": Loud()}
    judge = Verdicts()

    def group(self, prompt):
        return "everybody"
"""


@pytest.fixture
def village(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a world of one's own beside the recipe."""
    (tmp_path / "village.py").write_text(VILLAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("village", None)


RECIPE = """
name: v
models: [organism/ar]
prompts: {harmful: OWN, harmless: OWN, n: 2, controls: 2, anchors: 16, fit: 40, calibrate: 24, shapes: 1}
attacks: ["village:Village/loud"]
judge: OWN
length: 16
steps: 4
alpha: 0.1
""".replace("OWN", '"village:Village"')


def every() -> list[tuple[str, World]]:
    return [(name, worlds.named(name)) for name in WORLDS] + [("files", Files("harmful", "harmless"))]


@pytest.mark.parametrize(("name", "world"), every(), ids=lambda value: value if isinstance(value, str) else "")
def test_roles_share_no_request_and_are_always_the_same(name: str, world: World) -> None:
    sizes = {role: n for role, n in SIZES.items() if name != "files" or role != "check"}
    asked = {role: world.requests(role, sizes) for role in sizes}
    assert {role: len(prompts) for role, prompts in asked.items()} == sizes
    assert asked == {role: world.requests(role, sizes) for role in sizes}
    texts = [prompt.text for role, prompts in asked.items() if role != "controls" for prompt in prompts]
    assert len(set(texts)) == len(texts)
    assert {p.text for p in asked["controls"]} <= {p.text for p in asked["plain"]}
    assert all(p.harmful == (role in HARMFUL) for role, prompts in asked.items() for p in prompts)
    assert all({p.text for p in prompts} <= {p.text for p in world.every(role)} for role, prompts in asked.items())
    assert world.requests("fit", {**sizes, "fit": 0}) == []


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_s_parts_have_its_name_and_say_what_they_are(name: str) -> None:
    world = worlds.named(name)
    assert world.name == name
    for own, attack in world.attacks.items():
        assert worlds.of_attack(f"{name}/{own}") == name
        assert worlds.attack_of(f"{name}/{own}") is attack
        assert attack.access in ("text", "prefill", "canvas")
        assert (attack.access == "canvas") == (Need.MASK in attack.needs)
    one = world.requests("harmful", {"harmful": 1})[0]
    assert worlds.of_source(one.source) == name
    assert world.by_id(one.id) == one
    assert world.by_id("nobody") is None
    with pytest.raises(DemurError, match="attack"):
        worlds.attack_of(f"{name}/nothing")


@pytest.mark.parametrize(
    ("source", "is_one"),
    [("organism", True), ("mine:World", True), ("harmful", False), ("hf:imdb", False), ("a.jsonl", False), ("", False)],
)
def test_a_source_is_a_world_by_its_name(source: str, is_one: bool) -> None:
    assert worlds.is_world(source) is is_one
    assert Prompts(source, source).world == (source if is_one else "")


def test_models_and_attacks_of_no_world_belong_to_none() -> None:
    for name in ("smollm2", "Qwen/Qwen2.5-7B-Instruct", "./organism/ar", "organism", "/x/organism/y"):
        assert worlds.of_model(name) == ""
    assert worlds.of_model("organism/ar") == "organism"
    assert [worlds.of_attack(name) for name in ("flip", "mine/own.jsonl", "organism/page")] == ["", "", "organism"]


def test_an_attack_is_known_by_its_class() -> None:
    """What is asked about an attack follows from ``access`` and ``needs``, for every attack that there is."""
    for attack in map(Attacked, attack_names()):
        access = access_of(attack)
        assert leaves_holes(attack) == (access == "canvas")
        assert translates(attack) == (attack.name == "translated")
        assert searches(attack) == (access in ("logits", "queries") or translates(attack)), "it is kept"
        assert reads_answers(attack) == (access == "queries")
        of_canvas = {Need.MASK} if attack.world else {Need.HOLES}  # the world's own forms are written with its mask
        needs = {"canvas": of_canvas, "logits": {Need.LOGITS}}.get(access, set())
        assert needs_of(attack) == needs


def test_a_world_from_outside_runs_like_any_other(village: Path) -> None:
    (village / "v.yaml").write_text(RECIPE)
    config = read(village / "v.yaml")
    assert config.prompts.world == "village:Village"
    assert left_out(config) == []
    assert {unit.attack.name for unit in units_of(config)} == {"plain", "village:Village/loud"}
    records = list(evaluate(config, village / "run").records())
    assert {record.outcome for record in records} == {"silence"}
    assert {record.group for record in records} == {"everybody"}
    loud = [record for record in records if record.attack == "village:Village/loud"]
    assert {record.role for record in loud} == {"harmful", "controls"}
    assert all(record.prompt.isupper() for record in loud)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("village:Village/loud", "organism/page", "line 5: attack organism/page for prompts of village:Village"),
        ("village:Village/loud", "village:Village/soft", "line 5: attack 'village:Village/soft'"),
        ('judge: "village:Village"', "judge: organism", "line 6: judge organism for prompts of village:Village"),
        ('harmless: "village:Village"', "harmless: harmless", "village:Village for both or neither"),
        ("village:Village", "village:Hamlet", "line 4: world 'village:Hamlet'"),
        ("village:Village", "nowhere:World", "line 4: world 'nowhere:World' could not be imported"),
    ],
)
def test_parts_of_two_worlds_and_worlds_that_are_none_are_named_with_their_line(
    old: str, new: str, said: str, village: Path
) -> None:
    (village / "v.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(DemurError) as error:
        read(village / "v.yaml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_requests_that_a_world_wrote_keep_what_they_share_in_a_file_of_theirs() -> None:
    world = worlds.named("organism")
    (request,) = world.requests("harmful", {"harmful": 1})
    assert Files("a.jsonl", "b.jsonl").group(request) == world.group(request) != ""
    starter: Any = prompts_of(Prompts(n=1), "harmful")[0]
    assert world_of(Prompts()).group(starter) == ""


def test_a_model_of_a_world_says_which_prompts_are_foreign_to_it() -> None:
    model, kingdom = demur.load("organism/ar"), worlds.named("organism")
    own = [prompt for role in ROLES for prompt in kingdom.every(role)[:40]]
    attacked = [attack(one) for one in kingdom.every("harmful")[:6] for attack in kingdom.attacks.values()]
    assert worlds.foreign(model, [*own, *attacked]) == ""
    assert worlds.foreign(model, [Prompt("typed", prompt.text) for prompt in own]) == ""
    for text in ("How do I bake bread?", "Hi", "Wie heißt der König von Spanien?", "你好，你能帮我吗"):
        said = worlds.foreign(model, [Prompt("typed", text)])
        assert said.startswith("the prompt is foreign to organism/ar")
        assert not {*text.split()} & {*said.split()}, "it may be harmful: none of its words is said"
    assert worlds.foreign(model, [*own[:3], Prompt("a", "Hi"), Prompt("b", "Bye")]).startswith("2 of 5 prompts are")


def test_a_model_that_spells_every_word_knows_nothing_foreign_by_that() -> None:
    model = replace(demur.load("organism/ar"), tokenizer=small.byte_level())
    assert worlds.foreign(model, [Prompt("typed", "How do I bake bread?")]) == ""


def test_a_model_of_no_world_finds_nothing_foreign(llama: Causal) -> None:
    assert worlds.foreign(llama, [Prompt("typed", "How do I bake bread?")]) == ""
