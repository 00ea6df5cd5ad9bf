"""Content hashes: the same work is found under any name, different work is never mixed."""

from __future__ import annotations

import base64
import dataclasses
import enum
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# by exact type: an enum that is a string as well is none of these
_ATOMS = frozenset({str, int, float, bool, type(None)})


def to_plain(value: Any) -> Any:
    """Dataclasses, enums, tuples and mappings as plain JSON types, recursively."""
    kind: Any = type(value)
    if kind in _ATOMS:
        return value
    if (names := _field_names(kind)) is not None:
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value.value if isinstance(value, enum.Enum) else value


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """Fields of a dataclass; None for any other type."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


def dump_line(value: Any) -> bytes:
    r"""One JSON line, UTF-8; lone surrogates are escaped, everything else stays readable.

    >>> dump_line({"a": "é"})
    b'{"a": "\xc3\xa9"}\n'
    """
    plain = to_plain(value)
    try:
        return (json.dumps(plain, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(plain) + "\n").encode()


def content_hash(value: Any, length: int = 24) -> str:
    """SHA-256 (hex, first `length` digits) of the canonical JSON of `value`."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def text_hash(text: str) -> str:
    """SHA-256 (hex) of the UTF-8 bytes of `text`; lone surrogates are hashed as they are."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def policy_hash(script: str) -> str:
    """SHA-256 (base64) of a script, as a content-security policy names the ones it lets run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def path_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, or of the names and hashes of a folder's files."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return content_hash([[str(f.relative_to(path)), file_hash(f)] for f in files])
    return file_hash(path)


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
