"""A guard against an engine that runs: what is asked, what is said of the answers, and limits that are set anew."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_guards import T, made
from typer.testing import CliRunner

from demur.cli import app
from demur.engines.check import Share, checked, recalibrated
from demur.engines.endpoint import Answered, Served
from demur.guards import Guard
from demur.guards.conformal import Threshold
from demur.guards.drawing import drawn_otherwise
from demur.types import DemurError, Prompt

BAND = np.stack([np.full(T, 0.3), np.full(T, 0.9)])


def guard(**more: Any) -> Guard:
    limit = Threshold(0.5, 0.05, "conformal", 100)
    return replace(made(**more), threshold=limit, band=BAND)


def answered(sigma: float, flagged: bool = False, refused: bool = False, watched: bool = True) -> Answered:
    verdict = {"sigma": [sigma] * 3, "flagged": flagged, "watched": watched, "worst": 1 - sigma, "acted": False}
    return Answered(refused, verdict)


def said(n: int, flagged: int, outside: int) -> Any:
    inside = n - flagged - outside
    ones = [answered(0.6) for _ in range(inside)] + [answered(0.1) for _ in range(outside)]
    return checked(guard(), ones + [answered(0.6, True) for _ in range(flagged)])


@pytest.mark.parametrize(
    ("n", "flagged", "outside", "word"),
    [
        (200, 2, 20, "holds"),
        (200, 60, 20, "stale"),
        (200, 2, 90, "stale"),
        (200, 18, 20, "undecided"),
        (19, 0, 0, "undecided"),
    ],
)
def test_a_guard_holds_is_stale_or_undecided(n: int, flagged: int, outside: int, word: str) -> None:
    found = said(n, flagged, outside)
    assert found.word == word, (found.flagged, found.outside)
    assert found.plain()["flagged"]["n"] == n


def test_a_guard_of_other_weights_is_stale_whatever_its_numbers_say() -> None:
    answers = [answered(0.6) for _ in range(200)]
    spec = guard().spec
    same = {"engine": "vllm", "engine_version": "9", "quantization": "", "kv_dtype": "", "dtype": spec.dtype}
    assert checked(guard(), answers, same | {"weights": spec.weights}).word == "holds"
    for name, its in (("weights", "0" * 16), ("quantization", "bitsandbytes"), ("dtype", "bfloat16")):
        found = checked(guard(), answers, same | {"weights": spec.weights} | {name: its})
        assert found.word == "stale"
        assert found.plain()["other"][0].startswith(f"{name}: ")


def test_intervals_are_exact() -> None:
    assert Share(0, 100, 0.1).interval == (0.0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert Share(0, 0, 0.1).interval == (0.0, 1.0)


@pytest.mark.parametrize("n", [5, 10, 18, 19, 50, 98, 99, 200])
def test_what_a_quantile_lets_through_is_not_counted_as_none_where_calibration_was_small(n: int) -> None:
    few = replace(guard(), threshold=Threshold(0.5, 0.01, "quantile", n))
    rng = np.random.default_rng(n)
    scores = rng.random((4000, n))
    rates = 1 - np.quantile(scores, 0.99, axis=1)  # of scores that are uniform
    found = checked(few, [answered(0.6) for _ in range(40)])
    assert (rates > found.flagged.most).mean() <= 0.035, "at most 2.5%, and chance"
    low, high = np.quantile(scores, [0.05, 0.95], axis=1)
    assert ((low + 1 - high) > found.outside.most).mean() <= 0.035
    assert found.flagged.word != "stale"
    assert found.outside.word != "stale"


@pytest.mark.parametrize("answers", [[], [answered(0.6, refused=True)], [answered(0.6, watched=False)]])
def test_a_shift_of_nothing_is_unknown_and_no_number(answers: list[Answered]) -> None:
    found = checked(guard(), answers)
    assert found.word == "undecided"
    assert json.loads(json.dumps(found.plain(), allow_nan=False))["shift"] is None


def test_a_sigma_that_nobody_knows_is_outside_and_moves_nothing(recwarn: pytest.WarningsRecorder) -> None:
    unknown = Answered(False, {"sigma": [0.6, None], "flagged": True, "watched": True, "worst": None, "acted": False})
    found = checked(guard(), [unknown] * 3)
    assert (found.outside.k, found.flagged.k, found.plain()["shift"]) == (3, 3, None)
    assert checked(guard(), [unknown, answered(0.7)]).shift == pytest.approx(0.1)
    assert not recwarn.list


def test_refusals_and_answers_that_were_not_watched_are_in_no_rate() -> None:
    found = checked(guard(), [answered(0.6), answered(0.1, True, refused=True), answered(0.1, True, watched=False)])
    assert (found.flagged.k, found.flagged.n, found.refused, found.unseen) == (0, 1, 1, 1)
    assert found.shift == pytest.approx(0.0)


@pytest.mark.parametrize(("unseen", "word"), [(0, "holds"), (1, "holds"), (40, "undecided"), (600, "undecided")])
def test_a_guard_that_does_not_watch_many_answers_does_not_hold(unseen: int, word: str) -> None:
    blind = [answered(0.6, watched=False) for _ in range(unseen)]
    found = checked(guard(), [answered(0.6) for _ in range(200)] + blind)
    assert (found.word, found.unseen, found.flagged.n) == (word, unseen, 200)
    assert found.watches is (word == "holds")
    flagged = [answered(0.6, True) for _ in range(60)]
    assert checked(guard(), [answered(0.6) for _ in range(140)] + blind + flagged).word == "stale"


def test_what_is_told_is_json_also_where_no_signal_is_finite() -> None:
    lost = answered(0.6).verdict | {"sigma": [None, None]}
    for answers in ([], [Answered(False, lost)], [Answered(False, lost), answered(0.8)]):
        told = json.dumps(checked(guard(), answers).plain(), allow_nan=False)
        assert json.loads(told)["shift"] == (pytest.approx(0.2) if len(answers) == 2 else None)


@pytest.mark.parametrize("hole", [{"sigma": [0.2, None]}, {"worst": None}])
def test_a_signal_that_is_not_finite_sets_no_limit(hole: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    sides = [[answered(float(x)) for x in rng.uniform(0.1, 0.3, n)] for n in (60, 50)]
    sides[1][7] = Answered(False, sides[1][7].verdict | hole)
    with pytest.raises(DemurError):
        recalibrated(guard(tail=True), *sides, {}, ([], []))


def test_limits_are_set_anew_and_the_guard_is_the_engines() -> None:
    rng = np.random.default_rng(0)
    sides = [[answered(float(x)) for x in rng.uniform(0.1, 0.3, n)] for n in (60, 50)]
    engine = {"engine": "vllm", "engine_version": "1", "quantization": "fp8", "kv_dtype": "", "dtype": "bfloat16",
              "weights": "v", "more": "left out"}  # fmt: skip
    mine = guard(tail=True)
    new = recalibrated(mine, *sides, engine, (["a"], ["b", "c"]))
    assert (new.spec.engine, new.spec.quantization, new.spec.weights) == ("vllm", "fp8", "v")
    assert (new.fitted, new.calibrated, new.threshold.n) == (("a",), ("b", "c"), 50)
    assert new.prefix.detector is mine.prefix.detector
    stops = new.prefix.stops(np.array([one.verdict["sigma"] + [one.verdict["sigma"][-1]] * 2 for one in sides[1]]))
    assert (stops > 0).mean() <= mine.prefix.threshold.alpha + 1e-9
    assert new.tail is not None
    worst = np.array([one.verdict["worst"] for one in sides[1]])
    assert (worst > new.tail.threshold.value).mean() <= 0.1
    with pytest.raises(DemurError, match="to fit on"):
        recalibrated(mine, sides[0][:3], sides[1], engine, ([], []))
    refusing = [answered(0.0) for _ in range(6)]  # few of them, and as far away as a signal can be
    with pytest.raises(DemurError, match="exceed"):
        recalibrated(mine, sides[0], [*sides[1], *refusing], engine, ([], []))


class Fake(BaseHTTPRequestHandler):
    """An engine that answers everything alike."""

    sha256, mode, said = "", "watch", "Ten minutes."
    verdict = answered(0.6).verdict
    asked: list[Any] = []  # noqa: RUF012

    def do_GET(self) -> None:
        if self.path == "/v1/demur":
            self.tell(
                {
                    "engine": {"engine": "vllm", "weights": "w"},
                    "guards": {"g": {"sha256": self.sha256, "mode": self.mode}},
                }
            )
        elif self.path == "/v1/models":
            self.tell({"data": [{"id": "m"}]})
        else:
            self.tell({"verdicts": [self.verdict]})

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.tell({"choices": [{"message": {"content": self.said}}]})

    def tell(self, what: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(what).encode())

    def log_message(self, *what: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Fake.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Fake) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_prompt_is_asked_with_the_guard_and_an_id_of_its_own(url: str) -> None:
    served = Served(f"{url}/v1/")
    for _ in range(2):
        came = served.answer(Prompt("p", "How long?", system="Be brief."), "m", "g", 7, {"temperature": 0.0})
    assert (came.refused, came.verdict["flagged"]) == (False, False)
    first, second = Fake.asked
    assert [turn["role"] for turn in first["messages"]] == ["system", "user"]
    assert (first["max_tokens"], first["vllm_xargs"]["demur"]) == (7, "g")
    assert first["vllm_xargs"]["demur_id"] != second["vllm_xargs"]["demur_id"]


def test_a_refusal_that_the_guard_wrote_counts_as_flagged_and_a_guard_that_acts_is_not_recalibrated(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    path = guard(model="organism/ar").save(tmp_path / "g.safetensors")
    monkeypatch.setattr(Fake, "sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(Fake, "mode", "refuse")
    monkeypatch.setattr(Fake, "said", "I'm sorry, but I cannot help with that.")
    monkeypatch.setattr(Fake, "verdict", answered(0.6).verdict | {"flagged": True, "acted": True})
    done = CliRunner().invoke(app, ["guard", "check", str(path), "--engine", url, "--n", "30", "--json"])
    told = json.loads(done.stdout)
    assert (told["says"], told["flagged"]["k"], told["refused"]) == ("stale", 30, 0)
    monkeypatch.setattr(Fake, "verdict", answered(0.6).verdict)
    came = Served(url).answer(Prompt("p", "How long?"), "m", "g", 7, {"temperature": 0.0})
    assert came.refused, "the model's own refusal"
    with pytest.raises(DemurError, match="the guard g in the mode refuse"):
        Served(url).guard_named(Fake.sha256, watching=True)
    monkeypatch.setattr(Fake, "mode", "watch")
    assert Served(url).guard_named(Fake.sha256, watching=True) == "g"


@pytest.mark.parametrize(
    ("command", "own", "template"),
    [
        ("check", {}, {}),
        ("check", {"temperature": 0.0}, {"enable_thinking": False}),
        ("check", {"temperature": 0.7, "top_p": 0.9, "top_k": None, "cache": True}, {}),
        ("recalibrate", {"top_k": 5}, {"enable_thinking": False}),
    ],
)
def test_answers_are_asked_for_as_the_guards_were_and_not_as_an_engine_does_by_default(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, own: dict[str, Any], template: Any
) -> None:
    import hashlib

    path = guard(model="organism/ar", settings=own, template_args=template).save(tmp_path / "g.safetensors")
    monkeypatch.setattr(Fake, "sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    many = ["--n", "3"] if command == "check" else ["--n-fit", "32", "--n-calibrate", "3", "-o", str(tmp_path / "o")]
    CliRunner().invoke(app, ["guard", command, str(path), "--engine", url, *many])
    assert Fake.asked
    # What vLLM takes from a model's generation_config.json, where the request does not say it.
    vllms = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
             "presence_penalty": 1, "frequency_penalty": 1}  # fmt: skip
    for one in Fake.asked:
        assert one.get("chat_template_kwargs", {}) == template
        drawn = vllms | {name: value for name, value in one.items() if name in vllms}
        assert drawn["temperature"] == own.get("temperature", 0.0)
        assert drawn_otherwise(own, drawn) == ""
        assert drawn_otherwise(own | {"temperature": 1}, drawn | {"temperature": 1}) == ""


def test_what_goes_wrong_is_one_line(url: str) -> None:
    for bad in ("file:///etc/passwd", "localhost:8000"):
        with pytest.raises(DemurError):
            Served(bad)
    with pytest.raises(DemurError, match="an engine that answers"):
        Served("http://127.0.0.1:9").status()
    with pytest.raises(DemurError, match="this file"):
        Served(url).guard_named("other")


@pytest.mark.parametrize(("verdicts", "content"), [([], "a"), ([{}, {}], "a"), ([{}], "a"), (None, "a")])
def test_an_answer_without_its_one_verdict_is_one_line_and_no_answer(
    url: str, monkeypatch: pytest.MonkeyPatch, verdicts: Any, content: str
) -> None:
    monkeypatch.setattr(Fake, "said", content)
    tell = Fake.tell
    monkeypatch.setattr(
        Fake, "tell", lambda self, what: tell(self, {"verdicts": verdicts} if "verdicts" in what else what)
    )
    with pytest.raises(DemurError, match="another number of verdicts"):
        Served(url).answer(Prompt("p", "How long?"), "m", "g", 7, {"temperature": 0.0})


def test_the_command_says_what_the_guard_is_worth_there(url: str, tmp_path: Path) -> None:
    import hashlib

    path = guard(model="organism/ar").save(tmp_path / "g.safetensors")
    Fake.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    done = CliRunner().invoke(app, ["guard", "check", str(path), "--engine", url, "--n", "60", "--json"])
    told = json.loads(done.stdout)
    assert (told["says"], told["flagged"]["k"], told["flagged"]["n"]) == ("holds", 0, 60)
    assert done.exit_code == 0
    assert len({one["messages"][-1]["content"] for one in Fake.asked}) == 60
    shown = CliRunner().invoke(app, ["guard", "check", str(path), "--engine", url, "--n", "30"])
    assert shown.stdout.startswith("undecided")
    assert shown.exit_code == 3
