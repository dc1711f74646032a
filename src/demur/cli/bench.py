"""``demur bench``: what demur costs on this machine, for whoever wants to know and to send it back."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from demur.cli.options import Device, Dtype, load_model, out_to
from demur.cli.places import check_writable


def bench(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Built-in names, folders, hub ids.")],
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Rows at once; repeatable; default: 1 and 8.")] = None,
    length: Annotated[
        list[int] | None, typer.Option(min=1, help="Tokens of an answer; repeatable; default: 32 and 256.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each variant runs.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; default: as many as there are.")] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the figures go, as OUT.md and OUT.json; default: the terminal alone."),
    ] = None,
) -> None:
    """Measure a model on this machine: the bare way, capture, a guard and replay, in turns, with their spread.

    Hardware and versions stand beside the figures, and nothing that names you: they can be sent back as they are.
    """
    import torch

    from demur.artefact import write
    from demur.bench import as_json, as_markdown
    from demur.bench import bench as measured

    whole = out.with_suffix("") if out and out.suffix in (".md", ".json") else out
    files = [whole.with_name(f"{whole.name}{suffix}") for suffix in (".md", ".json")] if whole else []
    check_writable(*files)
    if threads is not None:
        torch.set_num_threads(threads)
    console, found = out_to(stderr=True), []
    try:
        for name in models:
            model = load_model(name, dtype, device)
            counts: dict[str, Any] = {"batches": batch or (1, 8), "lengths": length or (32, 256), "rounds": rounds}
            with console.status(escape(f"{name}: warming up")) as status:
                found.append(measured(model, **counts, told=partial(_told, console, status, name)))
            del model
    finally:  # a model that fails, or a user who has waited enough, takes nothing away from those before
        if found:
            print(as_markdown(found))
            for file, text in zip(files, (as_markdown(found), as_json(found)), strict=False):
                write(file, text)
                console.print(f"wrote {file}", markup=False, soft_wrap=True)


def _told(console: Console, status: Any, model: str, what: str) -> None:
    """Where it is: beside the turning sign of a terminal, elsewhere as a line."""
    if console.is_terminal:
        status.update(escape(f"{model}: {what}"))
    else:
        console.print(f"{model}: {what}", markup=False, soft_wrap=True)
