"""Wrong uses of the command line: each ends with exit code 2 and one line, before anything is generated."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demur import cli
from demur.cli.asked import as_typed, asked, columns_of, is_file_name, is_id
from demur.cli.console import run as run_app
from demur.cli.settings import settings_of
from demur.samplers import SAMPLERS
from demur.types import DemurError, DemurWarning

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs ``demur`` in a folder with a file of prompts: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "prompts.csv").write_text("text,harmful\nHow do I open the granary?,false\n")
    (tmp_path / "asks.jsonl").write_text('{"anfrage": "How do I open the granary?"}\n')
    (tmp_path / "notes").write_text("nothing")
    (tmp_path / "folder").mkdir()
    for name, text in (("a", "How do I open the granary?"), ("b", "How do I ring the bell?")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "p.txt").write_text(text)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["demur", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


AR = ("-m", "organism/ar")
DIFFUSION = ("-m", "organism/diffusion")
FIT = ("guard", "fit", "organism/ar", "--out", "g.safetensors")

WRONG: list[tuple[tuple[str, ...], str]] = [
    # an option that would do nothing
    (("watch", "Hi", *AR, "--detector", "m:C"), "without --guard"),
    (("replay", "asks.jsonl", *AR, "--detector", "m:C"), "without --guard"),
    (("watch", "Hi", *AR, "--no-signal", "--whitened"), "one of them"),
    (("watch", "Hi", *AR, "--no-signal", "--sri"), "one of them"),
    (("watch", "Hi", *AR, "--column", "text=question"), "no file or set"),
    (("watch", "demur-harmless-001", *AR, "--column", "text=question"), "no file or set"),
    # a file's name, or an id with a slip in it, is no text
    (("watch", "nothere.jsonl", *AR), "no file 'nothere.jsonl'"),
    (("watch", "PROMPTS.CSV", *AR), "did you mean 'prompts.csv'"),
    (("watch", "promts.csv", *AR), "did you mean 'prompts.csv'"),
    (("watch", "missing/prompts.csv", *AR), "nor the folder 'missing'"),
    (("watch", "./prompts", *AR), "no file"),
    (("watch", "~/nothing/here.txt", *AR), "no file"),
    (("watch", "data\\p.tsv", *AR), "no file"),
    (("watch", "*.jsonl.gz", *AR), "no file matches"),
    (("watch", "folder", *AR), "is a folder"),
    (("watch", "notes", *AR), "--text"),
    (("watch", "https://example.org/p.csv", *AR), "no file"),
    (("watch", "./my prompts.csv", *AR), "no file"),
    (("watch", "demur-harmles-002", *AR), "did you mean demur-harmless-002"),
    (("watch", "demur-harmless-999", *AR), "no prompt has the id"),
    (("watch", "organism-test-forbiden-0001", *AR), "did you mean organism-test-forbidden-0001"),
    (("watch", "Organism-Test-Forbidden-0001", *AR), "did you mean organism-test-forbidden-0001"),
    (("watch", "organism-test-forbidden-1", *AR), "no prompt has the id"),
    # prompts
    (("watch", *AR), "nothing to ask"),
    (("watch", "", *AR), "is empty"),
    (("watch", " \t ", *AR), "is empty"),
    (("watch", "--text", "", *AR), "is empty"),
    (("watch", "caf\udce9 open?", *AR), "not UTF-8"),
    (("watch", "-5 + 3 = ?", *AR), "--text="),
    (("watch", "Hi", "How are you?", "--save", "t.safetensors", *AR), "one prompt"),
    (("watch", "prompts.csv", "--column", "txt=question", *AR), "did you mean text=question"),
    (("watch", "prompts.csv", "--column", "question", *AR), "FIELD=COLUMN"),
    (("watch", "asks.jsonl", *AR), "anfrage"),
    # numbers and settings
    (("watch", "Hi", "--seed", "-1", *AR), "--seed"),
    (("watch", "Hi", "--seed", "99999999999999999999", *AR), "--seed"),
    (("watch", "Hi", "--seed", "1.5", *AR), "--seed"),
    (("watch", "Hi", "--temperature", "nan", *AR), "--temperature"),
    (("watch", "Hi", "--temperature", "inf", *AR), "--temperature"),
    (("watch", "Hi", "--temperature", "-1", *AR), "--temperature"),
    (("watch", "Hi", "--steps", "0", *AR), "--steps"),
    (("watch", "Hi", "--length", "0", *AR), "--length"),
    (("watch", "Hi", "--length", "5000", *AR), "256"),
    (("watch", "Hi", "--layer", "99", *AR), "1 to 4"),
    (("watch", "Hi", "--layer", "lust", *AR), "first, middle, last"),
    (("watch", "Hi", "--pool", "generatd", *AR), "generated"),
    (("watch", "Hi", "--set", "top_p=0", *AR), "top_p"),
    (("watch", "Hi", "--set", "top_p=much", *AR), "a finite number or none"),
    (("watch", "Hi", "--set", "top_k=NaN", *AR), "a whole number or none"),
    (("watch", "Hi", "--set", "top_k=99999999999999999999", *AR), "a whole number or none"),
    (("watch", "Hi", "--set", "cache=perhaps", *AR), "true or false"),
    (("watch", "Hi", "--set", "top_q=1", *AR), "did you mean top_"),
    (("watch", "Hi", "--set", "top_k", *AR), "KEY=VALUE"),
    (("watch", "Hi", "--set", "block_length=abc", *DIFFUSION), "a whole number or none"),
    (("watch", "Hi", "--set", "block_length=0", *DIFFUSION), "block_length"),
    (("watch", "Hi", "--set", "remasking=coin", *DIFFUSION), "one of low_confidence"),
    (("watch", "Hi", "--set", "suppress=a,b", *DIFFUSION), "whole numbers"),
    (("watch", "Hi", "--set", "revise=Infinity", *DIFFUSION), "a finite number"),
    (("watch", "Hi", "--sampler", "low-confidense", *DIFFUSION), "low-confidence"),
    (("watch", "Hi", "--sampler", "sdar", *DIFFUSION), "name one of these"),
    # places
    (("watch", "Hi", "--save", "folder", *AR), "is a folder"),
    (("watch", "Hi", "--html", "folder", *AR), "is a folder"),
    (("watch", "Hi", "--html", "notes/page.html", *AR), "could not be written"),
    (("watch", "Hi", "--anchors", "prompts.csv", *AR), "prompts.csv"),
    (("watch", "Hi", "--guard", "none.safetensors", *AR), "none.safetensors"),
    (("watch", "Hi", "-m", "./models/nothing"), "demur models"),
    (("watch", "Hi", "-m", ""), "demur models"),
    (("watch", "Hi", "--template-arg", "thinking", *AR), "KEY=VALUE"),
    # guards, anchors, comparisons
    ((*FIT, "--alpha", "0"), "between 0 and 1"),
    ((*FIT, "--alpha", "1"), "between 0 and 1"),
    ((*FIT, "--alpha", "nan"), "between 0 and 1"),
    ((*FIT, "--n-fit", "8"), "at least 32"),
    ((*FIT, "--n-calibrate", "24"), "at least 99"),
    ((*FIT[:3], "--out", "folder"), "is a folder"),
    ((*FIT, "--harmless", "promts.csv"), "promts.csv"),
    (("guard", "run", "none.safetensors", "Hi"), "none.safetensors"),
    (("guard", "run", "none.safetensors", "promts.csv"), "did you mean"),
    (("guard", "show", "folder"), "folder"),
    (("anchors", "fit", "organism/ar", "--n", "0"), "--n"),
    (("anchors", "fit", "organism/ar", "--harmless", "asks.jsonl"), "anfrage"),
    (("ablate", "organism/ar", "--alpha", "0"), "between 0 and 1"),
    (("ablate", "organism/ar"), "--attacked"),
    (("ablate", "--seed", "3"), "without a model"),
    (("ablate", "organism/ar", "--paper", "--n-fit", "100", "--attacked", "asks.jsonl"), "leave --n-fit out"),
    (("recipe", "organsm"), "organism"),
    (("doctor", "--model", "no-such-model"), "demur models"),
    # options of a guard that nobody named, numbers too small, a file for a run's folder, one id of two requests
    (("serve", "organism/ar", "--allow-guard-choice"), "--allow-guard-choice without --guard"),
    (("serve", "organism/ar", "--detector", "last"), "--detector without --guard"),
    (("serve", "organism/ar", "--hold-back", "0"), "--hold-back without --guard"),
    (("serve", "organism/ar", "--tell", "signal"), "--tell without --guard"),
    (("serve", "organism/ar", "--name", " "), "--name without a name"),
    (("anchors", "check", "organism/ar", "--n", "3"), "at least 8 a side"),
    (("report", "prompts.csv"), "no run in prompts.csv"),
    (("runs", "show", "prompts.csv"), "no run in prompts.csv"),
    (("watch", "a/p.txt", "b/p.txt", *AR), "the id 'p-0001' for two requests, in p.txt"),
    (("guard", "run", "none.safetensors", "a/p.txt", "b/p.txt"), "the id 'p-0001' for two requests"),
    (("doctor", "--model", "organism/ar", "--dtype", "int3"), "bfloat16"),
    (("watch", "Hi", "--lenght", "3"), "--length"),
    (("wach", "Hi"), "watch"),
]


@pytest.mark.parametrize(
    ("arguments", "says"), WRONG, ids=[" ".join(a).encode("ascii", "replace").decode() for a, _ in WRONG]
)
def test_a_wrong_use_is_one_line_and_exit_code_2(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments)
    assert code == 2, (out, err)
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("demur: "), err
    assert says in err
    assert "Traceback" not in out + err
    for python, flag in (("columns=", "--column"), ("refusals=", "--refusals"), ("quantize=", "--dtype 4bit")):
        assert python not in err or flag in err, "an error that proposes Python alone"
    assert not re.search(r"pools=\[|limit=|threshold=|seeded\(", err), "Python at the command line"
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"


def test_there_are_forty_wrong_uses_and_more() -> None:
    assert len({arguments for arguments, _ in WRONG}) >= 40


# -- what is a text, a file, an id ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["Hi", "Why?", "How do I open notes.txt?", "and/or", "w/o.", "1/2.5", "What is 2 * 3?", "U.S.A.", "COVID-19?",
     "Summarise data/notes.csv", "[bold]Hi[/nothing] [red", "x" * 5000, "日本語で", "Hi 🙂 é", "TCP/IP", "Node.js"],
)  # fmt: skip
def test_a_text_is_asked_as_it_stands(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (one,) = asked([text])
    assert (one.text, one.harmful) == (text, None)
    assert not is_file_name(text)
    assert not is_id(text)


@pytest.mark.parametrize("text", ["p.csv", "demur-harmles-001", "*.txt", "organism-x", "/etc/nothing", ""])
def test_what_looks_like_a_name_is_asked_behind_text(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not text:
        with pytest.raises(DemurError, match="empty"):
            asked(None, [text])
        return
    with pytest.raises(DemurError, match="--text"):
        asked([text])
    assert [one.text for one in asked(None, [text])] == [text]


def test_files_patterns_ids_and_texts_are_taken_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.CSV").write_text("text,harmful\nOne?,false\nTwo?,\n")
    (tmp_path / "b c.jsonl").write_text('{"text": "Three?", "harmful": true}\n')
    names = [
        "a.CSV",
        "How many?",
        "demur-harmful-001",
        "b c.jsonl",
        "*c.jsonl",
        "organism-test-allowed-0003",
        "Last one?",
    ]
    found = asked(names, harmful=True)
    assert [one.text for one in found[:3]] == ["One?", "Two?", "How many?"]
    assert [one.text for one in found[4:6]] == ["Three?", "Three?"]
    assert [one.harmful for one in found[:3]] == [False, True, True]
    assert [one.id for one in found if one.id.startswith("typed")] == ["typed-1", "typed-2"]
    assert {"demur-harmful-001", "organism-test-allowed-0003"} <= {one.id for one in found}


def test_a_column_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"anfrage": "One?", "no": "x"}\n')
    (one,) = asked([str(path)], columns=columns_of(["text=anfrage", "id=no"]))
    assert (one.text, one.id) == ("One?", "x")


def test_bytes_of_utf8_under_another_locale_are_read_as_meant() -> None:
    pieces = "Hi 🙂 é".encode().decode("ascii", "surrogateescape")
    encoding = sys.getfilesystemencoding()
    assert as_typed(pieces if encoding in ("ascii", "utf-8") else "Hi 🙂 é") == "Hi 🙂 é"
    with pytest.raises(DemurError, match="not UTF-8"):
        as_typed("caf\udce9")


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "item", "value"),
    [
        ("low-confidence", "block_length=8", 8),
        ("low-confidence", "block_length=none", None),
        ("low-confidence", "threshold=0.9", 0.9),
        ("low-confidence", "remasking=margin", "margin"),
        ("low-confidence", "suppress=[1, 2]", (1, 2)),
        ("low-confidence", "late=3", (3,)),
        ("ar", "top_p=1", 1.0),
        ("ar", "cache=False", False),
        ("sdar", "stop=no", False),
        ("renoising", "stability=2", 2),
    ],
)
def test_a_setting_is_read_by_the_type_that_the_sampler_declares(sampler: str, item: str, value: object) -> None:
    made = SAMPLERS[sampler]()
    (found,) = settings_of([item], made, sampler).values()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", ["", "x", "1.5", "true", "[1]", "NaN", "1e400", "9" * 6000, "{", "\u0664x"])
def test_no_value_of_another_type_passes(value: str) -> None:
    with pytest.raises(DemurError, match="--set block_length"):
        settings_of([f"block_length={value}"], SAMPLERS["low-confidence"](), "low-confidence")


# -- consoles ------------------------------------------------------------------------------------------------


PRINTED = (
    (("watch", "日本.csv", *AR), 2),
    (("watch", "Hi 🙂 é [/red]", *AR, "--json"), 0),
    (("watch", "organism-test-forbidden-0000", *AR), 0),
    (("doctor", "--model", "organism/ar"), 0),
)


@pytest.mark.parametrize(("encoding", "commands"), [("ascii", 4), ("cp1252", 3), ("gbk", 3)])
def test_no_console_encoding_is_too_poor(
    run: Run, monkeypatch: pytest.MonkeyPatch, encoding: str, commands: int
) -> None:
    """What a command prints, on a console of that encoding: curves, blocks, quotes, and errors with a name in them."""
    for arguments, code in PRINTED[:commands]:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["demur", *arguments])
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            out.flush()
            err.flush()
        said = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert status == code, err.buffer.getvalue()  # type: ignore[attr-defined]
        if "--json" in arguments:
            assert all(json.loads(line)["step"] for line in said.splitlines())


def test_a_closed_pipe_is_quiet() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run([sys.executable, "-m", "demur", "models"], stdout=gone, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_stopping_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("demur.models.load", stopped)
    code, _, err = run("anchors", "fit", "organism/ar")
    assert code == 130
    assert "stopped" in err
    assert "same command" in err


def test_brackets_are_no_markup(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a[red]b").mkdir()
    code, out, err = run(
        "anchors", "fit", "organism/ar", "--n", "8", "--steps", "8", "--out", "a[red]b/[x].safetensors"
    )
    assert code == 0, err
    assert "a[red]b/[x].safetensors" in out.replace("\n", "")
    code, out, err = run("watch", "--text", "[bold]Hi[/nothing] [red", *AR, "--harmless")
    assert code == 0, err
    assert "[bold]Hi[/nothing] [red" in out


# -- what programs read --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small guard of the organism, fitted by the command."""
    path = tmp_path_factory.mktemp("guard") / "g.safetensors"
    small = ("--n-anchors", "12", "--n-fit", "40", "--n-calibrate", "24", "--n-check", "0", "--steps", "8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["demur", *FIT[:3], "--out", str(path), *small, "--length", "12", "--alpha", "0.1"])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    return path


def test_what_is_shown_is_also_json(run: Run) -> None:
    code, _, err = run("anchors", "fit", "organism/ar", "--n", "8", "--steps", "8", "--out", "a.safetensors")
    assert code == 0, err
    code, out, _ = run("anchors", "show", "a.safetensors", "--json")
    card = json.loads(out)
    assert (code, card["spec"]["model"], card["n_harmful"], len(card["harmful_sigma"])) == (0, "organism/ar", 8, 8)
    code, out, _ = run("models", "--json")
    assert code == 0
    assert {"smollm2", "organism/ar"} <= {row["model"] for row in json.loads(out) if row["family"] == "built in"}
    code, out, _ = run("doctor", "--json")
    states = {row["name"]: row["state"] for row in json.loads(out)}
    assert states["organism/ar"] == states["organism/diffusion"] == "ok"


def test_a_guard_is_fitted_run_on_files_and_hides_what_nobody_has_marked(run: Run, tmp_path: Path, guard: Path) -> None:
    shutil.copy(guard, tmp_path / "g.safetensors")
    code, out, _ = run("guard", "show", "g.safetensors", "--json")
    card = json.loads(out)
    assert (code, card["alpha"], card["n_calibrate"], card["spec"]["model"]) == (0, 0.1, 24, "organism/ar")
    (tmp_path / "more.jsonl").write_text('{"text": "How do I mend the cart?"}\n')
    asks = (
        "guard",
        "run",
        "g.safetensors",
        "prompts.csv",
        "more.jsonl",
        "--text",
        "How do I open the granary?",
        "--json",
    )
    code, out, err = run(*asks)
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["id"] for line in lines] == ["prompts-0001", "more-0001", "typed"]
    hidden = ["█" in line["text"] for line in lines]
    assert hidden == [False, True, True], "only the first one is marked harmless"
    for option in ("--harmless", "--show-harmful"):
        code, out, _ = run(*asks, option)
        assert not any("█" in json.loads(line)["text"] for line in out.splitlines())
    one_by_one = [json.loads(line) for line in run(*asks, "--harmless", "--batch", "1")[1].splitlines()]
    assert one_by_one == [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("demur-harmless-999", True),
        ("organism-test-forbiden-0001", True),
        ("demur-poison-the-wells", False),
        ("how_to_poison_wells_001", False),
        ("poison-wells-harmful-1", False),
    ],
)
def test_what_was_typed_for_an_id_is_not_repeated_if_it_may_be_a_request(run: Run, typed: str, shown: bool) -> None:
    code, _, err = run("watch", typed, *AR)
    assert (code, "no prompt has the id" in err) == (2, True)
    assert (typed in err) is shown
    assert "poison" not in err


