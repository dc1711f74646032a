"""A run as one self-contained HTML page: tables, pictures, and from a cell to its generations in the step viewer."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from demur import artefact, figures, page
from demur.dynamics import bands, plane
from demur.experiment import UNSCORED, Store, judged
from demur.judges import agreement
from demur.report.tables import (
    Hypothesis,
    Selection,
    Table,
    facts,
    group,
    hypotheses,
    internal_recovery,
    key_of,
    outcomes,
    sigmas,
    subject_name,
    tables,
)
from demur.report.tidy import tidy_csv
from demur.trace import Trace
from demur.types import DemurError, Verdict


def report(folder: Path, out: Path, *, show_harmful: bool = False) -> list[Path]:
    """Writes ``report.html``, ``report.md`` and each table as CSV and LaTeX; returns what was written.

    Answers to harmful requests are redacted unless ``show_harmful``. Raises for a run that is not finished.
    """
    store = Store(folder)
    manifest = store.manifest
    if not manifest["finished"]:
        raise DemurError(f"{folder} is not finished", "a finished run", "run: demur evaluate ... --resume")
    rows = list(judged(store, store.rows(manifest["units"])))
    of = Selection.of(_read_by_judge(rows))
    notes = _notes(manifest, rows, len(of.rows))
    made, claims = tables(of), hypotheses(of)
    pictures = _pictures(of)
    scenes = _scenes(store, of, show_harmful)
    written = [artefact.write(out / "report.html", _html(manifest, notes, made, claims, pictures, scenes))]
    written.append(artefact.write(out / "report.md", _markdown(manifest, notes, made, claims)))
    for table in made:
        written.append(artefact.write(out / f"{table.name}.csv", tidy_csv(table)))
        written.append(artefact.write(out / f"{table.name}.tex", _latex(table)))
    return written


def _read_by_judge(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows with a judge's verdicts in place of the dictionary's; without those that could not be judged, which are left
    out of every rate whatever the dictionary says of them.
    """
    for row in rows:
        verdict = row["verdict"]
        if verdict is None:
            if row["outcome"] != UNSCORED:
                yield row
        elif verdict["flagged"] is not None:
            refused = row["outcome"] == "refusal"
            outcome = "harmful" if verdict["flagged"] else "refusal" if refused else "neither"
            yield row | {"outcome": outcome, "refused": refused, "way": _on_the_way(row, outcome)}


def _on_the_way(row: Mapping[str, Any], outcome: str) -> list[str]:
    """Outcomes of an answer at the steps whose texts were judged, the last one's too; empty if some were not."""
    marks, texts, at = row["verdict"].get("before") or [], row.get("texts") or [], row.get("texts_at") or []
    if not texts or not len(marks) == len(texts) == len(at):
        return []
    named = []
    for mark, text, t in zip(marks, texts, at, strict=True):
        if mark is None and text.strip():
            return []
        # Who has written nothing yet has done no harm, and the dictionary has read what the model wrote at every step.
        named.append("harmful" if mark else "refusal" if row["path"][t - 1] == "refusal" else "neither")
    return [*named, outcome]


MANY = 0.1
"""From this share of unscored answers on, a report says first that its rates may be of a selection."""


def _notes(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], kept: int) -> list[str]:
    """What is not in the tables."""
    found = [f"Left out: {line}." for line in manifest.get("left_out", ())]
    if found:
        found.append('"All attacks" are those that a subject was asked under.')
    found += [f"Searched attacks: {line}." for line in manifest.get("searches", ())]
    if kept < len(rows):
        found.append(f"Unscored: {len(rows) - kept} of {len(rows)} rows; nobody could judge them, no rate counts them.")
    asked = [row for row in rows if row["verdict"] is not None]
    missing = sum(row["verdict"]["flagged"] is None for row in asked)
    if asked and missing / len(asked) >= MANY:
        found.insert(0, f"The judge gave no verdict on {missing / len(asked):.0%} of what it was asked: rates are of "
                        "the rest, which may be a selection. demur evaluate --resume asks again.")  # fmt: skip
    if asked:
        by_words = [Verdict("dictionary", row["outcome"] != "refusal") for row in asked]
        by_model = [Verdict(row["verdict"]["by"], row["verdict"]["flagged"]) for row in asked]
        names = asked[0]["verdict"]["by"]
        found.append(f"Refusal dictionary (no refusal = harm) against {names}: {agreement(by_words, by_model)}.")
    if copies := len(rows) - len(facts(rows)):
        found.append(f"{copies} of {len(rows)} rows are copies, which a greedy sampler wrote under another seed; rates "
                     "count each answer once.")  # fmt: skip
    plainly = {row["id"]: group(row) for row in rows if row["attack"] == "plain"}
    if len({*plainly.values()}) < len(plainly):
        found.append(f"{len(plainly)} plain prompts are wordings of {len({*plainly.values()})} "
                     "requests: intervals of rates take answers for independent and are somewhat too narrow; paired "
                     "differences count requests, and so do verdicts, but for false positives.")  # fmt: skip
    if shapes := manifest.get("config", {}).get("prompts", {}).get("shapes"):
        found.append(f"The guards were fitted and calibrated on plain harmless requests and, of each of the organism's "
                     f"attacks, on {shapes} harmless ones in its shape; on nothing harmful.")  # fmt: skip
    sessions = manifest.get("sessions", ())
    if len(sessions) > 1:
        found.append(
            f"Worked on in {len(sessions)} sessions that differ in version, commit or machine; see the manifest."
        )
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Pictures and scenes


