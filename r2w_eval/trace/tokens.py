"""Maps segments from characters to policy tokens, by offsets that the caller has. Never tokenises.

Offsets are one (start, end) in characters of the decoded text per token. A token belongs to the
span that holds its first character; tokens that end inside a character stand at that character, so
the one that completes it and the ones before go together (specification: reward-model section 8).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from r2w_eval.errors import UsageError
from r2w_eval.trace.types import Span, Trace

Offsets = Sequence[tuple[int, int]]

# What a decoder writes for bytes that are not yet a character, or never become one
_INCOMPLETE = "\ufffd"
# A character has four bytes at most: one that is not complete after so many tokens never will be
_MAX_OPEN, _MAX_WINDOW = 3, 8


def offsets_of_pieces(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Offsets of tokens that were decoded one by one; "" for a token that completes nothing.

    >>> offsets_of_pieces(["Hi", "", "é"])
    [(0, 2), (2, 2), (2, 3)]
    """
    offsets = []
    position = 0
    for piece in pieces:
        offsets.append((position, position + len(piece)))
        position += len(piece)
    return offsets


def decode_pieces(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """The text that each token adds, by decoding a short growing window; linear in the tokens.

    `decode` is the tokenizer's own, with special tokens kept. The pieces joined are the decoded
    text, except that bytes which never become a character may stay out.
    """
    pieces = []
    start = read = 0
    for end in range(1, len(ids) + 1):
        before, now = decode(ids[start:read]), decode(ids[start:end])
        pieces.append("")
        if not now.endswith(_INCOMPLETE) and len(now) > len(before):
            pieces[-1] = now[len(before) :]
            start, read = read, end
        elif end - read >= _MAX_WINDOW:
            # else a policy that writes bytes only would have all of them decoded again each time
            done = end - _MAX_OPEN
            pieces[done - 1] = decode(ids[start:done])[len(before) :]
            start, read = read, done
    return pieces


def token_span(span: Span, offsets: Offsets) -> Span:
    """The tokens whose first character lies in `span`; empty where none does.

    >>> token_span(Span(2, 5), [(0, 2), (2, 4), (4, 6)])
    Span(start=1, end=3)
    """
    return Span(_first_from(offsets, span.start), _first_from(offsets, span.end))


def _first_from(offsets: Offsets, position: int) -> int:
    return bisect_left(offsets, position, key=lambda pair: pair[0])


def with_tokens(trace: Trace, offsets: Offsets) -> Trace:
    """The trace with `tokens` and `outer_tokens` set on every segment.

    `offsets` are those of all tokens, in characters of the trace's text. Raises UsageError when
    they do not ascend.
    """
    if any(a[0] > b[0] or a[1] < a[0] for a, b in zip(offsets, offsets[1:], strict=False)):
        raise UsageError(
            "token offsets do not ascend: expected one (start, end) per token, in the order of the "
            "text. Try: offsets_of_pieces(decode_pieces(ids, tokenizer.decode))"
        )
    return replace(
        trace,
        segments=tuple(
            segment._replace(
                tokens=token_span(segment.span, offsets),
                outer_tokens=token_span(segment.outer, offsets),
            )
            for segment in trace.segments
        ),
    )
