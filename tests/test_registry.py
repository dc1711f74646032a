"""Names of parts: two packages, names that say something else, packages that break."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small

from demur.attacks import ATTACKS
from demur.defenses import DEFENSES
from demur.experiment.attacking import attack_names
from demur.judges import JUDGES
from demur.models.families import PACKAGED, family_of
from demur.prompts import PUBLIC, SETS
from demur.registry import Registry, imported
from demur.samplers import SAMPLERS, build, fitting
from demur.studio.readiness import offered
from demur.testing import tiny
from demur.types import DemurError, DemurWarning, Need, said_needs
from demur.worlds import WORLDS

MODULE = """
class Same:
    name = "same"
    def __call__(self, prompt):
        return prompt
class Breaking:
    def __init__(self):
        raise OSError("no\\nfile")
class Leaving:
    def __init__(self):
        raise SystemExit(0)
"""
Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Installs a package that registers names in a group: ``offer(registry, package, name="module:Class")``."""

    def install(registry: Registry, package: str, names: dict[str, str], code: str = MODULE) -> None:
        (tmp_path / f"{package}.py").write_text(code)
        info = tmp_path / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = "\n".join(f"{name} = {package}:{part}" for name, part in names.items())
        (info / "entry_points.txt").write_text(f"[{registry.group}]\n{lines}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, package, raising=False)
        for cached in ("packaged", "_points"):
            registry.__dict__.pop(cached, None)

    yield install  # type: ignore[misc]
    for registry in (ATTACKS, DEFENSES, JUDGES, SAMPLERS, WORLDS, PACKAGED):
        for cached in ("packaged", "_points"):
            registry.__dict__.pop(cached, None)


def test_a_name_of_two_packages_is_nobodys(offer: Offer) -> None:
    offer(ATTACKS, "first_of_two", {"same": "Same"})
    offer(ATTACKS, "second_of_two", {"same": "Same"})
    with pytest.raises(DemurError) as caught:
        ATTACKS.get("same")
    line = small.one_line(caught.value)
    assert "first_of_two:Same" in line
    assert "second_of_two:Same" in line
    assert ATTACKS.get("first_of_two:Same").name == "same"
    with pytest.warns(DemurWarning, match="both register"):
        assert "same" not in dict(ATTACKS.working())


@pytest.mark.parametrize(
    ("registry", "name"),
    [
        (ATTACKS, "plain"), (ATTACKS, "wildjailbreak"), (DEFENSES, "none"), (JUDGES, "llm"), (WORLDS, "harmful"),
        (ATTACKS, "two words"), (ATTACKS, "a/b"), (DEFENSES, "a+b"), (ATTACKS, "prompts.json"),
    ],
)  # fmt: skip
def test_a_name_that_says_something_else_is_left_out_with_a_word(registry: Registry, name: str, offer: Offer) -> None:
    offer(registry, "of_odd_names", {name: "Same", "plainly": "Same"})
    with pytest.warns(DemurWarning, match="left out") as said:
        known = [*registry]
    assert repr(name) in str(said[0].message)
    assert "of_odd_names:Same" in str(said[0].message), "it says what can be named instead"
    assert known.count(name) == (name in registry.own)
    assert "plainly" in known


def test_no_world_is_called_as_a_set_of_prompts_or_a_judge() -> None:
    assert {*SETS, *PUBLIC, "dictionary", "llm"} <= {*WORLDS.reserved}


@pytest.mark.parametrize("part", ["Breaking", "Leaving", "Missing"])
def test_a_part_that_can_not_be_made_breaks_nobody_who_does_not_ask_for_it(part: str, offer: Offer) -> None:
    offer(SAMPLERS, "breaking_sampler", {"breaking": part})
    offer(WORLDS, "breaking_world", {"breaking": part})
    with pytest.warns(DemurWarning, match="'breaking'"):
        assert "breaking" not in fitting(frozenset(Need))
    with pytest.warns(DemurWarning, match="'breaking'"):
        assert "organism/prefix" in attack_names()
    with pytest.raises(DemurError, match="breaking"):
        build("breaking", tiny("causal"))


def test_a_module_that_ends_the_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving_module.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DemurError, match="SystemExit"):
        ATTACKS.get("leaving_module:Same")


def test_what_is_no_family_breaks_no_other_model(offer: Offer) -> None:
    offer(PACKAGED, "of_no_family", {"nothing": "Same"})
    with pytest.warns(DemurWarning, match="no demur.models.Family"):
        assert family_of({"model_type": "llama"}, "x").name == "causal"


def test_two_families_of_one_model_type_are_nobodys(offer: Offer) -> None:
    code = """
from demur.models import Family
from demur.types import Kind
F = Family(name="f", kind=Kind.CAUSAL, model_types=("of_two_families",), examples=(), describes="", needs="")
"""
    offer(PACKAGED, "first_family", {"first": "F"}, code)
    assert "f" in [one.family for one in offered()], "demur models names it"
    assert family_of({"model_type": "of_two_families"}, "x").name == "f"
    offer(PACKAGED, "second_family", {"second": "F"}, code)
    with pytest.raises(DemurError, match="first and second"):
        family_of({"model_type": "of_two_families"}, "x")


def test_a_file_that_an_installed_module_hides_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("class Mine: pass")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DemurError, match="not the one of this folder"):
        imported("numpy:Mine", "attack")


@pytest.mark.parametrize("needs", ["mask token", 3, [1]])
def test_needs_that_are_no_set_of_needs_are_one_line(needs: Any) -> None:
    part = type("Part", (), {"needs": needs})
    with pytest.raises(DemurError) as caught:
        said_needs(part, "attack x")
    assert "demur.types.Need" in small.one_line(caught.value)
    assert said_needs(type("Part", (), {"needs": {Need.MASK}}), "x") == {Need.MASK}


def test_names_cost_no_warning_where_nothing_is_wrong() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(ATTACKS)) == "plain"
