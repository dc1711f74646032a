"""What an engine has said, read with care: the one text of an answer or a stream, and why it ended. What is no text,
or more than one, is an error: nothing is left out without a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from demur.refusals import REFUSAL
from demur.serving.errors import unavailable

ENDS = {None: "stop", "eos_token": "stop", "stop_sequence": "stop"} | {
    name: name for name in ("stop", "length", "content_filter")
}
"""Why an answer ended, by the engine's word; some send none, and TGI has words of its own."""
LONGEST_WORD = 32
"""Characters without a blank after which text is judged in the middle of a word."""
_WORDS = re.compile(r".*\S(?=\s)", re.DOTALL)


def choice_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """The one choice. Raises for none and for several: what is not judged does not leave."""
    choices = made.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise unavailable("the engine sent another number of answers than one", "upstream")
    if choices[0].get("index", 0) != 0:
        raise unavailable("the engine sent an answer that nobody asked for", "upstream")
    return choices[0]


def end_of(choice: Mapping[str, Any]) -> str:
    """Why an answer ended. Raises for a word that stands for something else than a finished text."""
    said = choice.get("finish_reason")
    if not isinstance(said, str | None) or said not in ENDS:
        raise unavailable("the engine's answer ended as none does that is a text alone", "upstream")
    return ENDS[said]


OTHERS = ("tool_calls", "function_call", "audio", "images")
"""What an answer may hold beside a text. Nobody judges it, so it does not leave; without it the answer is another."""
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
UNREAD_THOUGHTS = "the engine wrote thoughts before its answer, which the guard has not read"


def has_thought(usage: Any) -> bool:
    """Whether an engine counts tokens of thoughts: some do not show them at all."""
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    thoughts = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return isinstance(thoughts, int | float) and thoughts > 0


@dataclass(frozen=True)
class Told:
    """What one ``message`` or ``delta`` holds: its text, and whether the engine refuses or thinks beside it."""

    text: str = field(repr=False)
    refuses: bool
    thinks: bool


def message_of(choice: Mapping[str, Any], name: str) -> Told:
    """What a ``message`` or a ``delta`` holds. Raises for content that is no text, such as parts of several kinds,
    and for calls of tools, sound and pictures.
    """
    message = choice.get(name)
    if message is None and name == "delta":
        message = {}
    if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
        raise unavailable("the engine sent content that is no text", "upstream")
    if others := [other for other in OTHERS if message.get(other)]:
        raise unavailable(f"the engine sent {others[0]}, which nobody here can judge", "upstream")
    thinks = any(message.get(thought) for thought in THOUGHTS)
    return Told(message.get("content") or "", bool(message.get("refusal")), thinks)


def check_whole(text: str) -> str:
    """The text, halves of a character put together. Raises where a half stands alone: no other is put in its place."""
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise unavailable("the engine sent half a character", "upstream") from None


@dataclass
class Heard:
    """What an engine has said so far in a stream: ``new`` parts of ``text`` came since the last look, and what stands
    behind ``left`` has not left. ``half``: the first half of a character, whose second one is to come. ``usage`` is
    told where the engine does: in a part of its own (``usage_alone``), which a client that has not asked for it may not
    expect, or beside the end.
    """

    head: dict[str, Any] = field(default_factory=dict, repr=False)
    begun: bool = False
    answered: bool = False
    text: str = field(default="", repr=False)
    left: int = 0
    new: int = 0
    end: str = "stop"
    refused: bool = False
    thought: bool = False
    usage: Any = None
    usage_alone: bool = False
    half: str = field(default="", repr=False)

    def take(self, event: Mapping[str, Any]) -> None:
        """Reads a chunk. The engine's own refusal and thoughts are not judged, and do not leave."""
        if event.get("usage"):
            self.usage, self.usage_alone = event["usage"], not event.get("choices")
            self.thought = self.thought or has_thought(self.usage)
        if not event.get("choices"):
            if "choices" not in event and not event.get("usage"):
                raise unavailable("the engine's stream held something that is no part of an answer", "upstream")
            return
        choice = choice_of(event)
        told = message_of(choice, "delta")
        if not self.answered:  # what comes before, of an answer's filters say, may have another id or none
            self.head = {name: event[name] for name in ("id", "created", "model") if name in event}
        self.answered, self.refused = True, self.refused or told.refuses
        self.thought = self.thought or told.thinks
        if choice.get("finish_reason") is not None:
            self.end = end_of(choice)
        if told.text:
            more, self.half = self.half + told.text, ""
            if "\ud800" <= more[-1] <= "\udbff":
                more, self.half = more[:-1], more[-1]
            self.text, self.new = self.text + check_whole(more), self.new + 1

    @property
    def is_over(self) -> bool:
        """Whether all of the text has left."""
        return self.left == len(self.text)

    def words(self) -> int:
        """How much of the text may be looked at before its end: its whole words, since the tokens of half a word are
        others than those of the word; all of it, where no word ends for long. Not beyond what has left: no more yet.
        """
        found = _WORDS.match(self.text, self.left)
        if found:
            return found.end()
        return len(self.text) if len(self.text) - self.left > LONGEST_WORD else self.left

    def out(self, upto: int) -> str:
        """What leaves now."""
        more, self.left, self.new = self.text[self.left : upto], upto, 0
        return more

    def first(self) -> Iterator[bytes]:
        """What a stream begins with, once the engine answers."""
        if self.answered and not self.begun:
            self.begun = True
            yield self.chunk({"role": "assistant", "content": ""})

    def last(self, stopped: bool, about: Mapping[str, Any]) -> Iterator[bytes]:
        """What a stream ends with. Raises where the engine has answered nothing at all, or half a character."""
        if not self.answered:
            raise unavailable("the engine's stream held no answer", "upstream")
        if not stopped:
            check_whole(self.half)
        if stopped or self.refused:
            yield self.chunk({"refusal": REFUSAL})
        beside = {} if stopped or self.usage is None or self.usage_alone else {"usage": self.usage}
        yield self.chunk({}, "content_filter" if stopped else self.end, {"demur": about, **beside})
        if self.usage_alone and not stopped:
            yield event_of(self.head | {"object": "chat.completion.chunk", "choices": [], "usage": self.usage})

    def chunk(self, delta: dict[str, Any], finish: Any = None, more: Mapping[str, Any] | None = None) -> bytes:
        """One event of the stream that goes on."""
        choice = {"index": 0, "finish_reason": finish, "logprobs": None, "delta": delta}
        return event_of({**self.head, "object": "chat.completion.chunk", "choices": [choice], **(more or {})})


def event_of(body: Mapping[str, Any]) -> bytes:
    """One event of a stream. ASCII alone, so that no text can look like the end of one."""
    return f"data: {json.dumps(body, allow_nan=False)}\n\n".encode("ascii")
