"""Loading: the one door to a model. Nothing here runs remote code or reads a pickle.

The file is long because it is one way from a name to a model, read from top to bottom.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from demur.extras import need
from demur.kinds import fits
from demur.models import checkpoint, gguf, in_memory, merging, placed
from demur.models.bidirectional import Bidirectional, rotate_in_fp32
from demur.models.causal import Causal
from demur.models.chat import Chat
from demur.models.computed import computed_by
from demur.models.families import Family, family_of, own_class
from demur.models.filed import as_filed, check_steady, say_sizes, say_templates
from demur.models.four_bits import as_made
from demur.models.hooks import import_compiler
from demur.models.llada2 import checkpoint_tensors, logits_in, native_net
from demur.models.locate import cache_dir, locate, own_code, pinned, plain_errors
from demur.models.memory import keep_freed_memory
from demur.models.network import check_batching, check_head, odd_ends, unheeded
from demur.models.renoising import Renoising
from demur.models.unchanged import remember
from demur.models.unread import other_type, unread
from demur.models.weights import check_finite, fingerprint, say_zeros
from demur.types import DemurError, DemurWarning, Identity, Kind, Model, Need

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPES |= {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(
    name: Any,
    *,
    tokenizer: Any = None,
    dtype: str | torch.dtype = "auto",
    device: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    revision: str | None = None,
    system: str | None = None,
    block_length: int | None = None,
    quantize: str | None = None,
    template_args: Mapping[str, Any] | None = None,
) -> Model:
    """A model by built-in name (``smollm2``), local folder, ``.gguf`` file or hub id; or a model of transformers that
    is in memory already, with its ``tokenizer``: it is used as it is, in its own dtype and on its own device, and not
    copied. (With a name, ``tokenizer`` is used instead of the one beside the weights.)

    ``dtype``: ``auto`` is bf16 on cuda and mps and fp32 on a CPU; else float32, bfloat16 or float16. ``device``: cpu,
    cuda, mps (default: the best there is). ``device_map``: as in transformers, for several devices (needs accelerate).
    ``system``: a system prompt for every prompt that brings none. ``block_length``: of a block-diffusion model that was
    trained with another one than its family's. ``quantize``: ``4bit`` (NF4) by bitsandbytes while loading;
    it is part of the dtype in a spec, since it changes every state. (A .gguf file is dequantised to ``dtype``.)
    ``template_args``: arguments of the chat template, such as ``{"enable_thinking": False}``; they are in the spec.

    Raises :class:`DemurError` for a missing, gated, truncated or unknown model, and for weights that are not finite.
    Without a network a hub id is looked for in the local cache at once, where transformers alone retries for half a
    minute.
    """
    tokenizer = in_memory.check_tokenizer(tokenizer)
    check_steady(tokenizer)
    _check_settings(revision, system, block_length, template_args)
    given = None
    if not isinstance(name, str | Path):
        given = in_memory.unwrapped(name)
        _check_alone(dtype, device, device_map, revision, quantize)
        dtype, device = given.dtype, str(given.device)
        quantize = "4bit" if getattr(given, "is_loaded_in_4bit", False) else None
        revision = getattr(given.config, "_commit_hash", None)
        name = getattr(given.config, "name_or_path", "") or type(given).__name__
    device = device_of(device)
    kind = dtype_of(dtype, device)
    where, revision_of = (Path(), revision) if given is not None else locate(str(name), revision)
    import_compiler()
    with plain_errors(str(name)):
        header = None
        if given is None and isinstance(where, Path) and where.suffix.lower() == ".gguf":
            need("gguf", "smollm2", "which reads .gguf files")
            header = gguf.opened(where)
            where, revision_of = gguf.described(header, cache_dir()), header.digest[:12]
            for line in gguf.odd_text(header):
                warnings.warn(f"{name}: {line}", DemurWarning, stacklevel=2)
        model = _load(
            str(name), where, revision_of, kind, device, device_map, system, block_length, quantize,
            template_args, source=given if given is not None else header, tokenizer=tokenizer,
        )  # fmt: skip
    remember(model)
    if model.device.type == "cpu":  # not before: what loading a first model freed goes back to the system
        keep_freed_memory()
    return model


def _check_settings(revision: Any, system: Any, block_length: Any, template_args: Any) -> None:
    """Raises for settings of loading that are of another type than theirs."""
    for called, value in (("revision", revision), ("system", system)):
        if value is not None and not isinstance(value, str):
            raise DemurError(
                f"{called} of the type {type(value).__name__}", "a text", "leave it out, or write it as one"
            )
    if block_length is not None and not (fits(block_length, int) and block_length >= 1):
        raise DemurError(f"block_length={block_length!r:.40}", "a whole number of at least 1", "leave it out")
    if template_args is not None and not isinstance(template_args, Mapping):
        raise DemurError(
            f"template_args of the type {type(template_args).__name__}",
            "a mapping of names and values",
            "for example: template_args={'enable_thinking': False}",
        )


def _check_block_length(name: str, family: Family, block_length: int | None) -> None:
    """Raises for a length of blocks where the model writes in none."""
    if block_length is not None and family.adapter is None and family.kind in (Kind.CAUSAL, Kind.RENOISING):
        raise DemurError(
            f"block_length={block_length} for {name}, a {family.kind} model",
            "a diffusion model for this",
            "leave it out",
        )


def _load(
    name: str,
    where: str | Path,
    revision: str | None,
    dtype: torch.dtype,
    device: str,
    device_map: str | Mapping[str, Any] | None,
    system: str | None,
    block_length: int | None,
    quantize: str | None,
    template_args: Mapping[str, Any] | None,
    source: Any = None,
    tokenizer: Any = None,
) -> Model:
    """``source``: a GGUF file's header or a model in memory, where the weights come from these."""
    hub = {} if isinstance(where, Path) else pinned(where, revision)
    own = tokenizer is not None  # the user's
    if source is not None and not isinstance(source, gguf.Header):
        raw = source.config.to_dict()
        family = family_of(raw, name)
        net = in_memory.native(source, family, raw)
    else:
        raw, family, tokenizer, net = _read(name, where, hub, dtype, device, device_map, quantize, source, tokenizer)
    _check_block_length(name, family, block_length)
    net.eval()
    as_made(net)
    quantize = "4bit" if getattr(net, "is_loaded_in_4bit", False) else quantize  # the checkpoint may lie in 4 bits
    if Need.MASK in family.offers:
        net.config.use_cache = False  # a pass over a whole canvas has nothing to keep
    if raw.get("rope_full_precision", family.rope_in_fp32) and dtype != torch.float32:
        rotate_in_fp32(net)
    if family.logits and not family.read_by_us:
        logits_in(net, torch.float64 if family.logits == "float64" else torch.float32)
    check_finite(net, name)
    say_zeros(net, name, len(tokenizer) if tokenizer is not None else None)
    say_sizes(name, tokenizer, net)
    if (
        Need.LOGITS in family.offers
    ):  # a renoising model's trunk is an encoder and a decoder; its adapter calls them itself
        check_head(net)
    chat = Chat(tokenizer, system, dict(template_args or {}))
    if source is None and not own:
        say_templates(name, chat.template, where, hub)
    identity = Identity(
        model=name,
        revision=hub.get("revision") or revision or "",
        weights=fingerprint(net),
        dtype=str(dtype).removeprefix("torch.") + (f", {quantize}" if quantize else ""),
        computed=computed_by(net),
        **chat.described(),
    )
    ends = odd_ends(net, tokenizer, family.offers, filed=not isinstance(source, gguf.Header))
    for note in ends:
        warnings.warn(f"{name}: {note}", DemurWarning, stacklevel=3)
    common: dict[str, Any] = {"net": net, "tokenizer": tokenizer, "identity": identity, "notes": ends}
    common |= {"system": system, "template_args": chat.template_args, "response": raw.get("response_length")}
    if family.adapter is not None:
        return family.adapter(raw=raw | ({"block_size": block_length} if block_length else {}), **common)
    if family.kind is Kind.CAUSAL:
        more = (*unheeded(net), *own_class(raw), *other_type(raw), *unread(raw, net))
        for note in more:
            warnings.warn(f"{name}: {note}", DemurWarning, stacklevel=3)
        causal = Causal(**common | {"notes": (*more, *ends)})
        check_batching(causal)
        return causal
    if family.kind is Kind.RENOISING:
        return Renoising(**common)
    return Bidirectional(
        **common,
        mask_id=_mask_id(name, family, raw, net, tokenizer),
        shift=family.shift,
        block_length=block_length or raw.get("block_size") or family.block_length,
        partition=family.partition,
        preferred=(block_length and family.sampler_of_blocks) or family.sampler_of(name),
    )


