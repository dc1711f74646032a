"""Traces that are kept while long work goes on: nothing is asked twice, and nothing is taken for what it is not."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demur.ablation.recording import gather
from demur.samplers import Autoregressive, MaskedDiffusion
from demur.testing.tiny import tiny
from demur.traces import Kept, Trace, generate, spec_of
from demur.types import DemurError, Prompt

ASKED = [Prompt(f"q{i}", f"Question {i} of {i * i}?") for i in range(5)]
LAST: Any = ("last", "generated")


def answered(prompts: list[Prompt], kept: Kept | None, kind: Any = "causal", **how: Any) -> list[Trace]:
    sampler: Any = Autoregressive(temperature=1.0) if kind == "causal" else MaskedDiffusion(steps=4, temperature=0.5)
    chosen = {"length": 8, "steps": 4, "pools": [LAST], "batch": 2} | how
    return generate(tiny(kind), prompts, chosen.pop("sampler", sampler), kept=kept, **chosen)


def same(traces: list[Trace], others: list[Trace]) -> None:
    for one, other in zip(traces, others, strict=True):
        assert one.commits.tolist() == other.commits.tolist()
        assert one.prompt == other.prompt
        assert one.spec == other.spec
        np.testing.assert_allclose(one.phi[LAST], other.phi[LAST], atol=1e-5)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_work_that_was_stopped_goes_on_with_the_same_tokens_and_asks_only_what_is_missing(
    kind: str, tmp_path: Path
) -> None:
    whole = answered(ASKED, None, kind)
    for keep in (ASKED[:3], [ASKED[0], ASKED[3]]):
        first = Kept(tmp_path / keep[-1].id)
        for i, prompt in enumerate(ASKED):  # those that a killed run had finished
            if prompt in keep:
                answered([prompt], first, kind, seed=i)
        kept, told = Kept(first.folder), []
        same(answered(ASKED, kept, kind, progress=told.append), whole)
        assert (kept.reused, kept.made) == (len(keep), 5 - len(keep))
        assert told[-1] == 5
        assert told[0] > len(keep), "what was there counts as done"


def test_what_is_done_can_be_forgotten_and_nothing_else_goes(tmp_path: Path) -> None:
    other, kept = Kept(tmp_path), Kept(tmp_path)
    answered(ASKED[:2], other, seed=7)
    answered(ASKED, kept)
    kept.forget()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


@pytest.mark.parametrize(
    "how",
    [
        {"seed": 1}, {"length": 7}, {"steps": 3}, {"pools": [("last", "producing")]},
        {"sampler": Autoregressive(temperature=0.5)},
    ],
    ids=str,
)  # fmt: skip
def test_other_settings_are_other_work(how: dict[str, Any], tmp_path: Path) -> None:
    answered(ASKED, Kept(tmp_path))
    kept = Kept(tmp_path)
    answered(ASKED[:1], kept, **how)
    assert (kept.reused, kept.made) == (0, 1)


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED[0], text="Another?"), replace(ASKED[0], prefill="Well"), replace(ASKED[0], system="Be brief."),
    ],
    ids=["text", "prefill", "system"],
)  # fmt: skip
def test_what_a_model_reads_makes_it_another_answer_and_what_is_known_of_a_prompt_does_not(
    other: Prompt, tmp_path: Path
) -> None:
    answered(ASKED[:1], Kept(tmp_path))
    kept = Kept(tmp_path)
    answered([other], kept)
    assert (kept.reused, kept.made) == (0, 1)
    (trace,) = answered([replace(ASKED[0], id="renamed", harmful=False)], kept)
    assert kept.reused == 1
    assert (trace.prompt.id, trace.prompt.harmful) == ("renamed", False)


@pytest.mark.parametrize("harm", ["cut", "empty", "other"])
def test_a_broken_file_is_made_again(harm: str, tmp_path: Path) -> None:
    whole = answered(ASKED[:1], Kept(tmp_path))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes({"cut": file.read_bytes()[:-40], "empty": b"", "other": b"\x00" * 100}[harm])
    kept = Kept(tmp_path)
    same(answered(ASKED[:1], kept), whole)
    assert (kept.reused, kept.made) == (0, 1)
    assert Trace.load(file).commits.tolist() == whole[0].commits.tolist()


def test_where_nothing_can_be_kept_work_goes_on_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Kept(tmp_path / "file")
    same(answered(ASKED, kept), answered(ASKED, None))
    assert kept.full
    assert (kept.reused, kept.made) == (0, 5)


@pytest.mark.parametrize("part", ["stops", "device", "torch"])
def test_what_a_model_writes_by_beside_its_spec_makes_it_another_answer(part: str) -> None:
    model: Any = tiny("causal")
    spec = spec_of(model, Autoregressive(), 8)
    kept, how = Kept(Path("nowhere")), ([LAST], 8, 0, ASKED[0])
    before = kept.place(model, spec, *how)
    assert kept.place(model, replace(spec, seed=5, model="renamed"), *how) == before
    if part == "torch":
        spec = replace(spec, versions={**spec.versions, "torch": "0"})
    else:
        other = {"stops": ("stop_ids", (1, 2)), "device": ("device", torch.device("meta"))}[part]
        model = type("Other", (type(model),), {other[0]: property(lambda self: other[1])})(
            **{each.name: getattr(model, each.name) for each in fields(model)}
        )
    assert spec_of(model, Autoregressive(), 8).key == spec.key, "the spec alone does not say it"
    assert kept.place(model, spec, *how) != before


class Defended:
    """What stands around a sampler, as guards and DiffuGuard do."""

    undefended = Autoregressive()
    needs = Autoregressive.needs

    def __call__(self, *asked: Any) -> Any:
        return self.undefended(*asked)


@pytest.mark.parametrize("ask", [generate, partial(gather, name="fit")], ids=["generate", "gather"])
def test_what_a_defense_may_have_changed_is_not_kept_as_the_samplers_own(ask: Any, tmp_path: Path) -> None:
    asked = {"model": tiny(), "prompts": ASKED, "sampler": Defended(), "length": 8, "steps": 4}
    with pytest.raises(DemurError, match="Defended, a sampler with a defense, and traces that are kept"):
        ask(**asked, pools=[LAST], kept=Kept(tmp_path))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("where", ["a file", "below a file", "nowhere", "gone"])
def test_what_can_not_be_read_or_removed_ends_no_work(where: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    kept = Kept(tmp_path / ("a file/more" if where == "below a file" else where))
    same(answered(ASKED, kept), answered(ASKED, None))
    if where == "gone":
        shutil.rmtree(kept.folder)
        kept.folder.write_text("")
    kept.forget()
    assert kept.size() == 0
    assert (tmp_path / "a file").is_file()


def test_fields_of_ones_own_can_not_be_compared(tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="kept"):
        answered(ASKED, Kept(tmp_path), fields=[object()])
