"""Experiments: prompts x attacks x samplers x defenses x seeds -> rows; killed at any moment, resumed, on one machine
or many.
"""

from __future__ import annotations

from demur.experiment.config import Attacked, Config, Defended, Prompts, Subject
from demur.experiment.judging import judged
from demur.experiment.parts import UNSCORED
from demur.experiment.recipe import read
from demur.experiment.runs import Plan, collect, evaluate, manifest_of, plan, runs_in
from demur.experiment.store import Store
from demur.experiment.units import Unit, bundles_of, left_out, units_of
from demur.experiment.work import Probe, probe

__all__ = [
    "UNSCORED", "Attacked", "Config", "Defended", "Plan", "Probe", "Prompts", "Store", "Subject", "Unit", "bundles_of",
    "collect", "evaluate", "judged", "left_out", "manifest_of", "plan", "probe", "read", "runs_in", "units_of",
]  # fmt: skip
