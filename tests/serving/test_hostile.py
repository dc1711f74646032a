"""Who may come in, and what is made of requests that nobody should send: a status, one line, and nothing else."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")

import served
from served import JSON, House, serving

from demur.serving import Address, Keys, Limits, new_key
from demur.serving.bodies import read
from demur.serving.errors import Refused
from demur.serving.keys import hash_of
from demur.testing.tiny import tiny
from demur.types import DemurError

CHAT = "/v1/chat/completions"
HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A tiny random model: what is asked here is not about answers."""
    with serving(
        tiny("causal"), limits=Limits(rows=16, waiting=64, body=4096, messages=8, body_seconds=2, grace=5)
    ) as one:
        yield one


def raw_chat(house: House, raw: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    status, came, body = house.send("POST", CHAT, raw, JSON if headers is None else headers)
    check_told(status, came, body)
    return status, json.loads(body)


def check_told(status: int, headers: dict[str, str], body: bytes) -> None:
    """What every answer has, whatever was asked."""
    assert status in (200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 503), status
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers
    assert b"Traceback" not in body
    assert b".py" not in body
    if status != 200:
        told = json.loads(body)["error"]
        assert set(told) == {"message", "type", "param", "code"}
        assert "\n" not in told["message"]
        assert len(told["message"]) < 1000


# -- what a body may be ---------------------------------------------------------------------------------------------

BAD: dict[str, bytes] = {
    "nothing": b"",
    "no json": b"{",
    "a list": b"[]",
    "a text": b'"hi"',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "other bytes": b'{"model": "\xff"}',
    "utf-16": json.dumps(GOOD).encode("utf-16"),
    "two keys": b'{"model": "m", "model": "m", "messages": [{"role": "user", "content": "hi"}]}',
    "two keys inside": b'{"model": "m", "messages": [{"role": "system", "role": "user", "content": "hi"}]}',
    "nan": b'{"model": "m", "temperature": NaN}',
    "infinity": b'{"model": "m", "temperature": -Infinity}',
    "1e999": b'{"model": "m", "temperature": 1e999}',
    "many digits": b'{"model": "m", "seed": ' + b"9" * 4000 + b"}",
    "65 bits": b'{"model": "m", "seed": 18446744073709551616}',
    "half a character": json.dumps(GOOD | {"user": "a"}).replace('"a"', '"\\ud800"').encode(),
    "half a character in a key": b'{"model": "m", "\\udfff": 1}',
    "nul": json.dumps(GOOD | {"user": "a\x00"}).encode(),
    "escape": json.dumps(GOOD | {"user": "\x1b[2J"}).encode(),
    "c1": json.dumps(GOOD | {"user": "\x9b2J"}).encode(),
    "deep": b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}",
    "open": b"[" * 3000,
    "trailing": json.dumps(GOOD).encode() + b"{}",
}


@pytest.mark.parametrize("name", BAD)
def test_a_body_that_two_readers_could_read_differently_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        read(BAD[name], Limits())
    assert caught.value.status == 400


WRONG: dict[str, dict[str, Any]] = {
    "n": {"n": 2},
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "tool_choice": {"tool_choice": "auto"},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"top_logprobs": 3},
    "logit_bias": {"logit_bias": {"5": 100}},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "response_format.type": {"response_format": {"type": "json_object"}},
    "temperature": {"temperature": -1},
    "temperature ": {"temperature": 3},
    "top_p": {"top_p": 0},
    "max_tokens": {"max_tokens": 0},
    "max_tokens ": {"max_tokens": 10**9},
    "max_tokens  ": {"max_tokens": "5"},
    "max_tokens   ": {"max_tokens": True},
    "max_tokens    ": {"max_tokens": 5, "max_completion_tokens": 6},
    "seed": {"seed": -1},
    "seed ": {"seed": 1.5},
    "stop": {"stop": ["a"] * 17},
    "stop ": {"stop": ""},
    "stop  ": {"stop": ["x" * 257]},
    "stream": {"stream": "yes"},
    "stream_options": {"stream_options": {"include_usage": True}},
    "messages": {"messages": []},
    "messages ": {"messages": [{"role": "user", "content": "x"}] * 9},
    "messages.0.role": {"messages": [{"role": "tool", "content": "x"}]},
    "messages.0.content": {"messages": [{"role": "user", "content": ""}]},
    "messages.0.content ": {"messages": [{"role": "user", "content": 5}]},
    "messages.0.content.0.type": {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "x"}]}]},
    "messages.0.name": {"messages": [{"role": "user", "content": "x", "name": "a"}]},
    "messages  ": {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]},
    "messages   ": {"messages": [{"role": "system", "content": "x"}]},
    "demur.sampler": {"demur": {"sampler": "os:system"}},
    "demur.sampler ": {"demur": {"sampler": "random"}},
    "demur.settings": {"demur": {"settings": {"temperature": "hot"}}},
    "demur.settings ": {"demur": {"settings": {"__class__": 1}}},
    "demur.settings  ": {"demur": {"settings": {"top_k": 10**6}}},
    "temperature  ": {"temperature": 1, "demur": {"settings": {"temperature": 0.5}}},
    "demur.guard": {"demur": {"guard": True}},
    "demur.canvas": {"demur": {"canvas": True}},
    "demur.trace": {"demur": {"trace": "/etc/passwd"}},
    "suffix": {"suffix": "x"},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_would_change_the_answer_and_is_not_done_is_refused_by_its_name(house: House, name: str) -> None:
    status, body = raw_chat(house, json.dumps(GOOD | WRONG[name]).encode())
    assert status == 400, body
    assert body["error"]["param"] == name.strip()
    assert body["error"]["type"] == "invalid_request_error"
    assert "expected" in body["error"]["message"]


