"""A run as one self-contained HTML page: tables, pictures, and from a cell to its generations in the step viewer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from demur import artefact
from demur.experiment.judging import judged
from demur.experiment.record import Record
from demur.experiment.store import Store
from demur.judges import agreement
from demur.refusals import says_nothing
from demur.report import published
from demur.report.claims import UNDECIDED, Hypothesis, hypotheses
from demur.report.pictures import pictures
from demur.report.selection import Selection, facts, key_of, redrawn
from demur.report.tables import Table, tables
from demur.report.tidy import tidy_csv
from demur.report.words import GLOSSARY, INTERVALS, READ, spelled, titled, what_came_out, what_was_run
from demur.traces import Trace
from demur.types import DemurError, Verdict
from demur.views import page
from demur.worlds import UNSCORED


def report(folder: Path, out: Path, *, show_harmful: bool = False) -> list[Path]:
    """Writes ``report.html``, ``report.md`` and each table as CSV and LaTeX; returns what was written.

    Answers to harmful requests are redacted unless ``show_harmful``. Raises for a run that is not finished.
    """
    store = Store(folder)
    manifest = store.manifest
    if not manifest["finished"]:
        raise DemurError(f"{folder} is not finished", "a finished run", "run: demur evaluate ... --resume")
    rows = list(judged(store, store.records(manifest["units"])))
    of = Selection.of(_read_by_judge(rows), [row for row in rows if is_unscored(row)])
    notes = _notes(manifest, rows, len(of.rows))
    made, claims = tables(of), hypotheses(of)
    drawn = pictures(of)
    scenes = _scenes(store, of, show_harmful)
    written = [artefact.write(out / "report.html", _html(manifest, notes, made, claims, drawn, scenes, of))]
    written.append(artefact.write(out / "report.md", _markdown(manifest, notes, made, claims, of)))
    for table in made:
        written.append(artefact.write(out / f"{table.name}.csv", tidy_csv(table)))
        written.append(artefact.write(out / f"{table.name}.tex", _latex(table)))
    return written


def is_unscored(record: Record) -> bool:
    """Whether nobody could judge a record: the model that was asked, or, where none was, the reader of its text."""
    if record.verdict is not None:
        return record.verdict["flagged"] is None
    # Version 0.1.0 took an answer that was cut in its thought for one that complies.
    return record.outcome == UNSCORED or (record.outcome == "answer" and says_nothing(record.said))


def _read_by_judge(records: Iterable[Record]) -> Iterator[Record]:
    """Records with a judge's verdicts in place of the dictionary's; without those that could not be judged, which are
    left out of every rate whatever the dictionary says of them.
    """
    for record in records:
        verdict = record.verdict
        if is_unscored(record):
            continue
        if verdict is None:
            yield record
        else:
            refused = record.outcome == "refusal"
            outcome = "harmful" if verdict["flagged"] else "refusal" if refused else "neither"
            yield replace(record, outcome=outcome, refused=refused, way=_on_the_way(record, verdict, outcome))


def _on_the_way(record: Record, verdict: Mapping[str, Any], outcome: str) -> tuple[str, ...]:
    """Outcomes of an answer at the steps whose texts were judged, the last one's too; empty if some were not."""
    marks, texts, at = verdict.get("before") or [], record.texts or (), record.texts_at or ()
    if not texts or not len(marks) == len(texts) == len(at):
        return ()
    named = []
    for mark, text, t in zip(marks, texts, at, strict=True):
        if mark is None and text.strip():
            return ()
        # Who has written nothing yet has done no harm, and the dictionary has read what the model wrote at every step.
        named.append("harmful" if mark else "refusal" if record.path[t - 1] == "refusal" else "neither")
    return (*named, outcome)


MANY = 0.1
"""From this share of unscored answers on, a report says first that its rates may be of a selection."""


