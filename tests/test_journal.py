"""A run's log, and how a run is stopped: what it says, what it never says, and that it goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_cli import cli

from demur.experiment import collect, evaluate, phases, read, runs_in
from demur.experiment.fit import preparing, share
from demur.experiment.folders import superfluous
from demur.experiment.journal import FILE, Journal
from demur.experiment.requests import prompts_of
from demur.experiment.runs import UNKEPT
from demur.experiment.store import Store
from demur.signals import Anchors, fit_anchors
from demur.traces import Kept, Trace
from demur.types import DemurError, DemurWarning
from demur.workers import Processes

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


def test_the_end_of_a_phase_is_told_once_however_often_it_is_counted() -> None:
    heard: list[str] = []
    with phases.Phases(heard.append) as told:
        for done in (2, 5, 10, 10, 10):
            told.progress("anchors and guards", done, 10)
        told.progress("generating", 0, 3)
    assert heard == ["anchors and guards: 2 of 10", "anchors and guards: 10 of 10", "generating: 0 of 3"]


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


def guards_of(folder: Path) -> list[bytes]:
    """The guards that a run has made, as they lie there, and nothing else."""
    files = [path for path in (folder / "prepared").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"prepared"}, "no answer is left behind"
    return [path.read_bytes() for path in files]


QUICK = RECIPE.replace("n: 12", "n: 2").replace("length: 40", "length: 8").replace("batch: 2", "batch: 10")
WANTED = 2 * 16 + 40 + 24


def test_what_was_answered_for_anchors_and_guards_is_not_asked_again_and_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(QUICK)
    config, wrote, kept = read(tmp_path / "r.yaml"), 0, Kept.write
    evaluate(config, tmp_path / "whole")

    def write(self: Kept, place: Path, trace: Trace) -> None:
        nonlocal wrote
        wrote += 1
        if wrote == 56:  # the prompts to fit on come from the 33rd on, in batches of ten
            raise KeyboardInterrupt
        kept(self, place, trace)

    monkeypatch.setattr(Kept, "write", write)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, tmp_path / "stopped")
    heard: list[str] = []
    evaluate(config, tmp_path / "stopped", resume=True, say=heard.append)
    assert guards_of(tmp_path / "stopped") == guards_of(tmp_path / "whole")
    assert f"anchors and guards: 55 of {WANTED}" in heard[1]
    assert f"anchors and guards: {WANTED} of {WANTED}" in heard
    assert wrote - 56 == WANTED - 52, "whole batches are not asked again, the others with the same neighbours"


def test_workers_share_what_one_subject_is_asked_and_nothing_is_answered_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(QUICK)
    config, kept = read(tmp_path / "r.yaml"), Kept.write
    evaluate(config, tmp_path / "alone")
    wrote: list[tuple[str, Path]] = []
    doing = ""

    def write(self: Kept, place: Path, trace: Trace) -> None:
        wrote.append((doing, place))
        kept(self, place, trace)

    monkeypatch.setattr(Kept, "write", write)
    lists = preparing(tmp_path / "shared", config, config.subjects, 3)
    assert [len(jobs) for jobs in lists] == [3, 3, 1], "anchors, then the guard, then what is made of them"
    for made in ([*reversed(jobs)] for jobs in lists):  # workers are done in any order
        for function, *arguments in made:
            doing = " ".join([function.__name__, *map(str, arguments[3:])])
            assert function(*arguments) == ""
    assert guards_of(tmp_path / "shared") == guards_of(tmp_path / "alone")
    assert len(wrote) == len({place for _, place in wrote}) == WANTED
    by = Counter(who for who, _ in wrote)
    assert by == {
        "share anchors 0 3": 16, "share anchors 1 3": 6, "share anchors 2 3": 10,  # batches of 10, 6, 10, 6
        "share guard 0 3": 24, "share guard 1 3": 20, "share guard 2 3": 20,  # four of 10; 10, 10, 4
    }  # fmt: skip


@pytest.mark.parametrize(
    ("workers", "changed", "jobs"),
    [(1, {}, [1]), (2, {}, [2, 2, 1]), (99, {}, [10, 10, 1]), (2, {"batch": "auto"}, [1])],
    ids=["one", "two", "more than batches", "a batch that is not known yet"],
)
def test_no_more_workers_share_than_there_are_batches(
    workers: int, changed: dict[str, Any], jobs: list[int], tmp_path: Path
) -> None:
    (tmp_path / "r.yaml").write_text(QUICK)
    config = replace(read(tmp_path / "r.yaml"), **changed)
    assert [len(each) for each in preparing(tmp_path, config, config.subjects, workers)] == jobs


def test_a_subject_that_refuses_too_little_is_found_out_before_workers_answer_for_its_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(QUICK)
    config = read(tmp_path / "r.yaml")
    monkeypatch.setattr(Trace, "refused", lambda self: False)
    with pytest.raises(DemurError, match="refused"):
        share(tmp_path, config, config.subjects[0], "guard", 1, 2)
    assert len(list(tmp_path.rglob("*.unfinished/*/*/*.safetensors"))) == 2 * 16


@pytest.mark.slow
def test_workers_who_share_stop_where_nothing_can_be_kept_and_the_run_tells_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they went on to answer would be answered again. Every file that fails has a name of its own."""
    (tmp_path / "r.yaml").write_text(QUICK)
    config = read(tmp_path / "r.yaml")
    wrote, room, save, kept = 0, 0, Trace.save, Kept.write

    def write(self: Kept, place: Path, trace: Trace) -> None:
        nonlocal wrote
        wrote += 1
        kept(self, place, trace)

    def full(self: Trace, path: str | Path) -> Path:
        if wrote > room and "unfinished" in str(path):
            raise DemurError(f"{path} could not be written (no space left)", "room", "free space")
        return save(self, path)

    monkeypatch.setattr(Kept, "write", write)
    monkeypatch.setattr(Trace, "save", full)
    monkeypatch.setattr("demur.experiment.runs.Processes", ThreeInTurn)
    for room, most in ((0, 10 + 6 + 10), (48, 3 * 10)):  # a batch of each worker, while anchors are answered or after
        wrote, heard = 0, []
        evaluate(config, tmp_path / f"room{room}", say=heard.append)
        assert wrote <= WANTED + most
        assert len([line for line in heard if UNKEPT in line]) == 1
        assert len(Store(tmp_path / f"room{room}").manifest["unkept"]) == 1
    assert guards_of(tmp_path / "room0") == guards_of(tmp_path / "room48")


