"""What is promised of an installation without extras works with its libraries alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from support import ROOT

# finds nothing of what an installation without extras does not bring
HIDE = """
import os, runpy, sys

HIDDEN = frozenset(os.environ["HIDDEN"].split())

class Base:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in HIDDEN:
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Base, sys.meta_path)
sys.argv[0] = "r2w-eval"
runpy.run_module("r2w_eval", run_name="__main__")
"""


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def base_libraries() -> set[str]:
    """All that `pip install r2w-eval` brings, by name."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: set[str] = set()
    waiting = list(config["project"]["dependencies"])
    while waiting:
        requirement = Requirement(waiting.pop())
        name = plain(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += metadata.requires(requirement.name) or []
    return found


def run_base(folder: Path, *words: str) -> str:
    """What the program prints where only the base's libraries are."""
    base = base_libraries()
    owners = metadata.packages_distributions()
    hidden = [name for name, own in owners.items() if not base & set(map(plain, own))]
    hidden.remove("r2w_eval")
    done = subprocess.run(
        [sys.executable, "-c", HIDE, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HIDDEN": " ".join(hidden), "R2W_CACHE": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_reward_model_reads_texts(tmp_path: Path) -> None:
    item = {"id": "1", "prompt": "A ferry.", "response": "The horn arrived first, then a rope."}
    (tmp_path / "items.jsonl").write_text(json.dumps(item) + "\n")
    words = ("--scorer", "r2w-reward", "--input", "items.jsonl", "--output", "scores.jsonl")
    assert "1 ok" in run_base(tmp_path, "score", *words)
    assert json.loads((tmp_path / "scores.jsonl").read_text())["status"] == "ok"


def test_a_board_is_made_and_verified(tmp_path: Path) -> None:
    rows = sorted((ROOT / "leaderboards" / "data" / "rows").glob("quickstart-null-*.json"))[:2]
    run_base(tmp_path, "leaderboard", *map(str, rows), "--out", "site")
    assert "nothing differs" in run_base(tmp_path, "leaderboard", "verify", "site")