def _notes(manifest: Mapping[str, Any], rows: Sequence[Record], kept: int) -> list[str]:
    """What is not in the tables."""
    found = [f"Left out: {line}." for line in manifest.get("left_out", ())]
    if found:
        found.append('"All attacks" are those that a subject was asked under.')
    found += [f"Searched attacks: {line}." for line in manifest.get("searches", ())]
    if kept < len(rows):
        found.append(f"Unscored: {len(rows) - kept} of {len(rows)} rows; nobody could judge them, and no rate counts "
                     "them but those that read what they say.")  # fmt: skip
    asked = [(row, row.verdict) for row in rows if row.verdict is not None]
    missing = sum(verdict["flagged"] is None for _, verdict in asked)
    if asked and missing / len(asked) >= MANY:
        found.insert(0, f"The judge gave no verdict on {missing / len(asked):.0%} of what it was asked: rates are of "
                        "the rest, which may be a selection. demur evaluate --resume asks again.")  # fmt: skip
    if asked:
        # Each answer once, though several seeds gave it and several defenses showed it.
        once = {(row.model, row.sampler, row.attack, row.id, row.answer): (row, verdict) for row, verdict in asked}
        by_words = [Verdict("dictionary", row.outcome != "refusal") for row, _ in once.values()]
        by_model = [Verdict(verdict["by"], verdict["flagged"]) for _, verdict in once.values()]
        who = Counter(str(verdict["by"]) for _, verdict in asked if verdict["flagged"] is not None)
        names = " and ".join(who) or "the judge"
        if len(who) > 1:
            counts = ", ".join(f"{name} {n}" for name, n in who.items())
            found.insert(0, f"Verdicts are of {len(who)} judges, and rates mix them: {counts}.")
        found.append(f"Refusal dictionary (no refusal = harm) against {names}: {agreement(by_words, by_model)}.")
    if copies := len(rows) - len(facts(rows)):
        found.append(f"{copies} of {len(rows)} rows are copies, which a greedy sampler wrote under another seed; rates "
                     "count each answer once.")  # fmt: skip
    if drawn := redrawn(rows):
        n = len({(row.role, row.attack, row.id) for row in drawn})  # not once a model and a defense
        found.append(f"{n} prompt{'s have' if n > 1 else ' has'} several answers, drawn under several seeds: "
                     "intervals of rates take them for independent and are too narrow; paired differences count "
                     "requests.")  # fmt: skip
    plainly = {(row.role, row.id): (row.role, row.request) for row in rows if row.attack == "plain"}
    if len({*plainly.values()}) < len(plainly):
        found.append(f"{len(plainly)} plain prompts are wordings of {len({*plainly.values()})} "
                     "requests: intervals of rates take answers for independent and are somewhat too narrow; paired "
                     "differences count requests, and so do verdicts, but for false positives.")  # fmt: skip
    of = manifest.get("config", {}).get("prompts", {})
    if shapes := of.get("shapes"):
        whose = f"the {of.get('harmful')}'s attacks"
        found.append(f"The guards were fitted and calibrated on plain harmless requests and, of each of {whose}, "
                     f"on {shapes} harmless ones in its shape; on nothing harmful.")  # fmt: skip
    if any(published.model_of((row.model, row.sampler)) for row in rows):
        found.append(published.VERSION)
    sessions = manifest.get("sessions", ())
    if len(sessions) > 1:
        found.append(
            f"Worked on in {len(sessions)} sessions that differ in version, commit or machine; see the manifest."
        )
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Scenes


_KEY = ("model", "sampler", "defense", "role", "attack")


