"""What an operator and a request may say to the guard inside vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from demur.engines.vllm.options import Asked, Mode, Named, Options, asked, check_params, options_of
from demur.types import DemurError

TWO = options_of({"DEMUR_GUARDS": "a=/x/a.safetensors,b=b.safetensors:stop", "DEMUR_MODE": "refuse"})


def params(**said: Any) -> Any:
    usual: dict[str, Any] = {
        "extra_args": None, "prompt_logprobs": None, "ignore_eos": False, "structured_outputs": None,
    }  # fmt: skip
    return SimpleNamespace(**usual | said)


def test_guards_are_named_with_a_mode_of_their_own_or_the_common_one() -> None:
    assert TWO.guards == {"a": Named("/x/a.safetensors", Mode.REFUSE), "b": Named("b.safetensors", Mode.STOP)}
    assert options_of({}) == Options()
    assert options_of({"DEMUR_GUARDS": "a=C:/x.safetensors"}).guards["a"].path == "C:/x.safetensors"


@pytest.mark.parametrize(
    "env",
    [
        {"DEMUR_GUARDS": "a"},
        {"DEMUR_GUARDS": "=x"},
        {"DEMUR_GUARDS": "a=x,a=y"},
        {"DEMUR_GUARDS": "none=x"},
        {"DEMUR_GUARDS": "a=x", "DEMUR_DEFAULT": "b"},
        {"DEMUR_DEFAULT": "a"},
        {"DEMUR_MODE": "block"},
        {"DEMUR_KEEP": "0"},
        {"DEMUR_KEEP": "many"},
        {"DEMUR_UNSEEN": "yes"},
        {"DEMUR_UNCHECKED": "true"},
    ],
)
def test_what_is_not_understood_is_an_error_in_one_line(env: dict[str, str]) -> None:
    with pytest.raises(DemurError) as error:
        options_of(env)
    assert "\n" not in str(error.value)


def test_a_request_names_a_guard_or_gets_the_default() -> None:
    default = options_of({"DEMUR_GUARDS": "a=x", "DEMUR_DEFAULT": "a"})
    assert asked(TWO, None) == Asked("", "")
    assert asked(default, {}) == Asked("a", "")
    assert asked(TWO, {"demur": "b", "demur_id": "run-7"}) == Asked("b", "run-7")
    assert asked(TWO, {"demur": "none"}) == Asked("", "")
    assert asked(TWO, {"other": 1}) == Asked("", "")


@pytest.mark.parametrize(
    "extra", [{"demur": "c"}, {"demur": 3}, {"demur": ["a"]}, {"demur_mode": "watch"}, {"demur": "a", "demur_id": "é"},
              {"demur_id": 5}, {"demur_id": ""}, {"demur_id": "x" * 129}, {"demur": ""}, {"demur": None},
              {"Demur": "a"}, {"DEMUR_ID": "x"}],
)  # fmt: skip
def test_a_bad_option_of_a_request_is_an_error(extra: dict[str, Any]) -> None:
    with pytest.raises(DemurError):
        asked(TWO, extra)


def test_no_request_leaves_the_default_guard_unless_the_operator_lets_it() -> None:
    said = {"DEMUR_GUARDS": "a=x", "DEMUR_DEFAULT": "a"}
    with pytest.raises(DemurError, match="no guard"):
        asked(options_of(said), {"demur": "none"})
    assert asked(options_of(said | {"DEMUR_OPTIONAL": "1"}), {"demur": "none"}).guard == ""


@pytest.mark.parametrize("name", ["", " ", "a ", "A", "None", "NONE", None, 0, False, [], "b,a"])
@pytest.mark.parametrize("optional", ["0", "1"])
def test_no_name_that_is_none_is_a_way_around_the_default_guard(name: Any, optional: str) -> None:
    said = options_of({"DEMUR_GUARDS": "a=x:refuse,b=y:stop", "DEMUR_DEFAULT": "a", "DEMUR_OPTIONAL": optional})
    with pytest.raises(DemurError, match="the guard"):
        asked(said, {"demur": name})


def test_a_guard_that_only_watches_is_no_way_around_a_default_that_acts() -> None:
    said = {"DEMUR_GUARDS": "a=x:refuse,b=y:watch,c=z:stop", "DEMUR_DEFAULT": "a"}
    with pytest.raises(DemurError, match="only watches"):
        asked(options_of(said), {"demur": "b"})
    assert asked(options_of(said), {"demur": "c"}).guard == "c"  # it acts, too
    for other in ({"DEMUR_OPTIONAL": "1"}, {"DEMUR_DEFAULT": "b"}, {"DEMUR_DEFAULT": ""}):
        assert asked(options_of(said | other), {"demur": "b"}).guard == "b"


@pytest.mark.parametrize(
    ("said", "modes"),
    [
        ({"prompt_logprobs": 1}, "ab"),
        ({"ignore_eos": True}, "ab"),
        ({"structured_outputs": object()}, "ab"),
        ({"thinking_token_budget": 5}, "ab"),
    ],
)
def test_what_a_guard_can_not_do_is_an_error_and_not_a_silent_pass(said: dict[str, Any], modes: str) -> None:
    for name in modes:
        with pytest.raises(DemurError):
            check_params(TWO, params(extra_args={"demur": name}, **said))
    assert check_params(TWO, params(**said)).guard == ""


@pytest.mark.parametrize("logprobs", [2, 8])
def test_beam_search_is_no_way_around_a_guard_that_acts(logprobs: int) -> None:
    """vLLM asks for each token of each beam by itself, under the default guard."""
    said = {"DEMUR_GUARDS": "a=x", "DEMUR_DEFAULT": "a"}
    for mode in ("stop", "refuse"):
        acting = options_of(said | {"DEMUR_MODE": mode})
        with pytest.raises(DemurError, match="beam search"):
            check_params(acting, params(max_tokens=1, logprobs=logprobs))
        for other in ({"max_tokens": 2, "logprobs": logprobs}, {"max_tokens": 1, "logprobs": None}):
            assert check_params(acting, params(**other)).guard == "a"
    assert check_params(options_of(said), params(max_tokens=1, logprobs=logprobs)).guard == "a"  # and a note says so


def test_a_guard_that_only_watches_lets_structured_outputs_be() -> None:
    watching = options_of({"DEMUR_GUARDS": "a=x"})
    assert check_params(watching, params(extra_args={"demur": "a"}, structured_outputs=object())).guard == "a"
    with pytest.raises(DemurError):
        check_params(watching, params(extra_args={"demur": "a"}, prompt_logprobs=0))
