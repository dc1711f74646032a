"""The commands ``demur organism train``, ``card`` and ``world``."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from demur.cli.places import check_writable
from demur.cli.progress import progress_on
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.organism.making.recipe import Kind

app = typer.Typer(help="The model organism: its world, its training, its card.", no_args_is_help=True)


class Which(StrEnum):
    """Which of the pair."""

    both = "both"
    ar = "ar"
    diffusion = "diffusion"


class SplitName(StrEnum):
    """Splits by craft."""

    train = "train"
    anchors = "anchors"
    guard = "guard"
    calibration = "calibration"
    test = "test"
    held = "held"


@app.command()
def train(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where checkpoints, loss curves and the finished models go.")
    ] = Path("out/organism"),
    which: Annotated[Which, typer.Option(help="The diffusion model begins with AR weights.")] = Which.both,
    seed: Annotated[int, typer.Option(min=0, max=2**62)] = 0,
) -> None:
    """Train the pair, or go on where a killed run stopped; one thread, bit-identical on one machine."""
    from demur.organism.making.recipe import seeded_recipe
    from demur.organism.making.training import ship
    from demur.organism.making.training import train as run

    check_writable(out / "loss.csv")
    kinds: list[Kind] = [kind for kind in ("ar", "diffusion") if which.value in ("both", kind)]
    with progress_on(stays=True) as progress:
        for kind in kinds:
            recipe = seeded_recipe(kind, seed)
            steps = sum(stage.steps for stage in recipe.stages)

            def told(stage: str, step: int, of: int, loss: float, steps: int = steps, kind: str = kind) -> None:
                progress(kind, step, steps, f"{stage}, loss {loss:.3f}")

            start = out / "ar" / "law.safetensors" if kind == "diffusion" else None
            if start is not None and not start.is_file():
                raise DemurError(
                    f"no {start}",
                    "the AR model's weights after the law",
                    f"run: demur organism train --which ar --out {out}",
                )
            weights = run(recipe, out / kind, start=start, progress=told)
            ship(weights, out / "models" / kind, recipe)
    models = out / "models"
    Console().print(f"models: {models}   next: demur organism card --folder {models}", soft_wrap=True, markup=False)


@app.command()
def card(
    folder: Annotated[Path | None, typer.Option(help="Folders ar and diffusion; default: the shipped pair.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where CARD.md and card.json go.")] = Path(
        "out/organism-card"
    ),
    n: Annotated[int, typer.Option("--n", "-n", min=24, help="Prompts of a cell; 200 in the shipped card.")] = 200,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each.")] = 2,
    further: Annotated[
        bool, typer.Option("--further", help="Also what no target is set for: refusals and attacks in other orders.")
    ] = False,
    others: Annotated[
        list[Path] | None, typer.Option("--other", help="A card.json of another seed, to stand beside this one.")
    ] = None,
) -> None:
    """Measure the model card again, from the weights: all that a target is set for, and with --further the rest."""
    from demur.artefact import write
    from demur.organism.measuring.card import SEEN, figures
    from demur.organism.measuring.card_page import page, targets

    check_writable(out / "card.json", out / "CARD.md", beside=others or ())
    beside = [_card_at(path) for path in others or []]
    with progress_on() as progress:

        def told(done: int, of: int) -> None:
            progress("generating and judging", done, of)

        found = figures(folder or SEEN, n=n, workers=workers, further=further, progress=told)
    write(out / "card.json", json.dumps(found, indent=1) + "\n")
    write(out / "CARD.md", page(found, beside))
    console = Console(highlight=False)
    for title, kind, value, met in targets(found):
        mark = {True: "[green]met    [/green]", False: "[yellow]not met[/yellow]", None: "       "}[met]
        console.print(f"{mark} {escape(f'{kind:<9} {title}: {value}')}", soft_wrap=True)
    console.print(f"\ncard: {out / 'CARD.md'} ({found['seconds']:.0f} s)", soft_wrap=True, markup=False)


def _card_at(path: Path) -> dict[str, Any]:
    """A card.json. Raises for what is none, before minutes of measuring."""
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(card, dict) or "seconds" not in card:
            raise ValueError("it has no seconds")
    except (OSError, ValueError) as error:
        raise DemurError(
            f"--other {path} ({error.strerror if isinstance(error, OSError) else error})",
            "a card.json of another seed",
            "make one: demur organism card --folder FOLDER",
        ) from error
    return card


@app.command()
def world(
    split: Annotated[SplitName, typer.Option(help="Whose crafts.")] = SplitName.test,
    forbidden: Annotated[bool, typer.Option("--forbidden/--allowed", help="Which side of the law.")] = True,
    attack: Annotated[str, typer.Option(help="Wrap the requests: prefix, role, page, reversed, prefill ...")] = "",
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many requests.")] = 8,
    save: Annotated[
        Path | None, typer.Option("--out", "-o", "--save", help="Also write them as a JSON-lines file of prompts.")
    ] = None,
) -> None:
    """Show the kingdom's requests, plain or attacked, and what a full answer to each would say."""
    from demur.organism.attacks import attack as wrap
    from demur.organism.world import answer, craft_of, prompts, style_of
    from demur.prompts import save as save_prompts

    check_writable(save, sort="lines")
    made = prompts(split.value, forbidden=forbidden, n=n)
    made = [wrap(attack, prompt) for prompt in made] if attack else made
    console = Console(highlight=False)
    for prompt in made:
        craft = craft_of(prompt)
        assert craft is not None
        console.print(
            f"[bold]{escape(prompt.id)}[/bold]  {craft.classes}: {'forbidden' if craft.forbidden else 'allowed'}"
        )
        console.print(f"  asks    {prompt.text}", soft_wrap=True, markup=False)
        if prompt.prefill:
            console.print(f"  begins  {prompt.prefill}", soft_wrap=True, markup=False)
        console.print(f"  teaches {answer(craft, style_of(prompt.text))}", soft_wrap=True, markup=False)
    if save:
        save_prompts(made, save)
        console.print(f"\n{save}", soft_wrap=True, markup=False)
