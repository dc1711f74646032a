"""The guard inside ``generate`` of transformers: nobody counts rows, prompts or calls for it."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import small
import torch
from test_guards import ASKED, RUN, Blind, limited, organism, organism_guard, tiny_guard

from demur import guards as g
from demur.organism.attacks import attack
from demur.organism.world import SMALL_TALK
from demur.organism.world import prompts as world_prompts
from demur.samplers import Autoregressive
from demur.signals import Anchors
from demur.traces import generate
from demur.types import DemurError, Prompt


def texts(model: Any, asked: list[Prompt]) -> dict[str, Any]:
    """Prompts as somebody without demur makes them: rendered, encoded, padded on the left."""
    canvas = model.canvas(asked, 0)
    return {"input_ids": canvas.ids, "attention_mask": (~canvas.pad).long()}


def stopped(verdict: Any) -> int:
    """The step after which a row was stopped; 0 for never."""
    return verdict.step if verdict.why.startswith(("above the limit", "the signal")) else 0


def fates(guard: g.Guard, plain: Any, sigma: np.ndarray, stops: np.ndarray) -> list[tuple[bool, int | None]]:
    """Flag and step of every row: that of its own states, or else the offline guard's."""
    whole = guard.judge_signals(sigma, [trace.refused() for trace in plain])
    return [
        (True, int(at)) if at and at <= trace.steps else (judged.flagged, judged.step)
        for at, trace, judged in zip(stops, plain, whole, strict=True)
    ]


def asked_of_the_organism() -> list[Prompt]:
    talk = [Prompt(f"talk{i}", text, harmful=False) for i, (text, _, _) in enumerate(SMALL_TALK)]
    asked = [*talk, *world_prompts("test", forbidden=False, n=8), *world_prompts("test", forbidden=True, n=6)]
    return [*asked, *(attack("page", prompt) for prompt in world_prompts("test", forbidden=True, n=6))]


@pytest.mark.parametrize(
    "more", [{}, pytest.param({"use_cache": False}, marks=pytest.mark.slow)], ids=["cached", "uncached"]
)
def test_a_plain_network_stops_where_watch_stops(more: Any) -> None:
    """Two calls of other sizes and lengths, one criteria; answers whose last token is fed back in either."""
    asked, net, tok = asked_of_the_organism(), organism().net, organism().tokenizer
    plain = generate(organism(), asked, Autoregressive(), **RUN)
    sigma = np.stack([organism_guard().anchors.signal(trace) for trace in plain])
    guard = deciding_late(organism_guard(), sigma, 8)
    watched = generate(organism(), asked, g.Watch(guard)(Autoregressive()), **RUN)
    wanted = [g.acted(trace).step or 0 for trace in watched]
    longest = max(trace.steps for trace in plain)
    known = [i for i, trace in enumerate(plain) if trace.steps < longest or 0 < wanted[i] < longest]
    assert len(known) > len(asked) // 2
    assert {True, False} == {wanted[i] > 0 for i in known}
    criteria = g.stopping_criteria(guard, net, tok)
    cut = len(asked) // 3
    for part in (asked[:cut], asked[cut:], asked):
        net.generate(
            **texts(organism(), part), do_sample=False, max_new_tokens=40, pad_token_id=organism().pad_id,
            stopping_criteria=[criteria], **more,
        )  # fmt: skip
        assert len(criteria.verdicts) == len(part)
    assert [len(call) for call in criteria.calls] == [cut, len(asked) - cut, len(asked)]
    found, apart = (
        [stopped(verdict) for verdict in verdicts]
        for verdicts in (criteria.verdicts, [verdict for call in criteria.calls[:2] for verdict in call])
    )
    assert [found[i] for i in known] == [wanted[i] for i in known]
    ended = [i for i in known if not wanted[i]]
    for i in ended:  # judged as the offline guard judges the same answer
        judged = guard.judge(plain[i])
        assert (criteria.verdicts[i].flagged, criteria.verdicts[i].step) == (judged.flagged, judged.step)
        assert criteria.verdicts[i].score == pytest.approx(judged.score, rel=1e-3, abs=1e-6)
    differing = [i for i in known if apart[i] != wanted[i]]
    assert not [i for i in differing if plain[i].steps not in _longest(plain, cut)], "but for a batch's very last token"


