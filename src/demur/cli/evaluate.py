"""``demur evaluate`` and ``demur report``."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.options import batch_of, out_to
from demur.cli.places import check_writable
from demur.cli.progress import progress_on, say
from demur.cli.runs import Recipe, Run
from demur.extras import need
from demur.types import DemurError

if TYPE_CHECKING:
    from demur.experiment import Config, Plan, Store


class EngineName(StrEnum):
    """Where units are done."""

    process = "process"
    ray = "ray"


def evaluate(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", "-o", help="Runs go into folders below this one.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run: do only what is missing.")] = False,
    engine: Annotated[EngineName, typer.Option(help="process: here; ray: on a Ray cluster.")] = EngineName.process,
    workers: Annotated[int, typer.Option(min=1, help="Processes of one thread each; 1: this process.")] = 1,
    batch: Annotated[
        Any,
        typer.Option(
            "--batch",
            parser=batch_of,
            metavar="N|auto",
            help="Instead of the recipe's: answers at once; auto: what fits.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the work and check access; do nothing.")] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="With --dry-run: let each model answer one batch, say how long all takes, and ask each endpoint once.",
        ),
    ] = False,
    price: Annotated[
        tuple[float, float] | None,
        typer.Option(help="With --dry-run: what the judge's endpoint takes for a million tokens read, and written."),
    ] = None,
) -> None:
    """Run an experiment: prompts x attacks x samplers x defenses x seeds; killed at any moment, go on with --resume."""
    from demur.experiment import read
    from demur.experiment.recipe import notes_on

    config = read(recipe)
    for note in notes_on(recipe, config):
        print(f"demur: {note}", file=sys.stderr)
    if batch is not None:
        config = replace(config, batch=batch)
    folder = out / config.name
    if (probe or price) and not dry_run:
        option = "--probe" if probe else "--price"
        raise DemurError(f"{option} alone", f"--dry-run {option}", f"add --dry-run, or leave {option} out")
    if price and not config.asks_a_model:
        raise DemurError(f"--price for the judge {config.judge}, which is free", "judge: {llm: ...}", "leave it out")
    if price and min(price) < 0:
        raise DemurError(
            f"--price {price[0]:g} {price[1]:g}", "two numbers, at least 0", "see the endpoint's price list"
        )
    if dry_run:
        _dry(config, folder, workers if probe else 0, price, engine)
        return
    check_writable(folder / "manifest.json", beside=(recipe,))
    go_on = f"demur evaluate {recipe}{'' if out == Path('runs') else f' --out {out}'}"
    go_on += "" if batch is None else f" --batch {batch}"
    go_on += f"{' --engine ray' * (engine is EngineName.ray)}{f' --workers {workers}' * (workers > 1)} --resume"
    with _stoppable(go_on):
        store = _run(config, folder, resume=resume, engine=engine.value, workers=workers)
    _told(store.manifest, folder)


def _run(config: "Config", folder: Path, **how: Any) -> "Store":
    """Runs an experiment with a bar at a terminal; elsewhere with the lines of its log."""
    from demur.experiment import evaluate as run

    if not out_to(stderr=True).is_terminal:
        return run(config, folder, say=say, **how)
    with progress_on(stays=True) as progress:
        return run(config, folder, progress=progress, **how)


class _Told(BaseException):
    """SIGTERM came."""


@contextmanager
def _stoppable(go_on: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end a run with a line that says how to go on, and with the code that shells know them by."""

    def told(*_: object) -> None:
        raise _Told

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, told) if main else None
    try:
        yield
    except (KeyboardInterrupt, _Told) as stop:
        print(f"demur: stopped; what was finished is kept, the rest is dropped; go on with: {go_on}", file=sys.stderr)
        number = signal.SIGTERM if isinstance(stop, _Told) else signal.SIGINT
        raise SystemExit(128 + number) from None  # everything is said: typer.Exit would be taken for Ctrl-C
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _told(manifest: dict[str, Any], folder: Path) -> None:
    """What came of a run, in lines. Ends with code 1 where a judge was asked and gave no verdict at all."""
    from demur.experiment.runs import UNKEPT

    console = out_to()
    _left_out(manifest["left_out"])
    for line in manifest["searches"]:
        console.print(line, soft_wrap=True, markup=False)
    for defense, n in manifest["unread"].items():
        said = f"{defense} stopped {n} prompts or answers since its own verdict could not be read"
        console.print(said, soft_wrap=True, markup=False)
    for why in manifest.get("unkept", ()):
        print(f"demur: {UNKEPT} ({why})", file=sys.stderr)
    unscored, refused = manifest["unscored"], manifest["refused_by_provider"]
    if unscored:
        most = manifest["unscored_why"][0]
        console.print(
            f"{unscored} of {manifest['judged']} answers could not be judged; --resume asks again; "
            f"the commonest reason ({most['n']} times): {most['why']}",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    if refused:
        console.print(f"{refused} of these were refused by the judge's provider", soft_wrap=True, markup=False)
    console.print(f"rows {manifest['rows']}   next: demur report {folder}", soft_wrap=True, markup=False)
    if unscored and unscored == manifest["judged"]:
        print("demur: the judge gave no verdict at all; see the reason above", file=sys.stderr)
        raise typer.Exit(1)


def _left_out(lines: Sequence[str]) -> None:
    for line in lines:
        out_to().print(f"left out: {line}", soft_wrap=True, markup=False)


def _dry(
    config: "Config", folder: Path, probed_for: int, price: tuple[float, float] | None, engine: EngineName
) -> None:
    """What is there and what is missing, models before data, then the work, with ``probed_for`` so many workers the
    time that it takes, and with ``price`` what the judge does. Raises where prompts can not be read; ends with code 1
    where a package or an endpoint is missing, for the run would end there.
    """
    from demur.experiment import left_out, plan

    console, of = out_to(), config.prompts
    missing = [*_extras(config, engine), *_access(config, asking=bool(probed_for))]
    for line in missing:
        console.print(f"missing: {line}", soft_wrap=True, markup=False)
    todo = plan(config, folder)  # reads every prompt
    for unit in todo.missing:
        console.print(f"  {unit.key}  {unit.name}", soft_wrap=True, markup=False)
    _left_out(left_out(config))
    each = of.sizes["anchors/harmless"] + of.sizes["anchors/harmful"]
    each += of.fit + of.calibrate if config.guarded else 0
    made = "anchors and guard" if config.guarded else "anchors"
    console.print(
        f"{len(todo.missing)} of {len(todo.units)} units to do: {todo.generations} generations,", soft_wrap=True
    )
    console.print(f"and {each} for {made} of each of {len(config.subjects)} subjects", soft_wrap=True)
    for unit in todo.searches:
        if most := todo.queries(unit):
            console.print(f"and at most {most} queries of {unit.name}", soft_wrap=True, markup=False)
    if config.asks_a_model:
        _judging(config, todo, price)
    if probed_for:
        _probe(config, todo, probed_for)
    if missing:
        print(f"demur: not ready: {len(missing)} things are missing, see above", file=sys.stderr)
        raise typer.Exit(1)


def _extras(config: "Config", engine: EngineName) -> list[str]:
    """Packages that the run, or its report, would miss, each with the command that brings it."""
    from demur.experiment.queries import endpoints_of

    needed = [("pyarrow", "evaluate", "to keep rows"), ("matplotlib", "evaluate", "for the report")]
    if engine is EngineName.ray:
        needed.append(("ray", "ray", "for --engine ray"))
    if config.asks_a_model or any(endpoints_of(attack.name, attack.settings) for attack in config.attacks):
        needed.append(("openai", "judges", "to ask endpoints"))
    found = []
    for module, extra, why in needed:
        try:
            need(module, extra, why)
        except DemurError as error:
            found.append(str(error))
    return found


def _access(config: "Config", asking: bool) -> list[str]:
    """Says which models are there, and returns what endpoints lack: a key or, when ``asking`` each once, an answer."""
    from demur.experiment.asking import judge_of
    from demur.experiment.queries import endpoints_of, local_chat
    from demur.judges import NoAnswer  # not above: judges load NumPy
    from demur.studio.readiness import ready

    console = out_to()
    for subject in config.subjects:
        console.print(f"{subject.name}: {ready(subject.model)}", soft_wrap=True, markup=False)
    for defense in config.defenses:
        if "model" in defense.settings:
            console.print(f"{defense.label}: {ready(str(defense.settings['model']))}", soft_wrap=True, markup=False)
    for attack in config.attacks:
        if local := local_chat(attack.settings):
            console.print(f"{attack.label}: {ready(local)}", soft_wrap=True, markup=False)
    asked = {
        f"{attack.label}, {part}": endpoint
        for attack in config.attacks
        for part, endpoint in endpoints_of(attack.name, attack.settings).items()
    }
    if config.asks_a_model:
        asked[f"judge {config.judge_settings['model']}"] = judge_of(config.judge_settings).endpoint
    missing = []
    for name, endpoint in asked.items():
        try:
            endpoint.check()
            if asking:
                endpoint([{"role": "user", "content": "Say yes, and nothing else."}])
            what = (
                f"{endpoint.place} answers"
                if asking
                else "its key is there"
                if endpoint.api_key_env
                else "no key needed"
            )
            console.print(f"{name}: {what}", soft_wrap=True, markup=False)
        except (DemurError, NoAnswer) as error:
            if not str(error).startswith("openai"):  # named among the packages
                missing.append(f"{name}: {error}")
    return missing


def _judging(config: "Config", todo: "Plan", price: tuple[float, float] | None) -> None:
    """What a model as judge is asked, against its budget; ``price``: of a million tokens read, and written."""
    from demur.experiment.asking import judge_of
    from demur.experiment.judging import judge_tokens

    console = out_to()
    harmful = [unit for unit in todo.units if unit.role == "harmful"]
    texts = {unit.key: 1 + config.intermediate * unit.defense.none for unit in harmful}
    asked = sum((unit.end - unit.begin) * texts[unit.key] for unit in harmful)
    console.print(f"and at most {asked} requests to the judge {config.judge_settings['model']},", soft_wrap=True)
    judge = judge_of(config.judge_settings)
    reads, writes = (asked * tokens / 1e6 for tokens in (judge_tokens(config), judge.endpoint.longest or 0))
    most = f" and at most {writes:.1f} that it writes" if judge.endpoint.longest is not None else ""
    console.print(f"some {reads:.1f} million tokens that it reads{most}", soft_wrap=True)
    if price is not None:
        least, whole = reads * price[0], reads * price[0] + writes * price[1]
        console.print(f"for {least:.2f} to {whole:.2f}, in the price's money", soft_wrap=True)
    budget = judge.budget.requests
    if budget is not None and asked > budget:
        short = f"its budget is {budget}: {asked - budget} answers may go unscored; raise budget: {{requests: ...}}"
        console.print(f"[yellow]{short}[/yellow]", soft_wrap=True)


def _probe(config: "Config", todo: "Plan", workers: int) -> None:
    """Seconds of a generation, measured, and what they come to."""
    from demur.experiment import probe
    from demur.experiment.phases import spoken

    console, whole = out_to(), 0.0
    for subject in config.subjects:
        try:
            found = probe(config, subject, 1 if workers > 1 else 0)
        except DemurError as error:
            console.print(f"{subject.name}: not probed ({error})", soft_wrap=True, markup=False)
            continue
        batched, single = todo.answers(config, subject)
        spent = batched * found.seconds + single * found.alone
        whole += spent
        memory = f"{found.bytes / 1e9:.1f} GB"
        console.print(
            f"{subject.name}: {found.seconds:.2g} s an answer (one batch of {found.n}), {memory} at most; "
            f"some {spoken(spent)} in all", soft_wrap=True, markup=False,
        )  # fmt: skip
    by = f"{workers} worker{'s'[: workers > 1]}"
    besides = "searches in logits, attackers, translators, judges, and defenses that ask a model come on top"
    console.print(f"together some {spoken(whole / workers)} with {by}; {besides}", soft_wrap=True)


def report(
    run: Run,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the report goes; default: beside the run.")
    ] = None,
    show_harmful: Annotated[bool, typer.Option("--show-harmful", help="Show the words of harmful answers.")] = False,
) -> None:
    """A run as one HTML page with tables, figures and generations; also Markdown, CSV and LaTeX."""
    for module in ("pyarrow", "matplotlib"):
        need(module, "evaluate", "for the report of a run")
    from demur.report import report as write_report

    check_writable(out and out / "report.html")

    written = write_report(run, out or run / "report", show_harmful=show_harmful)
    page = written[0].resolve().as_uri()
    out_to().print(f"{len(written)} files; page: [link={page}]{page}[/link]", soft_wrap=True)
