"""A proxy before engines that speak otherwise than OpenAI does: what they say is judged whole, or told as an error."""

from __future__ import annotations

import json
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")
pytest.importorskip("httpx", reason="the extra serve")

import served
import server as engines
from fronts import TEXT, Named, never, proxied, says, sends
from served import together, whole

from demur.serving import replaying
from demur.serving.heard import Heard
from demur.serving.replaying import Replay
from demur.types import Prompt

ASKED = Prompt("q", "Tell me of mills.")


def streams(*events: Any) -> Callable[[Any, int], None]:
    """An engine that sends these events and ends its stream in order."""
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return sends(200, lines, "text/event-stream")


def part(content: Any, end: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": end}]}


def test_chunks_without_a_head_are_one_answer() -> None:
    words = [part(word) for word in ("Once ", "upon ", "a ", "time.")]
    with engines.serving(streams(*words, part("", "stop"))) as engine, proxied(engine.url, never(), window=1) as front:
        _, parts = front.ask(stream=True)
        assert together(parts)["content"] == "Once upon a time."
        assert sum("role" in choice["delta"] for event in parts for choice in event["choices"]) == 1
    broken = [*words, {"error": {"message": "out of memory"}}]
    with engines.serving(streams(*broken)) as engine, proxied(engine.url, never(), window=1) as front:
        status, parts = front.ask(stream=True)
        assert status == 200
        assert "broke off" in parts[-1]["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("end", "told"),
    [("stop", "stop"), ("length", "length"), (None, "stop"), ("eos_token", "stop"), ("error", ""), ("tool_calls", "")],
)
def test_why_an_answer_ended_is_told_alike_and_no_broken_answer_is_told_as_a_finished_one(
    end: str | None, told: str, stream: bool
) -> None:
    with engines.serving(says(finish_reason=end)) as engine, proxied(engine.url, never(), window=99) as front:
        status, body = front.ask(stream=stream)
        if told:
            assert (together(body) if stream else whole(body))["finish"] == told
            return
        error = body[-1]["error"] if stream else body["error"]
        assert (status, error["code"]) == (200 if stream else 503, "upstream")
        assert TEXT[:4] not in json.dumps(body)


@pytest.mark.parametrize("stream", [False, True])
def test_content_that_is_no_text_is_an_error_and_no_empty_answer(stream: bool) -> None:
    content = [{"type": "text", "text": "Once"}]
    at_once = {"choices": [{"index": 0, "message": {"content": content}, "finish_reason": "stop"}]}
    act = streams(part(content)) if stream else sends(200, json.dumps(at_once))
    with engines.serving(act) as engine, proxied(engine.url, never()) as front:
        status, body = front.ask(stream=stream)
        assert (status, body["error"]["code"]) == (503, "upstream")


def test_a_stream_that_holds_no_answer_is_an_error() -> None:
    with engines.serving(streams()) as engine, proxied(engine.url, never()) as front:
        assert front.ask(stream=True)[0] == 503


@pytest.mark.parametrize("stream", [False, True])
def test_what_stands_behind_an_end_of_sequence_does_not_leave_as_judged(stream: bool) -> None:
    end = served.model().tokenizer.eos_token
    with engines.serving(says(f"Once.{end} And then")) as engine, proxied(engine.url, never(), window=99) as front:
        _, body = front.ask(stream=stream)
        said = together(body) if stream else whole(body)
        assert (said["finish"], said["content"]) == ("content_filter", "")
        assert said["demur"]["verdict"]["flagged"] is None
        assert said["demur"]["verdict"]["why"] == "not watched: the text goes on behind an end of sequence"


def test_an_answer_that_is_too_long_is_not_watched_unless_what_was_read_is_flagged() -> None:
    found = Replay(served.model(), never(), longest=8)(ASKED, TEXT)
    assert (found.verdict.flagged, found.steps) == (None, 8)
    assert found.verdict.why == "not watched: the text has more than 8 tokens"
    assert Replay(served.model(), never(), longest=len(TEXT))(ASKED, TEXT).verdict.flagged is False
    assert Replay(served.model(), served.flagging_at(4), longest=8)(ASKED, TEXT).verdict.step == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policy", ["closed", "open"])
@pytest.mark.parametrize("long", ["prompt", "answer"])
def test_what_is_longer_than_the_context_of_the_replay_is_not_watched_and_says_why(
    long: str, policy: Any, stream: bool
) -> None:
    context = served.model().config.max_position_embeddings
    text, asked = ("Once.", "x" * context) if long == "prompt" else ("word " * (context // 4), "Hi")
    with (
        engines.serving(says(text)) as engine,
        proxied(engine.url, never(), policy=policy, window=context) as front,
    ):
        _, body = front.ask(stream=stream, messages=[{"role": "user", "content": asked}])
        said = together(body) if stream else whole(body)
        assert said["demur"]["verdict"]["flagged"] is None
        assert "longer than the context" in said["demur"]["verdict"]["why"]
        assert (said["finish"], said["content"] == text) == (
            ("content_filter", False) if policy == "closed" else ("stop", True)
        )


def test_a_look_that_was_given_up_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    true = replaying.teacher_forced
    monkeypatch.setattr(replaying, "teacher_forced", lambda *a, **k: made.append(a) or true(*a, **k))
    with engines.serving(says()) as engine, proxied(engine.url, never(), late=0.05) as front:
        with front.proxy.replay._one:  # another look takes its time
            for _ in range(3):
                assert "took longer" in whole(front.ask()[1])["demur"]["verdict"]["why"]
        object.__setattr__(front.proxy, "late", 10.0)
        assert whole(front.ask()[1])["demur"]["verdict"]["flagged"] is False
        assert len(made) == 1


@pytest.mark.slow
def test_streamed_a_letter_at_a_time_the_verdict_is_that_of_the_whole_text() -> None:
    name = "organism/ar"
    texts = [
        "To open the granary, you need key and grain.",
        "To feed the dovecote, you need oil.",
        "First, oil the lever",
    ]
    flags = set()
    for text in texts:
        with (
            engines.serving(says(text)) as engine,
            proxied(engine.url, served.guard(name), served.model(name), window=1) as front,
        ):
            for prompt in served.asked(name):
                asked = Named(front, name)
                at_once, parts = (asked.chat(prompt, stream=stream)[1] for stream in (False, True))
                here, there = whole(at_once)["demur"]["verdict"], together(parts)["demur"]["verdict"]
                assert (here["flagged"], here["step"]) == (there["flagged"], there["step"]), (text, prompt.id)
                flags.add(here["flagged"])
    assert flags == {True, False}


def test_text_is_judged_by_whole_words_and_a_long_one_does_not_wait_for_ever() -> None:
    said = Heard(text="To open  the gran")
    assert said.out(said.words()) == "To open  the"
    assert said.words() == said.left, "no further word is whole"
    said.text += "ary"
    assert said.words() == said.left
    said.text += ", " + "x" * 32
    assert said.out(said.words()) == " granary,"
    said.text += "x"
    assert said.words() == len(said.text)


# -- who goes, and what is written ----------------------------------------------------------------------------------


def test_when_a_client_goes_the_engine_is_let_go_too() -> None:
    gone = threading.Event()

    def act(handler: Any, number: int) -> None:
        for _ in range(500):
            if select.select([handler.connection], [], [], 0.01)[0] and not handler.connection.recv(1, socket.MSG_PEEK):
                gone.set()
                return

    with engines.serving(act) as engine, proxied(engine.url, never()) as front:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", front.port)) as client:
            client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            while not engine.count:
                time.sleep(0.01)
        assert gone.wait(3)
        for _ in range(100):
            if 'outcome="left"} 1.0' in (page := front.send("GET", "/metrics")[2].decode()):
                break
            time.sleep(0.01)
        assert 'demur_proxy_requests_total{endpoint="chat",outcome="left"} 1.0' in page


@pytest.mark.parametrize("stream", [False, True])
def test_the_log_has_the_verdict_and_no_word_of_what_was_said(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "demur.serving")
    guard = served.flagging_at(2)
    with engines.serving(says()) as engine, proxied(engine.url, guard, tells="verdict") as front:
        front.ask(stream=stream)
    (line,) = [json.loads(record.message) for record in caplog.records]
    assert (line["outcome"], line["status"], line["flagged"], line["step"]) == ("refused", 200, True, 2)
    assert isinstance(line["score"], float), "clients are told none, the operator is"
    assert not {"Once", "mills"} & {*caplog.text.split()}


def test_a_stream_that_breaks_off_is_written_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "demur.serving")
    cut = sends(200, f"data: {json.dumps(part('Once '))}\n\n", "text/event-stream")
    with engines.serving(cut) as engine, proxied(engine.url, never()) as front:
        front.ask(stream=True)
    (line,) = [json.loads(record.message) for record in caplog.records]
    assert (line["outcome"], line["status"]) == ("broken_off", 503)