def _longest(plain: Any, cut: int) -> set[int]:
    """The lengths of the longest answers of both parts."""
    return {max(trace.steps for trace in part) for part in (plain[:cut], plain[cut:])}


def test_a_call_that_begins_with_the_last_ones_answer_is_another() -> None:
    """Turns of a conversation: the prompt is everything so far, one token a call or several."""
    model, guard = small.causal("llama"), tiny_guard()
    criteria, ids = g.stopping_criteria(guard, model.net), torch.tensor([[70, 71, 72]])
    for n in (1, 1, 3, 1, 4):
        ids = model.net.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n,
            pad_token_id=small.PAD, stopping_criteria=[criteria],
        )  # fmt: skip
    assert len(criteria.calls) == 5


class Ending:
    """A logits processor: the first row's first token ends an answer, and nothing else does."""

    def __init__(self, stop: int, length: int) -> None:
        self.stop, self.length = stop, length

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, self.stop] = -torch.inf
        if ids.shape[1] == self.length:
            scores[0], scores[0, self.stop] = -torch.inf, 0.0
        return scores


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("ends", [{"eos_token_id": 5}, {"eos_token_id": None}], ids=["another", "none"])
def test_an_answer_that_goes_on_behind_its_end_is_not_left_unseen(rows: int, ends: Any) -> None:
    """generate does not end where the model does: what follows would be watched by nobody."""
    model = small.causal("llama")
    ids = torch.tensor([[70, 71, 72], [80, 81, 82]])[:rows]
    run: Any = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 12}
    run |= {"pad_token_id": small.PAD, "logits_processor": [Ending(model.stop_ids[0], 3)]}
    guard = limited(tiny_guard(), 1e300)  # it stops nothing
    with g.stopping_criteria(guard, model) as criteria:
        model.net.generate(**run, stopping_criteria=[criteria])
    with g.stopping_criteria(guard, model) as criteria, pytest.raises(DemurError, match="goes on where it has ended"):
        model.net.generate(**run, **ends, stopping_criteria=[criteria])


def test_a_stopped_row_that_is_not_padded_is_named() -> None:
    """Without an end of sequence transformers pads nothing: a row that was stopped writes on beside its neighbours."""
    model, ids = small.causal("llama"), torch.tensor([[70, 71, 72], [80, 81, 82]])
    run: Any = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 12}
    run |= {"pad_token_id": small.PAD, "logits_processor": [Ending(model.stop_ids[0], 0)]}
    with g.stopping_criteria(limited(tiny_guard(), 1e300), model) as criteria:
        model.net.generate(**run, stopping_criteria=[criteria])
    highest = tiny_guard().prefix.scores(criteria.sigma).max(axis=1)
    row, between = int(highest.argmax()), limited(tiny_guard(), float(highest.min()))
    with g.stopping_criteria(between, model) as criteria:
        out = model.net.generate(**run, stopping_criteria=[criteria])
    assert (out[row, -2:] == small.PAD).all()
    with g.stopping_criteria(between, model) as criteria, pytest.raises(DemurError, match="was stopped"):
        model.net.generate(**run, eos_token_id=None, stopping_criteria=[criteria])


