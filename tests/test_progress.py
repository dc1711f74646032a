"""Commands tell how far they are: in a log a line a minute, and nothing of work that is done at once."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demur.cli import progress as room
from demur.cli.progress import progress_on
from demur.experiment import phases
from demur.experiment.phases import Phases
from demur.guards import Guard

FIT = ["guard", "fit", "organism/ar", "--n-anchors", "8", "--n-fit", "32", "--n-calibrate", "99", "--n-check", "0"]


def test_short_work_says_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on() as progress:
        progress("answering", 1, 2)
        progress("answering", 2, 2)
    assert capsys.readouterr() == ("", "")


def test_long_work_says_what_it_does_when_patience_is_over_and_then_every_phase(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.05)
    with progress_on("anchors: ") as progress:
        progress("harmless", 0, 4)
        time.sleep(0.2)
        progress("harmless", 4, 4)
        progress("harmful", 0, 3, "loss 0.5")
    out, err = capsys.readouterr()
    first, *others = err.splitlines()
    assert out == ""
    assert first == "anchors: harmless: 0 of 4"
    assert others == ["anchors: harmless: 4 of 4", "anchors: harmful: 0 of 3, loss 0.5"]


def test_a_phase_that_begins_anew_under_its_name_is_told_as_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "EVERY", 0.05)
    heard: list[str] = []
    with Phases(heard.append) as told:
        for done in (0, 4, 0, 1):
            told.progress("generating", done, 4)
        time.sleep(0.2)
    assert heard[:3] == ["generating: 0 of 4", "generating: 4 of 4", "generating: 0 of 4"]
    assert heard[3].startswith("generating: 1 of 4, "), "the new one has a speed"


def test_an_error_stream_that_is_closed_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(room, "PATIENCE", 0.0)
    for stream in (Closed(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_on() as progress:
            progress("answering", 0, 2)
            progress("answering", 2, 2)


def test_quiet_work_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PATIENCE", 0.0)
    with progress_on(quiet=True) as progress:
        progress("answering", 0, 2)
    assert capsys.readouterr() == ("", "")


def test_a_phase_that_goes_on_says_how_fast_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "EVERY", 0.05)
    heard: list[str] = []
    with Phases(heard.append) as told:
        told.progress("training", 100, 300)
        time.sleep(0.02)
        told.progress("training", 200, 300, "loss 1.5")
        time.sleep(0.2)
    assert heard[0] == "training: 100 of 300"
    assert heard[1].startswith("training: 200 of 300, loss 1.5, ")
    assert heard[1].endswith(" left")


@pytest.mark.slow
@pytest.mark.parametrize("command", [FIT, ["anchors", "fit", "organism/ar", "--n", "64"]], ids=["guard", "anchors"])
def test_a_command_in_a_log_tells_how_far_it_is(command: list[str], tmp_path: Path) -> None:
    patient = "from demur.cli import main, progress; progress.PATIENCE = 0.01; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", patient, *command, "--out", "file.safetensors"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " of " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_fit_that_was_killed_goes_on_and_makes_the_same_guard_and_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    """Killed without warning again and again, until one of the calls ends."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    def begun(cache: str, out: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", "demur", *FIT, "--batch", "4", "--out", out]
        return subprocess.Popen(words, cwd=tmp_path, env=env | {"DEMUR_CACHE": str(tmp_path / cache)})

    assert begun("one", "whole.safetensors").wait() == 0
    kills, before = 0, -1
    while True:
        work, unfinished = begun("other", "again.safetensors"), tmp_path / "other" / "unfinished"
        while work.poll() is None:
            answers = len(list(unfinished.rglob("*.safetensors")))
            if answers > max(before, 0) + 60:
                work.kill()
                work.wait()
                kills, before = kills + 1, answers
        if work.returncode == 0:
            break
    assert kills
    assert not list((tmp_path / "one").rglob("*.safetensors")) + list(unfinished.rglob("*.safetensors"))
    whole, again = (Guard.load(tmp_path / f"{name}.safetensors") for name in ("whole", "again"))
    assert again.fitted == whole.fitted
    assert again.threshold.value == pytest.approx(whole.threshold.value, rel=1e-3)
    assert again.prefix.threshold.value == pytest.approx(whole.prefix.threshold.value, rel=1e-3)
