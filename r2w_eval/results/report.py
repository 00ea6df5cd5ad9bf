"""The report page of a run: one self-contained HTML file, readable with scripts off.

Texts are streamed from the record files; at most `MAX_TEXTS` answers are shown in full, failures
first, then lowest, highest and evenly spaced ones. Everything is escaped, nothing is loaded, and a
strict content-security policy stands in the page (specification: harness D2, D3, S5).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from r2w_eval import __version__
from r2w_eval.hashing import content_hash, policy_hash
from r2w_eval.paths import packaged_text
from r2w_eval.plots import distribution_svg, intervals_svg, length_svg
from r2w_eval.records.plan import TaskPlan
from r2w_eval.results.counts import SampleRow
from r2w_eval.results.summary import TaskResult
from r2w_eval.store import RunFolder, write_atomically
from r2w_eval.types import Judgement, Metric

MAX_TEXTS = 200
MAX_CHARS = 20_000
MAX_RAW_CHARS = 4_000
_HEAD_BYTES = 1_000
_MISLEADING = dict.fromkeys(map(ord, "\x00\u202a\u202b\u202d\u202e\u2066\u2067\u2068"))


@dataclass(frozen=True, slots=True)
class VerdictView:
    """One verdict as the page shows it; `place` is criterion, repeat and order, which sort them."""

    place: tuple[str, int, str]
    criterion: str
    value: str
    status: str
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class AnswerView:
    """One answer as the page shows it, already cut to length."""

    sample_id: str
    status: str
    value: str
    prompt: str
    thinking: str
    answer: str
    verdicts: tuple[VerdictView, ...]

    @property
    def n_lost(self) -> int:
        """Verdicts without a usable value."""
        return sum(verdict.status != "ok" for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task under one judge."""

    result: TaskResult
    groups: Mapping[str, Sequence[Metric]]
    plots: Sequence[str]
    answers: Sequence[AnswerView]
    n_hidden: int


def write_report(
    folder: RunFolder,
    results: Sequence[TaskResult],
    plans: Sequence[TaskPlan],
    manifest: Mapping[str, Any],
) -> None:
    """Write report.html, unless the existing one was made from the same data.

    The same run folder gives the same bytes.
    """
    made_from = _fingerprint(folder, results, manifest)
    if _is_made_from(folder.report_path, made_from):
        return
    shown = [choose_rows(result.samples) for result in results]
    wanted: dict[str, set[str]] = defaultdict(set)
    for result, rows in zip(results, shown, strict=True):
        wanted[result.task].update(row.sample_id for row in rows)
    prompts = {plan.info.name: _prompts(plan, wanted[plan.info.name]) for plan in plans}
    texts = _read_texts(folder, {row.response_key for rows in shown for row in rows} - {""})
    views = [
        _task_view(result, rows, prompts[result.task], texts)
        for result, rows in zip(results, shown, strict=True)
    ]
    script = packaged_text("templates/report.js")
    page = _template().render(
        manifest=manifest,
        made_from=made_from,
        views=views,
        style=packaged_text("templates/report.css"),
        script=script,
        script_hash=policy_hash(script),
        max_texts=MAX_TEXTS,
    )
    # lone surrogates of a model's text cannot be encoded; they become question marks here only
    write_atomically(folder.report_path, page.encode("utf-8", "replace"))


def _fingerprint(
    folder: RunFolder, results: Sequence[TaskResult], manifest: Mapping[str, Any]
) -> str:
    """What the page is made from, as a hash."""
    sources = [packaged_text(f"templates/report.{kind}") for kind in ("html", "css", "js")]
    return content_hash([results, manifest, folder.record_sizes(), sources, __version__])


def _is_made_from(page: Path, made_from: str) -> bool:
    try:
        with page.open("rb") as file:
            return f'content="{made_from}"'.encode() in file.read(_HEAD_BYTES)
    except FileNotFoundError:
        return False