def _check_alone(*settings: Any) -> None:
    """Raise for settings of loading that came with a model in memory, which would have to be changed for them."""
    if settings != ("auto", None, None, None, None):
        raise DemurError(
            "dtype, device, device_map, revision or quantize with a model that is in memory",
            "the model as it is to be used",
            "leave them out, and load or move the model yourself",
        )


def _read(
    name: str,
    where: str | Path,
    hub: Mapping[str, Any],
    dtype: torch.dtype,
    device: str,
    device_map: str | Mapping[str, Any] | None,
    quantize: str | None,
    header: gguf.Header | None,
    tokenizer: Any,
) -> tuple[dict[str, Any], Family, Any, Any]:
    """The raw ``config.json``, family, tokenizer and net of a folder, hub repository or GGUF file. Whatever can be said
    without the weights is said before they are read.
    """
    from transformers import AutoConfig, PreTrainedConfig

    if isinstance(where, Path):
        checkpoint.check_pointers(name, where)
    checkpoint.check_beside(name, where)
    adapter = merging.adapter_at(name, where, hub) if header is None else None
    at, of = where, hub
    if adapter is not None and checkpoint.optional_file(where, hub, "config.json") is None:
        at, revision = locate(str(adapter["base_model_name_or_path"]), adapter.get("revision"))
        of = {} if isinstance(at, Path) else pinned(at, revision)
    raw, _ = PreTrainedConfig.get_config_dict(at, **of)
    if not raw:
        raise checkpoint.nothing_to_load(name, at)
    family = family_of(raw, name)
    _check_kernels(raw, name)
    if tokenizer is None:
        own = checkpoint.optional_file(where, hub, "tokenizer_config.json") is not None
        tokenizer = _tokenizer(name, family, *((where, hub) if own else (at, of)), ours=header is not None)
    if (quantize or device_map) and (adapter is not None or header is not None):
        asked = f"quantize={quantize!r} (--dtype {quantize})" if quantize else f"device_map={str(device_map)[:40]!r}"
        then = "or save the merged model once (peft: merge_and_unload, then save_pretrained) and load that with it"
        raise DemurError(
            f"{name}, {'an adapter' if adapter is not None else 'a GGUF file'}, with {asked}",
            "safetensors files of a whole model for this",
            f"leave it out, {then}" if adapter is not None else "leave it out",
        )
    if adapter is not None:
        merging.check_base(name, str(adapter["base_model_name_or_path"]), raw)
    extra = dict(of)
    if quantize is not None:
        extra["quantization_config"] = _quantization(quantize, family, dtype)
        device_map = device_map or device
    if header is not None:
        with quiet():
            net = gguf.native_net(header, AutoConfig.from_pretrained(at, **checkpoint.NO_CODE), dtype, tokenizer)
    elif family.read_by_us:
        stored = checkpoint.tensors_of(name, at, of, raw)
        placed.check_quantised(name, at, of, raw, stored, converted=True)
        net = native_net(raw, checkpoint_tensors(at, of), dtype)
        placed.check_own_head(name, stored, net)
    else:
        net = _native(name, at, family, raw, dtype, extra, device_map)
    if adapter is not None:
        net = merging.merged(name, net, where, hub)
    _check_placed(net, name, device_map)
    return raw, family, tokenizer, net if device_map is not None else net.to(device)


