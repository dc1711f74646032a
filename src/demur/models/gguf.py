"""GGUF files: the header is read whole, the weights go tensor by tensor into a native class.

transformers translates names and permutations; what its translation leaves out is set or refused here: scaled
rotary embeddings, factors by dimension, scales and caps, tokens that end a turn, files in several parts. A tensor that
is missing or left over is an error. Facts of the format: llama.cpp's ``gguf-py`` and its loader (``llama-model.cpp``).
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import re
import shutil
import struct
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from demur.models.checkpoint import NO_CODE
from demur.types import DemurError

_FORMAT = 2
"""Counts what :func:`described` writes. Format 1 kept all weights in fp32, also of files that lacked some."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: ``kind`` is ggml's number of its type, ``shape`` is in torch's order."""

    file: Path
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself; of one in several parts, all parts together. Lists of strings are left out."""

    files: tuple[Path, ...]
    fields: Mapping[str, Any]
    tensors: Mapping[str, Place]
    digest: str

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.fields.get("general.architecture", ""))

    def says(self, key: str, default: Any = None) -> Any:
        """The value of a key of the architecture."""
        return self.fields.get(f"{self.architecture}.{key}", default)


# -- reading ------------------------------------------------------------------------------------------------

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf\Z", re.IGNORECASE)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9


def opened(path: Path) -> Header:
    """The header of a file, and of the parts beside it. Raises for one that is cut off, no model, or lacks parts."""
    fields, tensors = _header_of(path)
    files = [path]
    count = int(fields.get("split.count", 1) or 1)
    if count > 1:
        files = _parts(path, count, int(fields.get("split.no", 0)))
        for part in files[1:]:
            tensors |= _header_of(part)[1]
        expected = fields.get("split.tensors.count")
        if expected is not None and int(expected) != len(tensors):
            raise DemurError(
                f"the {count} parts of {path.name} hold {len(tensors)} tensors", str(expected), "download them again"
            )
    kind = fields.get("general.type", "model")
    if kind != "model" or fields.get("general.architecture") == "clip":
        raise DemurError(f"{path.name} is no model by itself ({kind})", "a language model", "name the model's own file")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            while block := data.read(2**20):
                digest.update(block)
    return Header(tuple(files), fields, tensors, digest.hexdigest())


def _parts(path: Path, count: int, number: int) -> list[Path]:
    name = _PART.match(path.name)
    if number != 0 or name is None:
        raise DemurError(
            f"{path.name} is part {number + 1} of {count} of a model",
            "the first part, named ...-00001-of-0000N.gguf, with the others beside it",
            "name the first part",
        )
    files = [path.with_name(f"{name[1]}-{i + 1:05d}-of-{count:05d}{path.suffix}") for i in range(count)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise DemurError(
            f"{path.name} is one of {count} parts, and {missing[0]} is not beside it",
            f"all {count}",
            "download the others, or merge them: llama-gguf-split --merge",
        )
    return files


def _header_of(path: Path) -> tuple[dict[str, Any], dict[str, Place]]:
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise DemurError(f"{path.name} is no GGUF file", "a file that starts with the bytes GGUF", "check the file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                fields, tensors = _parsed(path, data)
            except (struct.error, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as error:
                raise DemurError(
                    f"{path.name} could not be loaded: it is cut off or damaged in its header",
                    "a whole GGUF file",
                    "download it again",
                ) from error
    size = path.stat().st_size
    for name, place in tensors.items():
        if place.start + place.size > size:
            raise DemurError(
                f"{path.name} is cut off: tensor {name} would end at byte {place.start + place.size} of {size}",
                "a whole GGUF file",
                "download it again",
            )
    return fields, tensors


def _parsed(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], dict[str, Place]]:
    from gguf import GGML_QUANT_SIZES

    at = 4

    def take(form: str) -> Any:
        nonlocal at
        values = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return values[0] if len(values) == 1 else values

    def text() -> str:
        nonlocal at
        length = take("Q")
        if length > len(data) - at:
            raise struct.error("a string longer than the file")
        value = data[at : at + length]
        at += length
        return value.decode()

    def value(kind: int) -> Any:
        nonlocal at
        if kind in _SCALARS:
            return take(_SCALARS[kind])
        if kind == _STRING:
            return text()
        if kind != _LIST:
            raise struct.error(f"a value of type {kind}")
        inner, count = take("I"), take("Q")
        if inner in _SCALARS:
            values = struct.unpack_from(f"<{count}{_SCALARS[inner]}", data, at)
            at += struct.calcsize(f"<{count}{_SCALARS[inner]}")
            return list(values)
        if inner != _STRING:
            return [value(inner) for _ in range(count)]
        for _ in range(count):  # a vocabulary: the tokenizer's own reader takes it
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        return count

    version, tensor_count, field_count = take("I"), take("Q"), take("Q")
    if version not in (2, 3):
        raise DemurError(f"{path.name} is GGUF version {version}", "2 or 3, little-endian", "convert the model again")
    fields: dict[str, Any] = {}
    for _ in range(field_count):
        key = text()
        fields[key] = value(take("I"))
    places = []
    for _ in range(tensor_count):
        name, dims = text(), take("I")
        shape = struct.unpack_from(f"<{dims}Q", data, at)
        at += 8 * dims
        kind, offset = take("I"), take("Q")
        if kind not in GGML_QUANT_SIZES:
            raise DemurError(
                f"{path.name}: tensor {name} is of ggml's type {kind}",
                "a type that the package gguf knows",
                "pip install -U gguf, or take another file of the model",
            )
        block, size = GGML_QUANT_SIZES[kind]
        places.append((name, tuple(reversed(shape)), kind, offset, math.prod(shape) // block * size))
    step = int(fields.get("general.alignment", 32))
    start = -(-at // step) * step
    return fields, {n: Place(path, shape, kind, start + offset, size) for n, shape, kind, offset, size in places}


# -- what the header says -----------------------------------------------------------------------------------

_SHAPE = {
    "context_length": ("max_position_embeddings",),
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "feed_forward_length": ("intermediate_size",),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps", "layer_norm_eps"),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size",),
}
"""Keys that are an attribute of the configuration: the first one of these that it has is set to the file's value."""

