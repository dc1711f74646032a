"""Generating: prompts in, one trace each out."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from operator import index
from typing import Any

from demur.kinds import check_model, has_no_order
from demur.samplers import build, check_fits, seeded, steps_of
from demur.traces.batches import Batch, check_batch, in_batches, less, plan
from demur.traces.fields import TraceField
from demur.traces.kept import Kept, check_bare
from demur.traces.record import Recorder
from demur.traces.spec import spec_of
from demur.traces.trace import DEFAULT, STEPS, Key, Trace
from demur.types import DemurError, Model, Prompt, Sampler


def as_prompts(prompts: Prompt | str | Sequence[Prompt | str]) -> list[Prompt]:
    """What a model is asked as prompts: one or several, each a :class:`Prompt` or its text, whose id is then
    ``typed-1`` ... by its place. Raises for anything else; for the name of a file, of a set or of a prompt, which no
    model should be asked as a text; and for what has no order, or names of columns in the place of rows.
    """
    several: Any = [prompts] if isinstance(prompts, Prompt | str) or not isinstance(prompts, Iterable) else prompts
    if has_no_order(prompts) or hasattr(prompts, "columns"):
        then = "a list of its texts: list(table['text']); or write it to a file and use demur.prompts.load"
        raise DemurError(f"prompts in a {type(prompts).__name__}", "a list of prompts or texts", then)
    if isinstance(prompts, str) and (prompts in _SETS or prompts.startswith("hf:")):
        then = f"load it: demur.prompts.load({prompts!r:.60}), or demur.Prompt('q1', {prompts!r:.60}) for the word"
        raise DemurError(f"the name {prompts!r:.60} of a set of prompts", "prompts or texts", then)
    made = [Prompt(f"typed-{i}", one) if isinstance(one, str) else one for i, one in enumerate(several, start=1)]
    for one in made:
        if isinstance(one, Prompt) and one.id.startswith("typed-") and _NAMED.fullmatch(one.text):
            raise DemurError(
                "a text that is the name of a file, or the id of a prompt",
                "the text of a request",
                "load the file (demur.prompts.load), take the prompt from its set, or write demur.Prompt('q1', text)",
            )
        if not isinstance(one, Prompt):
            raise DemurError(
                f"a prompt of type {type(one).__name__}",
                "a Prompt or a text, one or several",
                "write Prompt(id, text), or Prompt(id, messages=[...]) for a conversation",
            )
    return made


_SETS = (
    "starter", "harmless", "harmful", "everyday", "matched", "blunt", "check", "advbench", "alpaca", "jailbreakbench",
    "jailbreakbench-benign", "xstest", "xstest-unsafe", "or-bench-hard", "or-bench-toxic", "wildjailbreak",
)  # fmt: skip
"""Names of sets. demur.prompts stands above this layer and has them; a test holds the two lists together."""
_NAMED = re.compile(
    r"\S+\.(?:jsonl|ndjson|json|csv|tsv|tab|txt|parquet)(?:\.gz)?|(?:demur|organism)-[a-z-]+-\d{3,}", re.IGNORECASE
)
"""Names of files of prompts, and ids of packaged ones."""


def generate(
    model: Model,
    prompts: Prompt | str | Sequence[Prompt | str],
    sampler: Sampler | None = None,
    *,
    length: int | None = None,
    seed: int = 0,
    steps: int = STEPS,
    pools: Sequence[Key] = DEFAULT,
    batch: Batch = 8,
    fields: Sequence[TraceField] = (),
    progress: Callable[[int], object] | None = None,
    kept: Kept | None = None,
) -> list[Trace]:
    """Generates an answer to every prompt and returns their traces, in order. A prompt may be given as its text.

    ``length`` open places a prompt (None: :meth:`demur.types.Model.default_length`); ``steps`` is T, where signals are
    cut. Prompt i draws from a generator seeded ``seed + i``, so that results do not depend on ``batch``, but for the
    last bits of states: products of other shapes are rounded otherwise. ``batch="auto"``: as many prompts at once as
    fit into memory. ``fields`` are numbers of your own to record (:class:`demur.traces.TraceField`). ``progress`` is
    called with the number of prompts done. What lies in the folder ``kept`` is read, and what does not is put there: so
    work that was stopped goes on. Raises for steps or a batch below 1, for ``kept`` together with fields or a defense
    around the sampler, and, naming a batch that fits, for one that does not fit into memory.
    """
    if progress is not None and not callable(progress):
        raise DemurError(f"progress={progress!r:.40}", "a function of the number of prompts done", "leave it out")
    if kept is not None and not hasattr(kept, "place"):
        then = "give it demur.traces.Kept(Path(folder))"
        raise DemurError(f"a {type(kept).__name__} in the place of kept", "a folder of traces", then)
    if kept is not None and fields:
        raise DemurError("fields of traces that are kept", "one of both", "leave out kept: fields can not be compared")
    check_model(model)
    check_counts(steps=steps)
    check_whole(seed=seed, **({} if length is None else {"length": length}))
    check_batch(batch)
    steps, length = index(steps), None if length is None else index(length)  # a tensor's number: files hold no tensor
    prompts = as_prompts(prompts)
    sampler = sampler if sampler is not None else default_sampler(model)
    check_fits(sampler, model)
    watched = watching(model, pools)
    length = model.default_length(steps) if length is None else length
    spec = spec_of(model, sampler, length, steps=steps, seed=seed)

    def run(rows: Sequence[int]) -> list[Trace]:
        group = [prompts[i] for i in rows]
        canvas = watched.canvas(group, length)
        recorder = Recorder(watched, canvas, group, spec, pools, fields)
        for _ in recorder(steps_of(sampler, watched, canvas, [dice for i in rows for dice in seeded(seed + i, 1)])):
            pass
        return recorder.traces()

    places, found = [], {}
    if kept is not None:
        check_bare(sampler)
        places = [kept.place(model, spec, pools, length, seed + i, prompt) for i, prompt in enumerate(prompts)]
        read = (kept.read(place, prompt) for place, prompt in zip(places, prompts, strict=True))
        found = {i: replace(trace, spec=spec) for i, trace in enumerate(read) if trace is not None}
    missing = [i for i in range(len(prompts)) if i not in found]
    left = [prompts[i] for i in missing]
    planned = partial(plan, model, left, length=length, steps=steps)
    shorter = partial(less, model, left, length=length, steps=steps)
    for rows, made in in_batches(model, missing, batch, run, planned, shorter):
        found |= zip(rows, made, strict=True)
        if kept is not None:
            for i, trace in zip(rows, made, strict=True):
                kept.write(places[i], trace)
        if progress is not None:
            progress(len(found))
    return [found[i] for i in range(len(prompts))]


def watching(model: Model, pools: Sequence[Key]) -> Any:
    """The model with just those captures that the pooling modes need."""
    check_model(model)
    listed: Any = pools
    pairs = isinstance(listed, Collection) and all(isinstance(key, tuple) and len(key) == 2 for key in listed)
    if not pairs:
        raise DemurError(
            f"pools={pools!r:.60}", "pairs of a layer and a pooling mode", "for example: pools=[('last', 'generated')]"
        )
    layers = dict.fromkeys(layer for layer, _ in pools)
    return model.watching(*layers, own=any(pool == "generated" for _, pool in pools))


def default_sampler(model: Model) -> Sampler:
    """The sampler of the model's family: greedy decoding, low-confidence remasking in 32 steps, Dream's, SDAR's ..."""
    return build(None, model)


def check_whole(**numbers: Any) -> None:
    """Raises, naming it, for what is no whole number."""
    for name, value in numbers.items():
        try:
            index(value)
            whole = not isinstance(value, bool)
        except TypeError:
            whole = False
        if not whole:
            raise DemurError(f"{name}={value!r:.40}", "a whole number", f"for example: {name}=32")


def check_counts(**counts: int) -> None:
    """Raises, naming it, if a count is no whole number or below 1."""
    check_whole(**counts)
    for name, count in counts.items():
        if count < 1:
            raise DemurError(f"{name}={count}", "at least 1", "raise it")