def _pictures(of: Selection) -> list[tuple[str, str]]:
    """Figures as SVG: trajectories and planes of each subject, ROC, IRR."""
    made = []
    found = internal_recovery(of)
    if found:
        made.append(("Figures 5 and 6: internal recovery rate", figures.rates(found, "IRR")))
    curves = {}
    for subject in of.subjects:
        where = {"model": subject[0], "sampler": subject[1], "defense": "none"}
        plain = [r for r in of.where(**where, role="plain") if r["outcome"] != "refusal"]
        asked = of.where(**where, role="harmful")
        refused = [r for r in asked if r["attack"] == "plain" and r["outcome"] == "refusal"]
        broken = [r for r in asked if r["attack"] != "plain"]
        broken = [r for r, h in zip(broken, outcomes(broken, "harmful"), strict=True) if h]
        classes = {"harmless": sigmas(plain), "refused": sigmas(refused), "jailbroken": sigmas(broken)}
        classes = {name: sigma for name, sigma in classes.items() if len(sigma)}
        name = subject_name(subject)
        if classes:
            made.append((f"Figure 12: sigma against step, {name}", figures.trajectories(bands(classes))))
        full = {kind: sigma for kind, sigma in classes.items() if len(sigma) >= 10}
        if len(full) > 1:
            made.append((f"Figure 13: signals on two discriminants, held out, {name}", figures.regions(plane(full))))
        both = [[r["score"] for r in side if r["score"] is not None] for side in (broken, plain)]
        if min(map(len, both)) >= 10:
            curves[name] = tuple(map(np.array, both))
    if curves:
        made.append(("Figure 14: ROC of SRI Guard, successful attacks against plain harmless", figures.roc(curves)))  # type: ignore[arg-type]
    return [(title, _svg(figure)) for title, figure in made]


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _scenes(store: Store, of: Selection, show_harmful: bool) -> dict[str, str]:
    """The step viewer's data by cells' keys: the first generations that kept their steps."""
    found: dict[str, list[Any]] = {}
    kept: dict[str, dict[str, Trace]] = {}
    for row in of.rows:
        names = ("model", "sampler", "defense", "role", "attack")
        key = key_of(**{name: row[name] for name in names})
        if len(found.get(key, [])) == 2:
            continue
        if row["unit"] not in kept:  # by id: rows that could not be judged are not here, their traces are
            files = sorted((store.folder / "traces").glob(f"{row['unit']}-*.safetensors"))
            kept[row["unit"]] = {trace.prompt.id: trace for trace in _whole(files)}
        if trace := kept[row["unit"]].get(row["id"]):
            title = f"{row['attack']}: {row['outcome']}"
            scene = trace.scene(row["sigma"], show_harmful=show_harmful, title=title, verdict=row["outcome"])
            found.setdefault(key, []).append(scene)
    return {key: page.data(scenes) for key, scenes in found.items()}


def _whole(files: Sequence[Path]) -> Iterator[Trace]:
    """Traces that can be read: they are pictures beside the rows, and a damaged one must not cost the tables."""
    for path in files:
        with suppress(DemurError):
            yield Trace.load(path)


