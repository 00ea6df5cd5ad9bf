"""The stages: what is run, what it leaves, and when it is struck.

Every command runs in its cell's own folder with relative paths, so that an undisturbed cell and a
disturbed one must end with the same bytes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.process import Server

JUDGED = 24 * 5


@dataclass(frozen=True)
class Stage:
    """A command of the tool.

    words: the arguments, given the server
    records: JSON-lines files with one row a piece of work
    key: what tells rows apart; none: the whole row
    results: files that must be equal after a fault and without one (patterns)
    strike: records or files that must be there before the fault; none: half of the usual time
    manifest: file that names the version, and how another version would have written it
    checkpoints: patterns of files that a kill can cut short
    server: the endpoint that it needs, where it needs one
    """

    name: str
    words: Callable[[str], list[str]]
    results: tuple[str, ...]
    records: tuple[str, ...] = ()
    key: str = "key"
    strike: Callable[[Path], bool] | None = None
    manifest: str = ""
    checkpoints: tuple[str, ...] = ()
    server: str = ""
    prepare: Callable[[Path, Path], None] = lambda inputs, folder: None
    is_slow: bool = False


def lines_in(pattern: str, n: int) -> Callable[[Path], bool]:
    """Reached when a file has this many lines."""

    def reached(folder: Path) -> bool:
        return any(path.read_bytes().count(b"\n") >= n for path in folder.glob(pattern))

    return reached


def exists(pattern: str) -> Callable[[Path], bool]:
    """Reached when a file exists."""
    return lambda folder: any(folder.glob(pattern))


def _run_words(url: str) -> list[str]:
    return [f"--model={url}#gen-30", "--tasks=quickstart", "--out=out", "--no-cache", "--quiet",
            "--timeout=3", "--judge=none"]  # fmt: skip


def _copy(name: str, target: str) -> Callable[[Path, Path], None]:
    def prepare(inputs: Path, folder: Path) -> None:
        shutil.copytree(inputs / name, folder / target)

    return prepare


def _two_runs(inputs: Path, folder: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(inputs / name, folder / name)


def write_items(path: Path, n: int) -> None:
    """Reflections to score."""
    rows = (
        {"id": str(i), "prompt": "A tale.", "draft": f"He go home {i}. It was late.",
         "reflection": f'In "He go home {i}." the verb form is wrong. I should write "goes".',
         "revision": f"He goes home {i}. It was late."}
        for i in range(n)
    )  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


STAGES = (
    Stage(
        "generate", _run_words, ("out/results.json",), ("out/responses.jsonl",),
        strike=lines_in("out/responses.jsonl", 6), manifest="out/run.json", server="fake",
    ),
    Stage(
        "judge", lambda url: ["judge", "out", f"--judge={url}#judge-100", "--timeout=3"],
        ("out/results.json",), ("out/judgements.jsonl",),
        strike=lines_in("out/judgements.jsonl", 15), manifest="out/run.json", server="fake",
        prepare=_copy("answers", "out"),
    ),
    Stage(
        "aggregate", lambda url: ["judge", "out", "--reparse"],
        ("out/results.json", "out/report.html"), ("out/judgements.jsonl",),
        manifest="out/run.json", prepare=_copy("a", "out"),
    ),
    Stage(
        "compare",
        lambda url: ["compare", "a", "b", f"--judge={url}#judge-100", "--out=out", "--timeout=3"],
        ("out/ratings.json",), ("out/pairs.jsonl",), strike=lines_in("out/pairs.jsonl", 10),
        server="fake", prepare=_two_runs,
    ),
    Stage(
        "leaderboard", lambda url: ["leaderboard", "a", "b", "--out=out"],
        ("out/index.html", "out/exports/*.csv", "out/rows/*.json", "out/data/*/*"),
        strike=exists(".out.*.tmp/*"),
        manifest="out/site.json", prepare=_two_runs,
    ),
    Stage(
        "score",
        lambda url: ["score", "--scorer=r2w-rules", "--input=items.jsonl", "--output=out.jsonl",
                     "--batch=16"],
        ("out.jsonl",), ("out.jsonl",), key="id", strike=lines_in("out.jsonl", 100),
        manifest="out.jsonl.run.json",
        prepare=lambda inputs, folder: write_items(folder / "items.jsonl", 1500),
    ),
    Stage(
        "synth",
        lambda url: ["train", "synth", f"--writer={url}#loop", "--n=6", "--out=out",
                     "--recipe=../inputs/recipe.yaml"],
        ("out/traces.jsonl", "out/census.json"), ("out/steps.jsonl",),
        strike=lines_in("out/steps.jsonl", 10), manifest="out/manifest.json", server="loop",
    ),
    Stage(
        "sft",
        lambda url: ["train", "sft", "--recipe=../inputs/recipe.yaml",
                     "--traces=../inputs/traces.jsonl", "--out=out"],
        ("out/model/model.safetensors",),
        strike=exists("out/checkpoints/checkpoint-2/trainer_state.json"),
        manifest="out/manifest.json", checkpoints=("out/checkpoints/checkpoint-*/*.safetensors",),
        is_slow=True,
    ),
    Stage(
        "rm",
        lambda url: ["train", "rm", "--reward-data=../inputs/reward_data", "--fillings=1",
                     "--out=out"],
        ("out/data.jsonl", "out/weights/*"), is_slow=True,
    ),
    Stage(
        "rl",
        lambda url: ["train", "rl", "--recipe=../inputs/recipe.yaml", "--n=4", "--out=out"],
        ("out/model/model.safetensors",),
        strike=exists("out/checkpoints/checkpoint-2/trainer_state.json"),
        manifest="out/manifest.json", checkpoints=("out/checkpoints/checkpoint-*/*.safetensors",),
        is_slow=True,
    ),
    Stage(
        "watch",
        lambda url: ["watch", "out", "--once", "--tasks=quickstart", "--limit=8",
                     f"--judge={url}#judge-100", "--gen-kwargs=max_tokens=8", "--timeout=3"],
        ("out/evaluations/progress.jsonl",), ("out/evaluations/*/judgements.jsonl",),
        strike=lines_in("out/evaluations/*/judgements.jsonl", 4),
        manifest="out/evaluations/checkpoint-2/run.json",
        checkpoints=("out/checkpoint-2/model.safetensors",), server="fake",
        prepare=_copy("checkpoints", "out"), is_slow=True,
    ),
)  # fmt: skip
BY_NAME = {stage.name: stage for stage in STAGES}


def url_of(stage: Stage, servers: dict[str, Server]) -> str:
    """The server address for a stage; empty if it needs none."""
    return servers[stage.server].base_url if stage.server else ""