def test_rows_need_not_be_announced_and_are_checked_if_they_are() -> None:
    model, guard = small.causal("llama"), tiny_guard()
    ids = torch.tensor([[70, 71, 72], [80, 81, 82]])
    run: Any = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": True, "max_new_tokens": 3}
    run |= {"pad_token_id": small.PAD}
    several = g.stopping_criteria(guard, model.net, small.byte_level())
    model.net.generate(**run, num_return_sequences=3, stopping_criteria=[several])
    assert len(several.verdicts) == 6
    for announced in ({"prompts": 3}, {"tok": 3}):
        with (
            g.stopping_criteria(guard, model, **announced) as criteria,
            pytest.raises(DemurError, match="2 rows") as caught,
        ):
            model.net.generate(**run, stopping_criteria=[criteria])
        small.one_line(caught.value)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"num_beams": 2}, "reordered"),
        ({"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}, "on the right"),
        ({"guidance_scale": 2.0}, "one pass a token"),
        ({"guidance_scale": 2.0, "use_cache": False}, "one pass a token"),
        ({"negative_prompt_ids": torch.tensor([[7, 8]] * 2), "guidance_scale": 1.5}, "one pass a token"),
    ],
)
def test_what_can_not_be_followed_is_one_line(more: Any, says: str) -> None:
    model, guard = small.causal("llama"), tiny_guard()
    never = replace(guard.prefix.threshold, value=np.inf)
    guard = replace(guard, prefix=replace(guard.prefix, threshold=never))
    ids = torch.tensor([[70, 71, 72], [80, 81, 82]])
    run: Any = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "do_sample": False,
        "max_new_tokens": 8,
    } | more
    with g.stopping_criteria(guard, model.net) as criteria, pytest.raises(DemurError, match=says) as caught:
        model.net.generate(**run, pad_token_id=small.PAD, stopping_criteria=[criteria])
    small.one_line(caught.value)


class Reading:
    """A logits processor that asks the network about another text."""

    def __init__(self, net: Any) -> None:
        self.net = net

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.net(input_ids=torch.tensor([[9, 8, 7]]))
        return scores


def test_a_text_that_is_read_between_two_tokens_is_no_state_of_the_answer() -> None:
    """Between two calls of generate it is nobody's business."""
    model, ids = small.causal("llama"), torch.tensor([[70, 71, 72]])
    run: Any = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 6}
    run |= {"pad_token_id": small.PAD}
    with g.stopping_criteria(limited(tiny_guard(), 1e300), model.net) as criteria:
        model.net.generate(**run, stopping_criteria=[criteria])
        before = criteria.sigma.copy()
        model.net(input_ids=torch.tensor([[9, 8, 7]]))
        model.net.generate(**run, stopping_criteria=[criteria])
        np.testing.assert_array_equal(criteria.sigma, before)
        with pytest.raises(DemurError, match="one pass a token"):
            model.net.generate(**run, stopping_criteria=[criteria], logits_processor=[Reading(model.net)])


@pytest.mark.parametrize(
    "more", [{"prefill_chunk_size": 2}, {"cache_implementation": "static"}, {"embedded": True}], ids=str
)
def test_other_ways_of_reading_the_prompt_are_followed(more: dict[str, Any]) -> None:
    """In chunks, into a cache of fixed size, and given as states in place of tokens: twice with one criteria."""
    model, ids = small.causal("llama"), torch.tensor([[70, 71, 72, 73, 74], [80, 81, 82, 83, 84]])
    run: Any = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 10}
    run |= {"pad_token_id": small.PAD}
    with g.stopping_criteria(limited(tiny_guard(), 1e300), model.net) as criteria:
        model.net.generate(input_ids=ids, **run, stopping_criteria=[criteria])
        plain = criteria.sigma.copy()
        given = {"inputs_embeds": model.net.get_input_embeddings()(ids)} if "embedded" in more else {"input_ids": ids}
        options = {name: value for name, value in more.items() if name != "embedded"}
        for _ in range(2):
            model.net.generate(**given, **run, **options, stopping_criteria=[criteria])
            np.testing.assert_allclose(criteria.sigma, plain, atol=1e-4)
        assert len(criteria.calls) == 3


