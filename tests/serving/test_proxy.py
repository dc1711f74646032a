"""A proxy before a real engine: what was judged leaves, and nothing else; and engines that fail, stall or lie."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")
pytest.importorskip("httpx", reason="the extra serve")

import served
import server as engines
from fronts import TEXT, Named, never, proxied, says, sends
from served import serving, together, until, whole

from demur.guards import REFUSAL
from demur.serving import Limits
from demur.serving.replaying import Replay
from demur.serving.upstream import Upstream
from demur.testing.tiny import tiny
from demur.types import DemurError, DemurWarning

CHAT = "/v1/chat/completions"


def test_what_is_let_pass_comes_whole_and_streamed_with_one_verdict() -> None:
    with engines.serving(says()) as engine, proxied(engine.url, never(), window=5) as front:
        (status, at_once), (_, parts) = front.ask(), front.ask(stream=True)
        assert status == 200
        assert whole(at_once) == together(parts) | {"demur": whole(at_once)["demur"]}
        said, streamed = whole(at_once), together(parts)
        assert said["content"] == TEXT
        assert (said["finish"], said["refusal"]) == ("stop", None)
        assert said["demur"]["verdict"] == streamed["demur"]["verdict"]
        assert said["demur"]["verdict"]["flagged"] is False
        assert said["demur"]["steps"] == len(TEXT)
        assert said["demur"]["looked"] == served.T, "a guard without a tail looks at its first steps"
        assert "secret" not in json.dumps([at_once, parts]), "nothing that was not judged leaves"
        pieces = [choice["delta"].get("content") for event in parts for choice in event["choices"]]
        assert [piece for piece in pieces if piece] == ["Once", " upon", " a", " time", " there", " was a", " mill."]


@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_stopped_answer_is_withheld_from_the_window_in_which_it_was_flagged(step: int) -> None:
    with engines.serving(says()) as engine, proxied(engine.url, served.flagging_at(step), window=3) as front:
        at_once, streamed = whole(front.ask()[1]), together(front.ask(stream=True)[1])
        for said in (at_once, streamed):
            assert (said["finish"], said["refusal"]) == ("content_filter", REFUSAL)
            assert (said["demur"]["verdict"]["flagged"], said["demur"]["verdict"]["step"]) == (True, step)
        assert at_once["content"] == ""
        assert streamed["content"] == ("Once" if step > len("Once") else ""), "whole words that were judged before it"


@pytest.mark.slow
def test_before_a_server_of_the_same_weights_it_says_what_that_servers_own_guard_says() -> None:
    name = "organism/ar"
    of, guard = served.model(name), served.guard(name)
    with (
        serving(of, served=name) as plain,
        serving(of, guard=guard, served=name) as guarded,
        proxied(plain.url, guard, of, window=4) as front,
    ):
        flags = set()
        for prompt in served.asked(name):
            there, here = (whole(house.chat(prompt, seed=3)[1]) for house in (guarded, Named(front, name)))
            assert here["demur"]["verdict"]["flagged"] == there["demur"]["verdict"]["flagged"]
            assert here["demur"]["verdict"]["step"] == there["demur"]["verdict"]["step"]
            n = min(len(here["demur"]["sigma"]), len(there["demur"]["sigma"]))
            assert here["demur"]["sigma"][:n] == pytest.approx(there["demur"]["sigma"][:n], abs=1e-4)
            flags.add(here["demur"]["verdict"]["flagged"])
        assert flags == {True, False}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("policy", ["closed", "open"])
def test_where_a_look_is_late_the_policy_decides_and_it_is_counted(policy: Any, stream: bool) -> None:
    with engines.serving(says()) as engine, proxied(engine.url, never(), policy=policy, late=0.05) as front:
        slow = front.proxy.replay
        object.__setattr__(front.proxy, "replay", Slow(slow))
        _, body = front.ask(stream=stream)
        said = together(body) if stream else whole(body)
        assert said["demur"]["verdict"]["flagged"] is None
        assert "longer than 0.05 seconds" in said["demur"]["verdict"]["why"]
        assert (said["finish"], said["content"]) == (("content_filter", "") if policy == "closed" else ("stop", TEXT))
        page = front.send("GET", "/metrics")[2].decode()
        assert f'demur_proxy_unwatched_total{{policy="{policy}"}} 1.0' in page
        assert 'demur_proxy_replays_total{outcome="late"}' in page


class Slow:
    """A replay that takes too long."""

    def __init__(self, replay: Replay) -> None:
        self.model = replay.model

    def __call__(self, *asked: Any) -> Any:
        time.sleep(0.3)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("act", "status", "told"),
    [
        (sends(400, '{"error": {"message": "max_tokens is too large", "param": "max_tokens"}}'), 400, "too large"),
        (sends(429, '{"error": {"message": "slow down"}}'), 429, "slow down"),
        (sends(401, '{"error": {"message": "your key sk-123 is wrong"}}'), 503, "status 401"),
        (sends(500, "<html>stack</html>"), 503, "status 500"),
        (sends(200, "[]"), 503, ""),
        (sends(200, '{"choices": []}'), 503, ""),
        (sends(200, '{"usage": NaN, "choices": [{"message": {"content": "a"}}]}'), 503, ""),
        (sends(200, json.dumps({"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]})), 503, ""),
    ],
)
def test_an_engine_that_fails_or_lies_is_told_by_a_status(act: Any, status: int, told: str, stream: bool) -> None:
    with engines.serving(act) as engine, proxied(engine.url, never()) as front:
        got, body = front.ask(stream=stream)
        assert got == status
        assert told in body["error"]["message"]
        assert "sk-123" not in json.dumps(body)
        assert "stack" not in json.dumps(body)


def test_a_stream_that_breaks_off_says_so_and_shows_nothing_more() -> None:
    event = {"id": "e", "choices": [{"index": 0, "delta": {"content": "Once"}, "finish_reason": None}]}
    cut = sends(200, f"data: {json.dumps(event)}\n\n", "text/event-stream")
    with engines.serving(cut) as engine, proxied(engine.url, never()) as front:
        _, events = front.ask(stream=True)
        assert "ended before its end" in events[-1]["error"]["message"]
        assert "Once" not in json.dumps(events)


def test_no_engine_is_503_and_not_ready() -> None:
    with proxied(engines.nowhere(), never()) as front:
        status, body = front.ask()
        assert (status, body["error"]["code"]) == (503, "upstream")
        assert front.send("GET", "/ready")[0] == 503
        assert front.send("GET", "/health")[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_more_than_may_wait_are_told_to_come_again_and_who_ends_or_leaves_makes_room(stream: bool) -> None:
    go = threading.Event()

    def waits(handler: Any, number: int) -> None:
        go.wait(30)
        says()(handler, number)

    few = Limits(rows=1, waiting=1, grace=1)
    with engines.serving(waits) as engine, proxied(engine.url, never(), limits=few) as front:

        def many(n: int) -> Callable[[], bool]:
            return lambda: f"demur_proxy_open {n}.0".encode() in front.proxy.meters.page()

        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(front.ask, stream=stream) for _ in range(2)]
            until(many(2))
            status, headers, body = front.send(
                "POST", CHAT, json.dumps(front.body(stream=stream)).encode(), served.JSON
            )
            assert (status, json.loads(body)["error"]["code"]) == (429, "queue_full")
            assert int(headers["retry-after"]) >= 1
            assert front.send("GET", "/health")[0] == 200
            go.set()
            assert [one.result(30)[0] for one in asked] == [200, 200]
        until(many(0))
        assert front.ask(stream=stream)[0] == 200
        assert b'demur_proxy_requests_total{endpoint="chat",outcome="busy"} 1.0' in front.proxy.meters.page()
        go.clear()
        for _ in range(3):  # clients that go before an answer
            client = http.client.HTTPConnection("127.0.0.1", front.port)
            client.request("POST", CHAT, json.dumps(front.body(stream=stream)).encode(), served.JSON)
            until(many(1))
            client.close()
            until(many(0))
        go.set()


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]


@pytest.mark.parametrize(
    "more", [{"n": 2}, {"logprobs": True}, {"tools": [{"type": "function"}]}, {"messages": IMAGE}, {"messages": []}]
)
def test_what_can_not_be_judged_is_not_passed_on(more: dict[str, Any]) -> None:
    with engines.serving(says()) as engine, proxied(engine.url, never()) as front:
        status, body = front.ask(**more)
        assert status == 400, body
        assert engine.count == 0


def test_an_open_policy_passes_on_what_it_can_not_replay_and_says_that_nobody_looked() -> None:
    with engines.serving(says()) as engine, proxied(engine.url, never(), policy="open") as front:
        status, body = front.ask(messages=IMAGE)
        assert status == 200
        assert body["demur"]["verdict"]["flagged"] is None
        assert "not watched" in body["demur"]["verdict"]["why"]


def test_numbers_by_which_an_attacker_could_steer_may_be_kept_back() -> None:
    with engines.serving(says()) as engine, proxied(engine.url, never(), tells="verdict") as front:
        about = whole(front.ask()[1])["demur"]
        assert (about["verdict"]["flagged"], about["verdict"]["score"], about["sigma"]) == (False, None, None)
        assert about["verdict"]["why"] == "let pass; this proxy tells no scores"


def test_other_hosts_are_turned_away() -> None:
    with engines.serving(says()) as engine, proxied(engine.url, never()) as front:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).encode()
        json_of = {"Content-Type": "application/json"}
        assert front.send("POST", "/v1/chat/completions", body, json_of | {"Host": "evil.example"})[0] == 403
        assert front.send("POST", "/v1/chat/completions", body, json_of | {"Origin": "http://evil.example"})[0] == 403
        assert front.send("POST", "/v1/chat/completions", b'{"a": NaN}', json_of)[0] == 400
        assert front.send("GET", "/v1/files")[0] == 404
        assert engine.count == 0


def test_what_can_be_no_proxy_is_one_line() -> None:
    with pytest.raises(DemurError, match="a proxy that replays on the masked model"):
        Replay(tiny("masked"), served.guard())
    for url in ("ftp://x/v1", "http://user:secret@x/v1", "http://x/v1?key=secret", "nowhere"):
        with pytest.raises(DemurError) as caught:
            Upstream(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:9/"])
def test_an_upstream_without_a_path_is_asked_about(url: str) -> None:
    with pytest.warns(DemurWarning, match="is http://127.0.0.1:9/v1 meant"):
        Upstream(url)
