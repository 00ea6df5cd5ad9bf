"""Checkpoints of the hub: `org/name`, or at one revision `org/name@REVISION` (commit, branch, tag).

A revision is part of the name and so of every key, manifest and record. Without one the commit that
stood for the name is told, so that it can be named. No bytes come from an id alone unnoticed.
"""

from __future__ import annotations

from pathlib import Path

from r2w_eval.errors import UsageError

# weights as safetensors, their configuration, what makes tokens of texts
PARTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


def split_revision(model: str) -> tuple[str, str | None]:
    """A hub id and its revision, None without one; what exists on disk has none.

    >>> split_revision("org/name@v1.0"), split_revision("org/name")
    (('org/name', 'v1.0'), ('org/name', None))
    """
    name, _, revision = model.partition("@")
    return (model, None) if not revision or Path(model).exists() else (name, revision)


def fetch_config(model: str) -> Path:
    """The config.json of a hub id, in the folder of its commit. Raises UsageError."""
    name, revision = split_revision(model)
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, "config.json", revision=revision))
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(f"its config.json cannot be read ({type(error).__name__})") from error


def commit_of(config: Path) -> str:
    """The commit whose folder in the hub's cache holds a file; nothing for any other file."""
    return config.parent.name if config.parent.parent.name == "snapshots" else ""


def fetch_checkpoint(model: str) -> Path:
    """The folder of a hub id at its revision. Raises UsageError."""
    name, revision = split_revision(model)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, revision=revision, allow_patterns=[*PARTS]))
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(
            f"{model!r}: revision {revision!r} of {name!r} cannot be had ({type(error).__name__}: "
            f"{error}). Expected a commit, branch or tag of the hub, as in {name}@main"
        ) from error
