"""Splits a raw reply into thinking and answer (specification: harness section 3, T1-T5).

The leading block ends at its first closing tag; later complete blocks that start a line are
thinking too (interleaved thinking); any other tag in the answer is text. Nothing is ever repaired
silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from r2w_eval.models.chat import Reply
from r2w_eval.types import WriterStatus


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """How a model marks its thinking. `opened_by_template`: the prompt already ends in the open
    tag.
    """

    open: str = "<think>"
    close: str = "</think>"
    opened_by_template: bool = False


@dataclass(frozen=True, slots=True)
class SplitText:
    """`thinking` is None when the text has none; `unclosed` means that no answer ever came."""

    thinking: str | None
    answer: str
    unclosed: bool = False
    multi_block: bool = False


def split_thinking(raw: str, tags: ThinkTags = ThinkTags()) -> SplitText:
    """Split by tags.

    >>> split_thinking("<think>plan</think>Once")
    SplitText(thinking='plan', answer='Once', unclosed=False, multi_block=False)
    >>> split_thinking("<think>plan").unclosed
    True
    """
    start = raw.lstrip()
    if start.startswith(tags.open):
        body = start[len(tags.open) :]
    elif tags.opened_by_template or (tags.close in raw and tags.open not in raw):
        # a chat template may have opened the block, so that only its end is generated
        body = raw
    else:
        return _split_later_blocks(None, raw, tags)
    thinking, closed, answer = body.partition(tags.close)
    if not closed:
        return SplitText(thinking, "", unclosed=True)
    return _split_later_blocks(thinking, answer, tags)


def answer_of(text: str, tags: ThinkTags = ThinkTags()) -> str | None:
    """What stands after the thinking; None while the thinking is not closed, or nothing follows.

    >>> answer_of("<think>plan</think>Once"), answer_of("<think>plan")
    ('Once', None)
    """
    split = split_thinking(text, tags)
    return None if split.unclosed or not split.answer else split.answer


def _split_later_blocks(thinking: str | None, rest: str, tags: ThinkTags) -> SplitText:
    if thinking is None:
        return SplitText(None, rest.strip())
    opening = re.compile(rf"^[ \t]*{re.escape(tags.open)}", re.MULTILINE)
    thoughts, pieces, last = [thinking], [], 0
    # the search for an end stops at the first block without one: linear for hostile texts
    while (start := opening.search(rest, last)) and (
        end := rest.find(tags.close, start.end())
    ) >= 0:
        pieces.append(rest[last : start.start()])
        thoughts.append(rest[start.end() : end])
        last = end + len(tags.close)
    pieces.append(rest[last:])
    return SplitText("\n".join(thoughts).strip(), "".join(pieces).strip(), False, len(pieces) > 1)


def read_reply_text(reply: Reply, tags: ThinkTags) -> SplitText:
    """Thinking from the server's field if it has one, else from the tags."""
    if reply.reasoning:
        return SplitText(reply.reasoning, reply.text.strip())
    return split_thinking(reply.text, tags)


def writer_status(reply: Reply, split: SplitText) -> WriterStatus:
    """The writer's status by the table of the specification; refusals come from the API's field."""
    if reply.refusal and not reply.text:
        return WriterStatus.REFUSAL
    if split.unclosed:
        return WriterStatus.UNCLOSED_THINK
    if not split.answer:
        # a reply cut inside server-side reasoning never reached its answer
        cut = reply.reasoning and reply.finish_reason == "length"
        return WriterStatus.UNCLOSED_THINK if cut else WriterStatus.EMPTY
    return WriterStatus.TRUNCATED if reply.finish_reason == "length" else WriterStatus.OK
