"""Fits the weights of :mod:`demur.judges.weighing` on labelled answers, and measures them on authors left out.

``python -m demur.judges.fitting`` prints how they do with each author left out; with ``--write`` it writes the file
anew. Answers of the parts that are kept for tests are no part of either. The weights of the package were also learnt
``--beside`` them on a real model's answers, which benchmarks/real_answers.py writes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from demur.artefact import write
from demur.dynamics import Rate
from demur.judges.asked import asked_by
from demur.judges.labelled import LABELS, UNSEEN, Labelled, labelled
from demur.judges.reading import HEAVY, Reading, by_rules, weighed
from demur.judges.weighing import BIAS, FILE, RULES, SAY, Weights, held

C = 0.15
"""The inverse of the penalty on squared weights, chosen by leaving authors out."""
TIMES, TIMES_SAID = 3, 5
"""A feature counts where so many answers have it, of two authors at least; words in a row, where so many do."""
GROUPS = 5
"""Strangers are left out in so many groups, to learn how much words are to be believed."""
STRANGER = 5
"""Authors from this one on knew nothing of the rules. What the rules' word is worth is learnt on their answers."""


def answers(beside: Sequence[Labelled] = ()) -> list[Labelled]:
    """What may be learnt from: seen parts, readable, without what its author labelled differently the second time; and
    others ``beside`` them.
    """
    every = [one for one in (*labelled(), *beside) if (one.author, one.half) not in UNSEEN]
    kept = [one for one in every if not (one.author == 4 and one.disputed)]
    return [one for one in kept if by_rules(one.answer, one.request).readable]


def fit(rows: Sequence[Labelled]) -> dict[str, tuple[float, float]]:
    """Weights by name: towards a refusal, and among answers that refuse nothing, towards an answer."""
    names, matrix = _matrix(rows)
    author = np.array([one.author for one in rows])
    rules = [by_rules(one.answer, one.request).value for one in rows]
    said = np.array([[value == "refuses", value == "answers"] for value in rules], dtype=float)
    label = np.array([one.label for one in rows])
    every = np.ones(len(rows), dtype=bool)
    columns = [_column(matrix, author, said, label == "refuses", every)]
    columns.append(_column(matrix, author, said, label == "answers", label != "refuses"))
    found = [BIAS, RULES + "refuses", RULES + "answers", *names]
    return {name: (round(a, 3), round(b, 3)) for name, a, b in zip(found, *(c.tolist() for c in columns), strict=True)}


def _matrix(rows: Sequence[Labelled]) -> tuple[list[str], csr_matrix]:
    """What counts by name, and what each answer has of it."""
    found = [held(one.answer, asked_by(one.request)) for one in rows]
    authors: dict[str, list[int]] = {}
    for one, holds in zip(rows, found, strict=True):
        for name in holds:
            authors.setdefault(name, []).append(one.author)
    times = {name: TIMES_SAID if name.startswith(SAY) else TIMES for name in authors}
    names = sorted(name for name, of in authors.items() if len(of) >= times[name] and len(set(of)) >= 2)
    at = {name: i for i, name in enumerate(names)}
    cells = [(i, at[name], value) for i, holds in enumerate(found) for name, value in holds.items() if name in at]
    row, column, value = (np.array(each) for each in zip(*cells, strict=True))
    return names, csr_matrix((value, (row, column)), shape=(len(rows), len(names)))


