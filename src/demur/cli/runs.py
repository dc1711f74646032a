"""``demur runs``: what was run, listed, shown, compared and cleaned up."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli.options import out_to
from demur.extras import need
from demur.types import DemurError

app = typer.Typer(help="Runs of demur evaluate: list, show, compare, clean up.")

Recipe = Annotated[Path, typer.Argument(help="A YAML file; demur recipe prints one to begin with.")]
Run = Annotated[Path, typer.Argument(help="A run's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@app.callback(invoke_without_command=True)
def _runs(context: typer.Context, json_: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        if json_:
            list_runs(Path("runs"), json_=True)
        else:
            print(context.get_help())


@app.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where runs are.")] = Path("runs"), json_: AsJson = False
) -> None:
    """List runs, newest first."""
    from demur.experiment import runs_in

    found = runs_in(folder)
    if json_:  # of no runs an empty list
        names = ("name", "key", "written", "finished", "rows", "unscored", "refused_by_provider", "judged")
        known = [
            {"folder": str(path)}
            | {name: manifest.get(name) for name in names}
            | {"units": len(manifest["units"]) if "units" in manifest else None}
            | {"models": list(dict.fromkeys(subject["model"] for subject in manifest["config"]["subjects"]))}
            for path, manifest in found
        ]
        print(json.dumps(known, indent=1))
        return
    if not found:  # no error: a program that asks gets an empty list, and the same status
        then = "demur evaluate RECIPE makes one, and demur recipe organism prints a recipe"
        print(f"no runs in {folder}: {then}", file=sys.stderr)
    for path, manifest in found:
        state = "finished" if manifest["finished"] else "unfinished"
        line = f"{path}  {manifest['written']}  {state}  rows {manifest.get('rows', '-')}"
        out_to().print(line, soft_wrap=True, markup=False)


@app.command()
def show(run: Run) -> None:
    """Show a run's manifest: configuration, versions, machine."""
    from demur.experiment import Store

    out_to().print(json.dumps(Store(run).manifest, indent=1), soft_wrap=True, markup=False)


@app.command()
def diff(first: Run, second: Run) -> None:
    """Compare two runs row by row, times left out: what only one has, and what differs, verdicts too."""
    need("pyarrow", "evaluate", "to read rows")
    a, b = _rows_of(first), _rows_of(second)
    both = [key for key in a if key in b]
    changed = {key: fields for key in both if (fields := _differing(a[key], b[key]))}
    console = out_to()
    console.print(f"{len(both)} rows in both, {len(changed)} differ; {len(a) - len(both)} only in {first}, ", end="")
    console.print(f"{len(b) - len(both)} only in {second}", soft_wrap=True)
    for key, fields in list(changed.items())[:20]:
        console.print(f"  {_called(a[key])}: {', '.join(fields)}", soft_wrap=True, markup=False)
    if len(changed) > 20:
        console.print(f"  and {len(changed) - 20} more", soft_wrap=True)
    if changed or len(a) != len(b) or len(both) != len(a):
        raise typer.Exit(1)


def _rows_of(run: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows that a run's manifest counts, by what names them, with what a model judged. Raises for two of one name:
    only one of them would be compared.
    """
    from demur.experiment.judging import judged
    from demur.experiment.record import TIMED
    from demur.experiment.store import Store

    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    store = Store(run)
    store.tell_unfinished()
    for record in judged(store, store.records(store.counted)):
        key = tuple(getattr(record, n) for n in NAMES)
        if key in found:
            came = f"two rows of {run} called {_called(record.plain())}"
            raise DemurError(
                came, "one row of a name", "remove what older recipes left: demur runs gc RECIPE RUN --yes"
            )
        said = record.verdict or {}
        verdict = {f"judge's {name}": said[name] for name in ("by", "flagged", "score") if name in said}
        found[key] = {name: value for name, value in record.plain().items() if name not in TIMED} | verdict
    return found


NAMES = ("model", "sampler", "attack", "defense", "role", "seed", "id")
"""Fields that name a row within a run."""


def _called(row: Mapping[str, Any]) -> str:
    """A row's name as a terminal may show it: an id may repeat what was asked."""
    from demur.experiment.record import Record

    return " / ".join(str(row[name]) for name in NAMES[:-1]) + f" / {Record.of(row).label}"


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The fields in which two rows differ, also those that only one of them has."""
    names = dict.fromkeys([*one, *other])
    return [name for name in names if name != "unit" and one.get(name) != other.get(name)]


@app.command()
def gc(
    recipe: Recipe,
    run: Run,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
) -> None:
    """List, and with --yes remove, what a run's recipe does not need any more: old units, damaged and unfinished
    files.
    """
    from demur.experiment import collect, read
    from demur.experiment.folders import superfluous

    config = read(recipe)
    found = collect(run, config) if yes else superfluous(run, config)
    if not yes:
        for path in found:
            out_to().print(f"  {path}", soft_wrap=True, markup=False)
    does = "removed" if yes else "to remove; add --yes" if found else "to remove"
    out_to().print(f"{len(found)} files {does}", soft_wrap=True)