_ELSEWHERE = (
    "rope.freq_base", "rope.freq_base_swa", "rope.dimension_count",
    "attention.value_length", "attention.sliding_window", "attention.causal",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scale_linear",
    "rope.scaling.finetuned",  # tells of the training, not of the computation
    "tensor_data_layout",  # of the file that was converted
    "use_parallel_residual",  # transformers reads it off the tensors
    "nextn_predict_layers",  # layers for speculative decoding, which are not taken
)  # fmt: skip
"""Keys that are read below, and those that change no result."""

_OWN = {
    "lfm2": ("shortconv.l_cache",),
    "qwen35": ("ssm.", "rope.dimension_sections", "full_attention_interval"),
    "qwen35moe": ("ssm.", "rope.dimension_sections", "full_attention_interval"),
    "gpt-oss": ("expert_gating_func",),
    "minimax-m2": ("expert_gating_func",),
}
"""Keys that transformers' translation of an architecture reads; a name with a dot at its end is a beginning."""

_NOTHING = (0, 0.0, False, "", None)
_PARTIAL = ("stablelm", "phi3", "nemotron", "minimax-m2")
"""Architectures whose native class may rotate a part of each head."""
_GEMMA_27B = {"gemma2": 46, "gemma3": 62}
"""The query is scaled by the size of a head; but of these models, by their number of blocks, by hidden size / heads."""


def _refused(header: Header, what: str, expected: str = "") -> DemurError:
    return DemurError(
        f"{header.files[0].name}: {what}",
        expected or f"what the native class of {header.architecture!r} computes",
        "take the model's safetensors files instead",
    )


