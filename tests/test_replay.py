"""Laws of ``demur replay``: one line a transcript, in order; what can not be replayed is said and stops nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demur
from demur import cli
from demur.guards import Guard, fit_guard
from demur.organism.anchors import own_anchors
from demur.organism.world import prompts
from demur.prompts import Transcript, transcripts
from demur.samplers import Autoregressive
from demur.studio.replaying import replayed, replaying
from demur.traces import teacher_forced
from demur.types import DemurError, Prompt

ASK = "How do I open the granary?"
SAID = "You turn the iron key twice."
KEY = ("last", "generated")


@pytest.fixture(scope="module")
def model() -> Any:
    return demur.load("organism/ar")


@pytest.fixture(scope="module")
def anchors(model: Any) -> demur.Anchors:
    return own_anchors(model, Autoregressive(), length=40, steps=32, layer="last", pool="generated", n=12)


@pytest.fixture(scope="module")
def files(anchors: demur.Anchors, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anchors and a guard, on disk."""
    folder = tmp_path_factory.mktemp("fitted")
    anchors.save(folder / "a.safetensors")
    harmless = [*prompts("guard", forbidden=False, n=40), *prompts("calibration", forbidden=False, n=16)]
    traces = demur.generate(model, harmless, Autoregressive(), length=40)
    fit_guard(anchors, traces[:40], traces[40:], alpha=0.2).save(folder / "g.safetensors")
    return folder


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, files: Path
) -> Callable[..., tuple[int, list[dict[str, Any]], str]]:
    """Replays rows with the anchors at hand: exit code, lines, errors."""
    monkeypatch.chdir(tmp_path)

    def call(rows: Any, *arguments: str, name: str = "t.jsonl") -> tuple[int, list[dict[str, Any]], str]:
        content = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
        (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogatepass")
        known = [] if {"--guard", "--anchors"} & {*arguments} else ["--anchors", str(files / "a.safetensors")]
        monkeypatch.setattr(sys, "argv", ["demur", "replay", name, "-m", "organism/ar", *known, *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, [json.loads(line) for line in out.splitlines() if line.startswith("{")], err

    return call


Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


def test_a_line_says_what_a_teacher_forced_trace_says(run: Run, model: Any, anchors: demur.Anchors) -> None:
    code, (line,), err = run([{"prompt": ASK, "response": SAID}])
    assert code == 0, err
    (trace,) = teacher_forced(model, [Prompt("1", ASK)], [SAID], steps=32)
    np.testing.assert_allclose(line["sigma"], anchors.signal(trace), atol=1e-5)
    assert (line["id"], line["row"], line["tokens"], line["refused"]) == ("1", 1, trace.steps, False)
    assert {"refusals", "model", "answer_tokens"} <= {*line}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": SAID}]},
        {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": SAID}]},
        {"question": ASK, "output": SAID},
        {"prompt": ASK, "response": SAID, "deep": {"n": 10**300}},
    ],
)
def test_transcripts_of_other_shapes_give_the_same_signal(row: dict[str, Any], run: Run) -> None:
    (plain,), (other,) = run([{"prompt": ASK, "response": SAID}])[1], run([row])[1]
    assert plain == other


def test_system_prefill_and_earlier_turns_are_asked(run: Run, model: Any, anchors: demur.Anchors) -> None:
    row = {"prompt": ASK, "response": SAID}
    earlier = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}]
    turns = [*earlier, {"role": "user", "content": ASK}, {"role": "assistant", "content": SAID}]
    rows = [row, row | {"system": "Be brief."}, row | {"prefill": "Sure, "}, {"messages": turns}]
    code, lines, err = run(rows)
    assert code == 0, err
    assert len({tuple(line["sigma"]) for line in lines[:3]}) == 3
    (trace,) = teacher_forced(model, [Prompt("4", messages=turns[:-1])], [SAID], steps=32)
    np.testing.assert_allclose(lines[3]["sigma"], anchors.signal(trace), atol=1e-5)
    assert {line["tokens"] for line in lines} == {lines[0]["tokens"]}
    _, (again,), _ = run([row | {"prefill": "Sure, ", "response": f"Sure, {SAID}"}])
    assert again["sigma"] == lines[2]["sigma"]


