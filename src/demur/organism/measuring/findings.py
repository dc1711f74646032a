"""The study's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from demur.ablation import tables
from demur.organism.measuring.orders import orders_page


def findings(report: Mapping[str, Any]) -> str:
    """Every model's part, and the two orders side by side where both were measured."""
    return tables.findings(report, *([orders_page(report["orders"])] if report["orders"] else []))
