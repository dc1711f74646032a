"""Traces: what generations did, step by step.

``generate`` makes them, ``teacher_forced`` makes the same ones from finished responses in one pass, and ``Recorder``
makes them of any generator of steps that somebody else is watching too.

Names are looked up when they are first used: reading a run's rows loads no torch.
"""

from typing import TYPE_CHECKING

from demur.lazy import looked_up

if TYPE_CHECKING:
    from demur.traces.fields import TRACE_FIELDS as TRACE_FIELDS
    from demur.traces.fields import TraceField as TraceField
    from demur.traces.fields import fields_named as fields_named
    from demur.traces.generation import as_prompts as as_prompts
    from demur.traces.generation import default_sampler as default_sampler
    from demur.traces.generation import generate as generate
    from demur.traces.generation import watching as watching
    from demur.traces.guesses import Guesses as Guesses
    from demur.traces.kept import Kept as Kept
    from demur.traces.record import Recorder as Recorder
    from demur.traces.replay import teacher_forced as teacher_forced
    from demur.traces.segments import Segment as Segment
    from demur.traces.segments import segment as segment
    from demur.traces.spec import spec_of as spec_of
    from demur.traces.text import opened_thought as opened_thought
    from demur.traces.text import text_of as text_of
    from demur.traces.text import upto_first_end as upto_first_end
    from demur.traces.trace import DEFAULT as DEFAULT
    from demur.traces.trace import STEPS as STEPS
    from demur.traces.trace import Key as Key
    from demur.traces.trace import Trace as Trace

_HOMES = {
    "DEFAULT": "trace",
    "STEPS": "trace",
    "Guesses": "guesses",
    "Kept": "kept",
    "Key": "trace",
    "Recorder": "record",
    "Segment": "segments",
    "TRACE_FIELDS": "fields",
    "Trace": "trace",
    "TraceField": "fields",
    "as_prompts": "generation",
    "default_sampler": "generation",
    "fields_named": "fields",
    "generate": "generation",
    "opened_thought": "text",
    "segment": "segments",
    "spec_of": "spec",
    "teacher_forced": "replay",
    "text_of": "text",
    "upto_first_end": "text",
    "watching": "generation",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = looked_up(__name__, _HOMES)
