"""``vllm.general_plugins``: the layer whose input is the state that each token is drawn from.

Every model of vLLM computes its logits by one layer, ``LogitsProcessor``, outside what is compiled and captured. A
subclass that is registered in its place is given one state a sampled row, after the final norm: no hook, no eager mode.
"""

from __future__ import annotations

from typing import Any

from demur.engines.vllm.options import operators
from demur.types import DemurError

_GIVEN: list[Any] = []  # the states of the last pass through the head, until somebody takes them
_KEPT: list[bool] = []  # whether the layer stands in its place


def take_states() -> Any:
    """The states that the head was given last, once: who asks again without another pass gets None."""
    return _GIVEN.pop() if _GIVEN else None


def is_registered() -> bool:
    """Whether the layer stands in its place."""
    return bool(_KEPT)


def register() -> None:
    """Puts the layer in its place, in every process of the engine. Does nothing where no guards are named."""
    if not operators().guards or _KEPT:
        return
    from vllm.config import get_current_vllm_config
    from vllm.model_executor.custom_op import PluggableLayer, op_registry_oot
    from vllm.model_executor.layers.logits_processor import LogitsProcessor

    if "LogitsProcessor" in op_registry_oot:
        raise DemurError(
            "another plugin in the place of vLLM's LogitsProcessor", "none beside demur", "leave out that one"
        )

    @PluggableLayer.register_oot(name="LogitsProcessor")
    class WatchedLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
        """The same layer; it keeps what it is given for whoever looks at it next."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            check_config(get_current_vllm_config())

        def forward(self, lm_head: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            _GIVEN[:] = [hidden_states]
            return super().forward(lm_head, hidden_states, *args, **kwargs)

    _KEPT.append(True)


def check_config(config: Any) -> None:
    """Raises, in one line, for an engine in which a guard would not see every row, or not know whose it is."""
    parallel, scheduler = config.parallel_config, config.scheduler_config
    for said, when, then in (
        ("speculative decoding", config.speculative_config is not None, "start without speculative_config"),
        ("tensor parallelism", parallel.tensor_parallel_size > 1, "start with tensor_parallel_size 1"),
        ("pipeline parallelism", parallel.pipeline_parallel_size > 1, "start with pipeline_parallel_size 1"),
        ("data parallelism", parallel.data_parallel_size > 1, "start one server for each copy"),
        ("adapters (LoRA), which are other weights", config.lora_config is not None, "start without enable_lora"),
        ("batch-sharded sampling", bool(parallel.enable_batch_sharded_sampling), "start without it"),
        (
            "asynchronous scheduling in the V1 model runner, which hides the tokens",
            bool(scheduler.async_scheduling)
            and not is_v2(config)
            and not getattr(config.model_config, "logits_processors", None),
            f"add --logits-processors {ASKS}, or start with --no-async-scheduling",
        ),
    ):
        if when:
            raise DemurError(f"a guard under {said}", "an engine in which it sees every token", then)


ASKS = "demur.engines.vllm.processor:ShowsTokens"
"""What makes the V1 model runner fill in the tokens that it has sampled, under asynchronous scheduling."""


def is_v2(config: Any) -> bool:
    """Whether the engine runs the V2 model runner."""
    return bool(getattr(config, "use_v2_model_runner", False))