def test_the_network_is_looked_at_in_every_call() -> None:
    """Criteria are made once; adapters are switched and weights trained between calls."""
    net = copy.deepcopy(organism().net)
    run: Any = {"do_sample": False, "max_new_tokens": 3, "pad_token_id": organism().pad_id}
    run |= texts(organism(), asked_of_the_organism()[:1])
    with g.stopping_criteria(organism_guard(), net, organism().tokenizer) as criteria:
        net.generate(**run, stopping_criteria=[criteria])
        with torch.no_grad():
            net.model.layers[0].mlp.down_proj.weight.mul_(1.5)
        with pytest.raises(DemurError, match=r"the weights of .* have changed"):
            net.generate(**run, stopping_criteria=[criteria])


@pytest.mark.parametrize("after", [2, 4, 7])
@pytest.mark.parametrize("pool", ["generated", "producing"])
def test_padding_behind_an_end_of_the_callers_is_no_state_of_the_answer(after: int, pool: Any) -> None:
    """Ends that the model does not know, as ``stop_strings`` or ``eos_token_id`` of the caller's: the row's signal is
    that of its own tokens, though its neighbour writes on.
    """
    model, ids = small.causal("llama"), torch.tensor([[70, 71, 72], [80, 81, 82]])
    guard = limited(tiny_guard(), 1e300)
    guard = replace(guard, anchors=replace(guard.anchors, spec=replace(guard.spec, pool=pool)))

    def run(**more: Any) -> tuple[torch.Tensor, Any]:
        torch.manual_seed(1)
        with g.stopping_criteria(guard, model.net) as criteria:
            written = model.net.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=12,
                pad_token_id=small.PAD, stopping_criteria=[criteria], **more,
            )  # fmt: skip
        return written, criteria

    whole, _ = run()
    end = int(whole[0, 2 + after])
    assert end not in [*whole[0, 3 : 2 + after].tolist(), *whole[1, 3:].tolist()]
    written, criteria = run(eos_token_id=[small.EOS, end])
    assert (written[0, 3 + after :] == small.PAD).all()
    assert int(criteria.now.taken[0]) == after
    assert int(criteria.now.taken[1]) == guard.spec.steps


def test_another_networks_weights_and_template_are_refused() -> None:
    guard = tiny_guard()
    with pytest.raises(DemurError, match="weights"):
        g.stopping_criteria(guard, small.causal("qwen").net)
    with pytest.raises(DemurError, match="template"):
        g.stopping_criteria(guard, small.causal("llama").net, small.byte_level("{{ messages }}"))
    with pytest.raises(DemurError, match="a list"):
        g.stopping_criteria(guard, [])
    with pytest.raises(DemurError, match="came as the tokenizer"):
        g.stopping_criteria(guard, small.causal("llama").net, "llama")
    learning = copy.deepcopy(small.causal("llama").net).train()
    with pytest.raises(DemurError, match="training mode"):
        g.stopping_criteria(guard, learning)
    criteria = g.stopping_criteria(guard, small.causal("llama").net)
    ids = torch.tensor([[70, 71]])
    with pytest.raises(DemurError, match="another model"):
        small.causal("qwen").net.generate(ids, max_new_tokens=2, pad_token_id=0, stopping_criteria=[criteria])


def test_the_hooks_go_when_nobody_holds_the_criteria() -> None:
    net = small.causal("llama").net
    before = len(net.get_decoder()._forward_hooks)
    criteria = g.stopping_criteria(tiny_guard(), net)
    assert len(net.get_decoder()._forward_hooks) == before + 1
    del criteria
    gc.collect()
    assert len(net.get_decoder()._forward_hooks) == before
    closed = g.stopping_criteria(tiny_guard(), net)
    closed.close()
    assert len(net.get_decoder()._forward_hooks) == before


