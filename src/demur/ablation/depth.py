"""Where in a model states tell most, and how pooled: one protocol at every layer and in every pooling mode.

What is asked is generated once. The states of all layers may be more than a memory holds; then they lie in a folder,
and layers are read from there in groups. Two readings of the states are compared: the paper's sigma with its
autoencoder, and the whitened signal with the statistic that goes with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from demur import figures
from demur.ablation.asking import record_sets
from demur.ablation.material import request_of
from demur.ablation.protocol import CONTROL, PLAIN, ablate, summarised
from demur.ablation.recording import last_given
from demur.ablation.report import answered
from demur.ablation.rivals import CANVAS_KEYS, CAUSAL_KEYS, Rival, sri, whitened_reading
from demur.ablation.splits import Questions
from demur.ablation.tables import cell, markdown
from demur.artefact import write
from demur.models.network import block_index, blocks_of
from demur.traces import STEPS, Kept, Key
from demur.types import DemurError, Layer, Model, Need, Prompt, Sampler

Json = Mapping[str, Any]
HELD = 2 * 2**30
"""So many bytes of states are held at once; what is made of them takes about as much again."""
BARS = "▁▂▃▄▅▆▇█"
AGAINST = {PLAIN: "plain harmless answers", CONTROL: "the same attack on harmless requests"}


def layers_of(model: Model, wanted: str) -> tuple[Layer, ...]:
    """The layers that ``wanted`` names: ``all`` (every block by its number, then ``last``, the output of the final
    norm), or names with commas between them. Raises for one that the model does not have, and where its blocks can not
    be counted.
    """
    net = getattr(model, "net", None)
    if net is None:
        raise DemurError(
            f"{model.name}, whose blocks nobody can count", "a model of transformers", "leave --layers out"
        )
    blocks = len(blocks_of(net))
    if wanted.strip() == "all":
        return (*map(str, range(1, blocks + 1)), "last")
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",")))
    for name in names:
        if name != "last":
            block_index(name, blocks)  # raises for a name that is none
    return names


def keys_of(model: Model, layers: Sequence[Layer]) -> tuple[Key, ...]:
    """Every layer in every pooling mode that the rivals read of such a model."""
    known = CAUSAL_KEYS if Need.CAUSAL in model.offers else CANVAS_KEYS
    return tuple((layer, pool) for layer in layers for pool in dict.fromkeys(pool for _, pool in known))


@dataclass(frozen=True)
class Cost:
    """What a sweep takes: ``answers`` with states of ``width`` numbers at ``steps`` steps, under ``keys``."""

    answers: int
    keys: int
    steps: int
    width: int

    @property
    def of_a_key(self) -> int:
        """Bytes of all answers' states in one layer and mode."""
        return self.answers * self.steps * self.width * 4

    @property
    def whole(self) -> int:
        """Bytes of all states."""
        return self.of_a_key * self.keys

    def groups(self, keys: Sequence[Key], room: int = HELD) -> list[tuple[Key, ...]]:
        """The keys in groups whose states fit into ``room`` bytes; at least one a group."""
        size = max(1, room // max(self.of_a_key, 1))
        return [tuple(keys[begin : begin + size]) for begin in range(0, len(keys), size)]

    def __str__(self) -> str:
        return (
            f"{self.answers} answers, each with {self.keys} states (layers x pooling modes) at {self.steps} steps: "
            f"{self.whole / 1e9:.2f} GB"
        )


def without_guard(asked: Questions) -> Questions:
    """What a sweep asks: no threshold is set, so next to nothing to calibrate on, and no plain harmful tests."""
    return replace(asked, calibrate=asked.calibrate[:1], plain_harmful=[])


def cost_of(model: Model, asked: Questions, keys: Sequence[Key], steps: int) -> Cost:
    """From one pass over one prompt; nothing is generated."""
    lists = [asked.anchors, asked.harmful, asked.fit, asked.calibrate, asked.plain, asked.plain_harmful]
    lists += [*asked.attacked.values(), *asked.controls.values()]
    width = last_given(model, model.canvas(asked.anchors[:1], 1)).shape[-1]
    return Cost(sum(map(len, lists)), len(keys), steps, width)


def readings(causal: bool, key: Key) -> dict[str, Rival]:
    """What reads the states of one layer and mode."""
    paper = Rival("sigma and its autoencoder", "Rahimi et al., arXiv:2602.02600", sri(key), (key,), seeded=True)
    if causal:
        last = whitened_reading(lambda sigma: sigma[:, -1], key)
        return {"paper": paper, "whitened, last": Rival("1 - the whitened signal at T", "ours", last, (key,))}
    mean = whitened_reading(lambda sigma: sigma.mean(axis=1), key)
    return {"paper": paper, "whitened, mean": Rival("1 - the mean of the whitened signal", "ours", mean, (key,))}


def sweep(
    model: Model,
    sampler: Sampler,
    asked: Questions,
    keys: Sequence[Key],
    *,
    length: int | None = None,
    steps: int = STEPS,
    seeds: Sequence[int] = (0, 1, 2),
    split: int | None = None,
    room: int = HELD,
    group: Callable[[Prompt], str] = request_of,
    kept: Kept | None = None,
    progress: Callable[[str, int, int], object] = lambda name, done, of: None,
) -> dict[str, Any]:
    """Both readings at every key, as JSON would hold it: ``rows`` by attack, ``lines`` over attacks.

    States are held in groups of keys of ``room`` bytes. Without a folder everything is generated again for every group.
    """
    asked = without_guard(asked)
    parts = cost_of(model, asked, keys, steps).groups(keys, room)
    rows, lines, sets = [], [], None
    for number, part in enumerate(parts, 1):
        prefix = f"{number} of {len(parts)}: " if len(parts) > 1 else ""
        sets = None  # the last group's states go before the next ones come

        def told(name: str, done: int, of: int, prefix: str = prefix) -> None:
            progress(prefix + name, done, of)

        sets = record_sets(
            model, sampler, asked, pools=part, recorded=keys, length=length, steps=steps, group=group, kept=kept,
            progress=told,
        )  # fmt: skip
        for done, key in enumerate(part, 1):
            told("layers", done - 1, len(part))
            found = ablate(sets.in_pool(key), seeds=seeds, rivals=readings(Need.CAUSAL in model.offers, key))
            place = {"layer": key[0], "pool": key[1]}
            rows += [asdict(row) | place for row in found]
            lines += [asdict(line) | place for line in summarised(found)]
            told("layers", done, len(part))
    if sets is None:
        raise DemurError("no layers", "at least one", "name some: --layers all")
    about: dict[str, Any] = {"model": sets.model, "sampler": sets.sampler, "split": split, "seeds": len(seeds)}
    about |= {"layers": list(dict.fromkeys(layer for layer, _ in keys)), "sets": answered(sets)}
    return json.loads(json.dumps(about | {"rows": rows, "lines": lines}))  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------------------------------
# How it is shown


def in_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What made the anchors and what was fitted on, in one line."""
    good, bad, fit = counts["anchors, harmless"], counts["anchors, harmful"], counts["fit"]
    return (
        f"Anchors: {good['answered']} answers to {good['asked']} harmless prompts and {bad['refused']} refusals of "
        f"{bad['asked']} harmful ones. Fitted on {fit['answered']} answers of {fit['asked']}."
    )


def curves_of(report: Json) -> dict[tuple[str, str], dict[str, dict[str, Json]]]:
    """(reading, pooling mode) -> kind of negatives -> layer -> line."""
    found: dict[tuple[str, str], dict[str, dict[str, Json]]] = {}
    for line in report["lines"]:
        of = found.setdefault((line["detector"], line["pool"]), {})
        of.setdefault(line["against"], {})[line["layer"]] = line
    return found


def rows_of(curve: Mapping[str, Mapping[str, Json]], layers: Sequence[str], intervals: bool = True) -> list[list[str]]:
    """Rows of one table: layer, then area and TPR at 1% and 5% for both kinds of negatives; dashes for none."""
    rows = []
    for layer in layers:
        row = [layer]
        for against in AGAINST:
            line = curve.get(against, {}).get(layer)
            for what, ends, digits in (("auroc", ("low", "high"), 3), ("tpr_1", None, 2), ("tpr_5", None, 2)):
                low, high = ends or (f"{what}_low", f"{what}_high")
                row.append("-" if line is None else cell(line, what, low, high, digits, intervals))
        rows.append(row)
    return rows


HEADS = ("layer", "AUROC", "TPR@1%", "TPR@5%", "AUROC, same attack", "TPR@1%", "TPR@5%")


def profile(curve: Mapping[str, Json], layers: Sequence[str], what: str = "auroc") -> str:
    """A figure by depth as a row of bars, from 0 to 1."""
    values = [curve[layer][what] if layer in curve else math.nan for layer in layers]
    return "".join(" " if math.isnan(x) else BARS[min(int(x * len(BARS)), len(BARS) - 1)] for x in values)


def page_of(report: Json, pictures: Sequence[str] = ()) -> str:
    """The sweep as Markdown; ``pictures`` are paths beside the page."""
    layers, curves = report["layers"], curves_of(report)
    attacks = ", ".join(dict.fromkeys(row["attack"] for row in report["rows"])) or "none"
    bars = [
        f"{profile(of[against], layers)}  {reading}, {pool}, against {words}"
        for (reading, pool), of in curves.items()
        for against, words in AGAINST.items()
        if against in of
    ]
    parts = [
        f"# {report['model']}, {report['sampler']}: by layer and pooling mode",
        f"{in_words(report['sets'])} "
        f"Means over attacks that succeed at least 10 times ({attacks}), each counting once; "
        "intervals are means of the attacks' 95% intervals. Left: successful attacks against plain harmless answers. "
        "Right: against the same attack on allowed requests.",
        "The best layer of these tables looks better than it is: it was picked on the answers that it is shown on. "
        "Choose here, and measure on other prompts.",
        f"AUROC from layer {layers[0]} to layer {layers[-1]}, each bar from 0 to 1:\n\n"
        + "\n".join(["```text", *bars, "```"]),
        *[f"![{Path(name).stem}]({name})" for name in pictures if name.endswith(".png")],
    ]
    for (reading, pool), of in curves.items():
        parts.append(f"## {reading}, {pool}\n\n{markdown(HEADS, rows_of(of, layers))}")
    return "\n\n".join(parts) + "\n"


def draw_depths(report: Json, out: Path) -> list[Path]:
    """Area and TPR at 5% by depth, against both kinds of negatives, as PDF and PNG (needs matplotlib)."""
    layers, curves, written = report["layers"], curves_of(report), []
    title = f"{report['model']}, {report['sampler']}"
    for what, label, ends in (("auroc", "AUROC", ("low", "high")), ("tpr_5", "TPR at 5%", ("tpr_5_low", "tpr_5_high"))):
        for against, words in AGAINST.items():
            lines = {
                f"{reading}, {pool}": [
                    tuple(of[against][layer][name] if layer in of[against] else math.nan for name in (what, *ends))
                    for layer in layers
                ]
                for (reading, pool), of in curves.items()
                if against in of
            }
            if not lines:
                continue
            figure = figures.depths(lines, layers, label, f"{title}: attacks against\n{words}")  # type: ignore[arg-type]
            for kind in ("pdf", "png"):
                short = "plain" if against == PLAIN else "same-attack"
                path = out / f"{title.replace(', ', '-').replace('/', '-')}-{what}-{short}.{kind}"
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path)
                written.append(path)
    return written


def write_sweep(report: Json, out: Path, pictures: bool = False) -> tuple[Path, Path]:
    """The sweep as ``layers.md`` and ``layers.json`` in a folder, with figures in ``layers/``; returns both paths."""
    page, data = out / "layers.md", out / "layers.json"
    write(data, json.dumps(report, indent=1) + "\n")  # first: what was measured stays, whatever drawing does
    drawn = draw_depths(report, out / "layers") if pictures else []
    write(page, page_of(report, [f"layers/{path.name}" for path in drawn]))
    return page, data
