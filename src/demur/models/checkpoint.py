"""What a folder or hub repository really holds, looked at before it is loaded and compared with what was taken.

Only the headers of safetensors files are read here. Every refusal says what is wrong with the files, so that no broken
download is taken for a broken network, and no tensor is left out without a word.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demur.types import DemurError

NO_CODE = {"trust_remote_code": False}
"""Goes with every reader of transformers. Without it, a checkpoint that brings code has the user asked whether to run
it, on standard output; a ``y`` on standard input runs it.
"""
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint: its file, safetensors' name of its dtype, its shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


# -- files --------------------------------------------------------------------------------------------------


def check_pointers(name: str, folder: Path) -> None:
    """Raise for a folder in which Git LFS has left pointers instead of files, or a copy has left links to nothing."""
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not file.exists():
            raise DemurError(
                f"{name}: {file.name} is a link to a file that is not there",
                "the file itself",
                "copy the model again with what its links name (cp -L), or download it",
            )
        if file.is_file() and file.stat().st_size < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
            raise DemurError(
                f"{name}: {file.name} is a Git LFS pointer, not the file", "the file itself", "run: git lfs pull"
            )


def optional_file(where: str | Path, hub: Mapping[str, Any], file: str) -> Path | None:
    """A file of a folder or hub repository; None if it is not there."""
    if isinstance(where, Path):
        return where / file if (where / file).is_file() else None
    from transformers.utils import cached_file

    options = dict(hub) | {"_raise_exceptions_for_missing_entries": False}
    found = cached_file(where, file, **options)
    return Path(found) if found is not None else None


def read_json(path: Path, name: str) -> dict[str, Any]:
    """A JSON object. Raises, naming the file, for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DemurError(f"{name}: {path.name} is no JSON ({error})", "a whole file", "download it again") from error
    if not isinstance(value, dict):
        raise DemurError(f"{name}: {path.name} holds no JSON object", "one", "download it again")
    return value


def nothing_to_load(name: str, where: str | Path) -> DemurError:
    """Why a folder without ``config.json`` is no model: what lies there instead."""
    folder = where if isinstance(where, Path) else None
    there = sorted(file.name for file in folder.iterdir()) if folder and folder.is_dir() else []
    came = f"{name} holds no config.json"
    for form, expected, then in (
        (r".*\.gguf", "a folder of a transformers model, or the .gguf file itself", "name the file {0}"),
        (r"params\.json|consolidated.*", "transformers' files; these are the maker's own", "download those too"),
        (r"checkpoint-\d+|snapshots|hf", "a folder that holds the model itself", "name the folder {0} in it"),
    ):
        found = [file for file in there if re.fullmatch(form, file)]
        if found:
            return DemurError(came, expected, then.format(found[-1]))
    return DemurError(came, "a folder or hub id of a transformers model", "check the path")


def tensors_of(name: str, where: str | Path, hub: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Stored]:
    """Every tensor of the safetensors files that transformers will read. Raises, naming the file, for what is missing,
    cut off, a pointer, or does not agree with its index.
    """
    listed: Mapping[str, str] = {}
    single = optional_file(where, hub, str(raw.get("transformers_weights") or WHOLE))
    if single is not None:
        files = [single]
    else:
        index = optional_file(where, hub, INDEX)
        if index is None:
            raise _no_weights(name, where, hub)
        listed = _listed(name, read_json(index, name))
        files = _shards(name, where, hub, index, sorted(set(listed.values())))
    found: dict[str, Stored] = {}
    for file in files:
        part = _header(name, file)
        twice = sorted(part.keys() & found.keys())
        if twice:
            raise DemurError(
                f"{name}: {len(twice)} tensors are in two files "
                f"({twice[0]} in {found[twice[0]].file.name} and {file.name})",
                "every tensor once, since nobody can know which of the two the model was saved with",
                "download all files again, or save the model anew",
            )
        found |= part
    stale = sorted(key for key, file in listed.items() if key not in found or found[key].file.name != Path(file).name)
    stale = [key for key in stale if not (idle(key, raw) or (key.endswith("lm_head.weight") and key not in found))]
    if stale:
        raise DemurError(
            f"{name}: {len(stale)} tensors are missing: {INDEX} lists {stale[0]} in {listed[stale[0]]}, which lacks it",
            "an index and shards of one model",
            "download all of them again",
        )
    return found


