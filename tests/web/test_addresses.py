"""Addresses that pages may be read from: everything private is refused, in every disguise."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from r2w_eval.errors import UsageError
from r2w_eval.web.addresses import (
    AddressRefused,
    CheckedResolver,
    check_literal,
    is_allowed,
    is_public,
    parse_networks,
)

PRIVATE = (
    "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.100.100.200", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1", "2001:0:7f00:1::80ff:fffe",
)  # fmt: skip
PUBLIC = ("93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101")


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    with pytest.raises(AddressRefused):
        check_literal(text, ())


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))
    check_literal(text, ())


@pytest.mark.parametrize("text", ["127.1", "2130706433", "127.0.0.1.", "0177.0.0.1", "1.2.3", ":"])
def test_addresses_in_odd_spelling_are_refused_unread(text: str) -> None:
    with pytest.raises(AddressRefused, match="no canonical address"):
        check_literal(text, parse_networks("0.0.0.0/0"))


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_judged_as_itself(inner: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.ip_address(f"::ffff:{inner}")
    assert is_public(mapped) == is_public(inner)
    assert is_public(ipaddress.ip_address(int(ipaddress.ip_address("64:ff9b::")) + int(inner))) == (
        is_public(inner)
    )


def test_named_networks_are_allowed_and_no_others() -> None:
    allowed = parse_networks("127.0.0.0/8, fd00::/8")
    assert is_allowed(ipaddress.ip_address("127.0.0.1"), allowed)
    assert is_allowed(ipaddress.ip_address("fd00::1"), allowed)
    assert not is_allowed(ipaddress.ip_address("10.0.0.1"), allowed)
    with pytest.raises(UsageError, match="--pages-allow 'intranet'"):
        parse_networks("intranet")


class StubResolver(AbstractResolver):
    """Answers from a table, and counts."""

    def __init__(self, **table: list[str]) -> None:
        self.table = {name.replace("_", "."): found for name, found in table.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=found, port=port, family=family, proto=0, flags=0)
            for found in self.table[host]
        ]

    async def close(self) -> None: ...


def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    inner = StubResolver(
        good_test=["1.1.1.1", "2606:4700::1111"], half_test=["1.1.1.1", "10.0.0.1"]
    )
    resolver = CheckedResolver(inner)
    found = asyncio.run(resolver.resolve("good.test", 443))
    assert [result["host"] for result in found] == ["1.1.1.1", "2606:4700::1111"]
    with pytest.raises(AddressRefused, match="half.test leads to 10.0.0.1"):
        asyncio.run(resolver.resolve("half.test", 443))
    assert inner.asked == ["good.test", "half.test"], "resolved once each"
