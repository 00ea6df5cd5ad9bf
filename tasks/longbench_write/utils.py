"""LongBench-Write: 120 requests with a demanded length; length score S_l, judged quality S_q.

Follows THUDM/LongWriter@3fcfdff (evaluation/pred.py, eval_length.py, eval_quality.py, judge.txt):
same counting of words, same formulas, same prompt bytes. S_l needs no judge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from r2w_eval.data import SuiteData, data_roots, read_jsonl
from r2w_eval.estimates import as_headline, mean_of
from r2w_eval.judge.extraction import parse_json
from r2w_eval.judge.parsing import last_object
from r2w_eval.models.thinking import split_thinking
from r2w_eval.suites.suite import JudgingJob, ParityRules, Suite, load_info, load_suite
from r2w_eval.template import Template
from r2w_eval.types import (
    Answer,
    Estimate,
    ItemVerdicts,
    JudgeRequest,
    JudgeStatus,
    Message,
    Mode,
    Sample,
    Score,
    WriterStatus,
)

QUALITY = "quality"
DIMENSIONS = (
    "Relevance",
    "Accuracy",
    "Coherence",
    "Clarity",
    "Breadth and Depth",
    "Reading Experience",
)
TRIES = 5
# Upper ends of the published bins of demanded lengths
BINS = {500: "under 500", 2000: "500 to 2k", 4000: "2k to 4k"}
LAST_BIN = "4k to 20k"
WORDS = re.compile(r"[\u4e00-\u9fff]|\b[a-zA-Z]+\b")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
FENCE = re.compile(r"```json\n(.*?)\n```", re.DOTALL)


def load_samples(data: SuiteData) -> Iterable[Sample]:
    """The 120 requests in file order; a sample's id is its place, from 0."""
    english = {record["prompt"] for record in read_jsonl(data.path("longbench_write_en.jsonl"))}
    for place, record in enumerate(read_jsonl(data.path("longbench_write.jsonl"))):
        yield Sample(
            task="longbench_write",
            id=str(place),
            messages=(Message("user", record["prompt"]),),
            language="en" if record["prompt"] in english else "zh",
            meta={
                "type": record["type"],
                "length": record["length"],
                "bin": next((n for end, n in BINS.items() if record["length"] < end), LAST_BIN),
            },
        )


def load_templates(data: SuiteData) -> Mapping[str, Template]:
    """The official prompt: upstream's file as it is."""
    return {"judge.txt": Template("judge.txt", data.path("judge.txt").read_bytes().decode())}


def criteria(sample: Sample) -> Sequence[str]:
    """One verdict with six dimensions."""
    return (QUALITY,)


def plan_judging(job: JudgingJob) -> list[JudgeRequest]:
    """One user message; the markers are replaced in one pass."""
    prompt = job.templates["judge.txt"].replace(
        **{"$INST$": job.sample.messages[0].content, "$RESPONSE$": job.answer.text}
    )
    return [JudgeRequest(QUALITY, (Message("user", prompt),))]


def count_words(text: str) -> int:
    """Chinese characters plus runs of plain letters that stand alone.

    Digits and accented letters join a run without counting, as upstream's pattern has it.

    >>> count_words("写一篇 short note"), count_words("don't"), count_words("naïve A1")
    (5, 2, 0)
    """
    return len(WORDS.findall(text))


def length_score(required: float, written: float) -> float:
    """S_l of one answer, 0 to 100: 100 at the demanded length, 0 from four times it, and from a
    third of it down. An empty answer, where upstream divides by zero, has 0.

    >>> [length_score(1000, y) for y in (1000, 2500, 500, 4000, 250, 0)]
    [100.0, 50.0, 50.0, 0.0, 0.0, 0.0]
    """
    if written > required:
        return 100 * max(0.0, 1.0 - (written / required - 1) / 3)
    return 100 * max(0.0, 1.0 - (required / written - 1) / 2) if written else 0.0


