"""Docs are tests: what the README and the pages show is run."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from demur.cli import app
from demur.cli.console import run
from demur.experiment import read, units_of
from demur.prompts import transcripts

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


EXAMPLES = [(page.name, i, code) for page in PAGES for i, code in enumerate(blocks(page, "python"))]


@pytest.mark.parametrize(
    ("page", "number", "code"),
    [  # the README's loads a real model and fits its anchors
        pytest.param(*example, id=f"{example[0]}-{example[1]}", marks=[pytest.mark.slow] * (example[0] == "README.md"))
        for example in EXAMPLES
    ],
)
def test_python_examples_run(
    page: str, number: int, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{page} example {number}", "exec"), {"__name__": "__main__"})  # the example, as it stands


def test_the_recipe_of_the_page_on_extending_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = next(page for page in PAGES if page.name == "extending.md")
    *parts, world, field = [code for code in blocks(page, "python") if "check_" in code and "FAMILY" not in code]
    code = {"my_module.py": [*parts, field], "my_worlds.py": [world]}
    for name, several in code.items():  # as a reader has them: in files of the folder, without the calls of checks
        lines = "\n".join(several).splitlines()
        (tmp_path / name).write_text("\n".join(line for line in lines if not line.startswith("check_")))
    (recipe,) = blocks(page, "yaml")
    (tmp_path / "mine.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert units_of(read(tmp_path / "mine.yaml"))


def commands() -> list[str]:
    """Every line of a shell block that calls demur."""
    return [line for page in PAGES for line in lines_of(page) if line.startswith("demur ")]


def lines_of(page: Path) -> list[str]:
    """The lines of a page's shell blocks, without their comments."""
    return [line.split("#")[0].strip() for code in blocks(page, "sh") for line in code.splitlines()]


@pytest.mark.parametrize("line", commands())
def test_shown_commands_exist_with_their_options(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line.partition(" > ")[0])[1:]
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{line}: no such command"
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{line}: {word}"


FROM_THE_HUB = re.compile(r"(?<![\w/.])(?!organism/|runs/)[A-Za-z][\w-]*/[\w.-]+|--harm\w+ (alpaca|advbench)")
"""Names of models and data sets that are fetched."""


SMALLER = {"demur ablate": " --n 24 --alpha 0.05 --seeds 1"}
"""What takes tens of minutes as it stands is run with fewer prompts: the command, and what the test adds to it."""


@pytest.mark.slow
def test_every_command_of_the_readme_runs_in_its_order(tmp_path: Path) -> None:
    """As a newcomer would type them, in one folder. What a line takes from nowhere is written first; recipes are made
    smaller (and :data:`SMALLER`), so that this takes minutes. What needs the hub ends in one line here, without it.
    """
    (shown,) = blocks(ROOT / "README.md", "jsonl")
    (tmp_path / "transcripts.jsonl").write_text(shown, encoding="utf-8")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    lines = [line for line in lines_of(ROOT / "README.md") if line.startswith("demur ")]
    assert len(lines) > 12
    assert set(SMALLER) <= set(lines)
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line + SMALLER.get(line, "")],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, f"{line}: {done.stderr}"
        if FROM_THE_HUB.search(line) and not line.startswith("demur doctor"):  # that knows some configurations itself
            assert done.returncode == 2, f"{line}: {done.stdout}"
        else:
            assert done.returncode == 0, f"{line}: {done.stdout[-1000:]} {done.stderr[-2000:]}"
        for recipe in tmp_path.glob("*.yaml"):
            smaller = re.sub(r"\b(n|controls): \d+", r"\1: 4", recipe.read_text(encoding="utf-8"))
            recipe.write_text(re.sub(r"\bplain: \d+", "plain: 8", smaller), encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "jsonl")], ids=lambda page: page.name)