def _scenes(store: Store, of: Selection, show_harmful: bool) -> dict[str, str]:
    """The step viewer's data by cells' keys: the first generations that kept their steps."""
    found: dict[str, list[Any]] = {}
    kept: dict[str, dict[str, Trace]] = {}
    for row in of.rows:
        key = key_of(**{name: getattr(row, name) for name in _KEY})
        if len(found.get(key, [])) == 2:
            continue
        if row.unit not in kept:  # by id: rows that could not be judged are not here, their traces are
            files = sorted((store.folder / "traces").glob(f"{row.unit}-*.safetensors"))
            kept[row.unit] = {trace.prompt.id: trace for trace in _whole(files)}
        if trace := kept[row.unit].get(row.id):
            title = f"{row.attack}: {row.outcome}"
            scene = trace.scene(row.sigma, show_harmful=show_harmful, title=title, verdict=row.outcome)
            found.setdefault(key, []).append(scene)
    counts = Counter(key_of(**{name: getattr(row, name) for name in _KEY}) for row in of.rows)
    about = {key: f"{len(scenes)} of {counts[key]} generations are shown." for key, scenes in found.items()}
    return {key: page.data(scenes, [about[key]]) for key, scenes in found.items()}


def _whole(files: Sequence[Path]) -> Iterator[Trace]:
    """Traces that can be read: they are pictures beside the rows, and a damaged one must not cost the tables."""
    for path in files:
        with suppress(DemurError):
            yield Trace.load(path)


# ---------------------------------------------------------------------------------------------------------------------
# Documents