def _listed(name: str, index: Mapping[str, Any]) -> dict[str, str]:
    """Which file holds which tensor, by an index. Raises for one of another form, and for files outside its folder."""
    listed = index.get("weight_map")
    if not listed:
        raise DemurError(f"{name}: {INDEX} lists no tensor", "a weight_map", "download it again")
    files = list(listed.values()) if isinstance(listed, Mapping) else [listed]
    for file in files:
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            came = f"{name}: {INDEX} names {str(file)[:40]!r} as a file of weights"
            raise DemurError(came, "names of safetensors files", "download or convert the model again")
        if file.startswith(("/", "\\")) or ".." in Path(file).parts or Path(file).is_absolute():
            raise DemurError(
                f"{name}: {INDEX} names {file[:80]!r}, which lies outside the model's folder",
                "weights that lie with the index",
                "put the file beside it, and its bare name into the index",
            )
    if not isinstance(index.get("metadata"), Mapping):  # transformers reads none without
        raise DemurError(f"{name}: {INDEX} has no metadata", 'a field "metadata": {}', "add it, or download it again")
    return dict(listed)


def _shards(name: str, where: str | Path, hub: Mapping[str, Any], index: Path, names: Sequence[str]) -> list[Path]:
    folder = index.parent
    if not isinstance(where, Path):
        from huggingface_hub import snapshot_download

        options = {key: value for key, value in hub.items() if key in ("revision", "local_files_only")}
        folder = Path(snapshot_download(where, allow_patterns=list(names), **options))
    lost = [shard for shard in names if not (folder / shard).is_file()]
    if lost:
        left = [file.name for file in sorted(folder.iterdir()) if file.name.startswith(lost[0])]
        raise DemurError(
            f"{name}: {len(lost)} of {len(names)} weight files are missing ({left[0] if left else lost[0]} ...)",
            f"every file that {INDEX} lists",
            "finish the download",
        )
    return [folder / shard for shard in names]


def _no_weights(name: str, where: str | Path, hub: Mapping[str, Any]) -> DemurError:
    """What lies there instead of safetensors under their usual names."""
    if isinstance(where, Path):
        there = sorted(file.name for file in where.iterdir())
    else:
        try:
            from huggingface_hub import list_repo_files

            there = [] if hub.get("local_files_only") else sorted(list_repo_files(where, revision=hub.get("revision")))
        except Exception:  # the hub's answer would only have made the line better
            there = []
    expected = f"{WHOLE}, or shards with {INDEX}"
    for form, came, then in (
        (r".*\.(incomplete|part|aria2|crdownload|tmp|download)", "is a download that was not finished", "finish it"),
        (r"(model|pytorch_model)-\d+-of-\d+\.safetensors", "is a shard without an index", f"download {INDEX} too"),
        (r"consolidated.*\.(safetensors|pth)", "is in the maker's own format", "download transformers' files too"),
        (
            r".*\.(bin|pt|pth|ckpt|pkl)",
            "is a pickle, which could run code and is not read",
            "convert it to safetensors",
        ),
        (r".*\.(gguf|GGUF)", "is a model by itself", "name that file instead of its folder"),
        (r"(flax|tf|rust)_model.*", "is for another framework", "take a PyTorch checkpoint in safetensors"),
        (
            r".*\.safetensors",
            "has another name than transformers looks for",
            f"rename it to {WHOLE} if it is the model",
        ),
    ):
        found = [file for file in there if re.fullmatch(form, Path(file).name)]
        if found:
            return DemurError(f"{name} holds no {WHOLE}: {found[0]} {came}", expected, then)
    offline = (
        "the cache of the hub holds" if not isinstance(where, Path) and hub.get("local_files_only") else "there are"
    )
    return DemurError(f"{name}: {offline} no weights", expected, "download the model again")


