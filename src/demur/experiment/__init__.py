"""Experiments: prompts x attacks x samplers x defenses x seeds -> records; killed at any moment, resumed, on one
machine or many.

From the bottom up: :mod:`config` is an experiment as data, :mod:`record` what comes of one generation; requests,
attacks and units are made of the one, answers, guards and verdicts fill the other; :mod:`runs` does what is missing,
and :mod:`recipe` reads a file. A name is imported when it is asked for, so that reading a run loads no model's code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur.experiment.answers import Probe as Probe
    from demur.experiment.answers import probe as probe
    from demur.experiment.config import Attacked as Attacked
    from demur.experiment.config import Config as Config
    from demur.experiment.config import Defended as Defended
    from demur.experiment.config import Prompts as Prompts
    from demur.experiment.config import Subject as Subject
    from demur.experiment.fitting import left_out as left_out
    from demur.experiment.judging import judged as judged
    from demur.experiment.recipe import read as read
    from demur.experiment.record import Record as Record
    from demur.experiment.runs import Plan as Plan
    from demur.experiment.runs import collect as collect
    from demur.experiment.runs import evaluate as evaluate
    from demur.experiment.runs import manifest_of as manifest_of
    from demur.experiment.runs import plan as plan
    from demur.experiment.runs import runs_in as runs_in
    from demur.experiment.store import Store as Store
    from demur.experiment.table import rows as rows
    from demur.experiment.units import Unit as Unit
    from demur.experiment.units import bundles_of as bundles_of
    from demur.experiment.units import units_of as units_of
    from demur.worlds import UNSCORED as UNSCORED

_HOMES = {
    "UNSCORED": "demur.worlds",
    "Attacked": "demur.experiment.config",
    "Config": "demur.experiment.config",
    "Defended": "demur.experiment.config",
    "Plan": "demur.experiment.runs",
    "Probe": "demur.experiment.answers",
    "Prompts": "demur.experiment.config",
    "Record": "demur.experiment.record",
    "Store": "demur.experiment.store",
    "Subject": "demur.experiment.config",
    "Unit": "demur.experiment.units",
    "bundles_of": "demur.experiment.units",
    "collect": "demur.experiment.runs",
    "evaluate": "demur.experiment.runs",
    "judged": "demur.experiment.judging",
    "left_out": "demur.experiment.fitting",
    "manifest_of": "demur.experiment.runs",
    "plan": "demur.experiment.runs",
    "probe": "demur.experiment.answers",
    "read": "demur.experiment.recipe",
    "rows": "demur.experiment.table",
    "runs_in": "demur.experiment.runs",
    "units_of": "demur.experiment.units",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