HOOK = """
import sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sklearn":
            raise PermissionError("scikit-learn can not even be looked up")
sys.meta_path.insert(0, Closed())
"""


def test_scikit_learn_is_not_even_looked_up_where_signals_are_judged() -> None:
    """Loading a guard and judging with it: the same verdicts to the last bit. Only what runs a network asks
    transformers, which looks for itself.
    """
    file = Path(__file__).parent / "older" / "guard-0.1.0.safetensors"
    code = "import demur, demur.cli, demur.guards, numpy as np\n"
    code += f"guard = demur.guards.Guard.load({str(file)!r})\n"
    code += "sigma = np.random.default_rng(0).random((9, guard.spec.steps))\n"
    code += "said = repr([(v.flagged, v.score) for v in guard.judge_signals(sigma, [True] + 8 * [False])])\n"
    here: dict[str, str] = {}
    exec(code, here)
    code = f"{HOOK}{code}print(said, 'sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == f"{here['said']} False", done.stderr


@pytest.mark.slow
def test_a_guard_judges_without_scikit_learn(run: Run, tmp_path: Path, guard: Path) -> None:
    """As where it is not installed, or of a version whose checks have moved: the same verdicts."""
    shutil.copy(guard, tmp_path / "g.safetensors")
    words = ["guard", "run", "g.safetensors", "How do I open the granary?", "organism-test-forbidden-0002", "--json"]
    expected = run(*words)[1]
    program = "import sys; sys.modules['sklearn'] = None\nfrom demur import cli\n"
    program += f"sys.argv[1:] = {words!r}\ncli.main()\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


