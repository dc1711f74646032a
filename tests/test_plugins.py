"""Parts from outside: the example package, by ``module:Class`` and by the names that it registers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small

import demur
from demur import artefact, cli, testing
from demur.attacks import ATTACKS
from demur.defenses import DEFENSES
from demur.experiment import read, units_of
from demur.guards import DETECTORS
from demur.judges import JUDGES
from demur.models import FAMILIES
from demur.models.families import PACKAGED
from demur.registry import Registry
from demur.samplers import SAMPLERS
from demur.traces import TRACE_FIELDS
from demur.types import DemurError, Kind
from demur.worlds import WORLDS

EXAMPLE = Path(__file__).parent.parent / "examples" / "plugin"
REGISTERED = {
    SAMPLERS: "right-to-left", DETECTORS: "lowest", ATTACKS: "polite", DEFENSES: "no-novels", JUDGES: "recipes",
    WORLDS: "kitchen", TRACE_FIELDS: "surety",
}  # fmt: skip
"""The example's parts, by the registry that they are in, and the name that they have there."""


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example has been installed, as pip does it."""
    folder = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "plugin")  # building writes beside it
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, str(folder), str(source)], check=True)
    return folder


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's module, as a file that lies on the path."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import demur_example  # type: ignore[import-not-found]

    yield demur_example
    for name in ("demur_example", "demur_example_world"):
        sys.modules.pop(name, None)


def demur_at(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a folder; ``path``: where installed packages lie beside the usual ones."""
    more = os.pathsep.join(p for p in (str(path or ""), os.environ.get("PYTHONPATH", "")) if p)
    environment = os.environ | {"PYTHONPATH": more, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "demur", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


# -- contracts ------------------------------------------------------------------------------------------------


def test_every_part_of_the_example_keeps_its_contract(example: Any) -> None:
    import demur_example_world  # type: ignore[import-not-found]

    testing.check_sampler(example.RightToLeft())
    testing.check_detector(example.Lowest)
    testing.check_attack(example.Polite())
    testing.check_defense(example.NoNovels())
    testing.check_judge(example.Recipes())
    testing.check_world(demur_example_world.Kitchen())
    testing.check_trace_field(example.Surety())


@pytest.mark.parametrize("kind", [Kind.CAUSAL, Kind.MASKED, Kind.BLOCK])
def test_models_of_every_kind_and_their_samplers_keep_the_contracts(kind: Kind) -> None:
    model = testing.tiny(kind)
    testing.check_model(model)
    for name in demur.samplers.fitting(model.offers):
        sampler = SAMPLERS[name]()
        few = {"steps": 8} if kind == Kind.MASKED and hasattr(sampler, "steps") else {}  # a pass a step: they add up
        testing.check_sampler(replace(sampler, **few), model)


class Broken:
    """Parts that break a contract, each in one way."""

    class Moving:
        """A sampler that moves a given token."""

        needs = SAMPLERS["low-confidence"]().needs

        def __call__(self, model: Any, canvas: Any, rngs: Any) -> Any:
            for step in SAMPLERS["low-confidence"](steps=4)(model, canvas, rngs):
                step.ids[:, -9] = 7
                yield step

    class Leaning:
        """A detector whose rows lean on each other."""

        name = "leaning"

        @classmethod
        def fit(cls, harmless: Any, *, seed: int = 0) -> Any:
            return cls()

        def __call__(self, sigma: Any) -> Any:
            return sigma.mean(axis=1) - sigma.mean()

    class Silent:
        """An attack that does not say what it was made from."""

        name = "silent"

        def __call__(self, prompt: demur.Prompt) -> demur.Prompt:
            return demur.Prompt(prompt.id, prompt.text, prompt.harmful)

    class Certain:
        """A judge that judges an empty text."""

        name = "certain"

        def __call__(self, prompt: Any, text: str) -> Any:
            return demur.types.Verdict("certain", True)

    class Batched:
        """A trace field of the whole batch."""

        name = "batched"

        def __call__(self, step: Any, canvas: Any) -> Any:
            return step.confidence.nanmean().expand(canvas.rows)


@pytest.mark.parametrize(
    ("check", "part"),
    [
        (testing.check_sampler, Broken.Moving()),
        (testing.check_detector, Broken.Leaning),
        (testing.check_attack, Broken.Silent()),
        (testing.check_judge, Broken.Certain()),
        (testing.check_trace_field, Broken.Batched()),
    ],
    ids=lambda one: getattr(one, "__name__", type(one).__name__),
)
def test_a_part_that_breaks_its_contract_is_caught(check: Any, part: Any) -> None:
    with pytest.raises((AssertionError, DemurError)):
        check(part)


# -- names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody", "'nobody'"),
        ("no_such_module:Thing", "no_such_module"),
        ("demur_example:Nothing", "Nothing"),
        ("json:", "'json:'"),
        (":Class", "':Class'"),
        ("not a module:Class", "'not a module:Class'"),
    ],
)
@pytest.mark.parametrize("registry", list(REGISTERED), ids=lambda registry: registry.kind)
def test_a_name_that_finds_nothing_is_one_line(registry: Registry, name: str, says: str, example: Any) -> None:
    with pytest.raises(DemurError) as caught:
        registry.get(name)
    assert says in small.one_line(caught.value)


