"""``demur proxy``: a guard before an engine that can not be entered."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli.options import Device, Dtype, GuardDetector, TemplateArguments, load_model, out_to
from demur.cli.serve import Tell, few_threads, tells_of
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.serving.passing import Policy


def proxy(
    model: Annotated[str, typer.Argument(help="The model that the engine runs, or a surrogate: name, folder, id.")],
    upstream: Annotated[str, typer.Option(help="The engine's address, which ends in /v1.")],
    guard: Annotated[Path, typer.Option(help="A file of `demur guard fit` for the model named here.")],
    detector: GuardDetector = None,
    policy: Annotated[
        str, typer.Option(help="Where a look is late or fails: closed ends the answer, open lets it pass.")
    ] = "closed",
    window: Annotated[int, typer.Option(min=1, help="Look after so many parts that the engine sends.")] = 16,
    late: Annotated[float, typer.Option(min=0.01, help="Seconds that a look may take.")] = 10.0,
    upstream_key: Annotated[
        str, typer.Option(metavar="VARIABLE", help="The environment variable that holds the engine's key.")
    ] = "",
    host: Annotated[
        str, typer.Option(help="Where to listen; any address but loopback needs --api-keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8080,
    api_keys: Annotated[Path | None, typer.Option(help="A file of hashes: demur serve --new-key.")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="A name by which clients may call the proxy; repeatable.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A model of the engine that clients may ask for; repeatable. Default: all that it has."),
    ] = None,
    pass_on: Annotated[
        list[str] | None,
        typer.Option(help="A parameter that goes on to the engine beside those of OpenAI's sampling; repeatable."),
    ] = None,
    longest: Annotated[
        int, typer.Option(min=1, help="Tokens of an answer that are read; a longer one is not watched.")
    ] = 8192,
    tell: Annotated[
        Tell | None,
        typer.Option(
            help="What clients are told of the guard; default: signal, but verdict (no numbers) if others can ask."
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    template: TemplateArguments = None,
) -> None:
    """Put a guard before an OpenAI-compatible engine: answers are replayed here, judged, and then passed on."""
    from demur.extras import need

    if policy not in ("closed", "open"):
        raise DemurError(f"--policy {policy}", "closed or open", "closed ends what could not be judged")
    if upstream_key and not os.environ.get(upstream_key):
        raise DemurError(
            f"{upstream_key} is not set", "the engine's key in it", "export it, or leave --upstream-key out"
        )
    for module in ("fastapi", "uvicorn", "httpx", "prometheus_client"):
        need(module, "serve")
    from demur.guards import Guard
    from demur.serving import Address, Keys
    from demur.serving.logs import to_stderr
    from demur.serving.proxied import Proxy
    from demur.serving.proxy import run_proxy
    from demur.serving.replaying import Replay
    from demur.serving.upstream import Upstream

    address = Address(host, port)
    keys = Keys.read(api_keys) if api_keys is not None else Keys()
    address.check(bool(keys))
    engine = Upstream(upstream, os.environ.get(upstream_key, "") if upstream_key else "")
    net = load_model(model, dtype, device, None, template=template)
    few_threads(net)
    replay = Replay(net, Guard.load(guard, detector=detector), longest)
    names = [*(allowed_host or ()), *([] if address.is_any else [f"[{host}]" if ":" in host else host])]
    chosen: Policy = "open" if policy == "open" else "closed"
    tells = tells_of(tell, address, allowed_host or ())
    made = Proxy(
        engine, replay, chosen, window, late, keys=keys, hosts=tuple(names), tells=tells, models=tuple(only or ()),
        also=tuple(pass_on or ()),
    )  # fmt: skip
    to_stderr()
    console = out_to()

    def ready(at: int) -> None:
        where = f"[{host}]" if ":" in host else host
        told = f"guard on {net.name}, a look every {window} parts, policy {policy}"
        console.print(f"proxy for {engine.place} at http://{where}:{at}/v1 ({told})", markup=False, soft_wrap=True)

    run_proxy(made, address.bound(), ready)
