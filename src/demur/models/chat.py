"""From prompts to token rows to a canvas: the chat template, the limits, the padding.

What a model reads contains what was asked, and nothing that depends on when it was asked. A template may leave a turn
out, write today's date or open a thought, and a tokenizer may put an end behind every text: each is looked at here.

The file is long because these are checks of one text, in their order.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import torch

from demur.kinds import check_prompts, fits, shown
from demur.models.control import Sealed, bare_row, control_tokens, row_of, sealed
from demur.models.lost import check_written
from demur.models.template_use import takes_parts, use_of
from demur.models.turns import PROBE, check_told_apart, say_letters, say_opened, say_unopened
from demur.redaction import hidden, without
from demur.refusals import THOUGHTS, open_thought, shows_nothing, without_thoughts
from demur.types import Canvas, DemurError, DemurWarning, Message, Prompt, TooLong

TODAY = date(2024, 7, 26)
"""The day on which every template is rendered. Llama's own falls back to it where it can't ask for the day."""

OURS = (
    "conversation", "messages", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize",
    "padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask",
    "tokenizer_kwargs", "sanitize_control_tokens", "strftime_now",
)  # fmt: skip
"""What a user can not set by ``template_args``."""


def _reads_as_truth(value: object) -> bool:
    """Whether a value is a text that somebody wrote for true, false or nothing: any text but the empty one is true in a
    template.
    """
    words = ("true", "false", "yes", "no", "on", "off", "y", "n", "none", "null", "0", "1")
    return isinstance(value, str) and value.strip().lower() in words


@dataclass(frozen=True)
class Chat:
    """How a model is spoken to: its tokenizer with the chat template, a system prompt for every prompt that brings
    none, and the template's arguments (``enable_thinking=False``).

    Raises for arguments that the template does not name, and for any where there is no template.
    """

    tokenizer: Any
    system: str | None = field(default=None, repr=False)
    template_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        template = self.template or ""
        for name, value in self.template_args.items():
            if name in OURS or not re.search(rf"\b{re.escape(name)}\b", template):
                near = difflib.get_close_matches(name, {*re.findall(r"\b[a-z]\w+", template)} - {*OURS}, n=1)
                raise DemurError(
                    f"the template argument {name}={value!r}",
                    "one that the chat template reads" if template else "a model with a chat template",
                    f"did you mean {near[0]}?" if near else "leave it out, or look at the tokenizer's chat_template",
                )
            written, tested = use_of(template, name)
            known = isinstance(value, str) and re.search(rf"""(['"]){re.escape(value)}\1""", template)
            if _reads_as_truth(value) and not known and not written:
                raise DemurError(
                    f"the template argument {name}, the text {value!r}, which a template takes as true",
                    "true or false, or a text that the chat template knows or writes",
                    f"--template-arg {name}=false, in a recipe {{{name}: false}}, in Python {name}=False (or true)",
                )
            if (value is None or isinstance(value, bool)) and written and not tested:
                warnings.warn(
                    f"the template argument {name}={value} stands in the prompt as the word {str(value)!r}: the chat "
                    f"template writes it and asks nothing of it; a text in quotes stands there as it is "
                    f"(--template-arg '{name}=\"no\"')",
                    DemurWarning,
                    stacklevel=3,
                )
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise DemurError(
                    f"the template argument {name} of type {type(value).__name__}",
                    "what JSON can hold: it is part of the spec",
                    "give it a text, a number, true or false, a list or a mapping of these",
                ) from error

    @property
    def template(self) -> str | None:
        """The source of the chat template; None for a model without one."""
        template = getattr(self.tokenizer, "chat_template", None)
        if template is None or isinstance(template, str):
            return template
        try:
            source: str = self.tokenizer.get_chat_template()  # of several, the default one
        except ValueError as error:
            raise DemurError(
                f"a tokenizer with several chat templates ({', '.join(sorted(template))[:80]}) and no default one",
                "one template, or one that is named default",
                "set the tokenizer's chat_template to the one that is meant, and save it",
            ) from error
        return source

    # -- text -------------------------------------------------------------------------------------------------------

    def text(self, prompt: Prompt) -> str:
        """The prompt in the model's chat template, with the beginning of the answer if the prompt prefills one.

        A model without a template gets the plain text. ``prompt.system`` wins over ``system``; None leaves the system
        prompt to the template. Where the template opens a thought or a header, the prefill stands behind them, in the
        answer: the thought is closed first, as with ``enable_thinking=False``, since a prefill in a thought would be
        something else under the same name. A prefill that begins with the mark of a thought goes into that thought.

        Raises for what the template refuses or leaves out: the system prompt, an earlier turn, the request.
        """
        return self._sealed_text(prompt).opened()

    @property
    def opening(self) -> str:
        """What the chat template writes behind a request to open an answer. Raises where it writes nothing."""
        turns = [Message("user", PROBE.format(0))]
        asked, open_ = ("" if self.template is None else self._render(turns, answering=a) for a in (False, True))
        if not open_.startswith(asked) or open_ == asked:
            raise DemurError(
                "a chat template that writes nothing to open an answer",
                "one with add_generation_prompt",
                "name another model",
            )
        return open_[len(asked) :]

    @property
    def closing(self) -> str:
        """What the chat template writes behind a finished answer; empty where it writes nothing, or takes no answer."""
        turns = [Message("user", PROBE.format(0)), Message("assistant", PROBE.format(1))]
        try:
            _, said, behind = self._render(turns, answering=False).rpartition(turns[1].content)
        except Exception:  # jinja2 raises what the template's author wrote
            return ""
        return behind if said else ""

    def conversation(self, prompt: Prompt, answer: str, *, answering: bool = True) -> list[int]:
        """Token row of a conversation that is over, for a model that is to say what it thinks of it: earlier turns, the
        request, and its answer as the assistant's turn, in the chat template. ``answering``: the template opens a turn
        behind it, if it does not do so by itself. A system prompt is not part of it. The answer stands there whole: the
        marks of a thought are letters in it, since templates leave out what stands before ``</think>``, which anybody
        can be told to write at the end of an answer.

        Raises for a model without a template, and as :meth:`text` does.
        """
        if self.template is None:
            raise DemurError("a model without a chat template", "one that writes two turns", "name another model")
        turns = [*prompt.messages, Message("user", prompt.text), Message("assistant", answer)]
        return row_of(self.tokenizer, self._sealed_turns(turns, prompt, answering, whole=True), templated=True)

    def _sealed_text(self, prompt: Prompt) -> Sealed:
        """The same, whose turns hold no control token: each is sealed up and may be opened again."""
        turns = self._turns(prompt)
        if self.template is None:
            controls = control_tokens(self.tokenizer, "")
            (last,), seals = sealed(turns[-1:], controls)
            return Sealed(last.content + prompt.prefill, seals, controls)
        whole = self._sealed_turns(turns, prompt)
        begun = _answer_begun(whole.text, prompt.prefill) if prompt.prefill else ""
        return replace(whole, text=whole.text + begun)

    def _sealed_turns(
        self, turns: Sequence[Message], prompt: Prompt, answering: bool = True, whole: bool = False
    ) -> Sealed:
        """Turns in the template; ``whole`` as in :func:`sealed`. Raises for what it refuses, leaves out or changes."""
        probe = self._probed(turns, answering)
        controls = control_tokens(self.tokenizer, f"{self.template}{probe}")
        turns, seals = sealed(turns, controls, whole=whole)
        text = self._rendered(turns, prompt, answering)
        self._check_all_there(turns, text, probe, prompt)
        check_told_apart(turns, self._render, prompt.label, answered=turns[-1].role == "user")
        return Sealed(text, seals, controls)

    def _turns(self, prompt: Prompt) -> list[Message]:
        """All turns, the system prompt first. Raises for those that a model without a template has no place for."""
        system = prompt.system if prompt.system is not None else self.system
        if self.template is None and (system or prompt.messages):
            what = (
                f"a system prompt of {len(system)} characters"
                if system
                else f"earlier turns of prompt {prompt.label!r}"
            )
            raise DemurError(
                f"{what} for a model without a chat template",
                "a template, which says where it belongs",
                "leave it out, or write it into the prompt's text",
            )
        first = [] if system is None or self.template is None else [Message("system", system)]
        return [*first, *prompt.messages, Message("user", prompt.text)]

    def _rendered(self, turns: Sequence[Message], prompt: Prompt, answering: bool = True) -> str:
        try:
            return self._render(turns, answering=answering)
        except Exception as error:  # jinja2 raises what the template's author wrote
            roles = "a template that takes these roles" if len(turns) > 1 else "a template that takes a user message"
            system = turns[0].role == "system"
            why = " ".join(str(error).split())[:160]
            shown = without(why, [turn.content for turn in turns]) if hidden(prompt) else why
            raise DemurError(
                f"the chat template refused the prompt {prompt.label!r} ({shown})",
                f"{roles}: {', '.join(turn.role for turn in turns)}",
                "leave the system prompt out" if system else "check the tokenizer's chat_template",
            ) from (error if shown == why else None)  # its traceback would say it

    def _render(self, turns: Sequence[Message], day: date = TODAY, answering: bool = True) -> str:
        template, more = self.template, {}
        if template is not None and "strftime_now" in template:
            more["chat_template"] = _dated(template, day)

        def written(turns: Sequence[Message], parts: bool) -> str:
            text: str = self.tokenizer.apply_chat_template(
                [
                    {"role": turn.role, "content": [{"type": "text", "text": turn.content}] if parts else turn.content}
                    for turn in turns
                ],
                tokenize=False,
                add_generation_prompt=answering,
                **self.template_args,
                **more,
            )
            return text

        asked = PROBE.format(0)
        return written(turns, takes_parts(template or "", asked, lambda p: written([Message("user", asked)], p)))

    def _probed(self, turns: Sequence[Message], answering: bool = True) -> str:
        """The same conversation in words that no template holds; just those where the template does not take them."""
        probes = [Message(turn.role, PROBE.format(i)) for i, turn in enumerate(turns)]
        try:
            return self._render(probes, answering=answering)
        except Exception:  # it takes the turns' words and not these, or refuses both, as will be told
            return " ".join(probe.content for probe in probes)

    def _check_all_there(self, turns: Sequence[Message], text: str, probe: str, prompt: Prompt) -> None:
        """Raises unless every turn stands in the text, and would whatever it said, as the probe shows: a request of one
        word is part of many a default system prompt.

        A template may take blanks off a turn's ends, and thoughts out of earlier answers.
        """
        for i, turn in enumerate(turns):
            said = turn.content.strip()
            there = said in text or (turn.role == "assistant" and without_thoughts(said).strip() in text)
            if said and not (there and PROBE.format(i) in probe):
                raise DemurError(
                    f"the chat template leaves out or changes {_name_of(turns, i)} of prompt {prompt.label!r}: "
                    f"what it says ({len(said)} characters) is not in what the model would read",
                    "a template that writes every turn as it is",
                    "mend the tokenizer's chat_template, or write it into the prompt's text",
                )
        # A system prompt may stand in the last request, as in old templates of Mistral; what was said has an order.
        places = [probe.find(PROBE.format(i)) for i, turn in enumerate(turns) if turn.role != "system"]
        if places != sorted(places):
            raise DemurError(
                f"the chat template writes the {len(places)} turns of prompt {prompt.label!r} in another order",
                "a template that writes them as they were said",
                "mend the tokenizer's chat_template",
            )

    # -- tokens -----------------------------------------------------------------------------------------------------

    def encode(
        self, prompts: Sequence[Prompt], *, length: int, context: int | None, stops: Sequence[int] = ()
    ) -> list[list[int]]:
        """Token rows of prompts; ``stops`` are the tokens that end an answer of the model.

        What is asked can't speak for the template: control tokens in a request or an earlier turn are read as the
        letters that they are written with. A prefill is the model's own voice, and its control tokens are tokens.

        Raises for an empty prompt, for one that ends in a token of ``stops`` (but for one that the tokenizer put there,
        which is taken off), for one that leaves no room for ``length`` tokens, and for one of which the tokenizer
        writes nothing. Warns of signs that it has no token for.
        """
        prompts = check_prompts(prompts)  # a generator is read once
        if not prompts:
            raise DemurError("no prompts came", "at least one", "give it a prompt")
        if not fits(length, int):
            raise DemurError(f"length {shown(length)}", "a whole number", "for example: length=32")
        rows = [self._row(prompt, length, context, stops) for prompt in prompts]
        check_written(self.tokenizer, prompts, self.system)
        return rows

    def _row(self, prompt: Prompt, length: int, context: int | None, stops: Sequence[int]) -> list[int]:
        if shows_nothing(prompt.text):
            then = "give it some words"
            if prompt.id.strip() and any(c.isspace() for c in prompt.id.strip()):
                then = "write Prompt(id, text), such as Prompt('q1', 'How are you?')"
            raise DemurError(f"prompt {prompt.label!r} is empty", "a text", then)
        if self.tokenizer is None:
            raise DemurError(
                "a model without a tokenizer",
                "tokenizer.json beside its weights",
                "download it, or bring one (in Python: demur.load(..., tokenizer=...), or rows of ids for canvas_of)",
            )
        text = self._sealed_text(prompt)
        row = row_of(self.tokenizer, text, templated=self.template is not None)
        # An ordinary word may be named as an end, and stand at the end of a request.
        if row and row[-1] in stops and row[-1] in text.controls and not self._answers_from(row[-1], prompt):
            piece = self.tokenizer.convert_ids_to_tokens(row[-1])
            by = "prefill" if prompt.prefill.rstrip().endswith(piece) else "chat template"
            raise DemurError(
                f"prompt {prompt.label!r} ends in {piece!r} by its {by}, with which the model ends its answers",
                "a prompt that is left open for an answer",
                "take it off the prefill" if by == "prefill" else "mend the tokenizer's chat_template",
            )
        if not row:
            raise DemurError(
                f"prompt {prompt.label!r} is no token at all", "a text that the tokenizer knows", "give it words"
            )
        if context is not None and len(row) + length > context:
            raise TooLong(
                f"prompt {prompt.label!r} takes {len(row)} tokens and the answer {length}",
                f"at most {context} together, the model's context",
                "shorten the prompt or the answer (length, or --length)",
            )
        return row

    def _answers_from(self, stop: int, prompt: Prompt) -> bool:
        """Whether a token that ends answers also opens them, as Phi-3's ``<|assistant|>``: the template writes it where
        an answer is to come and not elsewhere, and it is not the end of a sequence.
        """
        if prompt.prefill or self.template is None or stop == getattr(self.tokenizer, "eos_token_id", None):
            return False
        piece = self.tokenizer.convert_ids_to_tokens(stop)
        turns = self._turns(prompt)
        return len(self._render(turns).split(piece)) > len(self._render(turns, answering=False).split(piece))

    # -- identity ---------------------------------------------------------------------------------------------------

    @property
    def source(self) -> str:
        """Twelve hex digits of the template's source and the system prompt, as version 0.1.0 had them; ``none``
        without a template.
        """
        template = getattr(self.tokenizer, "chat_template", None)
        if template is None:
            return "none"
        return hashlib.sha256(f"{template}\0{self.system or ''}".encode()).hexdigest()[:12]

    def described(self) -> dict[str, Any]:
        """What a spec holds of it: ``template``, ``template_args``, ``day`` and ``source``, as in
        :class:`demur.types.Spec`.

        Raises for a system prompt that the template refuses or leaves out, or that there is no template for, and for a
        template that does not write the same twice.
        """
        if self.system:
            self.text(Prompt("probe", "Is it there?"))
        if self.template is None:
            return {"template": "none", "source": "none"}
        say_unopened(self._render)
        say_opened(lambda turns, answering: self._render(turns, answering=answering))
        once, again, later = (self._fixed(day) for day in (TODAY, TODAY, TODAY + timedelta(days=400)))
        if once != again:
            raise DemurError(
                "a chat template that writes one conversation in two ways",
                "one that writes the same whenever it is asked",
                "mend the tokenizer's chat_template",
            )
        say_letters(self.tokenizer, once[1] or once[0] or "", bare_row(self.tokenizer, once[1] or once[0] or ""))
        read = [None if text is None else bare_row(self.tokenizer, text) for text in once]
        return {
            "template": hashlib.sha256(json.dumps([once, read]).encode()).hexdigest()[:12],
            "template_args": dict(self.template_args),
            "day": TODAY.isoformat() if once != later else "",
            "source": self.source,
        }

    def _fixed(self, day: date) -> list[str | None]:
        """Fixed conversations as the template writes them; None where it refuses them."""
        systems = dict.fromkeys([self.system, None, "You answer in one word."])
        talks = (("Is it late?",), ("Is it late?", "No.", "  Is it\nearly, then? "))
        rendered: list[str | None] = []
        for system in systems:
            for talk in talks:
                turns = [Message(("user", "assistant")[i % 2], content) for i, content in enumerate(talk)]
                try:
                    first = [] if system is None else [Message("system", system)]
                    rendered.append(self._render([*first, *turns], day))
                except Exception:  # a template may refuse a system prompt, or a second turn
                    rendered.append(None)
        return rendered


def text_of(tokenizer: Any, prompt: Prompt, system: str | None) -> str:
    """The prompt as a tokenizer's chat template writes it: :meth:`Chat.text`."""
    return Chat(tokenizer, system).text(prompt)


def template_hash(tokenizer: Any, system: str | None, template_args: Mapping[str, Any] | None = None) -> str:
    """Twelve hex digits of what a chat template makes of fixed conversations; ``none`` for a model without a template.

    Errors: :meth:`Chat.described`.
    """
    described: str = Chat(tokenizer, system, template_args or {}).described()["template"]
    return described


def _name_of(turns: Sequence[Message], i: int) -> str:
    if i == len(turns) - 1:
        return "the request"
    return "the system prompt" if turns[i].role == "system" else f"turn {i + 1} ({turns[i].role})"


def _answer_begun(text: str, prefill: str) -> str:
    """A prefill as it stands behind a rendered prompt, in the answer: see :meth:`Chat.text`."""
    if text.endswith("<|start|>assistant"):  # gpt-oss: what follows is the name of a channel
        return prefill if prefill.startswith("<|") else f"<|channel|>final<|message|>{prefill}"
    opened = open_thought(text[-40:])
    if not opened or not text.rstrip().endswith(opened):
        return prefill
    ends = dict(THOUGHTS).get(opened, "") or next(e for b, e in THOUGHTS if b.lower() == opened.lower())
    if prefill.lstrip().startswith(opened):
        return prefill.lstrip().removeprefix(opened).lstrip("\n")
    if ends in prefill:
        return prefill
    gap = "\n\n" if ends.startswith("</") else ""
    return f"{gap[: 2 - len(text) + len(text.rstrip())]}{ends}{gap}{prefill}"


def _dated(template: str, day: date) -> str:
    """A template for which it is always the same day: ``strftime_now`` is a macro of it, in English."""
    values = {f"%{code}": day.strftime(f"%{code}") for code in "aAwdbBmyYjUWuVGxcHIpMSfXZz"}
    values |= {"%e": f"{day.day:2d}", "%D": day.strftime("%m/%d/%y"), "%F": day.isoformat(), "%h": values["%b"]}
    values |= {"%T": "00:00:00", "%R": "00:00", "%r": "12:00:00 AM", "%P": "am", "%k": " 0", "%l": "12", "%n": "\n"}
    values |= {"%t": "\t", "%C": f"{day.year // 100:02d}", "%g": day.strftime("%G")[2:]}
    values["%s"] = str(int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()))
    values |= {f"%_{code}": f"{int(values[f'%{code}']):2d}" for code in "dmHI"}
    values |= {f"%^{code}": values[f"%{code}"].upper() for code in "aAbBhp"}
    values |= {f"%{flag}{code}": str(int(values[f"%{code}"])) for flag in "-#" for code in "dmyHIMSjUWekl"}
    body = "format | replace('%%', '\\x00')"
    for code, value in sorted(values.items(), key=lambda item: -len(item[0])):
        body += f" | replace('{code}', '{value}')"
    return f"{{%- macro strftime_now(format) -%}}{{{{ {body} | replace('\\x00', '%') }}}}{{%- endmacro %}}\n{template}"


def canvas_of(
    rows: Sequence[Sequence[int]],
    length: int = 0,
    *,
    fill: int,
    pad: int | None = None,
    device: torch.device | str = "cpu",
    holes: Sequence[Sequence[int]] | None = None,
) -> Canvas:
    """A canvas of token rows, padded on the left, each followed by ``length`` open places.

    ``fill`` is the token written into open places (the mask id of a diffusion model), ``pad`` the one in padding
    (default: ``fill``). ``holes`` opens places inside a row as well, given by row as positions counted from its
    start; what stood there is overwritten by ``fill``.
    """
    if not rows or length < 0:
        raise DemurError(
            f"{len(rows)} rows, length {length}", "at least one row, a length of at least 0", "give it both"
        )
    broken = next((token for row in rows for token in row if not float(token).is_integer()), None)
    if broken is not None:
        raise DemurError(f"token {broken!r}", "whole numbers, as a tokenizer writes them", "give it rows of ids")
    if holes is not None and len(holes) != len(rows):
        raise DemurError(f"holes of {len(holes)} rows for {len(rows)}", "a list for each row", "an empty one for none")
    width = max(len(row) for row in rows) + length
    ids = torch.full((len(rows), width), fill, dtype=torch.long)
    open_ = torch.zeros((len(rows), width), dtype=torch.bool)
    padding = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, row in enumerate(rows):
        start = width - length - len(row)
        ids[i, start : start + len(row)] = torch.tensor(list(row), dtype=torch.long)
        open_[i, start + len(row) :] = True
        ids[i, :start] = fill if pad is None else pad
        padding[i, :start] = True
        for hole in holes[i] if holes is not None else ():
            if not 0 <= hole < len(row):
                raise DemurError(
                    f"a hole at {hole} in a row of {len(row)} tokens", "a position inside the row", "count from 0"
                )
            open_[i, start + hole], ids[i, start + hole] = True, fill
    return Canvas(ids=ids.to(device), open=open_.to(device), pad=padding.to(device))
