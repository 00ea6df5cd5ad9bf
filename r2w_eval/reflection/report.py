"""The trace viewer: one self-contained HTML page, readable with scripts off.

Draft, reflection and revision of every step side by side, the diff coloured, each trace as a bar,
filters for reflections that brought nothing. Everything is escaped, nothing is loaded, and a strict
content-security policy stands in the page (specification: harness D3, S5).
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from r2w_eval.hashing import policy_hash
from r2w_eval.paths import packaged_text
from r2w_eval.reflection.analysis import Analysis, Outcome
from r2w_eval.reflection.display import describe, interval, number
from r2w_eval.reflection.measures import ReflectionSummary
from r2w_eval.reflection.plots import outcomes_svg, score_against_tokens_svg
from r2w_eval.store import write_atomically
from r2w_eval.trace.diff import EditKind, covers, merged
from r2w_eval.trace.links import ReflectionLink
from r2w_eval.trace.types import Segment, Span

MAX_TRACES = 200
MAX_STEPS = 40
MAX_CHARS = 6_000
# Of the texts of all steps on a page, shared by its traces: a browser opens no 100 MB well
MAX_STEP_CHARS = 10_000_000

# Direction overrides and NUL could mislead a reader: shown as a mark, one for one
_HIDDEN = str.maketrans(dict.fromkeys("\x00\u202a\u202b\u202d\u202e\u2066\u2067\u2068", "\ufffd"))


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text and the CSS classes it is shown with."""

    text: str
    classes: str


@dataclass(frozen=True, slots=True)
class StepView:
    """One reflection as the page shows it; `flags` are the filters it passes."""

    number: int
    base: tuple[Piece, ...]
    reflection: str
    outcome: tuple[Piece, ...]
    in_answer: bool
    notes: tuple[str, ...]
    effect: str
    flags: str


@dataclass(frozen=True, slots=True)
class BarView:
    """One segment in the timeline; `share` in per cent of the thinking tokens."""

    kind: str
    share: float
    tokens: int


@dataclass(frozen=True, slots=True)
class TraceView:
    """One response as the page shows it."""

    id: str
    score: str
    tokens: int
    answer_tokens: int
    faults: str
    prompt: str
    bars: tuple[BarView, ...]
    pieces: tuple[Piece, ...]
    steps: tuple[StepView, ...]
    n_hidden_steps: int
    flags: str


@dataclass(frozen=True, slots=True)
class TaskView:
    """All traces of one task."""

    name: str
    summary: ReflectionSummary
    description: str
    plots: tuple[str, ...]
    traces: tuple[TraceView, ...]
    n_hidden: int


def write_viewer(
    path: Path,
    title: str,
    analyses: Mapping[str, Sequence[Analysis]],
    summaries: Mapping[str, ReflectionSummary],
) -> None:
    """Write the page. The same analyses give the same bytes."""
    n_traces = sum(
        min(MAX_TRACES, sum(a.trace is not None for a in own)) for own in analyses.values()
    )
    room = MAX_STEP_CHARS // max(1, n_traces)
    views = [task_view(task, own, summaries[task], room) for task, own in analyses.items()]
    script = packaged_text("templates/reflect.js")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["number"] = number
    page = environment.from_string(packaged_text("templates/reflect.html")).render(
        title=title,
        views=views,
        interval=interval,
        style=packaged_text("templates/report.css") + packaged_text("templates/reflect.css"),
        script=script,
        script_hash=policy_hash(script),
    )
    write_atomically(path, page.encode("utf-8", "replace"))


def task_view(
    task: str, analyses: Sequence[Analysis], summary: ReflectionSummary, room: int
) -> TaskView:
    """The traces with most reflections first; at most `MAX_TRACES` of them, with `room` characters
    for the steps of each.
    """
    thinking = [analysis for analysis in analyses if analysis.trace is not None]
    ordered = sorted(thinking, key=lambda a: (-len(a.links), a.source.id))
    shown = ordered[:MAX_TRACES]
    plots = (score_against_tokens_svg(analyses), outcomes_svg(analyses))
    return TaskView(
        name=task,
        summary=summary,
        description=describe(summary),
        plots=tuple(plot for plot in plots if plot),
        traces=tuple(trace_view(analysis, room) for analysis in shown),
        n_hidden=len(ordered) - len(shown),
    )


def trace_view(analysis: Analysis, room: int) -> TraceView:
    """One trace: bar, text, and the first steps, whose texts take no more than `room` characters
    where there is more than one.
    """
    trace = analysis.trace
    assert trace is not None, "only responses that think are shown"
    links = analysis.links[:MAX_STEPS]
    ends = list(itertools.accumulate(map(_step_chars, links)))
    links = links[: max(1, bisect_right(ends, room))]
    steps = tuple(step_view(analysis, link) for link in links)
    flags = sorted({flag for step in steps for flag in step.flags.split()})
    return TraceView(
        id=analysis.source.id,
        score="" if analysis.source.score is None else number(analysis.source.score),
        tokens=analysis.thinking_tokens,
        answer_tokens=analysis.answer_tokens,
        faults=", ".join(sorted({str(fault) for fault in analysis.faults})),
        prompt=_shown(analysis.source.prompt),
        bars=_bars(trace.segments, analysis.segment_tokens),
        pieces=_segment_pieces(trace.text, trace.segments),
        steps=steps,
        n_hidden_steps=len(analysis.links) - len(links),
        flags=" ".join(flags),
    )


