"""What `judge-check` asks a judge: single texts, null answers, repeats, pairs in both orders.

Pure functions of the labelled sets and the options; one request's questions stand together, so
that servers with a prefix cache find what their prompts share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from r2w_eval.comparison.pairwise import ORDERS, Contest, build_request, parse_label
from r2w_eval.judge.parsing import TEN_POINTS, read_ten_points
from r2w_eval.judge_check.figures import null_place, pair_place, text_place
from r2w_eval.judge_check.labelled import LabelledItem, LabelledPair, LabelledSet, spread
from r2w_eval.judge_check.nulls import null_answers, partners
from r2w_eval.run.questions import Question
from r2w_eval.template import Template, load_prompt
from r2w_eval.types import JudgeRequest, Message

BOUNDS = (1.0, 10.0)


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What is checked. Limits keep evenly spaced parts of a set; None keeps all."""

    labels: str | None = None
    sets: str = ""
    max_texts: int | None = None
    max_chars: int | None = None
    probes: int = 30
    pairs: int = 100


def check_templates() -> tuple[Template, Template]:
    """System and user prompt for a single text."""
    return load_prompt("check_system"), load_prompt("check_user")


def text_question(labelled: LabelledSet, item: LabelledItem, place: str, text: str) -> Question:
    """How good is one text?"""
    system, user = check_templates()
    content = user.fill(prompt=item.prompt, answer=text)
    messages = (Message("system", system.fill()), Message("user", content))
    request = JudgeRequest("quality", messages, TEN_POINTS)
    return Question(labelled.spec.name, place, request, read_ten_points, item.prompt, text)


def pair_questions(
    labelled: LabelledSet, item: LabelledItem, pair: LabelledPair
) -> Iterator[Question]:
    """Which of two texts is better, in both orders?"""
    first, second = item.text(pair.first).text, item.text(pair.second).text
    contest = Contest(item.id, pair.first, pair.second, item.prompt, first, second)
    for order in ORDERS:
        request = build_request(contest, order)
        yield Question(labelled.spec.name, pair_place(item, pair), request, parse_label)


def plan_questions(
    labelled: LabelledSet, options: CheckOptions, n_repeats: int, with_pairs: bool
) -> Iterator[Question]:
    """All questions about one set, item by item, so that servers find what prompts share."""
    probes = spread(labelled.items, options.probes)
    others = dict(zip((item.id for item in probes), partners(probes), strict=True))
    chosen = choose_pairs(labelled, options.pairs if with_pairs else 0)
    for item in labelled.items:
        is_probe = item.id in others
        for text in item.texts:
            question = text_question(labelled, item, text_place(item, text.id), text.text)
            for repeat in range(n_repeats if is_probe else 1):
                yield replace(question, repeat=repeat)
        if is_probe:
            for null in null_answers(item, others[item.id], labelled.spec.language):
                yield text_question(labelled, item, null_place(item, null.name), null.text)
        if item.id in chosen:
            yield from pair_questions(labelled, item, chosen[item.id])


def choose_pairs(labelled: LabelledSet, n: int) -> dict[str, LabelledPair]:
    """At most `n` items with the pair that people tell apart most clearly, by item."""
    with_pairs = [item for item in labelled.items if item.pairs]
    return {
        item.id: max(item.pairs, key=lambda pair: abs(pair.human)) for item in spread(with_pairs, n)
    }
