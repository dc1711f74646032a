"""A model behind an endpoint as judge: one rubric, one answer per text, kept by content so that it is paid for once."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from demur.artefact import write
from demur.judges.endpoint import Budget, Endpoint, Spending
from demur.judges.replies import NoAnswer, Reply
from demur.judges.rubrics import RUBRICS, Rubric, Unreadable
from demur.kinds import check_prompt, check_text
from demur.refusals import shows_nothing
from demur.types import DemurError, Prompt, Verdict

FORMAT = 1
"""Rises when the meaning of what is kept changes."""


class _Kept:
    """Answers of this judge's life, and one lock for each, so that equal texts at once are asked about once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.locks: dict[str, threading.Lock] = {}
        self.replies: dict[str, Reply] = {}

    def place(self, key: str) -> threading.Lock:
        with self.lock:
            return self.locks.setdefault(key, threading.Lock())


@dataclass(frozen=True)
class LLMJudge:
    """Asks ``model`` at ``base_url`` the question of ``rubric`` (a name of :data:`RUBRICS`, or a
    :class:`Rubric`).

    ``flagged`` from ``threshold`` on (None: the rubric's); ``score`` is the rubric's, higher = more harmful. What can
    not be read, did not arrive or is beyond the budget is unscored, and ``why`` says so; it begins with
    :data:`demur.types.REFUSED` where a provider's filter stood in for the model. An answer that was cut off is
    unscored, whatever stands in it, and so is one whose thoughts do not end. Where no endpoint answers at all, or it
    does not know the key, the model or a setting, the first request raises a DemurError; where the first few fail
    alike, the last of these does.

    ``cache`` is a folder with one small JSON file for each model, question and settings of the request; the address is
    not among them. It holds the model's answers, not the judged texts. See :class:`Endpoint` for the other settings.
    """

    model: str
    base_url: str
    api_key_env: str = ""
    rubric: str | Rubric = "harm"
    threshold: int | None = None
    timeout: float = 60.0
    retries: int = 4
    concurrency: int = 8
    budget: Budget = field(default_factory=Budget)
    cache: Path | str | None = None
    temperature: float | None = 0.0
    seed: int | None = 0
    max_tokens: int | None = 512
    max_completion_tokens: int | None = None
    patience: float = 600.0
    endpoint: Endpoint = field(init=False, repr=False, compare=False)
    _kept: _Kept = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.rubric, str) and self.rubric not in RUBRICS:
            raise DemurError(f"rubric {self.rubric!r}", " or ".join(RUBRICS), "name one of them, or give a Rubric")
        if isinstance(self.threshold, bool) or not self.question.low <= self.least <= self.question.high:
            scale = f"{self.question.low} .. {self.question.high}"
            raise DemurError(f"threshold {self.least}", f"a score of {self.question.name}, {scale}", "change it")
        shared = {setting.name: getattr(self, setting.name) for setting in fields(Endpoint) if setting.init}
        object.__setattr__(self, "endpoint", Endpoint(**shared))
        object.__setattr__(self, "base_url", self.endpoint.base_url)
        object.__setattr__(self, "_kept", _Kept())

    def __reduce__(self) -> tuple[Any, ...]:
        """Settings travel to another process; what was spent and learned stays."""
        return LLMJudge, tuple(getattr(self, setting.name) for setting in fields(self) if setting.init)

    @property
    def name(self) -> str:
        """Rubric and model."""
        return f"{self.question.name}:{self.model}"

    @property
    def question(self) -> Rubric:
        """The rubric itself."""
        return self.rubric if isinstance(self.rubric, Rubric) else RUBRICS[self.rubric]

    @property
    def least(self) -> int:
        """The lowest score that is flagged."""
        return self.question.threshold if self.threshold is None else self.threshold

    @property
    def spent(self) -> Spending:
        """Requests sent and tokens reported so far, by this judge in this process."""
        return self.endpoint.spent

    def __call__(self, prompt: Prompt, text: str) -> Verdict:
        """A verdict on ``text`` as an answer to ``prompt``. An empty text is unscored and sent nowhere."""
        check_prompt(prompt)
        check_text(text, "an answer's text")
        if shows_nothing(text):
            return self._unscored("empty text")
        key = self.key(prompt, text)
        with self._kept.place(key):
            reply = self._kept.replies.get(key) or self._read(key)
            if reply is None:
                try:
                    reply = self.endpoint([{"role": "user", "content": self.question.ask(prompt, text)}])
                except NoAnswer as error:  # not kept: another time it may answer
                    return self._unscored(str(error))
                self._kept.replies[key] = reply
                self._write(key, reply)
        return self._verdict(reply)

    def key(self, prompt: Prompt, text: str) -> str:
        """64 hex digits that stand for everything that is sent except the address."""
        request = [FORMAT, self.model, self.question.text, prompt.told, text]
        request += [self.temperature, self.seed, self.max_tokens]
        if self.max_completion_tokens is not None:
            request[-1:] = ["max_completion_tokens", self.max_completion_tokens]
        return hashlib.sha256(json.dumps(request).encode()).hexdigest()

    def _verdict(self, reply: Reply) -> Verdict:
        try:
            score, why = self.question.read(reply.text)
        except Unreadable as error:
            return self._unscored(f"{error}{self._cut()}" if reply.cut else str(error))
        if reply.cut:  # it may have gone on to another conclusion
            return self._unscored(f"an answer without its end{self._cut()}")
        self.endpoint.heard_before()
        return Verdict(by=self.name, flagged=score >= self.least, score=float(score), why=why)

    def _cut(self) -> str:
        """Where an answer was cut off. Raises where the first ones all were: those that follow would be, too."""
        where = f"cut off at {self.endpoint.longest} tokens"
        then = "raise max_tokens (max_completion_tokens), or turn the model's thinking off"
        error = self.endpoint.failed(NoAnswer(f"the answer was {where}", "cut", then=then))
        if isinstance(error, DemurError):
            raise error
        return f" ({where})"

    def _unscored(self, why: str) -> Verdict:
        return Verdict(by=self.name, flagged=None, why=why)

    def _file(self, key: str) -> Path | None:
        if self.cache is None:
            return None
        folder = Path(self.cache)
        if folder.exists() and not folder.is_dir():  # said before anything is paid for
            raise DemurError(f"{folder} is no folder", "a folder for the judge's answers", "name another place")
        return folder / f"{key}.json"

    def _read(self, key: str) -> Reply | None:
        """What was kept, or None where there is nothing whole: then it is asked again."""
        file = self._file(key)
        try:
            kept = json.loads(file.read_text(encoding="utf-8")) if file is not None else None
            if kept is None or kept["key"] != key:
                return None
            text, cut, tokens = kept["reply"], kept["cut"], kept["tokens"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        sound = isinstance(text, str) and text.strip() and isinstance(cut, bool)
        return Reply(text, cut, tokens if type(tokens) is int else None) if sound else None

    def _write(self, key: str, reply: Reply) -> None:
        file = self._file(key)
        if file is not None:
            entry: dict[str, Any] = {"key": key, "model": self.model, "rubric": self.question.name}
            entry |= {"reply": reply.text, "cut": reply.cut, "tokens": reply.tokens}
            write(file, json.dumps(entry, indent=1))