def test_transcripts_that_a_page_shows_are_replayed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a built-in model: one line a row, a signal for each that has an answer."""
    for shown in blocks(page, "jsonl"):
        (tmp_path / "transcripts.jsonl").write_text(shown, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["demur", "replay", str(tmp_path / "transcripts.jsonl"), "-m", "organism/ar"])
        assert run(app) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        answered = [one.response for one in transcripts(tmp_path / "transcripts.jsonl")]
        assert len(rows) == len(answered) == len(shown.splitlines()) == 3
        assert [len(row["sigma"]) for row in rows] == [32 * bool(answer) for answer in answered]


def test_the_readme_says_what_a_replay_reads() -> None:
    assert blocks(ROOT / "README.md", "jsonl")
    pages = {page.name for page in PAGES if blocks(page, "jsonl")}
    assert pages >= {"README.md", "prompts.md"}


def test_make_has_every_target_that_is_shown() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / ".ci/run"]
    mention = re.compile(r"`make ([a-z-]+)|^(?:\w+=\S+ )?(?:make|step|step_if_time) ([a-z-]+)", re.MULTILINE)
    shown = {name for page in pages for name in mention.findall(page.read_text(encoding="utf-8"))}
    assert {("", "golden"), ("", "test-slow")} <= shown, "what .ci/run runs is among them"
    assert {a or b for a, b in shown} - targets == set()


def test_the_readme_names_every_extra_that_a_user_may_want() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name for name in project["optional-dependencies"] if name not in ("dev", "test")}
    table = re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(table) == extras


def test_every_extra_that_an_error_names_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set()
    for file in (ROOT / "src").rglob("*.py"):
        code = file.read_text(encoding="utf-8")
        named |= set(re.findall(r"demur\[([a-z0-9-]+)\]", code)) | set(re.findall(r'need\("[\w.]+", "([^"]+)"', code))
    assert named
    assert named - set(project["optional-dependencies"]) == set()


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_project_speaks_of_itself_only() -> None:
    """No paths of a machine in what is shipped."""
    for folder in ("src", "docs", "benchmarks"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".md", ".js", ".css", ".html", ".json") and file.stat().st_size < 1e6:
                assert "/work/" not in file.read_text(encoding="utf-8"), file


HISTORY = ("study.md", "study-seed-0.md")
"""Pages that tools write."""
CODE_PAGES = [
    page
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    if page.name not in HISTORY
]
GONE = {"demur.samplers.FOR_KIND", "demur.guards.BUILT_IN"}
"""What decisions name since it is no more."""


@pytest.mark.parametrize("page", CODE_PAGES, ids=lambda page: page.name)
def test_every_path_and_every_name_of_the_package_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = set(re.findall(r"\b((?:src|tests|examples|benchmarks)/[\w./-]*\w)", text))
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    names = set(re.findall(r"`(demur(?:\.[A-Za-z_]\w*)+)", text)) - GONE
    assert [name for name in sorted(names) if not (is_there(name) or name in ENTRY_POINTS | KEYS)] == []
    inside = set(re.findall(r"`((?:[a-z]\w*/)+\w+\.py)", text))
    at = (ROOT, ROOT / "src/demur", page.parent)
    assert [path for path in sorted(inside) if not any((folder / path).exists() for folder in at)] == []


ENTRY_POINTS = set(re.findall(r"demur\.[a-z_]+", (ROOT / "examples/plugin/pyproject.toml").read_text(encoding="utf-8")))
"""Groups of entry points: they look like modules."""
KEYS = {"demur.record"}
"""Names inside of files."""


def is_there(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        return all((found := getattr(found, part, None)) is not None for part in parts[end:])
    return False


def test_names_that_are_gone_are_told_from_those_that_are_there() -> None:
    assert is_there("demur.redaction.hidden")
    assert is_there("demur.guards.Guard.judge")
    assert not is_there("demur.guards.criteria")
    assert not any(map(is_there, GONE))


def test_the_map_of_the_readme_and_of_the_architecture_names_every_room() -> None:
    rooms = {path.name for path in (ROOT / "src/demur").iterdir() if (path / "__init__.py").exists()}
    for page in (ROOT / "README.md", ROOT / "docs/architecture.md"):
        fenced = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        shown = next(code for code in fenced if code.startswith("src/demur/"))
        assert rooms - set(re.findall(r"(\w+)/ ", shown)) == set(), page.name
        files = re.findall(r"^  (\w+\.py) |  (\w+\.py)  ", shown, re.MULTILINE)
        assert [a or b for a, b in files if not (ROOT / "src/demur" / (a or b)).exists()] == [], page.name
