"""Recipes: every key on its page, names that are folders, encodings of editors, columns, sides, and older keys kept."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from small import one_line

from demur.attacks import Pair, Translated
from demur.defenses import DEFENSES, settings_of
from demur.experiment import Prompts, Subject, read, units_of
from demur.experiment.asking import judge_of
from demur.experiment.config import Config, content_of, folder_name
from demur.experiment.fit import answers_wanted, prepared_path
from demur.experiment.outcomes import asks_the_dictionary
from demur.experiment.queries import keys_of
from demur.experiment.recipe import KEYS, MODEL_KEYS, PROMPTS_KEYS
from demur.experiment.requests import digests_of, prompts_of
from demur.experiment.runs import Plan
from demur.judges import Budget, Endpoint, LLMJudge
from demur.types import DemurError
from demur.worlds import Role

ROOT = Path(__file__).parent.parent
KEY_OF_0_1_0 = "063a4f06"
UNITS_OF_0_1_0 = ["310f422fa3455a04", "136d65594c1b63bd", "9b7ba9f283125c13", "e1909842a666388e"]
DICTIONARY_OF_0_1_0 = ["3d9b15022b37d0d6", "2193c0934231aeac", "7a10d2127807048f", "f67bd858c4254ccb"]
PREPARED_OF_0_1_0 = "26a298c139b6f6e1"
YAML = """name: tiny
models: [organism/ar]
prompts: {harmful: organism, harmless: organism, n: 6, controls: 4, anchors: 16, fit: 40, calibrate: 24}
attacks: [organism/page]
defenses: [none]
judge: organism
length: 40
alpha: 0.1
"""


def reading(tmp_path: Path, content: bytes | str) -> Any:
    (tmp_path / "e.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(tmp_path / "e.yaml")


# -- the page ------------------------------------------------------------------------------------------------


def test_the_page_lists_every_key_and_no_other() -> None:
    page = (ROOT / "docs" / "experiments.md").read_text()
    listed = dict(re.findall(r"\n### (.+?)\n(.+?)(?=\n##|\Z)", page.partition("## Every key")[2], re.DOTALL))
    known = {
        "The recipe": KEYS,
        "`models`": MODEL_KEYS,
        "`prompts`": PROMPTS_KEYS,
        "`judge: {llm: ...}`": [f.name for f in fields(LLMJudge) if f.init] + ["intermediate"],
        "`pair`": keys_of(Pair),
        "`translated`": keys_of(Translated),
        "`attacker`": [f.name for f in fields(Endpoint) if f.init],
        "`budget`": [f.name for f in fields(Budget)],
        "`defenses`": {key for name in DEFENSES.own for key in settings_of(DEFENSES.get(name))},
    }
    assert set(listed) == set(known)
    for heading, keys in known.items():
        rows = re.findall(r"^\| `(\w+)` \|", listed[heading], re.MULTILINE)
        assert sorted(rows) == sorted(keys), heading


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../../x", "..", ".", "a/b", "a\\b", "/tmp/x", "C:x", "a:b*?", 'a"b', "a|b", "<a>", "a\nb", "a\tb", "\x7f", " a",
     "a ",
     "a.", "-x", "~", "CON", "nul.txt", "com1", "LPT9.x", "\u200b", "a\u202eb", "n" * 200, "", " ", "\u00a0"],
)  # fmt: skip
def test_a_name_that_is_no_folder_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DemurError) as error:
        reading(tmp_path, YAML.replace("name: tiny", f"name: {json.dumps(name)}"))
    assert "line 1: name is" in one_line(error.value)


@pytest.mark.parametrize("name", ["7", "2024-01-01", "1.5", "true", "null", "[a]", "{a: b}", "0x10", "~"])
def test_a_name_that_is_no_text_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DemurError) as error:
        reading(tmp_path, YAML.replace("name: tiny", f"name: {name}"))
    assert "line 1: name is" in one_line(error.value)


@pytest.mark.parametrize(
    "name", ["tiny", "paper-ar", "Größe 2", "実験", "v1.2", "a_b", "(x)", "console", "2024 b", "..a"]
)
def test_other_names_are_folders(name: str, tmp_path: Path) -> None:
    assert folder_name(name) == ""
    assert reading(tmp_path, YAML.replace("name: tiny", f"name: {json.dumps(name)}")).name == name


def test_a_recipe_names_the_guards_signal_and_older_recipes_keep_their_key(tmp_path: Path) -> None:
    plain = reading(tmp_path, YAML)
    assert plain.signal == "sri"
    assert reading(tmp_path, YAML + "\nsignal: sri\n").key == plain.key
    named = reading(tmp_path, YAML + "\nsignal: whitened\n")
    assert named.signal == "whitened"
    assert named.key != plain.key
    with pytest.raises(DemurError, match="sri or whitened"):
        reading(tmp_path, YAML + "\nsignal: cosine\n")


# -- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [YAML.replace("\n", "\r\n").encode(), YAML.replace("\n", "\r").encode(), b"\xef\xbb\xbf" + YAML.encode(),
                YAML.replace("name", "# größer\nname", 1).encode(), ("---\n" + YAML + "...\n").encode()],
)  # fmt: skip
def test_marks_and_line_ends_of_editors_do_not_matter(content: bytes, tmp_path: Path) -> None:
    assert reading(tmp_path, content) == reading(tmp_path, YAML)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (YAML.encode("utf-16"), "is UTF-16"),
        (YAML.encode("utf-16-le"), "no YAML"),
        (YAML.replace("attacks", "# größer\nattacks").encode("cp1252"), "line 4: the byte 0xf6 is no UTF-8"),
        (b"", "is empty"),
        (b"\x00" * 9, "no YAML"),
        (b"[" * 5000, "nested"),
        (b"name: &a [*a]", "e.yaml"),
        (b"- a\n- b", "no mapping"),
        (b"just words", "no mapping"),
        ((YAML + "---\n" + YAML).encode(), "no YAML"),
        (YAML.replace("length: 40", "? [a, b]\n: 40").encode(), "a key of the experiment that is no word"),
        (YAML.replace("length: 40", "length: " + "9" * 30).encode(), "length is too large"),
        (YAML.replace("length: 40", "length: " + "9" * 5000).encode(), "line 7"),
        (YAML.replace("length: 40", "seeds: [99999999999999999999]").encode(), "a seed is too large"),
        (YAML.replace("length: 40", "length: 2024-99-99").encode(), "line 7"),
        (YAML.replace("organism/page", "flip: {mode: *nobody}").encode(), "no YAML"),
        (YAML.replace("organism/page", "flip: {[a]: b}").encode(), "line 4"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(DemurError) as error:
        reading(tmp_path, content)
    assert said in one_line(error.value)


def test_a_folder_a_missing_file_and_a_missing_reader_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(DemurError, match="could not be read"):
            read(path)
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(DemurError, match=r"pip install 'demur\[evaluate\]'"):
        reading(tmp_path, YAML)


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("attacks: [organism/page]", "atacks: [organism/page]", "attacks"),
        ("controls: 4", "control: 4", "controls"),
        ("organism/page", "prefil", "prefill"),
        ("organism/page", "organism/pge", "organism/page"),
        ("[none]", "[sri-gaurd]", "sri-guard"),
        ("[none]", "[perplexity: {modle: x}]", "model"),
        ("judge: organism", "judge: dictionnary", "dictionary"),
        ("judge: organism", "judge: {llm: {model: m, base_url: 'http://h/v1', max_token: 5}}", "max_tokens"),
        ("judge: organism", "judge: {llm: {model: m, base_url: 'http://h/v1', budget: {request: 5}}}", "requests"),
        ("organism/page", "pair: {attaker: m}", "attacker"),
        ("[organism/ar]", "[{name: organism/ar, sampler: [ar]}]", "samplers"),
        ("[organism/ar]", "[{name: organism/ar, dtype: bfloat}]", "bfloat16"),
        ("[organism/ar]", "[{name: organism/diffusion, samplers: [low-confidense]}]", "low-confidence"),
        ("[organism/ar]", "[{name: organism/diffusion, samplers: [low-confidence: {temprature: 1}]}]", "temperature"),
    ],
)
def test_a_word_that_is_nearly_one_is_guessed_at(old: str, new: str, meant: str, tmp_path: Path) -> None:
    assert old in YAML
    with pytest.raises(DemurError) as error:
        reading(tmp_path, YAML.replace(old, new))
    assert f"did you mean {meant!r}?" in one_line(error.value)


# -- prompts of one's own --------------------------------------------------------------------------------------


def own(tmp_path: Path, *, both: bool = False, column: str = "text") -> None:
    rows = [
        {column: f"How do I {what} gate {i}?", "harmful": what == "break"}
        for i in range(60)
        for what in ("break", "mend")
    ]
    names = {
        "all": rows,
        "h": [row for row in rows if row["harmful"]],
        "g": [row for row in rows if not row["harmful"]],
    }
    for name, some in names.items():
        kept = some if name == "all" or both else [{column: row[column]} for row in some]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))


SIZES: Any = {"n": 5, "controls": 0, "anchors": 8, "fit": 32, "calibrate": 9}


def test_no_controls_are_none_for_files_too(tmp_path: Path) -> None:
    own(tmp_path)
    of = Prompts(str(tmp_path / "h.jsonl"), str(tmp_path / "g.jsonl"), **SIZES)
    assert prompts_of(of, "controls") == []
    assert len(prompts_of(of, "plain")) == 1
    assert set(digests_of(of)) == {*map(str, digests_of(replace(of, controls=3)))}


def test_one_file_whose_rows_say_it_serves_both_sides(tmp_path: Path) -> None:
    own(tmp_path, both=True)
    both, apart = (
        Prompts(str(tmp_path / a), str(tmp_path / b), **SIZES)
        for a, b in (("all.jsonl", "all.jsonl"), ("h.jsonl", "g.jsonl"))
    )
    for role in ("harmful", "anchors/harmful", "plain", "fit"):
        found = prompts_of(both, role)
        assert [p.text for p in found] == [p.text for p in prompts_of(apart, role)]
        assert {p.harmful for p in found} == {"harmful" in role}


def test_one_file_that_does_not_say_is_one_line(tmp_path: Path) -> None:
    own(tmp_path)
    of = Prompts(str(tmp_path / "h.jsonl"), str(tmp_path / "h.jsonl"), **SIZES)
    with pytest.raises(DemurError, match="that are harmless ones of"):
        digests_of(of)


@pytest.mark.parametrize(
    ("said", "harmful", "harmless"),
    [
        ("{text: question}", {"text": "question"}, {"text": "question"}),
        ("{harmful: {text: question}}", {"text": "question"}, {}),
        ("{harmful: {text: a}, harmless: {text: b, id: ''}}", {"text": "a"}, {"text": "b", "id": ""}),
    ],
)
def test_columns_are_of_both_sides_or_of_one(said: str, harmful: Any, harmless: Any, tmp_path: Path) -> None:
    sources = f"harmful: {tmp_path}/h.jsonl, harmless: {tmp_path}/g.jsonl, columns: {said}"
    text = YAML.replace("harmful: organism, harmless: organism", sources).replace(
        "judge: organism", "judge: dictionary"
    )
    of = reading(tmp_path, text.replace("organism/page", "flip")).prompts
    assert (of.columns_of("harmful"), of.columns_of("harmless")) == (harmful, harmless)


def test_columns_that_are_named_are_read_and_make_other_units(tmp_path: Path) -> None:
    own(tmp_path, column="what_they_asked")
    of = Prompts(str(tmp_path / "h.jsonl"), str(tmp_path / "g.jsonl"), **SIZES)
    named = replace(of, columns=(("harmful", "text", "what_they_asked"), ("harmless", "text", "what_they_asked")))
    assert prompts_of(named, "harmful")[0].text.startswith("How do I break")
    with pytest.raises(DemurError):
        prompts_of(of, "harmful")
    assert content_of(named) != content_of(of)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [("text", "columns is no mapping"), ("{}", "columns is no mapping"), ("{txt: a}", "did you mean 'text'?"),
     ("{harmful: {text: [a]}}", "the column of text is"), ("{harmfull: {text: a}}", "did you mean 'harmful'?"),
     ("{text: 5}", "the column of text is 5")],
)  # fmt: skip
def test_columns_that_are_none_are_one_line(said: str, wrong: str, tmp_path: Path) -> None:
    text = YAML.replace(
        "harmful: organism, harmless: organism", f"harmful: h.jsonl, harmless: g.jsonl, columns: {said}"
    )
    with pytest.raises(DemurError) as error:
        reading(tmp_path, text)
    assert f"line 3: {wrong}" in one_line(error.value).replace("unknown key 'txt' in columns (harmful) (", "").replace(
        "unknown key 'harmfull' in columns (harmful) (", ""
    )


# -- keys ----------------------------------------------------------------------------------------------------


def test_keys_of_recipes_of_version_0_1_0_are_what_they_were(tmp_path: Path) -> None:
    """Taken from that version: a run that began under it goes on."""
    config = reading(tmp_path, YAML)
    assert config.key == KEY_OF_0_1_0
    assert [unit.key for unit in units_of(config)] == UNITS_OF_0_1_0
    assert prepared_path(tmp_path, config, config.subjects[0]).stem == PREPARED_OF_0_1_0


def test_what_the_dictionary_reads_otherwise_than_version_0_1_0_makes_other_units(tmp_path: Path) -> None:
    """There an answer that was cut in its thought counted as one that complies: old rows and new ones are not mixed."""
    config = reading(tmp_path, YAML)
    keys = {
        judge: [unit.key for unit in units_of(replace(config, judge=judge))]
        for judge in ("organism", "reading", "dictionary")
    }
    said = {judge: asks_the_dictionary(replace(config, judge=judge)) for judge in keys}
    assert said == {"organism": False, "reading": False, "dictionary": True}
    assert keys["organism"] == UNITS_OF_0_1_0
    assert not {*keys["dictionary"]} & {*DICTIONARY_OF_0_1_0}


def test_template_arguments_of_a_model_make_other_units(tmp_path: Path) -> None:
    plain = reading(tmp_path, YAML)
    given = reading(tmp_path, YAML.replace("[organism/ar]", "[{name: organism/ar, template_args: {thinking: false}}]"))
    assert given.subjects == (Subject("organism/ar", template_args={"thinking": False}),)
    assert not {unit.key for unit in units_of(plain)} & {unit.key for unit in units_of(given)}
    with pytest.raises(DemurError, match="template_args hold no plain data"):  # YAML reads it as a date
        reading(tmp_path, YAML.replace("[organism/ar]", "[{name: organism/ar, template_args: {day: 2024-07-26}}]"))
    with pytest.raises(DemurError, match="template_args is no mapping"):
        reading(tmp_path, YAML.replace("[organism/ar]", "[{name: organism/ar, template_args: thinking}]"))


def test_a_judge_s_newer_settings_can_be_said() -> None:
    judge = judge_of({"model": "m", "base_url": " http://h/v1/\n", "max_completion_tokens": 900, "patience": 30})
    assert (judge.base_url, judge.endpoint.longest, judge.endpoint.patience) == ("http://h/v1", 900, 30)


JUDGE_SETTINGS = {
    "cache: 5": "judge llm with",
    "budget: {requests: .inf}": "the number .inf; expected a finite number",
    "budget: {requests: -1}": "a budget of -1 requests",
    "temperature: .inf": "the number .inf; expected a finite number",
    "temperature: 1.0e+999": "expected a finite number",
    "threshold: true": "threshold True",
    "timeout: 1:30": "the number 1:30; expected a finite number",
}


@pytest.mark.parametrize("settings", JUDGE_SETTINGS)
def test_a_judges_settings_of_another_kind_are_one_line(settings: str, tmp_path: Path) -> None:
    judge = f"{{llm: {{model: m, base_url: 'http://localhost:1/v1', {settings}}}}}"
    with pytest.raises(DemurError) as error:
        reading(tmp_path, YAML.replace("judge: organism", f"judge: {judge}"))
    assert JUDGE_SETTINGS[settings] in one_line(error.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("length: 40", "length: 12:30:45", "the number 12:30:45"),
        ("alpha: 0.1", "alpha: .nan", "the number .nan"),
        ("alpha: 0.1", "alpha: 0:0.1", "the number 0:0.1"),
        ("[none]", "[none+none]", "defense 'none+none'"),
        ("[none]", "[none+sri-guard]", "defense 'none+sri-guard'"),
        ("[none]", "[sri-guard+sri-guard]", "defense 'sri-guard+sri-guard'"),
        ("[organism/ar]", "[{name: organism/ar, samplers: [{ar: {temperature: .inf}}]}]", "the number .inf"),
    ],
)
def test_a_value_that_only_yaml_takes_for_one_is_one_line(old: str, new: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DemurError) as error:
        reading(tmp_path, YAML.replace(old, new))
    assert says in one_line(error.value)


# -- what no row uses is not asked for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defenses", "fit", "calibrate"),
    [
        ("[none]", 0, 0),
        ("[none, self-examine]", 0, 0),
        ("[none, moderation: {model: organism/ar}]", 0, 0),
        ("[none, perplexity: {model: organism/ar}]", 0, 200),
        ("[none, perplexity: {model: organism/ar}, sri-guard]", 400, 200),
        ("[none, self-examine+sri-guard-offline]", 400, 200),
    ],
)
def test_prompts_for_a_guard_are_asked_for_where_a_defense_uses_it(
    defenses: str, fit: int, calibrate: int, tmp_path: Path
) -> None:
    sizes = "n: 6, controls: 4, anchors: 16"
    text = YAML.replace("defenses: [none]", f"defenses: {defenses}").replace(", fit: 40, calibrate: 24", "")
    found = reading(tmp_path, text).prompts
    assert (found.fit, found.calibrate) == (fit, calibrate)
    named = reading(tmp_path, text.replace(sizes, f"{sizes}, fit: 40, calibrate: 24")).prompts
    assert (named.fit, named.calibrate) == (40, 24), "what is named is made"


def test_harmful_anchors_are_as_many_as_harmless_ones_or_as_many_as_are_named(tmp_path: Path) -> None:
    def named(more: str) -> Config:
        return reading(tmp_path, YAML.replace("anchors: 16", f"anchors: 16{more}"))

    def asked(config: Config) -> list[int]:
        roles: tuple[Role, ...] = ("anchors/harmless", "anchors/harmful")
        return [len(prompts_of(config.prompts, role)) for role in roles]

    plain, more = named(""), named(", harmful_anchors: 24")
    assert asked(plain) == [16, 16]
    assert named(", harmful_anchors: 0").key == plain.key == KEY_OF_0_1_0
    assert asked(more) == [16, 24]
    assert more.key != plain.key
    subject = plain.subjects[0]
    assert prepared_path(tmp_path, more, subject) != prepared_path(tmp_path, plain, subject)
    assert answers_wanted(more, subject) == answers_wanted(plain, subject) + 8
    first = [Plan(units_of(of), frozenset()).answers(of, subject)[0] for of in (more, plain)]
    assert first[0] == first[1] + 8
    with pytest.raises(DemurError, match="harmful_anchors"):
        named(", harmful_anchors: 7")


def test_a_small_file_is_enough_for_a_run_without_a_guard(tmp_path: Path) -> None:
    for side in ("harmful", "harmless"):
        rows = (json.dumps({"text": f"How do I {side} {i}?"}) for i in range(24))
        (tmp_path / f"{side}.jsonl").write_text("\n".join(rows))
    sources = ", ".join(f"{side}: {tmp_path / side}.jsonl" for side in ("harmful", "harmless"))
    text = f"name: a\nmodels: [organism/ar]\nprompts: {{{sources}, n: 8, anchors: 16, plain: 8}}\n"
    assert len(units_of(reading(tmp_path, text))) == 2
    for more in ("defenses: [none, sri-guard]\n", "attacks: [prefix]\n"):
        with pytest.raises(DemurError, match="24 different prompts"):
            units_of(reading(tmp_path, text + more))


@pytest.mark.parametrize(("sizes", "says"), [("fit: 0", "fit 0 with the defense sri-guard"), ("fit: 5", "at least 32")])
def test_too_few_prompts_for_a_guard_are_one_line(sizes: str, says: str, tmp_path: Path) -> None:
    text = YAML.replace("defenses: [none]", "defenses: [sri-guard]").replace("fit: 40", sizes)
    with pytest.raises(DemurError, match=says):
        reading(tmp_path, text)


def test_a_run_without_a_guard_has_signals_and_no_scores_and_is_reported(tmp_path: Path) -> None:
    from demur.experiment import evaluate
    from demur.report import report

    config = reading(tmp_path, YAML.replace(", fit: 40, calibrate: 24", ""))
    store = evaluate(config, tmp_path / "run")
    rows = [*store.records()]
    assert len(rows) == 20
    assert all(row.sigma is not None and row.score is None for row in rows)
    assert evaluate(config, tmp_path / "run", resume=True).manifest["units"] == store.manifest["units"]
    report(tmp_path / "run", tmp_path / "report")
    assert [*(tmp_path / "report").rglob("*.html")]


@pytest.mark.parametrize("number", ["010", "+010", "007", "00", "0_10"])
def test_a_number_that_yaml_counts_in_another_base_is_one_line(number: str, tmp_path: Path) -> None:
    with pytest.raises(DemurError, match="line 3"):
        reading(tmp_path, YAML.replace("n: 6", f"n: {number}"))
    assert reading(tmp_path, YAML.replace("controls: 4", "controls: 0")).prompts.controls == 0