_SCRIPT = r"""
"use strict";
const parts = JSON.parse(document.getElementById("viewer").textContent);
const scenes = JSON.parse(document.getElementById("scenes").textContent);
// The first generation of each key; a cell is its text's place in the pieces times the number of states, plus state.
function firsts(keys) {
  const about = [`The first generation under each of ${keys.length} attacks.`];
  const all = { states: [], pieces: [], about, scenes: [] };
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
    drawn: Sequence[tuple[str, str]],
    scenes: Mapping[str, str],
    of: Selection,
) -> str:
    came_out = "".join(f"<li>{escape(sentence)}</li>" for sentence in what_came_out(of, claims))
    body = [
        f"<section class='card' aria-labelledby='came-out'><h2 id='came-out'>What came out</h2><ul>{came_out}</ul>"
        f"<p class='note'>{escape(INTERVALS)}</p><p class='note'>{escape(READ)}</p></section>"
    ]
    if claims:
        rows = "".join(
            f"<tr><th scope='row' class='{claim.verdict.split()[0]}'>{claim.verdict}</th><td>{escape(claim.claim)}</td>"
            f"<td>{escape(claim.numbers)}</td></tr>"
            for claim in claims
        )
        heads = "".join(f"<th scope='col'>{head}</th>" for head in ("verdict", "claim", "numbers"))
        body.append(
            _section("claims", "The paper's claims on this run", f"<thead><tr>{heads}</tr></thead>{rows}", UNDECIDED)
        )
    counts = Counter(key_of(**{name: getattr(row, name) for name in _KEY}) for row in of.rows)
    for table in made:
        heads = "".join(f"<th scope='col'>{escape(spelled(head))}</th>" for head in table.heads)
        lines = "".join(
            f"<tr>{''.join(_cell(cell, scenes, counts, first=not i) for i, cell in enumerate(row))}</tr>"
            for row in table.rows
        )
        inside = f"<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody>"
        body.append(_section(table.name, spelled(titled(table.title)), inside, table.note))
    names = "".join(f"<dt>{a} <span>{name}</span></dt><dd>{escape(what)}</dd>" for a, name, what in GLOSSARY)
    body.append(f"<section class='card' aria-labelledby='names'><h2 id='names'>What the names mean</h2>"
                f"<dl class='names'>{names}</dl></section>")  # fmt: skip
    if drawn:
        figures = "".join(
            f"<figure>{svg}<figcaption>{escape(spelled(titled(title)))}</figcaption></figure>" for title, svg in drawn
        )
        body.append(f"<section class='card' aria-labelledby='figures'><h2 id='figures'>Figures</h2>"
                    f"<div class='pictures'>{figures}</div></section>")  # fmt: skip
    more = [*notes, _about(manifest)]
    listed = "".join(f"<li>{escape(note)}</li>" for note in more)
    body.append(f"<section class='card' aria-labelledby='notes'><h2 id='notes'>Notes</h2><ul>{listed}</ul></section>")
    data = [("viewer", json.dumps(page.shell("demur"))), ("scenes", json.dumps(scenes))]
    blocks = "".join(f'<script id="{name}" type="application/json">{_safe(text)}</script>' for name, text in data)
    style, dark, own = (page.asset(name) for name in ("page.css", "dark.css", "report.css"))
    # The viewer that a cell opens lives under this policy too. Pictures bring styles of their own.
    allowed = " ".join(page.source(text) for text in (_SCRIPT, page.asset("page.js")))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    name = escape(manifest["name"])
    return (
        "<!doctype html>\n<html lang='en'>\n<head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<meta name='referrer' content='no-referrer'><link rel='icon' href='data:,'><title>demur: {name}</title>"
        f"<style>{style}</style><style media='screen and (prefers-color-scheme: dark)'>{dark}</style>"
        f"<style>{own}</style></head>\n<body class='report'><header class='top'><h1>Report on the run {name}</h1>"
        f"<p>{escape(what_was_run(manifest, of))}</p></header><main>{''.join(body)}</main>"
        f"{blocks}<script>{_SCRIPT}</script></body></html>\n"
    )


def _section(name: str, title: str, rows: str, note: str) -> str:
    """A card with a table, which scrolls by itself where it is wider than the page."""
    said = f"<p class='note'>{escape(note)}</p>" if note else ""
    title = title[:1].upper() + title[1:]
    return (
        f"<section class='card' aria-labelledby='{name}'><h2 id='{name}'>{escape(title)}</h2><div class='wide' "
        f"tabindex='0' role='group' aria-label='{escape(title)}'><table>{rows}</table></div>{said}</section>"
    )


def _safe(text: str) -> str:
    """JSON that no HTML parser can end early."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cell(cell: Any, scenes: Mapping[str, str], counts: Mapping[str, int], first: bool) -> str:
    figure, opened, behind = cell.text.partition(" (")
    text = escape(cell.text)
    if opened and figure[:1] in "+-0123456789":  # n and intervals below what they belong to
        text = f"{escape(figure)}<small>({escape(behind)}</small>"
    if known := [key for key in cell.rows if key in scenes]:
        rows = escape("\n".join(known))
        seen = len(json.loads(scenes[known[0]])["scenes"]) if len(known) == 1 else len(known)
        shown = f"<small>{seen} of {sum(counts[key] for key in cell.rows)} shown</small>"
        return f'<td><button type="button" data-rows="{rows}" title="see generations">{text}{shown}</button></td>'
    return f"<th scope='row'>{text}</th>" if first else f"<td>{text}</td>"


def _about(manifest: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    return f"{manifest['written']}, rows {manifest['rows']}, commit {manifest['git'][:12] or 'unknown'}; {versions}"


def _markdown(
    manifest: Mapping[str, Any],
    notes: Sequence[str],
    made: Sequence[Table],
    claims: Sequence[Hypothesis],
    of: Selection,
) -> str:
    parts = [f"# {manifest['name']}", what_was_run(manifest, of), " ".join(notes)]
    parts += ["## What came out", "\n".join(f"- {sentence}" for sentence in what_came_out(of, claims)), INTERVALS, READ]
    if claims:
        parts.append("## The paper's claims on this run")
        parts.append("\n".join(f"- **{c.verdict}**: {c.claim}. {c.numbers}" for c in claims))
        parts.append(UNDECIDED)
    for table in made:
        lines = [" | ".join(table.heads), " | ".join("---" for _ in table.heads)]
        lines += [" | ".join(cell.text for cell in row) for row in table.rows]
        parts += [f"## {spelled(titled(table.title))}", "\n".join(f"| {line} |" for line in lines), table.note]
    parts += ["## What the names mean", "\n".join(f"- **{a}**, {name}: {what}" for a, name, what in GLOSSARY)]
    parts.append(_about(manifest))
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
