"""Whole experiments: time and memory against the number of prompts, and what a second worker on Ray is worth.

Each run is a process of its own, since memory is what that process had at most.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import Clock, Ratio, Seconds, listed, pairwise, say

from demur.experiment.config import Attacked, Config, Prompts, Subject


def prompts(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """100, 1,000 and 10,000 prompts on the organism: seconds a prompt and the highest memory, once anchors are there.

    Linear and flat: a prompt takes as long, and the process as much memory, however many there are. The larger ones run
    once: the spread of their ratios is that of the short runs.
    """
    sizes = (100, 400) if quick else (100, 1_000, 10_000)
    least, case = sizes[0], "an experiment on organism/ar, 8 tokens"
    short = [run(_of(least)), run(_of(least))]  # every larger one stands between short ones, two on each side:
    took, ratios = {least: [found["seconds"] for found in short]}, []  # a run of a second says little by itself
    for n in sizes[1:]:
        found, before = run(_of(n)), short
        short = [run(_of(least)), run(_of(least))]
        took[n], took[least] = [found["seconds"]], took[least] + [of["seconds"] for of in short]
        for what, name, per in (("seconds a prompt", "seconds", n / least), ("highest memory", "memory", 1.0)):
            pairs = tuple(found[name] / per / of[name] for of in (*before, *short))
            ratios.append(Ratio(case, f"{what}, {n:,} prompts / {least:,}", pairs, 1.2, most=True))
    return [Seconds(case, f"{n:,} prompts", tuple(took[n])) for n in sizes], ratios


def ray(quick: bool, clock: Clock) -> tuple[list[Seconds], list[Ratio]]:
    """The same units by one worker and by two, on a local Ray cluster; starting it is not counted."""
    rounds, config = 1 if quick else 3, _of(800 if quick else 2_000, length=32)
    took: dict[str, list[float]] = {"one worker": [], "two workers": []}
    for _ in range(rounds):
        for workers, name in enumerate(took, 1):
            took[name].append(run(config, engine="ray", workers=workers)["seconds"])
    case = "an experiment on Ray"
    pairs = pairwise(took["one worker"], took["two workers"])
    return listed(case, took), [Ratio(case, "one worker / two workers", pairs, 1.6)]


def run(config: Config, **how: Any) -> Mapping[str, float]:
    """One experiment in a new process: seconds of generating all units, and its highest resident memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, __file__, folder, json.dumps([config.prompts.n * (1 + len(WRAPS)), config.length, how])]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    size = f"{config.prompts.n * (1 + len(WRAPS)):,} prompts {how or ''}"
    say(f"  {size}: {found['seconds']:.1f} s, {found['memory'] / 2**20:.0f} MiB")
    return found


WRAPS = ("prefix", "suppression", "role", "page")


def _of(n: int, length: int = 8) -> Config:
    """An experiment of ``n`` prompts: the world has 4,224 plain ones for tests, so they are asked wrapped, too."""
    requests = n // (1 + len(WRAPS))
    wanted = Prompts("organism", "organism", n=requests, controls=0, anchors=40, fit=104, calibrate=52)
    attacks, chunk = tuple(Attacked(f"organism/{name}") for name in WRAPS), 20
    how: dict[str, Any] = {"judge": "organism", "length": length, "steps": 8, "alpha": 0.05, "chunk": chunk}
    return Config("growth", (Subject("organism/ar"),), wanted, attacks, **how)


def _here(folder: Path, n: int, length: int, how: Mapping[str, Any]) -> None:
    import resource
    import time

    import torch

    from demur.experiment.runs import evaluate

    torch.set_num_threads(1)
    ends: list[tuple[float, int]] = []

    def progress(what: str, done: int, of: int) -> None:
        if what == "generating":
            ends.append((time.perf_counter(), done))

    evaluate(_of(n, length), folder / "run", progress=progress, **how)
    # This process has its model from making the anchors; Ray's other workers load it with their first units.
    (begun, first), (ended, last) = ends[8 if how else 0], ends[-1]
    seconds = (ended - begun) / (last - first) * last
    print(json.dumps({"seconds": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    size, tokens, engine = json.loads(sys.argv[2])
    _here(Path(sys.argv[1]), size, tokens, engine)
