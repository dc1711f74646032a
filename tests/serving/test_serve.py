"""A real server and real clients: answers, verdicts, batches, and what happens when there is too much of it."""

from __future__ import annotations

import codecs
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")

import served
from served import House, serving, together, until, whole

from demur.guards import REFUSAL, Watch
from demur.guards import acted as acted_of
from demur.serving import Limits
from demur.serving.group import Group
from demur.serving.worker import Worker
from demur.traces import generate
from demur.types import Prompt

ROOM = Limits(rows=8, waiting=256, grace=5)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """A tiny autoregressive model under a guard that holds back one step."""
    with serving(guard=served.guard(), guard_is_a_choice=True, limits=ROOM) as one:
        yield one


@pytest.fixture(scope="module", params=[*served.QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in served.SLOW)])
def either(request: pytest.FixtureRequest) -> Iterator[House]:
    """The same of several models, each under its own name."""
    name = request.param
    with serving(served.model(name), guard=served.guard(name), limits=ROOM, served=name) as one:
        yield one


@pytest.fixture(scope="module")
def diffusion() -> Iterator[House]:
    name = "tiny/diffusion"
    with serving(served.model(name), guard=served.guard(name), limits=ROOM, served=name) as one:
        yield one


def asked(house: House) -> tuple[Prompt, ...]:
    return served.asked(house.service.terms.served)


def let_pass(house: House) -> Prompt:
    """A request whose answer is not stopped."""
    return next(one for one in asked(house) if not whole(house.chat(one)[1])["refusal"])


# -- answers and verdicts -------------------------------------------------------------------------------------------


def test_streamed_and_not_the_text_the_refusal_and_the_verdict_are_the_same(either: House) -> None:
    fates = set()
    for prompt in asked(either):
        _, at_once = either.chat(prompt, seed=3)
        _, parts = either.chat(prompt, seed=3, stream=True)
        assert whole(at_once) == together(parts)
        said = whole(at_once)
        fates.add(said["finish"])
        verdict = said["demur"]["verdict"]
        assert (said["finish"] == "content_filter") == (said["refusal"] is not None) == (verdict["flagged"] is True)
        assert said["demur"]["mode"] == "held back"
        assert said["refusal"] in (None, REFUSAL)
        assert len(said["demur"]["sigma"]) == said["demur"]["looked"]
    assert {"content_filter"} < fates, "the case should hold both fates"


def test_what_is_stopped_and_where_is_what_the_guard_does_by_itself(either: House) -> None:
    guard, model = either.service.terms.guard, either.service.terms.model
    assert guard is not None
    watched = Watch(guard)(either.service.orders.plain)
    how: Any = {"length": served.LENGTH, "steps": guard.spec.steps, "batch": 64}
    traces = generate(model, asked(either), watched, **how)
    plain = generate(model, asked(either), either.service.orders.plain, **how)
    for prompt, trace, bare in zip(asked(either), traces, plain, strict=True):
        said, verdict = whole(either.chat(prompt)[1]), acted_of(trace)
        assert said["demur"]["verdict"]["flagged"] == verdict.flagged
        assert said["demur"]["verdict"]["step"] == verdict.step
        assert said["demur"]["sigma"] == pytest.approx(guard.anchors.signal(bare)[: said["demur"]["looked"]], abs=1e-5)
        if not verdict.flagged:
            assert said["content"] == trace.text()
        else:
            score, limit = (said["demur"]["verdict"][name] for name in ("score", "limit"))
            assert score > limit


@pytest.mark.parametrize(("hold", "left"), [(0, 6), (1, 5), (4, 2), (30, 0)])
def test_nothing_leaves_before_it_was_looked_at_and_asynchronously_one_step_does(hold: int, left: int) -> None:
    prompt, model = served.asked()[0], served.model()
    (trace,) = generate(model, [prompt], length=served.LENGTH)
    pieces, _ = model.pieces(trace.tokens().tolist())
    first = b"".join(pieces[token] for token in trace.tokens()[:left].tolist())
    with serving(guard=served.flagging_at(6), hold=hold) as house:
        parts, at_once = together(house.chat(prompt, stream=True, seed=0)[1]), whole(house.chat(prompt, seed=0)[1])
    assert parts == at_once
    assert parts["demur"]["mode"] == ("held back" if hold else "asynchronous")
    assert parts["demur"]["hold_back"] == hold
    assert (parts["refusal"], parts["demur"]["verdict"]["step"]) == (REFUSAL, 6)
    assert parts["content"] == codecs.getincrementaldecoder("utf-8")("replace").decode(first)