def measure(answer: Answer) -> Mapping[str, Any]:
    """Length as the suite counts it."""
    return {"words": count_words(answer.text)}


def parse_strict(request: JudgeRequest, text: str) -> Score:
    """The last JSON object with a dimension in it: all six, integers 1 to 5."""
    found = last_object(text, *DIMENSIONS)
    if found is None:
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object with the dimensions")
    if absent := [name for name in DIMENSIONS if name not in found]:
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, f"{', '.join(absent)} missing")
    for name in DIMENSIONS:
        value = found[name]
        if isinstance(value, bool) or value not in (1, 2, 3, 4, 5):
            why = f"{name} is {str(value)[:40]!r}, expected an integer from 1 to 5"
            return Score(None, JudgeStatus.OUT_OF_RANGE, why)
    return _mean_score([float(found[name]) for name in DIMENSIONS])


def _mean_score(values: Sequence[float]) -> Score:
    return Score(sum(values) / len(values), parts={"dimensions": list(values)})


def read_as_upstream(text: str) -> Any:
    """What upstream decodes: the first json fence or all of the text, without line ends."""
    match = FENCE.search(text) if "```json" in text else None
    inside = match[1] if match else "" if "```json" in text else text
    return parse_json(inside.replace("\n", ""))


def parse_parity(request: JudgeRequest, text: str) -> Score:
    """Upstream takes any object with the six names. Its averages need numbers, of any size."""
    found = read_as_upstream(text)
    if not isinstance(found, dict):
        return Score(None, JudgeStatus.PARSE_ERROR, "no JSON object after upstream's cleaning")
    if absent := [name for name in DIMENSIONS if name not in found]:
        return Score(None, JudgeStatus.CRITERIA_MISMATCH, f"{', '.join(absent)} missing")
    try:
        values = [float(found[name]) for name in DIMENSIONS]
    except (TypeError, ValueError, OverflowError):
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        return Score(None, JudgeStatus.UPSTREAM_LOST, "upstream's averages fail on such a value")
    return _mean_score(values)


def ask_again(texts: Sequence[str]) -> bool:
    """Upstream counts to five failures; a reply without some dimension may count twice."""
    return sum(count_failures(text) for text in texts) < TRIES


def count_failures(text: str) -> int:
    """How many failures upstream counts for an unreadable reply.

    It goes on to look for dimensions in the reply that it discarded, fails and counts once more,
    unless only the last one is missing.
    """
    found = read_as_upstream(text)
    if not isinstance(found, (dict, list, str)):
        return 1
    return 2 if any(name not in found for name in DIMENSIONS[:-1]) else 1


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer: length score, mean of the dimensions and each dimension; None: unknown."""

    item: ItemVerdicts
    length: float | None
    quality: float | None
    dimensions: Sequence[float]


def read_item(item: ItemVerdicts) -> Scored:
    """Means over the judge's repeats."""
    valued = item.valued(QUALITY)
    values = [value for _, value in valued]
    parts = [score.parts["dimensions"] for score, _ in valued if "dimensions" in score.parts]
    return Scored(
        item,
        _length_of(item),
        sum(values) / len(values) if values else None,
        [sum(own) / len(own) for own in zip(*parts, strict=True)],
    )


def _length_of(item: ItemVerdicts) -> float | None:
    """0 for an empty answer, and for a failed one at the floor."""
    if item.status is WriterStatus.EMPTY or item.at_floor:
        return 0.0
    words = item.measures.get("words")
    return None if words is None else length_score(item.meta["length"], words)


