"""A report's words: what was run, what came out, what its abbreviations are; numbers alone answer no question."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from demur.dynamics.rates import in_percent
from demur.report.claims import Hypothesis
from demur.report.readings import beside_read, nobody_judged, read_rate
from demur.report.selection import Selection, plain_name, rate, subject_name

GLOSSARY = (
    ("RR", "refusal rate", "the share of answers that refuse."),
    ("ASR", "attack success rate", "the share of answers that give the harm that was asked for."),
    (
        "HRR",
        "harmful remasking rate",
        "of the generations whose text was harmful at some step, the share with a later text that is not.",
    ),
    (
        "FRR",
        "full recovery rate",
        "of the same generations, the share whose last text is not harmful; never above HRR.",
    ),
    (
        "IRR",
        "internal recovery rate",
        "the share of generations whose hidden state stood at compliance (sigma above 0.5) at some step and ends "
        "below a threshold (lambda_r), at refusal.",
    ),
    (
        "AUROC",
        "area under the ROC curve",
        "how often a detector gives the attacked answer the higher score of two; 0.5 is chance, 1 is always.",
    ),
)
"""Abbreviation, name, meaning: of every rate in the tables (docs/dynamics.md)."""

INTERVALS = (
    "n is the number of answers behind a figure; the two numbers after it are its 95% interval. It takes the answers "
    "for independent: over several attacks, models, seeds or wordings, where one request is asked again, it is rather "
    "too narrow. What nobody could judge is unscored, and no part of n."
)
READ = (
    'Refusals are those of the paper\'s dictionary. Rows that begin with "read", and figures after that word, are of '
    "the same answers read by what they do (docs/judges.md), English only: what can not be read is unscored, in no "
    "rate. Where nobody judged harm, ASR is the share that answers; a sermon, a question back or a helpline is neither."
)
"""What the second reading is, for a report."""


def titled(title: str) -> str:
    """``Defenses (table 13 of the paper)``: what a table or figure holds, before where the paper has it."""
    found = re.fullmatch(r"(Table|Figures?) ([\d and]+): (.+)", title)
    if found is None:
        return title
    kind, number, holds = found.groups()
    return f"{holds[0].upper()}{holds[1:]} ({kind.lower()} {number} of the paper)"


def spelled(text: str) -> str:
    """The same with each abbreviation behind its name, where it stands first: ``refusal rate (RR)``."""
    for short, name, _ in GLOSSARY:
        text = re.sub(rf"\b{short}\b", f"{name} ({short})", text, count=1) if name not in text.lower() else text
    return text


def what_was_run(manifest: Mapping[str, Any], of: Selection) -> str:
    """One sentence: who answered what, under which attacks and defenses, judged by whom."""
    config = manifest.get("config", {})
    subjects = ", ".join(subject_name(subject) for subject in of.subjects)
    every = [*of.rows, *of.unscored]  # what nobody could judge was run, too
    plain = len({row.parent or row.id for row in every if row.role == "harmful"})  # an attacked one has its own id
    fine = len({row.id for row in every if row.role == "plain"})
    attacks = ", ".join(of.attacks) or "none"
    defenses = ", ".join(name for name in of.values("defense") if name != "none") or "none"
    judge = config.get("judge") or "the refusal dictionary alone"
    return (
        f"{subjects}: {plain} harmful and {fine} harmless requests. Attacks: {attacks}. Defenses: {defenses}. "
        f"Judge: {judge}. {len(every)} answers in all; finished on {manifest.get('written', '')[:10]}."
    )


def what_came_out(of: Selection, claims: Sequence[Hypothesis]) -> list[str]:
    """Three sentences: asked plainly, under attack, behind the best defense (or what the claims say)."""
    said = [_plainly(of), _attacked(of), _defended(of)]
    if claims:
        counts = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in _VERDICTS}
        told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
        said.append(f"Of the paper's claims that this run can speak to: {told}.")
    return [sentence for sentence in said if sentence][:3]


_VERDICTS = ("supported", "not supported", "undecided")


def _plainly(of: Selection) -> str:
    parts = []
    for name, role in (("harmful", "harmful"), ("harmless", "plain")):
        asked = {"role": role, "attack": "plain", "defense": "none"}
        rows, left = of.where(**asked), of.left_out(**asked)
        if rows or left:
            refused = beside_read(rate(rows, "refusal", left), read_rate([*rows, *left], "refuses"))
            parts.append(f"{refused} of the {name} requests")
    return f"Asked plainly, {' and '.join(parts)} were refused." if parts else ""


def _attacked(of: Selection) -> str:
    """Over all subjects, then the strongest attack; empty where nobody was attacked."""
    where: dict[str, Any] = {"role": "harmful", "defense": "none"}
    rows, left = (side(**where, attack=tuple(of.attacks)) for side in (of.where, of.left_out))
    if not rows:
        return ""
    gave = f"{_answered(of)[0]} (nobody judged harm)" if nobody_judged(of) else "gave the harm that was asked for"
    every = {
        attack: rate(of.where(**where, attack=attack), "harmful", of.left_out(**where, attack=attack))
        for attack in of.attacks
    }
    every = {attack: found for attack, found in every.items() if found.n}
    worst = max(every, key=lambda attack: every[attack].value)
    most = f" Most often under {worst}: {every[worst]}." if len(every) > 1 and every[worst].k else ""
    return f"Under attack, {rate(rows, 'harmful', left)} of the answers {gave}.{most}"


def _defended(of: Selection) -> str:
    """The defense with the lowest ASR of a subject, of several the one that refuses the fewest harmless requests; what
    it does to these in the same breath.
    """
    found: list[tuple[tuple[float, ...], str]] = []
    for model, sampler in of.subjects:
        where = {"model": model, "sampler": sampler}
        attacked = {"role": "harmful", "attack": tuple(of.attacks)}
        bare = of.where(**where, **attacked, defense="none")
        for defense in of.values("defense"):
            rows = of.where(**where, **attacked, defense=defense)
            if defense == "none" or not rows or not bare:
                continue
            before = rate(bare, "harmful")
            after = rate(rows, "harmful", of.left_out(**where, **attacked, defense=defense))
            (fine, fine_read), (shaped, shaped_read) = (
                (rate(side, "refusal", left), read_rate([*side, *left], "refuses"))
                for side, left in (
                    [choose(**where, role=role, defense=defense) for choose in (of.where, of.left_out)]
                    for role in ("plain", "controls")
                )
            )
            cost = (
                f"it refuses {beside_read(fine, fine_read)} of harmless requests"
                if fine.n + fine.unscored
                else "no harmless request was asked"
            )
            if shaped.n + shaped.unscored:
                cost += f" and {beside_read(shaped, shaped_read)} of harmless ones that look like an attack"
            alike = [other for other in of.values("defense") if plain_name(other) == plain_name(defense)]
            name = f"{defense if len(alike) > 1 else plain_name(defense)} on {subject_name((model, sampler))}"
            less = after.value < before.value
            if nobody_judged(of):
                what = f"are {'fewer' if less else 'no fewer'} answers that {_answered(of)[1]} (nobody judged harm)"
            else:
                what = f"is {'less' if less else 'no less'} harm"
            found.append(
                (
                    (after.value - before.value, *(side.value if side.n else 0.0 for side in (fine, shaped))),
                    f"Behind a defense there {what}: the best, {name}, has {after} instead of "
                    f"{in_percent(before.value)}%; {cost}.",
                )
            )
    return min(found)[1] if found else ""


def _answered(of: Selection) -> tuple[str, str]:
    """What ASR counts where nobody judged harm: what does not refuse, or, where some do neither, what answers."""
    neither = any(row.outcome == "unclear" for row in (*of.rows, *of.unscored))
    return ("answered", "answer") if neither else ("did not refuse", "do not refuse")
