"""``demur models`` and ``demur doctor``: what there is, what fits this machine, and what a model would need."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from demur.cli.options import Dtype, out_to
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.studio.needs import Needs

AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]

MARKS = {
    "ok": ("ok      ", "green"),
    "untested": ("untested", "yellow"),
    "optional": ("optional", "bright_black"),
    "missing": ("missing ", "yellow"),
    "bad": ("BAD     ", "red"),
}


def models(as_json: AsJson = False) -> None:
    """List the families, what each needs and what is ready offline."""
    from demur.studio.readiness import offered

    if as_json:
        rows = [asdict(one) for one in offered() if one.model]
        print(json.dumps(rows, indent=1))
        return
    console = out_to()
    for one in offered():
        if not one.model:
            about = f": {one.says}" if one.says else ""
            console.print(f"\n[bold]{escape(one.family)}{escape(about)}[/bold]", soft_wrap=True)
        else:
            style = "" if one.ready else "bright_black"
            console.print(f"  {one.model:<36} {one.says}", soft_wrap=True, style=style, markup=False)


def doctor(
    context: typer.Context,
    model: Annotated[str | None, typer.Option("--model", "-m", help="What this model would need, estimated.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="With --model: prompts at once.")] = 1,
    prompt: Annotated[int, typer.Option(min=1, help="With --model: tokens of a prompt.")] = 256,
    length: Annotated[int, typer.Option(min=1, help="With --model: tokens of an answer.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="With --model: steps of a diffusion sampler.")] = 32,
    dtype: Dtype = "auto",
    everything: Annotated[bool, typer.Option("--all", help="Also families of which no model is here.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, device, memory, models; what is missing and the command that fixes it."""
    from demur.studio.readiness import checks

    if model is not None:
        from demur.studio.needs import needs

        wanted = needs(model, dtype=dtype, batch=batch, length=length, steps=steps, prompt=prompt)
        if as_json:
            print(json.dumps(wanted.row(), indent=1))
        else:
            _estimate(wanted)
        return
    for name in ("batch", "prompt", "length", "steps", "dtype"):
        if getattr(context.get_parameter_source(name), "name", "DEFAULT") == "COMMANDLINE":
            raise DemurError(f"--{name} without --model", "the model that it is asked of", "name it: --model MODEL")
    found = list(checks(everything))
    if as_json:
        print(json.dumps([asdict(check) for check in found], indent=1))
    else:
        console, section = out_to(), ""
        for check in found:
            if check.section != section:
                section = check.section
                console.print(f"[bold]{section}[/bold]")
            mark, style = MARKS[check.state]
            console.print(f"[{style}]{mark}[/{style}] {escape(f'{check.name}: {check.found}')}", soft_wrap=True)
            if check.fix:
                console.print(f"         fix: {check.fix}", soft_wrap=True, markup=False)
    if any(check.state == "bad" for check in found):
        raise typer.Exit(1)


def _estimate(wanted: "Needs") -> None:
    from rich.table import Table

    from demur.studio.needs import ESTIMATE

    console = out_to()
    size = f"{wanted.parameters / 1e9:.2f}B" if wanted.parameters >= 1e8 else f"{wanted.parameters / 1e6:.1f}M"
    console.print(escape(f"{wanted.model}: {wanted.kind}, {size} parameters, {wanted.dtype}"), soft_wrap=True)
    ways = f", {wanted.steps} steps" if wanted.counts_steps else ""
    asked = f"batch {wanted.batch}, prompts of {wanted.prompt} tokens, answers of {wanted.length}{ways}"
    console.print(f"{asked}; {ESTIMATE}\n", soft_wrap=True)
    table = Table(show_header=False, box=None)
    for name, gb in (*wanted.gigabytes.items(), ("all", wanted.total)):
        table.add_row(name, f"{gb:.2f} GB", "estimate")
    console.print(table)
    console.print(f"\n{_here(wanted)}\n", soft_wrap=True, markup=False)
    if wanted.context is not None and wanted.prompt + wanted.length > wanted.context:
        said = f"! its context is {wanted.context} tokens: a row of {wanted.prompt + wanted.length} is refused\n"
        console.print(said, style="yellow", soft_wrap=True, markup=False)
    cards = Table(box=None)
    for head in ("GPU", "fits", "a batch takes some"):
        cards.add_column(head)
    for name, seconds in wanted.seconds.items():
        cards.add_row(name, "no" if seconds is None else "yes", "-" if seconds is None else f"{seconds:.1f} s")
    console.print(cards)


def _here(wanted: "Needs") -> str:
    """What fits on this machine, in one line."""
    here = wanted.here
    if here.free is None:
        return f"here, on {here.device}: how much memory is free is not known"
    asked = f"{'this batch fits' if here.fits else f'a batch of {wanted.batch} does not fit'}"
    auto = f"--batch auto begins with {here.batch}" if here.batch else "not even one row fits"
    return f"here, on {here.device} in {here.dtype}, with {here.free:.1f} GB free: {asked}, {auto} (estimate)"