@cache
def _template() -> jinja2.Template:
    """The page, compiled once for all runs of a process."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = _number
    return environment.from_string(packaged_text("templates/report.html"))


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _task_view(
    result: TaskResult, shown: Sequence[SampleRow], prompts: Mapping[str, str], texts: _Texts
) -> TaskView:
    answers = [
        _answer_view(result.judge, row, prompts.get(row.sample_id, ""), texts) for row in shown
    ]
    groups: dict[str, list[Metric]] = defaultdict(list)
    for metric in result.metrics:
        groups[metric.name.partition("/")[0] if "/" in metric.name else ""].append(metric)
    values = [row.value for row in result.samples if row.value is not None]
    lengths = [(row.answer_chars, row.value) for row in result.samples if row.value is not None]
    plots = [
        distribution_svg(values, "Mean verdict of an answer", "answers"),
        intervals_svg([m for m in result.metrics if m.value is not None][:30]),
        length_svg(lengths),
    ]
    return TaskView(result, groups, plots, answers, len(result.samples) - len(shown))


def choose_rows(rows: Sequence[SampleRow], limit: int = MAX_TEXTS) -> list[SampleRow]:
    """Which answers are shown in full when there are too many: see the module's docstring."""
    if len(rows) <= limit:
        return list(rows)
    failed = [row for row in rows if row.value is None][: limit // 4]
    scored = sorted((r for r in rows if r.value is not None), key=lambda r: (r.value, r.sample_id))
    edge = limit // 4
    middle = scored[edge:-edge]
    room = limit - len(failed) - 2 * edge
    step = max(1, len(middle) // room)
    chosen = [*failed, *scored[:edge], *scored[-edge:], *middle[::step][:room]]
    keys = {(row.sample_id, row.repeat) for row in chosen}
    return [row for row in rows if (row.sample_id, row.repeat) in keys]


def _prompts(plan: TaskPlan, wanted: Collection[str]) -> dict[str, str]:
    return {s.id: s.messages[-1].content for s in plan.samples() if s.id in wanted}


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts of the answers that some result shows, cut to length.

    `answers` holds thinking and answer by response key; `verdicts` is by judge and response key,
    then by key of the judgement.
    """

    answers: Mapping[str, tuple[str, str]]
    verdicts: Mapping[tuple[str, str], Mapping[str, VerdictView]]


def _read_texts(folder: RunFolder, wanted: Collection[str]) -> _Texts:
    """One pass over each record file, however many results there are."""
    answers = {
        response.key: (
            cut_text(response.thinking or ""),
            cut_text(response.answer or response.reason),
        )
        for response in folder.responses()
        if response.key in wanted
    }
    verdicts: dict[tuple[str, str], dict[str, VerdictView]] = defaultdict(dict)
    for judgement in folder.judgements():
        if judgement.response_key in wanted:
            own = verdicts[judgement.judge, judgement.response_key]
            own[judgement.key] = _verdict_view(judgement)
    return _Texts(answers, verdicts)


def _answer_view(judge: str, row: SampleRow, prompt: str, texts: _Texts) -> AnswerView:
    thinking, answer = texts.answers.get(row.response_key, ("", ""))
    verdicts = texts.verdicts.get((judge, row.response_key), {})
    return AnswerView(
        sample_id=row.sample_id,
        status=row.status,
        value=_number(row.value),
        prompt=cut_text(prompt),
        thinking=thinking,
        answer=answer,
        verdicts=tuple(sorted(verdicts.values(), key=lambda verdict: verdict.place)),
    )


def _verdict_view(judgement: Judgement) -> VerdictView:
    score = judgement.score
    reason = score.parts.get("reason") or score.reason
    return VerdictView(
        place=(judgement.criterion, judgement.repeat, judgement.order),
        criterion=judgement.criterion,
        value=_number(score.value),
        status=str(score.status),
        reason=cut_text(str(reason), MAX_RAW_CHARS),
        raw=cut_text("\n\n--- asked again ---\n\n".join(judgement.asks), MAX_RAW_CHARS),
    )


def cut_text(text: str, limit: int = MAX_CHARS) -> str:
    """At most `limit` characters, without NUL and direction overrides, which could mislead a
    reader.
    """
    clean = text[:limit].translate(_MISLEADING)
    return clean if len(text) <= limit else f"{clean}\n[… cut: {len(text):,} characters in all]"