def aggregate(items: Sequence[ItemVerdicts], mode: Mode) -> list[Estimate]:
    """S = (S_l + S_q) / 2, over all, and by demanded length, type and language.

    S_l is over all answers, S_q over those with a verdict. Parity halves the two, as upstream does;
    strict averages the answers that have both. A run that asks no judge has S_l alone.
    """
    scored = [read_item(item) for item in items]
    judged = any(item.is_judged for item in items)
    combine = _of_both if mode is Mode.STRICT else _halves

    def scores(suffix: str, own: Sequence[Scored]) -> list[Estimate]:
        parts = [_lengths(suffix, own), _qualities(suffix, own)]
        return [combine(suffix, own), *parts] if judged else parts[:1]

    first, *rest = scores("", scored)
    groups = [
        estimate
        for key, value_of in GROUPS.items()
        for name in dict.fromkeys(value_of(item) for item in items)
        for estimate in scores(
            f":{key}/{name}", [entry for entry in scored if value_of(entry.item) == name]
        )
    ]
    dimensions = [_dimension(place, name, scored) for place, name in enumerate(DIMENSIONS)]
    return [as_headline(first), *rest, *(dimensions if judged else ()), _words(scored), *groups]


GROUPS: Mapping[str, Callable[[ItemVerdicts], str]] = {
    "length": lambda item: str(item.meta["bin"]),
    "type": lambda item: str(item.meta["type"]),
    "language": lambda item: item.language,
}


def _lengths(suffix: str, scored: Sequence[Scored]) -> Estimate:
    """S_l on the scale of the verdicts, so that its interval is cut at their range."""
    values = [(s.item.sample_id, 1 + s.length / 25) for s in scored if s.length is not None]
    return to_hundred(mean_of(f"S_l{suffix}", values, len(scored)))


def _qualities(suffix: str, scored: Sequence[Scored]) -> Estimate:
    values = [(s.item.sample_id, s.quality) for s in scored if s.quality is not None]
    return to_hundred(mean_of(f"S_q{suffix}", values, len(scored)))


def _halves(suffix: str, scored: Sequence[Scored]) -> Estimate:
    """Upstream's S: each half over the answers that it has."""
    parts = (_lengths(suffix, scored), _qualities(suffix, scored))
    strata = tuple(replace(part.strata[0], weight=0.5) for part in parts)
    return to_hundred(Estimate(f"S{suffix}", strata, len(scored)))


def _of_both(suffix: str, scored: Sequence[Scored]) -> Estimate:
    """The mean of (S_l + S_q) / 2 over the answers that have both."""
    values = [
        (s.item.sample_id, (1 + s.length / 25 + s.quality) / 2)
        for s in scored
        if s.length is not None and s.quality is not None
    ]
    return to_hundred(mean_of(f"S{suffix}", values, len(scored)))


def to_hundred(estimate: Estimate) -> Estimate:
    """From 1..5 to 0..100: (x - 1) x 25."""
    return replace(estimate, scale=25.0, offset=-25.0)


def _dimension(place: int, name: str, scored: Sequence[Scored]) -> Estimate:
    values = [(s.item.sample_id, s.dimensions[place]) for s in scored if s.dimensions]
    return to_hundred(mean_of(f"S_q/{name}", values, len(scored)))


def _words(scored: Sequence[Scored]) -> Estimate:
    counted = [
        (s.item.sample_id, float(s.item.measures["words"])) for s in scored if s.item.measures
    ]
    return replace(mean_of("words", counted, len(scored), note="mean length"), bounded=False)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """For lm-eval: what every suite gives, and the length score, which needs no judge."""
    from r2w_eval import lmeval_tasks

    words = count_words(split_thinking(results[0]).answer)
    required = _required_lengths(doc["suite"])[doc["id"]]
    return {
        **lmeval_tasks.process_results(doc, results),
        "length_score": length_score(required, words),
    }


@cache
def _required_lengths(suite: str) -> Mapping[str, int]:
    info = load_info(suite)
    samples = load_suite(info.folder).load_samples(info.data(data_roots(None)))
    return {sample.id: sample.meta["length"] for sample in samples}


SUITE = Suite(
    load_samples=load_samples,
    load_templates=load_templates,
    criteria=criteria,
    plan_judging=plan_judging,
    parse_verdict={Mode.STRICT: parse_strict, Mode.PARITY: parse_parity},
    aggregate=aggregate,
    parity=ParityRules(ask_again=ask_again),
    measure=measure,
)
