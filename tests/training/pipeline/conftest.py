"""A recipe of which the light stages run without torch and benchmark data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write(tmp_path: Path, own_cache: Path) -> Callable[..., Path]:
    """Writes a recipe whose light stages need neither torch nor benchmark data."""
    (tmp_path / "data").mkdir()

    def write_recipe(**sections: Any) -> Path:
        content = {
            "prompts": {"n": 4, "data_dir": str(tmp_path / "data")},
            "traces": {"sources": ["planted"], "limit": 3},
            "evaluate": {"judge": ["r2w-quality"]},
            # the suite takes ten seconds; one test lets it run
            "rl": {"validity": "waived"},
        }
        path = tmp_path / "own.yaml"
        path.write_text(json.dumps({**content, **sections}))
        return path

    return write_recipe