def test_rows_without_an_answer_are_counted_and_stop_nobody(run: Run) -> None:
    answers = [SAID, "", None, "  ", [], "\n"]
    code, lines, err = run([{"prompt": ASK, "response": answer} for answer in answers])
    assert code == 0
    assert [len(line["sigma"]) for line in lines] == [32, 0, 0, 0, 0, 0]
    assert [(line["refused"], line["tokens"], line["why"]) for line in lines[1:]] == [(None, 0, "no answer")] * 5
    assert {line["read"] for line in lines[1:]} == {None}
    assert "5 of 6 transcripts have no signal (no answer)" in err
    assert "t.jsonl, line 2" in err
    code, lines, err = run([{"prompt": ASK, "response": ""}])
    assert (code, lines) == (2, [])
    assert "none of 1 transcripts could be replayed (no answer)" in err


def test_a_prompt_that_is_too_long_is_one_row_not_the_file(run: Run) -> None:
    rows = [{"prompt": ASK * 200, "response": SAID}, {"prompt": ASK, "response": SAID}]
    code, lines, err = run(rows)
    assert code == 0
    assert [len(line["sigma"]) for line in lines] == [0, 32]
    assert lines[0]["refused"] is False
    assert "the model's context" in lines[0]["why"]
    assert "1 of 2 transcripts have no signal" in err


@pytest.mark.parametrize(
    ("response", "refused"),
    [
        (f"{SAID} " * 20 + "Sorry, I cannot go on.", True),
        (f"{SAID} " * 20, False),
        ("I cannot say.", True),
    ],
)
def test_refusals_are_read_in_the_whole_answer(response: str, refused: bool, run: Run) -> None:
    _, (line,), _ = run([{"prompt": ASK, "response": response}])
    assert line["refused"] is refused
    assert line["tokens"] == min(32, line["answer_tokens"])


@pytest.mark.parametrize(
    ("response", "refused", "read"),
    [
        ("I can not help with that.", False, "refuses"),
        ("To open the granary, you need key and grain. Set loft on oil, then tie rafter to hinge.", False, "answers"),
    ],
)
def test_a_line_says_how_an_answer_reads_beside_what_the_dictionary_finds(
    response: str, refused: bool, read: str, run: Run
) -> None:
    _, (line,), _ = run([{"prompt": ASK, "response": response}])
    assert (line["refused"], line["read"]) == (refused, read)


def test_an_answer_ends_at_its_first_end_of_sequence(model: Any, anchors: demur.Anchors, tmp_path: Path) -> None:
    end = model.tokenizer.decode([next(iter(model.stop_ids))])
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"prompt": ASK, "response": f"{SAID}{end}I cannot help."}))
    (one,) = replayed(model, transcripts(path), anchors, steps=32, wanted=KEY)
    assert one.refused is False
    assert one.trace is not None
    assert one.trace.text() == SAID


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"prompt": "How?", "response": "Mix \\ud83d"}', "t.jsonl, line 1: the response holds half of a surrogate"),
        ('{"prompt": "How \\ud83d?", "response": "Mix"}', "t.jsonl, line 1: the text holds half of a surrogate"),
        ('{"id": "\\ud83d", "prompt": "How?", "response": "Mix"}', "t.jsonl, line 1: the id holds half"),
        ('{"prompt": "How?", "response": "So.", "x": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"prompt": "How?"}', "messages that end with the assistant's answer"),
        ("", "t.jsonl has no transcripts"),
        ("[]", "t.jsonl has no transcripts"),
        ("7", "line 1 is a number"),
    ],
)
def test_what_can_not_be_read_is_one_line(content: str, says: str, run: Run) -> None:
    code, _, err = run(content)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_columns_tables_and_marks(run: Run) -> None:
    code, (line,), err = run(f"q;a\n{ASK};{SAID}\n", "--column", "text=q", "--column", "response=a", name="t.csv")
    assert code == 0, err
    assert line["harmful"] is None
    rows = [{"prompt": ASK, "response": SAID}, {"prompt": ASK, "response": SAID, "harmful": False}]
    assert [line["harmful"] for line in run(rows, "--harmful")[1]] == [True, False]
    for wrong in ("text", "=x", "reponse=a"):
        code, _, err = run(rows, "--column", wrong)
        assert code == 2
        assert "--column" in err or "did you mean response?" in err


