"""The folder that stands for a GGUF file: its configuration and tokenizer as transformers writes them, made once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from demur.models.checkpoint import NO_CODE
from demur.models.gguf.config import configured
from demur.models.gguf.excerpt import write_excerpt
from demur.models.gguf.header import Header, refused
from demur.models.gguf.tokenizer import tokenizer_of

_FORMAT = 4
"""Counts what :func:`described` writes. Format 1 kept all weights in fp32, also of files that lacked some; format 2 put
a blank before every text, also where the file wants none; format 3 had the class's own ends where the file names none.
"""


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
        config = _config(header, where, alone / "excerpt.gguf")
        config.save_pretrained(scratch)
        tokenizer_of(header, where, config).save_pretrained(scratch)
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


def _config(header: Header, where: Path, excerpt: Path) -> Any:
    """transformers' configuration of the file, corrected; read from an excerpt where transformers would be slow."""
    from transformers import AutoConfig

    if not _reads_by_itself(header):
        write_excerpt(header, excerpt)
        where = excerpt
    try:
        config = AutoConfig.from_pretrained(where.parent, gguf_file=where.name, **NO_CODE)
    except (ValueError, KeyError) as error:
        raise refused(
            header,
            f"the architecture {header.architecture!r}, as this file describes it, is not known to transformers "
            f"({' '.join(str(error).split())[:80]})",
            "one that transformers translates (llama, qwen2, qwen3, gemma2, gemma3, phi3 ...), with all its keys",
        ) from error
    return configured(header, config)


def _reads_by_itself(header: Header) -> bool:
    """Whether transformers reads the architecture's header itself, which is quick and wants the vocabulary's length."""
    try:
        from transformers.integrations.gguf import GGUF_CONFIG_ARCHS  # since 5.23
    except ImportError:
        return False
    return header.architecture in GGUF_CONFIG_ARCHS
