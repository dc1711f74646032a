"""The official client and curl get one verdict of an answer, streamed and not, from a server and through a proxy.

Inside vLLM: tests/engines/test_in_vllm.py.
"""

from __future__ import annotations

import shutil
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra serve")
pytest.importorskip("uvicorn", reason="the extra serve")
pytest.importorskip("prometheus_client", reason="the extra serve")
pytest.importorskip("httpx", reason="the extra serve")
pytest.importorskip("openai", reason="the extra judges")

import served
from clients import Came, all_ways
from fronts import proxied
from served import serving

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")]
NAME = "organism/ar"


def alike(came: list[Came]) -> dict[str, Any]:
    """Asserts that an answer said the same by all ways; what stands beside it."""
    first = came[0]
    for one in came[1:]:
        assert one.demur["verdict"] == first.demur["verdict"]
        assert one.demur["sigma"] == pytest.approx(first.demur["sigma"], abs=1e-5)
        assert (one.refusal, one.finish) == (first.refusal, first.finish)
    return dict(first.demur["verdict"])


def test_both_clients_get_one_verdict_whole_and_in_parts_from_a_server_and_through_a_proxy() -> None:
    of, guard = served.model(NAME), served.guard(NAME)
    with (
        serving(of, served=NAME) as plain,
        serving(of, guard=guard, served=NAME) as guarded,
        proxied(plain.url, guard, of, window=4) as front,
    ):
        flags = set()
        for prompt in served.asked(NAME):
            turns = [{"role": turn.role, "content": turn.content} for turn in prompt.conversation]
            body = {"model": NAME, "messages": turns, "temperature": 0, "seed": 1}
            here, through, bare = (all_ways(house.url, body) for house in (guarded, front, plain))
            verdict = alike(here)
            assert len({one.content for one in here}) == 1, "a server holds back without a stream, too"
            assert alike(through)["flagged"] == verdict["flagged"]
            assert alike(through)["step"] == verdict["step"]
            withheld = [one.content for one in through]
            assert withheld[0] == withheld[2]  # whole: nothing of a stopped answer
            assert withheld[1] == withheld[3]  # in parts: what was judged before
            assert alike(bare)["flagged"] is None
            flags.add(verdict["flagged"])
        assert flags == {True, False}
