"""Laws of a report's CSV: every figure is a line of numbers, and says what its cell says."""

from __future__ import annotations

import csv
import math
from typing import Any

import pytest

from demur.dynamics import Rate
from demur.experiment.record import Record
from demur.report.figure import Figure, mean_area, share
from demur.report.selection import Selection
from demur.report.tables import Cell, Table, tables
from demur.report.tidy import COLUMNS, tidy_csv


def row(**values: Any) -> dict[str, Any]:
    plain = {
        "unit": "u", "model": "m", "sampler": "s", "attack": "plain", "defense": "none", "role": "harmful", "seed": 0,
        "id": "p", "parent": "p", "prompt": "", "prefill": "", "text": "", "answer": "", "outcome": "refusal",
        "path": ["refusal"], "sigma": [0.9, 0.1], "score": 0.1, "flagged_by": "", "flagged_step": None, "steps": 2,
        "passes": 2, "seconds": 1.0,
    }  # fmt: skip
    return plain | values


@pytest.fixture
def of() -> Selection:
    rows = []
    for sampler in ("s", "ar-order"):
        for attack in ("plain", "flip", "infill"):
            for k in range(12):
                bad = attack != "plain" and k % 3 == 0
                outcome = "harmful" if bad else "refusal"
                more = {
                    "id": f"p{k}",
                    "parent": f"p{k}",
                    "answer": f"{k}",
                    "sigma": [0.1 * (k % 9), 0.5],
                    "score": k / 9,
                }
                rows.append(row(sampler=sampler, attack=attack, outcome=outcome, path=[outcome], **more))
        rows += [row(sampler=sampler, role="plain", id=f"h{k}", answer=f"h{k}", outcome="answer") for k in range(12)]
    return Selection.of(map(Record.of, rows))


def lines_of(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(tidy_csv(table).splitlines()))


def test_every_figure_is_a_line_with_its_interval_and_n(of: Selection) -> None:
    made = tables(of)
    assert {"table-1", "table-2", "table-3", "table-13", "table-14"} <= {table.name for table in made}
    for table in made:
        lines = lines_of(table)
        assert tuple(lines[0]) == COLUMNS
        figures = [figure for cells in table.rows for cell in cells for figure in cell.figures]
        told = [line for line in lines if line["low"]]
        assert len(told) == sum(figure.low is not None for figure in figures)
        for line in told:
            assert float(line["low"]) <= float(line["value"]) <= float(line["high"])
            assert int(line["n"]) > 0


def test_a_share_is_the_one_that_the_page_shows(of: Selection) -> None:
    table = next(table for table in tables(of) if table.name == "table-3")
    (rr, asr) = [line for line in lines_of(table) if line["column"] == "flip" and line["model"] == "m, s"]
    assert (rr["measure"], asr["measure"]) == ("RR", "ASR")
    assert float(rr["value"]) == pytest.approx(8 / 12, abs=1e-6)
    assert (asr["n"], float(asr["value"])) == ("12", pytest.approx(4 / 12, abs=1e-6))
    assert rr["text"] == asr["text"]
    assert rr["text"].startswith("67 / 33 (n 12")


def test_what_is_undefined_is_empty_and_what_has_no_figure_keeps_its_text() -> None:
    cells = (Cell("published: X"), Cell("0.81"), Cell("not judged"), Cell("-", (), (share("FRR", Rate(0, 0)),)))
    table = Table("t", "T", ("model", "HRR", "note", "FRR"), (cells,))
    number, words, undefined = lines_of(table)
    assert (number["value"], number["model"]) == ("0.81", "published: X")
    assert (words["value"], words["text"]) == ("", "not judged")
    assert (undefined["value"], undefined["low"], undefined["n"]) == ("", "", "0")
    assert mean_area("AUROC", []).value is None
    nan = Table("t", "T", ("x",), ((Cell("nan", (), (Figure("x", math.nan),)),),))
    assert lines_of(nan)[0]["value"] == ""
