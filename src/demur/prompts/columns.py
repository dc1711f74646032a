"""From a row to a prompt: which column holds what, and what happens where several could.

The file is long because each rule of reading stands beside the error that it ends in.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from demur.prompts.conversations import is_conversation, turns_of
from demur.prompts.rows import (
    Row,
    Unreadable,
    called,
    fold,
    is_unicode,
    joined,
    kind_of,
    left_out,
    mapped,
    plain,
    says_something,
)
from demur.refusals import shows_nothing
from demur.types import DemurError, DemurWarning, Message, Prompt

FIELDS: Mapping[str, Any] = {f.name: f.default for f in fields(Prompt)}
"""The fields of a prompt and their defaults."""
CONVERSATION_COLUMNS = ("messages", "conversations", "conversation")
"""Columns that hold a conversation, as a list of turns."""
ASKED_COLUMNS = ("text", "prompt", "instruction", "question", "query", "request", "forbidden_prompt", "user_prompt")
"""Columns that hold what is asked. Two of them in a row must say the same."""
BEHIND_COLUMNS = ("goal", "behavior", "behaviour", "input")
"""Columns that hold the request where no other does, first match wins: beside a prompt, a goal is what is behind it."""
TEXT_COLUMNS = (*ASKED_COLUMNS, *BEHIND_COLUMNS)
"""Where the request is looked for when nobody names its column, in this order; any case, and a blank or a hyphen is
an underscore."""
CONTEXTS: Mapping[str, str] = {"behavior": "contextstring", "instruction": "context", "question": "context"}
"""Columns with a passage that a request is about, by the request's own column: HarmBench's, which is put before it as
its authors do, and Dolly's and SQuAD's, put behind it as Alpaca's ``input`` is."""
RESPONSE_COLUMNS = (
    "response", "answer", "output", "completion", "generation", "reply", "model_output", "model_response", "assistant",
    "model_answer", "model_completion", "assistant_response", "llm_response", "llm_answer", "llm_output",
    "generated_text", "generated_answer", "generated_response", "prediction", "predicted_answer", "bot_response",
)  # fmt: skip
"""Where a transcript's answer is looked for. Two of them in a row must say the same: a data set's own answer stands
beside the model's in many a file."""
THOUGHT_COLUMNS = (
    "reasoning", "reasoning_content", "reasoning_text", "thinking", "thought", "thoughts", "chain_of_thought", "cot",
    "scratchpad",
)  # fmt: skip
"""Columns, and keys of a turn, with what a model thought before its answer."""
BESIDE_COLUMNS = (
    "passage", "paragraph", "document", "documents", "article",
    "choices", "options", "alternatives", "endings", "answer_choices", "answer_options", "possible_answers",
    "history", "chat_history", "conversation_history", "dialogue_history", "previous_turns",
    "tools", "functions", "image", "images", "image_url", "image_path", "audio", "audio_path", "video",
    "video_path", "attachments",
)  # fmt: skip
"""Columns that belong to a request and are not asked with it: a request that loses one is
another request."""
MAYBE_BESIDE = (
    "context", "contexts", "ctxs", "background", "story", "premise", "facts", "code", "snippet", "table", "schema",
    "files", "examples", "few_shot", "demonstrations", "instances", "prefix", "suffix", "adv_suffix", "jailbreak",
    "jailbreak_prompt", "adversarial", "adversarial_prompt", "attack_prompt", "image_file",
)  # fmt: skip
"""Columns that may belong to a request, and may be notes: left aside with a warning."""
SERIES = re.compile(
    r"(?P<stem>|options?|opt|op|choices?|alternatives?|alt|endings?|sol|distractors?|opci[oó]n|opção|scelta|möglichkeit|"
    r"(?P<reply>answers?|ans|candidates?|antwort|réponse|respuesta))_?(?P<place>[a-j]|10|[0-9])"
)
"""Columns with one choice each, as in ``A`` to ``D``, ``option_a``, ``choice1``, ``opa``. With the stems of ``reply``
they may as well be answers of several models."""
ALIASES: Mapping[str, tuple[str, ...]] = {
    "licence": ("licence", "license"),
    "system": (
        "system", "system_prompt", "system_message", "system_instruction", "system_instructions", "sys_prompt",
        "systemprompt",
    ),
    "harmful": ("harmful", "is_harmful", "isharmful"),
}  # fmt: skip
"""Other names of fields. Two of them in a row must say the same."""