class ThreeInTurn(Processes):
    """Three workers that are this process, one after the other."""

    def __enter__(self) -> Any:
        self.workers = 3
        return self._here


def test_what_anchors_warn_of_is_left_for_one_to_say_however_many_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(QUICK)
    config, fitted = read(tmp_path / "r.yaml"), 0

    def warning(*given: Any, **named: Any) -> Anchors:
        nonlocal fitted
        fitted += 1
        warnings.warn("anchors: something", DemurWarning, stacklevel=2)
        return fit_anchors(*given, **named)

    monkeypatch.setattr("demur.experiment.fit.fit_anchors", warning)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        share(tmp_path, config, config.subjects[0], "guard", 98, 99)
    assert fitted == 1


def test_answers_for_guards_that_a_changed_recipe_does_not_need_are_removed_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(QUICK)
    config = read(tmp_path / "r.yaml")
    with monkeypatch.context() as patched:
        patched.setattr("demur.experiment.fit.fit_anchors", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, tmp_path / "run")
    n = len(list((tmp_path / "run").rglob("*.unfinished/*/*/*.safetensors")))
    assert n == 2 * 16
    assert collect(tmp_path / "run", config) == [], "the same run goes on with them"
    other = replace(config, prompts=replace(config.prompts, anchors=12))
    assert len(collect(tmp_path / "run", other)) == n
    assert not list((tmp_path / "run" / "prepared").rglob("*.safetensors"))


def test_answers_of_a_guard_that_is_made_are_left_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may be killed when its guard is saved, and the answers are not yet removed."""
    (tmp_path / "r.yaml").write_text(QUICK)
    config = read(tmp_path / "r.yaml")
    with monkeypatch.context() as patched:
        patched.setattr("demur.experiment.fit.shutil.rmtree", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, tmp_path / "run")
    left = {*(tmp_path / "run").rglob("*.unfinished/*/*/*.safetensors")}
    assert len(left) == WANTED
    assert {*superfluous(tmp_path / "run", config)} == left
    evaluate(config, tmp_path / "run", resume=True)
    assert len(guards_of(tmp_path / "run")) == 1


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_before_its_guard_is_fitted_goes_on_there(workers: int, tmp_path: Path) -> None:
    """Two models, so that two workers are at work; the log tells how many answers there are."""
    both = RECIPE.replace("[organism/ar]", "[organism/ar, organism/diffusion]")
    (tmp_path / "r.yaml").write_text(both.replace("n: 12", "n: 2").replace("controls: 4", "controls: 1"))
    command = [sys.executable, "-m", "demur", "evaluate", "r.yaml", "--workers", str(workers)]
    run, kills = tmp_path / "mine" / "stopped", 0

    def there() -> int:
        walked = os.walk(run / "prepared")
        return sum(name.endswith(".safetensors") for at, _, names in walked if ".unfinished" in at for name in names)

    for upto in (20, 40, 10**9):
        more = ["--out", "mine", *(["--resume"] if (run / "manifest.json").is_file() else [])]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*command, *more], cwd=tmp_path, start_new_session=True, **quiet) as process:
            while process.poll() is None and there() < upto:
                time.sleep(0.02)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
    assert kills
    assert process.returncode == 0
    whole = subprocess.run([*command, "--out", "whole"], cwd=tmp_path, capture_output=True, timeout=900, check=False)
    assert whole.returncode == 0, whole.stderr
    assert sorted(guards_of(run)) == sorted(guards_of(tmp_path / "whole" / "stopped"))
    lines = (run / FILE).read_text().splitlines()
    told = [
        int(found[1]) for line in lines if (found := re.search(rf"anchors and guards: (\d+) of {2 * WANTED}", line))
    ]
    assert told[0] == 0
    assert any(0 < n < 2 * WANTED for n in told), "a run that goes on says what it has"
    assert told[-1] == 2 * WANTED


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
