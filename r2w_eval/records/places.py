"""Folders and objects anywhere that fsspec reaches: `out/`, `s3://BUCKET/PATH`, `memory://x`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from r2w_eval.errors import UsageError
from r2w_eval.store import write_atomically


def open_place(url: str) -> tuple[Any, str]:
    """An fsspec file system and an absolute path in it, as it is now. Raises UsageError."""
    try:
        import fsspec
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is missing. Try: pip install 'r2w-eval[scale]'") from error
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{url!r}: {error}. Expected a folder, or an address such as s3://BUCKET/PATH"
        ) from error
    # file systems of object stores are shared, and believe that what they once listed is all
    fs.invalidate_cache()
    return fs, str(path).rstrip("/")


def list_files(fs: Any, folder: str, pattern: str) -> list[str]:
    """Paths right in a folder whose names match, sorted; `folder` itself is no pattern."""
    try:
        paths = fs.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    return sorted(path for path in paths if fnmatchcase(path.rpartition("/")[2], pattern))


def publish(fs: Any, path: str, content: bytes) -> None:
    """Write a whole file: readers see the old one or the new one. Raises OSError."""
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        write_atomically(Path(path), content)
    else:
        # object stores show an object when its upload is complete
        fs.pipe_file(path, content)
