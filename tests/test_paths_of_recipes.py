"""Laws of the paths in a recipe: they are those of the current folder, and what lies beside the recipe is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_cli import cli

from demur.experiment import read
from demur.experiment.recipe import notes_on
from demur.types import DemurError

RECIPE = """name: r
models: [{model}]
prompts: {{harmful: {harmful}, harmless: harmless, n: 2, plain: 2, anchors: 8}}
attacks: [{attack}]
"""
LINES = "\n".join(f'{{"id": "{i}", "prompt": "ask {i}"}}' for i in range(20))


def recipe(folder: Path, harmful: str = "harmful", attack: str = "flip", model: str = "organism/ar") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "r.yaml"
    path.write_text(RECIPE.format(harmful=harmful, attack=attack, model=model))
    return path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["bad.jsonl", "./bad.jsonl", "data/bad.jsonl", "böse frage.jsonl"])
@pytest.mark.parametrize("what", ["harmful", "attack"])
def test_a_file_that_lies_beside_the_recipe_alone_is_named_with_where_it_was_looked_for(
    what: str, name: str, here: Path
) -> None:
    path = recipe(here / "sub", **{what: name})
    (here / "sub" / name).parent.mkdir(exist_ok=True)
    (here / "sub" / name).write_text(LINES)
    with pytest.raises(DemurError) as caught:
        read(path)
    said = str(caught.value)
    assert f"line {3 if what == 'harmful' else 4}" in said
    assert f"no file {name} in {here}, where it is looked for; {here / 'sub' / name}, beside the recipe" in said
    assert "the folder in which demur is started" in said


@pytest.mark.parametrize("what", ["harmful", "attack"])
def test_of_two_files_of_one_name_the_one_that_is_taken_is_said(what: str, here: Path) -> None:
    path = recipe(here / "sub", **{what: "bad.jsonl"})
    for place in (here, here / "sub"):
        (place / "bad.jsonl").write_text(LINES)
    (note,) = notes_on(path, read(path))
    assert (
        note
        == f"bad.jsonl: the one in {here} is taken; {here / 'sub' / 'bad.jsonl'}, beside the recipe, is not looked at"
    )
    (here / "sub" / "bad.jsonl").unlink()
    (here / "sub" / "bad.jsonl").symlink_to(here / "bad.jsonl")
    assert notes_on(path, read(path)) == [], "one file under two names"


def test_a_folder_beside_the_recipe_is_no_model(here: Path) -> None:
    path = recipe(here / "sub", model="owner/name")
    (here / "sub" / "owner" / "name").mkdir(parents=True)
    (note,) = notes_on(path, read(path))
    assert note.startswith("owner/name: it is taken for no file;")


def test_where_nothing_else_is_meant_nothing_is_said(here: Path) -> None:
    (here / "bad.jsonl").write_text(LINES)
    for path in (recipe(here, "bad.jsonl"), recipe(here / "sub", str(here / "bad.jsonl")), recipe(here / "sub")):
        assert notes_on(path, read(path)) == []
    (here / "sub" / "organism").mkdir()
    (here / "sub" / "harmful").mkdir()
    (here / "sub" / "harmless").write_text("")
    assert notes_on(path, read(path)) == [], "names of sets and of built-in models are no paths"


def test_the_command_says_it(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(here / "sub", "bad.jsonl")
    for place in (here, here / "sub"):
        (place / "bad.jsonl").write_text(LINES)
    monkeypatch.setattr(sys, "argv", ["demur", "evaluate", str(path), "--dry-run"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert "demur: bad.jsonl: the one in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("alpha: 0.2", ["alpha does nothing"]),
        ("detector: mean", ["detector does nothing"]),
        ("alpha: 0.2\ndetector: mean", ["detector and alpha do nothing"]),
        ("alpha: 0.01", []),  # as it is anyway
        ("alpha: 0.2\ndefenses: [sri-guard]", []),
    ],
    ids=["alpha", "detector", "both", "the usual", "a guard"],
)
def test_what_is_set_of_a_guard_that_is_not_fitted_is_said(tmp_path: Path, lines: str, said: list[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\nmodels: [organism/ar]\nprompts: {{harmful: organism, harmless: organism}}\n{lines}\n")
    notes = notes_on(path, read(path))
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))
