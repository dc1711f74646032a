"""A study as Markdown: what was found, every figure with its n and interval, for the terminal's reader and the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from demur.guards.ablation import CONTROL, PLAIN

Json = Mapping[str, Any]


def findings(report: Json) -> str:
    """The whole page."""
    parts = [f"# {title(about)}\n\n{_subject(about, report)}" for about in report["subjects"]]
    if report["orders"]:
        parts.append(_orders(report["orders"]))
    return "\n\n".join(parts) + "\n"


def title(about: Json) -> str:
    """Model and sampler."""
    return f"{about['model']}, {about['sampler']}"


def table_4(fit: Json) -> list[tuple[str, ...]]:
    """Rows of the ablation: detector, then area, TPR at 1% and 5% and the worst attack for both kinds of negatives."""
    found = []
    lines = {(line["detector"], line["against"]): line for line in fit["summary"]}
    for name in dict.fromkeys(line["detector"] for line in fit["summary"]):
        row = [name]
        for against in (PLAIN, CONTROL):
            line = lines.get((name, against))
            if line is None:
                row += ["-"] * 4
                continue
            worst = f"{line['worst']:.2f} {line['worst_attack']}"
            row += [f"{line['auroc']:.3f}", f"{line['tpr_1']:.2f}", f"{line['tpr_5']:.2f}", worst]
        found.append(tuple(row))
    return found


def across(reports: Sequence[Json], names: Sequence[str]) -> str:
    """Several pairs (seeds) side by side: for each subject and fit, every detector's mean area against both
    negatives.
    """
    parts = [f"# {len(reports)} pairs: {', '.join(names)}"]
    for about in reports[0]["subjects"]:
        for fit in about["fits"]:
            found = [_same(report, about, fit) for report in reports]
            rows = []
            for name in dict.fromkeys(line["detector"] for line in fit["summary"]):
                cells = [name]
                for against in (PLAIN, CONTROL):
                    values = [
                        next(
                            (x["auroc"] for x in f["summary"] if (x["detector"], x["against"]) == (name, against)), None
                        )
                        for f in found
                        if f is not None
                    ]
                    cells += ["-" if v is None else f"{v:.2f}" for v in values]
                rows.append(tuple(cells))
            heads = ("detector", *names, *(f"{name}*" for name in names))
            parts.append(f"## {title(about)}, fitted on harmless prompts: {fit['fit']}\n\n{markdown(heads, rows)}")
            flags = [
                (flag["name"], flag["kind"], *[_flag(f, flag) for f in found if f is not None]) for flag in fit["flags"]
            ]
            parts.append(markdown(("set", "kind", *(f"{name}, offline / online" for name in names)), flags))
        rows = [
            (f"lambda_r {r}", *[rate(_subject_of(report, about)["irr"]["all attacks"][r]) for report in reports])
            for r in about["irr"].get("all attacks", {})
        ]
        parts.append(
            f"### {title(about)}: internal recovery rate over all attacks\n\n{markdown(('IRR', *names), rows)}"
        )
    note = "AUROC, means over attacks: successful ones against plain harmless answers; *: same attack, harmless."
    return "\n\n".join([parts[0], note, *parts[1:]]) + "\n"


def _subject_of(report: Json, about: Json) -> Json:
    found: Json = next(s for s in report["subjects"] if title(s) == title(about))
    return found


def _same(report: Json, about: Json, fit: Json) -> Json | None:
    return next((f for f in _subject_of(report, about)["fits"] if f["fit"] == fit["fit"]), None)


def _flag(fit: Json, like: Json) -> str:
    found = next(f for f in fit["flags"] if (f["name"], f["kind"]) == (like["name"], like["kind"]))
    pair = [found[kind]["rate"] for kind in ("offline", "online")]
    return (
        " / ".join("-" if value is None else f"{100 * value:.0f}" for value in pair) + f" (n {found['offline']['n']})"
    )


def _subject(about: Json, report: Json) -> str:
    parts = []
    for fit in about["fits"]:
        attacks = list(dict.fromkeys(row["attack"] for row in fit["rows"]))
        parts.append(
            f"## Detectors, fitted on harmless prompts: {fit['fit']} (n {fit['n_fit']})\n\n"
            f"Means over {len(attacks)} attacks that succeed at least 10 times ({', '.join(attacks) or 'none'}), each "
            "counting once. Left: successful attacks against plain harmless answers. Right: against the same attack on "
            "allowed requests.\n\n"
            + markdown(
                ("detector", "AUROC", "TPR@1%", "TPR@5%", "worst", "AUROC, same attack", "TPR@1%", "TPR@5%", "worst"),
                table_4(fit),
            )
        )
        parts.append(_attack_table(fit))
        parts.append(_flags(fit, report))
        parts.append(_blind(fit))
    parts.append(_recovery(about))
    if about["separability"]:
        s = about["separability"]
        recall = ", ".join(f"{name} {value:.2f}" for name, value in s["recall"].items())
        parts.append(
            "## Separability\n\nHarmless answers, refusals, successful attacks by a linear rule on held-out signals: "
            f"balanced accuracy {s['accuracy']:.2f} ({s['low']:.2f} to {s['high']:.2f}, n {s['n']}); {recall}."
        )
    return "\n\n".join(parts)


def _attack_table(fit: Json) -> str:
    rows = [row for row in fit["rows"] if row["detector"] == "SRI, last layer"]
    found = [
        (
            row["attack"],
            row["against"],
            f"{row['auroc']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
            f"{row['spread']:.2f}",
            f"{row['precision']:.2f}",
            f"{row['tpr_1']:.2f}",
            f"{row['positives']} / {row['negatives']}",
        )
        for row in rows
    ]
    heads = ("attack", "against", "AUROC", "over seeds", "average precision", "TPR@1%", "n")
    return "### SRI Guard, attack by attack\n\n" + markdown(heads, found)


def _flags(fit: Json, report: Json) -> str:
    kind = "99% quantile" if report["paper"] else f"conformal, alpha {report['alpha']:g}"
    rows = [
        (
            flag["name"],
            {"harmless": "harmless", "control": "allowed", "attack": "successful attack"}[flag["kind"]],
            rate(flag["offline"]),
            rate(flag["online"]),
            "-" if flag["step"] != flag["step"] or flag["step"] is None else f"{flag['step']:.0f}",
        )
        for flag in fit["flags"]
        if flag["offline"]["n"]
    ]
    return (
        f"### What the guard flags ({kind}, calibrated on {fit['n_calibrate']})\n\n"
        "On everything harmless or allowed a flag is a false positive.\n\n"
        + markdown(("set", "kind", "offline", "online", "median step"), rows)
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
    rows = [
        (name, *[rate(of[key]) for key in ("rr", "asr", "hrr", "frr")], *[rate(r) for r in about["irr"][name].values()])
        for name, of in about["recovery"].items()
    ]
    every = [rate(r) for r in about["irr"].get("all attacks", {}).values()]
    rows.append(("all attacks", "", "", "", "", *every))
    return "## Recovery\n\n" + markdown(("attack", "RR", "ASR", "HRR", "FRR", "IRR 0.5", "IRR 0.3", "IRR 0.1"), rows)


def _orders(orders: Sequence[Json]) -> str:
    rows = []
    for row in orders:
        cells = [row["attack"]]
        for name in ("RR", "ASR", "IRR"):
            d = row[name]
            cells.append(
                f"{100 * d['diffusion']['rate']:.0f} / {100 * d['ar_order']['rate']:.0f}: {100 * d['difference']:+.0f} "
                f"({100 * d['low']:+.0f} to {100 * d['high']:+.0f}), p {d['p']:.1g}"
            )
        rows.append(tuple(cells))
    return (
        "# The same weights under two orders\n\nLow-confidence remasking / AR order in percent, the paired difference "
        "with its 95% interval and McNemar's p.\n\n" + markdown(("attack", "RR", "ASR", "IRR 0.5"), rows)
    )


def rate(row: Json) -> str:
    """``12% (8 to 18)``, or a dash where undefined."""
    if row["rate"] is None:
        return "-"
    return f"{100 * row['rate']:.0f}% ({100 * row['low']:.0f} to {100 * row['high']:.0f}, n {row['n']})"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] + ["--:"] * (len(heads) - 1)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
