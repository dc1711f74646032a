"""A running engine with demur in it, by its OpenAI routes and ``/v1/demur``. The standard library alone."""

from __future__ import annotations

import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from demur.refusals import is_refusal
from demur.types import DemurError, Prompt


@dataclass(frozen=True)
class Answered:
    """What came of one prompt: the engine's verdict, and whether the model refuses by itself: a refusal that a guard
    writes is none of its own.
    """

    refused: bool
    verdict: dict[str, Any]


@dataclass(frozen=True)
class Served:
    """An engine by its address, such as ``http://localhost:8000``, with or without ``/v1``."""

    url: str
    key: str = ""
    timeout: float = 120.0

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise DemurError(f"--engine {self.url!r:.100}", "an address such as http://localhost:8000", "mend it")
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/v1"))

    def status(self) -> dict[str, Any]:
        """Its guards, its engine and its counters. Raises where demur is not in it."""
        told = self._ask("/v1/demur")
        if not told.get("guards"):
            raise DemurError(
                f"the engine at {self.url} without guards", "DEMUR_GUARDS at its start", "see docs/vllm.md"
            )
        return told

    def guard_named(self, sha256: str, *, watching: bool = False) -> str:
        """What the engine calls the guard of a file with this hash. Raises where it has another file, or none; and, if
        it shall be ``watching``, for a guard that acts: answers that it cuts short have no whole signal.
        """
        guards = self.status()["guards"]
        found = next((name for name, guard in guards.items() if guard["sha256"] == sha256), None)
        if found is None:
            has = ", ".join(f"{name} ({guard['sha256'][:8]})" for name, guard in guards.items())
            raise DemurError(
                f"an engine with the guards {has}", f"this file ({sha256[:8]}) among them", "start it with the file"
            )
        if watching and guards[found]["mode"] != "watch":
            raise DemurError(
                f"the guard {found} in the mode {guards[found]['mode']}, which cuts answers short", "the mode watch",
                "start the engine with DEMUR_MODE=watch",
            )  # fmt: skip
        return str(found)

    def model(self) -> str:
        """The name of the first model that it serves."""
        try:
            return str(self._ask("/v1/models")["data"][0]["id"])
        except (LookupError, TypeError) as error:
            raise DemurError(f"{self.url}/v1/models without a model", "one at least", "name it: --model") from error

    def answer(self, prompt: Prompt, model: str, guard: str, length: int, how: Mapping[str, Any]) -> Answered:
        """One answer under a guard; ``how``: further parameters, by which it is asked for as the guard's calibration
        answers were. Raises for an engine that does not answer, or keeps no verdict.
        """
        tag = secrets.token_hex(16)
        body = {
            "model": model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in prompt.conversation],
            "max_tokens": length,
            **how,
            "vllm_xargs": {"demur": guard, "demur_id": tag},
        }
        came, told = self._ask("/v1/chat/completions", body), self._ask(f"/v1/demur/{tag}")
        try:
            said = str(came["choices"][0]["message"]["content"] or "")
            (verdict,) = told["verdicts"]
            acted, *_ = (verdict[name] for name in ("acted", "watched", "flagged", "sigma"))
            return Answered(is_refusal(said) and not acted, verdict)
        except (LookupError, TypeError, ValueError) as error:
            raise DemurError(
                f"{self.url}: an answer without a text, or another number of verdicts of it than one",
                "one of each", "look at the engine: is demur in it, of this version?",
            ) from error  # fmt: skip

    def _ask(self, path: str, body: Any = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310 (checked above)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310
                told = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            why = " ".join(error.read(300).decode(errors="replace").split())
            then = "see docs/vllm.md: VLLM_PLUGINS=demur" if error.code == 404 else "look at the engine's log"
            raise DemurError(f"{error.code} of {self.url}{path} ({why:.160})", "an answer", then) from error
        except (OSError, ValueError) as error:
            raise DemurError(
                f"{self.url}{path}: {error}", "an engine that answers", "start it, see docs/vllm.md"
            ) from error
        if not isinstance(told, dict):
            raise DemurError(f"{type(told).__name__} of {self.url}{path}", "an object", "look at the address")
        return told
