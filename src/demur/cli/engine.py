"""``demur guard check`` and ``demur guard recalibrate``: a guard against an engine that runs."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.asked import Columns, columns_of
from demur.cli.guard import LEAST_TO_FIT, prompts_for
from demur.cli.options import GuardDetector, out_to
from demur.cli.places import check_writable
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.engines.endpoint import Answered, Served
    from demur.guards import Guard
    from demur.types import Prompt

Engine = Annotated[str, typer.Option(help="Address of the engine, such as http://localhost:8000 (docs/vllm.md).")]
Harmless = Annotated[str, typer.Option(help="Prompts: harmless, organism, alpaca, a file or hf:owner/name.")]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", help="The engine's name of the model. Default: its first.")
]
AtOnce = Annotated[int, typer.Option(min=1, help="Requests that run together.")]
Key = Annotated[str, typer.Option(help="Environment variable that holds the engine's API key.")]
File = Annotated[Path, typer.Argument(help="A file of `demur guard fit`, which the engine was started with.")]


def check(
    path: File,
    engine: Engine,
    harmless: Harmless = "",
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Harmless prompts that the guard has not seen.")] = 200,
    model: ModelName = None,
    at_once: AtOnce = 8,
    key_env: Key = "OPENAI_API_KEY",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    detector: GuardDetector = None,
    column: Columns = None,
) -> None:
    """Measure a guard in the engine that runs it: holds, stale or undecided. Exit code 1 for stale, 3 for undecided."""
    from demur.engines.check import checked
    from demur.guards import Guard

    guard = Guard.load(path, detector=detector)
    (*_, asked) = prompts_for(guard, harmless, [0, 0, 0, n], columns_of(column))
    served, named = _served(path, engine, key_env)
    found = checked(guard, _answers(served, named, guard, asked, model, at_once), served.status()["engine"])
    if as_json:
        print(json.dumps(found.plain()))
    else:
        console = out_to()
        colour = {"holds": "green", "stale": "red"}.get(found.word, "yellow")
        console.print(f"[bold {colour}]{found.word}[/bold {colour}]  {named} at {served.url}", soft_wrap=True)
        console.print(f"flagged, of harmless answers   {found.flagged}", soft_wrap=True)
        console.print(f"sigma outside of the band      {found.outside}", soft_wrap=True)
        shift = "unknown" if math.isnan(found.shift) else f"{found.shift:+.3f}"
        console.print(f"mean shift of sigma            {shift}", soft_wrap=True)
        console.print(f"left out                       {found.refused} refused, {found.unseen} not watched")
        for line in found.other:
            console.print(f"another engine                 {line}", markup=False, soft_wrap=True)
        if found.other:
            console.print("the guard belongs to the other side: demur guard recalibrate makes it this engine's")
        if not found.watches:
            console.print("too many answers were not watched: their verdicts say why", soft_wrap=True, markup=False)
        elif found.word == "undecided":
            console.print("ask for more prompts: --n, of a larger set: --harmless", soft_wrap=True, markup=False)
    raise typer.Exit({"holds": 0, "stale": 1}.get(found.word, 3))


def recalibrate(
    path: File,
    engine: Engine,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the guard goes.")] = Path("recalibrated.safetensors"),
    harmless: Harmless = "",
    n_fit: Annotated[int, typer.Option(min=8, help="Harmless prompts to fit on, at least 32.")] = 200,
    n_calibrate: Annotated[int, typer.Option(min=2, help="Harmless prompts for the threshold.")] = 160,
    model: ModelName = None,
    at_once: AtOnce = 8,
    key_env: Key = "OPENAI_API_KEY",
    detector: GuardDetector = None,
    column: Columns = None,
) -> None:
    """Set a guard's limits anew on answers of an engine; the guard then belongs to it. Anchors and detector stay."""
    from demur.engines.check import recalibrated
    from demur.guards import Guard
    from demur.signals import digest

    check_writable(out, sort="guard", beside=(path, harmless))
    if n_fit < LEAST_TO_FIT:
        raise DemurError(f"--n-fit {n_fit}", f"at least {LEAST_TO_FIT} prompts to fit on", "ask for more")
    guard = Guard.load(path, detector=detector)
    _, fit, calibrate, *_ = prompts_for(guard, harmless, [0, n_fit, n_calibrate], columns_of(column), again=True)
    served, named = _served(path, engine, key_env, watching=True)
    answers = [_answers(served, named, guard, side, model, at_once) for side in (fit, calibrate)]
    hashes = [digest(one) for one in fit], [digest(one) for one in calibrate]
    made = recalibrated(guard, answers[0], answers[1], served.status()["engine"], hashes)
    made.save(out)
    out_to().print(str(out), style="bold", markup=False, soft_wrap=True)
    out_to().print(made.promise, markup=False, soft_wrap=True)


def _served(path: Path, engine: str, key_env: str, watching: bool = False) -> "tuple[Served, str]":
    """The engine, and what it calls the guard of this file; ``watching``: it must not act."""
    from demur.engines.endpoint import Served

    served = Served(engine, os.environ.get(key_env, ""))
    return served, served.guard_named(hashlib.sha256(path.read_bytes()).hexdigest(), watching=watching)


def _answers(
    served: "Served", named: str, guard: "Guard", asked: "Sequence[Prompt]", model: str | None, at_once: int
) -> "list[Answered]":
    """Answers as the guard was calibrated on them: of its length, drawn in its way, with its template's arguments."""
    from concurrent.futures import ThreadPoolExecutor

    from demur.guards.drawing import draw_of

    name = model or served.model()
    length = guard.tail.upto if guard.tail else guard.spec.steps
    how: dict[str, Any] = draw_of(guard.spec.settings)
    if guard.spec.template_args:
        how["chat_template_kwargs"] = dict(guard.spec.template_args)
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda one: served.answer(one, name, named, length, how), asked))
