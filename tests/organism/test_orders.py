"""The same weights under two orders: paired differences, with their signs the right way round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_up import T, sets

from demur.ablation.protocol import Sets
from demur.organism.measuring.orders import MEASURES, orders_page, orders_report


def refusing(share: float) -> Sets:
    """The made-up sets, of whose attacks the first ``share`` are refused, and the others do harm."""
    s, marks = sets(), np.repeat((np.arange(60) < 60 * share)[:, None], T, axis=1)
    crafts = tuple(f"craft {i % 12}" for i in range(60))
    return replace(
        s,
        attacked={n: replace(m, refused=marks, harmful=~marks, groups=crafts) for n, m in s.attacked.items()},
    )


def test_differences_are_remasking_less_ar_order_and_all_attacks_stand_last() -> None:
    rows = orders_report(refusing(0.5), refusing(0.8))
    assert [row["attack"] for row in rows] == ["a", "b", "all attacks"]
    for row in rows:
        assert row["RR"]["difference"] == pytest.approx(-0.3)
        assert row["ASR"]["difference"] == pytest.approx(0.3)
        assert row["IRR"]["difference"] == 0
        for what in MEASURES:
            assert row[what]["low"] <= row[what]["difference"] <= row[what]["high"]
    assert rows[-1]["RR"]["diffusion"]["n"] == 120
    assert rows[-1]["RR"]["groups"] == 12, "requests of one craft go together"
    assert "| a | 50 / 80: -30" in orders_page(rows)
