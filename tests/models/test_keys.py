"""API keys: which request carries which, and that none is shown again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from calls import FAST, ask
from support import ScriptedServer, completion

from r2w_eval.errors import EndpointDown, UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import CallFailed, CallStatus
from r2w_eval.models.keys import read_key


def test_each_host_gets_its_own_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R2W_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai-1")
    monkeypatch.setenv("R2W_API_KEY_LOCALHOST", "of-localhost-1")
    with ScriptedServer((200, {}, completion())) as server:
        ask(server.base_url)
        ask(server.base_url.replace("127.0.0.1", "localhost"))
        monkeypatch.setenv("R2W_API_KEY", "for-the-rest-1")
        ask(server.base_url)
        keys = [headers.get("Authorization") for headers in server.seen]
    assert keys == [None, "Bearer of-localhost-1", "Bearer for-the-rest-1"]
    assert read_key("https://api.openai.com/v1", "R2W_JUDGE_API_KEY") == "of-openai-1"
    assert read_key("https://api.openai.com.example.org/v1", "R2W_JUDGE_API_KEY") == ""


@pytest.mark.parametrize("key", ["planted-secret\n", " planted-secret\r\n"])
def test_white_space_around_a_key_is_stripped(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", key)
    with ScriptedServer((200, {}, completion())) as server:
        ask(server.base_url)
        assert server.seen[0]["Authorization"] == "Bearer planted-secret"


def test_a_key_with_control_characters_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted\nsecret")
    with ScriptedServer((200, {}, completion())) as server:
        with pytest.raises(UsageError, match=r"\$R2W_API_KEY") as caught:
            ask(server.base_url)
        assert "planted" not in str(caught.value) and not server.seen


@pytest.mark.parametrize("fault", ["http401", "http402", "http403"])
def test_a_refused_key_stops_the_endpoint_and_names_the_variable(
    server: FakeServer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted-secret")
    with pytest.raises(EndpointDown) as caught:
        ask(server.base_url, model=f"gen-0+{fault}=1")
    assert "R2W_API_KEY" in str(caught.value) and "planted-secret" not in str(caught.value)
    assert server.stats().total.requests == 1


def test_a_key_echoed_in_an_error_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted-secret")

    def quote(headers: dict[str, str]) -> bytes:
        return f"Incorrect API key: {headers['Authorization']}".encode()

    for status in (401, 400, 500, 429):
        with ScriptedServer((status, {}, quote)) as server:
            settings = replace(FAST, backoff_s=1e-6)
            monkeypatch.setattr("r2w_eval.models.client.RATE_LIMIT_PATIENCE_S", 0.0)
            with pytest.raises((EndpointDown, CallFailed)) as caught:
                ask(server.base_url, settings=settings)
            assert server.seen[0]["Authorization"] == "Bearer planted-secret"
            assert "planted-secret" not in str(caught.value) and "[key]" in str(caught.value)


def test_a_key_echoed_in_a_reply_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "planted-secret")

    def quote(headers: dict[str, str]) -> bytes:
        return completion(f"You sent {headers['Authorization']}.", model=headers["Authorization"])

    with ScriptedServer((200, {}, quote)) as server:
        reply = ask(server.base_url)
    assert (reply.text, reply.model) == ("You sent Bearer [key].", "Bearer [key]")


@pytest.mark.parametrize("slash", ["/", "\\/", "\\u002f", "\\u002F"])
@pytest.mark.parametrize("status", [200, 400])
def test_a_key_is_redacted_in_every_json_escaping(
    status: int, slash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "ABSK/secret/key+base64=="
    monkeypatch.setenv("R2W_API_KEY", key)
    body = completion(f"Echo: {key}.").replace(b"/", slash.encode())
    with ScriptedServer((status, {}, body)) as server:
        if status == 200:
            assert ask(server.base_url).text == "Echo: [key]."
            return
        with pytest.raises(CallFailed) as caught:
            ask(server.base_url)
    assert "secret" not in str(caught.value) and "[key]" in str(caught.value)


def test_a_common_word_as_placeholder_key_is_not_redacted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("R2W_API_KEY", "anything")
    with ScriptedServer((200, {}, completion("She would give anything."))) as server:
        assert ask(server.base_url).text == "She would give anything."


def test_a_one_letter_placeholder_key_is_not_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R2W_API_KEY", "x")
    text = b"longer than the context length of 8"
    with ScriptedServer((400, {}, text)) as server, pytest.raises(CallFailed) as caught:
        ask(server.base_url)
    assert caught.value.status is CallStatus.CONTEXT and "[key]" not in str(caught.value)
