"""What would go by without a word: which parameter a refusal is for, a worker that has ended by itself, who counts and
fails, and streams that nobody begins to read.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")

import served
from served import serving, until, whole

from demur.serving.app import Stream
from demur.serving.orders import Orders
from demur.serving.service import Service
from demur.serving.worker import Worker


def broken(*_: Any) -> Any:
    raise ZeroDivisionError("a secret wish")


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_k": 3}, "top_k"),
        ({"temperature": 0, "top_p": 1, "top_k": 3}, "top_k"),
        ({"temperature": 0, "top_p": 0.5, "max_tokens": 4}, "top_p"),
        ({"demur": {"settings": {"top_k": 5}}}, "demur.settings"),
        ({"demur": {"settings": {"temperature": 0}}, "top_p": 0.5}, "top_p"),
        ({"demur": {"settings": {"cache": 3}}}, "demur.settings"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"max_completion_tokens": 10**6}, "max_completion_tokens"),
    ],
)
def test_a_refusal_names_the_parameter_that_it_is_for(more: dict[str, Any], name: str) -> None:
    with serving(guard=served.guard()) as house:
        for stream in (False, True):
            status, error = house.chat(stream=stream, **more)
            assert (status, error["error"]["param"]) == (400, name)


@pytest.mark.parametrize(("more", "name"), [({"top_p": 0.5}, "top_p"), ({"temperature": 1, "top_k": 3}, "top_k")])
def test_what_a_sampler_can_not_do_is_told_by_the_name_that_the_client_has_used(
    more: dict[str, Any], name: str
) -> None:
    with serving(served.model("tiny/diffusion")) as house:
        status, error = house.chat(**more)
        assert status == 400
        assert error["error"]["param"] in ("temperature", name)  # the first that is not the usual one


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("where", ["_next", "_step", "_begin"])
def test_a_worker_that_ended_by_itself_is_not_well_and_says_so_and_one_that_was_stopped_is(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(Worker, where, broken)
    with serving() as house:
        assert house.send("GET", "/health")[0] == 200
        assert house.chat()[0] == 503
        until(lambda: not house.service.worker.is_alive)
        assert house.send("GET", "/health")[0] == 503
        assert house.send("GET", "/ready")[0] == 503
        status, error = house.chat()
        assert (status, error["error"]["code"]) == (503, "failed")
        assert "start it again" in error["error"]["message"]
    monkeypatch.undo()
    with serving() as house:
        house.service.worker.stop(5)
        until(lambda: house.service.worker.ended)
        assert house.send("GET", "/health")[0] == 200
        assert house.chat()[1]["error"]["code"] == "stopping"


@pytest.mark.parametrize("stream", [False, True])
def test_who_counts_or_listens_may_fail_and_every_answer_leaves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    monkeypatch.setattr(Service, "answered", broken)
    with serving(guard=served.guard()) as house:
        for _ in range(2):
            assert house.chat(stream=stream, max_tokens=3)[0] == 200
        assert house.service.worker.is_well
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


def test_a_fault_before_the_line_is_counted_and_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as house:
        with monkeypatch.context() as patch:
            patch.setattr(Orders, "_row", broken)
            status, error = house.chat("my own words")
        assert (status, error["error"]["code"]) == (503, "failed")
        page = house.send("GET", "/metrics")[2].decode()
        assert 'demur_requests_total{endpoint="chat",outcome="unavailable"} 1.0' in page
        assert "secret" not in json.dumps(error) + caplog.text
        assert house.chat()[0] == 200


@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_is_over_also_where_nobody_has_begun_to_read_it(begun: bool) -> None:
    told = []

    async def parts() -> Any:
        yield b"a"
        await asyncio.sleep(30)

    async def receive() -> Any:
        await asyncio.sleep(0.05 if begun else 0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if not begun:
            await asyncio.sleep(30)

    asyncio.run(
        Stream(parts(), lambda: told.append("over"))({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)
    )
    assert told == ["over"]


def test_a_stream_that_is_read_to_its_end_is_not_told_as_left() -> None:
    with serving(guard=served.guard()) as house:
        assert house.chat(stream=True)[0] == 200
        assert whole(house.chat()[1])
        assert b'outcome="left"' not in house.send("GET", "/metrics")[2]
