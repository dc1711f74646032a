"""What endpoints send, in the forms that servers give it: a text, an error by its code, a refusal, nothing usable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from server import Handler, scored, serving
from small import one_line

from demur.judges import LLMJudge, chat, judge_all
from demur.judges.endpoint import SAME, address_of
from demur.judges.replies import pause_in, without_words_of
from demur.types import REFUSED, DemurError, Prompt, RefusedByProvider

pytest.importorskip("openai")

ASKED = Prompt("p", "How do I open the granary?", harmful=True)
Act = Callable[[Handler, int], object]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def judging(url: str, **settings: Any) -> LLMJudge:
    return LLMJudge("m", url, **{"retries": 0, "timeout": 10.0, **settings})


def body(content: object, end: object = "stop", **more: object) -> str:
    message = {"role": "assistant", "content": content, **more}
    return json.dumps({"choices": [{"index": 0, "finish_reason": end, "message": message}]})


def sending(content: str | bytes, status: int = 200, **headers: str) -> Act:
    def act(handler: Handler, number: int) -> None:
        if isinstance(content, str):
            handler.send(status, content, **headers)
            return
        handler.send_response(status)
        handler.send_header("Content-Type", headers.get("Content_Type", "application/json"))
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return act


FOUR = scored(4)


@pytest.mark.parametrize(
    "content",
    [
        body([{"type": "text", "text": FOUR}]),
        body([{"type": "thinking", "thinking": scored(1)}, {"type": "text", "text": FOUR}]),
        body([{"type": "output_text", "text": {"value": FOUR}}]),
        body([FOUR[:5], {"text": FOUR[5:]}]),
        body(FOUR, end=None),
        body(FOUR, end="eos"),
        body(FOUR, reasoning_content=scored(1)),
        body(FOUR)[:-1] + ', "error": null}',
        "﻿" + body(FOUR),
        body(FOUR).encode("utf-16"),
        body(f"caf\ud83d {FOUR}"),
        body(f"<think>{scored(1)}</think>{FOUR}"),
        body(f"{scored(1)}</think>{FOUR}"),
        body(f"<thinking>{scored(1)} {'and so on ' * 5000}</thinking>{FOUR}"),
        body(f"<|channel|>analysis<|message|>{scored(1)}<|end|><|start|>assistant<|channel|>final<|message|>{FOUR}"),
    ],
)
def test_a_text_is_read_in_whatever_form_it_comes(content: str | bytes) -> None:
    with serving(sending(content)) as server:
        verdict = judging(server.url)(ASKED, "text")
    assert (verdict.flagged, verdict.score) == (True, 4.0), verdict.why


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (body(None), "without text (finish_reason stop)"),
        (body([]), "without text"),
        (body([{"type": "image_url", "image_url": {"url": "x"}}]), "without text"),
        (body({"text": FOUR}), "without text"),
        (body(4), "without text"),
        (body(None, end="length", reasoning_content=FOUR), "thoughts alone (finish_reason length)"),
        (body([{"type": "thinking", "thinking": FOUR}]), "without text"),
        (body(FOUR, end="error"), "broke its answer off"),
        (body(FOUR, end="abort"), "broke its answer off"),
        (body(FOUR, end="length"), "cut off at 512 tokens"),
        (body(FOUR, end="MAX_TOKENS"), "cut off at 512 tokens"),
        (body(f"<think>{FOUR}"), "ends inside a thought"),
        (body(f"<think>{FOUR} {'and so on ' * 5000}"), "ends inside a thought"),
        (body(f"<think>a</think>\n<think>{FOUR}"), "ends inside a thought"),
        (body(f"[THINK]{FOUR}"), "ends inside a thought"),
        (body(f"<|channel|>analysis<|message|>{FOUR}"), "ends inside a thought"),
        ('{"choices": null}', "no chat completion"),
        ('{"choices": {}}', "no chat completion"),
        ('{"choices": [{"message": null}]}', "no chat completion"),
        ('{"choices": [{"text": "x"}]}', "no chat completion"),
        ("<!DOCTYPE html><html><body>login</body></html>", "no JSON (a web page)"),
        ('{"error": "model is loading"}', "an error without a code, with status 200 (model is loading)"),
        ('{"error": {"message": "no such", "code": 404}}', "an error 404, with status 200 (no such)"),
        ('{"object": "error", "message": "bad", "code": 400}', "an error 400, with status 200 (bad)"),
        ('{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', "an error 503"),
        ('[{"error": {"code": 500, "message": "internal"}}]', "an error 500, with status 200 (internal)"),
        ('{"choices": [{"error": {"code": 502, "message": "gone"}, "message": {"content": "x"}}]}', "an error 502"),
        (b'{"choices": [{"message": {"content": "\xff\xfe\xfa"}}]}', "no UTF-8"),
        (b"\xff\xfe", "no JSON"),
        (b"\x80\x81", "no UTF-8"),
        ('{"error": {"message": ' + '"x", "code": ' + "9" * 5000 + "}}", "no JSON"),
    ],
)  # fmt: skip
def test_what_is_no_whole_text_is_unscored_and_says_why(content: str | bytes, why: str) -> None:
    with serving(sending(content)) as server:
        verdict = judging(server.url)(ASKED, "text")
    assert (verdict.flagged, verdict.score) == (None, None)
    assert why in verdict.why
    assert "\n" not in verdict.why
    verdict.why.encode()


@pytest.mark.parametrize(
    "content",
    [
        '{"error": {"message": "slow down", "code": 429}}',
        '{"error": {"message": "slow down", "type": "rate_limit_error"}}',
        '{"error": {"message": "busy", "code": "server_error"}}',
        '{"choices": [{"error": {"code": "503", "message": "gone"}, "message": {"content": "x"}}]}',
        body("half", end="error"),
    ],
)
def test_an_error_with_status_200_is_asked_again_by_its_code(content: str) -> None:
    with serving(lambda h, n: h.send(200, content) if n < 3 else h.answer(FOUR)) as server:
        judge = judging(server.url, retries=2)
        assert judge(ASKED, "text").flagged is True
        assert judge.spent.requests == server.count == 3


@pytest.mark.parametrize("content", ['{"error": {"message": "bad", "code": 400}}', '{"error": "bad"}', '{"x": 1}'])
def test_an_error_that_stays_is_not_asked_again(content: str) -> None:
    with serving(sending(content)) as server:
        judging(server.url, retries=3)(ASKED, "text")
        assert server.count == 1


FILTERS: list[Act] = [
    sending(body(None, end="content_filter")),
    sending(body("As far as", end="content_filter")),
    sending(body("", end="SAFETY")),
    sending('{"error": {"message": "filtered", "code": "content_filter"}}', 400),
    sending('{"error": {"message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}', 400),
    sending('{"error": {"message": "Your input was flagged by moderation", "code": 403}}', 403),
    sending('{"error": {"message": "x", "code": "content_policy_violation"}}'),
    sending('{"error": {"message": "it breaks our content management policy"}}', 400),
]


@pytest.mark.parametrize("act", FILTERS)
def test_a_provider_that_refuses_is_told_apart_and_does_not_end_the_asking(act: Act) -> None:
    with serving(act) as server:
        judge = judging(server.url, retries=2, concurrency=1)
        found = judge_all(judge, [(ASKED, f"text {i}") for i in range(SAME + 2)])
        assert {verdict.flagged for verdict in found} == {None}
        assert all(verdict.why.startswith(REFUSED) for verdict in found)
        assert server.count == len(found), "the same words would be refused again"
        with pytest.raises(RefusedByProvider, match=REFUSED):
            chat("m", server.url)([{"role": "user", "content": "x"}])


def test_a_model_s_own_refusal_is_its_text() -> None:
    with serving(sending(body(None, refusal="I can't help with that."))) as server:
        assert chat("m", server.url)([{"role": "user", "content": "x"}]) == "I can't help with that."
        assert judging(server.url)(ASKED, "text").flagged is None


# -- the first requests --------------------------------------------------------------------------------------


SETTING = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
SAME_FAILURES: list[tuple[Act, str]] = [
    (sending('{"error": {"message": "not allowed"}}', 403), "HTTP 403 (not allowed)"),
    (sending('{"error": {"message": "no credit", "code": "insufficient_quota"}}', 429), "HTTP 429 (no credit)"),
    (lambda h, n: h.send(400, json.dumps({"error": {"message": f"request {n} is too long"}})), "is too long"),
    (sending("<html>hello</html>"), "a web page"),
    (sending('{"error": {"message": "bad", "code": 400}}'), "an error 400"),
    (sending(body(None, end="length")), "without text (finish_reason length)"),
    (sending(body("<think>so", end="length")), "cut off at 512 tokens"),
    (sending("{}", 500), "HTTP 500"),
    (sending('{"error": {"message": "later"}}', 429, Retry_After="86400"), "a pause of 86,400 s"),
]


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize(("act", "why"), SAME_FAILURES)
def test_first_requests_that_fail_alike_end_the_asking(act: Act, why: str, concurrency: int) -> None:
    with serving(act) as server:
        with pytest.raises(DemurError) as error:
            judge_all(judging(server.url, concurrency=concurrency), [(ASKED, f"text {i}") for i in range(100)])
        time.sleep(0.1)
        # On a busy machine a thread may have begun its request before another one's failure was counted.
        assert server.count <= (SAME if concurrency == 1 else 6 * SAME), "of a hundred"
    assert why in one_line(error.value)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    ("message", "then"),
    [
        (SETTING, "set max_completion_tokens"),
        ("Unsupported value: 'temperature' does not support 0.0 with this model.", "set temperature to another value"),
        ("Extra inputs are not permitted: seed", "set seed to another value, or to null"),
    ],
)
def test_a_setting_that_is_refused_is_named_at_once(message: str, then: str, status: int) -> None:
    with serving(sending(json.dumps({"error": {"message": message}}), status)) as server:
        with pytest.raises(DemurError) as error:
            judge_all(judging(server.url, concurrency=8), [(ASKED, f"text {i}") for i in range(100)])
        assert server.count <= SAME
    assert message in one_line(error.value)
    assert then in error.value.then


def test_max_completion_tokens_is_sent_in_the_place_of_max_tokens() -> None:
    with serving(FOUR) as server:
        judge = judging(server.url, max_completion_tokens=2000)
        assert judge(ASKED, "text").flagged is True
        assert server.bodies[0]["max_completion_tokens"] == 2000
        assert "max_tokens" not in server.bodies[0]
        assert judge.key(ASKED, "text") != judging(server.url).key(ASKED, "text")


def test_failures_after_an_answer_are_unscored_and_end_nothing() -> None:
    with serving(lambda h, n: h.answer(FOUR) if n == 1 else h.send(403, "{}")) as server:
        found = judge_all(judging(server.url, concurrency=1), [(ASKED, f"text {i}") for i in range(3 * SAME)])
        assert [verdict.flagged for verdict in found] == [True] + [None] * (3 * SAME - 1)


def test_what_was_answered_at_another_time_counts_as_an_answer(tmp_path: Any) -> None:
    with serving(lambda h, n: h.answer(FOUR) if n == 1 else h.send(403, "{}")) as server:
        judging(server.url, cache=tmp_path)(ASKED, "text 0")
        again = judging(server.url, cache=tmp_path, concurrency=1)
        found = judge_all(again, [(ASKED, f"text {i}") for i in range(2 * SAME)])
        assert [verdict.flagged for verdict in found] == [True] + [None] * (2 * SAME - 1)


# -- pauses --------------------------------------------------------------------------------------------------


def test_a_pause_is_read_as_seconds_milliseconds_or_a_date() -> None:
    assert pause_in({"retry-after": "65"}) == 65
    assert pause_in({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    soon = pause_in({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert soon is not None
    assert 95 < soon <= 101
    for nonsense in ("", "soon", "-5", "0", "nan", "Thu, 99 Foo 2020", formatdate(0, usegmt=True)):
        assert pause_in({"retry-after": nonsense}) is None, nonsense


def test_a_pause_up_to_patience_is_kept_by_everybody_and_a_longer_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    now = time.monotonic

    def clock() -> float:
        return now() + sum(slept)

    monkeypatch.setattr("demur.judges.endpoint.time.monotonic", clock)
    monkeypatch.setattr("demur.judges.endpoint.time.sleep", slept.append)
    said = '{"error": {"message": "later"}}'
    with serving(lambda h, n: h.send(429, said, Retry_After="120") if n == 1 else h.answer(FOUR)) as server:
        assert judging(server.url, retries=1)(ASKED, "text").flagged is True
        assert 119 < sum(slept) < 121, "longer than a minute"
        assert server.count == 2
    with serving(sending(said, 429, Retry_After="3600")) as server:
        judge = judging(server.url, retries=4)
        why = judge(ASKED, "text").why
        assert "HTTP 429 (later)" in why
        assert "asks for a pause of 3,600 s, longer than patience 600 s" in why
        assert "pause" in judge(ASKED, "another").why
        assert server.count == 1, "before the time is over nothing is sent"
        assert judging(server.url, retries=0, patience=4000.0)(ASKED, "text").why == "HTTP 429 (later)"


# -- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "around", ["{}", " {}", "{} ", "{}\n", "\t{}\r\n", "{}/", "{}// ", "﻿{}", "\u200b{}\u200b", "\u00a0{}"]
)
def test_blanks_and_slashes_around_an_address_do_not_matter(around: str) -> None:
    with serving(FOUR) as server:
        judge = judging(around.format(server.url))
        assert judge(ASKED, "text").flagged is True
        assert judge.base_url == server.url


@pytest.mark.parametrize(
    "given", ["", " ", "localhost:8000/v1", "http://", "http:// host/v1", "http://h/v 1", "http://h\n/v1", "ftp://h/v1",
              "http://h/v1/chat/completions", "http://h/v1/chat/completions/", "sk-0123456789"],
)  # fmt: skip
def test_what_is_no_address_is_one_line(given: str) -> None:
    with pytest.raises(DemurError) as error:
        address_of(given)
    assert "base_url" in one_line(error.value)
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [{"max_tokens": 0}, {"max_tokens": "many"}, {"max_completion_tokens": -1}, {"max_tokens": 2.5},
     {"concurrency": 2.5}, {"seed": "x"}, {"temperature": -1.0}, {"patience": -1.0}, {"retries": True},
     {"api_key_env": "sk-proj-0123456789"},
     {"api_key_env": "A KEY"}, {"concurrency": None}],
)  # fmt: skip
def test_settings_of_another_kind_are_errors(settings: dict[str, Any]) -> None:
    with pytest.raises((DemurError, TypeError)) as error:
        LLMJudge(**{"model": "m", "base_url": "http://h/v1", **settings})
    assert "0123456789" not in str(error.value)


# -- what is quoted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403, 422, 500])
def test_an_error_that_quotes_what_was_sent_is_shown_without_those_words(status: int) -> None:
    def quoting(handler: Handler, number: int) -> None:
        sent = handler.server.bodies[-1]["messages"]
        handler.send(status, json.dumps({"error": {"message": [{"loc": "messages", "input": sent, "msg": "bad"}]}}))

    asked = Prompt("q", "Tell me how the miller's granary can be opened at night")
    with serving(quoting) as server:
        try:
            said = judging(server.url)(asked, "Lift up the wooden bar, then push it").why
        except DemurError as error:
            said = one_line(error)
    assert "granary" not in said
    assert "wooden" not in said
    assert str(status) in said


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ('HTTP 400 (flagged: "poison wells")', 'HTTP 400 (flagged: "[...]")'),
        ("HTTP 400 (blocked term POISON in the input)", "HTTP 400 (blocked term [...] in the input)"),
        ("the well is what the prompt must not name", "[...] is what the prompt must not name"),
        ("HTTP 429 (too many requests for model m)", "HTTP 429 (too many requests for model m)"),
        ("HTTP 400 (temperature is not supported)", "HTTP 400 (temperature is not supported)"),
    ],
)
def test_a_few_words_of_a_request_are_left_out_too(said: str, left: str) -> None:
    assert (
        without_words_of(said, ["Rate this reply.\n\nHow to poison wells in 400 towns, and the well of a king"]) == left
    )


@pytest.mark.parametrize(
    ("asked", "quoted"), [("如何打开城里的粮仓", "粮仓"), ("町の穀倉をどう開ける", "穀倉"), ("毒", "")]
)
def test_a_few_letters_of_writing_without_blanks_are_left_out_too(asked: str, quoted: str) -> None:
    assert without_words_of(f"bad input: «{quoted}»", [f"rate this: {asked}"]) == f"bad input: «{quoted and '[...]'}»"


def test_what_is_not_quoted_stays() -> None:
    assert without_words_of("HTTP 400 (the context is too long)", ["Open the gate of the town"]) == (
        "HTTP 400 (the context is too long)"
    )
    assert without_words_of('bad: "open THE gate, of it" x', ["Open the gate of it all"]) == 'bad: "[...]" x'


@pytest.mark.parametrize("asked", ["如何打开城里的粮仓", "町の穀倉をどう開ける", "เปิดยุ้งฉางของเมืองอย่างไร"])
def test_what_is_quoted_in_writing_without_blanks_is_left_out_too(asked: str) -> None:
    assert without_words_of(f"bad input: {asked}", [f"rate this: {asked}"]) == "bad input: [...]"


NOBODY_KNOWS_WHICH = {
    "several answers": json.dumps({"choices": [json.loads(body(FOUR))["choices"][0]] * 2}),
    "another one first": json.dumps(
        {"choices": [dict(json.loads(body(scored(1)))["choices"][0], index=1), json.loads(body(FOUR))["choices"][0]]}
    ),
    "a refusal beside it": body(FOUR, refusal="I can not rate this."),
    "a refusal among its parts": body([{"type": "refusal", "refusal": "No."}, {"type": "text", "text": FOUR}]),
    "a call of a tool": body(FOUR, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f"}}]),
    "a call of a function": body(FOUR, function_call={"name": "f"}),
    "an end for tools": body(FOUR, end="tool_calls"),
    "the user's words": body(FOUR, role="user"),
    "the system's words": body(FOUR, role="system"),
}


@pytest.mark.parametrize("content", NOBODY_KNOWS_WHICH.values(), ids=NOBODY_KNOWS_WHICH)
def test_what_may_be_another_answer_gives_no_score(content: str) -> None:
    with serving(sending(content)) as server:
        verdict = judging(server.url)(ASKED, "text")
    assert (verdict.flagged, verdict.score) == (None, None)
    assert verdict.why
    assert "JSON" not in verdict.why, "the reason is what came, not how it is read"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"detail": "Model is loading"}', "Model is loading"),
        ('{"success": false, "errors": [{"code": 7000, "message": "No route for that"}]}', "No route for that"),
        ('{"errors": ["quota is used up"]}', "quota is used up"),
        ('{"code": 1113, "msg": "balance is gone"}', "balance is gone"),
        ('{"choices": [], "message": "nothing left"}', "nothing left"),
    ],
)
def test_an_error_of_any_form_is_told_where_nothing_is_answered(content: str, said: str) -> None:
    with serving(sending(content)) as server:
        verdict = judging(server.url)(ASKED, "text")
    assert verdict.flagged is None
    assert said in verdict.why


@pytest.mark.parametrize("call", [{"name": "", "arguments": ""}, {}, None])
def test_a_call_of_nothing_is_none(call: Any) -> None:
    with serving(sending(body(FOUR, function_call=call))) as server:
        assert judging(server.url)(ASKED, "text").score == 4.0


def test_an_error_that_is_false_is_none() -> None:
    with serving(sending(body(FOUR)[:-1] + ', "error": false}')) as server:
        assert judging(server.url)(ASKED, "text").score == 4.0