def _header(name: str, file: Path) -> dict[str, Stored]:
    """The tensors that a safetensors file lists. Raises, naming it, if it is none or is cut off."""
    size = file.stat().st_size
    with file.open("rb") as data:
        start = data.read(64)
        if start.startswith(b"version https://git-lfs"):
            raise DemurError(
                f"{name}: {file.name} is a Git LFS pointer, not the file", "the file itself", "run: git lfs pull"
            )
        broken = f"{name}: a safetensors file is broken: {file.name}"
        if len(start) < 8:
            raise DemurError(f"{broken} has {size} bytes", "a whole file", "download it again")
        (length,) = struct.unpack("<Q", start[:8])
        if length > size - 8:
            raise DemurError(
                f"{broken} says that its header is longer than the file", "a whole file", "download or convert it again"
            )
        data.seek(8)
        try:
            header = json.loads(data.read(length))
            header.pop("__metadata__", None)
            found = {key: Stored(file, str(t["dtype"]), tuple(t["shape"])) for key, t in header.items()}
            end = 8 + length + max((int(t["data_offsets"][1]) for t in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DemurError(
                f"{broken} has a header that can't be read", "a whole file", "download it again"
            ) from error
    if end > size:
        raise DemurError(f"{broken} is cut off at byte {size} of {end}", "a whole file", "download it again")
    return found


# -- what may be left over ----------------------------------------------------------------------------------

IDLE: tuple[tuple[str, str], ...] = (
    (
        r"(^|\.)(rotary_emb|rotary_pos_emb|rope|rotary_embedding)\.(original_)?(inv_freq|freqs)$",
        "config.json gives them",
    ),
    (r"(^|\.)(attn|attention|self_attn|crossattention)\.(masked_bias|causal_mask)$", "a causal mask as a table"),
    (r"(^|\.)position_ids$", "numbers from 0 on"),
    (r"(^|\.)(mtp|mtp_layers|mtp_block|nextn)\.", "heads that draft further tokens; no state or logit reads them"),
    (
        r"(^|\.)(vision_tower|vision_model|visual|vision_encoder|vision_embed_tokens|image_encoder|audio_tower|"
        r"audio_model|audio_encoder|speech_encoder|multi_modal_projector|mm_projector|vision_projection|embed_vision|"
        r"embed_audio|image_newline|patch_merger|vision_language_adapter|pre_mm_projector_norm)(\.|$)",
        "they read images or sound, and no text passes them",
    ),
    (r"\.(k_scale|v_scale)$", "for keys and values kept in 8 bits, which is not done here"),
)
"""Names of tensors that may be left over, each with the reason why no result depends on them."""

_MASK = re.compile(r"(^|\.)(attn|attention|crossattention)\.bias$")
_BLOCK = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def idle(key: str, raw: Mapping[str, Any], shape: Sequence[int] | None = None) -> bool:
    """Whether a left-over tensor is known to change nothing: see :data:`IDLE`; also causal masks that carry a
    parameter's name (four dimensions), and the blocks after the last one that only draft further tokens.
    """
    if any(re.search(form, key) for form, _ in IDLE):
        return True
    if shape is not None and len(shape) == 4 and _MASK.search(key):
        return True
    text = raw.get("text_config") if isinstance(raw.get("text_config"), Mapping) else raw
    drafting, blocks = (text or {}).get("num_nextn_predict_layers"), (text or {}).get("num_hidden_layers")
    block = _BLOCK.search(key)
    if block and isinstance(drafting, int) and isinstance(blocks, int):
        return blocks <= int(block[1]) < blocks + drafting
    return False


def check_left_over(
    name: str, unread: Iterable[str], stored: Mapping[str, Stored], raw: Mapping[str, Any], net: Any
) -> None:
    """Raise if the model did not take a tensor that is not known to be idle, or a copy of one that it did take."""
    left = [key for key in sorted(unread) if not idle(key, raw, stored[key].shape if key in stored else None)]
    left = [key for key in left if not (key in stored and _is_the_embedding(stored[key], key, net))]
    if not left:
        return
    what = ""
    block = max((int(found[1]) for key in left if (found := _BLOCK.search(key))), default=-1)
    blocks = getattr(net.config.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(blocks, int) and block >= blocks:
        what = f": it has blocks up to {block + 1}, and config.json says {blocks}"
    raise DemurError(
        f"{name}: {len(left)} tensors have no place in {type(net).__name__} ({left[0]} ...){what}",
        "a checkpoint whose every tensor is used, since one that is not may change the results",
        "check config.json, or take the checkpoint that it belongs to",
    )


def _is_the_embedding(tensor: Stored, key: str, net: Any) -> bool:
    """Whether a left-over tensor is the embedding once more, which tied models store under the head's name."""
    embedding = net.get_input_embeddings().weight
    if not key.endswith(("lm_head.weight", "embed_out.weight", "ff_out.weight", "decoder.weight", "output.weight")):
        return False
    return tuple(embedding.shape) == tensor.shape and _same_rows(tensor, key, embedding)


def _same_rows(tensor: Stored, key: str, weight: Any) -> bool:
    from safetensors import safe_open

    with safe_open(tensor.file, framework="pt") as data:
        part = data.get_slice(key)
        for start in range(0, tensor.shape[0], 4096):
            rows = part[start : start + 4096].to(weight.dtype)
            if not torch.equal(rows, weight[start : start + 4096].detach().to("cpu")):
                return False
    return True


_HEADS = ("lm_head.weight", "embed_out.weight", "model.transformer.ff_out.weight", "language_model.lm_head.weight")


def check_tied_head(name: str, stored: Mapping[str, Stored], raw: Mapping[str, Any]) -> None:
    """Raise if a checkpoint that is said to be tied stores a head with other rows than its vocabulary has."""
    key = next((key for key in _HEADS if key in stored), None)
    text = raw.get("text_config") if isinstance(raw.get("text_config"), Mapping) else raw
    rows = (text or {}).get("embedding_size") or (text or {}).get("vocab_size")
    if key is not None and isinstance(rows, int) and len(stored[key].shape) == 2 and stored[key].shape[0] != rows:
        raise DemurError(
            f"{name}: config.json ties the head to an embedding of {rows} tokens, and the checkpoint holds "
            f"{key} of {stored[key].shape[0]}",
            "one of the two",
            "set tie_word_embeddings (LLaDA: weight_tying) and vocab_size to what the model was trained with",
        )


def check_own_head(name: str, stored: Mapping[str, Stored], net: Any) -> None:
    """Raise if a checkpoint that is said to be tied stores a head of its own, and the model does not use it."""
    head = net.get_output_embeddings()
    key = next((key for key in _HEADS if key in stored), None)
    if key is None or head is None or not head.weight.is_floating_point() or head.weight.device.type == "meta":
        return
    if tuple(head.weight.shape) == stored[key].shape and not _same_rows(stored[key], key, head.weight):
        raise DemurError(
            f"{name}: config.json ties the head to the embedding, and the checkpoint has another head ({key})",
            "one of the two",
            "set tie_word_embeddings (LLaDA: weight_tying) in config.json to what the model was trained with",
        )


_WRAPPED = (
    "_orig_mod.",
    "module.",
    "_fsdp_wrapped_module.",
    "_forward_module.",
    "base_model.model.",
    "_checkpoint_wrapped_module.",
)


def check_names(name: str, stored: Mapping[str, Stored]) -> None:
    """Raise for names that a wrapper has left in the checkpoint: a compiled, distributed or adapted model."""
    for prefix in _WRAPPED:
        found = [key for key in stored if prefix in key and (key.startswith(prefix) or prefix.startswith("_"))]
        if found:
            raise DemurError(
                f"{name}: its tensors are named as those of a wrapped model ({found[0]})",
                "the names of the model itself",
                f"save it again without the wrapper, or take {prefix!r} off the names",
            )


def check_names_once(name: str, stored: Mapping[str, Stored], keys: Mapping[str, str], net: Any) -> None:
    """Raise if two tensors of a checkpoint stand for one of the model's: under the name of the whole model and of its
    trunk, or under a family's old and new names (``keys``). transformers takes one of the two without a word.
    """
    own, prefix = net.state_dict().keys(), f"{net.base_model_prefix}."
    by_native: dict[str, str] = {}
    for key in sorted(stored):
        native = key
        for form, new in keys.items():
            native = re.sub(form, new, native)
        native = next((n for n in (native, prefix + native, native.removeprefix(prefix)) if n in own), "")
        if native and native in by_native:
            raise DemurError(
                f"{name}: {by_native[native]} and {key} are one tensor of {type(net).__name__}, stored twice",
                "every tensor under one name",
                "delete the one that is not the model's, and save it again",
            )
        by_native[native] = key


# -- quantised weights --------------------------------------------------------------------------------------

_PACKED = re.compile(r"(weight|bias|qweight|weight_packed|qzeros|gate_up_proj|down_proj|_blocks)$")
_WHOLE = ("F16", "BF16", "F32", "F64")


def check_quantised(
    name: str,
    where: str | Path,
    hub: Mapping[str, Any],
    raw: Mapping[str, Any],
    stored: Mapping[str, Stored],
    converted: bool,
) -> None:
    """Raise for weights of few bits that nothing here would scale back, before they are read as if they were whole.

    ``converted``: the family's configuration is made by us, so that transformers would not see how it is quantised.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    text = raw.get("text_config")
    settings = raw.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, Mapping) else None
    )
    whole = "a checkpoint with whole weights (bf16, fp16, fp32)"
    if settings:
        method = str(
            settings.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in settings else "nothing named")
        )
        if method == "bitsandbytes":
            method += "_8bit" if settings.get("load_in_8bit") else "_4bit"
        if method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
            raise DemurError(
                f"{name} is quantised by {method!r}, which transformers does not load",
                whole,
                "take the unquantised model",
            )
        if method == "bitsandbytes_8bit":
            raise DemurError(
                f"{name} holds 8-bit weights (LLM.int8), with which a row depends on its neighbours", whole, "take 4bit"
            )
        if converted:
            raise DemurError(
                f"{name} is quantised by {method!r}, which its family's native class does not read",
                whole,
                "take that one",
            )
        return
    few = [
        key
        for key, tensor in stored.items()
        if tensor.dtype not in _WHOLE
        and (tensor.dtype.startswith("F") or (_PACKED.search(key) and not idle(key, raw, tensor.shape)))
    ]
    if few:
        how = optional_file(where, hub, "hf_quant_config.json")
        says = (
            "only hf_quant_config.json says how to scale them" if how else "config.json does not say how to scale them"
        )
        raise DemurError(
            f"{name}: {len(few)} tensors are stored in {stored[few[0]].dtype} ({few[0]} ...), and {says}",
            f"{whole}, or a quantization_config that transformers knows",
            "take the unquantised model",
        )


# -- adapters -----------------------------------------------------------------------------------------------


def adapter_at(name: str, where: str | Path, hub: Mapping[str, Any]) -> dict[str, Any] | None:
    """The ``adapter_config.json`` of a folder that holds an adapter (LoRA and the like); None for others. Raises for an
    adapter beside a whole model, where nobody can know whether it is merged already, and where peft is missing.
    """
    path = optional_file(where, hub, "adapter_config.json")
    if path is None:
        if isinstance(where, Path) and (where / "adapter_model.safetensors").exists():
            raise DemurError(
                f"{name} holds weights of an adapter (adapter_model.safetensors) and no adapter_config.json",
                "an adapter with its configuration, or a whole model alone",
                "download that file too; move the adapter's weights away if they are merged already",
            )
        return None
    settings = read_json(path, name)
    base = str(settings.get("base_model_name_or_path") or "")
    whole = any(optional_file(where, hub, file) for file in (WHOLE, INDEX))
    if whole:
        raise DemurError(
            f"{name} holds a whole model and an adapter (for {base or 'a model it does not name'})",
            "one of them",
            "move the adapter to a folder of its own, or delete adapter_config.json if it is merged already",
        )
    if not base:
        raise DemurError(f"{name} is an adapter that names no base", "base_model_name_or_path", "merge it first")
    from importlib.util import find_spec

    if find_spec("peft") is None:
        raise DemurError(
            f"{name} is an adapter ({settings.get('peft_type', 'unknown')}, for {base})",
            "a whole model, or the package peft to load it with",
            "pip install peft, or merge it first (peft's merge_and_unload, then save the result)",
        )
    if optional_file(where, hub, "adapter_model.safetensors") is None:
        raise DemurError(
            f"{name} has no adapter_model.safetensors", "the adapter's weights", "download or save it again"
        )
    return settings


def merged(name: str, net: Any, where: str | Path, hub: Mapping[str, Any]) -> Any:
    """The net with an adapter's weights added in. Raises unless the adapter's every tensor has its place."""
    from peft import PeftModel, get_peft_model_state_dict

    options = {key: value for key, value in hub.items() if key == "revision"}
    adapted = PeftModel.from_pretrained(net, str(where), autocast_adapter_dtype=False, **options)
    file = optional_file(where, hub, "adapter_model.safetensors")
    stored = set(_header(name, file)) if file is not None else set()
    placed = set(get_peft_model_state_dict(adapted))
    if stored != placed:
        which = sorted(stored ^ placed)
        raise DemurError(
            f"{name}: {len(which)} tensors of the adapter and its base do not agree ({which[0]} ...)",
            "an adapter of this base model",
            "check base_model_name_or_path, or merge it first",
        )
    if not hasattr(adapted, "merge_and_unload"):
        raise DemurError(f"{name} is an adapter that can't be merged", "LoRA or the like", "merge it first")
    return adapted.merge_and_unload()
