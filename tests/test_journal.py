"""A run's log, and how a run is stopped: what it says, what it never says, and that it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_cli import cli

from demur.experiment import phases, read, runs_in
from demur.experiment.journal import FILE, Journal
from demur.experiment.requests import prompts_of
from demur.types import DemurError

RECIPE = """name: stopped
models: [organism/ar]
prompts: {harmful: organism, harmless: organism, n: 12, controls: 4, anchors: 16, fit: 40, calibrate: 24}
attacks: [organism/page]
defenses: [none]
judge: organism
length: 40
chunk: 2
batch: 2
alpha: 0.1
"""


def test_a_phase_has_a_line_at_its_beginning_one_a_minute_and_one_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phases, "EVERY", 0.05)
    heard: list[str] = []
    with Journal(tmp_path / "run", heard.append) as journal:
        journal.progress("generating", 4, 10)
        journal.progress("generating", 6, 10)
        time.sleep(0.3)
        journal.progress("generating", 10, 10)
    assert heard[0] == "generating: 4 of 10"
    assert any(re.fullmatch(r"generating: 6 of 10, [\d.]+ a minute, some \d+ seconds left", line) for line in heard)
    assert "generating: 10 of 10" in heard
    assert heard[-1].startswith("finished after")
    written = (tmp_path / "run" / FILE).read_text().splitlines()
    assert [line.partition(" ")[2].partition(" ")[2] for line in written] == heard
    n = len(heard)
    time.sleep(0.2)
    assert len(heard) == n, "nobody talks after the end"


@pytest.mark.parametrize("error", [DemurError("no room", "more"), KeyboardInterrupt(), ValueError("secret words")])
def test_an_end_before_the_end_is_told_and_a_second_session_goes_on_in_the_same_file(
    error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), Journal(tmp_path):
        raise error
    with Journal(tmp_path):
        pass
    first, second = (tmp_path / FILE).read_text().splitlines()
    assert ("no room" if isinstance(error, DemurError) else type(error).__name__) in first
    assert "--resume goes on" in first
    assert "secret" not in first
    assert "finished" in second


def test_a_log_that_can_not_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with Journal(tmp_path) as journal:
        journal.progress("generating", 1, 2)
    (tmp_path / "file").write_text("")
    with Journal(tmp_path / "file") as journal:
        journal.line("x")


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 2, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_run_that_is_told_to_stop_says_how_to_go_on_and_goes_on(
    number: signal.Signals, workers: int, tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "demur", "evaluate", "r.yaml", "--out", "mine", "--workers", str(workers)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests may run in the background, where it is not
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "preexec_fn": heard}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:
        units = tmp_path / "mine" / "stopped" / "units"
        until = time.monotonic() + 300
        while not list(units.glob("*.parquet")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    more = f" --workers {workers}" if workers > 1 else ""
    assert f"go on with: demur evaluate r.yaml --out mine{more} --resume" in said.splitlines()[-1]
    assert "generating: 0 of" in said, "without a terminal the log's lines are heard"
    folder = tmp_path / "mine" / "stopped"
    assert not list(folder.rglob(".*")), "nothing half-written"
    done = len(list(units.glob("*.parquet")))
    log = (folder / FILE).read_text()
    assert "--resume goes on" in log
    words = [prompt.text for prompt in prompts_of(read(tmp_path / "r.yaml").prompts, "harmful")]
    assert not any(text in log + said for text in words)
    ended = subprocess.run([*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    todo = re.search(r"(\d+) of (\d+) units to do", ended.stderr)
    assert todo is not None
    assert int(todo[1]) == int(todo[2]) - done


def test_runs_are_listed_for_programs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"subjects": [{"model": "organism/ar"}, {"model": "organism/ar"}]}
    manifest = {"name": "a", "key": "k", "written": "2026-01-01", "finished": True, "config": config, "units": ["u"]}
    for name, content in (
        ("a", json.dumps(manifest)),
        ("web", '{"short_name": "app"}'),
        ("broken", "{"),
        ("list", "[]"),
    ):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "manifest.json").write_text(content)
    monkeypatch.chdir(tmp_path)
    assert [path.name for path, _ in runs_in(Path("runs"))] == ["a"]
    for arguments in (["--json"], ["list", "--json"], ["list", "runs", "--json"], ["list", "none", "--json"]):
        monkeypatch.setattr(sys, "argv", ["demur", "runs", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        listed = json.loads(capsys.readouterr().out)
        if "none" in arguments:
            assert listed == []
            continue
        (run,) = listed
        assert (run["name"], run["finished"], run["units"], run["models"]) == ("a", True, 1, ["organism/ar"])


@pytest.mark.parametrize("module", ["pyarrow", "matplotlib"])
def test_what_is_not_installed_is_one_line_with_the_command(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["demur", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out + said.err

    code, said = call("evaluate", "r.yaml", "--dry-run")
    assert code == 1
    assert "pip install 'demur[evaluate]'" in said
    for arguments in (("evaluate", "r.yaml"), ("report", "runs/stopped")):
        if module == "pyarrow" or arguments[0] == "report":
            code, said = call(*arguments)
            assert (code, "pip install 'demur[evaluate]'" in said, said.count("\n")) == (2, True, 1)
    assert not (tmp_path / "runs").exists()