# Of English, German, French, Spanish, Italian, Portuguese, Dutch, Swedish, Danish, Norwegian, Finnish, Polish, Czech,
# Hungarian, Turkish and Russian spreadsheets.
YES = (
    "true", "t", "1", "1.0", "yes", "y", "wahr", "ja", "j", "vrai", "oui", "verdadero", "sí", "si", "vero", "sì",
    "verdadeiro", "sim", "waar", "sant", "sand", "sann", "tosi", "prawda", "tak", "pravda", "igaz", "doğru", "истина",
    "да",
)  # fmt: skip
NO = (
    "false", "f", "0", "0.0", "no", "n", "falsch", "nein", "faux", "non", "falso", "não", "onwaar", "nee", "falskt",
    "falsk", "usann", "epätosi", "fałsz", "nie", "nepravda", "hamis", "yanlış", "yanliş", "ложь", "нет",
)  # fmt: skip
LABELS: Mapping[str, bool | None] = {
    **dict.fromkeys((*YES, "harmful", "unsafe"), True),
    **dict.fromkeys((*NO, "harmless", "unharmful", "safe", "benign"), False),
    **dict.fromkeys(("", "na", "n/a", "nan", "none", "null"), None),
}
"""What a label may be, in any case; the last ones say nothing."""
MAYBE_LABELS = re.compile(
    r"label|class$|harm|safe|toxic|malicious|benign|jailbreak|unethical|illegal|injection"
    r"|(?:should|must|expect\w*|to)_(?:be_)?refus|refus\w*_expected"
)
"""In names of columns that may be labels, of which nobody knows which value means harm. They are not read by
themselves. What was refused is said of an answer."""
_MAYBE_LABELS_TOO = re.compile(r"(?:^|_)(?:type|kind|category|split|set|role|side|tag)$")
_SIDES = ("harmful", "unsafe", "harmless", "unharmful", "safe", "benign")
_SIDES_ALONE = ("jailbreak", "malicious", "toxic")
_SIDE_IN_A_VALUE = re.compile(rf"[a-z]+[_:-](?:{'|'.join(_SIDES)})|(?:{'|'.join(_SIDES)}|contrast)[_:-][a-z_]+")
"""Values that speak of harm whatever their column is called: alone, and with another word, as ``vanilla_benign``."""

_PLAIN = {"id", "text", "harmful", "attack", "parent", "prefill", "messages"}
"""Columns of what :meth:`demur.types.Prompt.plain` gives: there, messages are the turns before the text."""
MISSING = (
    "nan", "nat", "none", "null", "na", "n/a", "<na>", "<null>", "#n/a", "#name?", "#ref!", "#value!", "#null!",
    "#num!", "#div/0!",
)  # fmt: skip
"""How tools write a value that is missing, and spreadsheets one that they could not make; nobody asks that."""


@dataclass(frozen=True)
class Reading:
    """How rows of one source become prompts. ``columns`` maps fields to the source's columns; ``label`` is the source's
    own, ``harmful`` the one that was asked for; ``answers``: rows have responses. ``warned``: of which columns was
    spoken, since one warning a source is enough.
    """

    stem: str
    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    label: bool | None = None
    harmful: bool | None = None
    answers: bool = False
    warned: set[str] = field(default_factory=set, compare=False, repr=False)

    def wants(self, name: str) -> bool:
        """Whether a column may be read."""
        folded = fold(name)
        if (
            name in self.columns.values()
            or folded
            in (
                *CONVERSATION_COLUMNS,
                *TEXT_COLUMNS,
                *BESIDE_COLUMNS,
                *MAYBE_BESIDE,
            )
            or _MAYBE_LABELS_TOO.search(folded)
            or MAYBE_LABELS.search(folded)
            or SERIES.fullmatch(folded)
        ):
            return True
        own = {alias for field_name in FIELDS for alias in ALIASES.get(field_name, (field_name,))}
        return folded in own or (self.answers and folded in (*RESPONSE_COLUMNS, *THOUGHT_COLUMNS))


