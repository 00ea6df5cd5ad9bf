"""FACT beside upstream's own statistics of validated reports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.tasks.deepresearch_bench_fact import utils, verdicts

from r2w_eval.data import SuiteData, read_jsonl
from r2w_eval.suites.parity import ParityCase, figures, paired, values_of
from r2w_eval.types import ItemVerdicts, JudgeRequest, JudgeStatus, Mode, Score, WriterStatus

PRINTED = ("total_citations", "total_valid_citations", "valid_rate")


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """Every system whose validated reports lie in `fact/`."""
    expected = json.loads((folder / "expected.json").read_bytes())["fact_statistics"]
    systems = {path.name: path for path in (folder / "fact").iterdir()}
    for name, want, own in paired(expected, systems):
        records = read_jsonl(own / "validated.jsonl.gz")
        yield from _statistics(f"statistics of {name}", records, want)
        yield from _printed(f"statistics of {name}", own / "fact_result.txt", records)
        yield from _groups(f"groups of {name}", own)


def read_item(record: Mapping[str, Any]) -> ItemVerdicts:
    """One validated report, its stored verdicts put through our parity parser again."""
    text = json.dumps(record["citations"], ensure_ascii=False)
    scores = {"extract": (verdicts.extract_parity(JudgeRequest("extract", ()), text),)}
    for number, cited in enumerate(record["citations_deduped"].values()):
        kept = len(cited["facts"])
        scores[f"deduplicate:{number}"] = (verdicts.kept_score(range(1, kept + 1)),)
        scores[f"validate:{number}"] = (_validation(cited, kept),)
    return ItemVerdicts(str(record["id"]), "", {}, WriterStatus.OK, scores)


def _validation(cited: Mapping[str, Any], n: int) -> Score:
    if cited["validate_error"] is not None:
        return Score(None, JudgeStatus.PARSE_ERROR, str(cited["validate_error"])[:100])
    # stored after 1 was taken off every index
    answer = json.dumps([{**entry, "idx": entry["idx"] + 1} for entry in cited["validate_res"]])
    return verdicts.parse_parity(JudgeRequest("validate:0", (), facts={"n": n}), answer)


def _statistics(
    case: str, records: Sequence[Mapping[str, Any]], want: Mapping[str, Any]
) -> Iterator[ParityCase]:
    items = [read_item(record) for record in records]
    got = values_of(utils.aggregate(items, Mode.PARITY))
    yield from figures(case, {name: want[name] for name in PRINTED}, got)
    reports = [report for item in items if (report := utils.read_report(item, Mode.PARITY))]
    yield ParityCase(case, "reports", want["reports"], len(reports))
    citing = sum(report.has_citations for report in reports)
    yield ParityCase(case, "reports with citations", want["reports_with_citations"], citing)
    for name in ("judged", "supported", "unknown"):
        total = sum(getattr(report, name) for report in reports)
        yield ParityCase(case, name, want[name], total)


def _printed(case: str, path: Path, records: Sequence[Mapping[str, Any]]) -> Iterator[ParityCase]:
    got = values_of(utils.aggregate([read_item(record) for record in records], Mode.PARITY))
    for line in path.read_text("utf-8").split("\n") if path.is_file() else ():
        name, _, printed = line.partition(": ")
        if name:
            yield ParityCase(case, f"{name} as printed", printed, str(got[name]))


def _groups(case: str, folder: Path) -> Iterator[ParityCase]:
    """Which facts stand together before duplicates are removed."""
    path = folder / "deduplicated.jsonl.gz"
    for record in read_jsonl(path) if path.is_file() else ():
        text = json.dumps(record["citations"], ensure_ascii=False)
        score = verdicts.extract_parity(JudgeRequest("extract", ()), text)
        facts = json.loads(score.parts["facts"])
        urls = list(dict.fromkeys(url for _, url in facts))
        figure = f"addresses of report {record['id']}"
        yield ParityCase(case, figure, list(record["citations_deduped"]), urls)
        alone = [n for n, size in enumerate(score.parts["groups"]) if size == 1]
        for number in alone:
            wanted = record["citations_deduped"][urls[number]]["facts"]
            got = [fact for fact, url in facts if url == urls[number]]
            yield ParityCase(case, f"single fact of address {number}", wanted, got)
