"""HelloBench beside its printed tables, its judge loop and its prompts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.tasks.hellobench import utils

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, figures, paired, replay, stated, values_of
from r2w_eval.text.tokenise import nltk_tokens
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
    main = {sample.id: sample for sample in utils.load_samples(data)}
    scores = scores_by_model(folder)
    for experiment in MAIN_EXPERIMENTS:
        for model, want, records in paired(expected[experiment], scores[experiment]):
            yield from _table(model, want, records, main)
    for path in sorted(folder.glob("judgements_full_*.jsonl.gz")):
        model = path.name.removeprefix("judgements_full_").removesuffix(".jsonl.gz")
        records = [_from_whole(record) for record in read_jsonl(path)]
        rows = {name: row for part in MAIN_EXPERIMENTS for name, row in expected[part].items()}
        yield from _table(f"{model}, from texts", stated(rows[model]), records, main)
    vectors = json.loads((folder / "judge_parse_vectors.json").read_bytes())
    for vector in vectors["parser"]:
        yield from _judge_says(vector)
    yield from _prompts(folder, data, main)


def scores_by_model(folder: Path) -> Mapping[str, Mapping[str, list[Any]]]:
    """Records of scores by experiment and model, from all score files."""
    found: defaultdict[str, defaultdict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("judge_scores_*.jsonl.gz")):
        for record in read_jsonl(path):
            found[record["exp"]][record["model"]].append(record)
    return found


def _from_whole(record: Mapping[str, Any]) -> dict[str, Any]:
    """A judgement with its answer, as a record of scores: read and counted by us."""
    return {
        "id": record["id"],
        "verdict": json.dumps(record["checklist_wise_evaluation"]),
        "n_tokens": len(nltk_tokens(record["response"], utils.NLTK_RELEASE)),
    }


def to_item(record: Mapping[str, Any], sample: Sample) -> ItemVerdicts:
    """A record of scores as the aggregator sees it: written as a verdict, and read by us."""
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
    items = [to_item(record, samples[record["id"]]) for record in records]
    got = values_of(utils.aggregate(items, Mode.PARITY))
    yield ParityCase(case, "overall", want["overall_rescaled"], got["overall"])
    yield ParityCase(case, "length", want["overall_length"], got["length"])
    scored = sum(utils.read_item(item) is not None for item in items)
    yield ParityCase(case, "scored", want["samples_scored_of_647"], scored)
    order = (*utils.TASKS, "overall") if "printed" in want else ()
    for name, row in zip(order, want["printed"], strict=True):
        score, length = (name, "length") if name == "overall" else names_of(name)
        yield ParityCase(case, f"{name}, printed", row, printed(got.get(score), got.get(length)))
    for task, exact in want["tasks"].items():
        # null where upstream has no file
        if exact is not None:
            yield from one_task(case, task, exact, got)


def names_of(task: str) -> tuple[str, str]:
    """Our names for a task's score and length."""
    return f"task/{task}", f"length/{task}"


def one_task(
    case: str, task: str, want: Mapping[str, Any], got: Mapping[str, Any]
) -> Iterator[ParityCase]:
    """Score, score before rescaling, and length, to the last digit."""
    score, length = names_of(task)
    exact = {
        score: want["score_rescaled"],
        f"{score}:0_100": want["score_0_100"],
        length: want["avg_length"],
    }
    yield from figures(case, exact, got)


def printed(score: float | None, length: float | None) -> list[float] | None:
    """A cell as compute.py prints it: two decimals, and whole words."""
    return None if score is None or length is None else [round(score, 2), round(length)]


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
    vectors = json.loads((folder / "prompt_vectors.json").read_bytes())["vectors"]
    answers = {
        (model, record["id"]): record["response"]
        for model in {vector["response_model"] for vector in vectors}
        for record in read_jsonl(folder / f"judgements_full_{model}.jsonl.gz")
    }
    for vector in vectors:
        text = answers[vector["response_model"], vector["id"]]
        answer = Answer(text, text, WriterStatus.OK)
        job = JudgingJob(samples[vector["id"]], answer, templates, Mode.PARITY)
        user = utils.plan_judging(job)[0].messages[1].content
        yield ParityCase(
            "judge prompts", vector["id"], vector["user_prompt_sha256"], text_hash(user)
        )
