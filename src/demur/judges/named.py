"""Judges by name."""

from __future__ import annotations

from demur.registry import Registry

JUDGES = Registry(kind="judge", group="demur.judges", own={"dictionary": "demur.judges.dictionary:Dictionary"})
"""Judges that need no settings, by name. What stands behind a name is called without arguments and gives a
:class:`demur.judges.Judge`. A model behind an endpoint is a judge too: see :class:`demur.judges.LLMJudge`.
"""
