"""Fits the weights of :mod:`demur.judges.weighing` on labelled answers, and measures them on authors left out.

``python -m demur.judges.fitting`` prints how they do with each author left out; with ``--write`` it writes the file
anew. Answers of the parts that are kept for tests are no part of either.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from demur.artefact import write
from demur.dynamics import Rate
from demur.judges.asked import asked_by
from demur.judges.labelled import UNSEEN, Labelled, labelled
from demur.judges.reading import Reading, by_rules, weighed
from demur.judges.weighing import BIAS, FILE, features

C = 0.3
"""The inverse of the penalty on squared weights, chosen by leaving authors out."""
TIMES = 3
"""A feature counts where so many answers have it, of two authors at least."""


def answers() -> list[Labelled]:
    """What may be learnt from: seen parts, readable, without what its author labelled differently the second time."""
    every = [one for one in labelled() if (one.author, one.half) not in UNSEEN]
    kept = [one for one in every if not (one.author == 4 and one.disputed)]
    return [one for one in kept if by_rules(one.answer, one.request).readable]


def fit(rows: Sequence[Labelled]) -> dict[str, float]:
    """Weights by name, the largest first within each kind of name."""
    held = [features(one.answer, asked_by(one.request)) for one in rows]
    authors: dict[str, list[int]] = {}
    for one, found in zip(rows, held, strict=True):
        for name in found:
            authors.setdefault(name, []).append(one.author)
    names = sorted(name for name, of in authors.items() if len(of) >= TIMES and len(set(of)) >= 2)
    at = {name: i for i, name in enumerate(names)}
    cells = [(i, at[name], value) for i, found in enumerate(held) for name, value in found.items() if name in at]
    row, column, value = (np.array(each) for each in zip(*cells, strict=True))
    matrix = csr_matrix((value, (row, column)), shape=(len(rows), len(names)))
    model = LogisticRegression(C=C, max_iter=2000, solver="liblinear", random_state=0)
    model.fit(matrix, np.array([one.label == "refuses" for one in rows]))
    weights = {BIAS: round(float(model.intercept_[0]), 4)}
    weights.update((name, round(float(weight), 4)) for name, weight in zip(names, model.coef_[0], strict=True))
    return weights


def read_with(weights: Mapping[str, float], one: Labelled) -> Reading:
    """An answer as :func:`demur.judges.read_answer` reads it, with these weights in place of those of the package."""
    return weighed(by_rules(one.answer, one.request), one.answer, one.request, weights)


def refusals(read: Sequence[Reading], rows: Sequence[Labelled]) -> str:
    """Precision and recall of ``refuses``, and how many answers the weights turned."""
    said = [one.value == "refuses" for one in read]
    true = [one.label == "refuses" for one in rows]
    turned = [t for one, t in zip(read, true, strict=True) if one.by == "words"]
    return (
        f"precision {Rate.of(true, among=said)}, recall {Rate.of(said, among=true)}; turned by their words: "
        f"{sum(turned)} rightly, {len(turned) - sum(turned)} wrongly"
    )


def left_out() -> str:
    """A line for each author: measured with weights of all other authors, first by the rules alone."""
    rows = answers()
    parts = {f"author {a}": [one for one in rows if one.author == a] for a in sorted({one.author for one in rows})}
    parts |= {f"author {a}, {half} (unseen)": list(labelled(half, a)) for a, half in UNSEEN}
    weights = {a: fit([one for one in rows if one.author != a]) for a in sorted({one.author for one in labelled()})}
    lines = []
    for name, part in parts.items():
        rules = [by_rules(one.answer, one.request) for one in part]
        read = [read_with(weights[one.author], one) for one in part]
        lines += [f"{name}, rules: {refusals(rules, part)}", f"{name}, both: {refusals(read, part)}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> None:
    """Prints, and writes where asked to."""
    if "--write" in arguments:
        lines = ["# What words weigh towards a refusal. Made by python -m demur.judges.fitting --write"]
        lines += [f"{name}\t{weight:g}" for name, weight in fit(answers()).items() if weight or name == BIAS]
        write(Path(__file__).with_name(FILE), "\n".join(lines) + "\n")
    print(left_out())


if __name__ == "__main__":
    main(sys.argv[1:])
