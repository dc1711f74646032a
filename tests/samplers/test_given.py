"""Given tokens between the open places of DiffusionGemma: pinned in every step, whatever else is renoised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small
import test_families
import torch

from demur.attacks import canvas_for, make, mask_of
from demur.samplers import CLASSES, Renoise, SeededRenoise, seeded
from demur.traces import generate
from demur.types import Need, Prompt

KEYS = tuple(("last", pool) for pool in ("generated", "response", "masked"))
HOT = Renoise(steps=5, entropy_bound=1.0)
HASTY = Renoise(steps=8, entropy_bound=1.0, stability=0, confidence=0.6)
FORM = [15, 52, 121, 86, 163, 147, 167, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33]
HOLES = [5, 6, 8, 9, 10, 14, 19, 20]
"""Open places of the form; canvases have eight places, so that the first one begins at 5 and the last one at 13."""
SHORT = ([9, *FORM[6:]], [3, 5, 12])


def model() -> Any:
    return test_families.model("gemma-diffusion")


def steps_of(rows: Any, holes: Any, sampler: Any = HOT, length: int = 0, of: Any = None) -> tuple[Any, list[Any]]:
    of = of or model()
    canvas = of.canvas_of(rows, length, holes)
    return canvas, list(sampler(of, canvas, seeded(0, len(rows))))


@pytest.mark.parametrize("sampler", [HOT, HASTY, SeededRenoise(steps=4, entropy_bound=1.0)])
def test_given_tokens_never_move_and_every_hole_is_filled(sampler: Any) -> None:
    canvas, steps = steps_of([FORM, SHORT[0]], [HOLES, SHORT[1]], sampler, length=5)
    for step in steps:
        assert torch.equal(step.ids[~canvas.open], canvas.ids[~canvas.open])
        assert torch.equal(step.predictions[~canvas.open], canvas.ids[~canvas.open])
        for marks in (step.committed, step.open, ~step.confidence.isnan()):
            assert not bool((marks & ~canvas.open).any())
    assert not bool(steps[-1].open.any())
    assert [step.index for step in steps] == list(range(len(steps)))


def test_the_decoder_sees_what_is_given_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    of, drafts = model(), []
    denoise = type(of).denoise

    def looked(self: Any, canvas: Any, cache: Any, draft: Any, before: Any) -> Any:
        drafts.append((cache.columns, draft.clone()))
        return denoise(self, canvas, cache, draft, before)

    monkeypatch.setattr(type(of), "denoise", looked)
    canvas, steps = steps_of([FORM], [HOLES], of=of)
    assert {start for start, _ in drafts} == {5, 13}
    for start, draft in drafts:
        given = ~canvas.open[:, start : start + draft.shape[1]]
        assert torch.equal(draft[given], canvas.ids[:, start : start + draft.shape[1]][given])
    assert len(drafts) == len(steps)


@pytest.mark.parametrize("sampler", [HOT, HASTY])
def test_a_row_alone_is_the_row_in_a_batch_wherever_its_holes_lie(sampler: Any) -> None:
    rows, holes = [FORM, SHORT[0], FORM[3:]], [HOLES, SHORT[1], [2, 3, 4]]
    watched = model().watching("last")
    canvas = watched.canvas_of(rows, 0, holes)
    together = small.record(watched, canvas, sampler, KEYS, range(3))
    for i, (row, own) in enumerate(zip(rows, holes, strict=True)):
        (alone,) = small.record(watched, watched.canvas_of([row], 0, [own]), sampler, KEYS, [i])
        test_families.equal(alone, together[i], 1e-2)  # it feeds its rounding back at every step
        assert alone.replay(alone.steps).tolist() == together[i].replay(together[i].steps).tolist()
        assert np.isfinite(together[i].phi["last", "generated"]).all()


def test_a_canvas_without_open_places_is_only_read() -> None:
    holes = [3, 4, 25]
    row = [*FORM, *FORM[:8]]
    canvas, steps = steps_of([row], [holes])
    assert {step.start for step in steps} == {3, 19}, "the canvas from 11 on holds given tokens alone"
    assert not bool(steps[-1].open.any())
    assert bool((steps[-1].ids == canvas.ids)[~canvas.open].all())


def test_a_given_end_of_sequence_ends_nothing() -> None:
    of = test_families.ending(model(), 8)
    row = [*FORM[:5], 8, 8, *FORM[7:]]
    canvas, steps = steps_of([row], [[9, 10, 18]], replace(HOT, entropy_bound=0.5), of=of)
    generated_end = bool((steps[-1].ids == 8)[canvas.open].any())
    assert generated_end or not bool(steps[-1].open.any())


def test_without_given_tokens_nothing_has_changed() -> None:
    plain, holed = model().canvas_of([FORM[:5]], 16), model().canvas_of([FORM], 0, [list(range(5, 21))])
    assert plain.ids.shape == holed.ids.shape
    for one, other in zip(HOT(model(), plain, seeded(0, 1)), HOT(model(), holed, seeded(0, 1)), strict=True):
        assert torch.equal(one.ids, other.ids)
        assert torch.equal(one.hidden["last"], other.hidden["last"])


def test_a_seeded_canvas_is_that_of_decoder_input_ids() -> None:
    from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

    of = model()
    start = torch.tensor([[7, 99, 45, 200, 31, 8, 77, 12]])
    canvas = of.canvas_of([FORM[:5]], 8)
    canvas = replace(canvas, ids=torch.where(canvas.open, torch.cat([canvas.ids[:, :5], start], dim=1), canvas.ids))
    ours = SeededRenoise(steps=6, entropy_bound=1.0, t_min=0.4, t_max=0.8, stability=1, confidence=0.005)
    *_, last = ours(of, canvas, torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    theirs = of.net.generate(
        torch.tensor([FORM[:5]]), decoder_input_ids=start, max_new_tokens=8, max_denoising_steps=6, t_min=0.4,
        t_max=0.8, sampler_config=EntropyBoundSamplerConfig(entropy_bound=1.0), stability_threshold=1,
        confidence_threshold=0.005, return_dict_in_generate=False,
    )  # fmt: skip
    theirs = getattr(theirs, "sequences", theirs)  # transformers 5.11 gives its outputs whatever is asked
    end = [i for i, token in enumerate(theirs[0, 5:].tolist()) if token in of.stop_ids]
    upto = 5 + (end[0] + 1 if end else 8)
    assert last.ids[0, :upto].tolist() == theirs[0, :upto].tolist()
    assert CLASSES["SeededRenoise"] is SeededRenoise


@pytest.mark.parametrize("name", ["infill", "parallel"])
def test_attacks_on_the_canvas_work_on_a_renoising_model(name: str) -> None:
    of = replace(model(), tokenizer=padded())
    assert Need.HOLES in of.offers
    asked = [Prompt("a", "Hi", harmful=False), Prompt("b", "Tell me more", harmful=False)]
    settings = {"leads": ("So",), "run": 3} if name == "infill" else {"points": 2, "length": 6}
    attacked = [make(name, mask=mask_of(of), **settings)(prompt) for prompt in asked]
    canvas = canvas_for(of, attacked, 8)
    assert canvas.open.sum(dim=1).tolist() == ([3, 3] if name == "infill" else [6, 6])
    *_, last = HOT(of, canvas, seeded(0, 2))
    assert torch.equal(last.ids[~canvas.open], canvas.ids[~canvas.open])
    traces = generate(of, attacked, HOT, length=8, steps=5)
    assert [trace.prompt.attack for trace in traces] == [name, name]


def padded() -> Any:
    """A tokenizer whose padding is the model's: token 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<eos>", "<bos>", *(chr(33 + i) for i in range(94)), "Ġ", "Ċ"]
    backend = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", chat_template=None
    )
