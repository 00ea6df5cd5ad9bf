"""Which network addresses a page may be read from: public ones, unless the user allows others.

A name is resolved once, every address it has is checked, and the connection goes to exactly those
addresses; so no second look-up can lead a checked name to another place (DNS rebinding).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from aiohttp.abc import AbstractResolver, ResolveResult

from r2w_eval.errors import UsageError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# RFC 6052: the last 32 bits are an IPv4 address
NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefused(Exception):
    """The host is not one that pages may be read from. No connection was made."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read `127.0.0.0/8,10.1.2.3`. Raises UsageError.

    >>> parse_networks("10.1.2.3")
    (IPv4Network('10.1.2.3/32'),)
    """
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(
            f"--pages-allow {text[:200]!r}: {error}. Expected networks such as 10.0.0.0/8,fd00::/8"
        ) from error


def embedded_address(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to: mapped, 6to4, Teredo, NAT64.

    >>> embedded_address(ip_address("::ffff:127.0.0.1"))
    IPv4Address('127.0.0.1')
    """
    if isinstance(address, IPv4Address):
        return None
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def is_public(address: Address) -> bool:
    """Reachable from anywhere on the internet; what an IPv6 address embeds must be so too."""
    inner = embedded_address(address)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast


def is_allowed(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Public, or in a network that the user named."""
    return is_public(address) or any(address in network for network in allowed)


def check_literal(host: str, allowed: Sequence[Network]) -> None:
    """Refuse a host written as an address, which no resolver will see. Raises AddressRefused.

    Short and numeric forms (127.1, 2130706433), which sockets understand, are refused unread.
    """
    if not (":" in host or host.replace(".", "").isdigit()):
        return
    try:
        address = ip_address(host)
    except ValueError as error:
        raise AddressRefused(f"{host[:100]} is no canonical address") from error
    if not is_allowed(address, allowed):
        raise AddressRefused(f"{address} is not a public address")


class CheckedResolver(AbstractResolver):
    """Resolves by another resolver and hands out addresses only when all of them are allowed."""

    def __init__(self, inner: AbstractResolver, allowed: Sequence[Network] = ()) -> None:
        self._inner = inner
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses to connect to. Raises AddressRefused, OSError."""
        found = await self._inner.resolve(host, port, family)
        for result in found:
            if not is_allowed(ip_address(result["host"]), self._allowed):
                raise AddressRefused(
                    f"{host[:100]} leads to {result['host']}, not a public address"
                )
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()
