"""What tests of the guard inside vLLM share: guards of the organism, what demur itself makes of prompts, and a process
that runs one engine.

``python inside.py reference FOLDER SUBJECT`` writes guards and what ``Watch`` does with them; ``python inside.py engine
FOLDER JSON`` answers the same prompts in vLLM with settings of its own, and writes what came of it. Subjects: the
``organism``, and ``smollm2``, a real chat model that is written into the folder for it, since vLLM reads no GGUF here.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

LENGTH = 40
GUARDS = {
    "whole": {"signal": "whitened", "pool": "generated", "detector": None, "upto": LENGTH, "steps": 16},
    "paper": {"signal": "sri", "pool": "producing", "detector": "autoencoder", "upto": 0, "steps": 16},
    "early": {"signal": "whitened", "pool": "producing", "detector": "window", "upto": 0, "steps": 8},
}


def asked(n: int) -> list[Any]:
    """Prompts of the organism: allowed ones, forbidden ones, and forbidden ones with the beginning of an answer."""
    from demur.organism.world import prompts

    return _with_prefixes(*(prompts("test", forbidden=which, n=n // 2) for which in (False, True)))


def _with_prefixes(plain: list[Any], forbidden: list[Any]) -> list[Any]:
    from demur.attacks import make

    return [*plain, *(make("prefix")(one) if i % 2 else one for i, one in enumerate(forbidden))]


def _sets_of(subject: str, n: int) -> tuple[list[Any], list[list[Any]]]:
    """``n`` requests to compare on, and those of the anchors (both sides), of the fit and of the calibration."""
    if subject == "organism":
        from demur.organism.world import prompts

        sets = [prompts("anchors", forbidden=which, n=40) for which in (False, True)]
        return asked(n), [*sets, prompts("guard", forbidden=False, n=60), prompts("calibration", forbidden=False, n=40)]
    from demur.prompts import packaged

    harmless, harmful = packaged("harmless"), packaged("harmful")
    tests = _with_prefixes(harmless[200 : 200 + n // 2], harmful[120 : 120 + n // 2])
    return tests, [harmless[:40], harmful[:40], harmless[40:80], harmless[80:110]]


def _of(subject: str, folder: Path) -> str:
    """The model's name. What comes as GGUF is written as a folder that vLLM reads, once."""
    if subject == "organism":
        from demur.models.locate import organism_path

        return str(organism_path("organism/ar"))
    import demur

    written = folder / subject
    if not written.is_dir():
        model: Any = demur.load(subject, dtype="float32")
        model.net.save_pretrained(written)
        model.tokenizer.save_pretrained(written)
    return str(written)


def _at_all_steps(guard: Any, sigma: Any, beyond: Any) -> Any:
    """The guard with limits between the worst scores of the very answers: so that flags come at steps of all sorts."""
    from dataclasses import replace

    import numpy as np

    prefix = guard.prefix
    limit = float(np.quantile(prefix.scores(sigma).max(axis=1), 0.8 if guard.tail else 0.5))
    prefix = replace(prefix, threshold=replace(prefix.threshold, value=limit))
    if guard.tail is None:
        return replace(guard, prefix=prefix)
    worst = float(np.quantile([1.0 - row.min() for row in beyond if len(row)], 0.5))
    tail = replace(guard.tail, threshold=replace(guard.tail.threshold, value=worst))
    return replace(guard, prefix=prefix, tail=tail)


def reference(folder: Path, subject: str = "organism", n: int = 100) -> None:
    import numpy as np

    import demur
    from demur.guards import Watch, acted, fit_guard
    from demur.samplers import Autoregressive
    from demur.signals import fit_anchors

    place = _of(subject, folder)
    model, sampler = demur.load("organism/ar" if subject == "organism" else place), Autoregressive()
    pools = [("last", "generated"), ("last", "producing")]
    told: dict[str, Any] = {}

    def answered(some: Any, steps: int, through: Any = sampler) -> Any:
        return demur.generate(model, some, through, length=LENGTH, steps=steps, pools=pools, batch=25)

    tests, sets = _sets_of(subject, n)
    canvas = model.canvas(tests, 1)
    ids = [row[~pad & ~open_].tolist() for row, pad, open_ in zip(canvas.ids, canvas.pad, canvas.open, strict=True)]
    by_steps: dict[int, Any] = {}
    for name, how in GUARDS.items():
        steps = int(how["steps"])  # type: ignore[call-overload]
        if steps not in by_steps:
            by_steps[steps] = [answered(some, steps) for some in (*sets, tests)]
        good, bad, fit, calibrate, own = by_steps[steps]
        where: Any = {"layer": "last", "pool": how["pool"], "signal": how["signal"]}
        anchors = fit_anchors(good, bad, at_least=5, **where)
        guard = fit_guard(anchors, fit, calibrate, alpha=0.2, detector=how["detector"], upto=how["upto"])
        guard = _at_all_steps(guard, anchors.signals(own), [anchors.beyond(trace) for trace in own])
        guard.save(folder / f"{name}.safetensors")
        watched = answered(tests, steps, Watch(guard)(sampler))
        told[name] = {
            "pool": how["pool"],
            "sigma": [row.tolist() for row in anchors.signals(own)],
            "beyond": [np.asarray(anchors.beyond(trace)).tolist() for trace in own],
            "stops": [acted(trace).step for trace in watched],
        }
    written = [trace.tokens().tolist() for trace in by_steps[16][4]]
    lengths = [trace.steps for trace in by_steps[16][4]]
    whole = {
        "model": place,
        "ids": ids,
        "answers": written,
        "steps": lengths,
        "guards": told,
        "eos": sorted(model.stop_ids),
    }
    (folder / "reference.json").write_text(json.dumps(whole))


