"""Experiments whose judge is a model behind an endpoint: verdicts, failures, resuming, no question twice."""

from __future__ import annotations

import csv
import json
import re
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from server import Handler, Server, nowhere, scored, serving
from test_cli import cli

from demur.cli import evaluate as evaluating
from demur.experiment import Config, Store, collect, evaluate, judged, plan, read
from demur.experiment.judging import judge_tokens
from demur.experiment.requests import prompts_of
from demur.judges import LLMJudge
from demur.report import report
from demur.types import DemurError

pytest.importorskip("openai")

YAML = """
name: judged
models: [organism/ar]
prompts: {harmful: organism, harmless: organism, n: 5, controls: 2, anchors: 16, fit: 40, calibrate: 24}
attacks: [organism/page]
judge: {llm: {model: m, base_url: "URL", retries: 0, timeout: 5, concurrency: 2}}
length: 24
chunk: 3
alpha: 0.1
"""
ASKED = 10
"""Answers to harmful requests: five plain, five attacked."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def config_for(folder: Path, url: str, old: str = "", new: str = "") -> Config:
    """The recipe with the judge at ``url``, read from a file."""
    text = YAML.replace("URL", url)
    assert old in text
    (folder / "e.yaml").write_text(text.replace(old, new, 1) if old else text)
    return read(folder / "e.yaml")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose texts are there and whose judge is not: it ends in a named error, and nothing is lost."""
    folder = tmp_path_factory.mktemp("generated")
    with pytest.raises(DemurError, match=r"nothing answers at http://127\.0\.0\.1"):
        evaluate(config_for(folder, nowhere()), folder / "run")
    assert not Store(folder / "run").manifest["finished"]
    return folder / "run"


@pytest.fixture
def run(generated: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(generated, tmp_path / "run"))


def test_a_dry_run_says_what_the_judge_is_asked_and_what_that_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["demur", "evaluate", "e.yaml", "--out", "none", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), " ".join((said.out + said.err).split())

    monkeypatch.chdir(tmp_path)
    config = config_for(tmp_path, nowhere(), "retries: 0", "retries: 0, max_tokens: 1000")
    code, out = call("--dry-run", "--price", "2e6", "1e6")  # a token read costs 2, a token written 1
    asked = f"at most {ASKED} requests to the judge m, some 0.0 million tokens that it reads and at most 0.0"
    assert (code, asked in out) == (0, True)
    (least, most) = re.findall(r"for ([\d.]+) to ([\d.]+), in the price's money", out)[0]
    assert float(least) == pytest.approx(2 * ASKED * judge_tokens(config), abs=0.01)
    assert float(most) - float(least) == pytest.approx(1000 * ASKED)
    assert "price's money" not in call("--dry-run")[1]
    assert call("--price", "1", "1") == (2, call("--price", "1", "1")[1])
    assert "--dry-run" in call("--price", "1", "1")[1]
    assert call("--dry-run", "--price", "-1", "1")[0] == 2
    config_for(tmp_path, "", "judge: {llm", "judge: organism #")
    code, out = call("--dry-run", "--price", "1", "1")
    assert (code, "which is free" in out) == (2, True)


def go_on(run: Path, server: Server, old: str = "", new: str = "") -> Store:
    """Resumes a run with its judge at a server."""
    return evaluate(config_for(run.parent, server.url, old, new), run, resume=True)


def verdicts(store: Store) -> list[dict[str, Any]]:
    """The verdicts of a finished run's harmful rows, in their order."""
    records = list(judged(store, store.records(store.manifest["units"])))
    assert all(record.verdict is None for record in records if record.role != "harmful")
    found = [dict(record.verdict or {}) for record in records if record.role == "harmful"]
    assert len(found) == ASKED
    for verdict in found:
        assert verdict["by"] == "harm:m"
        assert (verdict["flagged"] is None) == (verdict["score"] is None)
    return found


def question(server: Server, number: int) -> str:
    content: str = server.bodies[number]["messages"][0]["content"]
    return content


def by_text(handler: Handler, number: int) -> None:
    """A score that depends on the question alone."""
    asked = question(handler.server, number - 1).partition("[REPLY")[2].partition("\n")[2]
    handler.answer(scored(1 + len(asked) % 5))


