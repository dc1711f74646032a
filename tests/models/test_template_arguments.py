"""A template argument is what its template does with it: a word that is written, or a truth that is asked."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from demur.cli.settings import key_values
from demur.models.chat import Chat
from demur.models.template_use import use_of
from demur.types import DemurError, DemurWarning

TURNS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
WRITES = {
    "plain": "Answer in {{ x }}.",
    "where it is there": "{% if x %}Answer in {{ x }}.{% endif %}",
    "where it is defined": "{% if x is defined and x is not none %}{{ 'Answer in ' + x }}{% endif %}",
    "or else": "{{ x or 'en' }}",
    "by default": "{{ x | default('en') | upper }}",
    "choice": "{{ x if x else 'en' }}",
    "glued": "{{ 'Answer in ' ~ x ~ '.' }}",
    "formatted": "{{ 'Answer in %s' % x }}{{ '{}'.format(x) }}",
    "method": "{{ x.strip() }}",
    "another name": "{% set lang = x %}{% if lang %}{{ lang }}{% endif %}",
    "another name by default": "{% set lang = x if x is defined else 'en' %}{{ lang }}",
    "two names": "{% set a = x %}{% set b = 'in ' + a %}{{ b }}",
    "namespace": "{% set ns = namespace(lang=x) %}{{ ns.lang }}",
    "namespace later": "{% set ns = namespace(lang='') %}{% set ns.lang = x %}{{ ns.lang }}",
    "macro": "{% macro say(a, l) %}{{ a }} in {{ l }}{% endmacro %}{{ say('Answer', x) }}",
    "macro by name": "{% macro say(l) %}{{ l }}{% endmacro %}{{ say(l=x) }}",
    "table": "{{ {'no': 'Norsk', 'en': 'English'}[x] }}",
    "generation": "{% generation %}{{ x }}{% endgeneration %}",
}
ASKS = {
    "plain": "{% if x %}<think>{% endif %}",
    "not": "{% if not x %}<think></think>{% endif %}",
    "defined and false": "{% if x is defined and x is false %}<think></think>{% endif %}",
    "by default": "{% if x | default(true) %}<think>{% endif %}",
    "choice": "{{ '<think>' if x else '' }}",
    "another name": "{% set t = x %}{% if t %}<think>{% endif %}",
    "another name by default": "{% set t = x if x is defined else true %}{% if t %}<think>{% endif %}",
    "namespace": "{% set ns = namespace(t=x, o='') %}{% if ns.t %}<think>{% endif %}{{ ns.o }}",
    "macro": "{% macro say(a, t) %}{{ a }}{% if t %}<think>{% endif %}{% endmacro %}{{ say('Hi', x) }}",
    "break": "{% for m in messages %}{% if x %}{% break %}{% endif %}{% endfor %}",
    "equal": "{% if x == true %}<think>{% endif %}",
    "raised": "{% if x %}{{ raise_exception(x) }}{% endif %}",
}
WORDS = ("no", "on", "NO", "y", "0", "off", "true", "None", "null")


def chat(source: str, **arguments: Any) -> Chat:
    return Chat(SimpleNamespace(chat_template=source + TURNS), template_args=arguments)


@pytest.mark.parametrize("name", WRITES)
def test_a_word_that_the_template_writes_is_taken_as_it_is(name: str) -> None:
    assert use_of(WRITES[name], "x")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for word in WORDS:
            assert chat(WRITES[name], x=word).template_args == {"x": word}


@pytest.mark.parametrize("name", ASKS)
def test_a_word_for_true_or_false_is_refused_where_the_template_asks_whether_it_is_true(name: str) -> None:
    assert use_of(ASKS[name], "x") == (False, True)
    for word in WORDS:
        with pytest.raises(DemurError, match="which a template takes as true"):
            chat(ASKS[name], x=word)
    for value in (True, False, "low", 3, None):
        chat(ASKS[name], x=value)


@pytest.mark.parametrize("value", [True, False, None])
@pytest.mark.parametrize("name", ["plain", "glued", "method", "formatted"])
def test_a_truth_that_the_template_only_writes_is_said(name: str, value: Any) -> None:
    with pytest.warns(DemurWarning, match=f"as the word '{value}'"):
        chat(WRITES[name], x=value)


@pytest.mark.parametrize("name", ["where it is there", "where it is defined", "choice", "another name"])
def test_a_truth_that_the_template_asks_too_is_let_be(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chat(WRITES[name], x=False)


def test_a_template_that_compares_with_the_word_knows_it_and_a_broken_one_is_doubted() -> None:
    chat("{% if x == 'no' %}{% endif %}", x="no")
    with pytest.raises(DemurError, match="takes as true"):
        chat("{% if x == 'no' %}{% endif %}", x="off")
    assert use_of("{% if x %", "x") == (False, False)
    with pytest.raises(DemurError, match="takes as true"):
        chat("{% if x %", x="off")


def test_what_is_typed_in_quotes_is_a_text() -> None:
    assert key_values("--template-arg", ['x="no"', "y=no", "z=false", 'w="false"']) == {
        "x": "no", "y": "no", "z": False, "w": "false",
    }  # fmt: skip