def _step_chars(link: ReflectionLink) -> int:
    return sum(min(len(text or ""), MAX_CHARS) for text in (link.base, link.text, link.outcome))


def _bars(segments: Sequence[Segment], tokens: Sequence[float]) -> tuple[BarView, ...]:
    total = sum(tokens) or 1.0
    return tuple(
        BarView(str(segment.kind), round(100 * own / total, 3), round(own))
        for segment, own in list(zip(segments, tokens, strict=True))[:400]
    )


def _segment_pieces(text: str, segments: Sequence[Segment]) -> tuple[Piece, ...]:
    pieces = []
    position = 0
    for segment in segments:
        if segment.span.start >= MAX_CHARS * 3:
            pieces.append(Piece(f"\n[… cut: {len(text):,} characters in all]", ""))
            break
        if segment.span.start > position:
            pieces.append(Piece(text[position : segment.span.start].translate(_HIDDEN), "tag"))
        pieces.append(Piece(_shown(segment.span.cut(text)), f"seg {segment.kind}"))
        position = segment.span.end
    return tuple(pieces)


def step_view(analysis: Analysis, link: ReflectionLink) -> StepView:
    """One step: base with targets and losses, outcome with what is new."""
    effect = analysis.effects.get(link.step.index)
    gone = [e.old for e in link.edits if e.kind in (EditKind.DELETE, EditKind.REPLACE)]
    come = [e.new for e in link.edits if e.kind in (EditKind.INSERT, EditKind.REPLACE)]
    moved = [e for e in link.edits if e.kind is EditKind.MOVE]
    base_marks = {
        "target": [t.span for t in link.targets],
        "del": gone,
        "move": [e.old for e in moved],
    }
    return StepView(
        number=link.step.index + 1,
        base=mark_text(link.base or "", base_marks),
        reflection=_shown(link.text),
        outcome=mark_text(link.outcome or "", {"ins": come, "move": [e.new for e in moved]}),
        in_answer=link.in_answer,
        notes=_notes(link),
        effect="" if effect is None else _effect_text(effect.outcome, effect.gain),
        flags=" ".join(_flags(link, effect.outcome if effect else None)),
    )


def _effect_text(outcome: Outcome, gain: float | None) -> str:
    return str(outcome) if gain is None else f"{outcome} {gain:+.2f}"


def _notes(link: ReflectionLink) -> tuple[str, ...]:
    notes = [f"level {link.level or 'unknown'}", f"specificity {link.specificity:.2f}"]
    if link.uptake.lift is not None:
        notes.append(f"uptake lift {link.uptake.lift:+.2f}")
    if link.step.earlier:
        notes.append(f"similarity to earlier {link.similarity:.2f}")
    if link.n_misquoted:
        notes.append(f"{link.n_misquoted} quotation(s) not in the text before")
    return tuple(notes)


def _flags(link: ReflectionLink, outcome: Outcome | None) -> list[str]:
    wanted = {
        "useless": link.is_useless,
        "repeat": link.is_repeat,
        "praise": link.is_praise,
        "ignored": link.uptake.is_taken_up is False,
        "untargeted": not link.targets,
    }
    flags = [name for name, holds in wanted.items() if holds]
    return [*flags, str(outcome)] if outcome else flags


def mark_text(text: str, marks: Mapping[str, Sequence[Span]]) -> tuple[Piece, ...]:
    """Cut a text where marks begin and end; marks may overlap.

    >>> [(p.text, p.classes) for p in mark_text("a red door", {"del": [Span(2, 5)]})]
    [('a ', ''), ('red', 'del'), (' door', '')]
    """
    clean = text[:MAX_CHARS].translate(_HIDDEN)
    ordered = {name: merged([s for s in spans if len(s)]) for name, spans in marks.items()}
    borders = {0, len(clean)}
    for spans in ordered.values():
        borders.update(min(end, len(clean)) for span in spans for end in (span.start, span.end))
    cuts = sorted(borders)
    pieces = [
        Piece(clean[a:b], " ".join(n for n, spans in ordered.items() if covers(spans, Span(a, b))))
        for a, b in zip(cuts, cuts[1:], strict=False)
    ]
    if len(text) > MAX_CHARS:
        pieces.append(Piece(f"\n[… cut: {len(text):,} characters in all]", "tag"))
    return tuple(pieces)


def _shown(text: str) -> str:
    clean = text[:MAX_CHARS].translate(_HIDDEN)
    return clean if len(text) <= MAX_CHARS else f"{clean}\n[… cut: {len(text):,} characters in all]"