@pytest.mark.parametrize("pool", ["generated", "producing"])
def test_the_stopping_criteria_see_the_signal_that_the_defense_sees(pool: str) -> None:
    """transformers' own generate with our criteria: the same sigma, and stops where the prefix scores say."""
    model = small.causal("llama")
    keys = [("last", pool)]
    traces = generate(model, ASKED, length=8, steps=8, pools=keys, batch=4)  # type: ignore[arg-type]
    fit = generate(model, [Prompt(str(i), f"x {i}", harmful=False) for i in range(90)], length=8, steps=8, pools=keys)  # type: ignore[arg-type]
    mean = np.stack([t.aligned("last", pool) for t in fit]).mean(axis=0)  # type: ignore[arg-type]
    noise = 0.5 * np.random.default_rng(0).normal(size=mean.shape).astype(np.float32)
    ones = np.ones(8, np.float32)
    anchors = Anchors(mean, mean + noise, ones, ones, fit[0].spec.at("last", pool), "observed", 1, 1, 1, 1)
    guard = g.fit_guard(anchors, fit[:50], fit[50:], alpha=0.4, detector=partial(g.Autoencoder.fit, epochs=10))
    sigma = np.stack([anchors.signal(trace) for trace in traces])
    stops = guard.prefix.stops(sigma)
    late = 1 if pool == "generated" else 0
    for i, prompt in enumerate(ASKED):
        canvas = model.canvas([prompt], 8)
        n = canvas.width - 8
        with g.stopping_criteria(guard, model) as criteria:
            out = model.net.generate(
                input_ids=canvas.ids[:, :n], attention_mask=torch.ones(1, n, dtype=torch.long), do_sample=False,
                max_new_tokens=8, pad_token_id=model.pad_id, stopping_criteria=[criteria],
            )  # fmt: skip
        (verdict,) = criteria.verdicts
        taken = out.shape[1] - n
        seen = min(taken - late, traces[i].steps)
        assert criteria.sigma[0, :seen] == pytest.approx(sigma[i, :seen], abs=1e-4)
        if stops[i] and stops[i] + late <= traces[i].steps:
            assert verdict.flagged
            assert verdict.step == stops[i]
            assert taken == stops[i] + late
        assert not model.net.get_decoder()._forward_hooks, "the hook is taken off"


def under_the_criteria(guard: g.Guard, model: Any, asked: list[Prompt], length: int) -> Any:
    """A batch in ``model.net.generate`` under the criteria, which are given back."""
    canvas = model.canvas(asked, length)
    n = canvas.width - length
    with g.stopping_criteria(guard, model, prompts=len(asked)) as criteria:
        model.net.generate(
            input_ids=canvas.ids[:, :n], attention_mask=(~canvas.pad[:, :n]).long(), do_sample=False,
            max_new_tokens=length, pad_token_id=model.pad_id, stopping_criteria=[criteria],
        )  # fmt: skip
    return criteria


def deciding_late(guard: g.Guard, sigma: np.ndarray, ramp: float) -> g.Guard:
    """The same guard with an online part to which late steps matter more, by ``ramp``; it flags half of the signals."""
    later = replace(guard.prefix, centre=guard.prefix.centre - np.linspace(0, ramp, sigma.shape[1]))
    return limited(replace(guard, prefix=later), float(np.median(later.scores(sigma).max(axis=1))))