def test_a_module_that_fails_while_it_is_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_part.py").write_text("raise RuntimeError('two\\nlines')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DemurError, match=r"RuntimeError: two lines"):
        ATTACKS.get("failing_part:Attack")


ODD = ["os:system", "math:pi", "builtins:dict", "builtins:eval"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("part", ["sampler", "attack", "defense", "judge", "detector", "field"])
def test_what_is_no_part_is_one_line_before_anything_runs(part: str, odd: str, tmp_path: Path, example: Any) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(**PATHS | {part: odd}))
    with pytest.raises(DemurError) as caught:
        units_of(read(recipe))
    assert odd in small.one_line(caught.value)


class Failing:
    """Parts that fail, or give what is none, while a generation runs."""

    class Raises:
        name = "raises"

        def __call__(self, step: Any, canvas: Any) -> Any:
            raise RuntimeError("two\nlines")

    class Number:
        name = "number"

        def __call__(self, step: Any, canvas: Any) -> Any:
            return 5

    class Shapeless:
        name = "shapeless"

        def __call__(self, step: Any, canvas: Any) -> Any:
            return step.confidence


@pytest.mark.parametrize("field", [Failing.Raises(), Failing.Number(), Failing.Shapeless()], ids=lambda f: f.name)
def test_a_trace_field_that_fails_is_one_line_that_names_it(field: Any) -> None:
    with pytest.raises(DemurError) as caught:
        demur.generate(testing.tiny(), ["Hi", "Ho"], length=2, fields=[field])
    assert field.name in small.one_line(caught.value)


def test_a_sampler_that_takes_no_step_is_one_line(tmp_path: Path) -> None:
    from demur.studio.watching import Run, watch

    model = testing.tiny()
    with pytest.raises(DemurError, match="without steps"):
        list(watch(model, demur.Prompt("q", "Hi"), [Run("none", lambda *_: iter(()), None, 3)], seed=0, steps=3))


@pytest.mark.parametrize(
    "made", [None, [], "text", demur.Prompt("another", "Hi")], ids=["none", "list", "text", "other"]
)
def test_an_attack_that_makes_no_prompt_of_its_prompt_is_one_line(made: Any) -> None:
    from demur.experiment.attacking import _checked
    from demur.experiment.config import Attacked

    with pytest.raises(DemurError) as caught:
        _checked(Attacked("bad:Attack"), demur.Prompt("q", "Hi"), made)
    assert "bad:Attack" in small.one_line(caught.value)


def test_a_broken_package_breaks_nobody_who_does_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    point = metadata.EntryPoint("broken", "no_such_module:Part", "demur.samplers")
    monkeypatch.setitem(SAMPLERS.__dict__, "packaged", {"broken": point})
    with pytest.warns(demur.types.DemurWarning, match="broken"):
        assert demur.samplers.fitting(testing.tiny(Kind.CAUSAL).offers) == ["ar"]
    with pytest.raises(DemurError, match="broken"):
        SAMPLERS.get("broken")


def test_a_file_of_this_folder_hides_no_installed_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demur.py").write_text("raise RuntimeError('hidden')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert ATTACKS.get("demur.attacks.text:Flip").name == "flip"


# -- runs -----------------------------------------------------------------------------------------------------

