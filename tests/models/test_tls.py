"""Certificates are verified, against real servers on loopback that speak HTTPS."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from r2w_eval.cli import cli
from r2w_eval.errors import UsageError
from r2w_eval.fakeserver.server import FakeServer
from r2w_eval.models.chat import CallFailed, CallStatus, ChatRequest
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import ClientSettings, Endpoint
from r2w_eval.types import Decoding, Message

trustme = pytest.importorskip("trustme", reason="trustme is not here: pip install -e '.[dev]'")
REQUEST = ChatRequest((Message("user", "Write."),), Decoding(max_tokens=10))
# which of the addresses pass the check before work, in a process that trusts the authority
CHECK = """
import asyncio, sys
from r2w_eval.models.client import HttpModel
from r2w_eval.models.endpoint import Endpoint
from r2w_eval.errors import UsageError
async def check(url):
    model = HttpModel(Endpoint((url,), "gen-0"))
    try:
        await model.check()
        return "trusted"
    except UsageError as error:
        return str(error)
    finally:
        await model.close()
for url in sys.argv[1:]:
    print(asyncio.run(check(url)))
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[FakeServer], Path]]:
    """A server with a certificate for its address, one with another's; and their authority."""
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    with ExitStack() as running:
        found = []
        for host in ("127.0.0.1", "elsewhere.example"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(host).configure_cert(context)
            server = FakeServer()
            server.tls = context
            found.append(running.enter_context(server))
        yield found, path


def test_an_unknown_authority_is_refused_with_the_way_out(
    servers: tuple[list[FakeServer], Path],
) -> None:
    (server, _), _ = servers

    async def job() -> None:
        model = HttpModel(Endpoint((server.base_url,), "gen-0"), ClientSettings(backoff_s=0.001))
        try:
            with pytest.raises(UsageError, match=r"certificate verify failed.*SSL_CERT_FILE"):
                await model.check()
            with pytest.raises(CallFailed, match="certificate") as failure:
                await model.complete(REQUEST)
            assert failure.value.status is CallStatus.TRANSPORT
        finally:
            await model.close()

    asyncio.run(job())
    done = CliRunner().invoke(
        cli, ["run", f"--model={server.base_url}#gen-0", "--tasks=quickstart", "--judge=none"]
    )
    assert isinstance(done.exception, UsageError) and "SSL_CERT_FILE" in str(done.exception)
    assert server.stats().total.requests == 0


def test_an_authority_that_is_named_is_trusted_for_its_own_hosts_alone(
    servers: tuple[list[FakeServer], Path],
) -> None:
    (right, wrong), authority = servers
    done = subprocess.run(
        [sys.executable, "-c", CHECK, right.base_url, wrong.base_url],
        env={**os.environ, "SSL_CERT_FILE": str(authority)}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    first, second = done.stdout.splitlines()
    assert first == "trusted"
    assert "IP address mismatch" in second
