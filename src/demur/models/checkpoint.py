"""What a folder or hub repository really holds, looked at before it is loaded.

Only the headers of safetensors files are read here. Every refusal says what is wrong with the files, so that no broken
download is taken for a broken network. ``placed`` compares what is stored with what the model took.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from demur.models.idle import idle
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


BESIDE = (
    "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.json",
)  # fmt: skip
"""Files beside the weights that say how answers end and what is asked; readers pass over what they can not read."""


def check_beside(name: str, where: str | Path) -> None:
    """Raises for a file of a folder beside its weights that is cut off, or no JSON object."""
    for file in BESIDE if isinstance(where, Path) else ():
        if (found := optional_file(where, {}, file)) is not None:
            read_json(found, name)


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
        files = _shards(name, where, hub, index, sorted({str(PurePosixPath(file)) for file in listed.values()}))
    found: dict[str, Stored] = {}
    for file in files:
        part = stored_in(name, file)
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


def stored_in(name: str, file: Path) -> dict[str, Stored]:
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
