"""``demur serve``: a model behind a port, for clients that speak OpenAI's protocol."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.options import (
    Device,
    Dtype,
    GuardDetector,
    Length,
    SamplerName,
    Settings,
    SystemPrompt,
    Temperature,
    TemplateArguments,
    load_model,
    out_to,
    setup,
)
from demur.types import DemurError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demur.serving import Address
    from demur.serving.order import Tells
    from demur.types import Model


class Tell(StrEnum):
    """What clients are told of the guard."""

    signal = "signal"
    verdict = "verdict"


SMALL = 20_000_000
"""Parameters below which one thread is faster than several: they would wait for each other."""


def serve(
    model: Annotated[str | None, typer.Argument(help="Built-in name, folder, .gguf file or hub id.")] = None,
    guard: Annotated[Path | None, typer.Option(help="A file of `demur guard fit`: it watches every answer.")] = None,
    detector: GuardDetector = None,
    hold_back: Annotated[
        int | None,
        typer.Option(
            min=0, help="Steps that are held back until they were looked at (default 1); 0: a step leaves while it is."
        ),
    ] = None,
    allow_guard_choice: Annotated[
        bool, typer.Option("--allow-guard-choice", help="Clients may ask for answers that no guard watches.")
    ] = False,
    allow_prefill: Annotated[
        bool,
        typer.Option("--allow-prefill", help="Clients may begin the answer, by an assistant's message at the end."),
    ] = False,
    host: Annotated[
        str, typer.Option(help="Where to listen; any address but loopback needs --api-keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
    api_keys: Annotated[Path | None, typer.Option(help="A file of hashes; --new-key makes a key and its line.")] = None,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Print a new key and the line for the file, and end.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name by which clients may call the server; repeatable.")
    ] = None,
    tell: Annotated[
        Tell | None,
        typer.Option(
            help="What clients are told of the guard; default: signal, but verdict (no numbers) if others can ask."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name for clients; default: as it is named here.")
    ] = None,
    sampler: SamplerName = None,
    settings: Settings = None,
    temperature: Temperature = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="T: how many values a signal has; default: 32, and of a guard always its own."),
    ] = None,
    length: Length = None,
    rows: Annotated[int, typer.Option(min=1, help="Answers that are generated at once.")] = 8,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that wait for a place; above, 429.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most that a request may ask for.")] = 2048,
    max_prompt: Annotated[int, typer.Option(min=1, help="The longest prompt, in tokens.")] = 8192,
    max_body: Annotated[int, typer.Option(min=1, help="The largest request, in bytes.")] = 1 << 20,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds from a request to the end of its answer.")] = 300,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that running answers have after SIGTERM.")] = 30,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Write prompts and answers into the log, redacted.")
    ] = False,
    show_harmful: Annotated[bool, typer.Option("--show-harmful", help="With --log-texts: as they are.")] = False,
    telemetry: Annotated[
        bool, typer.Option("--telemetry", help="An OpenTelemetry event for each verdict (extra telemetry).")
    ] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    system: SystemPrompt = None,
    template: TemplateArguments = None,
) -> None:
    """Serve a model, with its guard, to clients that speak OpenAI's protocol."""
    from demur.extras import need

    if new_key:
        _tell_new_key()
        return
    if model is None:
        raise DemurError("demur serve without a model", "one", "for example: demur serve organism/ar")
    if show_harmful and not log_texts:
        raise DemurError("--show-harmful without --log-texts", "both", "a log without words has none to show")
    if name is not None and not name.strip():
        raise DemurError("--name without a name", "what clients call the model", "leave it out: its own name is taken")
    if guard is None:
        _check_unwatched(detector, allow_guard_choice, hold_back, tell)
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        need(module, "serve")
    from demur.guards import Guard
    from demur.serving import Address, Keys, Limits, Service, Terms
    from demur.serving import serve as run
    from demur.serving.logs import Log, to_stderr
    from demur.serving.telemetry import events

    address = Address(host, port)
    keys = Keys.read(api_keys) if api_keys is not None else Keys()
    address.check(bool(keys))
    known = Guard.load(guard, detector=detector) if guard is not None else None
    if known is not None and steps not in (None, known.spec.steps):
        raise DemurError(f"--steps {steps}", f"{known.spec.steps}, the guard's", "leave it out")
    steps = steps or (32 if known is None else known.spec.steps)
    also = events() if telemetry else None
    net = load_model(model, dtype, device, system, template=template)
    few_threads(net)
    limits = Limits(
        body=max_body, prompt=max_prompt, answer=max_tokens, rows=rows, waiting=waiting, seconds=timeout, grace=grace
    )
    called, plain = "", None
    if known is None or sampler or settings or temperature is not None:
        called, plain, _ = setup(net, sampler, length, steps, temperature, settings)
    terms = Terms(
        net, name or model, known, limits, plain, called, steps, length, allow_guard_choice, may_prefill=allow_prefill
    )
    names = [*(allowed_host or ()), *([] if address.is_any else [f"[{host}]" if ":" in host else host])]
    words: Any = "none" if not log_texts else "shown" if show_harmful else "redacted"
    tells = tells_of(tell, address, allowed_host or ())
    service = Service(terms, 1 if hold_back is None else hold_back, keys, tuple(names), Log(words), tells, also)
    to_stderr()
    console = out_to()

    def ready(at: int) -> None:
        where = f"[{host}]" if ":" in host else host
        console.print(
            f"serving {terms.served} at http://{where}:{at}/v1 ({told(service)})", markup=False, soft_wrap=True
        )

    run(service, address, ready)


def _check_unwatched(detector: str | None, choice: bool, hold_back: int | None, tell: Tell | None) -> None:
    """Raises for options of a guard where none was named: who gives them believes that answers are watched."""
    given = {"--detector": detector is not None, "--allow-guard-choice": choice}
    given |= {"--hold-back": hold_back is not None, "--tell": tell is not None}
    for option in (option for option, is_given in given.items() if is_given):
        raise DemurError(f"{option} without --guard", "a guard that watches the answers", "add --guard FILE")


def told(service: Any) -> str:
    """Who watches, in words."""
    if service.terms.guard is None:
        return "no guard"
    if service.hold:
        return f"guard: held back, {service.hold} step{'s'[: service.hold > 1]}"
    return "guard: asynchronous, text leaves while it is judged"


def tells_of(tell: Tell | None, address: "Address", names: "Sequence[str]") -> "Tells":
    """What clients are told. Where nobody says it: no numbers if others can ask, at the address itself or, through
    another server on this machine, by one of the further ``names``.
    """
    from demur.serving.service import LOOPBACK

    others = not address.is_loopback or any(name.lower() not in LOOPBACK for name in names)
    return "verdict" if tell is Tell.verdict or (tell is None and others) else "signal"


def few_threads(model: "Model") -> None:
    """One thread for a small model."""
    import torch

    if sum(weights.numel() for weights in model.net.parameters()) < SMALL:
        torch.set_num_threads(1)


def _tell_new_key() -> None:
    from demur.serving.keys import hash_of
    from demur.serving.keys import new_key as made

    key = made()
    print(f"key, for the client, shown once: {key}")
    print(f"line, for the file of --api-keys: {hash_of(key)}")