def test_a_server_may_tell_what_the_guard_did_and_none_of_its_numbers(house: House) -> None:
    with serving(guard=served.guard(), tells="verdict") as other:
        for prompt in served.asked():
            said, full = whole(other.chat(prompt, seed=0)[1]), whole(house.chat(prompt, seed=0)[1])
            assert said == together(other.chat(prompt, seed=0, stream=True)[1])
            for name in ("content", "refusal", "finish"):
                assert said[name] == full[name]
            assert (said["demur"]["sigma"], said["demur"]["looked"]) == (None, full["demur"]["looked"])
            verdict = said["demur"]["verdict"]
            assert (verdict["flagged"], verdict["step"]) == tuple(
                full["demur"]["verdict"][n] for n in ("flagged", "step")
            )
            assert verdict["score"] is verdict["limit"] is None
            assert "tells no scores" in verdict["why"]


def test_without_a_guard_the_verdict_is_none_and_says_so() -> None:
    with serving() as house:
        said = whole(house.chat()[1])
        assert said["demur"]["verdict"]["flagged"] is None
        assert said["demur"]["verdict"]["why"] == "not watched: this server has no guard"
        assert (said["demur"]["mode"], said["demur"]["sigma"]) == ("not watched", None)
        status, error = house.chat(demur={"guard": True})
        assert status == 400
        assert "no" in error["error"]["message"]


def test_no_guard_is_a_clients_choice_only_where_the_operator_says_so(house: House) -> None:
    said = whole(house.chat(demur={"guard": False})[1])
    assert said["demur"]["verdict"]["why"] == "not watched: the client asked for no guard"
    with serving(guard=served.guard()) as strict:
        status, error = strict.chat(demur={"guard": False})
    assert status == 400
    assert "--allow-guard-choice" in error["error"]["message"]


def test_another_temperature_is_no_way_around_the_guard(house: House) -> None:
    for more in (
        {"temperature": 0.7},
        {"demur": {"settings": {"top_k": 5}}},
        {"demur": {"guard": True}, "temperature": 1},
    ):
        status, error = house.chat(**more)
        assert status == 400, more
        assert "guard can not look" in error["error"]["message"]
    free = {"guard": False, "settings": {"temperature": 0.7}}
    assert house.chat(demur=free, seed=1)[0] == 200


def test_a_guard_that_needs_a_canvas_of_one_length_has_it_and_max_tokens_cuts_the_text(diffusion: House) -> None:
    prompt = let_pass(diffusion)
    long, short = (whole(diffusion.chat(prompt, **more)[1]) for more in ({}, {"max_tokens": 5}))
    assert long["demur"]["places"] == short["demur"]["places"] == served.LENGTH
    assert short["finish"] == "length"
    assert long["content"].startswith(short["content"])
    assert short["demur"]["sigma"] == long["demur"]["sigma"], "the guard sees the whole of it"


def test_another_sampler_is_no_way_around_the_guard(diffusion: House) -> None:
    for own in ({"sampler": "random"}, {"settings": {"steps": 4}}):
        status, error = diffusion.chat(demur=own)
        assert status == 400, own
        assert "guard can not look" in error["error"]["message"]


def test_a_stop_string_ends_the_answer_before_itself(either: House) -> None:
    prompt = let_pass(either)
    full = whole(either.chat(prompt)[1])["content"]
    word = full[4:6]
    for stop in (word, ["zzz", word]):
        said = whole(either.chat(prompt, stop=stop, seed=0)[1])
        assert said == together(either.chat(prompt, stop=stop, seed=0, stream=True)[1])
        assert said["content"] == full[: full.index(word)]
        assert said["finish"] == "stop"


def test_one_seed_one_answer_and_a_seed_that_was_drawn_is_told(house: House) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "demur": {"guard": False}}
    drawn = whole(house.chat(**hot)[1])
    again = whole(house.chat(**hot, seed=drawn["demur"]["seed"])[1])
    assert again == drawn
    assert len({whole(house.chat(**hot, seed=seed)[1])["content"] for seed in range(3)}) > 1


