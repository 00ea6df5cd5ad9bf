"""DeepResearchGym beside upstream's stored labels, ratings and judged claims, and its prompts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2w_eval.tasks.deepresearch_gym import utils
from r2w_eval.tasks.deepresearch_gym.scoring import aggregate

from r2w_eval.data import SuiteData
from r2w_eval.hashing import text_hash
from r2w_eval.suites import JudgingJob
from r2w_eval.suites.parity import ParityCase, figures, paired, values_of
from r2w_eval.template import Template
from r2w_eval.types import (
    Answer,
    ItemVerdicts,
    JudgeRequest,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

POINTS = "key_points_deduplicated.json"
QUALITY = "quality_"
OWN_PROMPTS = {"kpr": "point:{point_number}", "quality": "quality:{criterion}"}


def cases(folder: Path, data: SuiteData) -> Iterable[ParityCase]:
    """Key points, the divisor, quality with and without citations, prompts."""
    expected = json.loads((folder / "expected.json").read_bytes())
    labelled = {p.stem: p for p in folder.glob("kpr_mini/*.json") if p.name != POINTS}
    for name, want, path in paired(expected["kpr"], labelled):
        stored = json.loads(path.read_bytes())
        labels = {q: {n: v[0] for n, v in e["labels"].items()} for q, e in stored.items()}
        yield from _key_points(f"key points of {name}", labels, want)
    yield from _divisor(expected["kpr_divisor_case"])
    for part in (name for name in expected if name.startswith(QUALITY)):
        date = part.removeprefix(QUALITY).replace("_", "-")
        rated = {path.name: path for path in (folder / f"quality_citation_{date}").iterdir()}
        for _, want, place in paired(expected[part], rated):
            yield from _quality(place, want)
    yield from _prompts(json.loads((folder / "vectors.json").read_bytes())["prompt"], data)


def judged(sample_id: str, labels: Mapping[str, str]) -> ItemVerdicts:
    """One query with the labels of its key points, as our parser reads them."""
    scores = {
        f"point:{number}": (_read(f"point:{number}", "label", label),)
        for number, label in labels.items()
    }
    return make_item(sample_id, scores, points=list(labels))


def make_item(
    sample_id: str,
    scores: Mapping[str, tuple[Score, ...]],
    points: Sequence[str] = (),
    quality: Sequence[str] = (),
) -> ItemVerdicts:
    """An answered query; a list of criteria of its own stands for another version."""
    meta = {"points": list(points), "quality": list(quality)}
    return ItemVerdicts(sample_id, "en", meta, WriterStatus.OK, scores)


def _read(criterion: str, key: str, value: Any) -> Score:
    verdict = json.dumps({key: value, "justification": ""})
    return utils.parse_parity(JudgeRequest(criterion, ()), verdict)


def _key_points(
    case: str, labels: Mapping[str, Mapping[str, str]], want: Mapping[str, Any]
) -> Iterator[ParityCase]:
    items = [judged(query, own) for query, own in labels.items()]
    got = values_of(aggregate(items, Mode.PARITY))
    yield from figures(case, {"kpr": want["kpr"], "kpc": want["kpc"]}, got)
    yield ParityCase(case, "queries", want["queries"], len(items))
    yield ParityCase(case, "labels", want["labels"], sum(map(len, labels.values())))
    for item in items:
        alone = values_of(aggregate([item], Mode.PARITY))
        own = want["per_query"][item.sample_id]
        for metric in ("kpr", "kpc"):
            figure = f"{metric} of query {item.sample_id}"
            yield ParityCase(case, figure, own[metric], alone[metric])


def _divisor(case: Mapping[str, Any]) -> Iterator[ParityCase]:
    items = [
        judged(query, {str(n): label for n, label in enumerate(labels)})
        for query, labels in case["labels"].items()
    ]
    wanted = {"kpr": case["kpr_upstream"], "kpr:scored": case["kpr_scored_queries"]}
    got = values_of(aggregate(items, Mode.PARITY))
    yield from figures("a query without key points", wanted, got)


def _quality(folder: Path, want: Mapping[str, Any]) -> Iterator[ParityCase]:
    case = f"quality of {folder.name}"
    others = {key.removesuffix("_judge"): key for key in want if key.endswith("_judge")}
    (main,) = set(list_judges(folder)) - others.keys()
    items = read_ratings(folder, main)
    got = values_of(aggregate(items, Mode.PARITY))
    yield from figures(case, {"quality": want["score_without_citations"]}, got)
    yield from figures(case, want["per_criterion_mean_0_10"], got, "quality/")
    if "citation_precision_mean_0_100" in want:
        yield from _citations(case, items, got, want)
    for judge, key in others.items():
        again = values_of(aggregate(read_ratings(folder, judge), Mode.PARITY))
        yield ParityCase(case, f"quality, {key}", want[key]["stored"], again["quality"])


def _citations(
    case: str,
    items: Sequence[ItemVerdicts],
    got: Mapping[str, float | None],
    want: Mapping[str, Any],
) -> Iterator[ParityCase]:
    wanted = {
        "quality:with_citations": want["score_with_citations"],
        "citation_precision": want["citation_precision_mean_0_100"],
    }
    yield from figures(case, wanted, got)
    support = [s.value for i in items for n, (s,) in i.scores.items() if n.startswith("support:")]
    levels = [support.count(level) for level in (1.0, 0.5, 0.0)]
    yield ParityCase(case, "claims", want["claims_full_partial_none"], levels)
    without = sum(item.scores["claims"][0].value == 0 for item in items)
    yield ParityCase(case, "queries without claims", want["queries_without_claims"], without)


def list_judges(folder: Path) -> list[str]:
    """The judges whose ratings of one system lie in its folder."""
    head, tail = "evaluation_results_detailed_", ".json.gz"
    paths = sorted(folder.glob(f"{head}*{tail}"))
    return [path.name.removeprefix(head).removesuffix(tail) for path in paths]


def read_ratings(folder: Path, judge: str) -> list[ItemVerdicts]:
    """The ratings of one system through our parser, and its claims where they were judged."""
    rated = _read_gz(folder / f"evaluation_results_detailed_{judge}.json.gz")
    cited = folder / f"evaluation_results_citation_{judge}.json.gz"
    claims = _read_gz(cited) if cited.is_file() else {}
    items = []
    for query, entry in rated.items():
        scores = {
            f"quality:{name}": (_read("quality:", "rating", value),)
            for name, (value, _) in entry["scores"].items()
        }
        if query in claims:
            found = claims[query]["detailed"] or {}
            scores["claims"] = (Score(float(len(found))),)
            for n, claim in enumerate(found.values()):
                scores[f"support:{n}"] = (Score(float(claim["score"])),)
        items.append(make_item(query, scores, quality=list(entry["scores"])))
    return items


def _read_gz(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def _prompts(vectors: Mapping[str, Any], data: SuiteData) -> Iterator[ParityCase]:
    samples: dict[str, Sample] = {sample.id: sample for sample in utils.load_samples(data)}
    templates = utils.load_templates(data)
    for vector in vectors["vectors"]:
        if vector["kind"] == "citation_extract":
            yield _claims_prompt(vector, templates["eval_citation.extract"])
            continue
        answer = Answer(vector["answer"], vector["answer"], WriterStatus.OK)
        job = JudgingJob(samples[vector["id"]], answer, templates, Mode.PARITY)
        wanted = OWN_PROMPTS[vector["kind"]].format(**vector)
        (request,) = (r for r in utils.plan_judging(job) if r.criterion == wanted)
        figure = f"query {vector['id']}, {wanted}"
        got = text_hash(request.messages[-1].content)
        yield ParityCase("judge prompts", figure, vector["sha256"], got)


def _claims_prompt(vector: Mapping[str, Any], template: Template) -> ParityCase:
    """The answers of these cases have no address, so that no run would ask about them."""
    got = text_hash(template.replace(**{"<<answer>>": vector["answer"]}))
    return ParityCase(
        "judge prompts", f"claims in {vector['answer'][:20]!r}", vector["sha256"], got
    )
