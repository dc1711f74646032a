"""``demur replay``: signals of finished transcripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli.options import (
    Count,
    Device,
    Dtype,
    LayerName,
    ModelName,
    PoolName,
    Refusals,
    RefusalsFrom,
    Steps,
    cached_anchors,
    load_model,
    out_to,
)
from demur.types import DemurError


def replay(
    transcripts: Annotated[Path, typer.Argument(help="JSONL of objects with a prompt and a response.")],
    model: ModelName = "smollm2",
    anchors: Annotated[
        Path | None, typer.Option(help="A file of `demur anchors fit`; default: fitted once, cached.")
    ] = None,
    refusals: RefusalsFrom = Refusals.observed,
    n: Count = 40,
    steps: Steps = 32,
    layer: LayerName = "last",
    pool: Annotated[PoolName, typer.Option(help="generated or producing.")] = PoolName.generated,
    out: Annotated[Path | None, typer.Option(help="Where the lines go; default: the terminal.")] = None,
    batch: Annotated[int, typer.Option(min=1)] = 16,
    dtype: Dtype = "auto",
    device: Device = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
) -> None:
    """The signals of finished transcripts, in one pass each: also of another model's, with a local one as surrogate."""
    from rich.progress import Progress

    from demur.artefact import write
    from demur.samplers import Autoregressive
    from demur.signals import Anchors
    from demur.trace import spec_of, teacher_forced
    from demur.types import Prompt

    rows = _transcripts(transcripts)
    net = load_model(model, dtype, device, system)
    if anchors:
        fitted = Anchors.load(anchors)
        fitted.check(spec_of(net, Autoregressive(), steps, steps=steps).at(layer, pool.value))
    else:
        fitted = cached_anchors(net, Autoregressive(), steps, steps, layer, pool.value, refusals, n, False)
    if fitted.warning:
        out_to(stderr=True).print(f"! {fitted.warning}", style="yellow")
    prompts = [Prompt(id=str(row.get("id", i)), text=row["prompt"]) for i, row in enumerate(rows, 1)]
    with Progress(console=out_to(stderr=True), transient=True) as bar:
        task = bar.add_task("replaying", total=len(rows))
        traces = teacher_forced(
            net,
            prompts,
            [row["response"] for row in rows],
            steps=steps,
            pools=[(layer, pool.value)],
            batch=batch,
            progress=lambda done: bar.update(task, completed=done),
        )
    lines = []
    for prompt, trace in zip(prompts, traces, strict=True):
        sigma = [round(float(value), 6) for value in fitted.signal(trace)]
        line = {"id": prompt.id, "sigma": sigma, "refused": trace.refused(), "tokens": trace.steps}
        lines.append(json.dumps(line | {"refusals": fitted.refusals, "model": trace.spec.model}))
    if out is None:
        print("\n".join(lines))
    else:
        write(out, "\n".join(lines) + "\n")
        out_to(stderr=True).print(f"{len(lines)} signals in {out}")


def _transcripts(path: Path) -> list[dict[str, Any]]:
    """Rows with a prompt and a response. Raises naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DemurError(f"{path} could not be read ({error})", "a JSONL file in UTF-8", "check the path") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DemurError(f"{path}, line {number}: no JSON ({error.msg})", "one object a line", "mend it") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("prompt", "response")):
            raise DemurError(f"{path}, line {number}: no prompt and response", "both, as texts", "add them")
        rows.append(row)
    if not rows:
        raise DemurError(f"{path} is empty", "one object with prompt and response a line", "add some")
    return rows