def test_usage_counts_what_was_read_and_written(house: House) -> None:
    free: dict[str, Any] = {"max_tokens": 3, "demur": {"guard": False}}
    usage = house.chat(**free)[1]["usage"]
    stream = house.chat(**free, stream=True, stream_options={"include_usage": True})[1]
    assert usage["completion_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 3
    assert stream[-1]["choices"] == []
    assert stream[-1]["usage"] == usage
    assert {event["usage"] for event in stream[:-1]} == {None}


def test_a_raw_text_is_continued_and_its_verdict_says_what_it_is_not(house: House) -> None:
    text = "To open the granary"  # which a random model reads as well as any
    status, body = house.post("/v1/completions", {"model": "m", "prompt": text, "max_tokens": 8})
    assert status == 200
    parts = house.post("/v1/completions", {"model": "m", "prompt": [text], "max_tokens": 8, "stream": True})[1]
    assert "".join(part["choices"][0]["text"] for part in parts) == body["choices"][0]["text"]
    assert "outside of what the guard was calibrated on" in body["demur"]["note"]
    control = house.service.terms.model.tokenizer.eos_token
    status, error = house.post("/v1/completions", {"model": "m", "prompt": f"a {control} b"})
    assert status == 400
    assert "control token" in error["error"]["message"]


def test_a_stream_shows_the_canvas_to_those_who_ask(diffusion: House) -> None:
    stream = diffusion.chat(let_pass(diffusion), stream=True, demur={"canvas": True})[1]
    drawn = [event["demur"]["canvas"] for event in stream if "canvas" in event.get("demur", {})]
    assert [canvas["step"] for canvas in drawn] == list(range(1, len(drawn) + 1))
    assert drawn[-1]["open"] == 0
    assert together([e for e in stream if "canvas" not in e.get("demur", {})])["content"] == drawn[-1]["text"]


def test_several_turns_are_read_and_a_refusal_may_be_one_of_them(house: House) -> None:
    turns = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "How do I "}, {"type": "text", "text": "open the granary?"}],
        },
        {"role": "assistant", "content": None, "refusal": REFUSAL},
        {"role": "user", "content": "How do I open the granary?"},
    ]
    status, body = house.post("/v1/chat/completions", {"model": "m", "messages": turns, "max_tokens": 2})
    if status != 200:  # a template may take no system message
        status, body = house.post("/v1/chat/completions", {"model": "m", "messages": turns[1:], "max_tokens": 2})
    assert status == 200, body
    begun = [*turns[1:2], {"role": "assistant", "content": "To"}]
    status, error = house.post("/v1/chat/completions", {"model": "m", "messages": begun})
    assert status == 400
    assert "--allow-prefill" in error["error"]["message"]


def test_a_stopped_answer_may_be_put_back_as_it_came_and_is_read_as_its_refusal() -> None:
    with serving(guard=served.flagging_at(3)) as house:
        _, first = house.chat("How do I open the granary?")
        message = first["choices"][0]["message"]
        assert message["content"]
        assert message["refusal"] == REFUSAL
        message["content"] = "Once"  # what a tiny model writes, no client may send
        asked = {"role": "user", "content": "How do I open the granary?"}
        again = {"role": "user", "content": "And then?"}
        read = []
        for said in (message, {"role": "assistant", "content": REFUSAL}):
            status, body = house.post("/v1/chat/completions", {"model": "m", "messages": [asked, said, again]})
            assert status == 200, body
            read.append((body["usage"]["prompt_tokens"], body["demur"]["sigma"]))
        assert read[0] == read[1]
        status, _ = house.post("/v1/chat/completions", {"model": "m", "messages": [asked | {"refusal": "No."}]})
        assert status == 400


# -- clients --------------------------------------------------------------------------------------------------------


def test_the_official_client_reads_answers_streams_refusals_and_errors(house: House) -> None:
    openai = pytest.importorskip("openai", reason="the extra judges")
    client = openai.OpenAI(base_url=house.url, api_key="none", max_retries=0)
    assert [one.id for one in client.models.list()] == ["m"]
    assert client.models.retrieve("m").demur["mode"] == "held back"
    for prompt in served.asked()[:4]:
        messages = [{"role": "user", "content": prompt.text}]
        answer = client.chat.completions.create(model="m", messages=messages, seed=1)
        stream = list(client.chat.completions.create(model="m", messages=messages, seed=1, stream=True))
        choice = answer.choices[0]
        text = "".join(part.choices[0].delta.content or "" for part in stream if part.choices)
        refusal = "".join(part.choices[0].delta.refusal or "" for part in stream if part.choices) or None
        assert (text, refusal) == (choice.message.content or "", choice.message.refusal)
        assert stream[-1].choices[0].finish_reason == choice.finish_reason
        assert stream[-1].demur == answer.demur
    with pytest.raises(openai.BadRequestError, match="n = 3"):
        client.chat.completions.create(model="m", messages=messages, n=3)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="gpt-5", messages=messages)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_reads_the_same(house: House) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": served.asked()[-1].text}]}

    def curl(**more: Any) -> bytes:
        line = ["curl", "-sN", f"{house.url}/chat/completions", "-H", "Content-Type: application/json"]
        return subprocess.run([*line, "-d", json.dumps(body | more)], capture_output=True, check=True).stdout

    assert whole(json.loads(curl(seed=1))) == together(served.events(curl(seed=1, stream=True)))