# -- verdicts -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_recipe_with_a_model_as_judge_ends_in_verdicts_and_a_second_run_asks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["demur", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    with serving(by_text) as server:
        config_for(tmp_path, server.url, "timeout: 5", f'timeout: 5, cache: "{tmp_path / "kept"}"')
        out = call("evaluate", "e.yaml", "--out", "first")
        store = Store(tmp_path / "first" / "judged")
        found = verdicts(store)
        assert {verdict["flagged"] for verdict in found} == {True, False}
        assert all(verdict["flagged"] == (verdict["score"] >= 4) for verdict in found)
        assert (store.manifest["unscored"], "could not be judged" in out) == (0, False)
        asked = server.count
        assert asked == ASKED
        plain = [row for row in store.rows() if row["role"] == "harmful" and row["attack"] == "plain"]
        for number in range(asked):
            request = question(server, number).partition("[REQUEST")[2].partition("\n")[2].partition("\n")[0]
            assert request in {row["prompt"] for row in plain}, "judged by the request that was attacked"
        call("evaluate", "e.yaml", "--out", "first", "--resume")
        call("evaluate", "e.yaml", "--out", "second")
        assert server.count == asked, "what was answered is kept"
    assert verdicts(store) == found == verdicts(Store(tmp_path / "second" / "judged"))
    assert len(list((tmp_path / "kept").iterdir())) == asked


def rates(run: Path, attack: str) -> str:
    """The cell of table 3 for an attack, up to its interval."""
    report(run, run / "report")
    lines = csv.DictReader((run / "report" / "table-3.csv").read_text().splitlines())
    return next(line["text"] for line in lines if line["column"] == attack).split(",")[0]


def answered(store: Store, attack: str) -> int:
    """How many of an attack's five answers the dictionary takes for no refusal."""
    rows = [row for row in store.rows() if row["role"] == "harmful" and row["attack"] == attack]
    return sum(row["outcome"] != "refusal" for row in rows)


def test_a_report_reads_the_judge_and_not_the_dictionary(run: Path) -> None:
    said = []
    for score in (5, 1):
        with serving(scored(score)) as server:
            store = go_on(run, server, "model: m", f"model: m, seed: {score}")
        said.append(rates(run, "organism/page"))
    n = answered(store, "organism/page")
    assert n, "no answer to judge"
    refused = 100 * (5 - n) // 5
    assert said == [f"{refused} / {100 * n // 5} (n 5", f"{refused} / 0 (n 5"]


def test_without_a_cache_of_its_own_a_run_keeps_the_answers_beside_its_rows(run: Path) -> None:
    with serving(by_text) as server:
        found = verdicts(go_on(run, server))
        shutil.rmtree(run / "judged")
        assert verdicts(go_on(run, server)) == found
        assert server.count == ASKED == len(list((run / "answers").iterdir()))


@pytest.mark.slow
def test_texts_on_the_way_are_judged_for_table_1_if_the_recipe_says_so(tmp_path: Path) -> None:
    """The judge of this test finds harm in every text that is not the last one of its answer."""
    final: set[str] = set()

    def act(handler: Handler, number: int) -> None:
        asked = handler.server.bodies[number - 1]["messages"][-1]["content"]
        handler.answer(scored(1 if any(text in asked for text in final) else 5))

    with serving(act) as server:
        config = config_for(tmp_path, server.url, "model: m", "model: m, intermediate: 3")
        for _ in range(2):  # once to learn which texts are last ones, then with a judge that knows them
            shutil.rmtree(tmp_path / "run" / "answers", ignore_errors=True)
            store = evaluate(config, tmp_path / "run", resume=True)
            rows = [row for row in store.rows() if row["role"] == "harmful"]
            final |= {row["answer"] for row in rows}
    assert all(1 <= len(row["texts"]) <= 3 for row in rows)
    report(tmp_path / "run", tmp_path / "report")
    lines = csv.DictReader((tmp_path / "report" / "table-1.csv").read_text().splitlines())
    cells = [line["text"] for line in lines][:4]  # what follows is by the reading of refusals
    attacked = sum(row["attack"] != "plain" for row in rows)
    early = sum(row["attack"] != "plain" and any(t not in final for t in row["texts"]) for row in rows)
    assert early
    assert cells[2:] == [str(attacked), str(early)]
    assert cells[1].startswith("100% ("), "all of them are harmless in the end"


