"""No command writes over a file that somebody would miss, and errors of options say what came."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from demur import artefact, cli
from demur.cli.places import check_writable
from demur.types import DemurError

Run = Callable[..., tuple[int, str]]

KINDS = ("anchors", "guard", "trace")
PAGE = "<!doctype html>\n<title>mine</title>\n"
TALK = json.dumps({"prompt": "How do I bake?", "response": "Mix flour and water."}) + "\n"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs ``demur`` in a folder with a file of each sort: exit code and errors."""
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        artefact.save(f"{kind}.safetensors", kind, {"x": np.zeros(2, np.float32)}, {"of": kind})
    save_file({"x": np.zeros(2, np.float32)}, "model.safetensors", {"format": "pt"})
    Path("model.bin").write_bytes(b"GGUF")
    Path("page.html").write_text(PAGE)
    Path("page-of-another-name").write_text(PAGE)
    Path("talks.jsonl").write_text(TALK)
    Path("linked.jsonl").symlink_to("talks.jsonl")

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["demur", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, capsys.readouterr().err

    return call


WATCH, AR = ("watch", "How are you?", "--harmless"), ("-m", "organism/ar")
LOST: list[tuple[str, ...]] = [
    # what the command reads
    ("replay", "talks.jsonl", *AR, "-o", "talks.jsonl"),
    ("replay", "talks.jsonl", *AR, "-o", "linked.jsonl"),
    ("replay", "linked.jsonl", *AR, "-o", "./talks.jsonl"),
    (*WATCH, *AR, "--guard", "guard.safetensors", "-o", "guard.safetensors"),
    (*WATCH, *AR, "--anchors", "anchors.safetensors", "--save", "anchors.safetensors"),
    ("watch", "talks.jsonl", *AR, "-o", "talks.jsonl"),
    ("anchors", "fit", "organism/ar", "--harmless", "talks.jsonl", "-o", "talks.jsonl"),
    ("guard", "fit", "organism/ar", "--anchors", "anchors.safetensors", "-o", "anchors.safetensors"),
    ("guard", "recalibrate", "guard.safetensors", "--engine", "http://localhost:9", "-o", "guard.safetensors"),
    (*WATCH, "-m", "model.bin", "--save", "model.bin"),
    ("replay", "talks.jsonl", "-m", "model.bin", "-o", "model.bin"),
    # two outputs in one place
    (*WATCH, *AR, "-o", "new.html", "--save", "new.html"),
    (*WATCH, *AR, "-o", "new", "--save", "./new"),
    ("replay", "talks.jsonl", *AR, "-o", "new", "--html", "new"),
    ("demo", "-o", "new.html", "--real", "new.html"),
    # a file of another sort
    (*WATCH, *AR, "-o", "trace.safetensors"),
    (*WATCH, *AR, "--save", "guard.safetensors"),
    (*WATCH, *AR, "--save", "page.html"),
    ("demo", "-o", "guard.safetensors"),
    ("anchors", "fit", "organism/ar", "-o", "guard.safetensors"),
    ("guard", "fit", "organism/ar", "-o", "anchors.safetensors"),
    ("guard", "fit", "organism/ar", "-o", "page-of-another-name"),
    ("replay", "talks.jsonl", *AR, "-o", "page-of-another-name"),
    ("replay", "talks.jsonl", *AR, "--html", "guard.safetensors"),
    ("organism", "world", "-o", "page.html"),
    (*WATCH, *AR, "--save", "model.safetensors"),
    ("guard", "fit", "organism/ar", "-o", "model.safetensors"),
    # a name that says something else
    (*WATCH, *AR, "-o", "new.pdf"),
    ("replay", "talks.jsonl", *AR, "-o", "new.csv"),
    ("guard", "fit", "organism/ar", "-o", "new.json"),
]


@pytest.mark.parametrize("arguments", LOST, ids=" ".join)
def test_no_file_is_lost_by_a_command_that_writes_there(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, told = run(*arguments)
    assert code == 2
    assert told.count("\n") == 1, told
    assert told.startswith("demur: ")
    assert "expected" in told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_of_its_own_sort_is_replaced_and_so_is_a_broken_one(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run is not None
    check_writable(Path("page.html"), Path("page-of-another-name"), Path("new.htm"), Path("new.xyz"), sort="page")
    for kind in KINDS:
        check_writable(Path(f"{kind}.safetensors"), Path("new.safetensors"), Path("new"), sort=kind)  # type: ignore[arg-type]
    check_writable(Path("talks.jsonl"), sort="lines", beside=["new.jsonl", None, "How do I bake?", "x" * 5000, "a\0b"])
    told = capsys.readouterr().err.splitlines()  # what takes long to fit is not lost without a word
    assert [line.split()[1] for line in told] == ["anchors.safetensors", "guard.safetensors"]
    assert all(line.startswith("note: ") and "replaces" in line for line in told)
    Path("guard.safetensors").write_bytes(Path("guard.safetensors").read_bytes()[:40])
    check_writable(Path("guard.safetensors"), sort="guard")  # as the error about a broken guard advises
    with pytest.raises(DemurError, match="holds anchors, and would be lost"):
        check_writable(Path("anchors.safetensors"), sort="guard")


@pytest.mark.parametrize(
    ("arguments", "came", "expected"),
    [
        (("watch", "hi", "--steps", "0"), "0", "1"),
        (("watch", "hi", "--steps", "three"), "three", ""),
        (("watch", "hi", "--temperature", "warm"), "warm", ""),
        (("watch", "hi", "--temperature", "-2"), "-2", "0"),
        (("watch", "hi", "--pool", "everything"), "everything", "producing"),
        (("demo", "--n", "3"), "3", "8"),
        (("serve", "organism/ar", "--port", "99999"), "99999", "65535"),
        (("bench", "organism/ar", "--batch", "0"), "0", "1"),
        (("organism", "world", "--split", "tset"), "tset", "test"),
    ],
)
def test_an_option_of_a_wrong_value_says_what_came_and_what_was_expected(
    run: Run, arguments: tuple[str, ...], came: str, expected: str
) -> None:
    code, told = run(*arguments)
    assert code == 2
    assert arguments[-2] in told
    assert came in told.replace(arguments[-2], "")
    assert expected in told
    assert "Input should" not in told
    assert "Value error" not in told
    assert told.rstrip().endswith("--help")


FOLDERS: list[tuple[str, ...]] = [
    ("organism", "train", "-o", "guard.safetensors"),
    ("organism", "card", "-o", "guard.safetensors"),
    ("organism", "card", "--other", "nowhere.json"),
    ("organism", "card", "--other", "page.html"),
    ("organism", "card", "--other", "talks.jsonl"),
    ("evaluate", "tiny.yaml", "--out", "guard.safetensors"),
    ("report", "run", "--out", "guard.safetensors"),
    ("ablate", "organism/ar", "--attacked", "talks.jsonl", "--out", "guard.safetensors"),
]


@pytest.mark.parametrize("arguments", FOLDERS, ids=" ".join)
def test_a_folder_that_can_not_be_is_said_before_anything_is_computed(
    run: Run, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = "name: tiny\nmodels: organism/ar\nprompts: {harmful: organism, harmless: organism, n: 2, controls: 2}\n"
    Path("tiny.yaml").write_text(tiny)
    monkeypatch.setattr("demur.cli.organism.progress_on", None)  # whoever gets so far has begun
    code, told = run(*arguments)
    assert (code, told.count("\n")) == (2, 1), told
    assert "expected" in told


@pytest.mark.parametrize("option", ["guard", "anchors"])
def test_a_signal_is_not_wanted_and_unwanted(run: Run, option: str) -> None:
    code, told = run(*WATCH, *AR, "--no-signal", f"--{option}", f"{option}.safetensors")
    assert (code, told.count("\n")) == (2, 1)
    assert f"--no-signal with --{option}" in told


def test_an_answer_has_room_before_a_guard_generates_anything(run: Run) -> None:
    code, told = run("guard", "fit", "organism/ar", "--upto", "5000", "-o", "new.safetensors")
    assert (code, told.count("\n")) == (2, 1), told
    assert "5000" in told
    assert "--upto" in told


def test_a_slip_in_the_name_of_a_built_in_model_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.models.locate.takes_connection", lambda *_: False)
    code, told = run("watch", "How are you?", "-m", "organism/difusion")
    assert code == 2
    assert "did you mean the built-in organism/diffusion?" in told
