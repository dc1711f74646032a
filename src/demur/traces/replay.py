"""Teacher-forced replay: traces of finished responses from one pass, equal to what a live generation would record.

A long response goes through the model in chunks of columns, over a cache of keys and values; a batch then holds no more
cells than a full batch of one chunk has. So what is at work at a time does not grow with lengths or with their number.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from demur.kinds import check_model, has_no_order
from demur.models.control import answer_row
from demur.models.lost import lost_in
from demur.models.memory import batch_that_fits, what_fits
from demur.samplers import Autoregressive
from demur.traces.batches import Batch, check_batch, in_batches
from demur.traces.generation import as_prompts, check_counts, watching
from demur.traces.guesses import Guesses
from demur.traces.spec import spec_of
from demur.traces.trace import DEFAULT, STEPS, Key, Trace
from demur.types import Canvas, DemurError, DemurWarning, Layer, Model, Need, Pool, Prompt, Sampler, Spec


def teacher_forced(
    model: Model,
    prompts: Prompt | str | Sequence[Prompt | str],
    responses: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    steps: int = STEPS,
    length: int | None = None,
    pools: Sequence[Key] = DEFAULT,
    sampler: Sampler | None = None,
    batch: Batch = 16,
    chunk: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Trace]:
    """Traces of finished responses from one pass each: what a live generation of these tokens would have recorded.

    ``responses`` are texts or token rows (exact). They end with their first end of sequence, as a live generation does,
    and only their first ``length`` tokens are fed (default: ``steps``, the T of their spec). A text rarely holds its
    end: its trace then lacks one state that a live one has, the end's own, and holds the one before it; a row with the
    token at its end has it. ``sampler`` is the
    one the traces shall be comparable with (default: greedy). The responses may come from another model (a closed one,
    say): then this one is a surrogate, and the signal is what it would have felt in saying them. Confidence is not
    computed (nan).

    ``chunk``: columns of a pass. A longer row takes several passes over the keys and values of those before, and a
    batch holds at most ``batch`` rows of ``chunk`` columns or, of longer rows, fewer, so that memory does not grow with
    the responses (but for the keys and values of one row that is longer than all this). States then differ from those
    of a single pass by rounding alone. None: every row in one pass.

    Raises for an empty response, for steps, a batch or a chunk below 1, for a batch that does not fit into memory
    (naming one that does), and for a diffusion model, whose intermediate steps can't be known from the final text.
    """
    check_model(model)
    if Need.CAUSAL not in model.offers:
        raise DemurError(
            f"teacher-forced replay on the diffusion model {model.name}",
            "a causal model: a diffusion model's steps can't be read off its final text",
            "generate with it instead",
        )
    length = steps if length is None else length
    check_counts(steps=steps, length=length, chunk=1 if chunk is None else chunk)
    check_batch(batch)
    prompts, responses = as_prompts(prompts), _in_order(responses)
    if len(prompts) != len(responses):
        raise DemurError(f"{len(responses)} responses for {len(prompts)} prompts", "one each", "pair them up")
    sampler = sampler if sampler is not None else Autoregressive()
    watched = watching(model, pools)
    answers = [_up_to_its_end(_token_row(model, response), model.stop_ids)[:length] for response in responses]
    if not all(answers):
        raise DemurError("an empty response", "responses of at least one token", "leave its prompt out")
    rows = [
        _Row(place, prompt, *_asked(watched, prompt, answer), answer)
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    widest = max((len(row.asked) + len(row.answer) for row in rows), default=1)
    sizes = {"prompt": widest if chunk is None else min(widest, chunk), "length": 0, "steps": steps}
    if batch == "auto" and rows:
        most = batch_that_fits(model, rows=len(rows), **sizes)
    else:
        most = 1 if batch == "auto" else batch
    run = partial(_traced, watched, spec_of(model, sampler, steps, steps=steps), tuple(pools), chunk)
    traces: dict[int, Trace] = {}
    for group in _groups(rows, most, chunk):
        size: Batch = "auto" if batch == "auto" else len(group)
        for members, made in in_batches(model, group, size, run, lambda: most, partial(what_fits, model, **sizes)):
            traces.update((row.place, trace) for row, trace in zip(members, made, strict=True))
            if progress is not None:
                progress(len(traces))
    return [traces[i] for i in range(len(rows))]


class _Row(NamedTuple):
    """A transcript in tokens; ``place`` is where it came, ``seconds`` what encoding its prompt took."""

    place: int
    prompt: Prompt
    asked: list[int]
    seconds: float
    answer: list[int]


def _asked(model: Any, prompt: Prompt, answer: Sequence[int]) -> tuple[list[int], float]:
    """A prompt's tokens, and the seconds that took. Each by itself, so that whether a prompt fits into the context does
    not depend on its neighbours' answers.
    """
    begun = time.perf_counter()
    canvas = model.canvas([prompt], len(answer))
    return canvas.ids[0][~canvas.open[0]].tolist(), time.perf_counter() - begun


def _groups(rows: Sequence[_Row], most: int, chunk: int | None) -> Iterator[list[_Row]]:
    """Rows of like length together, so that little of a batch is padding: ``most`` of them, and no more cells than
    ``most`` rows of a chunk have, but always one. Rows that fit into one chunk share no batch with those that do not.
    """
    if chunk is None:
        rows = sorted(rows, key=lambda row: (len(row.prompt.text), len(row.answer)))
        yield from (list(rows[begin : begin + most]) for begin in range(0, len(rows), most))
        return
    group: list[_Row] = []
    first = 0  # the width of the group's first row
    for row in sorted(rows, key=lambda row: (len(row.asked) + len(row.answer), len(row.answer))):
        width = len(row.asked) + len(row.answer)  # the widest so far
        if group and (len(group) == most or (len(group) + 1) * width > most * chunk or first <= chunk < width):
            yield group
            group = []
        first = width if not group else first
        group.append(row)
    if group:
        yield group


def _traced(watched: Any, spec: Spec, pools: tuple[Key, ...], chunk: int | None, rows: Sequence[_Row]) -> list[Trace]:
    """The traces of some rows."""
    begun = time.perf_counter()
    canvas = watched.canvas_of([[*row.asked, *row.answer] for row in rows], 0)
    longest = max(len(row.answer) for row in rows)
    if chunk is None or canvas.width <= chunk:
        hidden, passes = watched.forward(canvas, None).hidden, 1
    else:
        hidden, passes = _in_chunks(watched, canvas, chunk, longest + 1), -(-canvas.width // chunk)
    phi = {key: _running_means(hidden[key[0]], key[1], [len(row.answer) for row in rows]) for key in pools}
    seconds = time.perf_counter() - begun + sum(row.seconds for row in rows)
    return [
        _trace(watched, spec, row, {key: value[i] for key, value in phi.items()}, passes, seconds)
        for i, row in enumerate(rows)
    ]


@torch.no_grad()
def _in_chunks(watched: Any, canvas: Canvas, chunk: int, last: int) -> dict[Layer, Float[Tensor, "b m d"]]:
    """States of the ``last`` columns (all, if there are fewer), from passes over ``chunk`` columns each. They are moved
    to the host, so that on the device nothing but keys and values stays.
    """
    cache = watched.new_cache()
    first = max(0, canvas.width - last)
    kept: dict[Layer, Float[Tensor, "b m d"]] = {}
    for upto in range(chunk, canvas.width + chunk, chunk):
        out = watched.forward(canvas, None, cache=cache, upto=min(upto, canvas.width))
        for layer, states in out.hidden.items():
            if layer not in kept:
                room = (canvas.rows, canvas.width - first, states.shape[-1])
                kept[layer] = torch.empty(room, dtype=states.dtype)
            begin = max(first, out.start)
            new = states[:, begin - out.start :]
            kept[layer][:, begin - first : begin - first + new.shape[1]] = new
    return kept


def _trace(
    model: Any, spec: Spec, row: _Row, phi: dict[Key, Float[np.ndarray, "s d"]], passes: int, seconds: float
) -> Trace:
    n, g = len(row.asked), len(row.answer)
    start = np.concatenate([np.array(row.asked), np.full(g, model.pad_id)]).astype(np.int32)
    taken, said = np.arange(g), np.array(row.answer)
    pieces, special = model.pieces([*start.tolist(), *row.answer])
    return Trace(
        prompt=row.prompt,
        spec=spec,
        start=start,
        open=np.arange(n + g) >= n,
        commits=np.stack([taken, n + taken, said], axis=1).astype(np.int32),
        guesses=Guesses.of_steps(g, taken, taken, said, np.full(g, np.nan)),
        phi=phi,
        pieces=pieces,
        special=special,
        stop="end-of-sequence" if row.answer[-1] in model.stop_ids else "full",
        passes=passes,
        seconds=seconds,
        origin="replayed",
        ends=frozenset(model.stop_ids) & pieces.keys(),
    )


def _in_order(responses: Any) -> list[Any]:
    """Responses as a list. Raises for what has no order, and for one that is neither a text nor a row of tokens."""
    if has_no_order(responses) or isinstance(responses, bytes) or hasattr(responses, "columns"):
        raise DemurError(
            f"responses in a {type(responses).__name__}", "a list, in the prompts' order", "make a list of it"
        )
    found = [responses] if isinstance(responses, str) or not isinstance(responses, Iterable) else list(responses)
    for one in found:
        if has_no_order(one) or isinstance(one, bytes) or not isinstance(one, Iterable):
            raise DemurError(
                f"a response of the type {type(one).__name__}",
                "a text, or a row of token ids",
                "leave out rows without an answer, together with their prompts",
            )
    return found


def _token_row(model: Model, response: str | Sequence[int]) -> list[int]:
    if not isinstance(response, str):
        most = int(model.net.get_input_embeddings().weight.shape[0]) if hasattr(model, "net") else None
        return [_token(i, most) for i in response]
    lost, of = lost_in(model.tokenizer, response)
    if lost and lost == of:
        raise DemurError(
            f"a tokenizer without a token for any of the {of} signs of an answer",
            "an answer in a script that the model was trained on",
            "take another model as surrogate",
        )
    if lost:  # in the same words for every answer, so that it is said once
        warnings.warn(
            "the tokenizer has no token for some signs of an answer: what is replayed lacks them",
            DemurWarning,
            stacklevel=2,
        )
    return answer_row(model.tokenizer, response)


def _token(given: Any, most: int | None) -> int:
    """A token's id. Raises for what is no whole number, or one without a row in the embedding."""
    try:
        token = index(given)
    except TypeError:
        token = -1
    if isinstance(given, bool) or token < 0 or (most is not None and token >= most):
        up = f"from 0 to {most - 1}" if most is not None else "of at least 0"
        raise DemurError(
            f"the token {given!r:.40} in a response", f"a whole number {up}", "give token ids, or the text"
        )
    return token


def _up_to_its_end(tokens: list[int], stops: Sequence[int]) -> list[int]:
    """The tokens up to the first end of sequence, which is the last that a live generation takes."""
    return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))]


def _running_means(states: Any, pool: Pool, lengths: Sequence[int]) -> list[Float[np.ndarray, "s d"]]:
    """Cumulative means of the states of (``generated``) or before (``producing``) the last ``lengths[i]`` columns."""
    if pool not in ("generated", "producing"):
        raise DemurError(
            f"pooling mode {pool!r} in a teacher-forced replay", "generated or producing", "name one of these"
        )
    end = states.shape[1] - (pool == "producing")
    means = []
    for i, length in enumerate(lengths):
        mine = states[i, end - length : end].float()
        means.append((mine.cumsum(dim=0) / torch.arange(1, length + 1, device=mine.device)[:, None]).cpu().numpy())
    return means
