"""HelloBench beside its printed tables, its judge loop and its prompts."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.tasks.hellobench import utils
from r2w_eval.tasks.hellobench_length import utils as length_utils

from r2w_eval.data import SuiteData
from r2w_eval.hashing import text_hash
from r2w_eval.parity import ParityCase, figures, replay, values_of
from r2w_eval.suites import JudgingJob, load_info
from r2w_eval.tokenise import nltk_tokens
from r2w_eval.types import (
    Answer,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

MAIN_EXPERIMENTS = ("main_exp", "longcontext_exp")


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """Printed tables from scores, from whole judgements, verdict texts, and prompts."""
    expected = json.loads((folder / "expected.json").read_bytes())
    main, lengths = _samples(data)
    for path in sorted(folder.glob("judge_scores_*.jsonl.gz")):
        for (experiment, model), records in _by_model(path).items():
            if experiment in MAIN_EXPERIMENTS:
                yield from _table(model, expected[experiment][model], records, main)
            else:
                yield from _lengths(model, expected[experiment][model], records, lengths)
    for path in sorted(folder.glob("judgements_full_*.jsonl.gz")):
        model = path.name.removeprefix("judgements_full_").removesuffix(".jsonl.gz")
        records = [_from_whole(record) for record in _read(path)]
        name = f"{model}, from texts"
        yield from _table(name, expected["main_exp"][model], records, main)
    vectors = json.loads((folder / "judge_parse_vectors.json").read_bytes())
    for vector in vectors["parser"]:
        yield from _judge_says(vector)
    yield from _prompts(folder, data, main)


def _samples(data: SuiteData) -> tuple[dict[str, Sample], dict[str, Sample]]:
    """The items of both task names, by id; the second reads its own file list."""
    other = SuiteData(data.suite, load_info("hellobench_length").files, data.roots)
    return (
        {sample.id: sample for sample in utils.load_samples(data)},
        {sample.id: sample for sample in length_utils.load_samples(other)},
    )


def _read(path: Path) -> Iterator[Any]:
    with gzip.open(path) as file:
        for line in file:
            yield json.loads(line)


def _by_model(path: Path) -> dict[tuple[str, str], list[Any]]:
    found = defaultdict(list)
    for record in _read(path):
        found[record["exp"], record["model"]].append(record)
    return found


def _from_whole(record: Mapping[str, Any]) -> dict[str, Any]:
    """A judgement with its answer, as a record of scores: read and counted by us."""
    return {
        "id": record["id"],
        "verdict": json.dumps(record["checklist_wise_evaluation"]),
        "n_tokens": len(nltk_tokens(record["response"], utils.NLTK_RELEASE)),
    }


def _to_item(record: Mapping[str, Any], sample: Sample) -> ItemVerdicts:
    verdict = record.get("verdict") or json.dumps(
        [{"checklist_id": i, "evaluation_score": s} for i, s in enumerate(record["scores"])]
    )
    request = JudgeRequest(utils.CHECKLIST, (), facts={"weights": sample.material["weights"]})
    return ItemVerdicts(
        sample_id=sample.id,
        language=sample.language,
        meta=sample.meta,
        status=WriterStatus.OK,
        scores={utils.CHECKLIST: (utils.parse_parity(request, verdict),)},
        measures={"tokens": record["n_tokens"]},
    )


def _table(
    model: str,
    want: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    samples: Mapping[str, Sample],
) -> Iterator[ParityCase]:
    case = f"table row of {model}"
    items = [_to_item(record, samples[record["id"]]) for record in records]
    got = values_of(utils.aggregate(items, Mode.PARITY))
    yield ParityCase(case, "overall", want["overall_rescaled"], got["overall"])
    yield ParityCase(case, "length", want["overall_length"], got["length"])
    scored = sum(utils.read_item(item) is not None for item in items)
    yield ParityCase(case, "scored", want["samples_scored_of_647"], scored)
    order = [*utils.TASKS, "overall"]
    for name, row in zip(order, want["printed"], strict=True):
        score, length = (name, "length") if name == "overall" else _names(name)
        yield ParityCase(case, f"{name}, printed", row, _printed(got[score], got[length]))
    for task, exact in want["tasks"].items():
        yield from _one_task(case, task, exact, got)


def _names(task: str) -> tuple[str, str]:
    return f"task/{task}", f"length/{task}"


def _one_task(
    case: str, task: str, want: Mapping[str, Any], got: Mapping[str, Any]
) -> Iterator[ParityCase]:
    score, length = _names(task)
    exact = {
        score: want["score_rescaled"],
        f"{score}:0_100": want["score_0_100"],
        length: want["avg_length"],
    }
    yield from figures(case, exact, got)


def _printed(score: float | None, length: float | None) -> list[float] | None:
    """A cell as compute.py prints it: two decimals, and whole words."""
    return None if score is None or length is None else [round(score, 2), round(length)]


def _lengths(
    model: str,
    want: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    samples: Mapping[str, Sample],
) -> Iterator[ParityCase]:
    items = [_to_item(r, samples[f"{r['length']}/{r['id']}"]) for r in records]
    got = values_of(utils.aggregate(items, Mode.PARITY))
    for length, row in want.items():
        case = f"length run of {model}, {length}"
        if row is None:
            yield ParityCase(case, "score", None, got.get(f"task/{length}"))
            continue
        score, words = (got[name] for name in _names(length))
        yield ParityCase(case, "printed", row["printed"], _printed(score, words))
        yield from _one_task(case, length, row, got)
        scored = sum(i.meta["task"] == length and utils.read_item(i) is not None for i in items)
        yield ParityCase(case, "scored", row["scored"], scored)


def _judge_says(vector: Mapping[str, Any]) -> Iterator[ParityCase]:
    """Which scores upstream stores for a scripted judge, and after how many calls."""
    case = f"judge says: {vector['case']}"
    n = vector["n_checklist"]
    request = JudgeRequest(utils.CHECKLIST, (), facts={"weights": [100 / n] * n})
    score, calls = replay(utils.SUITE, request, vector["outputs"])
    wanted = [entry["evaluation_score"] for entry in vector["saved"]] if vector["ok"] else None
    yield ParityCase(case, "calls", vector["calls_used"], calls)
    yield ParityCase(case, "scores stored", wanted, _stored(score))


def _stored(score: Score) -> Any:
    """None where upstream's script ends; an empty list where no reply could be read."""
    lost = score.status is JudgeStatus.UPSTREAM_LOST
    return score.parts.get("scores", None if lost else [])


def _prompts(folder: Path, data: SuiteData, samples: Mapping[str, Sample]) -> Iterator[ParityCase]:
    templates = utils.load_templates(data)
    for vector in json.loads((folder / "prompt_vectors.json").read_bytes())["vectors"]:
        path = folder / f"judgements_full_{vector['response_model']}.jsonl.gz"
        text = next(record["response"] for record in _read(path) if record["id"] == vector["id"])
        answer = Answer(text, text, WriterStatus.OK)
        job = JudgingJob(samples[vector["id"]], answer, templates, Mode.PARITY)
        user = utils.plan_judging(job)[0].messages[1].content
        yield ParityCase(
            "judge prompts", vector["id"], vector["user_prompt_sha256"], text_hash(user)
        )