def _column(
    matrix: csr_matrix,
    author: Int[np.ndarray, "n"],
    rules: Float[np.ndarray, "n 2"],
    true: Bool[np.ndarray, "n"],
    counts: Bool[np.ndarray, "n"],
) -> Float[np.ndarray, "k"]:
    """The bias, what the rules' two values weigh, and what each feature does.

    Words are learnt on all answers that count. How much they and the rules are to be believed is learnt on strangers,
    each with words that were learnt without that author and a few others: rules and words both look too good on what
    they were made of.
    """

    def words(learn: Bool[np.ndarray, "n"]) -> LogisticRegression:
        model = LogisticRegression(C=C, max_iter=2000, solver="liblinear", random_state=0)
        return model.fit(matrix[learn], true[learn])

    weighed = np.zeros(len(true))
    strangers = counts & (author >= STRANGER)
    known = sorted(set(author[strangers].tolist()))
    for some in (known[k::GROUPS] for k in range(min(GROUPS, len(known)))):
        away = np.isin(author, some)
        weighed[away] = words(counts & ~away).decision_function(matrix[away])
    believed = LogisticRegression(max_iter=2000)
    believed.fit(np.column_stack([weighed, rules])[strangers], true[strangers])
    slope, *of_rules = believed.coef_[0]
    model = words(counts)
    bias = believed.intercept_[0] + slope * model.intercept_[0]
    return np.array([bias, *of_rules, *(slope * model.coef_[0])])


def read_with(weights: Weights, one: Labelled, heavy: float = HEAVY) -> Reading:
    """An answer as :func:`demur.judges.read_answer` reads it, with these weights in place of those of the package."""
    return weighed(by_rules(one.answer, one.request), one.answer, one.request, weights, heavy)


def refusals(read: Sequence[Reading], rows: Sequence[Labelled], value: str = "refuses") -> str:
    """Precision and recall of ``refuses``, or of another value."""
    said = [one.value == value for one in read]
    true = [one.label == value for one in rows]
    return f"precision {Rate.of(true, among=said)}, recall {Rate.of(said, among=true)}"


LIMITS = (0.5, 0.55, 0.6, HEAVY, 0.65, 0.7, 0.75, 0.8)
"""Limits at which strangers are read, to choose one."""


def left_out(beside: Sequence[Labelled] = ()) -> str:
    """A line for each author: measured with weights of all other authors, first by the rules alone. Then all strangers
    together: each value, and ``refuses`` at other limits.
    """
    rows = answers(beside)
    weights = {a: fit([one for one in rows if one.author != a]) for a in sorted({one.author for one in rows})}
    parts = {f"author {a}": [one for one in rows if one.author == a] for a in sorted({one.author for one in rows})}
    parts |= {f"author {a}, {half} (unseen)": list(labelled(half, a)) for a, half in UNSEEN if a in weights}
    lines = []
    for name, part in parts.items():
        rules = [by_rules(one.answer, one.request) for one in part]
        read = [read_with(weights[one.author], one) for one in part]
        lines += [f"{name}, rules: {refusals(rules, part)}", f"{name}, both: {refusals(read, part)}"]
    strangers = [one for one in rows if one.author >= STRANGER]
    both = [read_with(weights[one.author], one) for one in strangers]
    rules = [by_rules(one.answer, one.request) for one in strangers]
    for value in LABELS:
        lines.append(f"strangers, {value}, rules: {refusals(rules, strangers, value)}")
        lines.append(f"strangers, {value}, both: {refusals(both, strangers, value)}")
    for heavy in LIMITS:
        read = [read_with(weights[one.author], one, heavy) for one in strangers]
        lines.append(f"strangers, above {heavy:g}: {refusals(read, strangers)}")
    return "\n".join(lines)


def read_beside(path: str) -> list[Labelled]:
    """Labelled answers that are no part of the package, a line of JSON each (benchmarks/real_answers.py)."""
    with Path(path).open(encoding="utf-8") as lines:
        return [Labelled(**json.loads(line)) for line in lines]


def main(arguments: Sequence[str] = ()) -> None:
    """Prints, and writes where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the file of the package anew")
    parser.add_argument("--beside", default="", help="a file of labelled answers that are learnt from, too")
    given = parser.parse_args(arguments)
    beside = read_beside(given.beside) if given.beside else []
    if given.write:
        lines = ["# What words weigh: towards a refusal; where it is none, towards an answer (demur.judges.fitting)"]
        lines += [f"{name}\t{a:g}\t{b:g}" for name, (a, b) in fit(answers(beside)).items() if a or b or name == BIAS]
        write(Path(__file__).with_name(FILE), "\n".join(lines) + "\n")
    print(left_out(beside))


if __name__ == "__main__":
    main(sys.argv[1:])
