"""What a network computes with beside its weights stands in the spec, and tells apart what the weights do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small
import transformers
from test_guards import tiny_guard, tiny_traces

import demur
import demur.guards as g
from demur.models.computed import computed_by
from demur.models.locate import locate
from demur.organism import anchors as shipped
from demur.samplers import Autoregressive
from demur.traces import spec_of
from demur.types import DemurError, Spec


def facts(name: str, **changed: Any) -> dict[str, Any]:
    return computed_by(SimpleNamespace(config=getattr(transformers, name)(**changed)))


@pytest.mark.parametrize(
    ("name", "changed", "named"),
    [
        ("LlamaConfig", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_parameters.rope_theta"),
        ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
         "rope_parameters.rope_type"),
        ("LlamaConfig", {"rms_norm_eps": 1e-5}, "rms_norm_eps"),
        ("LlamaConfig", {"hidden_act": "gelu"}, "hidden_act"),
        ("LlamaConfig", {"num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256}, "head_dim"),
        ("MistralConfig", {"sliding_window": None}, "sliding_window"),
        ("Qwen3Config", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}, "sliding_window"),
        ("Gemma2Config", {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
        ("Gemma2Config", {"query_pre_attn_scalar": 128}, "query_pre_attn_scalar"),
        ("GraniteConfig", {"attention_multiplier": 0.5}, "attention_multiplier"),
        ("MixtralConfig", {"num_experts_per_tok": 3}, "num_experts_per_tok"),
    ],
)  # fmt: skip
def test_what_changes_the_computation_is_a_fact(name: str, changed: dict[str, Any], named: str) -> None:
    plain, other = facts(name), facts(name, **changed)
    assert plain[named] != other[named]
    spec = replace(small.SPEC, computed=plain)
    assert any(named in line for line in spec.differences(replace(spec, computed=other)))


@pytest.mark.parametrize(
    "changed",
    [{"eos_token_id": 7}, {"attention_dropout": 0.5}, {"use_cache": False}, {"initializer_range": 0.5}, {"more": 5},
     {"dtype": "bfloat16"}, {"max_position_embeddings": 64}, {"rms_norm_eps": 9.999999974752427e-07}],
)  # fmt: skip
def test_what_does_not_is_none(changed: dict[str, Any]) -> None:
    assert facts("LlamaConfig", **changed) == facts("LlamaConfig")


def test_facts_are_plain_and_come_back_from_json() -> None:
    for name in ("LlamaConfig", "Gemma3TextConfig", "GptOssConfig", "Llama4TextConfig", "ModernBertConfig"):
        assert json.loads(json.dumps(facts(name))) == facts(name)
    assert computed_by(SimpleNamespace()) == {}


def test_only_what_both_know_is_compared() -> None:
    spec = replace(small.SPEC, computed={"rms_norm_eps": 1e-6, "rope_parameters.rope_theta": 10000})
    for other in ({}, {"rms_norm_eps": 1e-6}, {"new": 1, "rms_norm_eps": 1e-6}):
        assert not spec.differences(replace(spec, computed=other))
        assert not replace(spec, computed=other).differences(spec)
    (said,) = spec.differences(replace(spec, computed={"rms_norm_eps": 1e-5, "new": 2}))
    assert said == "rms_norm_eps: 1e-06 against 1e-05"
    assert not spec.differences(replace(spec, computed={"rms_norm_eps": 1e-5}), leaving=("computed",))


def test_older_specs_keep_their_bytes_and_are_found() -> None:
    spec = replace(small.SPEC, computed={"rms_norm_eps": 1e-6})
    assert "computed" not in small.SPEC.plain()
    assert Spec(**json.loads(json.dumps(spec.plain()))) == spec
    assert spec.key != small.SPEC.key
    assert spec.earlier_keys == (small.SPEC.key, small.SPEC.former_key)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A copy of the organism with another config.json."""
    whole = Path(str(locate("organism/ar", None)[0]))

    def made(**changed: Any) -> Path:
        copied = tmp_path_factory.mktemp("models") / "copy"
        shutil.copytree(whole, copied, ignore=shutil.ignore_patterns("anchors"))
        raw = json.loads((copied / "config.json").read_text())
        (copied / "config.json").write_text(json.dumps(raw | changed))
        return copied

    return made


def test_a_changed_config_is_another_spec_though_the_weights_are_the_same(folder: Callable[..., Path]) -> None:
    spec = partial(spec_of, sampler=Autoregressive(), length=8)
    plain, same = spec(demur.load("organism/ar")), spec(demur.load(str(folder(eos_token_id=1))))
    assert not plain.differences(same)
    for changed, named in (
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps"),
        ({"rope_theta": 5e5}, "rope_parameters.rope_theta"),
    ):
        raw = {"rope_parameters": {"rope_type": "default", **changed}} if "rope_theta" in changed else changed
        other = spec(demur.load(str(folder(**raw))))
        assert other.weights == plain.weights
        (said,) = plain.differences(other)
        assert named in said


def test_a_guard_is_refused_for_other_epsilons_by_name_in_generate_and_for_traces() -> None:
    guard, net = tiny_guard(), small.causal("llama").net
    facts = computed_by(net)
    knowing = replace(guard, anchors=replace(guard.anchors, spec=replace(guard.spec, computed=facts)))
    assert knowing.judge(tiny_traces(1)[0]) == guard.judge(tiny_traces(1)[0]), "a trace of before does not say"
    other = facts | {"rms_norm_eps": 0.5}
    trace = replace(tiny_traces(1)[0], spec=replace(tiny_traces(1)[0].spec, computed=other))
    with pytest.raises(DemurError, match=r"rms_norm_eps: 0\.5 against 1e-06"):
        knowing.judge(trace)
    assert guard.judge(trace) is not None, "a guard of before knows none"
    with g.stopping_criteria(knowing, net, small.byte_level()):
        pass
    strange = replace(guard, anchors=replace(guard.anchors, spec=replace(guard.spec, computed=other)))
    with pytest.raises(DemurError, match=r"rms_norm_eps: 1e-06 against 0\.5"):
        g.stopping_criteria(strange, net, small.byte_level())


def test_the_shipped_anchors_of_before_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("fitted anew")

    monkeypatch.setattr(shipped, "anchors_of", never)
    model = demur.load("organism/ar")
    assert model.identity.computed
    found = shipped.own_anchors(model, Autoregressive())
    found.check(spec_of(model, Autoregressive(), 40), leaving=("layer", "pool", "signal"))
