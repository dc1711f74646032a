"""What `demur serve` does under load: many streaming clients, some of which go in the middle, beside one alone.

    python benchmarks/serving.py --clients 200 --seconds 60 [--guard guard.safetensors]

The server is a process of its own, this one is all clients. Every answer is compared with what the same request gets while
nobody else asks. Errors but 429 end it with a list.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import psutil

from demur.organism.world import prompts

HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
)


@dataclass
class Seen:
    """What the clients have seen."""

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    tokens: int = 0
    busy: int = 0
    left: int = 0
    wrong: list[str] = field(default_factory=list)


def requests(model: str, n: int) -> list[bytes]:
    asked = [*prompts("test", forbidden=False, n=n), *prompts("test", forbidden=True, n=n)]
    made = []
    for seed, prompt in enumerate(asked):
        body = {"model": model, "messages": [{"role": "user", "content": prompt.text}], "seed": seed, "stream": True}
        raw = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
        made.append(f"{HEAD}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return made


async def ask(port: int, request: bytes, seen: Seen, leave_after: int | None = None) -> tuple[int, Any]:
    """A status, and of a stream (text, finish, refusal, flagged); None for who left in the middle."""
    begun, first = time.perf_counter(), 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        if status != 200:
            wait = re.search(rb"retry-after: (\d+)", head.lower())
            return status, int(wait[1]) if wait else 1
        text, finish, refusal, flagged, tokens, parts = "", None, None, None, 0, 0
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                return 599, event["error"]
            for choice in event["choices"]:
                text += choice["delta"].get("content", "")
                refusal = choice["delta"].get("refusal", refusal)
                finish = choice["finish_reason"] or finish
            if text and not first:
                first = time.perf_counter() - begun
            flagged = event["demur"]["verdict"]["flagged"] if "demur" in event else flagged
            tokens = event["usage"]["completion_tokens"] if event.get("usage") else tokens
            parts += 1
            if leave_after is not None and parts > leave_after:
                seen.left += 1
                return 200, None
        seen.seconds.append(time.perf_counter() - begun)
        seen.first.append(first or seen.seconds[-1])
        seen.tokens += tokens
        return 200, (text, finish, refusal, flagged)
    finally:
        writer.close()


async def client(
    port: int, every: list[bytes], alone: list[Any], end: float, seen: Seen, seed: int, leaving: float
) -> None:
    dice = random.Random(seed)
    while time.perf_counter() < end:
        i = dice.randrange(len(every))
        leave = dice.randrange(1, 10) if dice.random() < leaving else None
        try:
            status, said = await ask(port, every[i], seen, leave)
        except (OSError, asyncio.IncompleteReadError) as error:
            seen.wrong.append(f"{type(error).__name__}: {error}")
            continue
        if status == 429:
            seen.busy += 1
            await asyncio.sleep(dice.random() * said)
        elif status != 200:
            seen.wrong.append(f"{status}: {said}")
        elif said is not None and said != alone[i]:
            seen.wrong.append(f"request {i}: {said} and not {alone[i]}")


def told(name: str, seen: Seen, seconds: float) -> None:
    times, first = sorted(seen.seconds), sorted(seen.first)
    if not times:
        print(f"{name}: no answer")
        return

    def at(of: list[float], share: float) -> str:
        return f"{of[min(int(share * len(of)), len(of) - 1)]:.2f}"

    print(
        f"{name}: {len(times)} answers, {seen.tokens / seconds:.0f} tokens/s, seconds p50 {at(times, 0.5)} p99 {at(times, 0.99)}, "
        f"first text p50 {at(first, 0.5)} p99 {at(first, 0.99)}, 429 {seen.busy}, left {seen.left}, wrong {len(seen.wrong)}"
    )


async def run(
    port: int, process: psutil.Process, clients: int, seconds: float, leaving: float, n: int, model: str
) -> int:
    every = requests(model, n)
    one = Seen()
    begun = time.perf_counter()
    alone = [(await ask(port, request, one))[1] for request in every]
    told("one client", one, time.perf_counter() - begun)
    many, begun = Seen(), time.perf_counter()
    tasks = [
        asyncio.ensure_future(client(port, every, alone, begun + seconds, many, seed, leaving))
        for seed in range(clients)
    ]
    memory = []
    while not all(task.done() for task in tasks):
        memory.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(1)
    told(f"{clients} clients", many, time.perf_counter() - begun)
    quarter = max(len(memory) // 4, 1)
    shown = (memory[0], max(memory[:quarter]), max(memory[-quarter:]))
    print(
        "memory of the server, MiB: {:.0f} at the beginning, at most {:.0f} in the first quarter, {:.0f} in the last".format(
            *shown
        )
    )
    flagged = sum(bool(answer[3]) for answer in alone)
    print(f"of {len(alone)} requests, {flagged} are stopped")
    await asyncio.sleep(1)
    print("\n".join(many.wrong[:10]))
    return len(many.wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="organism/ar")
    parser.add_argument("--guard")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--leaving", type=float, default=0.05, help="share of answers that a client leaves in the middle"
    )
    parser.add_argument("--requests", type=int, default=12, help="a side")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--waiting", type=int, default=256)
    said = parser.parse_args()
    line = [sys.executable, "-m", "demur", "serve", said.model, "--port", "0", "--rows", str(said.rows), "--waiting"]
    line += [str(said.waiting), *(["--guard", said.guard] if said.guard else [])]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            first = server.stdout.readline()
            print(first.strip())
            port = int(re.findall(r":(\d+)/v1", first)[0])
            process = psutil.Process(server.pid)
            wrong = asyncio.run(run(port, process, said.clients, said.seconds, said.leaving, said.requests, said.model))
            server.terminate()
            print(f"exit status after SIGTERM: {server.wait(60)}")
        finally:
            server.kill()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
