"""``demur recipe``: the recipes that come with the package, to print and to change."""

import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from demur.types import DemurError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def recipe(
    name: Annotated[
        str | None, typer.Argument(help="Which one; without a name: all of them, and what they are.")
    ] = None,
) -> None:
    """Print a recipe for `demur evaluate`: demur recipe organism > my.yaml. Without a name, list them."""
    there = _recipes()
    if not there:
        raise DemurError("this installation has no recipes", "those of the package", "install demur again")
    if name is None:
        for one, place in there.items():
            print(f"{one:<18} {_about(place)}")
        return
    wanted = name.removesuffix(".yaml").removesuffix(".yml").rpartition("/")[2]
    if wanted not in there:
        near = get_close_matches(wanted, there, 1)
        raise DemurError(
            f"no recipe {name!r}", ", ".join(there), f"did you mean {near[0]}?" if near else "name one of these"
        )
    sys.stdout.write(there[wanted].read_text(encoding="utf-8"))


def _recipes() -> "dict[str, Traversable]":
    """The recipes by name."""
    from importlib.resources import files

    folder = files("demur") / "recipes"
    if not folder.is_dir():
        return {}
    found = [place for place in folder.iterdir() if place.name.endswith(".yaml")]
    return {place.name.removesuffix(".yaml"): place for place in sorted(found, key=lambda place: place.name)}


def _about(place: "Traversable") -> str:
    """The first comment of a recipe, up to its first full stop."""
    lines = []
    for line in place.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines).partition(". ")[0].rstrip(".")