def test_what_changes_nothing_is_taken(house: House) -> None:
    same = {
        "n": 1, "tools": [], "logprobs": False, "logit_bias": None, "frequency_penalty": 0, "presence_penalty": 0.0,
        "response_format": {"type": "text"}, "user": "somebody", "top_p": 1, "temperature": 0, "store": False,
        "stop": None, "service_tier": "auto", "modalities": ["text"], "metadata": None,
    }  # fmt: skip
    status, body = house.post(CHAT, GOOD | same)
    assert status == 200, body
    assert (
        house.post("/v1/completions", {"model": "m", "prompt": "hi", "max_tokens": 1, "best_of": 1, "echo": False})[0]
        == 200
    )


def test_sizes_types_and_times_have_limits(house: House) -> None:
    assert raw_chat(house, b" " * 5000)[0] == 413
    assert raw_chat(house, json.dumps(GOOD).encode(), {"Content-Type": "text/plain"})[0] == 415
    assert raw_chat(house, json.dumps(GOOD).encode(), {})[0] == 415
    assert raw_chat(house, json.dumps(GOOD).encode(), JSON | {"Content-Encoding": "gzip"})[0] == 415
    status, body = raw_chat(house, json.dumps(GOOD | {"model": "other"}).encode())
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    with serving(tiny("causal"), limits=Limits(prompt=16, grace=5)) as small:
        status, body = small.chat("so many words that they take more than sixteen tokens")
        assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    chunks = "Transfer-Encoding: chunked\r\n\r\n" + "400\r\n" + "x" * 1024 + "\r\n"
    assert b" 413 " in talk(house, HEAD + chunks + ("400\r\n" + "x" * 1024 + "\r\n") * 5)
    assert b" 408 " in talk(house, HEAD + "Content-Length: 100\r\n\r\n{")


