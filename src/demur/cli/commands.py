"""The commands put together. Every error that a user can cause ends in one line and an exit code of 2.

The modules that hold commands have no ``from __future__ import annotations``: typer reads every option's annotation
twice, and one that is a string is compiled each time (a tenth of the time of ``demur --help``). Types that are only
there for type checkers stand in quotes.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from demur.cli import anchors, engine, evaluate, guard, runs
from demur.cli.ablate import ablate
from demur.cli.bench import bench
from demur.cli.console import run
from demur.cli.machine import doctor, models
from demur.cli.options import Refusals, out_to, tell_page
from demur.cli.organism import app as organism_app
from demur.cli.places import check_writable
from demur.cli.proxy import proxy
from demur.cli.recipe import recipe
from demur.cli.replay import replay
from demur.cli.serve import serve
from demur.cli.watch import watch

app = typer.Typer(
    help="See and guard the refusal dynamics of language models, step by step.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(watch)


@app.command()
def demo(
    html: Annotated[Path, typer.Option("--html", "--out", "-o", help="Where the page goes.")] = Path("demur-demo.html"),
    n: Annotated[int, typer.Option("--n", "-n", min=8, help="Requests a side for the organism's anchors.")] = 40,
    real: Annotated[
        Path | None, typer.Option(help="Then a real model, SmolLM2-135M, on two requests; its page goes here.")
    ] = None,
) -> None:
    """One forbidden request, plain and attacked, under three ways of generating; then an allowed one. Offline."""
    import torch

    from demur.artefact import write
    from demur.studio.story import ABOUT, FICTION, acts
    from demur.studio.terminal import story_table
    from demur.views.page import page

    threads = torch.get_num_threads()
    check_writable(html, real, sort="page")
    check_writable(html, beside=(real,))
    torch.set_num_threads(1)  # the organism is too small for more: threads would only wait for each other
    console = out_to()
    console.print(f"[bold]The same request, three ways of generating.[/bold] {FICTION}\n")
    told = []
    with console.status("loading the organism") as status:
        for act in acts(n, status.update):
            console.print(story_table(act.title, act.scenes, act.outcomes))
            told.append(act)
    write(
        html,
        page([scene for act in told for scene in act.scenes], title="demur: three ways of generating", about=ABOUT),
    )
    tell_page(console, html)
    if real:
        torch.set_num_threads(threads)
        console.print(
            "\n[bold]And a real model.[/bold] It refuses too little by itself: its refusal anchor is scripted.\n"
        )
        # Few requests for its anchors, which are fitted the first time: somebody is waiting for a first look.
        watch(["demur-harmless-005", "demur-harmful-001"], refusals=Refusals.scripted, n=12, html=real)


app.command()(replay)


app.command()(models)
app.command()(doctor)
app.command()(bench)
app.command()(recipe)
app.command()(serve)
app.command()(proxy)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from demur import __version__

        print(f"demur {__version__}")
        raise typer.Exit


app.command()(ablate)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(evaluate.report)
app.add_typer(anchors.app, name="anchors")
guard.app.command()(engine.check)
guard.app.command()(engine.recalibrate)
app.add_typer(guard.app, name="guard")
app.add_typer(runs.app, name="runs")
app.add_typer(organism_app, name="organism")


def main() -> None:
    """The entry point."""
    sys.exit(run(app))
