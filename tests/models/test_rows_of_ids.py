"""Rows of ids become a canvas as they are, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import small
import torch

from demur.models.chat import canvas_of
from demur.types import DemurError


@pytest.mark.parametrize("rows", [[[5.7]], [[5, 6], [7, 0.5]], [np.array([1.5, 2.0])], [torch.tensor([2.25])]])
def test_half_a_token_is_one_line(rows: Any) -> None:
    with pytest.raises(DemurError, match="whole numbers"):
        canvas_of(rows, 2, fill=9)
    with pytest.raises(DemurError):
        small.diffusion("llada").canvas_of(rows, 2)


@pytest.mark.parametrize("rows", [[[5, 6]], [np.array([5, 6])], [torch.tensor([5, 6])], [(5, 6)], [[5.0, 6.0]]])
def test_whole_numbers_of_any_kind_are_tokens(rows: Any) -> None:
    assert canvas_of(rows, 1, fill=9).ids.tolist() == [[5, 6, 9]]


@pytest.mark.parametrize("holes", [[], [[1]], [[1], [0], [0]]])
def test_holes_are_given_for_every_row(holes: Any) -> None:
    with pytest.raises(DemurError, match=f"holes of {len(holes)} rows for 2"):
        canvas_of([[5, 6, 7], [1]], 2, fill=9, holes=holes)