def _overlaps() -> None:
    """Asynchronous scheduling, which vLLM takes back on a CPU; its code runs there all the same."""
    from vllm.platforms.cpu import CpuPlatform

    own = CpuPlatform.check_and_update_config.__func__

    def overlapping(cls: Any, vllm_config: Any) -> None:
        own(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    CpuPlatform.check_and_update_config = classmethod(overlapping)


def _counting() -> list[str]:
    """The requests that the scheduler has put aside for want of memory, as they come to be."""
    from vllm.v1.core.sched.scheduler import Scheduler

    own, seen = Scheduler._preempt_request, list[str]()

    def counted(self: Any, request: Any, *rest: Any, **more: Any) -> Any:
        seen.append(request.request_id)
        return own(self, request, *rest, **more)

    Scheduler._preempt_request = counted
    return seen


def engine(folder: Path, settings: dict[str, Any]) -> None:
    """Settings: ``llm`` for the engine, ``mode``, ``default``, ``asks`` (guards by turns), ``rounds`` of requests that
    come while others run, ``abort`` some.
    """
    os.environ["DEMUR_GUARDS"] = ",".join(f"{name}={folder / name}.safetensors" for name in GUARDS)
    os.environ["DEMUR_MODE"] = settings.get("mode", "watch")
    os.environ.update(settings.get("env", {}))
    import vllm
    from vllm import LLM, SamplingParams

    if settings.get("overlap"):
        _overlaps()
    known = json.loads((folder / "reference.json").read_text())
    options: dict[str, Any] = {
        "model": known["model"], "dtype": "float32", "enforce_eager": True, "max_model_len": 256,
        "seed": 0, "worker_extension_cls": "demur.engines.vllm.extension.Extension", "max_num_seqs": 16,
        "disable_log_stats": True,
    } | settings.get("llm", {})  # fmt: skip
    llm = LLM(**options)
    names = settings.get("asks", [*GUARDS])
    n = settings.get("n", len(known["ids"]))

    def params(i: int) -> Any:
        extra = {"demur": names[i % len(names)], "demur_id": f"r{i}"}
        return SamplingParams(temperature=0.0, max_tokens=LENGTH, extra_args=extra, **settings.get("params", {}))

    answers: dict[int, Any] = {}
    core = llm.llm_engine
    put_aside = _counting()
    waiting, running, turn = list(range(n)), set[int](), 0
    aborted = []
    while waiting or core.has_unfinished_requests():
        for _ in range(min(len(waiting), 1 + turn * 7 % 5 if turn else 12)):  # they come by ones and fives
            i = waiting.pop(0)
            core.add_request(str(i), {"prompt_token_ids": known["ids"][i]}, params(i))
            running.add(i)
        turn += 1
        if settings.get("abort") and turn % 9 == 0 and running:
            i = max(running)
            core.abort_request([str(i)])
            aborted.append(i)
            running.discard(i)
        for output in core.step():
            if output.finished:
                answers[int(output.request_id)] = list(output.outputs[0].token_ids)
                running.discard(int(output.request_id))
    verdicts = {one["id"]: one for one in llm.collective_rpc("demur_verdicts")[0]}
    status = llm.collective_rpc("demur_status")[0]
    config = core.vllm_config
    came = {
        "answers": [answers.get(i) for i in range(n)],
        "verdicts": [verdicts.get(f"r{i}") for i in range(n)],
        "guards": [names[i % len(names)] for i in range(n)],
        "aborted": aborted,
        "status": status,
        "turns": turn,
        "put_aside": len(put_aside),
        "async": config.scheduler_config.async_scheduling,
        "version": vllm.__version__,
    }
    Path(settings["out"]).write_text(json.dumps(came))


if __name__ == "__main__":
    if sys.argv[1] == "reference":
        reference(Path(sys.argv[2]), *sys.argv[3:])
    else:
        engine(Path(sys.argv[2]), json.loads(sys.argv[3]))
