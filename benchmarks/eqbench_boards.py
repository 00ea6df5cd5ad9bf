"""Boards rebuilt from the judge texts that EQ-Bench published, beside its own ranking.

Every published judge text goes through the suite's parser and aggregator, as in a run; each model
becomes a run folder, and the folders become boards like any others. Stories are shown where they
were published, and told missing where not.

    python benchmarks/eqbench_boards.py ../shared/verification boards
    r2w-eval leaderboard boards/*/* --allow-mixed --out site
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2w_eval.config import RunConfig
from r2w_eval.hashing import content_hash, dump_line, to_plain
from r2w_eval.judge.scorers import StoredJudge
from r2w_eval.paths import safe_name
from r2w_eval.records.plan import TaskPlan
from r2w_eval.results.summary import RunFacts, summarise
from r2w_eval.run.manifest import describe_task
from r2w_eval.run.outputs import strip_performance
from r2w_eval.run.planning import plan_tasks
from r2w_eval.store import RunFolder, write_json
from r2w_eval.types import Judgement, JudgeRequest, Response, Sample, WriterStatus

JUDGE = "claude-3-7-sonnet-20250219"
FACTS = {"score_mode": "text", "source": "published judge texts"}
UNPUBLISHED = "the text of this answer was not published"


@dataclass(frozen=True, slots=True)
class Judged:
    """One published answer: its text where known, and the judge's text per criterion."""

    sample_id: str
    repeat: int
    text: str
    verdicts: Mapping[str, str]


def read_longform(path: Path) -> Iterator[Judged]:
    """Stories of one model, nine judge texts each; a chapter without one was never judged."""
    for record in read_items(path):
        chapters = record.get("chapter_text") or {}
        verdicts = {f"chapter_{n}": text for n, text in record["chapter_judge_raw"].items() if text}
        if record["final_judge_raw_first"]:
            verdicts["final"] = record["final_judge_raw_first"]
        text = "\n\n".join(f"Chapter {n}\n\n{chapter}" for n, chapter in chapters.items())
        yield Judged(str(record["prompt_id"]), 0, text, verdicts)


def read_creative(path: Path) -> Iterator[Judged]:
    """96 answers of one model: 32 prompts, three iterations each, one judge text an answer."""
    for record in read_items(path):
        place = f"{record['prompt_id']}-{record['iteration']}"
        yield Judged(place, 0, record["response"], {"rubric": record["judge_raw"]})


def read_items(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


@dataclass(frozen=True, slots=True)
class Source:
    """One suite's published part."""

    suite: str
    folder: str
    column: str
    digits: int
    n_repeats: int
    read: Any


SOURCES = (
    Source("eqbench_longform", "eqbench_longform", "overall_score_100", 1, 1, read_longform),
    Source(
        "eqbench_creative_v3",
        "eqbench_creative_writing_v3",
        "creative_writing_score",
        2,
        1,
        read_creative,
    ),
)


def published(source: Source, verification: Path) -> dict[str, str]:
    """The published scores by model, highest first."""
    with (verification / source.folder / "leaderboard_published.csv").open(newline="") as file:
        rows = {row["model_name"]: row[source.column] for row in csv.DictReader(file)}
    return dict(sorted(rows.items(), key=lambda pair: (-float(pair[1]), pair[0])))


def write_runs(
    source: Source, verification: Path, out: Path, data_dir: str | None = None
) -> list[Path]:
    """One run folder per model with published judge texts."""
    config = RunConfig(
        model="published",
        tasks=source.suite,
        mode="parity",
        judge=(JUDGE,),
        samples=source.n_repeats,
        data_dir=data_dir,
    )
    plan = plan_tasks(config)[0]
    samples = {sample.id: sample for sample in plan.samples()}
    expected = json.loads((verification / source.folder / "expected.json").read_bytes())["models"]
    folders = []
    for file in sorted((verification / source.folder / "items").glob("*.jsonl.gz")):
        stem = file.name.removesuffix(".jsonl.gz")
        model = expected.get(stem, {}).get("model") or stem.replace("__", "/")
        run = RunFolder(out / source.suite / safe_name(stem))
        write_run(run, model, plan, samples, list(source.read(file)))
        finish_run(run, model, plan, config)
        folders.append(run.path)
    return folders


def write_run(
    run: RunFolder,
    model: str,
    plan: TaskPlan,
    samples: Mapping[str, Sample],
    items: Sequence[Judged],
) -> None:
    """Write the responses, and every judge text with the score that the suite's parser finds."""
    run.path.mkdir(parents=True, exist_ok=True)
    parse = plan.suite.parse_verdict[plan.mode]
    with run.responses_path.open("wb") as responses, run.judgements_path.open("wb") as judgements:
        for item in items:
            response = make_response(model, plan, item)
            responses.write(dump_line(response))
            for criterion, text in item.verdicts.items():
                request = JudgeRequest(
                    criterion, (), facts=facts_of(samples[item.sample_id], criterion)
                )
                judgement = Judgement(
                    key=content_hash([response.key, criterion, text]),
                    response_key=response.key,
                    task=response.task,
                    sample_id=response.sample_id,
                    judge=JUDGE,
                    criterion=criterion,
                    score=parse(request, text),
                    asks=(text,),
                    sample_repeat=response.repeat,
                    model_returned=JUDGE,
                )
                judgements.write(dump_line(judgement))


def facts_of(sample: Sample, criterion: str) -> Mapping[str, Any]:
    """What the suite's own requests tell the parser: by part of a story, or for the whole suite."""
    facts: Mapping[str, Any] = sample.material.get("facts", {})
    part: Mapping[str, Any] = facts.get(criterion.partition("_")[0], facts)
    return part


def make_response(model: str, plan: TaskPlan, item: Judged) -> Response:
    return Response(
        key=content_hash([model, plan.info.name, item.sample_id, item.repeat]),
        task=plan.info.name,
        sample_id=item.sample_id,
        model=model,
        raw=item.text,
        answer=item.text,
        thinking=None,
        status=WriterStatus.OK,
        reason="" if item.text else UNPUBLISHED,
        repeat=item.repeat,
        turn=plan.suite.n_turns - 1,
        model_returned=model,
    )


def finish_run(run: RunFolder, model: str, plan: TaskPlan, config: RunConfig) -> None:
    """Write run.json and results.json as a run does."""
    judge = StoredJudge(JUDGE, FACTS)
    writer = {"backend": "published", "model": model}
    manifest = {
        "schema": 1,
        "created": "2025-05-01T00:00:00+00:00",
        "r2w_eval": "0.1.0",
        "model": model,
        "smoke_test_judge": False,
        "identity": {
            "mode": config.mode,
            "seed": None,
            "samples": config.samples,
            "repeats": 1,
            "writer": writer,
            "judges": {judge.id: judge.describe()},
            "tasks": {plan.info.name: describe_task(plan)},
        },
        "config": config,
    }
    write_json(run.manifest_path, to_plain(manifest))
    facts = RunFacts(writer, config.samples, {judge.id: judge.describe()}, 1)
    results = summarise(run, [plan], facts)
    write_json(run.results_path, [strip_performance(result) for result in results])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verification", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--suite", choices=[source.suite for source in SOURCES], action="append")
    parser.add_argument("--data-dir")
    given = parser.parse_args()
    for source in SOURCES:
        if not given.suite or source.suite in given.suite:
            folders = write_runs(source, given.verification, given.out, given.data_dir)
            print(source.suite, len(folders), "run folders")


if __name__ == "__main__":
    main()
