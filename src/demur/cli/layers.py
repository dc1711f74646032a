"""``demur ablate --layers``: the same protocol at every layer of a model."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from demur.cli.ablate import CAPTION, group_of, tell_kept
from demur.cli.options import out_to
from demur.cli.places import check_writable
from demur.cli.progress import progress_on
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.ablation.depth import Cost
    from demur.ablation.splits import Questions
    from demur.traces import Key
    from demur.traces.kept import Kept
    from demur.types import Model, Sampler


def by_layer(
    model: "Model",
    sampler: "Sampler",
    asked: "Questions",
    layers: str,
    out: Path,
    *,
    length: int,
    steps: int,
    seeds: Sequence[int],
    split: int | None,
    keep: bool,
    pictures: bool,
) -> None:
    """Says what it takes, sweeps, prints a table for each reading and pooling mode, and writes the report."""
    from demur.ablation.depth import cost_of, keys_of, layers_of, sweep, without_guard, write_sweep
    from demur.models import cache_dir
    from demur.traces.kept import Kept

    check_writable(out / "layers.json")
    keys = keys_of(model, layers_of(model, layers))
    kept = Kept(cache_dir() / "ablate") if keep else None
    _tell_cost(cost_of(model, without_guard(asked), keys, steps), keys, kept)
    with progress_on() as progress:
        report = sweep(
            model, sampler, asked, keys, length=length, steps=steps, seeds=seeds, split=split, group=group_of,
            kept=kept, progress=progress,
        )  # fmt: skip
    if kept is not None:
        tell_kept(kept)
    _show(report)
    out_to().print(f"\n{', '.join(map(str, write_sweep(report, out, pictures)))}", soft_wrap=True, markup=False)


def _tell_cost(cost: "Cost", keys: "Sequence[Key]", kept: "Kept | None") -> None:
    """What the sweep takes. Raises where the cache has no room for it."""
    passes = len(cost.groups(keys))
    if kept is None:
        again = "" if passes == 1 else f"; too much to hold at once, so generated {passes} times: --keep does it once"
    else:
        kept.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(kept.folder).free
        if cost.whole > free + kept.size():  # what lies there may be these very states
            raise DemurError(
                f"{cost.whole / 1e9:.1f} GB of states, and {free / 1e9:.1f} GB free at {kept.folder}",
                "room for all of them",
                "name fewer layers (--layers 1,12,last), take a smaller --n, or set DEMUR_CACHE to another disk",
            )
        again = f" in the cache, read {passes} times" if passes > 1 else " in the cache"
    out_to(stderr=True).print(f"{cost}{again}", soft_wrap=True, markup=False)


def _show(report: dict[str, object]) -> None:
    """A table for each reading and pooling mode, and each kind of negatives."""
    from rich.table import Table

    from demur.ablation.depth import AGAINST, HEADS, curves_of, in_words, profile, rows_of

    console = out_to()
    layers: list[str] = report["layers"]  # type: ignore[assignment]
    for (reading, pool), curve in curves_of(report).items():
        title = f"{report['model']}, {report['sampler']}: {reading}, {pool}"
        for against, words in AGAINST.items():
            title += f"\n{profile(curve.get(against, {}), layers)} AUROC against {words}"
        table = Table(title=escape(title), title_justify="left", caption=CAPTION)
        for head in HEADS:
            table.add_column(head, justify="left" if head == "layer" else "right", overflow="fold")
        for row in rows_of(curve, layers, intervals=False):
            table.add_row(*row)
        console.print(table)
    console.print(in_words(report["sets"]), soft_wrap=True, markup=False)  # type: ignore[arg-type]