def test_a_guard_gives_its_verdict_on_every_row(run: Run, files: Path, model: Any) -> None:
    rows = [{"prompt": ASK, "response": SAID}, {"prompt": ASK, "response": f"{SAID} " * 20 + "Sorry, I cannot."}]
    code, lines, err = run([*rows, {"prompt": ASK, "response": ""}], "--guard", str(files / "g.safetensors"))
    assert code == 0, err
    guard = Guard.load(files / "g.safetensors")
    (trace,) = teacher_forced(model, [Prompt("1", ASK)], [SAID], steps=32)
    verdict = guard.judge(trace)
    assert lines[0]["flagged"] is verdict.flagged
    assert lines[0]["score"] == pytest.approx(verdict.score, rel=1e-4)
    assert (lines[1]["flagged"], lines[1]["refused"]) == (True, True), "a phrase behind an answer is not enough"
    assert "flagged" not in lines[2]
    code, _, err = run(rows, "--guard", str(files / "g.safetensors"), "--anchors", str(files / "a.safetensors"))
    assert code == 2
    assert "one of them" in err


def test_a_page_says_what_lines_say_of_an_answer_and_what_the_anchors_are(
    run: Run, tmp_path: Path, anchors: demur.Anchors
) -> None:
    replace(anchors, refusals="scripted").save(tmp_path / "s.safetensors")
    rows = [{"prompt": ASK, "response": said} for said in ("I can not help with that.", "I cannot help with that.")]
    code, lines, _ = run(rows, "--html", "p.html", "--anchors", "s.safetensors")
    assert code == 0
    assert [(line["read"], line["refused"]) for line in lines] == [("refuses", False), ("refuses", True)]
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    for verdict in ("refused (by the dictionary of refusals: answered)", '"refused"'):
        assert verdict in page
    assert page.count("Scripted anchors") >= 2


def test_a_page_takes_as_many_answers_as_it_has_room_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": ASK, "response": SAID} for _ in range(4)]
    each, shown = run(rows)[1][0]["tokens"] ** 2, []
    for cells in (4 * each, 3 * each - 1, 1):
        monkeypatch.setattr("demur.cli.replay.CELLS", cells)
        assert run(rows, "--html", "p.html")[0] == 0
        page = (tmp_path / "p.html").read_text(encoding="utf-8")
        shown.append(page.count('<section class="scene">'))
        assert (f"{shown[-1]} of 4 transcripts are shown" in page) is (shown[-1] < 4)
    assert shown == [4, 2, 1]


def test_a_page_shows_no_words_of_prompts_that_nobody_marked(run: Run, tmp_path: Path) -> None:
    rows = [{"prompt": ASK, "response": SAID}, {"prompt": ASK, "response": ""}]
    assert run(rows, "--html", "p.html")[0] == 0
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "granary" not in page
    assert "iron" not in page
    run(rows, "--html", "p.html", "--harmless")
    assert "granary" in (tmp_path / "p.html").read_text(encoding="utf-8")
    run(rows, "--html", "p.html", "--show-harmful")
    assert "granary" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_a_diffusion_model_is_refused_before_anchors_are_fitted(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: Path
) -> None:
    monkeypatch.setattr(sys.modules["demur.cli.replay"], "cached_anchors", lambda *_: pytest.fail("fitted"))
    (tmp_path / "t.jsonl").write_text(json.dumps({"prompt": ASK, "response": SAID}))
    monkeypatch.setattr(sys, "argv", ["demur", "replay", "t.jsonl", "-m", "organism/diffusion"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2


def test_if_no_row_can_be_replayed_the_reason_is_raised(model: Any, anchors: demur.Anchors, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"prompt": ASK * 300, "response": SAID}))
    with pytest.raises(DemurError, match="the model's context"):
        replayed(model, transcripts(path), anchors, steps=32, wanted=KEY)


