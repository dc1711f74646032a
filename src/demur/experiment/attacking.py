"""Attacks as recipes name them: which there are, of what sort each is, and the prompts that it makes.

The sort of an attack is what its class says, and not its name. ``access`` says what it does: ``text``, ``prefill`` and
``canvas`` make a prompt of a prompt (``canvas`` with holes in the answer), ``logits`` searches with the probabilities
of a model, ``queries`` with a model's answers. One that has a ``translator`` asks it for each prompt. ``needs`` says
what it needs of the model that it is tried on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from demur import worlds
from demur.attacks import ATTACKS, canvas_for, make, mask_of, settings_of
from demur.experiment.config import Attacked
from demur.experiment.queries import chat_in, check_queries
from demur.prompts import load, values_of
from demur.types import Canvas, DemurError, Model, Need, Prompt, said_needs

PUBLIC = ("wildjailbreak",)
"""Public sets of attacked prompts, which stand where a file of them may stand."""
NEXT = "mend it: demur.testing.check_attack, docs/extending.md"
FILES = (".jsonl", ".csv", ".json")
"""How the names of files of attacked prompts end."""


def attack_names() -> tuple[str, ...]:
    """Every attack that has a name: in anybody's words, and in those of the worlds. Files of attacked prompts come
    beside them.
    """
    own = [f"{name}/{attack}" for name, world in worlds.WORLDS.made() for attack in world.attacks]
    return (*dict.fromkeys(["plain", *ATTACKS]), *own)


def is_file(name: str) -> bool:
    """Whether an attack is a file, or a public set, of attacked prompts."""
    return name.endswith(FILES) or name in PUBLIC


def is_public(name: str) -> bool:
    """Whether it is a public set."""
    return name in PUBLIC


def is_known(name: str) -> bool:
    """Whether a recipe may name an attack. Raises for a world that can not be imported."""
    if world := worlds.of_attack(name):
        return name.removeprefix(f"{world}/") in worlds.named(world).attacks
    return ATTACKS.knows(name) or is_file(name)


def kind_of(name: str) -> Any:
    """What says of what sort an attack is: its class, or the world's attack. None for a file."""
    if is_file(name):
        return None
    return worlds.attack_of(name) if worlds.of_attack(name) else ATTACKS[name]


def needs_of(attack: Attacked) -> frozenset[Need]:
    """What an attack needs of the model that it is tried on."""
    return said_needs(kind_of(attack.name), f"attack {attack.name}")


def access_of(attack: Attacked) -> str:
    """What an attacker must be able to do (:data:`demur.attacks.Access`); ``text`` for a file."""
    return str(getattr(kind_of(attack.name), "access", "text"))


def leaves_holes(attack: Attacked) -> bool:
    """Whether its prompts leave holes in the answer: it is made for diffusion models."""
    return access_of(attack) == "canvas"


def searches(attack: Attacked) -> bool:
    """Whether what it makes of a prompt is made once, and kept: it searches, for its subject, or asks a translator."""
    return access_of(attack) in ("logits", "queries") or translates(attack)


def translates(attack: Attacked) -> bool:
    """Whether it asks a translator, and no subject: what it makes of a prompt is the same for all subjects."""
    return not reads_answers(attack) and chat_in(kind_of(attack.name)) == "translator"


def reads_answers(attack: Attacked) -> bool:
    """Whether its search reads answers, which are a sampler's, and not a model's logits. On a harmless request there is
    nothing for it to find.
    """
    return access_of(attack) == "queries"


def check_settings(attack: Attacked) -> None:
    """Raises for settings that an attack does not have or does not take, as far as that is known without its model."""
    if is_file(attack.name) or attack.world:
        if attack.settings:
            raise DemurError(
                f"{attack.name} with {', '.join(map(str, attack.settings))}", "no settings", "leave them out"
            )
        return
    if reads_answers(attack) or translates(attack):
        check_queries(attack.name, kind_of(attack.name), attack.settings)
        return
    given = _given(attack, mask=lambda: "<mask>", model=lambda: SimpleNamespace(name="any model", forward=None))
    try:
        make(attack.name, **(given | dict(attack.settings)))
    except TypeError as error:
        raise DemurError(
            f"{attack.name} with a setting of another kind ({error})", "what its page says", "mend it"
        ) from error


