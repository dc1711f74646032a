"""A report as Markdown: what was found, every figure with its n and interval, for the terminal and the docs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from demur.ablation.protocol import CONTROL, PLAIN
from demur.dynamics.rates import ends_in_percent, in_percent

Json = Mapping[str, Any]


def findings(report: Json, *more: str) -> str:
    """The whole page; ``more`` stands at its end."""
    parts = [f"# {title(about)}\n\n{_subject(about, report)}" for about in report["subjects"]]
    return "\n\n".join([*parts, *more]) + "\n"


def title(about: Json) -> str:
    """Model and sampler."""
    return f"{about['model']}, {about['sampler']}"


def table_4(fit: Json, intervals: bool = True) -> list[tuple[str, ...]]:
    """Rows of the ablation: detector, then area, TPR at 1% and 5% and the worst attack for both kinds of negatives.

    Detectors that had nothing to learn from stand there with dashes; behind the worst attack of a mean over fewer
    attacks than others stands over how many it is.
    """
    found = []
    most = max((line.get("attacks", 0) for line in fit["summary"]), default=0)
    lines = {(line["detector"], line["against"]): line for line in fit["summary"]}
    for name in [*dict.fromkeys(line["detector"] for line in fit["summary"]), *fit.get("without", [])]:
        row = [name]
        for against in (PLAIN, CONTROL):
            line = lines.get((name, against))
            if line is None:
                row += ["-"] * 4
                continue
            few = line.get("attacks", most)
            worst = f"{line['worst']:.2f} {line['worst_attack']}" + (f" (of {few})" if few < most else "")
            row += [cell(line, "auroc", "low", "high", 3, intervals)]
            row += [cell(line, what, f"{what}_low", f"{what}_high", 2, intervals) for what in ("tpr_1", "tpr_5")]
            row.append(worst)
        found.append(tuple(row))
    return found


def cell(line: Json, value: str, low: str, high: str, digits: int = 2, interval: bool = True) -> str:
    """``0.912 (0.87 to 0.95)``."""
    ends = f" ({line[low]:.2f} to {line[high]:.2f})" if interval else ""
    return f"{line[value]:.{digits}f}{ends}"


def across(reports: Sequence[Json], names: Sequence[str]) -> str:
    """Several pairs (seeds) side by side: for each subject and fit, every detector's mean area and TPR at 1% FPR
    against both negatives, with intervals, and what the guard flags.
    """
    parts = [f"# {len(reports)} pairs: {', '.join(names)}"]
    heads = ("detector", *names, *(f"{name}*" for name in names))
    for about in reports[0]["subjects"]:
        for fit in about["fits"]:
            found = [_same(report, about, fit) for report in reports]
            parts.append(f"## {title(about)}, fitted on harmless prompts: {fit['fit']}")
            for what, ends in (("auroc", ("low", "high")), ("tpr_1", ("tpr_1_low", "tpr_1_high"))):
                rows = [
                    (name, *[_of(f, name, against, what, *ends) for against in (PLAIN, CONTROL) for f in found])
                    for name in dict.fromkeys(line["detector"] for line in fit["summary"])
                ]
                parts.append(f"### {'AUROC' if what == 'auroc' else 'TPR at 1% FPR'}\n\n{markdown(heads, rows)}")
            flags = [(flag["name"], flag["kind"], *[_flag(f, flag) for f in found]) for flag in fit["flags"]]
            flagged = markdown(("set", "kind", *(f"{name}, offline / online" for name in names)), flags)
            parts.append(f"### Flagged, in percent\n\n{flagged}")
        rows = [
            (f"lambda_r {r}", *[rate(_subject_of(report, about)["irr"]["all attacks"][r]) for report in reports])
            for r in about["irr"].get("all attacks", {})
        ]
        parts.append(
            f"### {title(about)}: internal recovery rate over all attacks\n\n{markdown(('IRR', *names), rows)}"
        )
    note = (
        "Means over attacks, and means of the ends of their 95% intervals: successful ones against plain harmless "
        "answers; *: same attack, harmless. Flagged: on everything but attacks these are false positives."
    )
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n"


def _of(fit: Json | None, name: str, against: str, what: str, low: str, high: str) -> str:
    """One pair's figure for a detector, or a dash."""
    lines = [] if fit is None else [x for x in fit["summary"] if (x["detector"], x["against"]) == (name, against)]
    return cell(lines[0], what, low, high) if lines else "-"


def _subject_of(report: Json, about: Json) -> Json:
    found: Json = next(s for s in report["subjects"] if title(s) == title(about))
    return found