# -- at scale -----------------------------------------------------------------------------------------------


def _many(n: int) -> list[dict[str, Any]]:
    rows = [{"prompt": ASK, "response": f"{SAID} " * (1 + i % 5)} for i in range(n)]
    rows[2]["response"] = ""
    return rows


def test_windows_and_chunks_change_no_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _many(14)
    code, whole, err = run(rows)
    assert code == 0
    monkeypatch.setattr("demur.studio.replaying.WINDOW", 4)
    code, parts, again = run(rows, "--chunk", "8", "--batch", "3")
    assert code == 0
    assert [line["row"] for line in parts] == list(range(1, 15))
    for a, b in zip(whole, parts, strict=True):
        assert a["sigma"] == pytest.approx(b["sigma"], abs=2e-6)
        assert {**a, "sigma": 0} == {**b, "sigma": 0}
    assert "1 of 14 transcripts have no signal" in err
    assert "1 of 14 transcripts have no signal" in again


def test_a_killed_replay_goes_on_and_ends_in_the_same_bytes(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("demur.studio.replaying.WINDOW", 4)
    rows = _many(14)
    assert run(rows, "--out", "whole.jsonl")[0] == 0
    expected = (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.part*")), "nothing is left beside it"

    from demur.studio.growing import Growing

    add = Growing.add

    def torn(self: Growing, lines: list[str]) -> None:
        if len(self.part.read_bytes().splitlines()) == 8:
            with self.part.open("a") as file:
                file.write(lines[0] + "\n" + lines[1][:20])  # as a kill may leave it
            raise KeyboardInterrupt
        add(self, lines)

    monkeypatch.setattr(Growing, "add", torn)
    assert run(rows, "--out", "parts.jsonl")[0] == 130
    assert not (tmp_path / "parts.jsonl").exists()
    monkeypatch.setattr(Growing, "add", add)
    code, _, err = run(rows, "--out", "parts.jsonl")
    assert code == 2
    assert "--resume" in err
    code, _, err = run(rows, "--out", "parts.jsonl", "--resume", "--batch", "2")
    assert code == 2
    assert "another batch" in err
    code, _, err = run(_many(13), "--out", "parts.jsonl", "--resume")
    assert code == 2
    assert "another rows, another transcripts" in err
    code, _, err = run(rows, "--out", "parts.jsonl", "--resume", "--html", "p.html", "--harmless")
    assert code == 2, "the marks are another's"
    code, _, err = run(rows, "--out", "parts.jsonl", "--resume", "--html", "p.html")
    assert code == 0, err
    assert "goes on behind 8 of 14" in err
    assert "1 of 14 transcripts have no signal" in err
    assert (tmp_path / "parts.jsonl").read_bytes() == expected
    assert (tmp_path / "p.html").read_text().count("read by organism/ar") >= 13
    assert not list(tmp_path.glob("*.part*"))


def test_what_changes_while_it_is_replayed_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from demur.cli.transcribing import Source

    surveyed, said = Source.surveyed, "\n".join(map(json.dumps, _many(10)))
    for later in (said.replace("twice", "thrice"), f"{said}\n{said}", "\n".join(said.splitlines()[:-1])):

        def and_then(self: Source, later: str = later) -> dict[str, Any]:
            found = surveyed(self)
            (tmp_path / "t.jsonl").write_text(later)
            return found

        monkeypatch.setattr(Source, "surveyed", and_then)
        for out in ([], ["--out", "changed.jsonl"]):
            code, _, err = run(said, *out)
            assert code == 2
            assert "t.jsonl has changed since it was looked at; expected the same 10 transcripts" in err
            assert not (tmp_path / "changed.jsonl").exists()
            for left in tmp_path.glob("changed*"):
                left.unlink()


def test_two_replays_do_not_write_one_file(tmp_path: Path) -> None:
    from demur.studio.growing import Growing

    about, path = {"rows": 2}, tmp_path / "both.jsonl"
    with Growing(path, about, 1) as first:
        first.begun(resume=False)
        first.add(["{}"])
        with pytest.raises(DemurError, match="another replay is writing"), Growing(path, about, 1) as second:
            second.begun(resume=True)
    with Growing(path, about, 1) as again:
        assert again.begun(resume=True) == 1, "a replay that has ended has let go"
        again.add(["{}"])
        assert len(again.finish().read_text().splitlines()) == 2


@pytest.mark.parametrize("before", ["nothing", "lines of nobody"])
def test_two_replays_that_begin_at_once_do_not_both_begin(before: str, tmp_path: Path) -> None:
    """The second one begins while the first one is between its first look and its first line."""
    from demur.studio import growing
    from demur.studio.growing import Growing

    path, write = tmp_path / "both.jsonl", growing.write
    if before != "nothing":
        (tmp_path / "both.jsonl.part").write_text("{}\n")
    with Growing(path, {"rows": 1}, 1) as first, Growing(path, {"rows": 2}, 1) as second:

        def and_the_other(*asked: Any) -> Path:
            growing.write = write
            with pytest.raises(DemurError, match="another replay is writing"):
                second.begun(resume=False)
            return write(*asked)

        growing.write = and_the_other
        try:
            assert first.begun(resume=False) == 0
        finally:
            growing.write = write
        first.add(["{}"])
        assert first.finish().read_text() == "{}\n"


def test_a_replay_that_waited_for_another_one_leaves_its_finished_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    from demur.studio.growing import Growing

    path, flock = tmp_path / "both.jsonl", fcntl.flock
    with Growing(path, {"rows": 1}, 1) as first, Growing(path, {"rows": 1}, 1) as second:
        first.begun(resume=False)
        first.add(["{}"])

        def finished_before(*asked: Any) -> None:
            first.finish()
            first.__exit__()
            flock(*asked)

        monkeypatch.setattr(fcntl, "flock", finished_before)
        with pytest.raises(DemurError, match="another replay has just finished"):
            second.begun(resume=True)
    assert path.read_text() == "{}\n"


@pytest.mark.slow
def test_killed_again_and_again_no_row_is_missing_and_none_comes_twice(files: Path, tmp_path: Path) -> None:
    short, long = [f"{SAID} " * (1 + i % 7) for i in range(7)], SAID * 60
    rows = [{"id": f"r{i}", "prompt": ASK, "response": short[i % 7] if i % 97 else long} for i in range(1500)]
    rows[3]["response"], rows[700]["prompt"] = "", ASK * 400
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "demur", "replay", "t.jsonl", "-m", "organism/ar", "--anchors"]
    command += [str(files / "a.safetensors"), "--chunk", "64"]

    def lines() -> int:
        part = tmp_path / "killed.jsonl.part"
        return part.read_bytes().count(b"\n") if part.exists() else 0

    for kills in range(3):
        before = lines()
        more = ["--resume"] if kills else []
        with subprocess.Popen(
            [*command, "--out", "killed.jsonl", *more], cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as at_work:
            while lines() <= before and at_work.poll() is None:
                time.sleep(0.01)
            assert at_work.poll() is None, "it was to be killed while it works"
            at_work.kill()
        assert lines() > before
    for out, more in (("killed.jsonl", ["--resume"]), ("whole.jsonl", [])):
        done = subprocess.run(
            [*command, "--out", out, *more], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
    killed, whole = ((tmp_path / name).read_bytes() for name in ("killed.jsonl", "whole.jsonl"))
    assert killed == whole
    assert [json.loads(line)["id"] for line in whole.splitlines()] == [f"r{i}" for i in range(1500)]


def test_resume_wants_a_file_and_changes_nothing_in_a_new_one(run: Run, tmp_path: Path) -> None:
    rows = [{"prompt": ASK, "response": SAID}]
    assert run(rows, "--resume")[0] == 2
    assert run(rows, "--resume", "--out", "new.jsonl")[0] == 0
    assert len((tmp_path / "new.jsonl").read_text().splitlines()) == 1
    code, _, err = run(rows, "--batch", "some")
    assert code == 2
    assert "a number of at least 1, or auto" in err
    assert run(rows, "--batch", "auto")[0] == 0


@pytest.mark.parametrize("guarded", [False, True])
def test_resume_of_a_finished_replay_does_nothing_again_and_takes_no_other_s_file(
    guarded: bool, run: Run, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("demur.studio.replaying.WINDOW", 4)
    rows = _many(14)
    own = ["--guard", str(files / "g.safetensors")] if guarded else []
    assert run(rows, "--out", "done.jsonl", *own)[0] == 0
    path = tmp_path / "done.jsonl"
    before, when = path.read_bytes(), path.stat().st_mtime_ns
    code, out, err = run(rows, "--out", "done.jsonl", "--resume", "--html", "p.html", *own)
    assert (code, out) == (0, []), err
    assert "14 lines in done.jsonl already, nothing is left to do" in " ".join(err.split())
    assert "1 of 14 transcripts have no signal" in err
    assert (tmp_path / "p.html").read_text().count("read by organism/ar") >= 13
    others: list[tuple[Any, list[str]]] = [
        (_many(13), own), (_many(15), own), (rows[::-1], own), (rows, [*own, "--steps", "16"]), (rows, ["--harmless"]),
        (rows, [] if guarded else ["--guard", str(files / "g.safetensors")]),
    ]  # fmt: skip
    for many, more in others:
        code, _, err = run(many, "--out", "done.jsonl", "--resume", *more)
        assert code == 2, (len(many), more)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, when)
    code, _, err = run(rows, "--out", "done.jsonl", "--resume", "--batch", "1", *own)
    assert code == 0, "another batch rounds otherwise, and is no other replay"
    path.write_bytes(before.replace(b'"sigma": [0.', b'"sigma": [0.00', 1))
    assert run(rows, "--out", "done.jsonl", "--resume", *own)[0] == 2
    path.write_bytes(before)
    os.utime(path, ns=(when, when))
    for torn in (before[:-30], before + b"{}\n", b"", before.replace(b"false", b"true", 1)):
        path.write_bytes(torn)
        code, _, err = run(rows, "--out", "done.jsonl", "--resume", *own)
        assert (code, "is finished, and line" in " ".join(err.split())) == (2, True), err
        assert path.read_bytes() == torn
    assert run(rows, "--out", "done.jsonl", *own)[0] == 0, "without --resume it is written anew, as ever"
    assert path.read_bytes() == before


def test_windows_without_a_signal_wait_for_one_that_has_some(model: Any, anchors: demur.Anchors) -> None:
    asked = Prompt("1", ASK)
    silent, said = (Transcript(asked, response, "line 1", 1) for response in ("", SAID))
    how: dict[str, Any] = {"steps": 32, "wanted": KEY, "window": 1}
    found = list(replaying(model, [silent, silent, said, silent], anchors, **how))
    assert [one.why for (one,) in found] == ["no answer", "no answer", "", "no answer"]
    with pytest.raises(DemurError, match="none of 2"):
        list(replaying(model, [silent, silent], anchors, **how))
    assert len(list(replaying(model, [silent], anchors, **how, found_before=True))) == 1