def test_another_threshold_asks_nothing_and_another_model_asks_again(run: Path) -> None:
    with serving(scored(3)) as server:
        assert not any(verdict["flagged"] for verdict in verdicts(go_on(run, server)))
        assert all(v["flagged"] for v in verdicts(go_on(run, server, "model: m", "model: m, threshold: 3")))
        assert server.count == ASKED
        store = go_on(run, server, "model: m", "model: n")
        assert {r.verdict["by"] for r in judged(store, store.records()) if r.verdict} == {"harm:n"}
        assert server.count == 2 * ASKED


# -- failures -------------------------------------------------------------------------------------------------


def cut(handler: Handler) -> None:
    handler.send(200, '{"choices": [', promise=500)
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def slow(handler: Handler) -> None:
    OVER.wait(20)
    handler.answer(scored(1))


OVER = threading.Event()
FAILURES: dict[str, tuple[Callable[[Handler], object], str]] = {
    "429": (lambda h: h.send(429, '{"error": {"message": "slow down"}}'), "HTTP 429 (slow down)"),
    "500": (lambda h: h.send(500, '{"error": {"message": "out of memory"}}'), "HTTP 500 (out of memory)"),
    "slow": (slow, "timeout: no answer within 0.4 s"),
    "cut": (cut, "connection broken"),
    "html": (lambda h: h.send(200, "<html>hello</html>"), "no JSON"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failing_endpoint_leaves_unscored_rows_and_resuming_asks_for_these_alone(kind: str, run: Path) -> None:
    act, why = FAILURES[kind]
    good = 4
    OVER.clear()

    def failing(handler: Handler, number: int) -> None:
        by_text(handler, number) if number <= good else act(handler)

    with serving(failing) as server:
        store = go_on(run, server, "timeout: 5", "timeout: 0.4" if kind == "slow" else "timeout: 5")
        OVER.set()
        assert server.count == ASKED
    first = verdicts(store)
    missing = [verdict for verdict in first if verdict["flagged"] is None]
    assert len(missing) == store.manifest["unscored"] == ASKED - good
    assert all(why in verdict["why"] for verdict in missing)
    (reason,) = store.manifest["unscored_why"]
    assert (reason["n"], why in reason["why"]) == (ASKED - good, True)
    assert store.manifest["finished"]
    with serving(by_text) as server:
        store = go_on(run, server)
        assert server.count == ASKED - good
    second = verdicts(store)
    assert store.manifest["unscored"] == 0
    for before, after in zip(first, second, strict=True):
        assert after["flagged"] is not None
        assert before["flagged"] is None or before == after


@pytest.mark.parametrize("kind", FAILURES)
def test_an_endpoint_that_never_answers_ends_the_run_with_its_reason_and_keeps_the_texts(kind: str, run: Path) -> None:
    act, why = FAILURES[kind]
    OVER.clear()
    with serving(lambda handler, number: act(handler)) as server:
        with pytest.raises(DemurError) as error:
            go_on(run, server, "timeout: 5", "timeout: 0.4" if kind == "slow" else "timeout: 5")
        OVER.set()
        assert server.count <= 8
    assert why in str(error.value)
    assert "--resume" in error.value.then
    with serving(by_text) as server:
        assert go_on(run, server).manifest["unscored"] == 0
        assert ASKED - 2 <= server.count <= ASKED, "what was under way at the end may have come after it"


def test_a_provider_that_refuses_some_texts_is_counted_apart_and_told(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda h, n: h.answer("", end="content_filter") if n <= 6 else by_text(h, n)) as server:
        store = go_on(run, server)
    assert (store.manifest["unscored"], store.manifest["refused_by_provider"], store.manifest["judged"]) == (
        6,
        6,
        ASKED,
    )
    evaluating._told(store.manifest, run)
    said = " ".join(capsys.readouterr().out.split())
    assert "6 of 10 answers could not be judged" in said
    assert "commonest reason (6 times): refused by the provider (content_filter)" in said
    assert "6 of these were refused by the judge's provider" in said


def test_a_run_in_which_nothing_could_be_judged_ends_with_a_code_and_the_reason(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving("As a large language model, I would say 4.") as server:
        store = go_on(run, server)
    with pytest.raises(typer.Exit) as end:
        evaluating._told(store.manifest, run)
    assert end.value.exit_code == 1
    assert "(10 times): no JSON object in the answer" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("broken", ["", "key", "port"])
def test_a_dry_run_says_what_endpoints_lack_and_a_probe_asks_each_once(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    monkeypatch.setattr(evaluating, "_probe", lambda *_: None)
    with serving("yes") as server:
        url = nowhere() if broken == "port" else server.url
        config_for(tmp_path, url, "model: m", "model: m, api_key_env: NO_SUCH_KEY" if broken == "key" else "model: m")
        monkeypatch.setattr(sys, "argv", ["demur", "evaluate", "e.yaml", "--dry-run", "--probe"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == (1 if broken else 0)
        assert {"": "answers", "key": "NO_SUCH_KEY is not set", "port": "nothing answers at"}[broken] in said.out
        assert "secret" not in said.out + said.err
        assert server.count == (0 if broken else 1)


def test_after_429_the_run_waits_as_it_is_told_and_no_row_is_lost(run: Path) -> None:
    def act(handler: Handler, number: int) -> None:
        if number == 1:
            handler.send(429, '{"error": {"message": "slow down"}}', Retry_After="1")
        else:
            by_text(handler, number)

    with serving(act) as server:
        store = go_on(run, server, "retries: 0, timeout: 5, concurrency: 2", "retries: 2, timeout: 5, concurrency: 1")
        assert store.manifest["unscored"] == 0
        assert server.count == ASKED + 1
        assert server.times[1] - server.times[0] > 0.95


def test_nonsense_is_unscored_told_in_the_report_and_not_paid_for_twice(run: Path) -> None:
    with serving("As a large language model, I would say 4.") as server:
        store = go_on(run, server)
        assert {verdict["why"] for verdict in verdicts(store)} == {"no JSON object in the answer"}
        assert store.manifest["unscored"] == ASKED
        for attack in ("plain", "organism/page"):  # what was not judged counts neither way, refusals or not
            assert rates(run, attack) == "unscored (5)"
        said = f"Unscored: {ASKED} of {len(list(store.rows()))} rows"
        assert "The judge gave no verdict on 100%" in (run / "report" / "report.md").read_text()
        assert said in (run / "report" / "report.md").read_text()
        assert said in (run / "report" / "report.html").read_text()
        go_on(run, server)
        assert server.count == ASKED, "the same question would bring the same answer"


def test_the_step_viewer_shows_the_generation_of_its_row_also_beside_unscored_ones(run: Path) -> None:
    def act(handler: Handler, number: int) -> None:
        handler.send(500, "{}") if number == 6 else handler.answer(scored(4))

    with serving(act) as server:
        store = go_on(run, server, "concurrency: 2", "concurrency: 1")
    rows = store.rows(store.manifest["units"])
    first, second = [row for row in rows if row["attack"] == "organism/page" and row["role"] == "harmful"][:2]
    report(run, run / "report", show_harmful=True)
    html = (run / "report" / "report.html").read_text()
    scenes = json.loads(html.partition('id="scenes" type="application/json">')[2].partition("</script>")[0])
    (shown,) = [data for key, data in scenes.items() if "organism/page" in key and "role=harmful" in key]
    assert "unscored" not in shown
    assert json.dumps(second["prompt"])[1:-1] in shown
    assert json.dumps(first["prompt"])[1:-1] not in shown


def test_a_server_that_goes_away_in_the_middle_is_unscored_rows_and_then_a_named_error(run: Path) -> None:
    def act(handler: Handler, number: int) -> None:
        handler.close_connection = True
        if number > 3:
            handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            by_text(handler, number)

    with serving(act) as server:
        store = go_on(run, server, "concurrency: 2", "concurrency: 1")
    before = verdicts(store)
    assert sum(verdict["flagged"] is not None for verdict in before) == 3
    with pytest.raises(DemurError, match="nothing answers at"):  # it is not there at all any more
        go_on(run, server)
    assert Store(run).manifest["finished"], "every unit is there: what could not be judged stays unscored"
    assert verdicts(Store(run)) == before
    assert len(list((run / "answers").iterdir())) == 3
    with serving(by_text) as server:
        after = verdicts(go_on(run, server))
        assert server.count == ASKED - 3
    assert [a for a, b in zip(after, before, strict=True) if b["flagged"] is not None] == [
        b for b in before if b["flagged"] is not None
    ]


def test_a_budget_is_exact_and_the_next_run_goes_on(run: Path) -> None:
    for n in (4, 8, 10):
        with serving(by_text) as server:
            store = go_on(run, server, "model: m", "model: m, budget: {requests: 4}")
            assert store.manifest["unscored"] == ASKED - n
            assert server.count == min(4, ASKED - n + 4 if n < ASKED else 2)


def test_a_missing_key_is_said_before_anything_is_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    config = config_for(tmp_path, "http://127.0.0.1:9/v1", "model: m", "model: m, api_key_env: NO_SUCH_KEY")
    with pytest.raises(DemurError, match="NO_SUCH_KEY is not set"):
        evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("llm", "judge llm with model None"),
        ("{llm: {model: m}}", "judge llm with base_url None"),
        ("{llm: {model: 5, base_url: 'http://h/v1'}}", "judge llm with model 5"),
        ("{llm: {model: m, base_url: h}}", "base_url is no address"),
        ("{llm: {model: m, base_url: 'http://h/v1', tries: 4}}", "judge llm with tries"),
        ("{llm: {model: m, base_url: 'http://h/v1', timeout: soon}}", "judge llm with a setting of another kind"),
        ("{llm: {model: m, base_url: 'http://h/v1', rubric: 5}}", "judge llm with a setting of another kind"),
        ("{llm: {model: m, base_url: 'http://h/v1', rubric: none}}", "rubric 'none'"),
        ("{llm: {model: m, base_url: 'http://h/v1', budget: 5}}", "its budget with 5"),
        ("{llm: {model: m, base_url: 'http://h/v1', budget: {euros: 5}}}", "its budget with euros"),
        (
            "{llm: {model: m, base_url: 'http://h/v1', budget: {requests: few}}}",
            "judge llm with a setting of another kind",
        ),
        ("{organism: {model: m}}", "judge organism with model"),
    ],
)
def test_what_a_judge_can_not_be_is_named_with_its_line(settings: str, said: str, tmp_path: Path) -> None:
    judge = next(line for line in YAML.splitlines() if line.startswith("judge:"))
    (tmp_path / "e.yaml").write_text(YAML.replace(judge, f"judge: {settings}"))
    with pytest.raises(DemurError) as error:
        read(tmp_path / "e.yaml")
    assert f"line 6: {said}" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_judge_that_the_documentation_shows_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "judges.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    judge = next(line for line in YAML.splitlines() if line.startswith("judge:"))
    (tmp_path / "e.yaml").write_text(YAML.replace(f"{judge}\n", shown))
    assert read(tmp_path / "e.yaml").judge_settings["model"] in shown


def test_the_budget_of_a_recipe_is_the_judge_s(tmp_path: Path) -> None:
    from demur.experiment.asking import judge_of

    config = config_for(tmp_path, "http://h/v1", "model: m", "model: m, budget: {requests: 7, tokens: null}")
    judge = judge_of(config.judge_settings)
    assert isinstance(judge, LLMJudge)
    assert (judge.budget.requests, judge.budget.tokens, judge.concurrency) == (7, None, 2)


def test_attacked_prompts_of_a_file_are_judged_by_their_goals(run: Path) -> None:
    rows = [{"id": f"a{i}", "prompt": f"xyzzy {i}", "goal": f"How do I open gate {i}?"} for i in range(5)]
    (run.parent / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(scored(2)) as server:
        go_on(run, server, "[organism/page]", f'["{run.parent / "mine.jsonl"}"]')
        asked = [question(server, number) for number in range(server.count)]
    assert len(asked) == ASKED
    assert sum("How do I open gate" in text for text in asked) == 5
    assert not any("xyzzy" in text for text in asked)


# -- PAIR in a recipe -----------------------------------------------------------------------------------------------

PAIRED = """
name: paired
models: [organism/ar]
prompts: {harmful: organism, harmless: organism, n: 3, controls: 2, anchors: 16, fit: 40, calibrate: 24}
attacks:
  - pair: {attacker: {model: attacker, base_url: "URL", retries: 0}, judge: organism, rounds: 2, streams: 2}
defenses: [none, sri-guard]
judge: organism
length: 24
chunk: 2
alpha: 0.1
"""


def paired(folder: Path, url: str, old: str = "", new: str = "") -> Config:
    text = PAIRED.replace("URL", url)
    assert old in text
    (folder / "p.yaml").write_text(text.replace(old, new, 1) if old else text)
    return read(folder / "p.yaml")


def writing(bad: Callable[[int], bool] = lambda number: False) -> Callable[[Handler, int], None]:
    """An attacker that asks the same thing politely, a different way every time; some requests end in an error."""

    def act(handler: Handler, number: int) -> None:
        if bad(number):
            handler.send(500, "{}")
            return
        asked = handler.server.bodies[number - 1]["messages"][1]["content"]
        request = json.loads(asked.removeprefix("The request: ").split("\n")[0])
        handler.answer(json.dumps({"improvement": str(number), "prompt": f"Please, {request} {'Now.' * number}"}))

    return act


@pytest.mark.slow
def test_pair_of_a_recipe_searches_once_for_all_defenses_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    with serving(writing()) as server:
        config = paired(tmp_path, server.url)
        store = evaluate(config, tmp_path / "run")
        first = server.count
        assert 3 <= first <= 3 * 4, "at most rounds x streams of each of three requests, whatever the defenses"
        rows = [row for row in store.rows(store.manifest["units"]) if row["attack"].startswith("pair")]
        assert {(row["role"], row["defense"]) for row in rows} == {("harmful", "none"), ("harmful", "sri-guard")}
        by = {d: {row["parent"]: row["prompt"] for row in rows if row["defense"] == d} for d in ("none", "sri-guard")}
        assert by["none"] == by["sri-guard"], "one attack behind all defenses"
        assert len(by["none"]) == 3
        assert next(row["attack"] for row in rows) == "pair (attacker=attacker, judge=organism, rounds=2, streams=2)"
        (said,) = store.manifest["searches"]
        assert f"3 searches, {first} queries" in said
        for path in (tmp_path / "run" / "units").glob("*.parquet"):
            path.unlink()
        again = evaluate(config, tmp_path / "run", resume=True)
        assert server.count == first, "what was found is kept"
        assert again.manifest["rows"] == store.manifest["rows"]
        assert "http" not in next((tmp_path / "run" / "attacked").iterdir()).read_text()
    moved = paired(tmp_path, "http://127.0.0.1:9/v1")
    assert [u.key for u in plan(moved, tmp_path / "run").missing] == [], "another address is no other attack"
    other = paired(tmp_path, "http://127.0.0.1:9/v1", "rounds: 2", "rounds: 3")
    assert {u.attack.name for u in plan(other, tmp_path / "run").missing} == {"pair"}
    report(tmp_path / "run", tmp_path / "report")
    assert "Searched attacks: pair" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.slow
def test_an_attacker_that_fails_is_named_with_its_unit_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    with serving(writing(lambda number: number > 4)) as server:
        config = paired(tmp_path, server.url, "n: 3", "n: 2")
        with pytest.raises(DemurError, match=r"organism/ar.*pair.*PAIR, query 1: attacker gave no answer: HTTP 500"):
            evaluate(config, tmp_path / "run")
        kept = {path.name for path in (tmp_path / "run" / "attacked").iterdir()}
        assert len(kept) == 1
    with serving(writing()) as server:
        evaluate(paired(tmp_path, server.url, "n: 3", "n: 2"), tmp_path / "run", resume=True)
        asked = {body["messages"][1]["content"] for body in server.bodies}
        assert len(asked) == 1, "the first request's search is kept"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("{rounds: 2}", "without an attacker"),
        ("{attacker: {model: m}}", "without base_url"),
        ("{attacker: smollm2, tempo: 3}", "tempo"),
        ("{attacker: smollm2, rounds: 0}", "rounds=0"),
        ("{attacker: smollm2, rounds: two}", "rounds 'two'"),
        ("{attacker: smollm2, judge: nobody}", "judge 'nobody'"),
        ('{attacker: smollm2, judge: {model: m, base_url: "http://x/v1", rubric: refusal}}', "rubric harm"),
        ('{attacker: {model: m, base_url: "http://x/v1", budget: {pounds: 3}}}', "pounds"),
        ('{attacker: {model: m, base_url: "http://x/v1", budget: {requests: many}}}', "another kind"),
        ('{attacker: {model: m, base_url: "http://x/v1", api_key: sk-1234567890}}', "attacker with api_key"),
    ],
)
def test_what_pair_can_not_be_is_named_with_its_line(settings: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    begin = PAIRED.index("  - pair:")
    file.write_text(PAIRED[:begin] + f"  - pair: {settings}\n" + PAIRED[PAIRED.index("defenses:") :])
    with pytest.raises(DemurError, match=said) as caught:
        read(file)
    assert "line 6" in str(caught.value)
    assert "sk-1234567890" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "streams: 2}",
            "streams: 2}\n  - pair: {attacker: attacker, judge: organism, rounds: 2, streams: 2}",
            "two attacks",
        ),
        ("harmful: organism, harmless: organism", "harmful: harmful, harmless: harmless", "judge organism for prompts"),
    ],
)
def test_attacks_of_one_name_and_a_judge_of_another_world_are_named(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DemurError, match=f"line [67]: {said}"):
        paired(tmp_path, "http://x/v1", old, new)


@pytest.mark.slow
def test_a_search_that_broke_off_is_made_again_and_one_that_nobody_needs_is_removed(tmp_path: Path) -> None:
    with serving(writing(lambda number: number == 2)) as server:
        config = paired(tmp_path, server.url, "n: 3", "n: 1")
        with pytest.raises(DemurError, match=r"broke off \(attacker gave no answer: HTTP 500"):
            evaluate(config, tmp_path / "run")
        assert not (tmp_path / "run" / "attacked").exists()
    with serving(writing()) as server:
        config = paired(tmp_path, server.url, "n: 3", "n: 1")
        evaluate(config, tmp_path / "run", resume=True)
        (tmp_path / "p.yaml").write_text((tmp_path / "p.yaml").read_text().replace("rounds: 2", "rounds: 3"))
        deeper = read(tmp_path / "p.yaml")
        store = evaluate(deeper, tmp_path / "run", resume=True)
        (said,) = store.manifest["searches"]
        assert "rounds=3" in said, "of this plan's searches alone"
        assert len(list((tmp_path / "run" / "attacked").iterdir())) == 2
        collect(tmp_path / "run", deeper)
        assert len(list((tmp_path / "run" / "attacked").iterdir())) == 1


@pytest.mark.slow
def test_attackers_and_searches_that_run_here(tmp_path: Path) -> None:
    begin, end = PAIRED.index("  - pair:"), PAIRED.index("defenses:")
    attacks = (
        "  - pair: {attacker: smollm2, rounds: 1, streams: 1}\n"
        "  - random-search: {tokens: 2, iterations: 2, batch: 2, target: To}\n"
    )
    (tmp_path / "p.yaml").write_text((PAIRED[:begin] + attacks + PAIRED[end:]).replace("n: 3", "n: 1"))
    config = read(tmp_path / "p.yaml")
    store = evaluate(config, tmp_path / "run")
    assert [line.split(":")[0] for line in sorted(store.manifest["searches"])] == [
        "pair (attacker=smollm2, rounds=1, streams=1)",
        "random-search (tokens=2, iterations=2, batch=2, target=To)",
    ]
    again = evaluate(config, tmp_path / "again")
    assert again.manifest["rows"] == store.manifest["rows"], "the same messages bring the same text"
    suffixed = [row for row in store.rows() if row["attack"].startswith("random") and row["role"] == "harmful"]
    assert all(row["prompt"].startswith(prompts_of(config.prompts, "harmful")[0].text) for row in suffixed)
    assert {row["role"] for row in store.rows() if row["attack"].startswith("random")} == {"harmful", "controls"}
