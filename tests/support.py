"""Where test data lies. Importable by every test (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def data_folder(variable: str, default: str) -> Path:
    """The folder that an environment variable names, else the one beside the checkout."""
    return Path(os.environ.get(variable) or ROOT.parent / "shared" / default)


def verification_files(part: str, pattern: str) -> list[str]:
    """Names of verification cases, for parameters; empty where the folder is absent."""
    return sorted(
        path.name for path in (data_folder("R2W_VERIFICATION", "verification") / part).glob(pattern)
    )
