"""What config.json says of the computation and the native class does not compute is told at loading."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from test_checkpoints import SIZES, configured, saved
from transformers import AutoConfig, Qwen2Config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from demur.models import load
from demur.models.unread import other_type, unread
from demur.types import DemurWarning


def said(folder: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(folder)
    return [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sliding_window", 64), ("attn_logit_softcapping", 50.0), ("embedding_multiplier", 12.0), ("scale_emb", 12),
        ("scale_depth", 1.4), ("residual_multiplier", 0.22), ("attention_multiplier", 0.015), ("alibi", True),
        ("use_qk_norm", True), ("qk_layernorm", True), ("query_pre_attn_scalar", 256), ("clip_qkv", 8.0),
        ("mup_width_scale", 0.5), ("use_attention_sinks", True), ("no_rope_layers", [1, 1, 0]), ("qkv_bias", True),
        ("partial_rotary_factor", 0.5), ("rotary_pct", 0.25), ("rope_theta", 5e5), ("new_attention_scale", 0.3),
        ("use_parallel_residual", True), ("swiglu_limit", 7.0), ("use_bidirectional_attention", True),
        ("layer_norm_eps", 1e-2), ("norm_eps", 1e-3), ("layer_norm_epsilon", 0.1), ("hidden_activation", "gelu"),
        ("activation_function", "relu"),
    ],
)  # fmt: skip
def test_a_field_that_the_class_does_not_compute_is_said(field: str, value: Any, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, **{field: value})
    if field in ("partial_rotary_factor", "rope_theta"):  # it stands in rope_parameters, by which the class goes
        assert json.loads((folder / "config.json").read_text())["rope_parameters"]["rope_theta"] == 1e4
    assert any(field in line for line in said(folder)) or load(folder).identity.computed.get(
        f"rope_parameters.{field}"
    ) == value  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "own"),
    [("layer_norm_eps", 1e-2, "rms_norm_eps"), ("norm_eps", 1e-3, "rms_norm_eps"), ("afn", "relu", "hidden_act")],
)
def test_a_name_of_another_family_beside_the_own_one_may_be_left_over(
    key: str, value: Any, own: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, **{key: value})
    assert any(key in line and f"{own} " in line and "left over from a conversion" in line for line in said(folder))
    content = json.loads((folder / "config.json").read_text())
    del content[own]
    (folder / "config.json").write_text(json.dumps(content))
    lines = [line for line in said(folder) if key in line]
    assert lines
    assert not any("left over" in line for line in lines)


@pytest.mark.parametrize(
    "settings",
    [
        {"sliding_window": None}, {"sliding_window": 4096}, {"sliding_window": 64, "use_sliding_window": False},
        {"attn_logit_softcapping": None}, {"embedding_multiplier": 1.0}, {"logit_scale": 1}, {"alibi": False},
        {"rope_theta": 10000.0}, {"rope_theta": 10000}, {"rotary_pct": 0}, {"use_qk_norm": False}, {"clip_qkv": None},
        {"norm_eps": 1e-6}, {"layer_norm_eps": None}, {"activation_function": "swish"}, {"hidden_activation": None},
        {"use_bidirectional_attention": False},
        {"torch_dtype": "bfloat16", "initializer_scale": 3.0, "aux_loss_scale": 0.1, "my_note": "window seat"},
    ],
)  # fmt: skip
def test_a_field_that_says_nothing_is_passed_over(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, **settings)
    assert said(folder) == []


@pytest.mark.parametrize(
    ("old", "new", "differ"),
    [
        ({"type": "linear", "factor": 4.0}, {"rope_type": "default", "rope_theta": 1e4}, True),
        ({"rope_type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, True),
        ({"rope_type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, False),
        ({"rope_type": "default"}, {"rope_type": "default", "rope_theta": 1e4}, False),
        (None, {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}, False),
    ],
)
def test_two_rotations_that_differ_are_said(old: Any, new: Any, differ: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, rope_scaling=old, rope_parameters=new)
    assert any("rope_scaling and rope_parameters that differ" in line for line in said(folder)) is differ


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rope_scaling": {"factor": 4.0}}, "a factor of 4.0 and no rope_type"),
        ({"rope_parameters": {"rope_theta": 1e4, "factor": 4.0, "rope_type": "default"}}, "have factor, which"),
        (
            {
                "rope_parameters": {
                    "rope_theta": 1e4, "factor": 4.0, "rope_type": "yarn", "beta_fats": 3,
                    "original_max_position_embeddings": 64,
                }
            },
            "have beta_fats, which the kind yarn",
        ),
        ({"rope_parameters": {"rope_theta": 1e4, "factor": 4.0, "rope_type": "yarn"}}, "is taken for the length"),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0, "mscale": 2.0}},
            "have mscale, which the kind linear",
        ),
    ],
)  # fmt: skip
def test_settings_of_a_rotation_that_its_kind_does_not_read_are_said(
    settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, **settings)
    assert any(says in line for line in said(folder))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {"type": "linear", "rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64},
    ],
)  # fmt: skip
def test_a_rotation_that_is_said_whole_is_not_spoken_of(rope: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, rope_parameters=rope)
    assert said(folder) == []


@pytest.mark.parametrize(
    ("settings", "odd"),
    [
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention"] * 3}, True),
        ({"use_sliding_window": True, "sliding_window": 8, "layer_types": ["sliding_attention"] * 3}, False),
        ({"use_sliding_window": False, "sliding_window": 8, "layer_types": ["full_attention"] * 3}, False),
        ({"use_sliding_window": True, "sliding_window": 512, "layer_types": ["full_attention"] * 3}, False),
    ],
)
@pytest.mark.filterwarnings("ignore:.*splits texts otherwise")
def test_a_window_that_no_layer_has_is_said(settings: dict[str, Any], odd: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Qwen2Config(**SIZES))
    configured(folder, **settings)
    assert any("no layer has one" in line for line in said(folder)) is odd


@pytest.mark.parametrize(
    ("named", "odd"),
    [
        ("LlamaForCausalLM", False), ("GPT2LMHeadModel", False), ("LlamaModel", True), ("LlamaBiModel", True),
        ("LlamaForSequenceClassification", True), ("LlamaForTokenClassification", True), ("LlamaForRewardModel", True),
    ],
)  # fmt: skip
def test_a_class_that_writes_no_text_is_said(named: str, odd: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, architectures=[named])
    assert any("writes no text" in line for line in said(folder)) is odd


def test_no_class_of_transformers_is_said_to_leave_out_what_its_own_configuration_says() -> None:
    looked = 0
    for kind, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        try:
            config = AutoConfig.for_model(kind)
        except Exception:  # made by its parts only
            continue
        looked += 1
        for name in (names,) if isinstance(names, str) else names:
            raw = config.to_dict() | {"model_type": kind, "architectures": [name]}
            assert unread(raw, SimpleNamespace(config=config)) == (), kind
            assert other_type(raw) == (), kind
    assert looked > 80


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("gemma3_text", {"sliding_window_pattern": 6}), ("gemma3_text", {"_sliding_window_pattern": 6}),
        ("cohere2", {"sliding_window_pattern": 4}), ("apertus", {"qk_norm": True}), ("afmoe", {"use_qk_norm": True}),
        ("hunyuan_v1_dense", {"use_qk_norm": True, "head_dim": 16}), ("gpt_oss", {"swiglu_limit": 7.0}),
        ("minimax_m2", {"use_qk_norm": True, "qk_norm_type": "per_layer"}),
    ],
)  # fmt: skip
def test_a_field_that_a_class_takes_or_always_computes_is_no_line(kind: str, raw: dict[str, Any]) -> None:
    """Fields as in the config.json of public models, which the configuration's class does not keep by their names."""
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip(f"this version of transformers has no {kind}")
    config = AutoConfig.for_model(kind, **raw)
    with torch.device("meta"):
        net = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind])(config)
    assert unread(raw, net) == ()
    assert len(unread({"embedding_multiplier": 12.0}, net)) == 1


