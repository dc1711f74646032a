"""Experiments: prompts x attacks x samplers x defenses x seeds -> records; killed at any moment, resumed, on one
machine or many.

From the bottom up: :mod:`config` is an experiment as data, :mod:`record` what comes of one generation; requests,
attacks and units are made of the one, answers, guards and verdicts fill the other; :mod:`runs` does what is missing,
and :mod:`recipe` reads a file. A name is imported when it is asked for, so that reading a run loads no model's code.
"""

from typing import TYPE_CHECKING

from demur.lazy import looked_up

if TYPE_CHECKING:
    from demur.experiment.answers import Probe as Probe
    from demur.experiment.answers import probe as probe
    from demur.experiment.config import Attacked as Attacked
    from demur.experiment.config import Config as Config
    from demur.experiment.config import Defended as Defended
    from demur.experiment.config import Prompts as Prompts
    from demur.experiment.config import Subject as Subject
    from demur.experiment.fitting import left_out as left_out
    from demur.experiment.folders import collect as collect
    from demur.experiment.folders import runs_in as runs_in
    from demur.experiment.judging import judged as judged
    from demur.experiment.recipe import read as read
    from demur.experiment.record import Record as Record
    from demur.experiment.runs import Plan as Plan
    from demur.experiment.runs import evaluate as evaluate
    from demur.experiment.runs import manifest_of as manifest_of
    from demur.experiment.runs import plan as plan
    from demur.experiment.store import Store as Store
    from demur.experiment.table import rows as rows
    from demur.experiment.units import Unit as Unit
    from demur.experiment.units import bundles_of as bundles_of
    from demur.experiment.units import units_of as units_of

_HOMES = {
    "Attacked": "config",
    "Config": "config",
    "Defended": "config",
    "Plan": "runs",
    "Probe": "answers",
    "Prompts": "config",
    "Record": "record",
    "Store": "store",
    "Subject": "config",
    "Unit": "units",
    "bundles_of": "units",
    "collect": "folders",
    "evaluate": "runs",
    "judged": "judging",
    "left_out": "fitting",
    "manifest_of": "runs",
    "plan": "runs",
    "probe": "answers",
    "read": "recipe",
    "rows": "table",
    "runs_in": "folders",
    "units_of": "units",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = looked_up(__name__, _HOMES)