def made_for(attack: Attacked, model: Model) -> Any:
    """An attack of a name for a model: one that makes prompts, or one that searches with the model's logits."""
    if attack.world:
        return worlds.attack_of(attack.name)
    return make(
        attack.name, **(_given(attack, mask=lambda: mask_of(model), model=lambda: model) | dict(attack.settings))
    )


def _given(attack: Attacked, **parts: Callable[[], Any]) -> dict[str, Any]:
    """What an attack's class takes beside a recipe's settings."""
    takes = settings_of(attack.name)
    return {name: part() for name, part in parts.items() if name in takes and name not in attack.settings}


def attacked(attack: Attacked, prompts: Sequence[Prompt], model: Model) -> list[Prompt]:
    """The prompts under an attack that makes no search."""
    if attack.plain:
        return list(prompts)
    made = made_for(attack, model)
    return [_made_of(attack, made, prompt) for prompt in prompts]


def _made_of(attack: Attacked, made: Any, prompt: Prompt) -> Prompt:
    """What an attack makes of a prompt. Raises for one that fails; what it says may quote the request."""
    try:
        changed = made(prompt)
    except DemurError:
        raise
    except Exception as error:  # whatever somebody else's class raises
        raise DemurError(
            f"attack {attack.label} failed on {prompt.label!r} ({type(error).__name__})", "a prompt", NEXT
        ) from error
    return _checked(attack, prompt, changed)


def _checked(attack: Attacked, prompt: Prompt, made: Any) -> Prompt:
    """What an attack has made of a prompt. Raises for what is no prompt, and for one that does not say of which it was
    made: its rows could be paired with nothing.
    """
    if not isinstance(made, Prompt) or made.parent != prompt.id:
        came = f"a {type(made).__name__}" if not isinstance(made, Prompt) else "a prompt whose parent is another one"
        raise DemurError(f"attack {attack.label} made {came}", f"a prompt with parent={prompt.label!r}", "mend it")
    if made.harmful != prompt.harmful:  # on which hangs what may be shown
        came = f"attack {attack.label} made harmful={made.harmful} of harmful={prompt.harmful}"
        raise DemurError(came, "the prompt's own label", "use dataclasses.replace, and leave harmful alone")
    return made


def canvas_under(attack: Attacked, model: Model, prompts: Sequence[Prompt], length: int) -> Canvas:
    """Open places behind the prompt or, where an attack leaves holes, these."""
    holed = leaves_holes(attack) and Need.HOLES in model.offers
    canvas: Canvas = canvas_for(model, prompts, length) if holed else model.canvas(prompts, length)
    return canvas


# ---------------------------------------------------------------------------------------------------------------------
# Files of attacked prompts

GOALS = ("goal", "Goal")
"""Columns of a file of attacked prompts that hold the request behind each."""
BEHAVIOURS = ("behaviour", "behavior", "Behaviour", "Behavior")
"""Columns that name it."""


def ready_made(attack: Attacked, plain: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of a file of attacked prompts, in its order; ids begin with the file's name, since its own may be
    those of other requests.

    ``parent`` is what its column of that name says, else its goal or behaviour, else the row's own id; where that is
    the text of one of the ``plain`` requests, it is that one's id, so that rows can be paired with it.
    """
    ready = load(attack.name, harmful=True)
    said = {prompt.id: prompt.parent for prompt in ready if prompt.parent and prompt.parent.strip()}
    for column in (*GOALS, *BEHAVIOURS):
        if len(said) < len(ready):  # a file may name it in some rows alone
            said = values_of(attack.name, column) | said
    ids = {prompt.text.strip(): prompt.id for prompt in plain}

    def made(prompt: Prompt) -> Prompt:
        parent = said.get(prompt.id) or ""
        named = parent if parent != prompt.text else ""  # the request itself stands for no other
        own = own_id(attack, prompt.id)
        return replace(prompt, id=own, attack=attack.name, parent=ids.get(parent.strip(), named or own))

    return [made(prompt) for prompt in ready]


def own_id(attack: Attacked, of_row: str) -> str:
    """What a row of a file of attacked prompts is called in a run."""
    return f"{Path(attack.name).name}/{of_row}"


def goals_of(attack: Attacked) -> dict[str, str]:
    """The requests behind a file's attacked prompts, by the rows' ids; nothing of a row that does not say."""
    if not is_file(attack.name):
        return {}
    said = {name: text for column in reversed(GOALS) for name, text in values_of(attack.name, column).items()}
    return {own_id(attack, name): text for name, text in said.items()}
