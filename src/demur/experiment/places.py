"""Files and folders that a recipe names: they are looked for from the folder in which demur is started, as on a command
line, and not from the recipe's. Where the recipe's holds one of that name, it is said.
"""

from __future__ import annotations

from pathlib import Path


def beside(recipe: Path, name: str) -> Path | None:
    """What lies beside a recipe under this name, if it is not what the name means from here; None where there is
    nothing else.
    """
    there = recipe.parent / name
    try:
        if not name or Path(name).is_absolute() or not there.exists():
            return None
        return None if Path(name).exists() and there.samefile(name) else there
    except (OSError, ValueError):  # a name that no file can have
        return None


def missing(recipe: Path, name: str) -> str:
    """That a file is not there, and where one of its name is that nobody looks at."""
    other = beside(recipe, name)
    said = f"there is no file {name}" + ("" if Path(name).is_absolute() else f" in {Path.cwd()}")
    return f"{said}, where it is looked for; {other}, beside the recipe, is not looked at" if other else said


def notes(recipe: Path, names: list[str]) -> list[str]:
    """A line for each name that means one thing from here and another beside the recipe."""
    found = []
    for name in dict.fromkeys(names):
        if other := beside(recipe, name):
            taken = f"the one in {Path.cwd()} is taken" if Path(name).exists() else "it is taken for no file"
            found.append(f"{name}: {taken}; {other}, beside the recipe, is not looked at")
    return found