@pytest.mark.slow
def test_what_was_generated_for_a_comparison_is_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other anchors cost no generation again but their own; sets have their counts; another split asks what is new."""
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    for side in ("forbidden", "allowed"):
        run("organism", "world", "--split", "anchors", f"--{side}", "--n", "100", "--save", f"{side}.jsonl")
        run("organism", "world", f"--{side}", "--attack", "page", "--n", "24", "--save", f"page-{side}.jsonl")
    lines = (tmp_path / "forbidden.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "others.jsonl").write_text("".join(lines[40:]))
    asks = [
        "ablate",
        "organism/ar",
        "--harmless",
        "allowed.jsonl",
        "--attacked",
        "page-forbidden.jsonl",
        "--seeds",
        "1",
    ]
    asks += [
        "--n-anchors",
        "16",
        "--n-fit",
        "40",
        "--n-calibrate",
        "24",
        "--n-test",
        "12",
        "--length",
        "12",
        "--steps",
        "8",
    ]
    asks += ["--control", "page-allowed.jsonl", "--alpha", "0.1"]
    report = tmp_path / "out" / "ablation" / "ablation.json"
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run(*asks, "--harmful", "forbidden.jsonl")
    assert code == 0, err
    assert "0 of 144 answers were kept before" in " ".join(err.split())
    assert max(map(len, out.splitlines())) <= 80 or "Anchors:" in max(out.splitlines(), key=len)
    first = json.loads(report.read_text())
    counts = first["subjects"][0]["sets"]
    assert (counts["anchors, harmful"]["asked"], counts["fit"]["asked"], counts["plain"]["asked"]) == (16, 40, 12)
    assert f"{counts['anchors, harmful']['refused']} refusals of 16" in out
    code, out, err = run(*asks, "--harmful", "forbidden.jsonl")
    assert "144 of 144" in err
    assert json.loads(report.read_text()) == first, "what was kept is what was generated"
    code, _, err = run(*asks, "--harmful", "others.jsonl")
    assert code == 0, err
    assert "116 of 144" in err
    code, _, err = run(*asks, "--harmful", "forbidden.jsonl", "--seed", "3")
    assert code == 0, err
    reused = re.search(r"(\d+) of 144 answers were kept before", " ".join(err.split()))
    assert reused is not None
    assert int(reused[1]) > 108, "84 of the 92 harmless ones at least, and all 24 of the attack and its control"
    asks[asks.index("--n-fit") + 1] = "400"
    code, _, err = run(*asks, "--harmful", "forbidden.jsonl")
    assert (code, "under --n-anchors, --n-fit" in err) == (2, True)


def test_one_file_serves_both_sides(run: Run, tmp_path: Path) -> None:
    """A CSV with a column of labels is --harmless and --harmful at once."""
    rows = []
    for side, mark in (("allowed", "no"), ("forbidden", "yes")):
        run("organism", "world", "--split", "anchors", f"--{side}", "--n", "10", "--save", f"{side}.jsonl")
        rows += [
            f'"{json.loads(line)["text"]}",{mark}' for line in (tmp_path / f"{side}.jsonl").read_text().splitlines()
        ]
    (tmp_path / "both.csv").write_text("\n".join(["anfrage,harmful", *rows]) + "\n")
    sides = ("--harmless", "both.csv", "--harmful", "both.csv", "--column", "text=anfrage")
    code, out, err = run(
        "anchors", "fit", "organism/ar", *sides, "--n", "10", "--out", "a.safetensors", "--length", "12"
    )
    assert code == 0, err
    code, out, _ = run("anchors", "show", "a.safetensors", "--json")
    assert (json.loads(out)["asked_harmless"], json.loads(out)["asked_harmful"]) == (10, 10)


def test_a_warning_of_demur_is_one_line_and_others_are_pythons() -> None:
    def app(**_: Any) -> int:
        kinds = (DemurWarning, UserWarning)
        said.extend(warnings.formatwarning("a text\n  lost its letters", kind, "asked.py", 7) for kind in kinds)
        return 0

    said: list[str] = []
    before = warnings.formatwarning
    assert run_app(app) == 0
    assert said[0] == "demur: a text lost its letters\n"
    assert said[1] == before("a text\n  lost its letters", UserWarning, "asked.py", 7)
    assert warnings.formatwarning is before
