"""Revisions as patches: only the changed paragraphs, each under its number.

A long draft need not be written out twice; applying the patch gives the revised text byte for byte
(specification: r2write.md section 3.4). Readers of a trace get the patched text, so that a revision
in full and the same revision as a patch are equivalent.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from r2w_eval.errors import UsageError
from r2w_eval.trace.types import Kind

_BREAK = re.compile(r"\n\s*\n")
# alone on its line: "[1] Smith 2020" is a line of a text
_HEAD = re.compile(r"^\[(\d{1,4})\][ \t]*\r?$", re.MULTILINE)


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, as blank lines part them."""
    return [part for part in _BREAK.split(text.strip()) if part.strip()]


def numbered(text: str) -> str:
    """The text with a number over every paragraph.

    >>> print(numbered("One.\\n\\nTwo."))
    [1]
    One.
    <BLANKLINE>
    [2]
    Two.
    """
    return "\n\n".join(f"[{i}]\n{part}" for i, part in enumerate(paragraphs(text), 1))


def is_patch(text: str) -> bool:
    """The text begins with a number alone on its line.

    >>> is_patch("[2]\\nNew."), is_patch("[2] New."), is_patch("New.\\n[2]\\n")
    (True, False, False)
    """
    return _HEAD.match(text.lstrip()) is not None


def read_patch(patch: str) -> dict[int, str]:
    """The new paragraphs by number; an empty one takes its paragraph out. Raises UsageError.

    Numbers ascend: one that does not is no head but a line of somebody's list, and the patch cannot
    be told from its text.

    >>> read_patch("[2]\\nNew.\\n\\n[3]\\n")
    {2: 'New.', 3: ''}
    """
    if not is_patch(patch):
        raise UsageError(
            f"patch {patch[:80]!r}: expected paragraphs under their numbers, as in [2] on a line "
            f"of its own and then the text. Ask for a full revision instead"
        )
    heads = list(_HEAD.finditer(patch))
    numbers = [int(head[1]) for head in heads]
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise UsageError(
            f"patch: paragraphs {numbers} in this order; expected each once, ascending. Ask for a "
            f"full revision instead"
        )
    ends = [head.start() for head in heads[1:]] + [len(patch)]
    texts = [patch[head.end() : end].strip() for head, end in zip(heads, ends, strict=True)]
    return dict(zip(numbers, texts, strict=True))


def apply_patch(text: str, patch: str) -> str:
    """The revised text. Raises UsageError for a number that no paragraph has, or an empty result.

    >>> apply_patch("One.\\n\\nTwo.", "[2]\\nNew.")
    'One.\\n\\nNew.'
    """
    parts = paragraphs(text)
    changes = read_patch(patch)
    for number in changes:
        if not 1 <= number <= len(parts):
            raise UsageError(f"patch: no paragraph {number}; the text has 1 to {len(parts)}")
    revised = [part for n, own in enumerate(parts, 1) if (part := changes.get(n, own))]
    if not revised:
        raise UsageError("patch: takes every paragraph out. Expected one at least to stay")
    return "\n\n".join(revised)


@dataclass(frozen=True, slots=True)
class Version:
    """A text as it stands after a draft or a revision; `fits` is False for a patch that changes
    nothing, because it does not fit the text before it.
    """

    text: str
    fits: bool = True


class Allowance:
    """Limit on the characters that applying all patches of one trace may produce.

    A patch of one line produces a whole text, so that a degenerate trace with ten thousand patches
    would produce ten thousand texts. No trace of ordinary length reaches the limit.
    """

    FREE, SHARE = 8_000_000, 4

    def __init__(self, length: int) -> None:
        self._left = self.FREE + self.SHARE * length

    def take(self, n: int) -> bool:
        """Whether there are `n` left; they are taken."""
        self._left -= n
        return self._left >= 0


def versions(parts: Sequence[tuple[Kind, str]]) -> Iterator[Version]:
    """The whole text after each part: after a patch, the text that it makes of the one before.

    >>> parts = [(Kind.DRAFT, "One.\\n\\nTwo."), (Kind.REVISION, "[2]\\nNew.")]
    >>> [version.text for version in versions(parts)]
    ['One.\\n\\nTwo.', 'One.\\n\\nNew.']
    """
    allowance = Allowance(sum(len(text) for _, text in parts))
    current = Version("")
    for kind, text in parts:
        if kind is Kind.DRAFT:
            current = Version(text)
        elif kind is Kind.REVISION:
            current = revise(current.text, text, allowance)
        else:
            current = Version(current.text)
        yield current


def revise(base: str, revision: str, allowance: Allowance) -> Version:
    """The text after one revision."""
    if not is_patch(revision):
        return Version(revision)
    try:
        if allowance.take(len(base)):
            return Version(apply_patch(base, revision))
    except UsageError:
        pass
    # nothing follows from it; without a text before it the patch is all there is
    return Version(base or revision, fits=False)
