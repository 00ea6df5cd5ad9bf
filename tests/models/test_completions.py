"""How replies and headers of a completions endpoint are read."""

from __future__ import annotations

import contextlib
import email.utils
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import completion

from r2w_eval.models.chat import CallFailed
from r2w_eval.models.completions import (
    Retry,
    read_reply,
    read_retry_after,
    read_usage,
    refuses_all,
)
from r2w_eval.types import Usage


def test_a_full_context_is_the_finish_reason_length_under_any_name() -> None:
    choice = {"message": {"content": "Once"}, "finish_reason": "model_length"}
    assert read_reply(completion(choices=[choice])).finish_reason == "length"


def test_content_parts_become_text_and_thinking() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "A plan."}]}
    parts = [thought, {"type": "text", "text": "Once "}, {"type": "text", "text": "more."}]
    reply = read_reply(completion(parts))
    assert (reply.text, reply.reasoning) == ("Once more.", "A plan.")
    for unreadable in ([{"type": "image_url"}], {"text": "x"}, 7):
        with pytest.raises(Retry):
            read_reply(completion(unreadable))


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (401, {}, True),
        (402, {}, True),
        (403, {"message": "no"}, True),
        (403, {"code": "content_policy_violation"}, False),
        (400, {"message": "Your credit balance is too low to access the API."}, True),
        (400, {"code": "Arrearage", "message": "Access denied"}, True),
        (429, {"type": "insufficient_quota"}, True),
        (429, {"message": "slow down"}, False),
        (400, {"message": "bad: 'Your credit balance is too low'"}, False),
        (400, {"code": 7, "message": ["insufficient_quota"]}, False),
        (400, "insufficient_quota", False),
    ],
)
def test_only_the_key_or_the_account_ends_an_endpoint(
    status: int, error: object, expected: bool
) -> None:
    assert refuses_all(status, json.dumps({"error": error}).encode()) is expected
    assert refuses_all(status, b"[" * 100_000) is (status in (401, 402, 403))


def test_retry_after_is_read_in_all_three_forms() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert read_retry_after({"retry-after-ms": "250"}) == 0.25
    assert read_retry_after({"Retry-After": "7"}) == 7.0
    assert 25 < (read_retry_after({"Retry-After": date}) or 0) <= 31
    assert read_retry_after({"Retry-After": "soon"}) is None
    assert read_retry_after({}) is None


@pytest.mark.parametrize("hours", [-3, 0, 3])
def test_a_retry_after_date_is_relative_to_the_servers_clock(hours: int) -> None:
    now = time.time() + 3600 * hours
    dates = (email.utils.formatdate(at, usegmt=True) for at in (now, now + 30))
    assert read_retry_after(dict(zip(("Date", "Retry-After"), dates, strict=True))) == 30.0
    assert (
        read_retry_after({"Date": "today", "Retry-After": "Fri, 27 Nov 2026 14:00:00 GMT"}) is None
    )


@given(st.binary(max_size=200))
def test_no_body_breaks_the_reader(content: bytes) -> None:
    with contextlib.suppress(Retry, CallFailed):
        read_reply(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {"choices": st.lists(st.fixed_dictionaries({"message": JSON, "finish_reason": JSON}))
         | JSON},
        optional={"usage": JSON, "model": JSON, "system_fingerprint": JSON},
    )
    | JSON
)  # fmt: skip
def test_no_json_breaks_the_reader(data: object) -> None:
    with contextlib.suppress(Retry, CallFailed):
        reply = read_reply(json.dumps(data).encode())
        assert isinstance(reply.text, str)


@given(JSON, JSON, JSON, JSON)
def test_fields_of_the_wrong_type_are_none(a: Any, b: Any, c: Any, d: Any) -> None:
    message = {"content": "x", "reasoning_content": a, "reasoning": b, "refusal": c}
    choice = {"message": message, "finish_reason": "stop" if d == "content_filter" else d}
    usage = {"prompt_tokens": a, "completion_tokens": b, "completion_tokens_details": c}
    data = {"choices": [choice], "model": d, "system_fingerprint": a, "usage": usage}
    reply = read_reply(json.dumps(data).encode())
    for value in (reply.reasoning, reply.refusal, reply.finish_reason, reply.model):
        assert value is None or isinstance(value, str)
    counts = [reply.usage.prompt_tokens, reply.usage.completion_tokens]
    assert all(count is None or type(count) is int for count in counts)


@pytest.mark.parametrize(
    "usage",
    [None, [], "many", 7, {"prompt_tokens": "7"}, {"prompt_tokens": True}, {"prompt_tokens": -1},
     {"prompt_tokens": 1.5}],
)  # fmt: skip
def test_a_usage_that_is_not_a_count_is_ignored(usage: object) -> None:
    assert read_usage(usage) == Usage()
