"""docs/serving.md: its first screen is run; and the command behind it, without a port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")

import served
from served import House, serving

from demur import cli
from demur.serving import Service, Terms
from demur.serving.keys import hash_of
from demur.serving.telemetry import attributes, events

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """The server of the page, under a name that the page gives it."""
    with serving(guard=served.flagging_at(99), served="organism/ar") as one:
        yield one


def test_the_pages_python_runs(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai", reason="the extra judges")
    (code,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code.replace(":8000/", f":{house.port}/"), "docs/serving.md", "exec"), {"__name__": "__main__"})
    assert "'flagged'" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_pages_curls_run(house: House) -> None:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    curls = [line for line in lines if line.startswith("curl ")]
    assert len(curls) == 2
    at_once, stream = (
        subprocess.run(
            ["bash", "-c", line.replace(":8000/", f":{house.port}/")], capture_output=True, check=True
        ).stdout
        for line in curls
    )
    assert json.loads(at_once)["demur"]["mode"] == "held back"
    assert any("canvas" in event.get("demur", {}) for event in served.events(stream))


def test_every_field_of_the_object_is_on_the_page(house: House) -> None:
    for name in house.chat()[1]["demur"]:
        assert f"`{name}" in PAGE or f"{name}`" in PAGE, name


# -- the command ----------------------------------------------------------------------------------------------------


def demur(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["demur", "serve", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0), *capsys.readouterr()


def test_a_new_key_and_its_line_belong_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = demur(monkeypatch, capsys, "--new-key")
    key, line = (row.rpartition(" ")[2] for row in out.splitlines())
    assert code == 0
    assert hash_of(key) == line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a model"),
        (["organism/ar", "--host", "0.0.0.0"], "without API keys"),
        (["organism/ar", "--api-keys", "missing"], "no keys in missing"),
        (["organism/ar", "--show-harmful"], "--log-texts"),
        (["organism/ar", "--guard", "missing.safetensors"], "missing.safetensors"),
        (["organism/ar", "--length", "4096"], "at most 2048"),
        (["organism/ar", "--sampler", "random"], "expected ar"),
    ],
)
def test_what_can_not_be_served_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    code, _, err = demur(monkeypatch, capsys, *words)
    assert code == 2
    assert said in err.splitlines()[-1]


def test_the_command_hands_on_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import demur.serving

    ran: list[tuple[Service, Any]] = []
    monkeypatch.setattr(demur.serving, "serve", lambda service, address, ready: ran.append((service, address)))
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    keys = tmp_path / "keys"
    keys.write_text(hash_of("x"))
    words = [
        "organism/ar",
        "--host",
        "::",
        "--api-keys",
        str(keys),
        "--allowed-host",
        "a.example",
        "--temperature",
        "0.5",
    ]
    words += ["--rows", "2", "--name", "other", "--length", "9", "--log-texts", "--port", "0"]
    code, _, err = demur_(monkeypatch, capsys, *words)
    assert code == 0, err
    ((service, address),) = ran
    assert (service.terms.served, service.terms.limits.rows, service.orders.length) == ("other", 2, 9)
    assert service.names == {"localhost", "127.0.0.1", "[::1]", "a.example"}
    assert service.tells == "verdict", "others reach it"
    assert service.orders.plain.temperature == 0.5  # type: ignore[attr-defined]
    assert (service.log.words, address.host, len(service.keys.hashes)) == ("redacted", "::", 1)


@pytest.mark.parametrize(("said", "hold"), [((), 1), (("--hold-back", "3"), 3), (("--hold-back", "0"), 0)])
def test_the_command_hands_on_how_the_guard_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, said: Any, hold: int
) -> None:
    import demur.serving

    ran: list[Service] = []
    monkeypatch.setattr(demur.serving, "serve", lambda service, address, ready: ran.append(service))
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    monkeypatch.setattr("demur.cli.serve.load_model", lambda *_, **__: served.model())
    path = served.guard().save(tmp_path / "guard.safetensors")
    code, _, err = demur_(monkeypatch, capsys, "m", "--guard", str(path), "--tell", "verdict", "--port", "0", *said)
    assert code == 0, err
    assert [(one.hold, one.tells) for one in ran] == [(hold, "verdict")]


@pytest.mark.parametrize(
    ("tell", "host", "names", "told"),
    [
        (None, "127.0.0.1", [], "signal"),
        (None, "::1", ["localhost", "[::1]"], "signal"),
        (None, "127.0.0.1", ["models.example.org"], "verdict"),
        (None, "localhost", ["LOCALHOST", "192.168.1.2"], "verdict"),
        (None, "0.0.0.0", [], "verdict"),
        ("signal", "127.0.0.1", ["models.example.org"], "signal"),
        ("verdict", "127.0.0.1", [], "verdict"),
    ],
)
def test_who_can_be_reached_by_others_tells_no_numbers_unless_it_is_said(
    tell: str | None, host: str, names: list[str], told: str
) -> None:
    from demur.cli.serve import Tell, tells_of
    from demur.serving import Address

    assert tells_of(None if tell is None else Tell(tell), Address(host), names) == told


@pytest.mark.parametrize("name", ["tiny/ar", "tiny/diffusion"])
@pytest.mark.parametrize(("steps", "code"), [(None, 0), (served.T, 0), (served.T + 1, 2), (32, 2)])
def test_a_guard_has_steps_of_its_own_and_others_are_no_option(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    steps: Any,
    code: int,
) -> None:
    import demur.serving

    ran: list[Service] = []
    monkeypatch.setattr(demur.serving, "serve", lambda service, address, ready: ran.append(service))
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    monkeypatch.setattr("demur.cli.serve.load_model", lambda *_, **__: served.model(name))
    path = served.guard(name).save(tmp_path / "guard.safetensors")
    said = [] if steps is None else ["--steps", str(steps)]
    found, _, err = demur_(monkeypatch, capsys, "m", "--guard", str(path), "--port", "0", *said)
    assert found == code, err
    if code:
        assert f"expected {served.T}, the guard's" in err
    else:
        ((of,),) = ([one.orders for one in ran],)
        assert (of.terms.steps, of.named) == (served.T, of.model.preferred), "a sampler of so many steps has its name"


demur_ = demur


def test_a_guard_of_another_model_or_length_is_refused_at_the_start() -> None:
    from demur.types import DemurError

    with pytest.raises(DemurError, match="cache of keys"):
        Service(Terms(served.model("tiny/diffusion"), "m", served.guard("tiny/ar")))
    with pytest.raises(DemurError, match="the guard's"):
        Service(Terms(served.model("tiny/diffusion"), "m", served.guard("tiny/diffusion"), length=9))


# -- telemetry ------------------------------------------------------------------------------------------------------


def test_a_verdict_is_an_event_without_words(house: House) -> None:
    emitted: list[Any] = []
    logs = SimpleNamespace(
        get_logger=lambda name: SimpleNamespace(emit=emitted.append),
        LogRecord=lambda **fields: SimpleNamespace(**fields),
    )
    told: list[Any] = []
    tell = events(logs)
    house.service.also = lambda order, answer: (told.append((order, answer)), tell(order, answer))
    body = house.chat("a secret wish")[1]
    house.service.also = None
    (record,), ((order, answer),) = emitted, told
    assert record.event_name == "gen_ai.evaluation.result"
    assert record.attributes == attributes(order, answer)
    assert record.attributes["gen_ai.response.id"] == body["id"]
    flagged = body["demur"]["verdict"]["flagged"]
    assert record.attributes["gen_ai.evaluation.score.label"] == ("flagged" if flagged else "let_pass")
    assert "secret" not in str(record)


def test_opentelemetry_takes_the_event(house: House) -> None:
    pytest.importorskip("opentelemetry._logs", reason="the extra telemetry")
    tell = events()
    house.service.also = tell
    assert house.chat()[0] == 200
    house.service.also = None