def prompt_of(row: Row, reading: Reading) -> Prompt:
    """One row as a prompt. Raises, naming the row, for what is none."""
    made: dict[str, Any] = {"id": f"{reading.stem}-{row.number:04d}", "source": reading.name}
    for name in FIELDS:
        if name in ("text", "messages"):
            continue
        column = _column(name, row, reading.columns)
        value = None if column is None else row.values[column]
        if name == "harmful":
            made[name] = _said_of_harm(row, reading)
            continue
        if name == "id" and isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of numbers with a gap in it
        said = plain(value, row.where, column)
        if said is not None and (said or name != "id"):
            made[name] = said
    request = _request(row, reading)
    prefill = request.pop("prefill", "")
    if prefill and "prefill" not in made and reading.columns.get("prefill", "prefill"):
        made["prefill"] = prefill
    if request.get("system") and "system" in made and made["system"] != request["system"]:
        raise _conflict(row, "system", "system", "the first message", "leave one of them out")
    made |= request
    for name, value in made.items():
        if isinstance(value, str) and not is_unicode(value):
            raise DemurError(f"{row.where}: the {name} holds half of a surrogate pair", "Unicode text")
    unsaid = made["harmful"] is None and reading.label is None and "harmful" not in reading.columns
    if unsaid and reading.harmful is not None:
        check_no_label(row, reading)
    made["harmful"] = _harmful(made["harmful"], row.where, reading)
    _say_mistyped(row, reading)
    try:
        return Prompt(**made)
    except DemurError as error:
        raise DemurError(f"{row.where}: {error.came}", error.expected, error.then) from error


_SPELT = ("prefill", *ALIASES["system"], *ALIASES["harmful"], *CONVERSATION_COLUMNS)
"""Names of columns that change what is asked, and are passed over where they are mistyped."""
_OF_A_FIELD = re.compile(r"_?(?:ids?|no|nr|index|idx|count|hash)$")
"""Ends of names that are no slips: ``conversation_id`` stands beside many a conversation."""


def _say_mistyped(row: Row, reading: Reading) -> None:
    """Says once a source which column is not read and nearly has the name of one that is."""
    for column, value in row.values.items():
        folded = fold(column)
        if reading.wants(column) or not says_something(value) or len(folded) < 5 or _OF_A_FIELD.search(folded):
            continue
        near = difflib.get_close_matches(folded, _SPELT, n=1, cutoff=0.87)
        if near and column not in reading.warned:
            reading.warned.add(column)
            came = f"{row.where}: the column {column!r} is not read"
            warnings.warn(f"{came}; did you mean {near[0]!r}?", DemurWarning, stacklevel=2)


def label_of(row: Row, reading: Reading) -> bool | None:
    """What a row, or its source, says of harm; None where neither does."""
    said = _said_of_harm(row, reading)
    return reading.label if said is None else said


def _said_of_harm(row: Row, reading: Reading) -> bool | None:
    """What a row itself says of harm; None where it says nothing. Raises for a column that was named for it, and whose
    true and false mean the contrary by its name: every label would be turned round.
    """
    column = _column("harmful", row, reading.columns)
    if column is None:
        return None
    said = _label(row.values[column], row.where)
    if said is not None and _is_contrary(column) and str(row.values[column]).strip().lower() not in _SIDES:
        raise DemurError(
            f"{row.where}: the column {column!r} is named for harm, and is true of what is harmless by its name",
            "a column that is true of what is harmful, or the words harmful and harmless",
            f"turn its values round; or ignore it: {left_out('harmful')}",
        )
    return said


def _is_contrary(column: str) -> bool:
    """Whether a column's name says that what is true of a row makes it harmless."""
    folded = fold(column)
    return _HARMLESS.search(folded) is not None and not re.search(r"(?:^|_|is)(?:not|non|un|in)_", folded)


_HARMLESS = re.compile(
    r"(?:^|_)(?:is_?)?(?:safe|harmless|unharmful|benign)(?:_(?:label|prompt|request|query|question|input|to_\w+))?$"
)