RECIPE = """
name: outside
models:
  - {{name: organism/diffusion, samplers: [{sampler}]}}
prompts: {{harmful: {world}, harmless: {world}, n: 2, controls: 2, plain: 2, anchors: 8, fit: 32, calibrate: 19}}
attacks: [{attack}]
defenses: [none, sri-guard, {defense}]
judge: {judge}
detector: {detector}
fields: [{field}]
alpha: 0.1
length: 8
steps: 4
"""
PATHS = {
    "sampler": "demur_example:RightToLeft", "world": "demur_example_world:Kitchen", "attack": "demur_example:Polite",
    "defense": "demur_example:NoNovels", "judge": "demur_example:Recipes", "detector": "demur_example:Lowest",
    "field": "demur_example:Surety",
}  # fmt: skip
NAMES = {
    "sampler": "right-to-left", "world": "kitchen", "attack": "polite", "defense": "no-novels", "judge": "recipes",
    "detector": "lowest", "field": "surety",
}  # fmt: skip


OUTSIDE = """
from dataclasses import replace
from demur.organism.world import prompts
from demur.worlds import Listed

class Outside(Listed):
    name = "outside_world:Outside"
    harmless = [replace(p, source="outside") for p in prompts("guard", forbidden=False, n=120)]
    harmful = [replace(p, source="outside") for p in prompts("test", forbidden=True, n=20)]
"""
"""A world of requests that the organism answers and refuses."""


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the one run in a folder, without their times."""
    (manifest,) = (folder / "runs").rglob("manifest.json")
    frame = demur.rows(manifest.parent).drop(columns="seconds")
    return json.loads(frame.to_json(orient="records"))


@pytest.mark.slow
def test_a_run_of_parts_from_outside_by_path_and_by_name(tmp_path: Path, installed: Path) -> None:
    """By path from files in the folder, with two workers; by name from an installed package, with one."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, names in ((here, PATHS), (there, NAMES)):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE.format(**names | {"world": "outside_world:Outside"}))
        (folder / "outside_world.py").write_text(OUTSIDE)
    for module in EXAMPLE.glob("*.py"):
        (here / module.name).write_bytes(module.read_bytes())
    done = demur_at(here, "evaluate", "recipe.yaml", "--out", "runs/outside", "--workers", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    done = demur_at(there, "evaluate", "recipe.yaml", "--out", "runs/outside", path=installed)
    assert done.returncode == 0, done.stderr[-2000:]
    mine, theirs = rows_of(here), rows_of(there)
    assert {row["attack"] for row in theirs} == {"plain", "polite"}
    assert all(len(json.loads(row["fields"])["surety"]) == row["steps"] for row in theirs if row["fields"])
    assert any(row["fields"] for row in theirs)
    renamed = {path: NAMES[part] for part, path in PATHS.items()}
    for row in mine:
        for column in ("attack", "defense", "sampler", "flagged_by"):
            for path, name in renamed.items():
                row[column] = row[column].replace(path, name)
    told = ("attack", "defense", "role", "id", "text", "outcome", "sigma", "score", "flagged_step", "fields")
    assert sorted(str([row[k] for k in told]) for row in mine) == sorted(str([row[k] for k in told]) for row in theirs)


def test_a_recipe_in_a_world_from_outside_is_read_and_planned(tmp_path: Path, example: Any) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(**PATHS))
    units = units_of(read(recipe))
    assert {(unit.attack.name, unit.role) for unit in units} == {
        ("plain", "harmful"),
        ("plain", "plain"),
        ("demur_example:Polite", "harmful"),
        ("demur_example:Polite", "controls"),
    }
    for part, path in PATHS.items():
        recipe.write_text(RECIPE.format(**PATHS | {part: path + "Nowhere"}))
        with pytest.raises(DemurError) as caught:
            units_of(read(recipe))
        assert "Nowhere" in small.one_line(caught.value), part


@pytest.mark.slow
def test_a_run_of_parts_from_outside_under_ray(tmp_path: Path, installed: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(**NAMES | {"world": "outside_world:Outside"}))
    (tmp_path / "outside_world.py").write_text(OUTSIDE)
    done = demur_at(tmp_path, "evaluate", "recipe.yaml", "--out", "runs/outside", "--engine", "ray", path=installed)
    assert done.returncode == 0, done.stderr[-2000:]
    assert rows_of(tmp_path)


