"""What an engine sends beside the text that was asked for, or in other bytes: judged, told as an error, or noted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")
pytest.importorskip("httpx", reason="the extra serve")

import server as engines
from fronts import TEXT, never, proxied, says
from served import together, whole

OTHERS: list[dict[str, Any]] = [
    {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "rm", "arguments": "{}"}}]},
    {"function_call": {"name": "rm", "arguments": "{}"}},
    {"audio": {"data": "AA=="}},
    {"images": [{"image_url": {"url": "data:"}}]},
]


def sends(raw: bytes, kind: str = "text/event-stream", **headers: str) -> Callable[[Any, int], None]:
    """An engine that answers with these bytes, cut anywhere: one at a time."""

    def act(handler: Any, number: int) -> None:
        handler.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(raw)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        for at in range(len(raw)):
            handler.wfile.write(raw[at : at + 1])
            handler.wfile.flush()

    return act


def part(content: Any = None, end: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content} | more, "finish_reason": end}]}


def event(body: dict[str, Any], ascii_: bool = True) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=ascii_)}\n\n".encode("utf-8", "surrogatepass")


END = event(part(end="stop")) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("content", [None, "Once."])
@pytest.mark.parametrize("more", OTHERS, ids=lambda more: next(iter(more)))
def test_what_nobody_judges_beside_a_text_is_an_error_and_not_left_out(
    more: dict[str, Any], content: str | None, stream: bool
) -> None:
    (name,) = more
    message = {"role": "assistant", "content": content} | more
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
    act = sends(event(part(content, **more)) + END) if stream else sends(body, "application/json")
    with engines.serving(act) as engine, proxied(engine.url, never()) as front:
        status, told = front.ask(stream=stream)
        assert (status, told["error"]["code"]) == (503, "upstream")
        assert name in told["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_fields_that_are_there_and_empty_are_nothing(stream: bool) -> None:
    more = {"tool_calls": [], "function_call": None, "audio": None, "reasoning_content": "", "refusal": None}
    body = {"choices": [{"index": 0, "message": {"content": TEXT} | more, "finish_reason": "stop"}], "error": None}
    act = (
        sends(event(part(TEXT, **more) | {"error": None}) + END)
        if stream
        else sends(json.dumps(body).encode(), "application/json")
    )
    with engines.serving(act) as engine, proxied(engine.url, never()) as front:
        said = front.ask(stream=stream, temperature=0)[1]
        said = together(said) if stream else whole(said)
        assert said["content"] == TEXT
        assert "note" not in said["demur"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "reasoning_details"])
def test_thoughts_do_not_leave_and_the_verdict_says_that_they_were_not_read(name: str, stream: bool) -> None:
    more = {name: [{"text": "a secret plan"}] if name.endswith("details") else "a secret plan"}
    body = {"choices": [{"index": 0, "message": {"content": TEXT} | more, "finish_reason": "stop"}]}
    act = (
        sends(event(part(**more)) + event(part(TEXT)) + END)
        if stream
        else sends(json.dumps(body).encode(), "application/json")
    )
    with engines.serving(act) as engine, proxied(engine.url, never()) as front:
        status, told = front.ask(stream=stream, temperature=0)
        assert status == 200
        assert "secret" not in json.dumps(told)
        said = together(told) if stream else whole(told)
        assert "has not read" in said["demur"]["note"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("details", "noted"),
    [({"reasoning_tokens": 9}, True), ({"reasoning_tokens": 0}, False), ({}, False), (None, False)],
)
def test_thoughts_that_an_engine_only_counts_are_noted_as_well(details: Any, noted: bool, stream: bool) -> None:
    usage = {"total_tokens": 12, "completion_tokens_details": details}
    body = {"choices": [{"index": 0, "message": {"content": TEXT}, "finish_reason": "stop"}], "usage": usage}
    raw = event(part(TEXT)) + event(part(end="stop")) + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    act = sends(raw) if stream else sends(json.dumps(body).encode(), "application/json")
    with engines.serving(act) as engine, proxied(engine.url, never()) as front:
        told = front.ask(stream=stream, temperature=0)[1]
        said = together(told) if stream else whole(told)
        assert ("has not read" in said["demur"].get("note", "")) == noted


BROKEN = {
    "an event of errors": b'event: error\ndata: {"message": "out of memory"}\n\n',
    "an error that is no choice": event({"object": "error", "message": "out of memory", "code": 500}),
    "an error beside choices": event({"error": {"message": "out of memory"}, "choices": []}),
    "a field of errors": b'error: {"code": 500, "message": "out of memory"}\n\n',
    "bytes that are no text": b'data: {"choices": [{"index": 0, "delta": {"content": "\xff\xfe"}}]}\n\n',
    "half a character": event(part("\ud83d")) + event(part("x")),
    "the second half alone": event(part("\ude00")),
    "a number that is none": b'data: {"created": 1e999, "choices": []}\n\n',
}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_stream_in_which_something_broke_is_not_told_as_a_finished_one(kind: str, begun: bool) -> None:
    before = event(part("Once upon ")) if begun else b""
    with engines.serving(sends(before + BROKEN[kind] + END)) as engine, proxied(engine.url, never(), window=1) as front:
        status, told = front.ask(stream=True)
        error = told["error"] if status != 200 else told[-1]["error"]
        assert error["code"] == "upstream"
        assert "memory" not in json.dumps(told)
        parts = told if status == 200 else []
        assert not any(choice["finish_reason"] for one in parts for choice in one.get("choices", ()))


def test_the_first_half_of_a_character_at_the_very_end_is_an_error() -> None:
    with engines.serving(sends(event(part("Once \ud83d")) + END)) as engine, proxied(engine.url, never()) as front:
        assert "half a character" in json.dumps(front.ask(stream=True)[1])
    body = json.dumps({"choices": [{"index": 0, "message": {"content": "Once \ud83d"}, "finish_reason": "stop"}]})
    with engines.serving(sends(body.encode(), "application/json")) as engine, proxied(engine.url, never()) as front:
        assert front.ask()[0] == 503


PLAIN = [part("Über "), part("ein"), part("en Müller 🙂"), part(" da.")]


@pytest.mark.parametrize(
    "raw",
    [
        b"".join(map(event, PLAIN)) + END,
        b"".join(event(one, ascii_=False) for one in PLAIN) + END,
        b"\xef\xbb\xbf" + b"".join(map(event, PLAIN)) + END,
        (b"".join(map(event, PLAIN)) + END).replace(b"\n", b"\r\n"),
        b": ping\n\n" + b": ping\nid: 3\nretry: 10\nevent: message\n".join([b"", *map(event, PLAIN), END]),
        (b"".join(map(event, PLAIN)) + END).replace(b"data: ", b"data:"),
        (b"".join(map(event, PLAIN)) + END).rstrip(b"\n"),
        (b"".join(map(event, PLAIN)) + END).rstrip(b"\n") + b"\n",
        b"".join(event(one).replace(b', "finish', b',\ndata: "finish') for one in PLAIN) + END,
        b"".join(map(event, [*PLAIN[:2], part("en Müller \ud83d"), part("\ude42 da.")])) + END,
        b"".join(map(event, PLAIN)) + event({"choices": [], "usage": {"total_tokens": 3}}) + END,
        b"".join(map(event, PLAIN)) + event({"usage": {"total_tokens": 3}}) + END,
    ],
    ids=["ascii", "utf-8", "mark", "crlf", "comments", "no blank", "no end of line", "one end of line", "two lines",
         "halves", "usage", "usage alone"],
)  # fmt: skip
def test_however_a_stream_is_written_and_cut_its_text_is_the_same(raw: bytes) -> None:
    packed = gzip.compress(raw)
    for act in (sends(raw), sends(packed, Content_Encoding="gzip")):
        with engines.serving(act) as engine, proxied(engine.url, never(), window=1) as front:
            said = together(front.ask(stream=True)[1])
            assert said["content"] == "Über einen Müller 🙂 da."
            assert (said["finish"], said["demur"]["verdict"]["flagged"]) == ("stop", False)


@pytest.mark.parametrize("before", [{"id": "", "created": 0, "model": ""}, {"id": "filters"}, {}])
def test_every_part_has_the_id_of_the_answer_whatever_comes_before_it(before: dict[str, Any]) -> None:
    head = {"id": "e1", "created": 7, "model": "m-1"}
    filters = before | {"object": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    raw = event(filters) + b"".join(event(head | one) for one in [*PLAIN, part(end="stop")]) + b"data: [DONE]\n\n"
    with engines.serving(sends(raw)) as engine, proxied(engine.url, never()) as front:
        told = front.ask(stream=True)[1]
        assert [{name: one[name] for name in head} for one in told] == [head] * len(told)
    with engines.serving(sends(event(filters) + b"data: [DONE]\n\n")) as engine, proxied(engine.url, never()) as front:
        assert front.ask(stream=True)[0] == 503, "no answer is an error, told by a status"


@pytest.mark.parametrize("where", ["beside the end", "beside every part", "alone", "without choices", "never"])
def test_usage_is_told_where_the_engine_tells_it_and_no_part_is_added_for_it(where: str) -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
    beside = {"usage": usage} if where.startswith("beside") else {}
    parts = [one | ({"usage": usage} if where == "beside every part" else {}) for one in PLAIN]
    alone = {"alone": event({"choices": [], "usage": usage}), "without choices": event({"usage": usage})}
    raw = b"".join(map(event, parts)) + event(part(end="stop") | beside) + alone.get(where, b"")
    with engines.serving(sends(raw + b"data: [DONE]\n\n")) as engine, proxied(engine.url, never()) as front:
        told = front.ask(stream=True)[1]
    assert [one["usage"] for one in told if one.get("usage")] == ([] if where == "never" else [usage])
    assert [one for one in told if not one["choices"]] == (told[-1:] if where in alone else [])


@pytest.mark.parametrize("cut", [40, 80, 120])
def test_a_packed_stream_that_is_cut_is_an_error(cut: int) -> None:
    packed = gzip.compress(b"".join(map(event, PLAIN)) + END)[:-cut]
    with engines.serving(sends(packed, Content_Encoding="gzip")) as engine, proxied(engine.url, never()) as front:
        status, told = front.ask(stream=True)
        assert (told["error"] if status != 200 else told[-1]["error"])["code"] == "upstream"


def test_an_engine_that_says_no_more_than_it_was_asked_gets_no_note() -> None:
    with engines.serving(says()) as engine, proxied(engine.url, never()) as front:
        assert "note" not in front.ask(temperature=0)[1]["demur"]