def test_the_window_of_gemma_2_has_two_names() -> None:
    config = transformers.Gemma2Config(sliding_window=64)
    for width, lines in ((64, 0), (32, 1)):
        raw = config.to_dict() | {"sliding_window_size": width}
        assert len(unread(raw, SimpleNamespace(config=config))) == lines


@pytest.mark.parametrize(
    ("named", "odd"),
    [
        ("LlamaForCausalLM", False), ("LlamaModel", False), ("LlamaForSequenceClassification", False),
        ("MistralForCausalLM", True), ("GPT2LMHeadModel", True), ("Gemma2ForCausalLM", True),
    ],
)  # fmt: skip
def test_a_class_of_another_model_type_is_said(named: str, odd: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    configured(folder, architectures=[named])
    assert any(f"names {named}" in line and "goes by the type" in line for line in said(folder)) is odd


@pytest.mark.filterwarnings("ignore:.*splits texts otherwise")
def test_a_line_is_a_note_of_the_model_too(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", Qwen2Config(**SIZES))
    configured(folder, softcap=30.0)
    with pytest.warns(DemurWarning, match=r"softcap 30\.0, which Qwen2ForCausalLM does not compute"):
        assert any("softcap" in note for note in load(folder).notes)  # type: ignore[attr-defined]
