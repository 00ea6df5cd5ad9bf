"""The diagrams of the pages as inline SVG: boxes on a grid, arrows, theme colours."""

from __future__ import annotations

import html
from dataclasses import dataclass

WIDTH, HEIGHT, GAP_X, GAP_Y = 150, 46, 34, 26


@dataclass(frozen=True, slots=True)
class Box:
    """A box at (column, row); `note` is small print under the title."""

    title: str
    column: float
    row: float
    note: str = ""
    is_key: bool = False


@dataclass(frozen=True, slots=True)
class Diagram:
    """Boxes, and arrows between them by index."""

    label: str
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[int, int], ...]


DIAGRAMS = {
    "run": Diagram(
        "A run: samples go to the writer, answers to the judge, verdicts to the aggregate",
        (
            Box("suite", 0, 0, "samples, prompts"),
            Box("writer", 1, 0, "responses.jsonl", True),
            Box("judge", 2, 0, "judgements.jsonl", True),
            Box("aggregate", 3, 0, "results.json", True),
            Box("status: lost", 1, 1, "empty, refusal, …"),
            Box("status: lost", 2, 1, "parse_error, refused, …"),
            Box("compare, board", 3, 1, "same identity only"),
        ),
        ((0, 1), (1, 2), (2, 3), (1, 4), (2, 5), (3, 6)),
    ),
    "process": Diagram(
        "Process rewards: each reflection is scored and its score goes to its own tokens",
        (
            Box("draft", 0, 0, "in the thinking"),
            Box("reflection", 1, 0, "scored in [-1, 1]", True),
            Box("revision", 2, 0, "in the thinking"),
            Box("answer", 3, 0, "outcome reward"),
            Box("process term", 1, 1, "these tokens only", True),
            Box("outcome advantage", 3, 1, "all tokens"),
        ),
        ((0, 1), (1, 2), (2, 3), (1, 4), (3, 5)),
    ),
    "layers": Diagram(
        "Layers: each may import those below it, r2w_eval imports none of them",
        (
            Box("r2w_eval/cli", 1, 0, "composes everything"),
            Box("training", 0, 1, "stages, GRPO"),
            Box("leaderboards", 2, 1, "boards, verify"),
            Box("tasks/<suite>", 3, 1, "one folder each"),
            Box("reward_models", 0, 2, "r2w-reward"),
            Box("r2w_eval", 1.5, 3, "the core", True),
        ),
        ((0, 1), (0, 2), (0, 3), (1, 4), (4, 5), (2, 5), (3, 5)),
    ),
}


def draw(name: str) -> str:
    """One diagram as a block of HTML."""
    diagram = DIAGRAMS[name]
    columns = max(box.column for box in diagram.boxes) + 1
    rows = max(box.row for box in diagram.boxes) + 1
    width = columns * (WIDTH + GAP_X) - GAP_X + 4
    height = rows * (HEIGHT + GAP_Y) - GAP_Y + 4
    parts = [
        *(_arrow(diagram.boxes[a], diagram.boxes[b], name) for a, b in diagram.arrows),
        *(_box(box) for box in diagram.boxes),
    ]
    head = (
        f'<marker id="tip-{name}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" style="fill:currentColor"/>'
        "</marker>"
    )
    return (
        f'<div class="diagram"><svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{html.escape(diagram.label)}"><defs>{head}</defs>{"".join(parts)}</svg></div>'
    )


def _corner(box: Box) -> tuple[float, float]:
    return 2 + box.column * (WIDTH + GAP_X), 2 + box.row * (HEIGHT + GAP_Y)


def _box(box: Box) -> str:
    x, y = _corner(box)
    middle = x + WIDTH / 2
    key = ' class="key"' if box.is_key else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"{key}/>'
        f'<text x="{middle:g}" y="{y + (19 if box.note else 28):g}">{html.escape(box.title)}</text>'
        f'<text class="small" x="{middle:g}" y="{y + 36:g}">{html.escape(box.note)}</text>'
    )


def _arrow(start: Box, end: Box, name: str) -> str:
    """From right to left edge within a row, else from bottom to top edge."""
    (x, y), (u, v) = _corner(start), _corner(end)
    if start.row == end.row:
        points = f"M{x + WIDTH:g} {y + HEIGHT / 2:g} H{u:g}"
    else:
        points = f"M{x + WIDTH / 2:g} {y + HEIGHT:g} L{u + WIDTH / 2:g} {v:g}"
    return f'<path d="{points}" marker-end="url(#tip-{name})"/>'