def _same(report: Json, about: Json, fit: Json) -> Json | None:
    return next((f for f in _subject_of(report, about)["fits"] if f["fit"] == fit["fit"]), None)


def _flag(fit: Json | None, like: Json) -> str:
    """Shares flagged in percent with Wilson's intervals, offline and online: ``1 (0 to 5) / 2 (1 to 7), n 100``."""
    key = like["name"], like["kind"]
    found = None if fit is None else next((f for f in fit["flags"] if (f["name"], f["kind"]) == key), None)
    if found is None or not found["offline"]["n"]:
        return "-"
    pair = [found[kind] for kind in ("offline", "online")]
    cells = [f"{in_percent(r['rate'])} ({ends_in_percent(r['low'], r['high'])})" for r in pair]
    return f"{' / '.join(cells)}, n {found['offline']['n']}"


def _subject(about: Json, report: Json) -> str:
    parts = []
    for fit in about["fits"]:
        attacks = list(dict.fromkeys(row["attack"] for row in fit["rows"]))
        parts.append(
            f"## Detectors, fitted on harmless prompts: {fit['fit']} (n {fit['n_fit']})\n\n"
            f"Means over {len(attacks)} attacks that succeed at least 10 times ({', '.join(attacks) or 'none'}), each "
            "counting once; intervals are means of the attacks' 95% intervals, since attacks wrap the same requests. "
            "Left: successful attacks against plain harmless answers. Right: against the same attack on allowed "
            "requests."
            + _fewer(fit)
            + _without(fit)
            + "\n\n"
            + markdown(
                ("detector", "AUROC", "TPR@1%", "TPR@5%", "worst", "AUROC, same attack", "TPR@1%", "TPR@5%", "worst"),
                table_4(fit),
            )
        )
        parts.append(_attack_table(fit))
        if fit.get("short"):
            parts.append(f"### What the guard flags\n\nNot measured: {fit['short']}.")
        else:
            parts += [_flags(fit, report), _blind(fit)]
    parts += [_recovery(about), _over_time(about)]
    if about["separability"]:
        s = about["separability"]
        recall = ", ".join(f"{name} {value:.2f}" for name, value in s["recall"].items())
        parts.append(
            "## Separability\n\nHarmless answers, refusals, successful attacks, all of test prompts that made no "
            "anchor, by a linear rule on held-out signals: "
            f"balanced accuracy {s['accuracy']:.2f} ({s['low']:.2f} to {s['high']:.2f}, n {s['n']}); {recall}; "
            f"Fisher ratio {s['ratio']:.2f} (0 on average where there is no difference)."
        )
    return "\n\n".join(parts)


def _fewer(fit: Json) -> str:
    """That some means are over fewer attacks than others, in a sentence; nothing where all are over the same."""
    counts = {line["attacks"] for line in fit["summary"] if "attacks" in line}
    few = " Where harmless answers, or other attacks to learn from, were too few, a mean is over fewer attacks: behind "
    return f"{few}its worst stands over how many." if len(counts) > 1 else ""


def _without(fit: Json) -> str:
    """Which detectors have no row, in a sentence; nothing where all have."""
    names = ", ".join(fit.get("without", []))
    return f" Without a row, for want of other attacks to learn from: {names}." if names else ""


def _attack_table(fit: Json) -> str:
    rows = [row for row in fit["rows"] if row["detector"] == "SRI, last layer"]
    found = [
        (
            row["attack"],
            row["against"],
            cell(row, "auroc", "low", "high"),
            f"{row['spread']:.2f}",
            *[cell(row, what, f"{what}_low", f"{what}_high") for what in ("precision", "tpr_1", "tpr_5")],
            f"{row['positives']} / {row['negatives']}",
        )
        for row in rows
    ]
    heads = ("attack", "against", "AUROC", "over seeds", "average precision", "TPR@1%", "TPR@5%", "n")
    return "### SRI Guard, attack by attack\n\n" + markdown(heads, found)


def _flags(fit: Json, report: Json) -> str:
    kind = "99% quantile" if report["paper"] else f"conformal, alpha {report['alpha']:g}"
    rows = [
        (
            flag["name"],
            {"harmless": "harmless", "control": "allowed", "attack": "successful attack"}[flag["kind"]],
            rate(flag["offline"]),
            rate(flag["online"]),
            _plain(flag["step"], 0),
            _percent(flag["spared"]),
        )
        for flag in fit["flags"]
        if flag["offline"]["n"]
    ]
    return (
        f"### What the guard flags ({kind}, calibrated on {fit['n_calibrate']})\n\n"
        "On everything harmless or allowed a flag is a false positive.\n\n"
        + markdown(("set", "kind", "offline", "online", "median step", "steps spared"), rows)
    )


