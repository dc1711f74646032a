"""What the operator says at the start, and what a request may ask for. No torch, no vLLM.

The operator speaks by the environment, since every process of the engine reads it. ``DEMUR_GUARDS`` names the guards;
without it nothing here does anything.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from demur.refusals import REFUSAL
from demur.types import DemurError

GUARD, ID = "demur", "demur_id"
"""What a request may say, in ``extra_args`` or, over HTTP, in ``vllm_xargs``."""
NONE = "none"
"""No guard, where there is a default and the operator lets requests go without it."""
REQUEST: ContextVar[str] = ContextVar("demur_request", default="")
"""The id of the HTTP request that is being admitted; see ``routes``."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TAG = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Mode(StrEnum):
    """What a flag does."""

    WATCH = "watch"
    """Nothing: there is a verdict."""
    STOP = "stop"
    """The answer ends: the next token is a stop token."""
    REFUSE = "refuse"
    """The refusal is written, token by token, and the answer ends."""


@dataclass(frozen=True)
class Named:
    """A guard as the operator names it."""

    path: str
    mode: Mode = Mode.WATCH


@dataclass(frozen=True)
class Options:
    """What the operator has said. ``keep``: so many verdicts are remembered. ``unseen``: whether an answer of which
    states were lost is ended in the modes that act; its verdict is *not watched* in either case. ``unchecked``: guards
    that belong to another engine are taken, and every verdict says so. ``optional``: a request may ask for no guard.
    """

    guards: Mapping[str, Named] = field(default_factory=dict)
    default: str = ""
    refusal: str = REFUSAL
    keep: int = 10_000
    unseen: bool = True
    unchecked: bool = False
    optional: bool = False


def options_of(env: Mapping[str, str]) -> Options:
    """Reads the environment. Raises, in one line, for what it does not understand: a typing error is no open door."""
    mode = _mode(env.get("DEMUR_MODE", Mode.WATCH), "DEMUR_MODE")
    guards: dict[str, Named] = {}
    for said in filter(None, (part.strip() for part in env.get("DEMUR_GUARDS", "").split(","))):
        name, _, path = said.partition("=")
        path, colon, own = path.rpartition(":") if path.rpartition(":")[2] in [*Mode] else (path, "", "")
        if not (_NAME.fullmatch(name) and path) or name == NONE or name in guards:
            raise DemurError(f"DEMUR_GUARDS={said!r}", "name=path or name=path:mode, each name once", "mend it")
        guards[name] = Named(path, _mode(own, "DEMUR_GUARDS") if colon else mode)
    default = env.get("DEMUR_DEFAULT", "")
    if default and default not in guards:
        raise DemurError(f"DEMUR_DEFAULT={default!r}", " or ".join(guards) or "a guard of DEMUR_GUARDS", "name one")
    keep = env.get("DEMUR_KEEP", "10000")
    if not (keep.isascii() and keep.isdigit() and 1 <= int(keep) <= 10_000_000):
        raise DemurError(f"DEMUR_KEEP={keep!r}", "a number of verdicts, at least 1", "leave it out")
    return Options(
        guards,
        default,
        env.get("DEMUR_REFUSAL", REFUSAL),
        int(keep),
        _choice(env, "DEMUR_UNSEEN", "stop", "pass") == "stop",
        _choice(env, "DEMUR_UNCHECKED", "0", "1") == "1",
        _choice(env, "DEMUR_OPTIONAL", "0", "1") == "1",
    )


@cache
def operators() -> Options:
    """What the operator of this process has said."""
    return options_of(os.environ)


def _mode(said: str, where: str) -> Mode:
    if said not in [*Mode]:
        raise DemurError(f"{where} with the mode {said!r}", ", ".join(Mode), "name one of these")
    return Mode(said)


def _choice(env: Mapping[str, str], name: str, *among: str) -> str:
    said = env.get(name, among[0])
    if said not in among:
        raise DemurError(f"{name}={said!r}", " or ".join(among), "leave it out for the first of these")
    return said


@dataclass(frozen=True)
class Asked:
    """What a request gets: a guard by name (empty: none), and the id under which its verdict is found."""

    guard: str
    id: str


def asked(options: Options, extra: Mapping[str, Any] | None) -> Asked:
    """What a request says, beside the operator's default. Raises for an unknown guard, id or option, and for one that
    would leave the default guard (``optional``), or have another watch where the default acts.
    """
    said = dict(extra or {})
    if unknown := sorted(key for key in said if key.lower().startswith(GUARD) and key not in (GUARD, ID)):
        raise DemurError(f"the option {unknown[0]!r:.80}", f"{GUARD} or {ID}", "leave it out")
    name = said.get(GUARD, options.default)
    nothing_said = name == "" and GUARD not in said  # an empty name is none: it is no way around the default
    if not isinstance(name, str) or not (nothing_said or name in options.guards or name == NONE):
        known = ", ".join(options.guards) or "none: this server was started without DEMUR_GUARDS"
        raise DemurError(f"the guard {name!r:.80}", known, f"name one, or leave {GUARD} out")
    if name == NONE and options.default and not options.optional:
        raise DemurError("a request for no guard", f"the guard {options.default}", f"leave {GUARD} out")
    if _is_weaker(options, name):
        usual = f"the guard {options.default}, which may {options.guards[options.default].mode}"
        raise DemurError(f"the guard {name}, which only watches", usual, f"leave {GUARD} out (or DEMUR_OPTIONAL=1)")
    tag = said.get(ID, "")
    if not isinstance(tag, str) or (ID in said and not _TAG.fullmatch(tag)):
        raise DemurError(f"the id {tag!r:.80}", "up to 128 letters, digits and _ . : -", f"mend {ID}")
    return Asked("" if name == NONE else name, tag)


def _is_weaker(options: Options, name: str) -> bool:
    """Whether a guard only watches where the operator's default acts, and no request may go without that one."""
    default, named = options.guards.get(options.default), options.guards.get(name)
    if default is None or named is None or options.optional:
        return False
    return named.mode is Mode.WATCH and default.mode is not Mode.WATCH


def tag_of(given: str) -> str:
    """The id under which verdicts of an HTTP request are kept: its own, or a hash where that is no tag."""
    return given if _TAG.fullmatch(given) else f"h-{hashlib.sha256(given.encode()).hexdigest()[:32]}"


def check_params(options: Options, params: Any) -> Asked:
    """What a request with these sampling parameters gets. Raises for what a guard can not do under them."""
    found = asked(options, params.extra_args)
    if not found.guard:
        return found
    mode = options.guards[found.guard].mode
    if params.prompt_logprobs is not None or getattr(params, "prompt_logprob_token_ids", None) is not None:
        # Its passes through the head are others than those that sample.
        raise DemurError("prompt_logprobs under a guard", "none", "ask for them without a guard")
    if mode is Mode.WATCH:
        return found
    if params.ignore_eos:
        raise DemurError(f"ignore_eos under a guard that may {mode}", "an answer that can be ended", "leave it out")
    if params.structured_outputs is not None:
        raise DemurError(f"structured outputs under a guard that may {mode}", "free text", "use the mode watch")
    if getattr(params, "thinking_token_budget", None) is not None:  # forced after us, and over us
        raise DemurError(f"thinking_token_budget under a guard that may {mode}", "none", "leave it out")
    if getattr(params, "max_tokens", None) == 1 and (getattr(params, "logprobs", None) or 0) > 1:
        raise DemurError(
            f"one token with log probabilities under a guard that may {mode}",
            "an answer that is written once: beam search asks so for every token, and no guard follows it",
            "leave out use_beam_search, or the log probabilities",
        )
    return found
