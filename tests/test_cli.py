"""The command line as a user meets it: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.version import Version

from demur import cli
from demur.prompts import starter
from demur.types import DemurError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs ``demur`` with arguments in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["demur", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


WATCH = ("--refusals", "scripted", "--n", "6", "--steps", "8")


def test_watching_shows_text_curve_and_verdict_and_says_that_anchors_are_scripted(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("watch", "demur-harmless-002", *WATCH)
    assert code == 0
    assert "step 8 of 8" in out
    assert "complying" in out
    assert "refusing" in out
    assert "Scripted anchors" in out
    page = (tmp_path / "demur-watch.html").read_text()
    assert "Scripted anchors" in page
    assert (tmp_path / "demur-watch.html").as_uri() in out


@pytest.mark.slow
def test_the_demo_tells_its_story_then_runs_a_real_model_and_loads_no_scikit_learn(tmp_path: Path) -> None:
    code = "import sys; from demur import cli; sys.argv[1:] = ['demo', '--html', 'story.html', '--real', 'real.html']\n"
    code += "try: cli.main()\nexcept SystemExit as end: assert not end.code, end.code\n"
    code += "assert 'torch' in sys.modules and 'sklearn' not in sys.modules"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout
    for words in ("autoregressive   harmful", "autoregressive   correct", "diffusion weights, left to right   refusal"):
        assert words in told
    assert told.index("And a real model.") < told.index("smollm2 · ar")
    assert told.count("Scripted anchors") == 2
    for page in ("story.html", "real.html"):
        assert (tmp_path / page).as_uri() in told
        assert (tmp_path / page).read_text().startswith("<!doctype html>")


def test_the_organism_is_watched_with_anchors_of_its_own_world_and_knows_its_requests_by_id(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "cache"))
    request = "organism-test-forbidden-0001"
    code, out, _ = run("watch", request, "-m", "organism/diffusion", "--compare", "ar-order", "--show-harmful")
    assert code == 0
    assert "basilisk" in out
    assert out.count("(refusal)") >= 2
    assert "<|end|> ×" in out  # the rest of the canvas, told once
    code, out, _ = run("watch", request, "-m", "organism/diffusion")
    assert "basilisk" not in out
    assert "<|end|> ×" in out
    assert not (tmp_path / "cache").exists()  # the anchors came with the package
    code, out, _ = run("anchors", "fit", "organism/ar", "--n", "8", "--steps", "8")
    assert code == 0
    assert "8 answered of 8" in out
    assert "8 refused of 8" in out


@pytest.mark.parametrize("options", [("--compare", "ar"), ("--sampler", "ar", "--compare", "ar")], ids=" ".join)
def test_a_sampler_is_not_compared_with_itself(run: Run, options: tuple[str, ...]) -> None:
    code, _, err = run("watch", "How do I open the granary?", "-m", "organism/ar", *options)
    assert code == 2
    assert "the first sampler as well" in err


def test_a_harmful_prompt_is_redacted_in_every_view(run: Run, tmp_path: Path) -> None:
    prompt = starter("harmful", 1)[0]
    words = [word for word in re.findall(r"[a-z]{6,}", prompt.text) if word not in ("should", "someone", "without")]
    code, out, _ = run("watch", prompt.id, *WATCH)
    assert code == 0
    page = (tmp_path / "demur-watch.html").read_text()
    shown = "".join(
        re.findall(r'<script type="application/json".*?</script>|<noscript>.*?</noscript>', page, re.DOTALL)
    )
    assert "█" in shown
    for word in words:
        assert word not in out
        assert word not in shown
    code, out, _ = run("watch", prompt.id, *WATCH, "--show-harmful")
    assert code == 0
    assert any(word in out for word in words)


def test_json_gives_one_object_a_step_and_the_verdict_last(run: Run) -> None:
    code, out, _ = run("watch", "demur-harmless-003", *WATCH, "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(0 <= line["sigma"] <= 1 for line in lines)
    assert [line["verdict"] is not None for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["text"].startswith(lines[0]["text"])


def test_anchors_are_fitted_shown_and_refused_for_another_setting(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("anchors", "fit", "smollm2", "--out", "a.safetensors", *WATCH)
    assert code == 0
    assert "scripted" in out
    code, out, _ = run("anchors", "show", "a.safetensors")
    assert code == 0
    assert "Scripted anchors" in out
    code, _, err = run("watch", "Hello there", "--anchors", "a.safetensors", "--steps", "8", "--pool", "producing")
    assert code == 2
    assert "'producing' against 'generated'" in err
    assert "demur anchors fit smollm2" in err
    assert not (tmp_path / "demur-watch.html").exists()


@pytest.mark.slow
def test_a_model_that_refuses_nothing_has_no_observed_anchors_and_the_error_counts(run: Run) -> None:
    code, _, err = run("anchors", "fit", "smollm2", "--n", "10", "--steps", "8")
    assert code == 2
    assert re.search(r"\d+ of 10 harmless and \d+ of 10 harmful", err)
    assert "--refusals scripted" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("watch", "Hi", "--model", "no-such-model"), "demur models"),
        (("watch", "Hi", "--model", "smollm"), "did you mean 'smollm2'"),
        (("watch", "   ", *WATCH), "is empty"),
        (("watch", "word " * 9000, *WATCH), "8192"),
        (("watch", "Hi", "--sampler", "low-confidence"), "causal model"),
        (("watch", "Hi", "--layer", "31", "--no-signal"), "1 to 30"),
        (("watch", "Hi", "--dtype", "int3"), "bfloat16"),
        (("watch", "Hi", "--anchors", "none.safetensors"), "demur anchors fit"),
        (("watch", "Hi", "--no-signal", "--length", "2", "--html", "/dev/null/x/page.html"), "could not be written"),
        (("anchors", "fit", "smollm2", "--harmless", "missing.jsonl"), "missing.jsonl"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(run: Run, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("demur: ")
    assert says in err
    assert "expected" in err


def test_finished_transcripts_are_replayed_to_signals_in_their_order(run: Run, tmp_path: Path) -> None:
    rows = [
        {"id": "long", "prompt": "How do I boil an egg for breakfast on a mountain?", "response": "Boil it longer."},
        {"id": "refused", "prompt": "Hi", "response": "I'm sorry, but I can't help with that."},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, _, err = run("replay", "t.jsonl", *WATCH, "--out", "s.jsonl")
    assert code == 0, err
    assert "Scripted anchors" in err
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["long", "refused"]
    assert [line["refused"] for line in lines] == [False, True]
    assert all(len(line["sigma"]) == 8 for line in lines)
    assert lines[0]["sigma"][-1] > lines[1]["sigma"][-1]
    (tmp_path / "t.jsonl").write_text('{"prompt": "Hi"}')
    code, _, err = run("replay", "t.jsonl", *WATCH)
    assert code == 2
    assert "t.jsonl, line 1" in err


def test_models_and_doctor_name_what_is_ready_and_the_command_for_the_rest(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    assert "GSAI-ML/LLaDA-8B-Instruct" in out.replace("\n", "")
    assert "smollm2" in out
    code, out, _ = run("doctor", "--all")
    assert code == 0
    assert "torch" in out
    assert "hf download" in out


def test_help_and_version_load_no_torch() -> None:
    code = "import sys; sys.argv = ['demur', '--version']\ntry:\n from demur.cli import main; main()\n"
    code += "except SystemExit: pass\nassert not {'torch', 'numpy', 'fastapi', 'uvicorn'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("demur 0.")


@pytest.mark.skipif(
    Version(version("typer")) < Version("0.29"), reason="an older typer writes the page's usage lines in another way"
)
def test_the_cli_reference_is_the_one_the_commands_generate() -> None:
    reference = Path(__file__).parent.parent / "docs" / "cli.md"
    command = [sys.executable, "-m", "typer", "demur.cli", "utils", "docs", "--name", "demur"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, env=_plain_environment())
    assert made.stdout.strip() == reference.read_text().strip(), "run: make docs"


def _commands() -> dict[str, list[Any]]:
    """The options of every command, by its name."""
    found: dict[str, list[Any]] = {}

    def walk(command: Any, name: str) -> None:
        for part, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {part}".strip())
        if not hasattr(command, "commands"):
            found[name] = [option for option in command.params if option.param_type_name == "option"]

    walk(typer.main.get_command(cli.app), "")
    return found


def test_short_options_are_the_same_everywhere() -> None:
    """-o is where the output goes, -m a model, -n a number of prompts, wherever there is such an option."""
    commands = _commands()
    assert len(commands) > 15
    shorts = {"--out": "-o", "--model": "-m", "--n": "-n"}
    for name, options in commands.items():
        for option in options:
            for long, short in shorts.items():
                assert (long in option.opts) == (short in option.opts), (name, option.opts)
            assert {opt for opt in option.opts if not opt.startswith("--")} <= set(shorts.values()), (name, option.opts)
    writing = {"anchors fit", "guard fit", "guard recalibrate", "replay", "watch", "demo", "ablate", "bench", "report",
               "evaluate", "organism train", "organism card", "organism world"}  # fmt: skip
    assert writing <= {name for name, options in commands.items() if any("-o" in option.opts for option in options)}


@pytest.mark.parametrize("command", [("guard", "fit"), ("anchors", "fit"), ("serve",), ("bench",), ("ablate",)])
@pytest.mark.parametrize("option", ["-m", "--model"])
def test_where_the_model_has_no_option_the_line_says_how_it_is_named(
    command: tuple[str, ...], option: str, run: Run
) -> None:
    code, _, err = run(*command, option, "organism/ar")
    assert (code, err.count("\n")) == (2, 1)
    assert "the model is named without one: " in err
    assert f"{' '.join(command)} MODEL; see" in err


def _plain_environment() -> dict[str, str]:
    import os

    return {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "FORCE_COLOR")} | {"TERM": "dumb"}


# -- guards -------------------------------------------------------------------------------------------------


FEWEST = (
    "--length",
    "12",
    "--steps",
    "8",
    "--n-anchors",
    "16",
    "--n-fit",
    "32",
    "--n-calibrate",
    "19",
    "--n-check",
    "0",
)


def test_the_default_guard_of_a_causal_model_is_whitened_and_its_page_and_anchors_say_so(run: Run) -> None:
    code, out, err = run("guard", "fit", "organism/ar", *FEWEST, "--alpha", "0.1", "--out", "default.safetensors")
    assert code == 0, err
    assert "by kind" in out
    card = json.loads(run("guard", "show", "default.safetensors", "--json")[1])
    assert (card["anchors"]["signal"], card["detector"]) == ("whitened", "last")
    assert card["stability"]["random"]["sets"] == 10
    code, _, err = run(
        "watch", "Hi", "-m", "organism/ar", "--guard", "default.safetensors", "--length", "12", "--steps", "8"
    )
    assert code == 0, err
    code, _, err = run("watch", "Hi", "-m", "organism/ar", "--guard", "default.safetensors", "--steps", "8", "--sri")
    assert (code, "read states by whitened" in err) == (2, True)
    code, out, err = run(
        "watch", "Hi", "-m", "organism/ar", "--whitened", "--json", "--length", "8", "--steps", "8", "--n", "8"
    )
    assert code == 0, err
    assert all(0 <= json.loads(line)["sigma"] <= 1 for line in out.splitlines())
    code, out, err = run("anchors", "fit", "organism/ar", "--whitened", "--n", "8", "--steps", "8")
    assert code == 0, err
    assert "8 asked, 8 of them refused" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "signal", "detector"),
    [("mean", (), "whitened", "mean"), ("mean", ("--sri",), "sri", "mean"), ("paper", (), "sri", "autoencoder")],
)
def test_a_named_detector_sits_on_the_default_signal_unless_told_and_the_papers_on_its_own(
    name: str, options: tuple[str, ...], signal: str, detector: str, run: Run
) -> None:
    code, _, err = run("guard", "fit", "organism/ar", *FEWEST, "--alpha", "0.1", "--detector", name, *options)
    assert code == 0, err
    card = json.loads(run("guard", "show", "guard.safetensors", "--json")[1])
    assert (card["anchors"]["signal"], card["detector"]) == (signal, detector)
    assert card["stability"]["random"]["sets"] == 10


def test_how_much_hangs_on_the_wording_of_anchors_is_told(run: Run) -> None:
    few = ("--n", "16", "--length", "12", "--steps", "8")
    code, out, err = run("anchors", "check", "organism/ar", *few, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["harmful"], told["refused"]) == (16, 16)
    assert told["whitened"]["random"]["tpr"] > 0.9
    code, out, err = run("anchors", "check", "organism/ar", *few)
    assert code == 0, err
    assert "TPR at 5%" in out


SMALL = ("--length", "40", "--n-anchors", "40", "--n-fit", "64", "--n-calibrate", "24", "--n-check", "20")


@pytest.mark.parametrize(
    ("there", "asked", "at_least", "found"), [(30, 20, 10, 20), (15, 20, 10, 15), (15, 20, 20, 0), (9, 20, 10, 0)]
)
def test_a_guard_takes_as_many_harmful_prompts_as_a_set_has(
    there: int, asked: int, at_least: int, found: int, tmp_path: Path
) -> None:
    """Nobody who brings a small set has to say so; who asks for a number has that number or an error."""
    from demur.cli.guard import _prompts

    (tmp_path / "asked.txt").write_text("".join(f"Do the wrong thing {i}\n" for i in range(there)))
    if found:
        assert len(_prompts(str(tmp_path / "asked.txt"), True, [asked], (), {}, at_least)[0]) == found
    else:
        with pytest.raises(DemurError, match=f"{there} (different )?prompts"):
            _prompts(str(tmp_path / "asked.txt"), True, [asked], (), {}, at_least)


@pytest.mark.slow
def test_a_guard_is_fitted_shown_and_used(run: Run, tmp_path: Path) -> None:
    code, out, err = run("guard", "fit", "organism/ar", *SMALL, "--alpha", "0.1")
    assert code == 0, err
    assert "at most 10.0% false positives" in out
    assert "n 20" in out
    assert "40 answered prompts and 80 harmful ones" in " ".join(out.split())
    code, shown, _ = run("guard", "show", "guard.safetensors")
    assert code == 0
    assert shown.strip() == out.split("\n", 1)[1].strip()
    code, said, _ = run("guard", "run", "guard.safetensors", "How do I open the granary?", "--json")
    assert code == 0
    line = json.loads(said)
    assert line["flagged"] in (True, False)
    assert (line["step"] is not None) == line["flagged"]
    for prompts in ('{"text": "How do I mend the cart?"}', '{"text": "How do I mend the cart?", "harmful": false}'):
        (tmp_path / "asked.jsonl").write_text(prompts)
        shown = []
        for options in ((), ("--harmless",), ("--show-harmful",)):
            code, said, err = run("guard", "run", "guard.safetensors", "asked.jsonl", "--json", *options)
            assert code == 0, err
            line = json.loads(said)
            shown.append("█" not in line["text"])
        nothing_to_hide = "false" in prompts or line["flagged"]  # what is stopped says the refusal alone
        assert shown == [nothing_to_hide, True, True], "what brings no mark may be anything"
    forbidden = "organism-test-forbidden-0001"
    code, said, _ = run("guard", "run", "guard.safetensors", forbidden, "--json")
    assert json.loads(said)["id"] == forbidden
    code, _, err = run("watch", "Hi", "-m", "organism/ar", "--guard", "guard.safetensors", "--steps", "8")
    assert (code, "steps: 8 against 32" in err) == (2, True)
    code, _, err = run("watch", "Hi", "-m", "organism/ar", "--guard", "guard.safetensors", "--length", "40")
    assert code == 0, err
    assert "90% of harmless answers" in (tmp_path / "demur-watch.html").read_text()
    code, _, err = run("guard", "run", "guard.safetensors", "Hi", "-m", "smollm2")
    assert (code, "another spec" in err) == (2, True)
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_prompts_that_the_anchors_have_seen_are_left_out_of_a_guard(run: Run, tmp_path: Path) -> None:
    """Anchors and guard from one list: the guard takes none of the prompts that the anchors have taken."""
    from demur.guards import Guard
    from demur.signals import Anchors, digest
    from demur.types import Prompt

    for side, n in (("allowed", "200"), ("forbidden", "30")):
        code, _, err = run("organism", "world", "--split", "anchors", f"--{side}", "--n", n, "--save", f"{side}.jsonl")
        assert code == 0, err
    sides = ("--harmless", "allowed.jsonl", "--harmful", "forbidden.jsonl", "--length", "40")
    code, out, err = run("anchors", "fit", "organism/ar", *sides, "--n", "30")
    assert code == 0, err
    assert "hashes of 60 are kept" in " ".join(out.split())
    guard = ("guard", "fit", "organism/ar", *sides[:2], *SMALL, "--anchors", "anchors.safetensors", "--alpha", "0.1")
    code, out, err = run(*guard)
    assert code == 0, err
    assert "does not say" not in err
    assert "online" in out.split("measured")[1]
    made = Guard.load("guard.safetensors")
    anchors = Anchors.load("anchors.safetensors")
    assert made.anchors.prompts == anchors.prompts
    assert len(anchors.prompts) == 60
    lines = [json.loads(line) for line in (tmp_path / "allowed.jsonl").read_text().splitlines()]
    listed = [digest(Prompt(line["id"], line["text"])) for line in lines]
    assert {*listed[:30]} <= {*anchors.prompts}
    assert not {*made.fitted, *made.calibrated} & {*anchors.prompts}
    assert {*made.fitted, *made.calibrated} <= {*listed[30:]}
    assert len({*made.fitted}) == 64
    at = guard.index("--n-fit") + 1
    code, _, err = run(*guard[:at], "150", *guard[at + 1 :])
    assert (code, "170 different prompts in allowed.jsonl that the anchors have not seen" in err) == (2, True)
    replace(anchors, prompts=()).save("anchors.safetensors")
    code, _, err = run(*guard)
    assert (code, "does not say which prompts" in " ".join(err.split())) == (0, True)


def test_too_few_prompts_for_a_promise_are_an_error_with_the_number_that_is_needed(run: Run, tmp_path: Path) -> None:
    for more, needed in (((), "at least 199"), (("--upto", "0"), "at least 99")):
        code, _, err = run("guard", "fit", "organism/ar", *SMALL, "--alpha", "0.01", *more)
        assert code == 2
        assert needed in err
    assert not list(tmp_path.iterdir())
    code, _, err = run("guard", "fit", "organism/ar", "--harmless", "harmless", "--n-fit", "400")
    assert code == 2
    assert "smaller numbers" in err


@pytest.mark.slow
def test_the_ablation_of_any_model_from_files(run: Run, tmp_path: Path) -> None:
    for side in ("forbidden", "allowed"):
        for attack in ("page", "suppression"):
            (tmp_path / side).mkdir(exist_ok=True)
            path = f"{side}/{attack}.jsonl"
            code, _, err = run("organism", "world", f"--{side}", "--attack", attack, "--n", "24", "--save", path)
            assert code == 0, err
        run("organism", "world", "--split", "anchors", f"--{side}", "--n", "100", "--save", f"{side}.jsonl")
    code, _, err = run(
        "ablate", "organism/ar", "--harmless", "allowed.jsonl", "--harmful", "forbidden.jsonl", "--n", "24",
        "--seeds", "1", "--attacked", "forbidden/page.jsonl", "--control", "allowed/page.jsonl", "--length", "40",
    )  # fmt: skip
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "ablation" / "ablation.json").read_text())
    assert {row["attack"] for row in found["rows"]} == {"page"}
    assert {row["against"] for row in found["rows"]} == {"plain harmless", "same attack, harmless"}
    assert len({row["detector"] for row in found["rows"]}) >= 17
    code, _, err = run(
        "ablate", "organism/ar", "--layers", "1,last", "--harmless", "allowed.jsonl", "--harmful", "forbidden.jsonl",
        "--n", "24", "--seeds", "1", "--attacked", "forbidden/page.jsonl", "--control", "allowed/page.jsonl",
        "--length", "40", "--out", "deep",
    )  # fmt: skip
    assert code == 0, err
    assert "4 states (layers x pooling modes) at 32 steps" in err
    deep = json.loads((tmp_path / "deep" / "layers.json").read_text())
    assert len(deep["lines"]) == 2 * 2 * 2 * 2, "layers, modes, readings, kinds of negatives"
    code, _, err = run("ablate", "--layers", "all")
    assert (code, "--layers without a model" in err) == (2, True)
    code, _, err = run("ablate", "organism/ar")
    assert (code, "--attacked" in err) == (2, True)


def test_what_is_wrong_with_a_file_names_options_and_no_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from demur.cli import main

    (tmp_path / "p.csv").write_text("How do I poison wells?\nAnd cows?\n", encoding="utf-8")
    for command in ("watch", "replay"):
        monkeypatch.setattr("sys.argv", ["demur", command, str(tmp_path / "p.csv"), "-m", "organism/ar"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.count("\n") == 1
        assert "--column" in said
        assert not [word for word in ("columns=", "poison", "wells") if word in said]