def maybe_label(row: Row, reading: Reading) -> str | None:
    """A column whose value in this row could be a label; None if there is none. Requests and ids are none."""
    named = (reading.columns.get("text"), reading.columns.get("id"))
    for column, value in row.values.items():
        if column in named or fold(column) in (*TEXT_COLUMNS, "id"):
            continue
        said = str(value).strip().lower() if isinstance(value, str | int | float) else ""
        if said in (*_SIDES, *_SIDES_ALONE) or _SIDE_IN_A_VALUE.fullmatch(said):
            return column
        if MAYBE_LABELS.search(fold(column)) and (LABELS.get(said) is not None or _SHARE.fullmatch(said)):
            return column
    return None


_SHARE = re.compile(r"0?\.\d+(?:e-\d+)?|\d(?:\.\d+)?e-\d+")
"""A number between 0 and 1, as a classifier gives."""


def check_no_label(row: Row, reading: Reading) -> None:
    """Raises for a row with a column that may be a label, where somebody has said what all rows are, or which count."""
    if column := maybe_label(row, reading):
        known = str(row.values[column]).strip().lower() in LABELS
        turned = _is_contrary(column) and str(row.values[column]).strip().lower() not in _SIDES
        name = "turn its values round under the name harmful" if turned else f"name it: {mapped('harmful', column)}"
        raise DemurError(
            f"{row.where} has the column {column!r}, and nobody has said whether it marks harm",
            "to know it before rows are marked, or taken by their side",
            f"{name if known else 'write its values as harmful and harmless'}; or ignore it: {left_out('harmful')}",
        )


def answer_of(row: Row, reading: Reading) -> str:
    """A transcript's answer; empty where it has none. Raises where two columns differ, and where there is no column."""
    if name := reading.columns.get("response"):
        return _response(_named(name, row), row.where, name)
    columns = called(RESPONSE_COLUMNS, tuple(row.values))
    texts = {column: _response(row.values[column], row.where, column) for column in columns}
    texts = {column: text for column, text in texts.items() if text.strip() and not _is_class(column, row)}
    spoken = _last_turns(row, reading)
    for column, turns in spoken.items():
        if turns and turns[-1].role == "assistant":
            texts[column] = turns[-1].content
    if len({text.strip() for text in texts.values()}) > 1:
        first = next(iter(texts))
        second = next(column for column, text in texts.items() if text.strip() != texts[first].strip())
        raise _conflict(row, "response", first, second, f"name the answer's column: {mapped('response')}")
    if not texts and not columns and not spoken:
        raise DemurError(
            f"{row.where} has the columns {row.listed}",
            f"one of {joined(RESPONSE_COLUMNS)}, or messages that end with the assistant's answer",
            f"name the one that holds the answer: {mapped('response')}",
        )
    return next(iter(texts.values()), "")


def _is_class(column: str, row: Row) -> bool:
    """Whether a column holds the number of a class, as a classifier's prediction does."""
    return fold(column) == "prediction" and isinstance(row.values[column], bool | int | float)


# --- the request --------------------------------------------------------------------------------------------


def _request(row: Row, reading: Reading) -> dict[str, Any]:
    """Text, earlier turns, system prompt and prefill of a row."""
    columns = reading.columns
    if columns.get("text") or columns.get("messages"):
        return _chosen(row, reading)
    found = _looked_for(row, reading)
    _check_beside(row, reading)
    return found


def _looked_for(row: Row, reading: Reading) -> dict[str, Any]:
    """The request of a row of which nobody said where it stands."""
    columns = reading.columns
    names = CONVERSATION_COLUMNS if "messages" not in columns else ()
    known = called((*names, *ASKED_COLUMNS), tuple(row.values))
    if not known:
        return _behind(row, reading)
    asked = {column: row.values[column] for column in known if _is_asked(row.values[column])}
    if not asked:
        return {"text": _text(row.values[known[0]], known[0], row.where)}
    if {*row.values} >= _PLAIN and {*asked} == {"text", "messages"}:
        return {"text": _text(asked["text"], "text", row.where)} | _earlier(asked["messages"], row, "messages")
    return _first_of(asked, row, reading)


def _chosen(row: Row, reading: Reading) -> dict[str, Any]:
    """The request of the columns that somebody named; beside a text, messages are the turns before it."""
    text, messages = reading.columns.get("text"), reading.columns.get("messages")
    if messages and not text:
        return _conversation(_named(messages, row), row, messages, reading)
    column = str(text)
    value = _named(column, row)
    if is_conversation(value):
        return _conversation(value, row, column, reading)
    earlier = _earlier(_named(messages, row), row, messages) if messages else {}
    return {"text": _text(value, column, row.where)} | earlier