def configured(header: Header, config: Any) -> Any:
    """transformers' configuration of the file, corrected by what the header says. Raises for what has no place."""
    arch = header.architecture
    _check_keys(header)
    found = config.to_dict()
    new = _numbers(header, config) | _window(header, config)
    head = header.says("attention.key_length") or found.get("head_dim")
    if header.says("attention.value_length", head) != head and arch not in _OWN:
        raise _refused(header, f"keys of {head} and values of {header.says('attention.value_length')}", "equal ones")
    if arch in _GEMMA_27B:
        whole = header.says("block_count") == _GEMMA_27B[arch]
        new["query_pre_attn_scalar"] = new["hidden_size"] // new["num_attention_heads"] if whole else head
    if arch == "llama" and "blk.0.attn_q.bias" in header.tensors:
        new["attention_bias"] = True
    new["tie_word_embeddings"] = "output.weight" not in header.tensors or found.get("tie_word_embeddings", False)
    if arch not in _OWN and (rotation := _rotation(header, config, found)) is not None:
        new["rope_parameters"] = rotation
    return type(config).from_dict(found | new)


def _check_keys(header: Header) -> None:
    """Raise for a key of the architecture that nothing here or in transformers' translation reads."""
    own = _OWN.get(header.architecture, ())
    for key, value in header.fields.items():
        name = key.removeprefix(f"{header.architecture}.")
        if name == key or name in _SHAPE or name in _ELSEWHERE or any(name.startswith(mine) for mine in own):
            continue
        if value in _NOTHING or (name.endswith("scale") and value == 1):
            continue
        raise _refused(header, f"{key}={str(value)[:40]} changes results and is not known")
    if header.says("attention.causal", True) is False:
        raise _refused(header, "attention.causal is false", "a causal model")


def _numbers(header: Header, config: Any) -> dict[str, Any]:
    """Sizes, numbers of heads and the like, under the names that the configuration has for them."""
    new: dict[str, Any] = {}
    for key, names in _SHAPE.items():
        value = header.says(key)
        if isinstance(value, list):
            value = value[0] if len(set(value)) == 1 else None  # by layer: lfm2's own translation takes them
        if not value:
            continue
        name = next((name for name in names if hasattr(config, name)), None)
        if name is not None:
            new[name] = value
        elif key not in ("context_length", "vocab_size"):
            raise _refused(header, f"{header.architecture}.{key}={value} has no place in {type(config).__name__}")
    return new


def _window(header: Header, config: Any) -> dict[str, Any]:
    """The sliding window: set where the class has one that is on, let be where it covers the context, else refused."""
    width = header.says("attention.sliding_window")
    if not width or width >= header.says("context_length", 0):
        return {}
    if getattr(config, "sliding_window", None) is None and config.model_type not in ("mistral", "phi3", "starcoder2"):
        raise _refused(header, f"a sliding window of {width} has no place in {type(config).__name__}")
    return {"sliding_window": width}


