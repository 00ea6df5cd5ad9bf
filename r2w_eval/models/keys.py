"""API keys: from the environment into one header, and out of all that a server sends back.

Each host may have a key of its own (`R2W_API_KEY_API_EXAMPLE_COM`), so that one provider never
sees another's. A key is taken out however JSON writes it: `/` may come as `\\/` or `\\u002f`.
"""

from __future__ import annotations

import functools
import os
import re
from urllib.parse import urlsplit

from r2w_eval.errors import UsageError

OPENAI_HOST = "api.openai.com"
# "x", "EMPTY" and "anything" are given to servers that want no key, and stand in many texts
SHORTEST_SECRET = 8
SHORTEST_OF_LETTERS = 20


@functools.cache
def key_names(url: str, name: str) -> tuple[str, ...]:
    """Variables that may hold the key for an address, the first one set wins.

    >>> key_names("https://api.example.com/v1", "R2W_JUDGE_API_KEY")
    ('R2W_JUDGE_API_KEY_API_EXAMPLE_COM', 'R2W_JUDGE_API_KEY')
    """
    host = urlsplit(url).hostname or ""
    own = f"{name}_{re.sub('[^A-Z0-9]', '_', host.upper())}"
    # a key of OpenAI's is no other provider's business
    return (own, name, "OPENAI_API_KEY") if host == OPENAI_HOST else (own, name)


def read_key(url: str, name: str) -> str:
    """The key for an address, or "". Raises UsageError.

    A line break at its end is a slip of the shell, not part of it.
    """
    for variable in key_names(url, name):
        if key := os.environ.get(variable, "").strip():
            if not key.isprintable():
                raise UsageError(f"${variable}: the key holds control characters. Set it again")
            return key
    return ""


def key_header(url: str, name: str) -> dict[str, str]:
    """The header that carries the key; none without one."""
    key = read_key(url, name)
    return {"Authorization": f"Bearer {key}"} if key else {}


def redact(content: bytes, key: str) -> bytes:
    r"""The content with `[key]` where the key stood, if the key is a secret at all.

    >>> redact(rb'{"error": "bad key sk-1\/2+3456"}', "sk-1/2+3456")
    b'{"error": "bad key [key]"}'
    """
    if len(key) < (SHORTEST_OF_LETTERS if key.isalpha() else SHORTEST_SECRET):
        return content
    marker, pattern = _compile(key)
    return pattern.sub(b"[key]", content) if marker in content else content


@functools.cache
def _compile(key: str) -> tuple[bytes, re.Pattern[bytes]]:
    """What no JSON escapes of the key, which is found fast; and the key in every spelling."""
    marker = max(re.findall("[A-Za-z0-9]*", key), key=len)
    spellings = (rf"(?:\\*{re.escape(c)}|\\+u{ord(c):04x}|\\+u{ord(c):04X})" for c in key)
    return marker.encode(), re.compile("".join(spellings).encode())