def _first_of(asked: Mapping[str, Any], row: Row, reading: Reading) -> dict[str, Any]:
    """The first of several columns, if all say the same."""
    requests = {}
    for column, value in asked.items():
        talks = fold(column) in CONVERSATION_COLUMNS or is_conversation(value)
        read = _conversation if talks else _spoken
        requests[column] = read(value, row, column, reading)
    first, *others = requests
    extra = next(iter(called(("input",), tuple(row.values))), None)
    more = row.values[extra] if extra is not None else None
    if isinstance(more, str) and more.strip() and extra is not None:
        if fold(first) == "instruction":
            requests[first]["text"] += f"\n\n{more}"
        elif more.strip() != requests[first]["text"].strip():
            raise _conflict(row, "text", first, extra, f"name the one that holds the request: {mapped('text', first)}")
    if passage := _context(first, row):
        requests[first]["text"] += f"\n\n{passage}"
    for column in others:
        if requests[column]["text"].strip() != requests[first]["text"].strip():
            raise _conflict(row, "text", first, column, f"name the one that holds the request: {mapped('text', first)}")
    return requests[first]


def _check_beside(row: Row, reading: Reading) -> None:
    """Raises for a column that belongs to the request and was not asked with it."""
    columns = tuple(row.values)
    asked = called(TEXT_COLUMNS, columns)
    first = next((column for column in asked if _is_asked(row.values[column])), None)
    request = first or next(iter(called(CONVERSATION_COLUMNS, columns)), "...")
    field_name = "messages" if first is None else "text"
    _check_series(row, reading, request, field_name)
    passages = {CONTEXTS.get(fold(request)), fold(request)}
    for column in called(MAYBE_BESIDE, columns):
        if fold(column) not in passages and column not in reading.columns.values() and _is_asked(row.values[column]):
            _left_aside(row, reading, [column], request, "if it belongs to the request, write it there")
    for column in called(BESIDE_COLUMNS, columns):
        value = row.values[column]
        is_note = isinstance(value, bool | int | float) or column in reading.columns.values()
        if _is_asked(value) and not is_note and fold(column) not in passages:
            raise DemurError(
                f"{row.where}: the column {column!r} beside {request!r} holds {kind_of(value)} and would not be asked",
                "the whole request in one column",
                f"write it into the request; or ask without it: {mapped(field_name, request)}",
            )


def _check_series(row: Row, reading: Reading, request: str, field_name: str) -> None:
    """Raises for choices that stand in a column each; warns of what may be choices or several models' answers."""
    taken = (request, *reading.columns.values())
    said = tuple(column for column, value in row.values.items() if says_something(value) and column not in taken)
    for found in series_of(said):
        listed = joined(found)
        then = f"write them into the request; or ask without them: {mapped(field_name, request)}"
        if (told := SERIES.fullmatch(fold(found[0]))) and told["reply"]:
            _left_aside(row, reading, found, request, "if they are choices, write them into the request's column")
        else:
            came = f"{row.where}: the columns {listed} beside {request!r} hold a choice each and would not be asked"
            raise DemurError(came, "the whole request in one column", then)


def _left_aside(row: Row, reading: Reading, columns: Sequence[str], request: str, then: str) -> None:
    """Says once a source which columns are not asked, where they may belong to the request."""
    listed = joined(map(repr, columns))
    if listed not in reading.warned:
        reading.warned.add(listed)
        came = f"{row.where}: {listed} beside {request!r} {'is' if len(columns) == 1 else 'are'} not asked"
        warnings.warn(f"{came}; {then}", DemurWarning, stacklevel=2)