def _rotation(header: Header, config: Any, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters of the rotary embedding. Raises for factors by length (LongRoPE) and a part of each head."""
    old = getattr(config, "rope_parameters", None)
    scaling = _scaling(header)
    if old is None:
        if scaling or "rope_freqs.weight" in header.tensors:
            raise _refused(header, "scaled rotary positions for a class without them")
        return None
    if any(name.startswith("rope_factors_") for name in header.tensors):
        raise _refused(header, "rotary factors for short and long texts (LongRoPE)")
    by_kind = isinstance(old.get("full_attention"), Mapping)  # Gemma 3: sliding layers have their own, unscaled
    of = dict(old["full_attention"] if by_kind else old)
    base = header.says("rope.freq_base")
    if base is not None:
        of["rope_theta"] = base
    heads = header.says("attention.head_count")
    size = header.says("attention.key_length") or (
        header.says("embedding_length") // heads if isinstance(heads, int) else found.get("head_dim")
    )
    turned = header.says("rope.dimension_count", size)
    if turned != size:
        if header.architecture not in _PARTIAL:
            raise _refused(header, f"{turned} of {size} dimensions of a head are rotated", "all of them")
        of["partial_rotary_factor"] = turned / size
    of |= scaling or {"rope_type": "default"}
    local = header.says("rope.freq_base_swa")  # of the layers with a sliding window
    if not by_kind:
        if local not in (None, of.get("rope_theta")):
            raise _refused(header, f"rope.freq_base_swa={local:g} beside {of.get('rope_theta'):g}", "one base")
        return of
    sliding = dict(old.get("sliding_attention") or {}) | ({} if local is None else {"rope_theta": local})
    return dict(old) | {"full_attention": of} | ({"sliding_attention": sliding} if sliding else {})


def _scaling(header: Header) -> dict[str, Any]:
    """Scaled rotary positions in transformers' words; empty where there are none."""
    kind = str(header.says("rope.scaling.type", "linear"))
    factor = float(header.says("rope.scaling.factor", header.says("rope.scale_linear", 0.0)) or 1.0)
    stretched = float(header.says("rope.scaling.attn_factor", 1.0) or 1.0)
    if kind == "none" or (factor == 1.0 and stretched == 1.0):
        return {}
    if kind == "linear" and stretched == 1.0:
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn":
        raise _refused(header, f"rope.scaling.type={kind!r} with attn_factor={stretched:g}", "linear or yarn")
    found: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    found["original_max_position_embeddings"] = int(
        header.says("rope.scaling.original_context_length") or header.says("context_length")
    )
    if stretched != 1.0:
        found["attention_factor"] = stretched * (1.0 + 0.1 * math.log(factor))
    for key, name in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        value = header.says(f"rope.scaling.{key}")
        if value is not None:
            found[name] = value
    return found


_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
    "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip
"""Control tokens that end a generation by their text, as in llama.cpp (``llama-vocab.cpp``): many files name but one
token, of the sequence or of the turn."""


def stops(header: Header, tokenizer: Any = None) -> list[int]:
    """The tokens that end an answer: of the sequence, of the turn, of the message; and control tokens of the
    ``tokenizer`` that say so.
    """
    found = {header.fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    ends = {str(token.content): i for i, token in added.items() if token.special and str(token.content) in _ENDS}
    if "<|return|>" in ends and "<|call|>" in ends:  # gpt-oss: it closes a channel, and the answer goes on
        ends.pop("<|end|>", None)
    return sorted(int(i) for i in {*found, *ends.values()} if i is not None and 0 <= int(i) < 2**31)


# -- the folder that stands for the file --------------------------------------------------------------------

_BY_GPT2 = ("default", "gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "jina-v1-en", "jina-v2-code", "roberta-bpe")
_BY_DIGIT = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""``tokenizer.ggml.pre``: how text is split before merges. The second kind splits off every digit first."""


def described(header: Header, cache: Path) -> Path:
    """A folder with the file's configuration and tokenizer, without weights; made once, in ``cache``."""
    name = f"{header.files[0].stem}-{header.digest[:12]}"
    folder = cache / "gguf" / f"{name}.{_FORMAT}"
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    alone = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        where = _alone(header.files[0], alone)
        _config(header, where).save_pretrained(scratch)
        _tokenizer(header, where).save_pretrained(scratch)
        try:
            scratch.rename(folder)
        except OSError:  # another process was faster
            if not (folder / "config.json").exists():
                raise
        shutil.rmtree(cache / "gguf" / name, ignore_errors=True)  # what version 0.1.0 kept: all weights in fp32
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(alone, ignore_errors=True)
    return folder


def _alone(file: Path, folder: Path) -> Path:
    """The file in a folder of its own, since transformers reads other files beside it too."""
    try:
        os.symlink(file.resolve(), folder / "model.gguf")
    except OSError:  # a system without links
        return file
    return folder / "model.gguf"


def _config(header: Header, where: Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(where.parent, gguf_file=where.name, **NO_CODE)
    except (ValueError, KeyError) as error:
        raise _refused(
            header,
            f"the architecture {header.architecture!r}, as this file describes it, is not known to transformers "
            f"({' '.join(str(error).split())[:80]})",
            "one that transformers translates (llama, qwen2, qwen3, gemma2, gemma3, phi3 ...), with all its keys",
        ) from error
    return configured(header, config)


def _tokenizer(header: Header, where: Path) -> Any:
    """The file's tokenizer. Raises where its way to split text is not known."""
    from tokenizers import pre_tokenizers, processors
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(where.parent, gguf_file=where.name, **NO_CODE)
    except (AttributeError, TypeError) as error:
        if "tokenizer.ggml.bos_token_id" in header.fields:
            raise
        raise _refused(
            header,
            "it names no token for the beginning, and this version of transformers asks for one",
            "a newer transformers (5.23 reads such files)",
        ) from error
    splits = header.fields.get("tokenizer.ggml.pre", "default")
    if header.fields.get("tokenizer.ggml.model") == "gpt2":
        if splits in _BY_DIGIT:
            tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
        elif splits not in (*_BY_GPT2, *_known_splits()):
            raise _refused(header, f"its text is split as in {splits!r}", "a way to split text that is known")
    first = header.fields.get("tokenizer.ggml.bos_token_id")
    if (
        header.fields.get("tokenizer.ggml.add_bos_token")
        and first is not None
        and tokenizer("a")["input_ids"][0] != first
    ):
        name = tokenizer.convert_ids_to_tokens(first)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{name} $A", special_tokens=[(name, first)]
        )
    return tokenizer


def _known_splits() -> Sequence[str]:
    """What transformers splits by rule (since 5.23; before, it went by the architecture)."""
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:
        return ("llama-bpe", "llama3", "qwen2", "falcon", "bloom")
    return tuple(GGUF_PRE_TOKENIZER_SPLITS)


# -- weights ------------------------------------------------------------------------------------------------


def native_net(header: Header, config: Any, dtype: torch.dtype, tokenizer: Any = None) -> Any:
    """The native model with the file's weights, dequantised one tensor after the other; ``tokenizer`` tells which
    tokens end an answer by their text. Raises if a tensor is missing or left over.
    """
    from transformers import AutoModelForCausalLM

    config.name_or_path = header.files[0].name
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    if _translated_while_loading(header):
        net, report = _loaded_by_transformers(header, kind, config, dtype)
        left: list[str] = []
    else:
        with torch.device("meta"):
            empty = kind(config)
        state, left = _state(header, empty, config, dtype)
        net, report = kind.from_pretrained(
            None, config=config, state_dict=state, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    lost = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    left += sorted(report["unexpected_keys"])
    if lost or left:
        which = f"{len(lost)} tensors are missing or of another shape" if lost else f"{len(left)} tensors have no place"
        raise DemurError(
            f"{header.files[0].name}: {which} ({(lost or left)[0]} ...)",
            f"every weight of {type(net).__name__} as the header describes it, and no more",
            "download or convert the model again",
        )
    if "rope_freqs.weight" in header.tensors:
        _turn_by(net, torch.from_numpy(_dequantised(header.tensors["rope_freqs.weight"])))
    net.generation_config.eos_token_id = stops(header, tokenizer) or net.generation_config.eos_token_id
    return net


def _translated_while_loading(header: Header) -> bool:
    """Whether transformers translates the architecture while loading (since 5.23), and only so."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    return header.architecture not in (*GGUF_SUPPORTED_ARCHITECTURES, "qwen2moe", "qwen3moe", "gpt-oss", "minimax-m2")


def _loaded_by_transformers(header: Header, kind: Any, config: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import GgufConfig

    if len(header.files) > 1:
        raise _refused(header, "several parts of this architecture", "one file: llama-gguf-split --merge")
    file = header.files[0]
    return kind.from_pretrained(  # type: ignore[no-any-return]
        file.parent,
        config=config,
        gguf_file=file.name,
        dtype=dtype,
        quantization_config=GgufConfig(dequantize=True),  # whole weights: kernels for packed ones come from the hub
        output_loading_info=True,
    )


def _state(header: Header, net: Any, config: Any, dtype: torch.dtype) -> tuple[dict[str, Tensor], list[str]]:
    """The net's tensors by name, and the names of the file's tensors that found no place."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=config.to_dict())
    names = get_gguf_hf_weights_map(_Names(net), processor)
    parts = Counter(names.values())
    state: dict[str, Tensor] = {}
    left: list[str] = []
    gathered = {"tensors": state}
    for name, values in _all_dequantised(header):
        done = processor.process(weights=values, name=name, tensor_key_mapping=names, parsed_parameters=gathered)
        native = names.get(done.name) if done.name is not None else names.get(name.removesuffix(".weight"))
        if done.name is not None:
            if native is None:
                left += [] if _idle(header, name, values, state, names) else [name]
                continue
            state[native] = torch.from_numpy(np.ascontiguousarray(done.weights))
        elif native is not None:  # experts: one of the parts of a native tensor
            parts[native] -= 1
            if parts[native] > 0:
                continue
        if native in state and state[native].ndim > 1:  # norms and biases may stay in fp32: the loader casts them
            state[native] = state[native].to(dtype)
    return state, left


class _Names:
    """What transformers asks of a model to map names: its own and, once more without the prefix, its trunk's. Of the
    model itself it would ask every layer, and build all names again for each.
    """

    def __init__(self, net: Any, trunk: bool = True) -> None:
        self.config, self.net, self.trunk = net.config, net, trunk

    def state_dict(self) -> Mapping[str, Any]:
        """The names of the tensors."""
        return self.net.state_dict()  # type: ignore[no-any-return]

    def named_children(self) -> list[tuple[str, _Names]]:
        """The trunk."""
        prefix = self.net.base_model_prefix
        return (
            [(prefix, _Names(getattr(self.net, prefix), trunk=False))]
            if self.trunk and hasattr(self.net, prefix)
            else []
        )


def _idle(header: Header, name: str, values: Any, state: Mapping[str, Tensor], names: Mapping[str, str]) -> bool:
    """Whether a tensor changes no result: factors that are applied elsewhere, tables that are computed, blocks of
    speculative decoding, and a head that is the embedding once more.
    """
    if name == "rope_freqs.weight" or name.endswith((".attn_rot_embd", ".rotary_emb.inv_freq")):
        return True
    block = re.match(r"blk\.(\d+)\.", name)
    more = int(header.says("nextn_predict_layers", 0) or 0)
    if block and more and int(block[1]) >= int(header.says("block_count")) - more:
        return True
    embedding = state.get(names.get("token_embd.weight", ""))
    return (
        name == "output.weight"
        and embedding is not None
        and bool(torch.equal(torch.from_numpy(np.ascontiguousarray(values)).to(embedding.dtype), embedding))
    )


def _all_dequantised(header: Header) -> Iterator[tuple[str, Any]]:
    """Every tensor in fp32, in the file's order; a few are made ahead, by threads."""
    ahead: deque[tuple[str, Future[Any]]] = deque()
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for name, place in header.tensors.items():
            ahead.append((name, pool.submit(_dequantised, place)))
            if len(ahead) > workers:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()


_AT_ONCE = 2**22
"""Elements that are dequantised together, which bounds what the arithmetic needs beside its result."""


def _dequantised(place: Place) -> Any:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    kind = GGMLQuantizationType(place.kind)
    block, size = GGML_QUANT_SIZES[kind]
    stored = np.memmap(place.file, mode="r", dtype=np.uint8, offset=place.start, shape=(place.size,))
    blocks = stored.reshape(-1, size)
    values = np.empty((len(blocks), block), dtype=np.float32)
    step = max(1, _AT_ONCE // block)
    for start in range(0, len(blocks), step):
        # As one long row, since the package takes sixteen rows at a time in Python: a vocabulary has 150,000.
        row = dequantize(np.ascontiguousarray(blocks[start : start + step]).reshape(1, -1), kind)
        values[start : start + step] = row.reshape(-1, block)
    return values.reshape(place.shape)


def _turn_by(net: Any, factors: Tensor) -> None:
    """Divides the rotary embedding's frequencies by the file's factors (Llama 3.1), as llama.cpp does."""
    rotary = net.get_decoder().rotary_emb
    if rotary.inv_freq.shape != factors.shape:
        raise DemurError(
            f"{len(factors)} rotary factors for {len(rotary.inv_freq)} frequencies", "one for each", "convert it again"
        )
    for name in ("inv_freq", "original_inv_freq"):
        if hasattr(rotary, name):
            setattr(rotary, name, getattr(rotary, name) / factors.to(rotary.inv_freq.device))
