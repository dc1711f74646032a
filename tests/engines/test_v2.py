"""The one class in front of both model runners, by vLLM's own types. V2 itself needs an accelerator."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_guards import D, Plain, made

HERE = importlib.util.find_spec("vllm") is not None
pytestmark = pytest.mark.skipif(not HERE, reason="vLLM is not installed: make test-vllm")
if HERE:
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality, _load_logitsprocs_plugins
    from vllm.v1.worker.gpu.sample.logits_processor import loader
    from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcRequestState

    from demur.engines.vllm import layer, processor
    from demur.engines.vllm.desk import Post
    from demur.engines.vllm.host_look import look_of
    from demur.engines.vllm.options import Mode, Named, Options

V, EOS, SLOTS = 13, 1, 6


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    def build(guard: Any, where: Any, mode: str = "watch") -> Any:
        of = Mode(mode)
        options = Options({"g": Named("x", of)}, default="g")
        posts = {"g": Post(guard, look_of(guard, torch.device("cpu"), acts=of is not Mode.WATCH), of, (7, 8))}
        monkeypatch.setattr(processor, "operators", lambda: options)
        monkeypatch.setattr(processor, "_posts", lambda config, device: (posts, {}))
        monkeypatch.setattr(layer, "_KEPT", [True])
        monkeypatch.setattr(layer, "check_config", lambda config: None)
        return processor.GuardProcessor(SimpleNamespace(), where)

    return build


def params(**more: Any) -> Any:
    made_of = SamplingParams(temperature=0.0, max_tokens=50, **more)
    made_of.update_from_generation_config({}, eos_token_id=EOS)
    return made_of


class Runner:
    """Slots of requests and the layout of a step, as the V2 runner has them."""

    def __init__(self) -> None:
        self.prompt, self.prefill = np.zeros(SLOTS, np.int32), np.zeros(SLOTS, np.int32)
        hold = SimpleNamespace
        self.state = LogitsProcRequestState(
            device=torch.device("cpu"), max_num_reqs=SLOTS, vocab_size=V, all_token_ids=hold(),
            prompt_len=hold(np=self.prompt), prefill_len=hold(np=self.prefill), total_len=hold(),
        )  # fmt: skip

    def context(self, slots: list[int], lengths: list[int], fed: list[int]) -> Any:
        where = torch.tensor(slots)
        return LogitsContext(
            expanded_idx_mapping=where, idx_mapping=where, idx_mapping_np=np.array(slots),
            expanded_local_pos=torch.zeros_like(where), input_ids=torch.tensor(fed),
            pos=torch.tensor(lengths) - 1, seq_lens_upper_bound_np=np.array(lengths),
        )  # fmt: skip


def give(of: Any, states: torch.Tensor, ctx: Any = None) -> torch.Tensor:
    layer._GIVEN[:] = [states]
    return of.apply(torch.zeros(len(states), V), ctx) if ctx else of.apply(torch.zeros(len(states), V))


def test_both_loaders_take_the_class() -> None:
    assert processor.GuardProcessor in _load_logitsprocs_plugins()
    assert processor.GuardProcessor in loader._load_v2_logitsprocs_plugins()
    assert loader._load_v2_logitsprocs_by_fqcns([layer.ASKS]) == [processor.ShowsTokens]


@pytest.mark.parametrize("pool", ["producing", "generated"])
def test_v2_rows_in_any_order_keep_their_requests(make: Any, pool: str) -> None:
    guard, runner, rng = made(tail=True, pool=pool), Runner(), np.random.default_rng(0)
    of = make(guard, runner.state)
    plain, written = {}, {}
    for slot, prompt in ((4, 7), (0, 3), (2, 12)):
        runner.prompt[slot] = runner.prefill[slot] = prompt
        assert of.add_request(slot, params(extra_args={"demur": "g", "demur_id": f"s{slot}"}))
        plain[slot], written[slot] = Plain(guard), 0
    for step in range(12):
        slots = [int(slot) for slot in rng.permutation([*plain])]
        states = torch.from_numpy(rng.normal(size=(3, D)).astype(np.float32))
        if step == 0:  # slot 2 reads the first 5 tokens of its prompt, and is no row yet
            part = [5 if slot == 2 else int(runner.prompt[slot]) for slot in slots]
        else:
            part = [int(runner.prompt[slot]) + written[slot] for slot in slots]
        give(of, states, runner.context(slots, part, [5] * 3))
        for row, slot in enumerate(slots):
            if step == 0 and slot == 2:
                continue
            if pool == "producing" or written[slot]:
                plain[slot].see(states[row])
            written[slot] += 1
    for slot, own in plain.items():
        (told,) = of.desk.verdicts(f"s{slot}")
        assert told["watched"]
        assert told["sigma"] == pytest.approx(own.sigma[:5], abs=1e-5)
        assert (told["step"] or 0) == own.flagged
        assert told["last"] == pytest.approx(own.sigma[-1], abs=1e-5)


def test_v2_a_request_that_comes_back_in_another_slot_goes_on_and_reads_again_in_pieces(make: Any) -> None:
    guard, runner = made("mean"), Runner()
    of, states, own = make(guard, runner.state), torch.randn(4, 1, D), params()
    plain = Plain(guard)
    runner.prompt[1] = runner.prefill[1] = 6
    of.add_request(1, own)
    for t in range(2):
        give(of, states[t], runner.context([1], [6 + t], [5]))
        plain.see(states[t, 0])
    runner.prompt[1] = runner.prefill[1] = 3  # somebody else takes the slot
    of.add_request(1, params())
    runner.prompt[5], runner.prefill[5] = 6, 8
    of.add_request(5, own)
    give(of, torch.randn(1, D), runner.context([5], [4], [5]))
    for t in range(2, 4):
        give(of, states[t], runner.context([5], [6 + t], [5]))
        plain.see(states[t, 0])
    told = of.desk.verdicts()[0]
    assert told["watched"]
    assert told["sigma"] == pytest.approx(plain.sigma, abs=1e-5)


def test_v2_a_step_behind_the_end_is_not_looked_at(make: Any) -> None:
    runner = Runner()
    of = make(made(limit=1e9), runner.state)
    runner.prompt[0] = runner.prefill[0] = 4
    of.add_request(0, params())
    give(of, torch.randn(1, D), runner.context([0], [4], [EOS]))  # a prompt may end with a stop token
    give(of, torch.full((1, D), float("nan")), runner.context([0], [5], [EOS]))
    (told,) = of.desk.verdicts()
    assert told["status"] == "let pass"
    assert len(told["sigma"]) <= 2


def test_v2_a_flag_leaves_one_token(make: Any) -> None:
    runner = Runner()
    of = make(made(limit=-1e9), runner.state, "refuse")
    runner.prompt[3] = runner.prefill[3] = 4
    of.add_request(3, params())
    left = []
    for t in range(4):
        logits = give(of, torch.randn(1, D), runner.context([3], [4 + t], [5]))
        left.append(logits[0].isfinite().nonzero().flatten().tolist())
    assert left == [[7], [8], [EOS], [EOS]]


def test_a_request_that_can_not_be_ended_says_so_and_stops_no_engine(make: Any) -> None:
    runner = Runner()
    of = make(made(limit=-1e9), runner.state, "stop")
    runner.prompt[0] = runner.prefill[0] = 4
    of.add_request(0, SamplingParams(temperature=0.0, max_tokens=5))
    assert give(of, torch.randn(1, D), runner.context([0], [4], [5])).isfinite().all()
    (told,) = of.desk.verdicts()
    assert (told["flagged"], told["acted"]) == (True, False)
    assert "can not be ended" in told["notes"][0]


def test_v1_takes_removed_added_and_moved_in_this_order(make: Any) -> None:
    guard = made(limit=1e9)
    of = make(guard, torch.device("cpu"))
    lists: list[list[int]] = [[], [], [], []]
    ids = [params(extra_args={"demur": "g", "demur_id": f"{i}"}) for i in range(4)]
    of.update_state(BatchUpdate(3, [], [(i, ids[i], None, lists[i]) for i in range(3)], []))
    give(of, torch.randn(3, D))
    for out in lists[:3]:
        out.append(5)
    swap, one_way = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL
    of.update_state(BatchUpdate(3, [1], [(1, ids[3], None, lists[3])], [(0, 2, swap)]))
    assert [of.desk.rows[i].id for i in range(3)] == ["2", "3", "0"]
    of.update_state(BatchUpdate(2, [0], [], [(2, 0, one_way)]))
    assert {i: one.id for i, one in of.desk.rows.items()} == {0: "0", 1: "3"}
    of.update_state(None)


def test_a_bad_option_is_a_value_error_of_validate_params(make: Any) -> None:
    make(made(), torch.device("cpu"))
    processor.GuardProcessor.validate_params(params())
    with pytest.raises(ValueError, match="guard 'x'"):
        processor.GuardProcessor.validate_params(params(extra_args={"demur": "x"}))


def test_an_answer_is_found_by_the_id_of_its_http_request(make: Any) -> None:
    make(made(), torch.device("cpu"))
    token = processor.REQUEST.set("abc")
    try:
        shared = params()
        processor.GuardProcessor.validate_params(shared)
        assert shared.extra_args == {"demur": "g", "demur_id": "abc"}
    finally:
        processor.REQUEST.reset(token)


def test_without_guards_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "operators", Options)
    of = processor.GuardProcessor(SimpleNamespace(), torch.device("cpu"))
    assert not of.add_request(0, params())
    logits = torch.randn(2, V)
    assert of.apply(logits.clone()).equal(logits)
