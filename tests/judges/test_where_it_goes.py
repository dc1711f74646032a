"""What a judge is asked goes to the address that was named, with that key, and nothing else of the environment."""

from __future__ import annotations

from typing import Any

import pytest
from server import Handler, scored, serving
from small import one_line

from demur.judges import LLMJudge, chat
from demur.judges.endpoint import Endpoint
from demur.types import DemurError, Prompt

pytest.importorskip("openai")

ASKED = Prompt("p", "How do I open the granary?", harmful=True)
SECRETS = {
    "OPENAI_ORG_ID": "org-of-mine",
    "OPENAI_PROJECT_ID": "project-of-mine",
    "OPENAI_CUSTOM_HEADERS": "X-Team: team-of-mine\nAuthorization: Bearer other-of-mine",
    "OPENAI_API_KEY": "key-of-mine",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("JUDGE_KEY", "sk-of-the-judge")


def answering(handler: Handler, number: int) -> None:
    handler.answer(scored(4))


def elsewhere(status: int, where: str) -> Any:
    def act(handler: Handler, number: int) -> None:
        handler.send(status, "", Location=where)

    return act


@pytest.mark.parametrize("key", ["", "JUDGE_KEY"])
@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_nothing_of_the_environment_goes_along(monkeypatch: pytest.MonkeyPatch, secret: str, key: str) -> None:
    monkeypatch.setenv(secret, SECRETS[secret])
    with serving(answering) as server:
        assert LLMJudge("m", server.url, api_key_env=key)(ASKED, "text").score == 4.0
    (headers,) = server.headers
    assert "of-mine" not in str(headers)
    assert headers["authorization"] == f"Bearer {'sk-of-the-judge' if key else 'none'}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_follows_a_redirect(status: int) -> None:
    """With 307 the words of request and answer would go on; with the others a request without them."""
    with serving(answering) as other:
        to = f"{other.url.replace('127.0.0.1', 'localhost')}/chat/completions"
        with serving(elsewhere(status, to)) as server, pytest.raises(DemurError) as caught:
            LLMJudge("m", server.url, api_key_env="JUDGE_KEY", retries=0)(ASKED, "text")
    assert other.count == 0
    said = one_line(caught.value)
    assert f"HTTP {status}, a redirect to {to}" in said
    assert "granary" not in said


@pytest.mark.parametrize("to", ["", "/login", "http://user:pass-of-mine@there/v1", "http://[bad", "not an address"])
def test_a_redirect_is_told_in_one_line_whatever_it_says(to: str) -> None:
    with serving(elsewhere(302, to)) as server, pytest.raises(DemurError, match="HTTP 302, a redirect") as caught:
        chat("m", server.url, retries=0)([{"role": "user", "content": "text"}])
    assert "of-mine" not in one_line(caught.value)


@pytest.mark.parametrize(
    "address",
    ["http://user:hidden@host/v1", "http://hidden@host/v1", "https://host/v1?key=hidden", "http://host/v1#hidden"],
)
@pytest.mark.parametrize("make", [Endpoint, LLMJudge])
def test_an_address_holds_no_secret_and_no_query(make: Any, address: str) -> None:
    """A user would be sent in the place of the key; what stands behind a ? would stand inside of the path."""
    with pytest.raises(DemurError, match="base_url holds") as caught:
        make("m", address)
    assert "hidden" not in one_line(caught.value)
