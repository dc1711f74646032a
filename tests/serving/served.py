"""A real server in a thread of this process, on a free port of loopback; and guards of the built-in models."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

import demur
from demur import guards as g
from demur.organism.attacks import attack
from demur.organism.world import prompts as world_prompts
from demur.samplers import build
from demur.serving import Address, Keys, Limits, Service, Terms
from demur.serving.running import Running
from demur.signals import Anchors, fit_anchors
from demur.testing.tiny import tiny
from demur.traces import Trace, generate
from demur.types import Prompt

LENGTH = 40
JSON = {"Content-Type": "application/json"}


T = 8
QUICK, SLOW = ("tiny/ar", "tiny/diffusion"), ("organism/ar", "organism/diffusion")


@cache
def model(name: str = "tiny/ar") -> Any:
    """A tiny random model, whose texts are bytes, or one of the organism's."""
    kinds = {"tiny/ar": "causal", "tiny/diffusion": "masked"}
    return tiny(kinds[name]) if name in kinds else demur.load(name)


@cache
def asked(name: str = "tiny/ar", n: int = 2) -> tuple[Prompt, ...]:
    """Requests; of the organism such that are answered, refused, and attacked."""
    if name in QUICK:
        return tuple(Prompt(f"q{i}", f"Prompt {i} about {i * i}.") for i in range(3 * n))
    forbidden = world_prompts("test", forbidden=True, n=n)
    plain = world_prompts("test", forbidden=False, n=n)
    return (*plain, *forbidden, *(attack("page", prompt) for prompt in forbidden))


@cache
def guard(name: str = "tiny/ar") -> g.Guard:
    """A guard that stops half of what is :func:`asked`: its limit is set for that."""
    of, sampler = model(name), build(None, model(name), steps=T)

    def run(prompts: Sequence[Prompt]) -> list[Trace]:
        return generate(of, prompts, sampler, length=LENGTH, steps=T, batch=64)

    if name in QUICK:  # such a model refuses nothing: its refusal anchor is made up
        traces = run([Prompt(f"p{i}", f"Request {i}?") for i in range(30)])
        phi = np.stack([trace.aligned("last", "generated") for trace in traces[:10]])
        push = 0.5 * np.random.default_rng(0).normal(size=phi.shape[1:]).astype(np.float32)
        away, ones = phi[::2].mean(axis=0) + push, np.ones(T, np.float32)
        spec = traces[0].spec.at("last", "generated")
        anchors = Anchors(phi.mean(axis=0), away, ones, ones, spec, "observed", 10, 10, 10, 10)
        fit, calibrate = traces[10:20], traces[20:]
    else:
        anchors = fit_anchors(*(run(world_prompts("anchors", forbidden=side, n=8)) for side in (False, True)))
        fit, calibrate = (run(world_prompts(split, forbidden=False, n=10)) for split in ("guard", "calibration"))
    made = g.fit_guard(anchors, fit, calibrate, alpha=0.1, detector="mean")
    highest = made.prefix.scores(anchors.signals(run(asked(name)))).max(axis=1)
    limit = replace(made.prefix.threshold, value=float(np.median(highest)))
    return replace(made, prefix=replace(made.prefix, threshold=limit))


def flagging_at(step: int) -> g.Guard:
    """A guard of the tiny autoregressive model that flags every answer after this step, and none before."""
    made = guard()
    late = np.arange(1, T + 1) >= step
    prefix = replace(made.prefix, centre=np.where(late, -20.0, 0.0), scale=np.where(late, 1e-3, 1e3))
    return replace(made, prefix=replace(prefix, threshold=replace(prefix.threshold, value=1.0)))


@dataclass(frozen=True)
class House:
    service: Service
    running: Running
    key: str = ""

    @property
    def port(self) -> int:
        return self.running.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request, and what came."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            own = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            connection.request(method, path, body, own | (headers or {}))
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        status, _, raw = self.send("POST", path, json.dumps(body).encode(), JSON)
        return status, json.loads(raw) if not body.get("stream") or status != 200 else events(raw)

    def chat(self, prompt: Prompt | str = "How do I open the granary?", **more: Any) -> tuple[int, Any]:
        turns = prompt.conversation if isinstance(prompt, Prompt) else None
        messages = (
            [{"role": t.role, "content": t.content} for t in turns] if turns else [{"role": "user", "content": prompt}]
        )
        return self.post("/v1/chat/completions", {"model": self.service.terms.served, "messages": messages} | more)


def events(raw: bytes) -> list[Any]:
    """The objects of a stream, without its last word."""
    lines = [line.removeprefix("data: ") for line in raw.decode("ascii").split("\n\n") if line]
    assert lines[-1] == "[DONE]", lines[-1]
    return [json.loads(line) for line in lines[:-1]]


def together(stream: list[Any]) -> dict[str, Any]:
    """A stream's parts put together, in the shape of a whole answer."""
    deltas = [choice["delta"] for event in stream for choice in event.get("choices", ())]
    refusals = [delta["refusal"] for delta in deltas if "refusal" in delta]
    (last,) = [e for e in stream if e.get("choices") and e["choices"][0]["finish_reason"] is not None]
    return {
        "content": "".join(delta.get("content", "") for delta in deltas),
        "refusal": refusals[0] if refusals else None,
        "finish": last["choices"][0]["finish_reason"],
        "demur": last["demur"],
    }


def whole(body: Any) -> dict[str, Any]:
    """The same of an answer that came whole."""
    (choice,) = body["choices"]
    return {
        "content": choice["message"]["content"] or "",
        "refusal": choice["message"]["refusal"],
        "finish": choice["finish_reason"],
        "demur": body["demur"],
    }


@contextmanager
def serving(
    of: Any = None, *, hold: int = 1, keys: Keys | None = None, key: str = "", hosts: tuple[str, ...] = (),
    tells: Any = "signal", served: str = "m", limits: Limits | None = None, **terms: Any,
) -> Iterator[House]:  # fmt: skip
    """A server until the block ends; its worker has ended then, too."""
    terms.setdefault("length", LENGTH)
    made = Terms(of if of is not None else model(), served, limits=limits or Limits(grace=5), **terms)
    service = Service(made, hold=hold, keys=keys or Keys(), hosts=hosts, tells=tells)
    running = Running(service, Address(port=0).bound())
    ready = threading.Event()
    thread = threading.Thread(target=running.run, args=(ready.set,))
    thread.start()
    try:
        assert ready.wait(30)
        yield House(service, running, key)
    finally:
        running.stop()
        thread.join(30)
        assert not thread.is_alive()
        assert service.worker.ended


def until(true: Any) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
