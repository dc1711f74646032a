"""Teacher-forced replay: traces of finished responses from one pass, equal to what a live generation would record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from demur.models.control import answer_row
from demur.samplers import Autoregressive
from demur.traces.generation import as_prompts, check_counts, watching
from demur.traces.guesses import Guesses
from demur.traces.spec import spec_of
from demur.traces.trace import DEFAULT, STEPS, Key, Trace
from demur.types import DemurError, Model, Need, Pool, Prompt, Sampler


def teacher_forced(
    model: Model,
    prompts: Prompt | str | Sequence[Prompt | str],
    responses: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    steps: int = STEPS,
    length: int | None = None,
    pools: Sequence[Key] = DEFAULT,
    sampler: Sampler | None = None,
    batch: int = 16,
    progress: Callable[[int], object] | None = None,
) -> list[Trace]:
    """Traces of finished responses from one pass each: what a live generation of these tokens would have recorded.

    ``responses`` are texts or token rows (exact). They end with their first end of sequence, as a live generation does,
    and only their first ``length`` tokens are fed (default: ``steps``, the T of their spec). A text rarely holds its
    end: its trace then lacks one state that a live one has, the end's own, and holds the one before it; a row with the
    token at its end has it. ``sampler`` is the
    one the traces shall be comparable with (default: greedy). The responses may come from another model (a closed one,
    say): then this one is a surrogate, and the signal is what it would have felt in saying them. Confidence is not
    computed (nan). Raises for an empty response, for steps or a batch below 1, and for a diffusion model, whose
    intermediate steps can't be known from the final text.
    """
    if Need.CAUSAL not in model.offers:
        raise DemurError(
            f"teacher-forced replay on the diffusion model {model.name}",
            "a causal model: a diffusion model's steps can't be read off its final text",
            "generate with it instead",
        )
    length = steps if length is None else length
    check_counts(steps=steps, length=length, batch=batch)
    prompts, responses = as_prompts(prompts), [responses] if isinstance(responses, str) else responses
    if len(prompts) != len(responses):
        raise DemurError(f"{len(responses)} responses for {len(prompts)} prompts", "one each", "pair them up")
    sampler = sampler if sampler is not None else Autoregressive()
    watched = watching(model, pools)
    spec = spec_of(model, sampler, steps, steps=steps)
    rows = [_up_to_its_end(_token_row(model, response), model.stop_ids)[:length] for response in responses]
    if not all(rows):
        raise DemurError("an empty response", "responses of at least one token", "leave its prompt out")
    # Rows of like length share a batch, so that little of it is padding; the order is put back at the end.
    order = sorted(range(len(rows)), key=lambda i: (len(prompts[i].text), len(rows[i])))
    traces: dict[int, Trace] = {}
    for begin in range(0, len(rows), batch):
        members = order[begin : begin + batch]
        group, answers = [prompts[i] for i in members], [rows[i] for i in members]
        begun = time.perf_counter()
        # One by one, so that whether a prompt fits into the context does not depend on its neighbours' answers.
        asked = [watched.canvas([prompt], len(answer)) for prompt, answer in zip(group, answers, strict=True)]
        prompts_ids = [one.ids[0][~one.open[0]].cpu() for one in asked]
        canvas = watched.canvas_of([[*p.tolist(), *a] for p, a in zip(prompts_ids, answers, strict=True)], 0)
        out = watched.forward(canvas, None)
        seconds = time.perf_counter() - begun
        phi = {key: _running_means(out.hidden[key[0]], key[1], [len(a) for a in answers]) for key in pools}
        for i, (place, prompt, row, answer) in enumerate(zip(members, group, prompts_ids, answers, strict=True)):
            n, g = len(row), len(answer)
            start = np.concatenate([row.numpy(), np.full(g, watched.pad_id)]).astype(np.int32)
            steps_taken = np.arange(g)
            unknown = np.full(g, np.nan)
            pieces, special = model.pieces([*start.tolist(), *answer])
            traces[place] = Trace(
                prompt=prompt,
                spec=spec,
                start=start,
                open=np.arange(n + g) >= n,
                commits=np.stack([steps_taken, n + steps_taken, np.array(answer)], axis=1).astype(np.int32),
                guesses=Guesses.of_steps(g, steps_taken, steps_taken, np.array(answer), unknown),
                phi={key: value[i] for key, value in phi.items()},
                pieces=pieces,
                special=special,
                stop="end-of-sequence" if answer[-1] in model.stop_ids else "full",
                passes=1,
                seconds=seconds,
                origin="replayed",
                ends=frozenset(model.stop_ids) & pieces.keys(),
            )
        if progress is not None:
            progress(len(traces))
    return [traces[i] for i in range(len(rows))]


def _token_row(model: Model, response: str | Sequence[int]) -> list[int]:
    if not isinstance(response, str):
        return [int(i) for i in response]
    return answer_row(model.tokenizer, response)


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
