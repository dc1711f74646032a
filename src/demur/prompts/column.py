"""One column of a source, row by row: for what only some of its rows say."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from demur.prompts.columns import prompt_of
from demur.prompts.read import opened


def values_of(source: str | Path, column: str) -> dict[str, str]:
    """What a column of a source of harmful prompts says, by the ids that :func:`demur.prompts.load` gives the rows.
    Rows that lack the column, or leave it empty, are not there; so of a source without that column none is.
    """
    rows, named = opened(source, {"parent": column}, True, None, "train", None, answers=False)
    bare, found = replace(named, columns={}), {}
    with closing(rows):
        for row in rows:
            if column in row.values:
                prompt = prompt_of(row, named)
                if (prompt.parent or "").strip():
                    found[prompt_of(row, bare).id] = str(prompt.parent)
    return found
