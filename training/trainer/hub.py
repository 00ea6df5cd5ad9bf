"""Checkpoints of the hub: `org/name`, or at one revision `org/name@REVISION` (commit, branch, tag).

A revision is part of the name and so of every key, manifest and record. Without one, the commit
that was used is reported, so that it can be named next time.
"""

from __future__ import annotations

from pathlib import Path

from r2w_eval.errors import UsageError

# weights as safetensors, configuration, tokenizer
PARTS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


def split_revision(model: str) -> tuple[str, str | None]:
    """A hub id and its revision (None without one); a path that exists has no revision.

    >>> split_revision("org/name@v1.0"), split_revision("org/name")
    (('org/name', 'v1.0'), ('org/name', None))
    """
    name, _, revision = model.partition("@")
    return (model, None) if not revision or Path(model).exists() else (name, revision)


def fetch_config(model: str) -> Path:
    """Download the config.json of a hub id; its path in the hub's cache. Raises UsageError."""
    name, revision = split_revision(model)
    try:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(name, "config.json", revision=revision))
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(f"its config.json cannot be read ({type(error).__name__})") from error


def commit_of(config: Path) -> str:
    """The commit that a file in the hub's cache belongs to; empty for any other file."""
    return config.parent.name if config.parent.parent.name == "snapshots" else ""


def fetch_checkpoint(model: str) -> Path:
    """Download a hub id at its revision; its folder. Raises UsageError."""
    name, revision = split_revision(model)
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, revision=revision, allow_patterns=[*PARTS]))
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(
            f"{model!r}: revision {revision!r} of {name!r} cannot be had ({type(error).__name__}: "
            f"{error}). Expected a commit, branch or tag of the hub, as in {name}@main"
        ) from error
