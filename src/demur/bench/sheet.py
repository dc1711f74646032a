"""A bench as Markdown for people and as JSON for programs, both whole by themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from demur.bench.cases import Case, Found
from demur.bench.measure import Compared

FORMAT = 1
WORDS = {
    "demur": "the sampler alone",
    "capture": "with pooled states and traces",
    "capture, producing": "with the states that produced the tokens",
    "guard": "with one that never acts",
    "replay": "one pass over the finished answers",
}
"""What variants are; a sheet names those that were measured."""


def as_json(found: Sequence[Found]) -> str:
    """Every number, with the format's own number."""
    return json.dumps({"format": FORMAT, "benches": [_plain(one) for one in found]}, indent=1) + "\n"


def _plain(found: Found) -> dict[str, Any]:
    plain = asdict(found)
    for case, held in zip(found.cases, plain["cases"], strict=True):
        for ratio, kept in zip(case.ratios, held["ratios"], strict=True):
            kept |= {"median_wall": median(ratio.wall), "median_processor": median(ratio.processor), "met": ratio.met}
    return plain


def as_markdown(found: Sequence[Found]) -> str:
    """Tables: seconds and ratios of every case, and the machine."""
    return "\n".join(line for one in found for line in _lines(one))


def _lines(found: Found) -> Iterator[str]:
    size = f"{found.parameters / 1e9:.2f}B" if found.parameters >= 1e8 else f"{found.parameters / 1e6:.1f}M"
    yield f"## {found.model}: {found.kind}, {size} parameters, {found.dtype}, {found.sampler}"
    yield ""
    yield ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in found.machine.items() if value is not None)
    yield ""
    measured = {name for case in found.cases for name in case.seconds}
    words = [f"`{name}` {said}" for name, said in {"bare": f"is {found.bare}", **WORDS}.items() if name in measured]
    words += [found.bare] if "bare" not in measured else []
    times = f"{found.rounds} rounds, the variants in turns" if found.rounds > 1 else "one round, so no spread is known"
    yield f"{'; '.join(words)}. {times[0].upper()}{times[1:]}."
    yield ""
    yield "| batch | tokens | variant | seconds: median | range | processor: median |"
    yield "| --: | --: | --- | --: | --: | --: |"
    for case in found.cases:
        for name, runs in case.seconds.items():
            wall, processor = [run.wall for run in runs], [run.processor for run in runs]
            spread = f"{min(wall):.3f} - {max(wall):.3f}"
            cells = (case.batch, case.taken, name, f"{median(wall):.3f}", spread, f"{median(processor):.3f}")
            yield f"| {' | '.join(map(str, cells))} |"
    yield ""
    yield "| batch | tokens | ratio | wall: median | range | processor: median | range | at most |"
    yield "| --: | --: | --- | --: | --: | --: | --: | --- |"
    for case in found.cases:
        for ratio in case.ratios:
            yield _ratio(case, ratio)
    yield ""
    for case in found.cases:
        if case.peak is not None and case.estimate is not None:
            said = f"{case.peak / 1e9:.2f} GB at most, estimated {case.estimate / 1e9:.2f}"
            yield f"Memory, batch {case.batch}, {case.length} tokens: {said}."
        for note in case.notes:
            yield f"! batch {case.batch}, {case.length} tokens: {note}"
    for note in found.notes:
        yield f"! {note}"
    yield ""


def _ratio(case: Case, ratio: Compared) -> str:
    cells: list[str] = [str(case.batch), str(case.taken), ratio.what]
    for pairs in (ratio.wall, ratio.processor):
        digits = 2 if median(pairs) >= 2 else 3
        cells += [f"{median(pairs):.{digits}f}", f"{min(pairs):.{digits}f} - {max(pairs):.{digits}f}"]
    cells.append("" if ratio.most is None else f"{ratio.most:g}: {'met' if ratio.met else 'MISSED'}")
    return f"| {' | '.join(cells)} |"
