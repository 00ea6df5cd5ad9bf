"""Whether an endpoint is down, and whether it said so or is only silent."""

from __future__ import annotations

import pytest

from r2w_eval.errors import EndpointDown, EndpointSilent
from r2w_eval.models.chat import CallStatus
from r2w_eval.models.health import SYSTEMATIC_FAILURES, Health


def silenced() -> Health:
    health = Health("e", 60.0)
    for _ in range(SYSTEMATIC_FAILURES):
        health.failed(CallStatus.TRANSPORT, "connection refused")
    return health


def test_unanswered_first_calls_count_as_silence() -> None:
    with pytest.raises(EndpointSilent, match="connection refused"):
        silenced().check(is_again=True)


def test_what_the_endpoint_says_stands_over_silence_before_and_after_it() -> None:
    health = silenced()
    with pytest.raises(EndpointDown, match="the key is refused"):
        health.refuse("the key is refused")
    health.failed(CallStatus.TRANSPORT, "connection refused")
    with pytest.raises(EndpointDown, match="the key is refused") as caught:
        health.check(is_again=False)
    assert type(caught.value) is EndpointDown