def talk(house: House, text: str | bytes, wait: float = 10) -> bytes:
    """Bytes on a bare connection, and what came within the time; the first lines alone."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=wait) as client:
        client.sendall(text.encode("latin-1") if isinstance(text, str) else text)
        try:
            return client.recv(1 << 16)
        except (TimeoutError, ConnectionError):
            return b""


# -- hosts, origins, keys -------------------------------------------------------------------------------------------


def test_a_request_that_names_another_host_or_comes_from_another_page_is_turned_away(house: House) -> None:
    raw = json.dumps(GOOD).encode()
    for host in (
        "evil.example",
        f"evil.example:{house.port}",
        "127.0.0.1.evil.example",
        "",
        "localhost@evil",
        "127.0.0.2",
    ):
        assert raw_chat(house, raw, JSON | {"Host": host})[0] == 403, host
    for host in ("localhost", f"LOCALHOST:{house.port}", f"127.0.0.1:{house.port}", "[::1]:80"):
        assert raw_chat(house, raw, JSON | {"Host": host})[0] == 200, host
    here = f"localhost:{house.port}"
    for origin in ("http://evil.example", "null", "", f"http://{here}.evil", "http://localhost:1", "file://"):
        assert raw_chat(house, raw, JSON | {"Host": here, "Origin": origin})[0] == 403, origin
    assert raw_chat(house, raw, JSON | {"Host": here, "Origin": f"http://{here}"})[0] == 200
    assert raw_chat(house, raw, JSON | {"Sec-Fetch-Site": "cross-site"})[0] == 403
    two = "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    assert b" 200 " not in talk(house, two)
    assert house.send("OPTIONS", CHAT, None, {"Host": here})[0] == 405, "no page is told that it may ask"


def test_a_server_that_others_reach_needs_keys_and_names() -> None:
    for host in ("0.0.0.0", "192.0.2.7", "::", "example.org"):
        with pytest.raises(DemurError, match="without API keys"):
            Address(host).check(False)
        Address(host).check(True)
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        Address(host).check(False)
    with serving(tiny("causal"), hosts=("Models.Example",)) as house:
        assert house.send("GET", "/v1/models", None, {"Host": "models.example:8000"})[0] == 200


def test_without_a_key_nothing_is_told_but_whether_the_server_lives(tmp_path: Path) -> None:
    key, other = new_key(), new_key()
    assert len(key) > 40
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{hash_of('x' * 9)}\n{hash_of(key)}  a name\n\n")
    with serving(tiny("causal"), keys=Keys.read(file)) as house:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing", CHAT):
            for said in (
                {},
                {"Authorization": key},
                {"Authorization": f"Bearer {other}"},
                {"Authorization": f"Basic {key}"},
            ):
                status, headers, body = house.send("GET", path, None, said)
                check_told(status, headers, body)
                assert status == 401
                assert headers["www-authenticate"] == "Bearer"
            assert house.send("GET", path, None, {"Authorization": f"Bearer {key}"})[0] != 401
        assert house.send("GET", "/health")[0] == house.send("GET", "/ready")[0] == 200
        body = json.dumps(GOOD).encode()
        assert house.send("POST", CHAT, body, JSON | {"Authorization": f"bearer {key}"})[0] == 200


def test_a_file_of_keys_that_is_none_is_told_without_its_words(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for text in ("", "# nothing\n", "sk-a-key-in-the-clear\n", f"{hash_of('a')[:-1]}\n", f"{hash_of('a').upper()}\n"):
        file.write_text(text)
        with pytest.raises(DemurError) as caught:
            Keys.read(file)
        assert "clear" not in str(caught.value)
    with pytest.raises(DemurError, match="no keys"):
        Keys.read(tmp_path / "missing")
    assert key_is_not_in(repr(Keys((hash_of("secret"),))))


def key_is_not_in(text: str) -> bool:
    return hash_of("secret") not in text and "secret" not in text


def test_no_path_is_opened_and_none_is_told_of(house: House) -> None:
    for path in (
        "/../../etc/passwd",
        "/v1/models/../../etc/passwd",
        "/v1/models/%2e%2e%2fetc%2fpasswd",
        "/docs",
        "/redoc",
        "//",
        "/v1/",
    ):
        status, headers, body = house.send("GET", path)
        check_told(status, headers, body)
        assert status == 404, path
    assert house.send("GET", "/v1/models/m")[0] == 200
    assert house.send("GET", CHAT)[0] == 405
    assert house.send("DELETE", "/v1/models/m")[0] == 405


# -- many of them ---------------------------------------------------------------------------------------------------

SEEDS = [
    None, True, False, 0, -1, 1, 2, 10**18, 1.5, -0.0, 1e300, "", "x", "m", "user", "\ufeff", "🙂" * 9, "<|im_end|>",
    "\u202e", "{{7*7}}", "' OR 1=1", "<script>alert(1)</script>", "a\r\nSet-Cookie: x", "../../etc/passwd", "\\u0000",
    [], {}, [[]], [None], {"a": {}},
]  # fmt: skip
NAMES = [
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "seed", "stop",
    "stream", "stream_options", "n", "tools", "logprobs", "logit_bias", "user", "demur", "prompt", "role", "content",
    "sampler", "settings", "guard", "canvas", "type", "text", "__proto__", "constructor", "",
]  # fmt: skip


def hostile(dice: random.Random) -> bytes:
    """One request that is nearly good, or not at all."""
    body: Any = json.loads(json.dumps(GOOD))
    for _ in range(dice.choice([0, 1, 1, 2, 3])):
        place = dice.choice(
            [body, body["messages"][0] if isinstance(body.get("messages"), list) and body["messages"] else body]
        )
        if not isinstance(place, dict):
            continue
        value = dice.choice(SEEDS)
        if dice.random() < 0.3:
            value = {dice.choice(NAMES): value}
        if dice.random() < 0.2:
            value = [value] * dice.choice([1, 2, 40])
        place[dice.choice(NAMES)] = value
    raw = bytearray(json.dumps(body, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass"))
    for _ in range(dice.choice([0, 0, 0, 1, 5])):
        raw[dice.randrange(len(raw))] = dice.randrange(256)
    if dice.random() < 0.05:
        raw = raw[: dice.randrange(len(raw))]
    if dice.random() < 0.05:
        raw = bytearray(b"[" * dice.choice([20, 4000])) + raw
    return bytes(raw)


def bombard(house: House, n: int, seed: int) -> dict[int, int]:
    """How many requests were answered how; all of them as :func:`check_told` wants it."""
    dice = random.Random(seed)
    bodies = [hostile(dice) for _ in range(n)]

    def one(raw: bytes) -> int:
        path = CHAT if len(raw) % 3 else "/v1/completions"
        status, headers, body = house.send("POST", path, raw, JSON)
        if headers["content-type"].startswith("text/event-stream"):
            assert body.endswith(b"data: [DONE]\n\n")
            assert body.isascii()
            return status
        check_told(status, headers, body)
        assert body.isascii(), "nothing unescaped"
        return status

    counts: dict[int, int] = {}
    with ThreadPoolExecutor(8) as pool:
        for status in pool.map(one, bodies):
            counts[status] = counts.get(status, 0) + 1
    return counts


def test_some_hundred_hostile_requests_are_answered_and_the_server_lives(house: House) -> None:
    counts = bombard(house, 300, seed=0)
    assert 503 not in counts
    assert counts[400] > 100
    assert counts[200] > 5, "some of them are good"
    assert house.chat("hi", max_tokens=1)[0] == 200


@pytest.mark.slow
def test_ten_thousand_hostile_requests_are_answered_and_the_server_lives(house: House) -> None:
    counts = bombard(house, 10_000, seed=1)
    assert 503 not in counts
    assert sum(counts.values()) == 10_000
    assert house.chat("hi", max_tokens=1)[0] == 200


def test_bytes_that_are_no_http_harm_nobody(house: House) -> None:
    for raw in (
        b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        f"{HEAD}Content-Length: -5\r\n\r\n".encode(),
        f"{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
    ):  # fmt: skip
        assert b" 500 " not in talk(house, raw, wait=2)
    assert house.send("GET", "/health")[0] == 200


# -- the document, and the process ----------------------------------------------------------------------------------


def test_the_document_names_every_path_and_every_parameter(house: House) -> None:
    document = json.loads(house.send("GET", "/openapi.json")[2])
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/ready", "/metrics"} <= set(
        document["paths"]
    )
    refs = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert refs <= set(document["components"]["schemas"])
    chat = document["components"]["schemas"]["ChatAsked"]
    assert {"messages", "seed", "demur"} <= set(chat["properties"])
    assert chat["additionalProperties"] is False


@pytest.mark.slow
def test_what_the_document_says_is_what_the_server_does(house: House, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="not installed")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    checks += ",negative_data_rejection"
    line = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"http://127.0.0.1:{house.port}/openapi.json",
        "--checks",
        checks,
    ]
    ran = subprocess.run(
        [*line, "--max-examples", "60", "--seed", "1"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]


@pytest.mark.slow
def test_sigterm_under_load_loses_no_answer_that_has_begun(tmp_path: Path) -> None:
    """The real process: what runs ends with its verdict, what waits is told, and the exit status is 0."""
    file = served.guard("organism/ar").save(tmp_path / "guard.safetensors")
    line = [sys.executable, "-m", "demur", "serve", "organism/ar", "--guard", str(file), "--port", "0", "--rows", "4"]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"}
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = process.stdout.readline()
            assert "guard: held back, 1 step" in said
            port = int(re.findall(r":(\d+)/v1", said)[0])
            there = House(None, type("Running", (), {"port": port})())  # type: ignore[arg-type]
            messages = [{"role": "user", "content": served.asked("organism/ar")[0].text}]
            body = {"model": "organism/ar", "messages": messages, "stream": True}
            with ThreadPoolExecutor(40) as pool:
                waiting = [pool.submit(there.post, CHAT, body) for _ in range(40)]
                time.sleep(0.6)
                process.send_signal(signal.SIGTERM)
                ends = [one.result() for one in waiting]
            assert process.wait(30) == 0
            log = process.stderr.read()
        finally:
            process.kill()
    answered = [came for status, came in ends if status == 200]
    assert {status for status, _ in ends} <= {200, 503}
    assert answered
    assert all("verdict" in came[-1]["demur"] for came in answered)
    assert log.count('"outcome": "stop"') + log.count('"outcome": "content_filter"') == len(answered)
    assert "granary" not in log
    assert "Traceback" not in log
