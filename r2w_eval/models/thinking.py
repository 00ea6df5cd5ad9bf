"""Splits a raw reply into thinking and answer (specification: harness section 3, T1-T5).

The leading block ends at its first closing tag; later complete blocks that start a line are
thinking too (interleaved thinking); any other tag in the answer is text. Nothing is ever repaired
silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

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

    def after(self, prompt: str) -> Self:
        """These tags in a completion of a prompt that a chat template made.

        >>> ThinkTags().after("<|assistant|><think>\\n").opened_by_template
        True
        """
        is_opened = self.opened_by_template or prompt.rstrip().endswith(self.open)
        return replace(self, opened_by_template=is_opened)


@dataclass(frozen=True, slots=True)
class SplitText:
    """`thinking` is None when the text has none; `unclosed` means that no answer ever came."""

    thinking: str | None
    answer: str
    unclosed: bool = False
    multi_block: bool = False


class Block(NamedTuple):
    """One block of thinking in a raw text (characters): the thoughts from `start` to `end`, with
    their tags from `outer_start` to `outer_end`. A block without its closing tag ends with the
    text, and `end` is `outer_end`.
    """

    outer_start: int
    start: int
    end: int
    outer_end: int

    @property
    def is_closed(self) -> bool:
        """Its closing tag stands there."""
        return self.outer_end > self.end


def thinking_blocks(raw: str, tags: ThinkTags = ThinkTags()) -> list[Block]:
    """Every block of thinking, in order; only a block that is alone can lack its closing tag.

    >>> thinking_blocks("<think>plan</think>Once")
    [Block(outer_start=0, start=7, end=11, outer_end=19)]
    """
    start = len(raw) - len(raw.lstrip())
    if raw.startswith(tags.open, start):
        first = _block(raw, start, start + len(tags.open), tags)
    elif tags.opened_by_template or tags.close in raw.partition(tags.open)[0]:
        # a chat template may have opened the block, so that only its end is generated
        first = _block(raw, 0, 0, tags)
    else:
        return []
    return [first, *_later_blocks(raw, first.outer_end, tags)]


def _block(raw: str, outer_start: int, start: int, tags: ThinkTags) -> Block:
    end = raw.find(tags.close, start)
    if end < 0:
        return Block(outer_start, start, len(raw), len(raw))
    return Block(outer_start, start, end, end + len(tags.close))


def _later_blocks(raw: str, start: int, tags: ThinkTags) -> Iterator[Block]:
    """Complete blocks that start a line; what follows a block starts one."""
    opening = re.compile(rf"^[ \t]*{re.escape(tags.open)}", re.MULTILINE)
    rest, last = raw[start:], 0
    # the search for an end stops at the first block without one: linear for hostile texts
    while found := opening.search(rest, last):
        block = _block(raw, start + found.start(), start + found.end(), tags)
        if not block.is_closed:
            return
        yield block
        last = block.outer_end - start


def split_thinking(raw: str, tags: ThinkTags = ThinkTags()) -> SplitText:
    """Split by tags.

    >>> split_thinking("<think>plan</think>Once")
    SplitText(thinking='plan', answer='Once', unclosed=False, multi_block=False)
    >>> split_thinking("<think>plan").unclosed
    True
    """
    blocks = thinking_blocks(raw, tags)
    if not blocks:
        return SplitText(None, raw.strip())
    thoughts = [raw[block.start : block.end] for block in blocks]
    if not blocks[0].is_closed:
        return SplitText(thoughts[0], "", unclosed=True)
    starts = [block.outer_end for block in blocks]
    ends = [*(block.outer_start for block in blocks[1:]), len(raw)]
    answer = "".join(raw[a:b] for a, b in zip(starts, ends, strict=True))
    return SplitText("\n".join(thoughts).strip(), answer.strip(), multi_block=len(blocks) > 1)


def without_thinking(text: str, tags: ThinkTags = ThinkTags()) -> str:
    """The answer of a text that has thinking; any other text as it is.

    >>> without_thinking("<think>plan</think> Once"), without_thinking(" Once")
    ('Once', ' Once')
    """
    split = split_thinking(text, tags)
    return text if split.thinking is None else split.answer


def answer_of(text: str, tags: ThinkTags = ThinkTags()) -> str | None:
    """What stands after the thinking; None while the thinking is not closed, or nothing follows.

    >>> answer_of("<think>plan</think>Once"), answer_of("<think>plan")
    ('Once', None)
    """
    split = split_thinking(text, tags)
    return None if split.unclosed or not split.answer else split.answer


def read_reply_text(reply: Reply, tags: ThinkTags) -> SplitText:
    """Thinking from the server's field if it has one, else from the tags."""
    if reply.reasoning:
        return SplitText(reply.reasoning, reply.text.strip())
    return split_thinking(reply.text, tags)


def writer_status(reply: Reply, split: SplitText) -> WriterStatus:
    """The status of an answer, by the table of the specification. A refusal is one only where the
    API says so in its own field.
    """
    if reply.refusal and not reply.text:
        return WriterStatus.REFUSAL
    if split.unclosed:
        return WriterStatus.UNCLOSED_THINK
    if not split.answer:
        # a reply cut inside server-side reasoning never reached its answer
        cut = reply.reasoning and reply.finish_reason == "length"
        return WriterStatus.UNCLOSED_THINK if cut else WriterStatus.EMPTY
    return WriterStatus.TRUNCATED if reply.finish_reason == "length" else WriterStatus.OK
