"""Attacks that search: each is made once for its subject, and what it found is kept in the run's folder.

PAIR and ``translated`` ask other models, which may never say the same again. A search that is done again for another
defense, or after a kill, would measure another attack: so the first result counts, whoever comes second.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from demur import artefact
from demur.attacks import chat_by
from demur.experiment.answers import length_of, model_named, model_of, run_prompts, sampler_of
from demur.experiment.attacking import (
    attacked,
    canvas_under,
    is_file,
    kind_of,
    made_for,
    reads_answers,
    ready_made,
    searches,
    translates,
)
from demur.experiment.code import code_of
from demur.experiment.config import Attacked, Config, content_of, substance
from demur.experiment.fitting import length_in_keys
from demur.experiment.queries import chat_in, local_chat, queries_of
from demur.experiment.requests import prompts_of
from demur.experiment.units import Unit
from demur.types import REFUSED, DemurError, Prompt


def asked_of(folder: Path, config: Config, unit: Unit) -> list[Prompt]:
    """The prompts of a unit as its attack makes them; a search is made against the subject itself, undefended."""
    plain, attack = prompts_of(config.prompts, unit.role), unit.attack
    if is_file(attack.name):
        return ready_made(attack, plain)[unit.begin : unit.end]
    prompts = plain[unit.begin : unit.end]
    if not searches(attack):
        return attacked(attack, prompts, model_of(unit.subject))
    return search(folder, content(config, unit), prompts, lambda: _made(config, unit))


def _made(config: Config, unit: Unit) -> Any:
    """A unit's attack, against its subject."""
    attack, subject = unit.attack, unit.subject
    if translates(attack):  # the subject is not asked, and need not be here
        return queries_of(attack.name, kind_of(attack.name), attack.settings, _unasked, _local(attack))
    model = model_of(subject)
    if not reads_answers(attack):
        return made_for(attack, model)
    sampler = sampler_of(subject, model, config.steps)

    def target(prompt: Prompt) -> str:
        try:
            canvas_under(attack, model, [prompt], length_of(config, model))
        except DemurError:  # such as a message longer than its context: it answers nothing
            return ""
        return run_prompts(config, model, sampler, [prompt], 0)[0].answer()

    return queries_of(attack.name, kind_of(attack.name), attack.settings, target, _local(attack))


def _local(attack: Attacked) -> Callable[[list[dict[str, str]]], str] | None:
    """The attacker, or the translator, of an attack where it is a model that runs here. An attacker must vary, and a
    translator say the same again.
    """
    here, part = local_chat(attack.settings), chat_in(kind_of(attack.name))
    if not here:
        return None
    return chat_by(model_named(here), temperature=0.0 if part == "translator" else 1.0, part=part)


def _unasked(_: Prompt) -> str:
    raise AssertionError("an attack that translates asks no subject")


def content(config: Config, unit: Unit) -> dict[str, Any]:
    """All that what a search finds for a prompt depends on, beside the prompt and the weights."""
    attack, subject = unit.attack, unit.subject
    depends: dict[str, Any] = {"attack": attack.label, "settings": substance(attack.settings)}
    if not translates(attack):
        depends |= {"model": subject.model, "dtype": subject.dtype}
    if reads_answers(attack):  # which are a sampler's; the others read logits
        length = length_in_keys(config, subject)
        depends |= {"subject": content_of(subject), "length": length, "steps": config.steps}
    code = code_of([attack.name, depends])
    return depends | ({"code": code} if code else {})


def search_files(folder: Path, config: Config, units: Sequence[Unit]) -> list[Path]:
    """Where the searches of these units are kept."""
    paths: dict[Path, None] = {}
    for unit in units:
        if searches(unit.attack):
            prompts = prompts_of(config.prompts, unit.role)[unit.begin : unit.end]
            paths |= dict.fromkeys(kept_at(folder, content(config, unit), prompt) for prompt in prompts)
    return list(paths)


def kept_at(folder: Path, content: Mapping[str, Any], prompt: Prompt) -> Path:
    """The file of what a search found for a prompt; ``content`` is all that this depends on beside it."""
    text = json.dumps([content, prompt.plain()], sort_keys=True, default=str)
    return folder / "attacked" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def search(
    folder: Path, content: Mapping[str, Any], prompts: Sequence[Prompt], attack: Callable[[], Any]
) -> list[Prompt]:
    """The prompts as a search attacks them: what it found before for equal ``content``, in this run, or finds now.

    Each is kept as soon as it is found, so that nothing is asked twice. ``attack`` makes the attack, if it is needed.
    Raises what the search raises, and for one that an endpoint broke off: it is made again when the run goes on.
    """
    found: list[Prompt] = []
    made = None
    for prompt in prompts:
        path = kept_at(folder, content, prompt)
        if not path.is_file():
            made = made or attack()
            new = made.search(prompt)
            asks = isinstance(content["settings"].get("judge"), Mapping)
            if new.ended and (asks or new.score):  # a rule can't fail: what it could not rate, nobody can
                came = f"the search for {prompt.label} broke off ({new.ended})"
                raise DemurError(came, "attacker and judge that answer", "mend that, then add --resume")
            kept = {"attack": content["attack"], "prompt": new.prompt.plain()}
            kept |= {name: getattr(new, name) for name in ("score", "queries", "ended", "refused")}
            artefact.write_once(path, json.dumps(kept) + "\n")
        found.append(Prompt(**_read(path)["prompt"]))
    return found


def what_searches_found(paths: Sequence[Path]) -> list[str]:
    """What the searches that are kept at ``paths`` came to, a line for each attack."""
    by: dict[str, list[dict[str, Any]]] = {}
    for kept in (_read(path) for path in paths if path.is_file()):
        by.setdefault(kept["attack"], []).append(kept)
    lines = []
    for name, every in by.items():
        queries, nothing = (
            sum(kept["queries"] for kept in every),
            Counter(kept["ended"] for kept in every if kept["ended"]),
        )
        refused = sum(kept.get("refused", 0) for kept in every)  # files of version 0.1.0 do not say
        unheard = sum(bool(kept.get("refused")) and not kept["score"] and not kept["ended"] for kept in every)
        short = f", {refused} of them {REFUSED}" if refused else ""
        why = "; ".join(f"{n} times {ended}" if len(nothing) > 1 else ended for ended, n in nothing.items())
        short += f", {nothing.total()} without a result ({why})" if nothing else ""
        short += f", {unheard} without a result (no message got past the provider's filter)" if unheard else ""
        lines.append(f"{name}: {len(every)} searches, {queries} queries{short}")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        Prompt(**kept["prompt"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DemurError(f"{path} is broken ({error})", "an attacked prompt", "remove it, then add --resume") from error
    return kept