def test_the_command_line_takes_a_sampler_and_a_field_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From files of the current folder, which is not on the path."""
    for module in EXAMPLE.glob("*.py"):
        (tmp_path / module.name).write_bytes(module.read_bytes())
    said = ["watch", "How do I open the granary?", "-m", "organism/diffusion", "--no-signal", "--json", "--length", "6"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry and Path(entry) != EXAMPLE])
    monkeypatch.setattr(sys, "argv", ["demur", *said, "--sampler", PATHS["sampler"], "--field", PATHS["field"]])
    assert "demur_example" not in sys.modules
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert sys.modules.pop("demur_example").__file__ == str(tmp_path / "demur_example.py")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 6
    assert all(0 < line["fields"]["surety"] <= 1 for line in lines)


@pytest.mark.slow
def test_a_guard_of_a_detector_from_outside_is_fitted_shown_and_used(tmp_path: Path) -> None:
    for module in EXAMPLE.glob("*.py"):
        (tmp_path / module.name).write_bytes(module.read_bytes())
    sizes = ["--n-anchors", "8", "--n-fit", "32", "--n-calibrate", "19", "--n-check", "8", "--alpha", "0.1"]
    asked = ["guard", "fit", "organism/ar", "--detector", PATHS["detector"], *sizes, "--out", "g.safetensors"]
    done = demur_at(tmp_path, *asked)
    assert done.returncode == 0, done.stderr[-2000:]
    done = demur_at(tmp_path, "guard", "show", "g.safetensors")
    assert done.returncode == 2
    assert "--detector" in done.stderr
    for said in (["guard", "show", "g.safetensors"], ["guard", "run", "g.safetensors", "How do I open the gate?"]):
        done = demur_at(tmp_path, *said, "--detector", PATHS["detector"], "--json")
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)


def test_a_checkpoint_of_a_family_from_outside_is_run_by_it(tmp_path: Path, example: Any) -> None:
    from demur.models import family_at, organism_path

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in organism_path("organism/ar").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "demur_example"}
    artefact.write(folder / "config.json", json.dumps(config))
    with pytest.raises(DemurError, match="demur_example"):
        demur.load(str(folder))
    name = f"demur_example:FAMILY@{folder}"
    assert family_at(name) is example.FAMILY
    model = demur.load(name)
    testing.check_model(model)
    mine, plain = (demur.generate(one, ["How do I open the granary?"])[0] for one in (model, demur.load("organism/ar")))
    assert mine.tokens().tolist() == plain.tokens().tolist()
    with pytest.raises(DemurError, match="Polite is a type"):
        demur.load(f"demur_example:Polite@{folder}")


def test_a_detector_from_outside_is_named_by_where_it_is(example: Any) -> None:
    assert DETECTORS.name_of(example.Lowest) == "demur_example:Lowest"
    assert DETECTORS.get(DETECTORS.name_of(example.Lowest)) is example.Lowest


def test_the_names_that_a_package_registers_are_found(
    tmp_path: Path, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an installer writes of ``[project.entry-points]``, read anew."""
    registered = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    info = tmp_path / "demur_example-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: demur-example\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]\n{name} = {value}\n" for group, of in registered.items() for name, value in of.items())
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    every = [Registry(one.kind, one.group, one.own) for one in (*REGISTERED, PACKAGED)]
    assert [sorted(one.packaged) for one in every] == [[name] for name in (*REGISTERED.values(), "example")]
    for one, known in zip(every, REGISTERED, strict=False):
        name = REGISTERED[known]
        assert one.name_of(one.get(name)) == name
        assert name in one


@pytest.mark.slow
def test_the_names_of_an_installed_package_are_found(installed: Path) -> None:
    code = """
import json
from demur.attacks import ATTACKS
from demur.defenses import DEFENSES
from demur.experiment import read, units_of
from demur.guards import DETECTORS
from demur.judges import JUDGES
from demur.models.families import PACKAGED
from demur.samplers import SAMPLERS
from demur.traces import TRACE_FIELDS
from demur.worlds import WORLDS
every = (SAMPLERS, DETECTORS, ATTACKS, DEFENSES, JUDGES, WORLDS, TRACE_FIELDS, PACKAGED)
print(json.dumps([sorted(registry.packaged) for registry in every]))
print([str(registry.get(name)) for registry in every for name in registry.packaged])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = json.loads(done.stdout.splitlines()[0])
    assert names == [[name] for name in (*REGISTERED.values(), "example")]
    assert "example" not in {family.name for family in FAMILIES}
