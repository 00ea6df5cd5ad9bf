"""The systems of the published boards: one small model in six settings, checkpoints, four nulls.

Run in an empty folder; every system becomes a run folder under `runs/`, and what is finished is not
done again. Neither judge is worth anything here: `local` is the smoke-test judge, `r2w-quality` was
trained on other kinds of text. The boards show what a board shows, not who writes well.

    python benchmarks/quickstart_board.py --ids story-en-1,poem-en-1 --checkpoint smollm2-sft
    r2w-eval leaderboard runs/* --out site
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from r2w_eval.config import RunConfig
from r2w_eval.records.selection import read_ids
from r2w_eval.run import evaluate
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder

PLANNER = (
    "Before you write, think inside <think> and </think>: plan the piece, write one weak sentence "
    "of it, say what is wrong with it, and mend it. After </think> give only the finished text."
)
NOVELIST = (
    "You are a novelist known for exact detail. Name objects, weather and hands at work; leave out "
    "morals and summaries. Keep to every demand of the task."
)
TERSE = "Answer in at most two short sentences."
CONSTANT = (
    "There was once a place where people came and went, and everyone who came there learned "
    "something about themselves. In the end it was not the place that mattered but the journey, "
    "and those who made it were never quite the same again."
)

# name -> (sampling, system prompt)
SYSTEMS: Mapping[str, tuple[str, str | None]] = {
    "default": ("", None),
    "greedy": ("temperature=0", None),
    "hot": ("temperature=1.4,top_p=1", None),
    "novelist": ("", NOVELIST),
    "planner": ("", PLANNER),
    "terse": ("", TERSE),
}


def null_answers(config: RunConfig, source: Path) -> dict[str, dict[str, str]]:
    """Texts that ignore the task: constant, empty, the prompt itself, another item's answer."""
    samples = list(plan_tasks(config)[0].samples())
    answers = {r.sample_id: r.answer for r in RunFolder(source).responses()}
    following = [*samples[1:], samples[0]]
    return {
        "constant": {sample.id: CONSTANT for sample in samples},
        "empty": {sample.id: "" for sample in samples},
        "prompt": {sample.id: sample.messages[-1].content for sample in samples},
        "other-answer": {
            sample.id: answers[other.id] for sample, other in zip(samples, following, strict=True)
        },
    }


def system_configs(base: RunConfig, max_tokens: int, checkpoints: Sequence[str]) -> list[RunConfig]:
    """The embedded model in its settings, then each checkpoint folder as it is."""
    configs = []
    for name, (sampling, system) in SYSTEMS.items():
        settings = ",".join(filter(None, (sampling, f"max_tokens={max_tokens}")))
        own = replace(base, gen_kwargs=settings, system_prompt=system, out=f"runs/{name}")
        configs.append(own)
    for folder in checkpoints:
        out = f"runs/{Path(folder).name}"
        configs.append(replace(base, model=folder, gen_kwargs=f"max_tokens={max_tokens}", out=out))
    return configs


def null_configs(base: RunConfig) -> list[RunConfig]:
    """Each null's answers as a file, judged as recorded ones."""
    Path("nulls").mkdir(exist_ok=True)
    configs = []
    for name, texts in null_answers(base, Path("runs/default")).items():
        file = Path("nulls", f"{name}.jsonl")
        rows = (json.dumps({"id": key, "text": text}) for key, text in texts.items())
        file.write_text("\n".join(rows) + "\n", "utf-8")
        out = f"runs/null-{name}"
        configs.append(replace(base, model=f"null/{name}", responses=str(file), out=out))
    return configs


async def run_all(base: RunConfig, max_tokens: int, checkpoints: Sequence[str]) -> None:
    """The systems, then the nulls, which take answers of the first."""
    for config in system_configs(base, max_tokens, checkpoints):
        await run_one(config)
    for config in null_configs(base):
        await run_one(config)


async def run_one(config: RunConfig) -> None:
    """One run; its means are printed."""
    for result in (await evaluate(config)).results:
        print(config.out, result.judge, result.headline, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", default="quickstart", help="one suite")
    parser.add_argument("--ids", action="append", help="prompts of the suite, with commas")
    parser.add_argument("--max-tokens", type=int, default=160, help="length of an answer")
    parser.add_argument("--judge", action="append", help="as for r2w-eval --judge; repeatable")
    parser.add_argument("--checkpoint", action="append", default=[], help="a model folder")
    given = parser.parse_args()
    base = RunConfig(
        model="smollm2",
        tasks=given.tasks,
        judge=tuple(given.judge or ("local", "r2w-quality")),
        combine="none",
        ids=read_ids(given.ids or ()),
        min_coverage=0.0,
    )
    asyncio.run(run_all(base, given.max_tokens, given.checkpoint))


if __name__ == "__main__":
    main()