def _check_placed(net: Any, name: str, device_map: Any) -> None:
    """Raise if weights were offloaded: they are then on no device, and nothing can be checked or hashed."""
    away = sum(weight.device.type == "meta" for weight in net.parameters())
    if away:
        raise DemurError(
            f"{name}: device_map={str(device_map)[:40]} leaves {away} tensors on the disk or offloaded",
            "every weight on the device that computes with it",
            "take a smaller model, quantize='4bit' (--dtype 4bit), or more devices",
        )


def _check_kernels(raw: Mapping[str, Any], name: str) -> None:
    """Raise for a configuration that names code on the hub as its attention or experts."""
    for key, value in raw.items():
        if key.endswith("_implementation") and "/" in str(value):
            raise own_code(name, f"the kernel {value}")


def _native(
    name: str,
    where: str | Path,
    family: Family,
    raw: Mapping[str, Any],
    dtype: torch.dtype,
    options: Mapping[str, Any],
    device_map: str | Mapping[str, Any] | None,
) -> Any:
    """A native class with a checkpoint's weights, read shard by shard; every tensor must have its place."""
    import transformers

    hub = {key: value for key, value in options.items() if key != "quantization_config"}
    stored = checkpoint.tensors_of(name, where, hub, raw)
    placed.check_names(name, stored)
    if tied := bool(raw.get("tie_word_embeddings") or raw.get("weight_tying")):
        placed.check_tied_head(name, stored, raw)
    placed.check_quantised(name, where, hub, raw, stored, family.renamed)
    extra = dict(options) | checkpoint.NO_CODE
    if family.config is not None:
        extra |= {"config": family.config(raw), "key_mapping": dict(family.keys)}
    if device_map is not None:
        extra["device_map"] = device_map
    with quiet():
        net, report = getattr(transformers, family.net).from_pretrained(
            where,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            **extra,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise DemurError(
            f"{name}: {len(missing)} tensors are missing ({missing[0]} ...)",
            f"a checkpoint that holds every weight that config.json describes ({type(net).__name__})",
            "download or convert it again",
        )
    if report["mismatched_keys"]:
        key, has, wanted = sorted(report["mismatched_keys"], key=str)[0]
        raise DemurError(
            f"{name}: {len(report['mismatched_keys'])} tensors are of another shape than config.json says "
            f"({key} is {tuple(has)}, not {tuple(wanted)})",
            "a config.json and weights of one model",
            "correct config.json (vocab_size, if tokens were added), or save the model again",
        )
    placed.check_left_over(name, report["unexpected_keys"], stored, raw, net)
    placed.check_names_once(name, stored, family.keys, net)
    placed.say_other_rotation(name, stored, net)
    if tied:
        placed.check_own_head(name, stored, net)
    return net


def _quantization(quantize: str, family: Family, dtype: torch.dtype) -> Any:
    """What transformers takes. Raises for anything but 4bit, for LLaDA2 (read by ourselves), without bitsandbytes."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if quantize == "8bit":
        raise DemurError(
            "8-bit weights (LLM.int8)",
            "4bit: LLM.int8 picks outlier columns for a whole batch, so that a row depends on its neighbours",
            "use quantize='4bit'",
        )
    if quantize != "4bit":
        raise DemurError(f"quantize {quantize!r}", "4bit", "leave it out for whole weights")
    if family.read_by_us:
        raise DemurError(
            f"a quantised {family.name}", "a family that transformers loads by itself", "use device_map instead"
        )
    if find_spec("bitsandbytes") is None or find_spec("accelerate") is None:
        raise DemurError("bitsandbytes or accelerate is missing", "both", "run: pip install 'demur[quantized]'")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _mask_id(name: str, family: Family, raw: Mapping[str, Any], net: Any, tokenizer: Any) -> int:
    """The mask token: of config.json, else of the tokenizer, else the family's own. Raises if there is none."""
    mask_id = raw.get("mask_token_id")
    if mask_id is None:  # not there, or null
        mask_id = getattr(tokenizer, "mask_token_id", None)
    if mask_id is None and isinstance(family.mask, str) and tokenizer is not None:
        mask_id = tokenizer.convert_tokens_to_ids(family.mask)
    if mask_id is None and isinstance(family.mask, int):
        mask_id = family.mask
    if mask_id is None:
        raise DemurError(f"{name} names no mask token", "mask_token_id in config.json", "add it to the configuration")
    if not 0 <= int(mask_id) < net.get_input_embeddings().num_embeddings:
        raise DemurError(
            f"{name}: mask_token_id is {mask_id}",
            f"a token id below {net.get_input_embeddings().num_embeddings}, the size of the vocabulary",
            "check config.json",
        )
    return int(mask_id)


def _tokenizer(name: str, family: Family, where: str | Path, hub: Mapping[str, Any], ours: bool) -> Any:
    """The tokenizer beside the weights, or None where the folder holds none (token-only models)."""
    import transformers

    if isinstance(where, Path) and not any(where.glob("*token*")) and not (where / "vocab.json").exists():
        if (where / "tekken.json").exists():
            raise DemurError(
                f"{where.name} holds its tokenizer as tekken.json only, which is the maker's own format",
                "tokenizer.json, as transformers writes it",
                "download that file too, or give another tokenizer (demur.load(..., tokenizer=...) in Python)",
            )
        return None
    found = getattr(transformers, family.tokenizer).from_pretrained(where, **hub, **checkpoint.NO_CODE)
    return as_filed(name, found, where, hub, ours)


def best_device() -> str:
    """``cuda``, else ``mps``, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def device_of(device: str | None) -> str:
    """The device asked for, or the best there is. Raises if this machine or this torch has none of the kind."""
    if device is None:
        return best_device()
    if str(device).partition(":")[0] == "meta":
        raise DemurError(
            f"device {str(device)!r}, on which no weights are", "cpu, cuda or mps, as is here", "leave it out"
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise DemurError(
            f"device {device!r} ({' '.join(str(error).split())[:80]})", "cpu, cuda or mps, as is here", "leave it out"
        ) from error
    return device


def dtype_of(dtype: str | torch.dtype, device: str) -> torch.dtype:
    """A dtype by its name; ``auto`` is fp32 on a CPU and bf16 elsewhere. Raises for an unknown name."""
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    if dtype == "auto":
        return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise DemurError(f"dtype {dtype!r}", "auto, float32, bfloat16 or float16", "name one of these")
    return DTYPES[dtype]


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of transformers while it loads: errors are ours to tell."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
