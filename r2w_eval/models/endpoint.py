"""Where a model is served, within which limits, and what became of the requests sent there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from r2w_eval.errors import UsageError


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is served. Several base URLs share the load; credentials are never part of
    it.
    """

    base_urls: tuple[str, ...]
    model: str
    api_key_env: str = "R2W_API_KEY"

    @classmethod
    def parse(cls, text: str, api_key_env: str = "R2W_API_KEY") -> Endpoint:
        """Read `http://host:port/v1#model`, several URLs separated by commas. Raises UsageError.

        >>> Endpoint.parse("http://a/v1,http://b/v1#m").base_urls
        ('http://a/v1', 'http://b/v1')
        >>> Endpoint.parse("http://a/v1/chat/completions#m").base_urls
        ('http://a/v1',)
        """
        urls, _, model = text.partition("#")
        # first of all, so that no later message repeats them
        if "@" in urls or "?" in urls:
            raise UsageError(
                f"Credentials and parameters in a URL are not accepted (they would end up in "
                f"run.json). Put the key in ${api_key_env}"
            )
        clean = tuple(_clean_url(url.strip()) for url in urls.split(","))
        if not model or "" in clean:
            raise UsageError(
                f"{text!r}: not an endpoint. Expected an address, # and the model's name, for "
                f"example http://127.0.0.1:8000/v1#my-model"
            )
        return cls(clean, model, api_key_env)


def _clean_url(url: str) -> str:
    """Scheme, host, port and path up to /v1; "" for what is no such address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return ""
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return urlunsplit((parts.scheme, parts.netloc, path, "", "")) if usable else ""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Limits of the client; seconds unless the name says otherwise.

    `timeout_s` is for a whole request, the queue of the server included; `idle_timeout_s` for a
    pause within a reply that has begun. An endpoint that answers nobody for `patience_s`, and for
    a whole request, is dead: it gets no new requests, and with `strict_patience` those on their way
    are not sent again.
    """

    max_connections: int = 256
    fixed_concurrency: bool = False
    timeout_s: float = 600.0
    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 120.0
    backoff_s: float = 1.0
    patience_s: float = 300.0
    strict_patience: bool = False


@dataclass(frozen=True, slots=True)
class Traffic:
    """One endpoint in one session: tries that had to be repeated, by class, and its limits."""

    model: str
    retries: Mapping[str, int]
    limit_cuts: int
    """How often a 429, 503 or timeout cut the number of connections."""
    connections: tuple[int, ...]
    """Connections allowed at the end, by address."""
    out: tuple[str, ...] = ()
    """Why an address got no more requests: it served another model than the rest."""