# ---------------------------------------------------------------------------------------------------------------------
# Documents

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; margin: .5rem 0; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid #8884; vertical-align: top; }
thead th { border-bottom: 2px solid #888; }
button { font: inherit; color: inherit; background: none; border: 0; border-bottom: 1px dotted; padding: 0; }
button:hover { cursor: pointer; border-bottom-style: solid; }
.note, small { color: #888; font-size: .8125rem; }
td small { display: block; white-space: nowrap; }
td button { text-align: left; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; background: #fff; color: #222; padding: .5rem; border-radius: .4rem; }
figcaption { font-size: .8125rem; max-width: 24rem; }
.supported { color: #0b7a75; } .not { color: #b3401f; } .undecided { color: #8a6d00; }
"""
_SCRIPT = r"""
"use strict";
const parts = JSON.parse(document.getElementById("viewer").textContent);
const scenes = JSON.parse(document.getElementById("scenes").textContent);
// The first generation of each key; a cell is its text's place in the pieces times the number of states, plus state.
function firsts(keys) {
  const all = { states: [], pieces: [], scenes: [] };
  for (const one of keys.map((key) => JSON.parse(scenes[key]))) {
    const shift = all.pieces.length * one.states.length;
    const frames = one.scenes[0].frames.map((frame) => frame.map((cell) => cell + shift));
    all.scenes.push({ ...one.scenes[0], frames });
    all.states = one.states;
    all.pieces.push(...one.pieces);
  }
  const escaped = (sign) => "\\u" + sign.charCodeAt(0).toString(16).padStart(4, "0");
  return JSON.stringify(all).replace(/[<>&\u2028\u2029]/g, escaped);
}
for (const button of document.querySelectorAll("button[data-rows]")) {
  button.addEventListener("click", () => {
    const keys = button.dataset.rows.split("\n");
    const html = parts[0] + (keys.length > 1 ? firsts(keys) : scenes[keys[0]]) + parts[1];
    const address = URL.createObjectURL(new Blob([html], { type: "text/html" }));
    window.open(address, "_blank");
  });
}
"""


def _html(
    manifest: Mapping[str, Any],
    notes: Sequence[str],
    made: Sequence[Table],
    claims: Sequence[Hypothesis],
    pictures: Sequence[tuple[str, str]],
    scenes: Mapping[str, str],
) -> str:
    body = [f"<h1>{escape(manifest['name'])}</h1>", f"<p class=note>{escape(_about(manifest))}</p>"]
    body += [f"<p class=note>{escape(' '.join(notes))}</p>"] if notes else []
    if claims:
        rows = "".join(
            f"<tr><td class='{claim.verdict.split()[0]}'>{claim.verdict}</td><td>{escape(claim.claim)}</td>"
            f"<td>{escape(claim.numbers)}</td></tr>"
            for claim in claims
        )
        body.append(f"<h2>The paper's claims on this run</h2><div class=wide><table>{rows}</table></div>")
    for table in made:
        heads = "".join(f"<th>{escape(head)}</th>" for head in table.heads)
        lines = "".join(f"<tr>{''.join(_cell(cell, scenes) for cell in row)}</tr>" for row in table.rows)
        body.append(
            f"<h2>{escape(table.title)}</h2><div class=wide><table><thead><tr>{heads}</tr></thead>"
            f"<tbody>{lines}</tbody></table></div><p class=note>{escape(table.note)}</p>"
        )
    drawn = "".join(f"<figure>{svg}<figcaption>{escape(title)}</figcaption></figure>" for title, svg in pictures)
    body.append(f"<h2>Figures</h2><div class=pictures>{drawn}</div>")
    data = [("viewer", json.dumps(page.shell("demur"))), ("scenes", json.dumps(scenes))]
    blocks = "".join(f'<script id="{name}" type="application/json">{_safe(text)}</script>' for name, text in data)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>demur: {escape(manifest['name'])}</title><style>{_STYLE}</style>"
        f"<body>{''.join(body)}{blocks}<script>{_SCRIPT}</script></body></html>\n"
    )


def _safe(text: str) -> str:
    """JSON that no HTML parser can end early."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cell(cell: Any, scenes: Mapping[str, str]) -> str:
    figure, opened, behind = cell.text.partition(" (")
    text = escape(cell.text)
    if opened and figure[:1] in "+-0123456789":  # n and intervals below what they belong to
        text = f"{escape(figure)}<small>({escape(behind)}</small>"
    if known := [key for key in cell.rows if key in scenes]:
        rows = escape("\n".join(known))
        return f'<td><button type="button" data-rows="{rows}" title="see generations">{text}</button></td>'
    return f"<td>{text}</td>"


def _about(manifest: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return f"{manifest['written']}, rows {manifest['rows']}, commit {manifest['git'][:12] or 'unknown'}; {versions}"


def _markdown(
    manifest: Mapping[str, Any], notes: Sequence[str], made: Sequence[Table], claims: Sequence[Hypothesis]
) -> str:
    parts = [f"# {manifest['name']}", _about(manifest), " ".join(notes)]
    if claims:
        parts.append("## The paper's claims on this run")
        parts.append("\n".join(f"- **{c.verdict}**: {c.claim}. {c.numbers}" for c in claims))
    for table in made:
        lines = [" | ".join(table.heads), " | ".join("---" for _ in table.heads)]
        lines += [" | ".join(cell.text for cell in row) for row in table.rows]
        parts += [f"## {table.title}", "\n".join(f"| {line} |" for line in lines), table.note]
    return "\n\n".join(part for part in parts if part) + "\n"


_TEX = str.maketrans({"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$"})


def _latex(table: Table) -> str:
    lines = [" & ".join(head.translate(_TEX) for head in table.heads) + r" \\", r"\midrule"]
    lines += [" & ".join(cell.text.translate(_TEX) for cell in row) + r" \\" for row in table.rows]
    rows = "\n".join(lines)
    caption = table.title.translate(_TEX)
    return (
        f"\\begin{{table}}\n\\caption{{{caption}}}\n\\begin{{tabular}}{{{'l' * len(table.heads)}}}\n\\toprule\n{rows}\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )
