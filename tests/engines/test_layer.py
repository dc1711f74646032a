"""What of an engine is refused at the start, and whose states are taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from demur.engines.vllm import layer
from demur.types import DemurError


def config(**said: Any) -> Any:
    parallel: dict[str, Any] = {
        "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1,
        "enable_batch_sharded_sampling": None,
    }  # fmt: skip
    usual: dict[str, Any] = {
        "speculative_config": None, "lora_config": None, "use_v2_model_runner": False,
        "scheduler_config": SimpleNamespace(async_scheduling=said.pop("overlap", False)),
        "model_config": SimpleNamespace(logits_processors=said.pop("processors", None)),
    }  # fmt: skip
    own = {name: said.pop(name) for name in [*said] if name in parallel}
    return SimpleNamespace(**usual | said, parallel_config=SimpleNamespace(**parallel | own))


def test_a_plain_engine_is_taken() -> None:
    layer.check_config(config())
    layer.check_config(config(overlap=True, use_v2_model_runner=True))
    layer.check_config(config(overlap=True, processors=[layer.ASKS]))


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"speculative_config": object()}, "speculative"),
        ({"tensor_parallel_size": 2}, "tensor"),
        ({"pipeline_parallel_size": 2}, "pipeline"),
        ({"data_parallel_size": 2}, "data parallelism"),
        ({"enable_batch_sharded_sampling": True}, "batch-sharded"),
        ({"lora_config": object()}, "LoRA"),
        ({"overlap": True}, "hides the tokens"),
    ],
)
def test_an_engine_in_which_a_guard_would_not_see_is_refused_in_one_line(said: dict[str, Any], word: str) -> None:
    with pytest.raises(DemurError, match=word) as error:
        layer.check_config(config(**said))
    assert "\n" not in str(error.value)


def test_states_are_taken_once() -> None:
    layer._GIVEN[:] = ["states"]
    assert layer.take_states() == "states"
    assert layer.take_states() is None
