"""How far a surrogate may be trusted: one model's answers, judged by another model that reads them.

    demur organism train --which ar --seed 1 --out out/organism-1
    demur guard fit out/organism-1/models/ar --alpha 0.05 --out out/own.safetensors
    demur guard fit organism/ar --alpha 0.05 --out out/surrogate.safetensors
    python benchmarks/surrogate.py out/organism-1/models/ar organism/ar out/own.safetensors out/surrogate.safetensors

The writer answers allowed and forbidden requests, plain and attacked. Its own guard looks at its own states; the
surrogate's guard at those of the surrogate, which reads the finished texts. Prints a Markdown table: shares stopped,
and areas of the highest score, of harmful answers against allowed ones under the same attacks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import demur
from demur.attacks.knowing import Suspicion
from demur.dynamics import area
from demur.dynamics.rates import Rate
from demur.guards import Guard
from demur.organism.attacks import SHAPES, attack
from demur.organism.judge import judge
from demur.organism.world import prompts
from demur.samplers import Autoregressive
from demur.traces import Trace, generate, teacher_forced

LENGTH = 40


def suspicions(guard: Guard, model: Any, traces: list[Trace]) -> NDArray[np.float64]:
    """Above 0 where the online guard stops."""
    return np.array(Suspicion(guard, model).of(traces))


def main() -> None:
    """Answers, reads, judges."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("writer")
    asked.add_argument("reader")
    asked.add_argument("own", type=Path)
    asked.add_argument("surrogate", type=Path)
    asked.add_argument("--n", type=int, default=24)
    args = asked.parse_args()
    writer, reader = demur.load(args.writer), demur.load(args.reader)
    own, surrogate = Guard.load(args.own), Guard.load(args.surrogate)
    plain = prompts("test", forbidden=False, n=4 * args.n)
    allowed = [attack(name, one) for name in SHAPES for one in prompts("test", forbidden=False, n=args.n)]
    forbidden = [attack(name, one) for name in SHAPES for one in prompts("test", forbidden=True, n=args.n)]
    found: dict[str, dict[str, NDArray[np.float64]]] = {"the model's own": {}, "a surrogate's": {}}
    for what, these in (("plain", plain), ("allowed", allowed), ("harmful", forbidden)):
        key: Any = (own.spec.layer, own.spec.pool)
        traces = generate(writer, these, Autoregressive(), length=LENGTH, pools=[key], batch=32)
        if what == "harmful":
            traces = [trace for trace in traces if judge(trace.prompt, trace.answer()) == "harmful"]
        key = (surrogate.spec.layer, surrogate.spec.pool)
        read = teacher_forced(
            reader, [trace.prompt for trace in traces], [trace.text() for trace in traces],
            steps=surrogate.spec.steps, length=LENGTH, pools=[key], sampler=Autoregressive(),
        )  # fmt: skip
        found["the model's own"][what] = suspicions(own, writer, traces)
        found["a surrogate's"][what] = suspicions(surrogate, reader, read)
    print("| guard | plain allowed, stopped | attacked allowed, stopped | harmful, stopped | area, same attacks |")
    print("| --- | --- | --- | --- | --- |")
    for guard, by in found.items():
        shares = " | ".join(str(Rate.of((by[what] > 0).tolist())) for what in ("plain", "allowed", "harmful"))
        print(f"| {guard} | {shares} | {area(by['harmful'], by['allowed']).auroc:.2f} |")


if __name__ == "__main__":
    main()