# -- many at once ---------------------------------------------------------------------------------------------------


def test_answers_that_are_made_together_are_those_that_are_made_alone(either: House) -> None:
    prompts = asked(either)
    alone = [whole(either.chat(prompt, seed=i)[1]) for i, prompt in enumerate(prompts)]
    before = either.send("GET", "/metrics")[2].decode()
    with ThreadPoolExecutor(len(prompts)) as pool:
        streams = pool.map(lambda i: together(either.chat(prompts[i], seed=i, stream=True)[1]), range(len(prompts)))
        several = list(streams)
    assert [same(one) for one in several] == [same(one) for one in alone]
    grew = number(either.send("GET", "/metrics")[2].decode(), "demur_group_rows_count") - number(
        before, "demur_group_rows_count"
    )
    assert 0 < grew < len(prompts), "some were made together"


def same(said: dict[str, Any]) -> dict[str, Any]:
    """What does not hang on how products of other shapes are rounded."""
    about = said["demur"]
    return said | {
        "demur": about
        | {"sigma": [round(value, 4) for value in about["sigma"]]}
        | {"verdict": {name: about["verdict"][name] for name in ("flagged", "step", "by")}}
    }


def number(page: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


class Slow:
    """Holds every step of a server back until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        advance = Group.advance

        def held(group: Group) -> bool:
            self.go.wait(30)
            return advance(group)

        monkeypatch.setattr(Group, "advance", held)


def test_who_goes_frees_the_place_and_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with serving(limits=Limits(rows=1, waiting=8, grace=5)) as house:
        worker = house.service.worker
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi there"}], "stream": True}
        raw = json.dumps(body).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        clients = []
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", house.port))
            client.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
            clients.append(client)
        until(lambda: worker.taken == 1 and len(worker.line) == 2)
        for client in clients:
            client.close()
        until(lambda: worker.taken == 0 or all(row.ticket.gone for group in worker.groups for row in group.rows))
        slow.go.set()
        until(lambda: worker.is_idle)
        assert house.chat(max_tokens=2)[0] == 200
        page = house.send("GET", "/metrics")[2].decode()
        assert number(page, "demur_verdicts_total") == 1, "the others were given up"
        assert number(page, 'demur_requests_total{endpoint="chat",outcome="left"}') == 3


def test_who_goes_in_the_middle_of_a_stream_frees_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = Group.advance

    def crawl(group: Group) -> bool:
        time.sleep(0.02)
        return advance(group)

    monkeypatch.setattr(Group, "advance", crawl)
    with serving(limits=Limits(rows=1, answer=400, grace=5), length=400) as house:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi there"}], "stream": True}
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=20)
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode(), served.JSON)
        response = connection.getresponse()
        assert response.read(200)
        assert house.service.worker.taken == 1
        response.close()
        connection.close()
        until(lambda: house.service.worker.is_idle)
        page = house.send("GET", "/metrics")[2].decode()
        assert number(page, "demur_steps_total") < 200, "its row was not generated to its end"
        assert number(page, 'demur_requests_total{endpoint="chat",outcome="left"}') == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_ends_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_next", broken)
    with serving() as house:
        status, error = house.chat()
        assert (status, error["error"]["code"]) == (503, "stopping")
        until(lambda: not house.service.worker.is_alive)
        assert house.send("GET", "/ready")[0] == 503


def test_what_is_longer_than_the_context_is_told_by_the_code_that_clients_know() -> None:
    context = served.model().config.max_position_embeddings
    roomy = Limits(prompt=4 * context, answer=2 * context, grace=5)
    with serving(limits=roomy) as house:
        long = "x" * context
        for status, error in (
            house.chat(long),
            house.chat("Hi", max_tokens=context),
            house.post("/v1/completions", {"model": house.service.terms.served, "prompt": long}),
        ):
            assert (status, error["error"]["code"]) == (400, "context_length_exceeded")
            assert str(context) in error["error"]["message"]
            assert "xxx" not in error["error"]["message"]


def test_a_full_line_is_told_with_the_time_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with serving(limits=Limits(rows=1, waiting=1, grace=5)) as house, ThreadPoolExecutor(4) as pool:
        first = pool.submit(house.chat, max_tokens=2)
        until(lambda: house.service.worker.taken == 1)
        second = pool.submit(house.chat, max_tokens=2)
        until(lambda: len(house.service.worker.line) == 1)
        raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
        status, headers, body = house.send("POST", "/v1/chat/completions", raw, served.JSON)
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 60
        assert json.loads(body)["error"]["code"] == "queue_full"
        slow.go.set()
        assert first.result()[0] == second.result()[0] == 200


def test_an_answer_that_takes_too_long_is_given_up_and_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(limits=Limits(rows=1, seconds=1, grace=5)) as house:
        with monkeypatch.context() as patch:
            slow = Slow(patch)
            threading.Timer(1.2, slow.go.set).start()
            status, error = house.chat()
        assert status == 503
        assert error["error"]["code"] == "timeout"
        assert house.chat()[0] == 200


def test_a_fault_of_the_model_is_503_without_a_word_of_it_and_others_are_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as house:
        with monkeypatch.context() as patch:
            patch.setattr(Group, "advance", broken)
            status, error = house.chat("a secret wish")
        assert status == 503
        assert "secret" not in json.dumps(error) + caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert house.chat()[0] == 200
        with monkeypatch.context() as patch:
            patch.setattr(Group, "_read", no_memory)
            status, error = house.chat()
        assert (status, error["error"]["code"]) == (503, "memory")
        assert house.service.worker.room == 1
        assert house.chat()[0] == 200


def broken(of: Any) -> Any:
    raise ZeroDivisionError("a secret wish")


def no_memory(group: Group, step: Any) -> None:
    raise MemoryError


def test_the_end_lets_running_answers_end_and_takes_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with (
        serving(guard=served.flagging_at(99), limits=Limits(rows=1, waiting=8, grace=20)) as house,
        ThreadPoolExecutor(4) as pool,
    ):
        running = pool.submit(house.chat, stream=True)
        until(lambda: house.service.worker.taken == 1)
        waiting = pool.submit(house.chat)
        until(lambda: len(house.service.worker.line) == 1)
        house.running.stop()
        assert house.send("GET", "/ready")[0] == 503
        assert house.send("GET", "/health")[0] == 200
        status, headers, _ = house.send("POST", "/v1/chat/completions", b"{}", served.JSON)
        assert status == 503
        assert "retry-after" in headers
        slow.go.set()
        assert together(running.result()[1])["demur"]["verdict"]["flagged"] is False
        assert waiting.result()[0] == 503


def test_an_answer_that_has_not_ended_in_time_is_broken_off_with_its_verdict_so_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    advance = Group.advance

    def crawl(group: Group) -> bool:
        time.sleep(0.1)
        return advance(group)

    monkeypatch.setattr(Group, "advance", crawl)
    with serving(guard=served.flagging_at(99), limits=Limits(rows=1, grace=0)) as house, ThreadPoolExecutor(1) as pool:
        running = pool.submit(house.chat, stream=True)
        until(lambda: house.service.worker.groups and house.service.worker.groups[0].taken > 2)
        house.running.stop()
        last = running.result()[1][-1]
        assert last["error"]["code"] == "stopping"
        assert last["demur"]["verdict"]["flagged"] is False
        assert last["demur"]["looked"] > 0


# -- what is counted ------------------------------------------------------------------------------------------------


def test_requests_verdicts_tokens_steps_and_looks_are_counted(house: House) -> None:
    page = house.send("GET", "/metrics")[2].decode()
    for name in (
        "requests_total",
        "tokens_total",
        "steps_total",
        "waiting",
        "places",
        "group_rows_count",
        "look_seconds_sum",
    ):
        assert f"demur_{name}" in page
    prompt = let_pass(house)
    before = number(house.send("GET", "/metrics")[2].decode(), 'demur_verdicts_total{verdict="let_pass"}')
    house.chat(prompt)
    house.chat(n=2)
    page = house.send("GET", "/metrics")[2].decode()
    assert number(page, 'demur_verdicts_total{verdict="let_pass"}') == before + 1
    assert number(page, 'demur_requests_total{endpoint="chat",outcome="bad_request"}') >= 1


def test_the_log_holds_no_word_unless_asked_and_hides_it_unless_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    from demur.serving.logs import LOG, Log

    caplog.set_level("INFO", LOG.name)
    for words, seen in (("none", False), ("redacted", False), ("shown", True)):
        caplog.clear()
        with serving() as house:
            house.service.log = Log(words)  # type: ignore[arg-type]
            house.chat("How do I open the granary?")
        assert ("granary" in caplog.text) == seen
        assert ("asked" in caplog.text) == (words != "none")
    assert all(json.loads(record.message) for record in caplog.records if record.name == LOG.name)
