"""Which addresses are accepted as endpoints."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import UsageError
from r2w_eval.models.endpoint import Endpoint


@pytest.mark.parametrize(
    "text",
    [
        "http://host/v1",
        "ftp://host/v1#m",
        "#m",
        "http:///v1#m",
        "http://[::1/v1#m",
        "http://h:port/v1#m",
        "http://h:99999/v1#m",
        "http://h:0/v1#m",
        "https:/h/v1#m",
        "http://a/v1,#m",
        "http://a/v1,b/v1#m",
    ],
)
def test_anything_but_addresses_and_a_model_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an endpoint"):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://user:planted-secret@host/v1",
        "http://user:planted-secret@host/v1#m",
        "http://host/v1?api-key=planted-secret#m",
        "https://planted-secret@host/v1#m",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="Credentials") as caught:
        Endpoint.parse(text)
    assert "planted-secret" not in str(caught.value)


@given(st.text(alphabet="htps:/[]@?#,.123ab%", max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert Endpoint.parse("http://" + text).model