@pytest.mark.parametrize("pool", ["generated", "producing"])
def test_a_batch_under_the_criteria_has_the_fates_of_its_finished_signals(pool: Any) -> None:
    """Answers of many lengths, some past T: what ended is judged by its own states, not by the padding behind it."""
    model = small.ending(small.causal("llama"), *range(60, 90))
    run: Any = {"length": 12, "steps": 8, "batch": 32, "pools": [("last", pool)]}
    asked = [Prompt(f"q{i}", f"Prompt {i} about {i * i}") for i in range(7000, 7030)]
    fit = generate(model, [Prompt(str(i), f"x {i}", harmful=False) for i in range(90)], **run)
    phi = np.stack([trace.aligned("last", pool) for trace in fit])
    noise = 0.5 * np.random.default_rng(0).normal(size=phi.shape[1:]).astype(np.float32)
    mean, ones, spec = phi.mean(axis=0), np.ones(8, np.float32), fit[0].spec.at("last", pool)
    anchors = Anchors(mean, mean + noise, ones, ones, spec, "observed", 1, 1, 1, 1)
    guard = g.fit_guard(anchors, fit[:50], fit[50:], alpha=0.4, detector=partial(g.Autoencoder.fit, epochs=10))
    plain = generate(model, asked, Autoregressive(), **run)
    lengths = np.array([trace.steps for trace in plain])
    sigma = np.stack([anchors.signal(trace) for trace in plain])
    guard = deciding_late(guard, sigma, 2)
    stops = guard.prefix.stops(sigma)
    assert max(lengths) == 12, "the batch goes on past T"
    assert len({*lengths}) > 3
    for rows in (lengths < 8, lengths >= 8):
        assert {True, False} == {*(stops[rows] > 0).tolist()}, "each kind of row should hold both fates"
    assert ((stops > lengths) & (lengths < 8)).any(), "one is above the limit while it is held"
    criteria = under_the_criteria(guard, model, asked, 12)
    found = [(verdict.flagged, verdict.step) for verdict in criteria.verdicts]
    assert found == fates(guard, plain, sigma, stops)
    stops[stops > lengths] = 0
    for i in np.nonzero(stops == 0)[0]:
        assert criteria.sigma[i] == pytest.approx(sigma[i], abs=1e-4), "the finished signal, its last state held"
    watched = generate(model, asked, g.Watch(guard)(Autoregressive()), **run)
    assert [g.acted(trace).step or 0 for trace in watched] == stops.tolist()


def test_answers_of_the_organism_have_the_same_fate_in_a_batch_under_the_criteria() -> None:
    talk = [Prompt(f"talk{i}", text, harmful=False) for i, (text, _, _) in enumerate(SMALL_TALK)]
    asked = [*talk, *world_prompts("test", forbidden=False, n=12), *world_prompts("test", forbidden=True, n=6)]
    asked += [attack("page", prompt) for prompt in world_prompts("test", forbidden=True, n=6)]
    plain = generate(organism(), asked, Autoregressive(), **RUN)
    longest = max(trace.steps for trace in plain)
    known = []
    for trace in plain:  # the batch's very last token is never fed back: its own state is not known
        phi = trace.phi["last", "generated"][: trace.steps - (trace.steps == longest)]
        known.append(replace(trace, phi={("last", "generated"): phi}))
    sigma = np.stack([organism_guard().anchors.signal(trace) for trace in known])
    guard = deciding_late(organism_guard(), sigma, 8)
    stops = guard.prefix.stops(sigma)
    early = np.array([trace.steps for trace in plain]) < longest
    assert {True, False} == {*(stops[early] > 0).tolist()}, "answers that end before the batch should have both fates"
    found = [(verdict.flagged, verdict.step) for verdict in under_the_criteria(guard, organism(), asked, 40).verdicts]
    assert found == fates(guard, known, sigma, stops)


def test_the_criteria_stop_a_row_whose_signal_is_not_finite() -> None:
    model, guard = small.causal("llama"), tiny_guard()
    guard = limited(replace(guard, anchors=Blind(guard.anchors, [1], 2, of=2)), np.inf)  # type: ignore[arg-type]
    ids = torch.tensor([[70, 71, 72], [80, 81, 82]])
    with g.stopping_criteria(guard, model, prompts=2) as criteria:
        out = model.net.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8,
            pad_token_id=small.PAD, stopping_criteria=[criteria],
        )  # fmt: skip
    assert [verdict.flagged for verdict in criteria.verdicts] == [False, True]
    assert (criteria.verdicts[1].score, criteria.verdicts[1].step) == (None, 3)
    assert "not finite" in criteria.verdicts[1].why
    assert (out[1, 3 + 4 :] == small.PAD).all()


def test_the_criteria_refuse_another_model() -> None:
    with pytest.raises(DemurError, match="another spec"):
        g.stopping_criteria(tiny_guard(), small.causal("qwen"))