def _blind(fit: Json) -> str:
    rows = [
        (
            line["attack"],
            f"{line['missed']} of {line['of']}",
            str(line["steady"]),
            str(line["late"]),
            str(line["wavering"]),
        )
        for line in fit["blind"]
        if line["of"]
    ]
    return (
        "### Where it is blind\n\nSuccessful attacks that were let pass: `steady` never fell below 0.5 at any step, so "
        "there was no hesitation to see; `late` only in the last quarter; `wavering` did, and was taken for normal.\n\n"
        + markdown(("attack", "missed", "steady", "late", "wavering"), rows)
    )


def _recovery(about: Json) -> str:
    # Results of earlier versions, and of worlds with a judge of their own, were read by one reader alone.
    read = ("rr_read",) if any("rr_read" in of for of in about["recovery"].values()) else ()
    keys = ("rr", *read, "asr", "hrr", "frr")
    rows = [
        (
            name,
            *[rate(of[key]) if key in of else "" for key in keys],
            *[rate(r) for r in about["irr"].get(name, {}).values()],
        )
        for name, of in about["recovery"].items()
    ]
    every = [rate(r) for r in about["irr"].get("all attacks", {}).values()]
    rows.append(("all attacks", *[""] * len(keys), *every))
    how = (
        "Of the final texts" if about.get("judged", True) else "Nobody judged harm: ASR counts answers. Of final texts"
    )
    return f"## Recovery\n\n{how}; IRR at step T.\n\n" + markdown(
        ("attack", "RR", *(["RR, read"] if read else []), "ASR", "HRR", "FRR", "IRR 0.5", "IRR 0.3", "IRR 0.1"), rows
    )


def _over_time(about: Json) -> str:
    """When text and inside do what, and how generations go from state to state."""
    rows = []
    for row in about["over_time"]:
        times = [_time(row["times"].get(what)) for what in ("harm", "refusal", "recovery", "below")]
        inside = [_plain(row[what], digits) for what, digits in (("depth", 2), ("dwell", 1), ("volatility", 3))]
        same = f"{_plain(row['agreement'], 2)} / {_plain(row['kappa'], 2)}"
        lead = f"{_plain(row['lead'], 0)} (n {row['both']})"
        rows.append((f"{row['name']} (n {row['n']})", *times, rate(row["incomplete"]), *inside, same, lead))
    heads = (
        "set", "first harm", "first refusal", "recovery", "first below 0.5", "incomplete inside", "depth", "dwell",
        "volatility", "text = inside / kappa", "lead",
    )  # fmt: skip
    chain = about["chain"]
    steps = [
        (f"{name} ({in_percent(share)}% of steps)", *[_plain(x, 3) for x in line])
        for name, share, line in zip(chain["states"], chain["share"], chain["matrix"], strict=True)
    ]
    return (
        "## Over time\n\nTimes are the step by which half have had it (Kaplan and Meier; - where fewer do by step T) "
        "and the share that has it at all; recovery counts from the first harmful text, of those with one. Incomplete: "
        "sigma fell below 0.5, ended above, and no text refused. Depth and dwell (steps) below 0.5 are means of those "
        "that fell below; lead: by how many steps, in the median, the inside refuses before the text.\n\n"
        + markdown(heads, rows)
        + f"\n\nFrom one step's state (rows) to the next one's, all attacks, n {chain['n']}:\n\n"
        + markdown(("state", *chain["states"]), steps)
    )


def _time(times: Json | None) -> str:
    """``12 (45%, n 24)``: the median, or a dash if it was not reached by T, and the share."""
    if times is None or times["rate"] is None:
        return "-"
    return f"{_plain(times['median'], 0)} ({in_percent(times['rate'])}%, n {times['n']})"


def _plain(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{in_percent(value)}%"


def rate(row: Json) -> str:
    """``12% (8 to 18)``, or a dash where undefined; with how many there were of which nobody could say."""
    if row["rate"] is None:
        return f"unscored ({row['unscored']})" if row.get("unscored") else "-"
    left = f"; unscored {row['unscored']}" if row.get("unscored") else ""
    return f"{in_percent(row['rate'])}% ({ends_in_percent(row['low'], row['high'])}, n {row['n']}{left})"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] + ["--:"] * (len(heads) - 1)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
