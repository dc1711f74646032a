"""Ids of requests, and counters as text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from demur.engines.vllm.options import REQUEST, asked, options_of, tag_of
from demur.engines.vllm.routes import WithId, as_text, bare


@pytest.mark.parametrize("sent", [[], [(b"x-request-id", b"mine")], [(b"x-request-id", b"")]])
def test_every_request_has_an_id_that_the_engine_uses_too(sent: list[Any]) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((REQUEST.get(), dict(scope["headers"])[b"x-request-id"].decode()))

    asyncio.run(WithId(app)({"type": "http", "headers": sent}, None, None))
    ((inside, header),) = seen
    assert inside == header
    assert (inside == "mine") == any(value for _, value in sent)
    assert REQUEST.get() == ""


@pytest.mark.parametrize("sent", [[], [(b"x-request-id", b"mine")], [(b"x-request-id", b"no \xe9 tag\n")]])
def test_every_answer_tells_under_which_id_its_verdict_is_kept(sent: list[Any]) -> None:
    inside, came = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append(REQUEST.get())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Any) -> None:
        came.append(message)

    asyncio.run(WithId(app)({"type": "http", "headers": sent}, None, send))
    assert dict(came[0]["headers"]) == {b"a": b"b", b"x-demur-id": inside[0].encode("ascii")}
    assert came[1] == {"type": "http.response.body", "body": b"{}"}


def test_an_id_that_is_no_tag_is_known_by_its_hash() -> None:
    assert tag_of("a-b") == "a-b"
    assert tag_of("a b\n") == tag_of("a b\n") != tag_of("a b")
    assert asked(options_of({"DEMUR_GUARDS": "g=x"}), {"demur": "g", "demur_id": tag_of("é" * 999)}).id


def test_what_is_no_request_passes_through() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    asyncio.run(WithId(app)({"type": "lifespan"}, None, None))
    assert seen == [{"type": "lifespan"}]


def test_an_answers_id_is_found_with_and_without_its_beginning() -> None:
    assert [bare(x) for x in ("chatcmpl-a-b", "cmpl-a-b", "a-b")] == ["a-b"] * 3


def test_counters_are_what_prometheus_reads() -> None:
    assert 'demur_requests{guard="g",outcome="not_watched"} 2\n' in as_text({"g": {"not watched": 2}})