@lru_cache(maxsize=256)
def series_of(columns: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Columns that are counted through, two or more of one stem: from a, from 0 or from 1."""
    stems: dict[tuple[str, bool], dict[str, str]] = {}
    for column in columns:
        if told := SERIES.fullmatch(fold(column)):
            stems.setdefault((told["stem"], told["place"].isalpha()), {})[told["place"]] = column
    begun = [of for of in stems.values() if {*of} >= {"a", "b"} or {*of} >= {"0", "1"} or {*of} >= {"1", "2"}]
    return tuple(tuple(of[place] for place in sorted(of, key=lambda p: (len(p), p))) for of in begun)


def _context(column: str, row: Row) -> str:
    """The passage that a request of this column is about; empty where there is none. Raises for one that is no text."""
    name = CONTEXTS.get(fold(column))
    found = next(iter(called((name,), tuple(row.values))), None) if name else None
    passage = row.values[found] if found is not None else None
    if found is not None and says_something(passage) and not isinstance(passage, str):
        raise DemurError(
            f"{row.where}: the column {found!r} beside {column!r} holds {kind_of(passage)}",
            "the passage that the request is about, as text",
            f"write it as text; or ask without it: {mapped('text', column)}",
        )
    return passage if isinstance(passage, str) and passage.strip() else ""


def _spoken(value: Any, row: Row, column: str, reading: Reading) -> dict[str, Any]:
    return {"text": _text(value, column, row.where)}


def _behind(row: Row, reading: Reading) -> dict[str, Any]:
    """The request of a row without any column for one: its goal, its behaviour, or an input."""
    for column in called(BEHIND_COLUMNS, tuple(row.values)):
        text, passage = _text(row.values[column], column, row.where), _context(column, row)
        return {"text": f"{passage}\n\n---\n\n{text}" if passage else text}
    raise DemurError(
        f"{row.where} has the columns {row.listed}",
        f"one of {joined((*TEXT_COLUMNS, *CONVERSATION_COLUMNS[:2]))}",
        f"name the one that holds the request: {mapped('text')}; a table needs a first line with its columns' names",
    )


def _conversation(value: Any, row: Row, column: str, reading: Reading) -> dict[str, Any]:
    """A conversation taken apart. One that ends with the assistant is an answer, unless its column was named."""
    turns = turns_of(value, row.where, column)
    last = turns[-1]
    named = column in (reading.columns.get("messages"), reading.columns.get("text"))
    if last.role == "assistant" and not (named or reading.answers) and reading.columns.get("prefill", "-"):
        raise DemurError(
            f"{row.where}: the conversation in {column!r} ends with the assistant's turn",
            "the user's request at the end",
            f"leave that answer out: {left_out('prefill')}; keep it as the beginning of the answer: "
            f"{mapped('messages', column)}; demur replay reads finished answers",
        )
    request: dict[str, Any] = {}
    if last.role == "assistant" and len(turns) > 1:
        turns = turns[:-1]
        if not reading.answers:
            request["prefill"] = last.content
    if turns and turns[0].role == "system":
        request["system"] = turns.pop(0).content
    if not turns or turns[-1].role != "user" or any(turn.role == "system" for turn in turns):
        roles = joined(turn.role for turn in turns) or "a system prompt"
        raise DemurError(
            f"{row.where}: the conversation in {column!r} is {roles}",
            "a system message at most at the beginning, and the user's request at the end",
        )
    request["text"] = _text(turns.pop().content, column, row.where)
    if turns:
        request["messages"] = tuple(turns)
    return request


def _earlier(value: Any, row: Row, column: str) -> dict[str, Any]:
    """The turns before a request that has a column of its own."""
    if not _is_asked(value):
        return {}
    turns, request = turns_of(value, row.where, column), {}
    if turns[0].role == "system":
        request["system"] = turns.pop(0).content
    return request | ({"messages": tuple(turns)} if turns else {})


def _last_turns(row: Row, reading: Reading) -> dict[str, list[Message]]:
    """The turns of every column that holds a conversation in this row."""
    found = {}
    chosen = {reading.columns.get("messages"), reading.columns.get("text")} - {None, ""}
    for column, value in row.values.items():
        talks = fold(column) in CONVERSATION_COLUMNS or is_conversation(value)
        usual = fold(column) in (*CONVERSATION_COLUMNS, *ASKED_COLUMNS) and not chosen
        if talks and (usual or column in chosen) and _is_asked(value):
            found[column] = turns_of(value, row.where, column)
    return found


def _is_asked(value: Any) -> bool:
    """Whether a value says something; an empty list says nothing in a table, too."""
    return says_something(value) and not (isinstance(value, str) and value.strip() in ("[]", "()"))


# --- values -------------------------------------------------------------------------------------------------


def _named(column: str, row: Row) -> Any:
    if column not in row.values:
        raise DemurError(f"{row.where} has no column {column!r}", f"one of {row.listed}")
    return row.values[column]


def _column(name: str, row: Row, columns: Mapping[str, str]) -> str | None:
    """The source's column for a field of ours; None if it has none. The exact name wins over another case."""
    if name in columns:
        if columns[name]:
            _named(columns[name], row)
        return columns[name] or None
    aliases = ALIASES.get(name, (name,))
    said = {column: row.values[column] for column in called(aliases, tuple(row.values))}
    said = {column: value for column, value in said.items() if says_something(value)}
    if len({plain(value, row.where, column) for column, value in said.items()}) > 1:
        first, second, *_ = said
        raise _conflict(row, name, first, second, f"name the one that is meant: {mapped(name, first)}")
    if said:
        return next(iter(said))
    exact = next((alias for alias in aliases if alias in row.values), None)
    return exact or next(iter(called(aliases, tuple(row.values))), None)


def _text(value: Any, column: str, where: str) -> str:
    """The request as it stands, or an error that names the line where there is none."""
    if isinstance(value, str | bytes) or not says_something(value) or isinstance(value, Unreadable):
        text = plain(value, where, column) if says_something(value) else ""
        if text is None or shows_nothing(text):
            raise DemurError(f"{where}: the column {column!r} is empty", "the text of a request")
        if text.strip().lower() in MISSING:
            raise DemurError(
                f"{where}: the column {column!r} says {text.strip()!r}, which stands for a missing value",
                "the text of a request",
                "take the row out",
            )
        return text
    then = ""
    if isinstance(value, dict | list):
        then = "a file of columns instead of rows is written anew with pandas: to_json(..., orient='records')"
    raise DemurError(f"{where}: the column {column!r} holds {kind_of(value)}", "the text of a request", then)


def _response(value: Any, where: str, column: str) -> str:
    """An answer as text; a list of one, a message and a number are answers, too."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and ("content" in value or "value" in value):
        value = turns_of([{"role": "assistant", **value}], where, column)[0].content
    if isinstance(value, list | tuple | dict | bool):
        many = f"{len(value)} values" if isinstance(value, list | tuple) and value else kind_of(value)
        if says_something(value):
            raise DemurError(
                f"{where}: the column {column!r} holds {many}", "one answer, as text", "write a row for each answer"
            )
        return ""
    text = plain(value, where, column) or ""
    if not is_unicode(text):
        raise DemurError(f"{where}: the response holds half of a surrogate pair", "Unicode text")
    return text


def _label(value: Any, where: str) -> bool | None:
    """True, False, or None where the row says nothing."""
    key = (plain(value, where, "harmful") or "").strip().lower()
    if key not in LABELS:
        said = repr(value) if len(key) < 16 and len(key.split()) == 1 else f"{kind_of(value)} of {len(key)} characters"
        raise DemurError(
            f"{where}: harmful is {said}",
            "true, false, or nothing (also yes, no, 1, 0, harmful, harmless, in any case)",
            f"ignore the column: {left_out('harmful')}",
        )
    return LABELS[key]


def _harmful(said: bool | None, where: str, reading: Reading) -> bool | None:
    """The label of a row: its own, its source's, or the one that was asked for; these must not contradict."""
    own, wanted = reading.label if said is None else said, reading.harmful
    if wanted is not None and own not in (None, wanted):
        raise DemurError(
            f"{where} says harmful={own}, and harmful={wanted} was asked for",
            "labels that agree",
            f"leave `harmful` out to keep the source's own, ignore them with {left_out('harmful')}, or take the rows "
            f"of one label with side='harmful' or side='harmless'",
        )
    return own if wanted is None else wanted


def _conflict(row: Row, what: str, first: str, second: str, then: str) -> DemurError:
    names: Sequence[str] = (first, second)
    return DemurError(
        f"{row.where}: the columns {' and '.join(map(repr, names))} say different things",
        f"one {'request' if what == 'text' else what} a row",
        then,
    )
